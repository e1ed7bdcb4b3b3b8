"""Asking AWS: for whom, where, how patiently; and which keys the default chain has now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from hop_archive.aws.refusals import Subject, translated
from hop_archive.errors import ForbiddenError

Answer = TypeVar("Answer")

_CONNECT_S = 2.0
_READ_S = 3.0
_ATTEMPTS = 2
"""With the pause between them two attempts take less than 10 s when nothing answers."""

_OBSTORE_RENEWS_S = 300
"""obstore asks for new keys when those it has end within this, at most ten times a second (0.12, 2026-11-24)."""

_KEPT = timedelta(seconds=60)
"""For how long obstore keeps keys that do not end soon."""


def ask(subject: Subject, service: str, call: Callable[[Any], Answer]) -> Answer:
    """Make a client of one AWS service, and return what ``call`` has of it.

    Takes at most about 10 s for each request of the call. Nothing is asked of a metadata service for longer than
    boto3 does by default, which is two seconds.

    Raises:
        MissingSettingError: What was asked for, or the profile, is not there.
        ForbiddenError: There are no credentials, or they have expired, or do not allow it.
        ConfigurationError: The region, or another setting, is nothing that AWS knows.
        UnavailableError: AWS does not answer, or says that it cannot now.
    """
    return explained(subject, lambda: call(client(subject, service)))


def explained(subject: Subject, call: Callable[[], Answer]) -> Answer:
    """Return what ``call`` returns; what boto3 raises becomes an error of ours, as those of ``ask``."""
    import botocore.exceptions as boto

    try:
        return call()
    except (
        boto.ClientError,
        boto.BotoCoreError,
        ValueError,
    ) as error:  # ValueError: an endpoint that is no URL
        failed = error
    # What a credential process wrote to its error output is in that error's text: it stays out of every log.
    raise translated(subject, failed) from _showable(failed)


def client(subject: Subject, service: str, read_s: float | None = None) -> Any:
    """Return a boto3 client for any number of requests, which gives up soon, or ``read_s`` after each was sent.

    It takes a tenth of a second to make. It and its calls raise boto3's errors: see ``explained``.
    """
    from botocore.config import Config

    patience = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=read_s or _READ_S,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
    )
    return session(subject.profile).client(service, region_name=subject.region, config=patience)


def session(profile: str = "") -> Any:
    """Return a boto3 session of a profile, or of the default chain.

    Raises:
        botocore.exceptions.ProfileNotFound: There is no such profile.
    """
    import boto3

    return boto3.Session(profile_name=profile or None)


def _showable(error: Exception) -> Exception | None:
    import botocore.exceptions as boto

    return None if isinstance(error, boto.CredentialRetrievalError) else error


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
