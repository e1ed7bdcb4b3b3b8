"""Of a catalog row what it takes to read its message: where the document is, and what proves that it is that one. Pure."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from hop_archive.catalog.records import Row


class Stored(NamedTuple):
    """Where the document of one message is: ten of a ``Row``'s columns, which come and are held in a third of the time.

    Attributes:
        uuid: The 16 bytes of the UUID that it is archived under.
        timestamp_ms: Of a duplicate that is put back its own, as is ``offset``; not those of the message that is kept.

    The others are those of ``Row``.
    """

    offset: int | None
    timestamp_ms: int
    uuid: bytes
    digest: bytes | None
    object_key: str
    position: int | None
    size_bytes: int
    crc32: int
    frame: int | None
    frame_size: int | None

    @classmethod
    def of(cls, row: Row) -> Stored:
        """What a whole row says of it."""
        return cls(
            row.offset,
            row.timestamp_ms,
            row.uuid.bytes,
            row.digest,
            row.object_key,
            row.position,
            row.size_bytes,
            row.crc32,
            row.frame,
            row.frame_size,
        )

    @property
    def message_uuid(self) -> UUID:
        """The UUID that it is archived under."""
        return UUID(bytes=self.uuid)
