"""Access keys of boto3's default chain or of a profile, renewed before they end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hop_archive.errors import ForbiddenError

_OBSTORE_RENEWS_S = 300
"""obstore asks for new keys when those it has end within this, at most ten times a second (0.12, 2026-11-24)."""

_KEPT = timedelta(seconds=60)
"""For how long obstore keeps keys that do not end soon."""


def session(profile: str = "") -> Any:
    """Return a boto3 session of a profile, or of the default chain.

    Raises:
        botocore.exceptions.ProfileNotFound: There is no such profile.
    """
    import boto3

    return boto3.Session(profile_name=profile or None)


@dataclass(slots=True)
class RenewedKeys:
    """Keys of the default chain or of a profile, as obstore asks for them: renewed before they end.

    A task's or instance's role, a single sign-on or a credential process gives keys that live for hours or minutes.
    botocore renews those that would end within ten minutes whenever it is asked for them. obstore asks each minute;
    for keys that end sooner than it would ask again, at the next request.

    Attributes:
        credentials: botocore's, of a session.
    """

    credentials: Any

    @classmethod
    def of(cls, profile: str = "") -> RenewedKeys:
        """Find credentials; those of a role are asked for now, and this may take seconds.

        Raises:
            botocore.exceptions.BotoCoreError: The profile is not there, or the chain is broken; ``NoCredentialsError``
                where no link of it has any.
        """
        from botocore.exceptions import NoCredentialsError

        found = session(profile).get_credentials()
        if found is None:
            raise NoCredentialsError
        return cls(found)

    def __call__(self) -> Any:
        """Return the keys, a token if they have one, and until when to keep them."""
        keys = self._frozen()
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": datetime.now(UTC) + (timedelta(seconds=1) if self._ends_soon() else self._life()),
        }

    def _frozen(self) -> Any:
        from botocore.exceptions import CredentialRetrievalError

        try:
            return self.credentials.get_frozen_credentials()
        except CredentialRetrievalError as error:
            provider = error.kwargs.get("provider", "?")
        raise ForbiddenError(f"The credentials have ended, and {provider} gave no new ones.")

    def _ends_soon(self) -> bool:
        """Keys that never end, as written in a file or in variables, know no ``refresh_needed``."""
        needed = getattr(self.credentials, "refresh_needed", None)
        return needed is not None and bool(needed(refresh_in=2 * _KEPT.total_seconds()))

    @staticmethod
    def _life() -> timedelta:
        return timedelta(seconds=_OBSTORE_RENEWS_S) + _KEPT
