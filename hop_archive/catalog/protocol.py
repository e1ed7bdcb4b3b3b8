"""The contract of a catalog. The same contract tests run over every implementation."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from hop_archive.catalog.findings_protocol import FindingsCatalog
from hop_archive.catalog.records import (
    GONE,
    UNKNOWN_CLUSTER,
    UNPROVEN,
    UNTOLD,
    Batch,
    Collision,
    Duplicate,
    Generation,
    LedgerEntry,
    Mentions,
    Miscount,
    Outcome,
    Recorded,
    Reinstated,
    Row,
    Standing,
    TopicSummary,
)
from hop_archive.catalog.removals_protocol import RemovalsCatalog
from hop_archive.catalog.repairs_protocol import RepairsCatalog
from hop_archive.catalog.reports_protocol import ReportsCatalog
from hop_archive.catalog.restores_protocol import RestoreCatalog
from hop_archive.catalog.scrubs_protocol import ScrubsCatalog
from hop_archive.catalog.snapshots_protocol import Snapshots
from hop_archive.model.conditions import CatalogCondition
from hop_archive.model.identity import Identity, Known
from hop_archive.model.query import Order, Query
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice
from hop_archive.model.watermarks import Watermarks

__all__ = [
    "GONE",
    "SELECT_TIMEOUT_S",
    "UNKNOWN_CLUSTER",
    "UNPROVEN",
    "UNTOLD",
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
    "Reinstated",
    "Row",
    "Standing",
    "TopicSummary",
]

SELECT_TIMEOUT_S = 60.0
"""Longest that a database may take over one page of selected rows, unless somebody says otherwise."""


class Catalog(
    FindingsCatalog,
    RemovalsCatalog,
    RepairsCatalog,
    ReportsCatalog,
    RestoreCatalog,
    ScrubsCatalog,
    Snapshots,
    Protocol,
):
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

    def generations(self, topics: Collection[str] | None) -> Mapping[str, Sequence[Generation]]:
        """The generations of ``topics`` (None: of all), by ascending number; a topic without any is not in the result."""

    def begin_generation(
        self, topic: str, number: int, cluster_id: str, topic_id: str | None, reason: str
    ) -> Generation:
        """Record generation ``number`` of ``topic``, or return the one that has this number already.

        Callers pass the number after the last one that they saw, so two of them at once make one generation;
        the one that came second compares what it got with what it wanted.
        """

    def observe(self, watermarks: Mapping[PartitionLog, Watermarks]) -> None:
        """Remember the watermarks last seen, so that what a deleted topic still held is known; no leader epochs."""

    def observed(self, topics: Collection[str]) -> Mapping[PartitionLog, Watermarks]:
        """The watermarks last remembered, of every generation of ``topics``, with the proven leader epochs."""

    def note_proven(
        self,
        epochs: Mapping[PartitionLog, int | None],
        instead_of: Mapping[PartitionLog, int | None] | None = None,
    ) -> None:
        """Remember under which leader epoch each log was proven to be the one that is covered; None: its broker tells none.

        Whoever is committing a batch of such a log is waited for; whoever commits one afterwards is refused where it was
        read under another epoch. Only of logs that were observed.

        Args:
            epochs: By log; ``GONE``: its topic was deleted, so that no log is the one that is covered any more.
                ``UNPROVEN``: no log is, until one is proven.
            instead_of: What is remembered of the same logs until now; where it is something else, that stays.
        """

    def tails(
        self, partition_logs: Collection[PartitionLog], most: int
    ) -> Mapping[PartitionLog, Sequence[Standing]]:
        """The last ``most`` messages of each log that are archived or duplicates, by ascending offset.

        Logs without any are left out.
        """

    def left_behind(self, topics: Collection[str], cluster_id: str) -> Mapping[PartitionLog, OffsetSet]:
        """What the lives of ``topics`` on a cluster were observed to hold below their last stable offset, and nothing covers.

        Logs of which all is covered are left out.
        """

    def coverage(self, topics: Collection[str] | None = None) -> Mapping[PartitionLog, OffsetSet]:
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
            StaleDecisionError: A UUID of the rows is in the catalog already, or what a duplicate repeats is not;
                nothing was changed.
            ProofChangedError: The log is proven under another leader epoch than the batch's, or not; nothing was changed.
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

    def known_topics(self) -> Sequence[str]:
        """The topics of which there is anything, sorted: rows, a ledger, a generation or a summary.

        One without messages is among them as soon as a plan has seen it.
        """

    def recorded(self, topic: str, *, segments: bool) -> Iterator[Recorded]:
        """The objects that rows of ``topic`` name, streamed in byte order of their keys.

        Two rows of one object that should be one document, which only damage makes, come one by one.

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
            ConfigurationError: A topic of the query means none that the catalog knows, with messages or without; or the
                database takes too long; or it cannot use the condition, which is shown with the place marked. Raised
                when the first row is asked for, the latter two perhaps later.
            UnavailableError: The database did not answer.
        """

    def mentions(self, own: uuid.UUID, topic: str, limit: int = 10) -> Mentions:
        """Where else the catalog speaks of the message of this UUID and topic; the first ``limit`` of each kind."""

    def duplicates(self, topic: str) -> Iterator[tuple[PartitionLog, Duplicate]]:
        """The recorded duplicates of ``topic``, streamed in order of log and offset."""

    def collisions(self, topic: str) -> Sequence[tuple[PartitionLog, Collision]]:
        """The recorded collisions of ``topic``, in order of log and offset."""

    def miscounts(self, topic: str) -> Sequence[Miscount]:
        """Where the ledger's numbers (``archived``, ``duplicates``) or the summary's (``messages``, ``bytes``) are wrong.

        Reads every row of the topic, of an index where that does.
        """

    def unledgered(self, topic: str) -> Sequence[Slice]:
        """For each log of ``topic`` with rows that no ledger row covers: from the first of them to the last."""

    def merge_ledger(self, before: datetime.datetime) -> int:
        """Merge neighbouring ledger rows of the same outcome and reason that were made before ``before``.

        Coverage and summaries over all time stay the same. The merged row keeps the latest ``created_at``.

        Returns:
            By how many rows the ledger became shorter.
        """

    def reinstate(self, batch: Batch) -> Reinstated:
        """Add what a batch says and the catalog lacks; what is there stays as it is. One transaction.

        Offsets of the slice that the ledger does not have, or calls lost or ``UNTOLD``, become archived: a document
        proves it.
        Rows, duplicates and collisions are added where their offset is archived and has neither row nor duplicate. The
        numbers of ledger rows that were there before, and the summary, are left: ``recount`` sets them right. Running
        it again changes nothing, and two at once do no harm.

        Args:
            batch: An archived slice. None of its rows' UUIDs has a row elsewhere in the catalog.

        Raises:
            StaleDecisionError: A UUID was catalogued elsewhere meanwhile; nothing was changed.
            UnavailableError: The database did not answer.
        """

    def adopt(self, rows: Iterable[Row]) -> int:
        """Add rows without generation, partition, offset and digest, as another archiver leaves them.

        No ledger row accounts for them. A row whose UUID is there already is left out.

        Returns:
            How many were added.
        """

    def recount(self, topic: str) -> int:
        """Set the numbers of the topic's archived ledger rows, and its summary, to those of the rows that they count.

        Returns:
            How many ledger rows were wrong.
        """

    def claim_generation(
        self, topic: str, number: int, cluster_id: str, topic_id: str | None, reason: str
    ) -> bool:
        """Say of a rebuilt generation which topic it is of, on which cluster: it was proven.

        What is ``UNTOLD`` in it is then no longer dealt with: Kafka may have it.

        Returns:
            False where it is not the newest of the topic, or was no rebuilt one of ``UNKNOWN_CLUSTER``: it stays.
        """

    def close(self) -> None:
        """Let go of connections; closing twice is harmless."""
