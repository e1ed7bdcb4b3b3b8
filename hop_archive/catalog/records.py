"""What a catalog records, as values. Pure."""

from __future__ import annotations

import datetime
import enum
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias
from uuid import UUID

from hop_archive.model.annotations import Annotations
from hop_archive.model.frames import object_bytes
from hop_archive.model.message import CLOCKS, Committed, TimestampType, TopicPartition
from hop_archive.model.slices import PartitionLog, Slice

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

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
    """One generation of a topic: from when it was created to when it is deleted.

    Attributes:
        number: Counts from 1 within the topic.
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


class DocumentPlace(NamedTuple):
    """Where a document stands, as its row says it.

    Attributes:
        object_key: The key of its object.
        position: Where it begins there, or in the content of its frame; None: it is the whole object.
        frame: Where the zstd frame begins that it is in, and ``frame_size``: how long that is; None: it is in none.
    """

    object_key: str
    position: int | None = None
    frame: int | None = None
    frame_size: int | None = None


class Row(NamedTuple):
    """The catalog row of one archived message.

    A tuple, because one is made for every message: the 17 fields of a frozen dataclass cost six times as much
    to set (2.4 against 0.4 µs, Python 3.11, 2026-11-24).

    Attributes:
        generation: Number of the topic's generation; None in rows that another archiver wrote, as are
            ``partition``, ``offset``, ``timestamp_type`` and ``digest``.
        uuid: The UUID it is archived under; unique in the catalog.
        is_client_uuid: Whether the publisher gave it.
        digest: Digest of the content, 16 bytes.
        object_key: Key of the object that holds the document.
        position: Where the document starts in the object, or in the content of its frame, in bytes; None where it is the
            whole object.
        size_bytes: Length of the document; ``crc32`` is of it, too, ``message_crc32`` of the message's value.
        retracted: Whether its publisher took it back.
        frame: Where in the object the zstd frame starts that the document is in, in bytes; ``frame_size`` is how long that is.
            None where the object is not compressed.
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
    frame: int | None = None
    frame_size: int | None = None

    @property
    def timestamp(self) -> datetime.datetime:
        """Its timestamp, UTC.

        Raises:
            OverflowError: It is outside of the years 1 to 9999, which Kafka allows: see ``timestamp_ms``.
        """
        return _EPOCH + datetime.timedelta(milliseconds=self.timestamp_ms)

    @property
    def slice(self) -> Slice | None:
        """Where the message stands in Kafka; None in rows that another archiver wrote."""
        if self.generation is None or self.partition is None or self.offset is None:
            return None
        return Slice(self.topic, self.generation, self.partition, self.offset, self.offset + 1)

    @property
    def document_place(self) -> DocumentPlace:
        """Where its document stands."""
        return DocumentPlace(self.object_key, self.position, self.frame, self.frame_size)

    @property
    def place_in_object(self) -> tuple[int, int]:
        """Where its document begins in its object: by this, those of one object are in the order in which they stand."""
        return (self.frame or 0, self.position or 0)

    def stands_in(self, place: Slice) -> bool:
        """Whether it is of an offset of this slice."""
        at = (self.topic, self.generation, self.partition)
        return (
            at == place.partition_log and self.offset is not None and place.start <= self.offset < place.stop
        )

    def cells(self) -> tuple[Any, ...]:
        """What stands in ``COLUMNS``, in their order."""
        clock = None if self.timestamp_type is None else int(self.timestamp_type)
        return (*self[:5], clock, *self[6:15], *self.annotations, *self[16:])

    @classmethod
    def of_cells(cls, cells: Sequence[Any]) -> Row:
        """The row that has these in ``COLUMNS``."""
        clock = None if cells[5] is None else CLOCKS[cells[5]]
        return cls._make((*cells[:5], clock, *cells[6:15], Annotations(*cells[15:22]), *cells[22:]))


