"""What a catalog tells to whoever moves documents into fewer objects, as values. Pure."""

from __future__ import annotations

from typing import NamedTuple

from hop_archive.model.slices import PartitionLog


class ObjectShare(NamedTuple):
    """What rows of a log name of one object.

    Attributes:
        key: The object's; it stands in ``bucket``.
        rows: How many of the rows name it.
        size_bytes: Of their documents.
        stored_bytes: Of what is read for them: in zstd frames, up to the end of the last one.
        first: The offset of the first of the rows, ``last`` that of the last.
        newest_ms: The greatest timestamp of their messages.
    """

    key: str
    bucket: str
    rows: int
    size_bytes: int
    stored_bytes: int
    first: int
    last: int
    newest_ms: int


class Compacted(NamedTuple):
    """How far a log was compacted.

    Attributes:
        done_to: What stands below this offset needs no look any more.
        looked_to: What stood below this offset was looked at: until there is more, there is nothing to do.
        moves: How many transactions moved documents of it.
    """

    partition_log: PartitionLog
    done_to: int = 0
    looked_to: int = 0
    moves: int = 0
