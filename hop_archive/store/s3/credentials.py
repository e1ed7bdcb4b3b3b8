"""Access keys of boto3's default chain or of a profile, renewed before they end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias

from hop_archive.errors import ForbiddenError

KeyProvider: TypeAlias = Callable[[], Any]
"""What obstore calls for keys: ``access_key_id``, ``secret_access_key``, ``token`` and ``expires_at``."""

_OBSTORE_RENEWS_S = 300
"""obstore asks for new keys when those it has end within this, at most ten times a second (0.12, 2026-11-24)."""

_KEPT = timedelta(seconds=60)
"""For how long obstore keeps keys that do not end soon."""


def session(profile: str = "") -> Any:
    """Return a boto3 session of a profile, or of the default chain.

    All sessions read the files that describe AWS's services through one loader, which keeps what it read: a client took
    0.11 s of CPU, and takes 0.02 s from the second on (boto3 1.44, 2026-11-29).

    Raises:
        botocore.exceptions.ProfileNotFound: There is no such profile.
    """
    import boto3
    import botocore.session

    core = botocore.session.get_session()
    if profile:
        core.set_config_variable("profile", profile)
    loader = _loader(core.get_config_variable("data_path"))
    core.register_component("data_loader", loader)
    made = boto3.Session(botocore_session=core)
    loader.search_paths[:] = dict.fromkeys(
        loader.search_paths
    )  # each session of boto3 adds its own directory
    return made


@lru_cache
def _loader(data_path: str | None) -> Any:
    from botocore.loaders import create_loader

    return create_loader(data_path)


def stated_keys(access_key: str, secret_key: str) -> KeyProvider:
    """Return keys that never end, as obstore asks for them."""
    keys = {"access_key_id": access_key, "secret_access_key": secret_key, "token": None, "expires_at": None}
    return lambda: keys


def renewed_keys(profile: str = "") -> KeyProvider:
    """Return keys of the default chain or of a profile, as obstore asks for them: renewed before they end.

    A task's or instance's role, a single sign-on or a credential process gives keys that live for hours or minutes.
    botocore renews those that would end within ten minutes whenever it is asked for them. obstore asks each minute;
    for keys that end sooner than it would ask again, at the next request. Those of a role are asked for now, and this may
    take seconds.

    Raises:
        botocore.exceptions.BotoCoreError: The profile is not there, or the chain is broken; ``NoCredentialsError``
            where no link of it has any.
    """
    from botocore.exceptions import CredentialRetrievalError, NoCredentialsError

    credentials = session(profile).get_credentials()
    if credentials is None:
        raise NoCredentialsError

    def keys() -> Any:
        try:
            found = credentials.get_frozen_credentials()
        except CredentialRetrievalError as error:
            provider = error.kwargs.get("provider", "?")
        else:
            # Keys that never end, as written in a file or in variables, know no ``refresh_needed``.
            needed = getattr(credentials, "refresh_needed", None)
            ends_soon = needed is not None and needed(refresh_in=2 * _KEPT.total_seconds())
            kept = timedelta(seconds=1) if ends_soon else timedelta(seconds=_OBSTORE_RENEWS_S) + _KEPT
            return {
                "access_key_id": found.access_key,
                "secret_access_key": found.secret_key,
                "token": found.token,
                "expires_at": datetime.now(UTC) + kept,
            }
        raise ForbiddenError(f"The credentials have ended, and {provider} gave no new ones.")

    return keys