COLUMNS = {
    "topic": "text",
    "generation": "int4",
    "partition": "int4",
    "offset": "int8",
    "timestamp": "int8",
    "timestamp_type": "int2",
    "uuid": "uuid",
    "is_client_uuid": "bool",
    "digest": "bytea",
    "key": "text",
    "bucket": "text",
    "position": "int8",
    "size": "int4",
    "crc32": "int8",
    "message_crc32": "int8",
    "public": "bool",
    "direct_upload": "bool",
    "media_type": "text",
    "title": "text",
    "sender": "text",
    "file_name": "text",
    "originator": "text",
    "retracted": "bool",
    "frame": "int8",
    "frame_size": "int4",
}
"""The columns of a row, wherever rows are kept as columns, with their types in Postgres. Theirs is the order of the fields
of ``Row``, with those of ``Annotations`` in the place of ``annotations``."""

LATER_COLUMNS = frozenset({"frame", "frame_size"})
"""Those that came after the first release, all of which may be null: what was written before lacks them."""


class Recorded(NamedTuple):
    """An object that rows name, as the catalog knows it.

    Attributes:
        rows: How many of those that were looked at name it. 0: it is no object, but tells how far was looked.
        end_bytes: Where its last document ends, or the seek table of the frames that rows name: the object is at least so long.
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

    @classmethod
    def of_rows(cls, rows: Sequence[Row]) -> Recorded:
        """The object that these rows name, the first of which is the first in it; as far as they tell."""
        first = rows[0]
        frames = {row.frame + (row.frame_size or 0) for row in rows if row.frame is not None}
        if frames:
            end = object_bytes(max(frames), len(frames))
        else:
            end = max((row.position or 0) + row.size_bytes for row in rows)
        is_segment = first.position is not None
        return cls(first.object_key, first.bucket, first.topic, len(rows), end, is_segment, first.uuid)


class Miscount(NamedTuple):
    """A number that is not that of the rows it counts, in a ledger row, or (``slice`` None) in the topic's summary."""

    topic: str
    slice: Slice | None
    what: str
    said: int
    found: int


class Duplicate(NamedTuple):
    """A message that was not stored, because ``uuid`` holds the same one; no catalog keeps its own ``digest``."""

    offset: int
    timestamp_ms: int
    uuid: UUID
    reason: str
    digest: bytes | None = None


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
    """What the catalog knows of the message that stands at an offset, archived or a duplicate; a digest may be lost."""

    offset: int
    timestamp_ms: int
    digest: bytes | None


