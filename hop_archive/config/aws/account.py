"""Asking AWS: for whom, where, how patiently; and remembering for a minute what it said."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from hop_archive.config.aws.refusals import Subject, translated
from hop_archive.store.s3.credentials import session

Answer = TypeVar("Answer")
Value = TypeVar("Value")

_CONNECT_S = 2.0
_READ_S = 3.0
_ATTEMPTS = 2
"""With the pause between them two attempts take less than 10 s when nothing answers."""

KEPT_S = 60.0
"""Dagster's sensors open the archive every few seconds, and AWS charges for requests and throttles them. A minute is short
enough for a password that was changed: what fails meanwhile is tried again."""


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
    shown = None if isinstance(failed, boto.CredentialRetrievalError) else failed
    raise translated(subject, failed) from shown


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


class Memory(Generic[Value]):
    """Values by key, each for ``KEPT_S``. Thread-safe; two threads that miss the same one ask twice.

    Args:
        monotonic: A clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._kept: dict[Hashable, tuple[float, Value]] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return what is remembered, or what ``make`` returns; what it raises is not remembered."""
        known = self._kept.get(key)
        if known is not None and self._monotonic() < known[0]:
            return known[1]
        value = make()
        self._kept[key] = (self._monotonic() + KEPT_S, value)
        return value

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
