"""Every error that hop_archive raises on purpose, split by who must act.

::

    HopArchiveError
     ├── ConfigurationError          the operator changes something, then runs again        exit 2
     │    ├── MissingSettingError    a stanza, variable, secret, table or bucket is not there
     │    │    └── MessageNotFoundError  the archive has no message of this UUID
     │    ├── ForbiddenError         the stanza or the credentials do not allow it
     │    ├── ObjectFrozenError      an object has to be restored from cold storage before it is read
     │    ├── SequenceBehindError    the catalog's numbers for new rows are taken
     │    └── UnsupportedError       the server cannot do it, however often it is asked
     ├── UnavailableError            a server did not answer; the same call may succeed later exit 3
     ├── ConflictError               another writer was first; nothing was doubled           exit 4
     │    ├── SliceTakenError        the ledger already holds part of the slice
     │    ├── StaleDecisionError     a message was catalogued by another writer meanwhile
     │    └── GenerationChangedError the topic was deleted or made anew meanwhile
     └── DataError                   a person decides                                        exit 5
          ├── OffsetsGoneError       retention removed offsets before they were read
          ├── UnreadableMessageError the client cannot represent a message, however often it is read
          ├── ObjectMissingError     an object that the catalog names is not in the store
          └── CorruptError           stored bytes are not what the catalog says

A message says where, what was wanted, what was found and what to do. The facts are attributes too
(``facts``), for logs and Dagster metadata. Adapters translate a client's errors by code, never by text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class HopArchiveError(Exception):
    """Base of all; never raised itself.

    Attributes:
        facts: What is known about the failure, by name; JSON-able and free of secrets.
        remedy: What the reader can do next, one sentence; empty when the message says it.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, remedy: str = "", **facts: object) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.facts = facts

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} {self.remedy}" if self.remedy else message


class ConfigurationError(HopArchiveError):
    """Something that the operator has to change: a file, a variable, an option, a setting of a server."""

    exit_code = 2


class MissingSettingError(ConfigurationError):
    """A stanza, variable, secret, topic, table or bucket that is named but is not there."""


class MessageNotFoundError(MissingSettingError):
    """The archive has no message of the UUID that was asked for.

    Attributes:
        facts: ``uuid``.
    """


class ForbiddenError(ConfigurationError):
    """The stanza or the credentials do not allow what was asked."""


class ObjectFrozenError(ConfigurationError):
    """An object stands in a storage class that is not read from before the object was restored.

    Attributes:
        facts: ``object_key`` ('' where it is not known), ``bucket``.
    """


class SequenceBehindError(ConfigurationError):
    """A sequence gives new rows of the catalog numbers that older rows have; nothing can be added before it is set right.

    Attributes:
        facts: ``sequence``, ``table``, ``last``, ``greatest``.
    """


class UnsupportedError(ConfigurationError):
    """The server cannot do what was asked, and did not do it; another server, or another way, has to be chosen."""


class UnavailableError(HopArchiveError):
    """A server did not answer, or answered that it cannot now. Trying again later is right."""

    exit_code = 3
    retryable = True


class ConflictError(HopArchiveError):
    """Another writer was first. Nothing was doubled or overwritten; plan again and go on."""

    exit_code = 4
    retryable = True


class SliceTakenError(ConflictError):
    """The ledger already holds some offsets of this slice, so this transaction was refused whole."""


class StaleDecisionError(ConflictError):
    """A UUID decided on before the commit was catalogued by another writer meanwhile."""


class ProofChangedError(ConflictError):
    """The log was proven under another leader epoch since this was read, or is not proven any more."""


class GenerationChangedError(ConflictError):
    """The topic was deleted, or deleted and made anew, while it was being read."""


class DataError(HopArchiveError):
    """Data are gone or wrong; a person decides what follows."""

    exit_code = 5


class OffsetsGoneError(DataError):
    """Kafka no longer holds the offset that was asked for.

    Attributes:
        facts: ``topic``, ``partition``, ``offset``.
    """


class UnreadableMessageError(DataError):
    """A message that the Kafka client cannot represent as it is, however often it is read.

    Attributes:
        facts: ``topic``, ``partition``, ``offset``, ``why``.
    """


class ObjectMissingError(DataError):
    """An object that is named is not in the store.

    Attributes:
        facts: ``object_key``, ``bucket``.
    """


class CorruptError(DataError):
    """Stored bytes cannot be decoded, or are not those that the catalog describes."""


@contextmanager
def needing_extra(extra: str) -> Iterator[None]:
    """Stand around imports of what only this extra installs.

    Raises:
        MissingSettingError: A package is not installed; it says what to do.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hop_archive"):
            raise
        raise without_package(error.name or "", extra) from error


def without_package(package: str, extra: str) -> MissingSettingError:
    """What to say where a package is missing that this extra installs."""
    return MissingSettingError(
        f"The package {package} is not installed.",
        remedy=f"Install hop_archive with its extra: pip install 'hop_archive[{extra}]'.",
        package=package,
        extra=extra,
    )


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust (obstore, pydantic) failed by itself: no ``Exception``, and of a class that cannot be imported."""
    return type(error).__module__ == "pyo3_runtime"