@dataclass(frozen=True, slots=True)
class Batch:
    """A slice and what became of it: committed in one transaction, or not at all.

    Attributes:
        reason: Why the offsets are not archived; '' where they are.
        rows: The archived messages, by ascending offset.
        run_id: Which run did it, for people; '' where there is none.
        proven_epoch: Under which leader epoch the log had been proven when this was read; None where its broker gives none, and
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
        if not self.duplicates:
            return frozenset()  # as of almost every batch: to hash the UUIDs of all rows would be for nothing
        return frozenset(duplicate.uuid for duplicate in self.duplicates) - {row.uuid for row in self.rows}

    @property
    def absent(self) -> int:
        """Offsets for which Kafka delivered nothing; 0 where the slice is lost or skipped."""
        if self.outcome is not Outcome.ARCHIVED:
            return 0
        return len(self.slice) - len(self.rows) - len(self.duplicates)

    @property
    def ends_ms(self) -> tuple[int | None, int | None]:
        """Least and greatest timestamp of its rows; None where it has none."""
        times = [row.timestamp_ms for row in self.rows]
        return min(times, default=None), max(times, default=None)

    @property
    def size_bytes(self) -> int:
        """Bytes of the documents that it stored."""
        return sum(row.size_bytes for row in self.rows)


@dataclass(frozen=True, slots=True)
class TopicSummary:
    """What the ledger and the summary say of one topic, over all generations and partitions.

    Attributes:
        messages: Messages archived (in a window: by batches committed in it).
        absent: Offsets for which Kafka delivered nothing; ``lost``, ``skipped`` and ``pruned`` count offsets, too.
        size_bytes: Bytes of the documents.
        first_timestamp_ms: Least timestamp of the archived messages; None where there are none.
        last_batch_at: When the last batch was committed (UTC); None where there is none.
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
    """One row of the ledger, as it stands.

    Attributes:
        first_timestamp_ms: Least timestamp of the messages when they were archived; None where there were none, or that
            is not known. It, ``last_timestamp_ms`` and ``lag_ms`` do not count where rows are compared.
        lag_ms: The longest lag of the batches that it was merged of; None where it is of one, or that is not known.
    """

    slice: Slice
    outcome: Outcome
    reason: str
    archived: int
    duplicates: int
    absent: int
    size_bytes: int
    run_id: str
    created_at: datetime.datetime
    first_timestamp_ms: int | None = field(default=None, compare=False)
    last_timestamp_ms: int | None = field(default=None, compare=False)
    lag_ms: int | None = field(default=None, compare=False)

    @property
    def is_settled(self) -> bool:
        """Whether it says what became of what stood there: not that it is lost, or not known, so that a document of it may be the only one."""
        return self.outcome is not Outcome.LOST and self.reason != UNTOLD

    @property
    def longest_lag_ms(self) -> int | None:
        """The longest time from a batch's last message to its commit; None where there was none with a timestamp."""
        if self.lag_ms is not None or self.last_timestamp_ms is None or self.last_timestamp_ms <= 0:
            return self.lag_ms
        return max(0, round(self.created_at.timestamp() * 1000) - self.last_timestamp_ms)


@dataclass(frozen=True, slots=True)
class Reinstated:
    """What became of a batch that was put into a catalog which may have had some of it.

    Attributes:
        covered: Offsets that are in the ledger now as archived, and were not.
        refused: Rows that were not added: their place has another message's row; or the ledger says that what stood
            there was left out, cleaned up or pruned.
    """

    added: int = 0
    covered: int = 0
    refused: tuple[Row, ...] = ()


RemovalOutcome = Literal["skipped", "pruned"]
"""The outcome that offsets have after their messages were taken away."""


@dataclass(frozen=True, slots=True)
class Removal:
    """Who takes something away, and why.

    Attributes:
        command: Which command: it alone deletes what it left to be deleted.
        reason: Why, for people; stands in the ledger.
        backups: Buckets that hold copies, which are to be deleted too.
        run_id: Which run does it, for people; '' where there is none.
        grace_s: How long objects are left that are to be deleted: for who read a row a moment ago, and its object not yet.
    """

    command: str
    reason: str
    backups: tuple[str, ...] = ()
    run_id: str = ""
    grace_s: float = 0.0


