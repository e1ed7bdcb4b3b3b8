"""The contract of a store. The same contract tests run over every implementation."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from hop_archive.model.conditions import StoreCondition
from hop_archive.model.frames import Frame


class Created(enum.Enum):
    """What became of an object that was to be created.

    ``NEW``: it is there now. ``SAME``: it was there before, with the same bytes. ``OTHER``: other bytes stand
    under its key and were left untouched.
    """

    NEW = "new"
    SAME = "same"
    OTHER = "other"


class NewObject(NamedTuple):
    """An object to create: its key within the store (without the stanza's prefix) and its bytes."""

    key: str
    body: bytes


class ObjectInfo(NamedTuple):
    """What a listing tells of an object: key within the store, length, and when it was created, by the service's clock."""

    key: str
    size_bytes: int
    modified_ms: int


class Extent(NamedTuple):
    """Bytes to fetch: a whole object, or ``length`` bytes from ``position`` on.

    With a ``frame``: of the content of that zstd frame in the object, all of it or those bytes.
    """

    key: str
    position: int | None = None
    length: int | None = None
    frame: Frame | None = None


def is_legal(key: str) -> bool:
    """Tell whether no part of the key between slashes is empty, ``.`` or ``..``.

    S3 itself would take such keys; file systems and many S3 clients and servers silently rewrite them. Kafka
    allows no topic of those names, so no key of the archive needs them.
    """
    return {"", ".", ".."}.isdisjoint(key.split("/"))


def legal(key: str) -> str:
    """Return the key.

    Raises:
        ValueError: It is not legal.
    """
    if not is_legal(key):
        raise ValueError(f"{key!r} is no object key: a part of it is empty, '.' or '..'.")
    return key


class Store(Protocol):
    """Objects by key. Nothing is ever overwritten: there is no call for it.

    Each call but ``close`` raises UnavailableError where the service does not answer, or cannot now; ForbiddenError where the
    credentials are missing, wrong or not allowed to; and MissingSettingError where the bucket does not exist.
    """

    created: int
    """Objects that it has created or found there, in all: grows while `create` goes on, for who shows how far that is."""

    @property
    def name(self) -> str:
        """The stanza's name, for messages."""

    @property
    def bucket(self) -> str:
        """The bucket's name, as catalog rows hold it."""

    def check(self) -> None:
        """Prove that the bucket can be reached and listed, within 10 s."""

    def create(self, objects: Sequence[NewObject]) -> Sequence[Created]:
        """Create objects, many at a time, each only if its key is free (conditional put).

        On return every ``NEW`` and ``SAME`` is durable. Calling again with the same objects is harmless.

        Returns:
            What became of each object, in the order given.

        Raises:
            UnavailableError: Some object could not be written; any number of them may have been.
            ValueError: A key has an empty part, or one that is ``.`` or ``..``; nothing was created.
        """

    def fetch(self, extents: Iterable[Extent]) -> Iterator[bytes]:
        """The bytes of each extent, in the order given, fetched ahead a bounded number at a time.

        Of extents of one frame that follow one another, the frame is fetched and decompressed once; one is held at a time.

        Raises:
            ObjectMissingError: An object is not there; raised when its turn comes.
            CorruptError: An object is shorter than the extent asked for; or a frame is damaged, or claims more content than
                what is asked of it allows: then the fact ``frame`` says where it begins.
        """

    def etag(self, key: str) -> str:
        """The ETag of an object, as the service tells it.

        Often the MD5 of its bytes, in hexadecimal and quotes; not where it came in parts, or is encrypted with a key
        of the customer's. '' where the service tells none.

        Raises:
            ObjectMissingError: There is no such object.
        """

    def listing(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with ``prefix`` and is greater than ``start_after``, in byte order of keys.

        Raises:
            ConfigurationError: The server lists in another order.
        """

    def delete(self, keys: Collection[str]) -> None:
        """Delete objects; one that is not there is no error. To delete none tells whether the stanza allows it.

        Raises:
            ForbiddenError: The stanza does not allow deleting.
        """

    def condition(self) -> StoreCondition:
        """What the bucket is like, as far as the credentials may see it; changes nothing."""

    def close(self) -> None:
        """Let go of connections; closing twice is harmless."""
