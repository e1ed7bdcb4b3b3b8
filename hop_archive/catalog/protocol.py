"""The contract of a catalog. The same contract tests run over every implementation."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from hop_archive.catalog.findings_protocol import FindingsCatalog
from hop_archive.catalog.records import (
    Batch,
    Collision,
    Duplicate,
    Generation,
    LedgerEntry,
    Mentions,
    Miscount,
    Outcome,
    Recorded,
    Row,
    TopicSummary,
)
from hop_archive.catalog.repairs_protocol import RepairsCatalog
from hop_archive.catalog.reports_protocol import ReportsCatalog
from hop_archive.catalog.scrubs_protocol import ScrubsCatalog
from hop_archive.conditions import CatalogCondition
from hop_archive.identity import Identity, Known
from hop_archive.planning import Watermarks
from hop_archive.selecting import Order, Query
from hop_archive.slices import Lineage, OffsetSet, Slice

__all__ = [
    "SELECT_TIMEOUT_S",
    "Batch",
    "Catalog",
    "Collision",
    "Duplicate",
    "Generation",
    "LedgerEntry",
    "Mentions",
    "Miscount",
    "Outcome",
    "Recorded",
    "Row",
    "TopicSummary",
]

SELECT_TIMEOUT_S = 60.0
"""Longest that a database may take over one page of selected rows, unless somebody says otherwise."""


class Catalog(FindingsCatalog, RepairsCatalog, ReportsCatalog, ScrubsCatalog, Protocol):
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