class Removed(NamedTuple):
    """How much was taken away.

    Attributes:
        duplicates: Offsets that were recorded as duplicates.
        offsets: Offsets that have another outcome now.
        size_bytes: Bytes of the documents whose rows are gone.
    """

    messages: int = 0
    duplicates: int = 0
    offsets: int = 0
    size_bytes: int = 0

    def plus(self, other: Removed) -> Removed:
        """Both together."""
        return Removed(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class PendingDelete(NamedTuple):
    """An object to be deleted once no row names it.

    Attributes:
        bucket: Where it is to be deleted: the bucket that rows named, or a backup of it.
        is_named: Whether a row names it, as of now: a segment that holds other messages stays.
        at: When that was noted; another time means that it was noted again.
    """

    bucket: str
    key: str
    is_named: bool
    at: datetime.datetime


class Candidate(NamedTuple):
    """A message that may be a copy of one before it in the same group.

    Attributes:
        group: Messages of one group may be copies of one another.
        is_tied: Whether another one of the group has the same timestamp.
    """

    group: str
    uuid: UUID
    timestamp_ms: int
    is_tied: bool


class CopyOf(NamedTuple):
    """A message that another one is a copy of.

    Attributes:
        copy: UUID of the one to go; ``kept`` is that of the one that stays.
        reason: Why they are the same, for people.
    """

    copy: UUID
    kept: UUID
    reason: str


class Replaced(NamedTuple):
    """Where a message's document stands from now on.

    Attributes:
        is_tombstone: Whether it has no content any more: what describes the message goes too.
    """

    uuid: UUID
    object_key: str
    position: int | None
    size_bytes: int
    crc32: int
    is_tombstone: bool
    frame: int | None = None
    frame_size: int | None = None


class RowJob(enum.Enum):
    """What is done once for each row, in the order in which rows were added."""

    INDEX_TEXT = "index-text"
    MEDIA_TYPES = "correct-media-types"
    CHECK_OBJECTS = "check-objects"
    CHECK_COPIES = "check-copies"


class RowRange(NamedTuple):
    """The rows that a job goes over now, by their numbers in the catalog.

    Attributes:
        done_to: All rows up to it were dealt with, and no other one can come there.
        settled_to: Up to it no row can come that is not there now.
        last: The greatest there is.
    """

    done_to: int
    settled_to: int
    last: int


class Claim(NamedTuple):
    """That somebody wants to archive a log, or does (``held``): at most one at a time, so that nobody does the same again.

    It guards nothing: the ledger does. Who holds no claim, or has lost it, may archive all the same.
    """

    partition_log: PartitionLog
    holder: str
    held: bool = False


class Share(NamedTuple):
    """What one of those who archive at the same time may take on.

    Attributes:
        mine: The logs that it holds now.
        others: Who else wants some of what it wants, or archives it already, sorted.
    """

    mine: frozenset[PartitionLog]
    others: tuple[str, ...] = ()


class RowPortion(NamedTuple):
    """The next rows that a job has to deal with, and up to which number there is no other."""

    rows: Sequence[Row]
    reached: int


class TextEntry(NamedTuple):
    """The text by which a message is found, and whether that of its payload is in it."""

    uuid: UUID
    text: str
    is_full: bool


class TextBacklog(NamedTuple):
    """How far the text index is behind.

    Attributes:
        messages: How many messages wait for it, as far as was looked.
        has_more: Whether there are rows beyond what was looked at.
        since: When the first of them was archived (of another archiver's: sent); None without any.
    """

    messages: int
    has_more: bool
    since: datetime.datetime | None


class Suppression(NamedTuple):
    """A message whose content was removed for good: decided at that moment (UTC). Its document has the reason, too."""

    uuid: UUID
    topic: str
    reason: str
    at: datetime.datetime


@dataclass(frozen=True, slots=True)
class RemovalExtent:
    """What a log, or the adopted rows of a topic, hold of what is to go, and the buckets that their rows name."""

    messages: int = 0
    size_bytes: int = 0
    buckets: frozenset[str] = frozenset()


class Correction(NamedTuple):
    """A row as it stands, and as it ought to be."""

    was: Row
    now: Row


class MessageDay(NamedTuple):
    """The messages of a topic whose timestamps are of one day (UTC)."""

    topic: str
    day: datetime.date
    messages: int
    size_bytes: int


class LedgerDay(NamedTuple):
    """What the ledger rows of a topic that were committed on one day (UTC) say.

    Attributes:
        lag_s: The longest time from a batch's newest message to its commit; None where no batch had a message.
    """

    topic: str
    day: datetime.date
    duplicates: int
    lost: int
    lag_s: float | None


class Measure(NamedTuple):
    """How much a selection is.

    Attributes:
        largest_bytes: Bytes of the largest document; 0 where there is none.
        first_timestamp_ms: Least timestamp above 0; None where there is none.
        at_zero: How many have the timestamp 0, which no librdkafka client can send.
        by_append: How many have a timestamp that the broker gave.
    """

    messages: int = 0
    size_bytes: int = 0
    largest_bytes: int = 0
    first_timestamp_ms: int | None = None
    last_timestamp_ms: int | None = None
    at_zero: int = 0
    by_append: int = 0


def total(measures: Iterable[Measure]) -> Measure:
    """The measure of several selections together."""
    messages, sizes, largest, firsts, lasts, at_zero, by_append = zip(Measure(), *measures, strict=True)
    first = min((t for t in firsts if t is not None), default=None)
    last = max((t for t in lasts if t is not None), default=None)
    return Measure(sum(messages), sum(sizes), max(largest), first, last, sum(at_zero), sum(by_append))


@dataclass(frozen=True, slots=True)
class Restore:
    """One restore, as the catalog has it.

    Attributes:
        fingerprint: Of what was asked for: the same request finds it, and goes on.
        target: Where to: cluster id and topics, for people.
        request: What was asked for, JSON-able; moments resolved as they were when it began.
        progress: What going on needs to know, JSON-able; last noted at ``updated_at``.
        outcome: ``running`` (also where the process died), ``done``, ``failed`` or ``abandoned``.
        report: What came of it; empty while it runs.
    """

    number: int
    fingerprint: str
    target: str
    request: Mapping[str, Any]
    progress: Mapping[str, Any]
    outcome: str
    report: Mapping[str, Any]
    started_at: datetime.datetime
    updated_at: datetime.datetime


SnapshotKind: TypeAlias = Literal["topic", "group"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a cluster last said of one topic or one consumer group.

    Attributes:
        content: JSON-able. Of a topic: ``topic_id``; ``partitions``, how many; ``settings``, its own, by name;
            ``settings_known``, False where the credentials may not look (``settings`` is empty then); and, where
            the topic was made anew, ``former``: the same of the generation before, with ``taken_at``. Of a group:
            ``offsets``, triples of topic, partition and offset; ``topic_ids``: of which generation of each topic
            they are; ``metadata``, triples of topic, partition and what the group wrote beside its offset, where it
            wrote anything (a snapshot of before these were kept has no such key); and, of topics that were made anew,
            ``former``: the ``topic_id`` of the generation before, and the ``offsets`` in it, pairs of partition and offset,
            with their ``metadata`` as pairs.
        taken_at: When the cluster said so (UTC).
    """

    cluster_id: str
    kind: SnapshotKind
    name: str
    content: Mapping[str, Any]
    taken_at: datetime.datetime

    @property
    def offsets(self) -> dict[TopicPartition, int]:
        """The committed offsets of a group; empty for a topic."""
        return {TopicPartition(topic, at): offset for topic, at, offset in self.content.get("offsets", ())}

    @property
    def commits(self) -> dict[TopicPartition, Committed]:
        """The committed offsets of a group with what it wrote beside them; empty for a topic."""
        beside = {TopicPartition(topic, at): text for topic, at, text in self.content.get("metadata", ())}
        return {at: Committed(offset, beside.get(at, "")) for at, offset in self.offsets.items()}

    def commits_in(self, topic: str, topic_id: str | None) -> dict[TopicPartition, Committed]:
        """What a group had committed in one generation of a topic: the present one, or the one before it."""
        if self.content.get("topic_ids", {}).get(topic) == topic_id:
            # Without those of other topics: it is asked of each topic, and a group may have read a thousand.
            beside = {at: text for of, at, text in self.content.get("metadata", ()) if of == topic}
            return {
                TopicPartition(topic, at): Committed(offset, beside.get(at, ""))
                for of, at, offset in self.content.get("offsets", ())
                if of == topic
            }
        former = self.content.get("former", {}).get(topic, {})
        if former.get("topic_id") != topic_id:
            return {}
        beside = dict(former.get("metadata", ()))
        return {
            TopicPartition(topic, at): Committed(offset, beside.get(at, ""))
            for at, offset in former["offsets"]
        }
