"""The contract of a catalog. The same contract tests run over every implementation."""

from __future__ import annotations

import datetime
import enum
import itertools
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hop_archive.annotations import Annotations
from hop_archive.catalog.findings_protocol import FindingsCatalog
from hop_archive.conditions import CatalogCondition
from hop_archive.identity import Identity, Known
from hop_archive.message import TimestampType
from hop_archive.planning import Watermarks
from hop_archive.selecting import Order, Query
from hop_archive.slices import Lineage, OffsetSet, Slice


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
    uuid: uuid.UUID
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
    uuid: uuid.UUID


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
    uuid: uuid.UUID
    reason: str


class Collision(NamedTuple):
    """A message archived under a derived UUID, because other content holds its publisher's."""

    offset: int
    client_uuid: uuid.UUID
    archived_as: uuid.UUID


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

    duplicates: Sequence[tuple[Lineage, Duplicate]] = ()
    duplicate_count: int = 0
    collisions: Sequence[tuple[Lineage, Collision]] = ()
    collision_count: int = 0


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


SELECT_TIMEOUT_S = 60.0
"""Longest that a database may take over one page of selected rows, unless somebody says otherwise."""


class Catalog(FindingsCatalog, Protocol):
    """Rows, ledger, duplicates, generations. Each call is one transaction of its own."""

    @property
    def name(self) -> str:
        """The stanza's name, for messages."""

    def check(self) -> None:
        """Prove that the catalog can be reached and has the migrations that this version needs.

        Raises:
            UnavailableError: The database did not answer within 10 s.
            MissingSettingError: The migrations are missing or old; the message says which command to run.
            ForbiddenError: The credentials are wrong.
        """

    def condition(self) -> CatalogCondition:
        """What the database is like for the role that connects; changes nothing. The catalog is migrated.

        Raises:
            UnavailableError, ForbiddenError, MissingSettingError: As for ``check``.
        """

    def generations(self, topics: Collection[str]) -> Mapping[str, Sequence[Generation]]:
        """The generations of ``topics``, by ascending number; a topic without any is not in the result."""

    def begin_generation(
        self, topic: str, number: int, cluster_id: str, topic_id: str | None, reason: str
    ) -> Generation:
        """Record generation ``number`` of ``topic``, or return the one that has this number already.

        Callers pass the number after the last one that they saw, so two of them at once make one generation;
        the one that came second compares what it got with what it wanted.
        """

    def observe(self, watermarks: Mapping[Lineage, Watermarks]) -> None:
        """Remember the watermarks last seen, so that what a deleted topic still held is known."""

    def observed(self, topics: Collection[str]) -> Mapping[Lineage, Watermarks]:
        """The watermarks last remembered, of every generation of ``topics``."""

    def coverage(self, topics: Collection[str] | None = None) -> Mapping[Lineage, OffsetSet]:
        """The offsets dealt with, whatever their outcome, of every generation of ``topics`` (or of all)."""

    def has_adopted(self, topic: str) -> bool:
        """Whether another archiver wrote rows of ``topic``: those have no digest and no offset."""

    def known(self, identities: Sequence[Identity]) -> Sequence[Known]:
        """Archived messages that any of ``identities`` might be a copy of.

        Those with the same UUID, whatever their topic; and rows without a digest whose topic, timestamp and
        CRC-32 of the value agree.
        """

    def commit(self, batch: Batch) -> None:
        """Record a batch: its rows, duplicates, collisions, ledger row and topic summary, or none of them.

        Raises:
            SliceTakenError: The ledger holds some offset of the slice already; nothing was changed.
            StaleDecisionError: A UUID of the rows is in the catalog already; nothing was changed.
            UnavailableError: The database did not answer; it may or may not have been committed, and
                committing again tells which (SliceTakenError: it was, or somebody else's batch).
        """

    def summaries(
        self, topics: Collection[str] | None = None, since: datetime.datetime | None = None
    ) -> Sequence[TopicSummary]:
        """One summary a topic, sorted by topic.

        Args:
            topics: Only these; None for all that the catalog knows.
            since: Only what was committed at or after this moment. None: all of it, adopted rows included.
        """

    def ledger(self, topics: Collection[str] | None = None) -> Sequence[LedgerEntry]:
        """The ledger's rows, sorted by slice."""

    def rows(self, topic: str) -> Iterator[Row]:
        """The rows of ``topic``, streamed in order of generation, partition and offset; adopted rows last."""

    def topics(self) -> Sequence[str]:
        """The topics that have rows, sorted; asked of the rows, not of a summary that may be wrong."""

    def recorded(self, topic: str, *, segments: bool) -> Iterator[Recorded]:
        """The objects that rows of ``topic`` name, streamed in byte order of their keys.

        What is committed after the first of them was asked for may be missing.

        Args:
            topic: Of which topic.
            segments: Those that hold many documents; else those that are one.
        """

    def find(self, own: uuid.UUID) -> Row | None:
        """The row of this UUID, if there is one."""

    def select(
        self, query: Query, order: Order = Order.PLACE, *, timeout_s: float = SELECT_TIMEOUT_S
    ) -> Iterator[Row]:
        """The rows that ``query`` means, streamed in bounded memory, however many there are.

        Reads only, whatever the query's condition says. Each topic is seen as of the moment when its turn comes
        (``PLACE``), or all as of the first row (``ID``). Closing the iterator early is harmless.

        Args:
            query: Which.
            order: In which order.
            timeout_s: Longest that the database may take over one page of some thousand rows.

        Raises:
            ConfigurationError: A topic of the query means none in the catalog; or the database takes too long; or
                it cannot use the condition, which is shown with the place marked. Raised when the first row is
                asked for, the latter two perhaps later.
            UnavailableError: The database did not answer.
        """

    def mentions(self, own: uuid.UUID, topic: str, limit: int = 10) -> Mentions:
        """Where else the catalog speaks of the message of this UUID and topic; the first ``limit`` of each kind."""

    def duplicates(self, topic: str) -> Iterator[tuple[Lineage, Duplicate]]:
        """The recorded duplicates of ``topic``, streamed in order of lineage and offset."""

    def collisions(self, topic: str) -> Sequence[tuple[Lineage, Collision]]:
        """The recorded collisions of ``topic``, in order of lineage and offset."""

    def miscounts(self, topic: str) -> Sequence[Miscount]:
        """Where the ledger's numbers (``archived``, ``duplicates``) or the summary's (``messages``, ``bytes``) are wrong.

        Reads every row of the topic, of an index where that does.
        """

    def unledgered(self, topic: str) -> Sequence[Slice]:
        """For each lineage of ``topic`` with rows that no ledger row covers: from the first of them to the last."""

    def merge_ledger(self, before: datetime.datetime) -> int:
        """Merge neighbouring ledger rows of the same outcome and reason that were made before ``before``.

        Coverage and summaries over all time stay the same. The merged row keeps the latest ``created_at``.

        Returns:
            By how many rows the ledger became shorter.
        """

    def close(self) -> None:
        """Let go of connections; closing twice is harmless."""
