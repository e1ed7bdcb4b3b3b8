"""What a catalog records, as values. Pure."""

from __future__ import annotations

import datetime
import enum
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from hop_archive.model.annotations import Annotations
from hop_archive.model.message import TimestampType
from hop_archive.model.slices import PartitionLog, Slice

UNKNOWN_CLUSTER = "unknown (rebuilt from the store)"
"""Cluster of a generation that was rebuilt: documents do not say where they came from. No cluster has such an id, so
what is on any cluster now is another generation; what it holds is read once more, and found to be copies."""

UNTOLD = "not known since the catalog was rebuilt: no document in the store says what stood here"
"""Why offsets between others of such a generation are skipped."""


class Outcome(enum.Enum):
    """What became of a slice: read and archived, lost to retention, skipped on purpose, or pruned by a policy.

    ``SKIPPED`` was never stored, or was a test that was cleaned up; ``PRUNED`` was archived once, and then taken away.
    """

    ARCHIVED = "archived"
    LOST = "lost"
    SKIPPED = "skipped"
    PRUNED = "pruned"


@dataclass(frozen=True, slots=True)
class Generation:
    """One life of a topic.

    Attributes:
        topic: Kafka topic name.
        number: Counts from 1 within the topic.
        cluster_id: The cluster it lives on.
        topic_id: Kafka's topic id; None where the broker gives none.
        detected_at: When the archive first saw it (UTC).
        reason: Why it was taken to be new.
    """

    topic: str
    number: int
    cluster_id: str
    topic_id: str | None
    detected_at: datetime.datetime
    reason: str


class Row(NamedTuple):
    """The catalog row of one archived message.

    A tuple, because one is made for every message: the 17 fields of a frozen dataclass cost six times as much
    to set (2.4 against 0.4 µs, Python 3.11, 2026-11-24).

    Attributes:
        topic: Kafka topic name.
        generation: Number of the topic's generation; None in rows that another archiver wrote, as are
            ``partition``, ``offset``, ``timestamp_type`` and ``digest``.
        partition: Kafka partition.
        offset: Kafka offset.
        timestamp_ms: The message's timestamp.
        timestamp_type: Whose clock that is.
        uuid: The UUID it is archived under; unique in the catalog.
        is_client_uuid: Whether the publisher gave it.
        digest: Digest of the content, 16 bytes.
        object_key: Key of the object that holds the document.
        bucket: Bucket of that object.
        position: Where in the object the document starts, in bytes; None where it is the whole object.
        size_bytes: Length of the document.
        crc32: CRC-32 of the document.
        message_crc32: CRC-32 of the message's value.
        annotations: What describes it.
        retracted: Whether its publisher took it back.
    """

    topic: str
    generation: int | None
    partition: int | None
    offset: int | None
    timestamp_ms: int
    timestamp_type: TimestampType | None
    uuid: UUID
    is_client_uuid: bool
    digest: bytes | None
    object_key: str
    bucket: str
    position: int | None
    size_bytes: int
    crc32: int
    message_crc32: int
    annotations: Annotations
    retracted: bool = False


class Recorded(NamedTuple):
    """An object that rows name, as the catalog knows it.

    Attributes:
        key: Its key.
        bucket: Its bucket.
        topic: Topic of its messages.
        rows: How many rows name it.
        end_bytes: Where its last document ends: the object is at least so long.
        is_segment: Whether its documents stand end to end in it; otherwise it is one document.
        uuid: The message of its first row.
    """

    key: str
    bucket: str
    topic: str
    rows: int
    end_bytes: int
    is_segment: bool
    uuid: UUID


class Miscount(NamedTuple):
    """A number that is not that of the rows it counts.

    Attributes:
        topic: Of which topic.
        slice: The ledger row that says it; None: the topic's summary does.
        what: What is counted.
        said: The number that stands there.
        found: The number of the rows.
    """

    topic: str
    slice: Slice | None
    what: str
    said: int
    found: int


class Duplicate(NamedTuple):
    """A message that was not stored, because ``uuid`` already holds the same one."""

    offset: int
    timestamp_ms: int
    uuid: UUID
    reason: str


class Collision(NamedTuple):
    """A message archived under a derived UUID, because other content holds its publisher's."""

    offset: int
    client_uuid: UUID
    archived_as: UUID


@dataclass(frozen=True, slots=True)
class Mentions:
    """Where else the catalog speaks of a message's UUID.

    Attributes:
        duplicates: The first of the offsets that were not stored because this message already is, by place.
        duplicate_count: How many there are.
        collisions: The first of the messages that are archived under another UUID because this one was in use, and of
            those that are archived under this one because theirs was in use; by place.
        collision_count: How many there are.
    """

    duplicates: Sequence[tuple[PartitionLog, Duplicate]] = ()
    duplicate_count: int = 0
    collisions: Sequence[tuple[PartitionLog, Collision]] = ()
    collision_count: int = 0


GONE = -1
"""In the place of the leader epoch under which a log was proven: its topic was deleted, and what was left of it is lost."""

UNPROVEN = -2
"""In the place of the leader epoch under which a log was proven: it is yet to be proven, and nothing is read or committed."""


class Standing(NamedTuple):
    """What the catalog knows of the message that stands at an offset, be it archived or a duplicate.

    Attributes:
        offset: Kafka offset.
        timestamp_ms: The message's timestamp.
        digest: Digest of its content; None where that is not known any more.
    """

    offset: int
    timestamp_ms: int
    digest: bytes | None


@dataclass(frozen=True, slots=True)
class Batch:
    """A slice and what became of it: committed in one transaction, or not at all.

    Attributes:
        slice: The offsets dealt with.
        outcome: What became of them.
        reason: Why, where they are not archived; '' where they are.
        rows: The archived messages, by ascending offset.
        duplicates: The messages that were not stored again.
        collisions: Publishers' UUIDs that were in use by other content.
        run_id: Which run did it, for people; '' where there is none.
        proven_epoch: Under which leader epoch the log had been proven when this was read; None where it tells none, and
            where that does not matter. It is committed only while the log is proven under this one.

    Raises:
        ValueError: Made with a row or duplicate outside the slice, more than one for an offset, or rows in a
            slice that is not archived.
    """

    slice: Slice
    outcome: Outcome = Outcome.ARCHIVED
    reason: str = ""
    rows: Sequence[Row] = ()
    duplicates: Sequence[Duplicate] = ()
    collisions: Sequence[Collision] = ()
    run_id: str = ""
    proven_epoch: int | None = None

    def __post_init__(self) -> None:
        offsets = self.offsets
        if len(offsets) != len(self.rows) + len(self.duplicates):
            raise ValueError(f"an offset twice, or none, in the batch of {self.slice}")
        if offsets and not self.slice.start <= min(offsets) <= max(offsets) < self.slice.stop:
            raise ValueError(f"an offset outside the batch of {self.slice}")
        if offsets and self.outcome is not Outcome.ARCHIVED:
            raise ValueError(f"messages in a slice that is {self.outcome.value}: {self.slice}")

    @property
    def offsets(self) -> frozenset[int]:
        """The offsets for which Kafka delivered a message."""
        archived = (row.offset for row in self.rows if row.offset is not None)
        return frozenset(itertools.chain(archived, (d.offset for d in self.duplicates)))

    def referred(self) -> frozenset[UUID]:
        """What its duplicates repeat, beyond its own rows."""
        return frozenset(one.uuid for one in self.duplicates) - {row.uuid for row in self.rows}

    @property
    def absent(self) -> int:
        """Offsets for which Kafka delivered nothing; 0 where the slice is lost or skipped."""
        if self.outcome is not Outcome.ARCHIVED:
            return 0
        return len(self.slice) - len(self.rows) - len(self.duplicates)

    @property
    def size_bytes(self) -> int:
        """Bytes of the documents that it stored."""
        return sum(row.size_bytes for row in self.rows)


@dataclass(frozen=True, slots=True)
class TopicSummary:
    """What the ledger and the summary say of one topic, over all generations and partitions.

    Attributes:
        topic: Kafka topic name.
        messages: Messages archived (in a window: by batches committed in it).
        duplicates: Offsets that were duplicates.
        absent: Offsets for which Kafka delivered nothing.
        lost: Offsets that retention removed before they were archived.
        skipped: Offsets left out on purpose.
        size_bytes: Bytes of the documents.
        first_timestamp_ms: Least timestamp of the archived messages; None where there are none.
        last_timestamp_ms: Greatest timestamp of them.
        last_batch_at: When the last batch was committed (UTC); None where there is none.
        pruned: Offsets whose messages a policy took away.
    """

    topic: str
    messages: int = 0
    duplicates: int = 0
    absent: int = 0
    lost: int = 0
    skipped: int = 0
    size_bytes: int = 0
    first_timestamp_ms: int | None = None
    last_timestamp_ms: int | None = None
    last_batch_at: datetime.datetime | None = None
    pruned: int = 0


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One row of the ledger, as it stands."""

    slice: Slice
    outcome: Outcome
    reason: str
    archived: int
    duplicates: int
    absent: int
    size_bytes: int
    run_id: str
    created_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Reinstated:
    """What became of a batch that was put into a catalog which may have had some of it.

    Attributes:
        added: Messages that have a row now and had none.
        covered: Offsets that are in the ledger now as archived, and were not.
        refused: Rows that were not added: their place has another message's row; or the ledger says that what stood
            there was left out, cleaned up or pruned.
    """

    added: int = 0
    covered: int = 0
    refused: tuple[Row, ...] = ()
