"""The contract of a catalog. The same contract tests run over every implementation.

Rows go before objects. What a transaction leaves without a row is written down in the same transaction as a *pending delete*:
whatever dies in between, the next run of the same command finds there what is still to be deleted.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from hop_archive.catalog.checked import CheckedRange, CheckedScope, VerifiedRange, VerifiedShare
from hop_archive.catalog.compaction import Compacted, ObjectShare
from hop_archive.catalog.records import (
    Batch,
    Candidate,
    Collision,
    CopyOf,
    Correction,
    Duplicate,
    Generation,
    LedgerDay,
    LedgerEntry,
    Measure,
    Mentions,
    MessageDay,
    Miscount,
    PendingDelete,
    Recorded,
    Reinstated,
    Removal,
    RemovalExtent,
    RemovalOutcome,
    Removed,
    Replaced,
    Restore,
    Row,
    RowJob,
    RowPortion,
    RowRange,
    Share,
    Snapshot,
    SnapshotKind,
    Standing,
    Suppression,
    TextBacklog,
    TextEntry,
    TopicSummary,
)
from hop_archive.catalog.stored import Stored
from hop_archive.model.conditions import CatalogCondition
from hop_archive.model.findings import Finding, FindingRecord, Kind, OpenCount
from hop_archive.model.identity import Identity, Known
from hop_archive.model.query import Order, Query
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice
from hop_archive.model.watermarks import Watermarks

SELECT_TIMEOUT_S = 60.0
"""Longest that a database may take over one page of selected rows, unless somebody says otherwise."""


class Catalog(Protocol):
    """Rows, ledger, duplicates, generations, findings, restores, snapshots.

    Each call that changes anything is one transaction (``merge_ledger``: one a log), done whole or not at all. So whatever it
    raises, nothing was changed; but for UnavailableError: the database did not answer, and whether it was done is not known.
    Doing it again is right. Where the role may not do it, it raises ForbiddenError. ``topics`` that are None are all.
    """

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
        """What the database is like for the role that connects. The catalog is migrated; errors are those of ``check``."""

    def close(self) -> None:
        """Let go of connections; closing twice is harmless."""

    # Generations of topics, and what was last seen of their logs.
    def generations(self, topics: Collection[str] | None) -> Mapping[str, Sequence[Generation]]:
        """The generations of ``topics`` (None: of all), by ascending number; a topic without any is not in the result."""

    def begin_generation(
        self, topic: str, number: int, cluster_id: str, topic_id: str | None, reason: str
    ) -> Generation:
        """Record generation ``number`` of ``topic``, or return the one that has this number already.

        Callers pass the number after the last one that they saw, so two of them at once make one generation;
        the one that came second compares what it got with what it asked for.
        """

    def claim_generation(
        self, topic: str, number: int, cluster_id: str, topic_id: str | None, reason: str
    ) -> bool:
        """Say of a rebuilt generation which topic it is of, on which cluster: it was proven.

        What is ``UNTOLD`` in it is then no longer dealt with: Kafka may have it.

        Returns:
            False where it is not the newest of the topic, or was no rebuilt one of ``UNKNOWN_CLUSTER``: it stays.
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
        """Remember under which leader epoch each log was proven to be the one that is covered; None: its broker gives none.

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
        """What the generations of ``topics`` on a cluster were observed to hold, and nothing covers.

        That is below their last stable offset, as it was observed, and below the last offset that is dealt with: of a log
        that lost its end, a repair may find messages beyond. Logs of which all is covered are left out.
        """

    # The ledger.
    def coverage(self, topics: Collection[str] | None = None) -> Mapping[PartitionLog, OffsetSet]:
        """The offsets dealt with, whatever their outcome, of every generation of ``topics`` (or of all)."""

    def ledger(self, topics: Collection[str] | None = None) -> Sequence[LedgerEntry]:
        """The ledger's rows, sorted by slice."""

    def unledgered(self, topic: str) -> Sequence[Slice]:
        """For each log of ``topic`` with rows that no ledger row covers: from the first of them to the last."""

    def merge_ledger(self, before: datetime.datetime, since: datetime.datetime | None = None) -> int:
        """Merge neighbouring ledger rows of the same outcome and reason that were made before ``before``; how many fewer.

        Coverage and summaries over all time stay the same. The merged row keeps the latest ``created_at``. Logs that go on
        are kept small by ``commit``; this is for those that fell silent.

        Args:
            before: Younger rows stay as they are.
            since: Only logs with rows that were made between this moment and ``before``; None: all.
        """

    def miscounts(self, topic: str, *, every: int = 1, turn: int = 0) -> Sequence[Miscount]:
        """Where the ledger's numbers (``archived``, ``duplicates``) or the summary's (``messages``, ``bytes``) are wrong.

        Args:
            topic: The topic.
            every: 1: each ledger row is compared with its rows, which reads all rows of the topic. Else each so many-th of them
                is, and of the others only the totals of the topic, of an index; all of them, once something is wrong.
                Whoever comes again with each ``turn`` has compared all.
            turn: Which of the ledger rows, from 0 on; modulo ``every``.
        """

    def miscounts_in(self, where: Slice) -> Sequence[Miscount]:
        """Where the numbers of ledger rows that begin in a slice are wrong. Reads the rows of these, of an index."""

    def summary_miscounts(self, topic: str) -> Sequence[Miscount]:
        """Where the summary's numbers are wrong, provided that the ledger's are right; reads the topic's rows only where some are."""

    def commit(self, *batches: Batch) -> None:
        """Record batches: their rows, duplicates, collisions, ledger rows and topic summaries, or nothing of any of them.

        At least one. Slices are disjoint, and what one has as a duplicate may be a row of another. Together they cost about
        what one does; what is in the way of one of them refuses all.

        Once in ten minutes it merges, afterwards, older ledger rows of the same log (``catalog.ledger``): what windows and days
        are told of stays the same, to ten minutes in the last hour, to two hours in the last day.

        Raises:
            SliceTakenError: The ledger holds some offset of the slice already. After an UnavailableError: it was committed,
                or somebody else's batch was.
            StaleDecisionError: A UUID of the rows is in the catalog already, or what a duplicate repeats is not, or is other content
                by now.
            ProofChangedError: The log is proven under another leader epoch than the batch's, or not.
        """

    # Who archives what, so that nobody does the same again. It guards nothing: the ledger does.
    def claim_logs(self, holder: str, wanted: Collection[PartitionLog], lease_s: float) -> Share:
        """Say that ``holder`` is there and wants these logs, and no other ones; hold a fair share of them (``fair_share``).

        What it holds beyond that it lets go. It is there until ``lease_s`` from now, by the database's clock; who is there no
        more holds nothing, and what it held is free. Running it again changes nothing but that time.
        """

    def renew_claims(self, holder: str, lease_s: float) -> bool:
        """Say that ``holder`` is there still; whether it should claim anew: it holds more than its share, or was given up."""

    def drop_claims(self, holder: str) -> None:
        """Let go of all that ``holder`` holds or wants; it is there no more. Doing it twice is harmless."""

    def known(self, identities: Sequence[Identity]) -> Sequence[Known]:
        """Archived messages that any of ``identities`` might be a copy of.

        Those with the same UUID, whatever their topic; and rows without a digest whose topic, timestamp and
        CRC-32 of the value agree.
        """

    def has_adopted(self, topic: str) -> bool:
        """Whether another archiver wrote rows of ``topic``: those have no digest and no offset."""

    # Rows of messages.
    def topics(self) -> Sequence[str]:
        """The topics that have rows, sorted; asked of the rows, not of a summary that may be wrong."""

    def known_topics(self) -> Sequence[str]:
        """The topics of which there is anything, sorted: rows, a ledger, a generation or a summary.

        One without messages is among them as soon as a plan has seen it.
        """

    def partition_logs(self, topic: str) -> Sequence[PartitionLog]:
        """The logs of which ``topic`` has rows, whatever the ledger says, in order."""

    def note_logs(self) -> int:
        """Take in logs whose rows did not come by way of this program: until then, their rows are found by UUID and time only.

        A step in an index for each log of the archive. How many there were.

        Raises:
            ForbiddenError: There are some, and the role may not note them.
        """

    def spans(self, topic: str) -> Sequence[Slice]:
        """Of each log of ``topic`` that has messages: from the first of them up to and including the last."""

    def summaries(
        self, topics: Collection[str] | None = None, since: datetime.datetime | None = None
    ) -> Sequence[TopicSummary]:
        """One summary a topic, sorted by topic: of what was committed at or after ``since``, or of all, adopted rows included."""

    def rows(self, topic: str) -> Iterator[Row]:
        """The rows of ``topic``, streamed in order of generation, partition and offset; adopted rows last."""

    def find(self, message_uuid: uuid.UUID) -> Row | None:
        """The row of this UUID, if there is one."""

    def select(
        self, query: Query, order: Order = Order.PLACE, *, timeout_s: float = SELECT_TIMEOUT_S
    ) -> Iterator[Row]:
        """The rows that ``query`` selects, streamed in bounded memory, however many there are.

        Reads only, whatever the query's condition says. Each topic is seen as of the moment when its turn comes
        (``PLACE``), or all as of the first row (``ID``). Closing the iterator early is harmless.

        Raises:
            ConfigurationError: A topic of the query is none that the catalog knows, with messages or without; or the
                database takes longer than ``timeout_s`` over a page of some thousand rows; or it cannot use the condition,
                which is shown with the place marked. Raised when the first row is asked for, the latter two perhaps later.
        """

    def stored(self, query: Query) -> Sequence[Stored]:
        """Of the rows that ``query``, which names places, selects there, as many as its limit: where each is stored, by place.

        But for those that are suppressed: whoever puts back asks this. All are held at once. Errors are those of ``select``.
        """

    def duplicates(self, topic: str) -> Iterator[tuple[PartitionLog, Duplicate]]:
        """The recorded duplicates of ``topic``, streamed in order of log and offset."""

    def collisions(self, topic: str) -> Sequence[tuple[PartitionLog, Collision]]:
        """The recorded collisions of ``topic``, in order of log and offset."""

    def mentions(self, message_uuid: uuid.UUID, topic: str, limit: int = 10) -> Mentions:
        """Where else the catalog speaks of the message of this UUID and topic; the first ``limit`` of each kind."""

    def recorded(self, topic: str, *, segments: bool, after: str = "") -> Iterator[Recorded]:
        """The objects that rows of ``topic`` name, streamed in byte order of their keys: segments, or those of one document.

        Two rows of one object that should be one document, which only damage makes, come one by one. A segment whose name
        is not of the offsets that stand in it, likewise, comes where these do. What is committed after the first of them was
        asked for may be missing. However many there are, no more is read than is asked for, but for some ten thousand rows.

        Args:
            topic: The topic.
            segments: Which.
            after: Those with greater keys alone, and segments whose names are not of the log of their rows.
        """

    # Rebuilding: what is missing is added, what is there stays.
    def reinstate(self, batch: Batch) -> Reinstated:
        """Add what a batch says and the catalog lacks; what is there stays as it is.

        Offsets of the slice that the ledger does not have, or calls lost or ``UNTOLD``, become archived: a document
        proves it. Rows, duplicates and collisions are added where their offset is archived and has neither row nor duplicate. The
        numbers of ledger rows that were there before, and the summary, are left: ``recount`` sets them right. Running
        it again changes nothing, and two at once do no harm.

        Args:
            batch: An archived slice. None of its rows' UUIDs has a row elsewhere in the catalog.

        Raises:
            StaleDecisionError: A UUID was catalogued elsewhere meanwhile.
        """

    def adopt(self, rows: Iterable[Row]) -> int:
        """Add rows without generation, partition, offset and digest, as another archiver leaves them.

        No ledger row accounts for them. A row whose UUID is there already is left out; how many were added.
        """

    def recount(self, topic: str) -> int:
        """Set the numbers of the topic's archived ledger rows, and its summary, to those of the rows; how many were wrong."""

    # Restores: which there were, which may run, and how much a selection is.
    def hold(self, name: str) -> AbstractContextManager[None]:
        """Hold a name for the length of a block: nobody else who asks for it gets it meanwhile.

        Let go of when the process dies, however it does.

        Raises:
            ConflictError: Somebody else holds it.
        """

    def measure(self, query: Query, *, timeout_s: float) -> Measure:
        """How much ``query`` selects; its limit is not heeded. Errors are those of ``select``."""

    def begin_restore(self, fingerprint: str, target: str, request: Mapping[str, Any]) -> Restore:
        """The running restore of this fingerprint, or a new one."""

    def note_restore(
        self,
        number: int,
        *,
        progress: Mapping[str, Any] | None = None,
        outcome: str | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        """Note what is known by now of a restore; None leaves a part as it is.

        What of ``progress`` has the name of something that is there takes its place, and the rest stays.
        """

    def restores(
        self, *, fingerprint: str = "", running_only: bool = False, limit: int = 100
    ) -> Sequence[Restore]:
        """The latest restores, newest first: all, or those of one fingerprint."""

    # Rows are taken away, moved or marked; each call is one transaction, or changes nothing.
    def extent(self, places: Sequence[Slice]) -> RemovalExtent:
        """How many messages stand at these places."""

    def adopted_extent(self, topic: str, before_ms: int | None = None) -> RemovalExtent:
        """How many adopted rows ``topic`` has: all, or those with a timestamp from 0 up to, not including, ``before_ms``."""

    def remove(self, places: Sequence[Slice], outcome: RemovalOutcome, removal: Removal) -> Removed:
        """Take messages and duplicates away at these places, and say so in the ledger; their objects become pending deletes.

        Only what the ledger calls archived is touched: its row is split, and the rest of it keeps outcome and
        ``created_at``, with the numbers that are its own. Running it again, or two at once, changes nothing more. Rows
        that no ledger row covers stay.

        Args:
            places: Disjoint, in order; their offsets together not more than some ten thousand.
            outcome: What the ledger says of the offsets afterwards.
            removal: Who, and why.

        Raises:
            DataError: The ledger says less of an offset than there is: it has to be mended first.
        """

    def remove_adopted(
        self, topic: str, removal: Removal, *, before_ms: int | None = None, most: int = 1_000
    ) -> Removed:
        """Take away the ``most`` oldest adopted rows of ``topic``; their objects become pending deletes. No ledger knows them.

        Of all, or of those with a timestamp from 0 up to, not including, ``before_ms``.
        """

    def remove_messages(
        self, message_uuids: Collection[uuid.UUID], outcome: RemovalOutcome, removal: Removal
    ) -> Removed:
        """Take these messages away, adopted or not, with the duplicates that refer to them; as ``remove`` does.

        Some hundreds at once.
        """

    def likely_copies(self, topic: str, *, by_digest: bool = True) -> Iterator[Candidate]:
        """Messages of ``topic`` that may be copies of one another, streamed: by group, in each the oldest first.

        Those of one digest; and adopted rows with whatever has their topic, timestamp and CRC-32 of the value.

        Args:
            topic: The topic.
            by_digest: Read and sort the digests of the whole topic: for the night. Else those of messages alone whose
                publisher's UUID was in use by other content (``collisions``), and of what holds that UUID: of two messages with
                one digest that archiving itself leaves, one is such a message.
        """

    def move_to_duplicates(self, copies: Sequence[CopyOf], removal: Removal) -> Removed:
        """Make duplicates of messages that are copies: no row any more, an offset that refers to the kept one.

        The ledger counts them as duplicates; what referred to the copy refers to the kept one. One that is gone, or
        whose kept one is, is left. An adopted copy has no offset: it is remembered in the table ``duplicates`` with
        generation 0, partition 0 and its row's number, and shown by no method. Some hundreds at once.
        """

    def keepers(self, places: Sequence[Slice], since_ms: int) -> Mapping[PartitionLog, int]:
        """The first offset, of each log, at these places that is not old: what stands there stays.

        Not old is a message or duplicate with a timestamp at or after ``since_ms``, or below 0 (which says nothing); and
        a message that a duplicate which is not old refers to, wherever that stands. Logs without any are left out.
        """

    def referred_to(self, topic: str, kept_from: Mapping[PartitionLog, int]) -> Mapping[PartitionLog, int]:
        """The first message of each log of ``topic`` that a duplicate refers to which stands at or after its log's offset.

        Logs without any are left out; adopted messages have no log.
        """

    def retract(self, message_uuids: Collection[uuid.UUID], *, retracted: bool) -> frozenset[uuid.UUID]:
        """Mark these messages as taken back, or undo it; the UUIDs that are in the catalog."""

    def suppress(self, topics: Mapping[uuid.UUID, str], reason: str) -> None:
        """Remember that the content of these messages (topic by UUID) is to go; what is remembered stays as it is.

        Their texts go at once.
        """

    def suppressed(self, message_uuids: Collection[uuid.UUID]) -> frozenset[uuid.UUID]:
        """Which of these messages have no content any more, or are to have none: whoever puts back asks this."""

    def suppressions(self, message_uuids: Collection[uuid.UUID] | None = None) -> Sequence[Suppression]:
        """The suppressions of these UUIDs, or all, in the order in which they were decided; some thousands at most."""

    def replace_documents(
        self, old: tuple[str, str], new: Sequence[Replaced], removal: Removal
    ) -> frozenset[uuid.UUID]:
        """Let rows name another object, which is durable; the old one becomes a pending delete.

        The new object was a pending delete before it was made, so that a crash leaves nothing behind; now it is struck out.
        Summary and ledger count the bytes anew. Rows that do not name the old object any more are left; where none does,
        nothing is changed, and the new object stays a pending delete.

        Args:
            old: Bucket and key of the object that the rows name now.
            new: Where the documents are: all in one object, in the same bucket.
            removal: Who, and why.

        Raises:
            ConflictError: The new object is no pending delete any more, or somebody is about to delete it: make another.

        Returns:
            The messages whose rows were changed.
        """

    def note_pending_deletes(
        self, objects: Collection[tuple[str, str]], topic: str, removal: Removal
    ) -> None:
        """Note objects (bucket and key) that no row names, or not yet, and their copies in backups, as pending deletes.

        What is one already becomes this command's, with its grace: who wants an object deleted at once need not wait for
        another command's readers.
        """

    def pending_deletes(self, command: str, bucket: str, most: int = 1_000) -> Sequence[PendingDelete]:
        """Pending deletes of ``bucket`` that ``command`` noted and whose grace is over: ``most`` of them, or all; those that are due at once first, all by key.

        Those that no row names are the caller's to delete: from now on ``replace_documents`` lets no row name them.
        """

    def pending_keys(self, bucket: str, keys: Collection[str]) -> frozenset[str]:
        """Which of these objects are pending deletes, of whichever command: whoever would catalogue an orphan asks this first."""

    def waiting_keys(self, bucket: str, keys: Collection[str]) -> frozenset[str]:
        """Which of these objects are pending deletes that wait for their grace to be over, or for two days since then at most.

        So they are where they ought to be, though no row names them.
        """

    def strike_out(self, objects: Sequence[PendingDelete]) -> None:
        """Strike out what is deleted, or named; what was noted again meanwhile stays."""

    # Documents move from many objects into few.
    def objects_in(self, place: Slice, most: int) -> Sequence[ObjectShare]:
        """The objects that the first ``most`` rows of a slice name, by the first offset of each.

        Together they have ``most`` rows, or fewer: then there are no more.
        """

    def move_documents(self, moves: Sequence[Correction], removal: Removal) -> None:
        """Let rows name another place of their documents, all or none; the objects that they named become pending deletes.

        Each only if its document is the very one that it was seen to be, where it was seen to be: what was suppressed or
        taken away meanwhile is not brought back. The new object is durable, and was a pending delete for the reason of ``removal``
        before it was made; now it is struck out. Ledger and summary do not change.

        Args:
            moves: Of one log, to one object in the same bucket. Only the place differs.
            removal: Who, why, and how long readers may go on reading the old objects.

        Raises:
            ConflictError: A row is another one by now, or gone; or the new object is no pending delete of this reason any more: somebody else made it
                anew, or is about to delete it.
        """

    def compacted(self, topics: Collection[str] | None = None) -> Mapping[PartitionLog, Compacted]:
        """How far each log of these topics was compacted; one that never was is not in the result."""

    def note_compacted(self, at: PartitionLog, *, done_to: int, looked_to: int) -> None:
        """Remember how far a log was compacted; neither number goes back."""

    # Corrections of rows, ledger and summary. Each refuses what has changed; none can hide that something is missing.
    def correct_rows(self, corrections: Sequence[Correction]) -> None:
        """Put rows in the place of rows, all or none, each only if it stands exactly as it was seen.

        Raises:
            StaleDecisionError: Another row stands there by now, or none, or one with the same UUID or offset elsewhere. Doing
                it again after it took effect says so too.
            ConflictError: A row would come to name an object that is a pending delete.
        """

    def put_back(self, batch: Batch) -> None:
        """Add the rows and duplicates of a batch that the ledger counts and that are not there.

        The ledger is not changed: what would be more than it counts is refused.

        Raises:
            StaleDecisionError: The ledger counts no more than is there, does not cover an offset, or a UUID or
                offset has a row already.
        """

    def record_copy(self, at: PartitionLog, copy: Duplicate) -> None:
        """Record a copy at an offset that the ledger calls absent: one duplicate more, one absent offset less.

        Raises:
            StaleDecisionError: The ledger does not call it absent, or something is recorded there.
        """

    def account(self, batch: Batch) -> None:
        """Cover a slice that no ledger row covers: by what stands there already, and by what is added.

        What is recorded as a duplicate of the very row at its own offset is taken away: no message repeats itself.

        Raises:
            SliceTakenError: The ledger covers some of it by now.
            StaleDecisionError: A UUID or offset has a row already.
        """

    def recount_ledger(self, where: Slice) -> None:
        """Make a ledger row say what the rows are. Duplicates that repeat the row at their own offset are taken away.

        Raises:
            StaleDecisionError: No ledger row is exactly of this slice.
            DataError: It would turn offsets into absent ones that it counts as archived, or it is of a slice that was
                never archived: something is missing, which counting anew would hide.
        """

    def recount_summary(self, topic: str) -> None:
        """Make a topic's summary say what the rows are. Reads every row of the topic; commits meanwhile are counted."""

    def duplicates_in(self, place: Slice, limit: int) -> Sequence[Duplicate]:
        """The first ``limit`` of the recorded duplicates in a slice, by offset."""

    # Findings: one row for each, however often it is seen.
    def note_findings(self, findings: Sequence[Finding], seen_at: datetime.datetime) -> Sequence[bool]:
        """Remember findings that were seen; noting the same again, or by two at once, is one finding.

        A finding that was accepted before (``ACCEPTED``) is not opened again. What was resolved otherwise is: as a
        new finding.

        Args:
            findings: Some hundreds at a time; which are the same is as ``findings.remembered`` says.
            seen_at: When they were seen (UTC).

        Returns:
            Of each, in the order given, whether it is open now: False where it was accepted.
        """

    def findings(
        self,
        topics: Collection[str] | None = None,
        kinds: Collection[Kind] | None = None,
        *,
        open_only: bool = True,
        limit: int | None = None,
    ) -> Iterator[FindingRecord]:
        """The findings, streamed in the order in which they were first noted; '' is the topic of what belongs to none."""

    def open_findings(self, topics: Collection[str] | None = None) -> Sequence[OpenCount]:
        """How many findings are open, by topic and kind, sorted."""

    def resolve_findings(self, numbers: Collection[int], how: str, at: datetime.datetime) -> int:
        """Close these findings, with what became of them, but for those that are closed already; how many that were."""

    def close_unseen(self, scope: CheckedScope, how: str, at: datetime.datetime) -> int:
        """Close what a complete look did not see again; how many that were."""

    # When which range was verified. Ranges of one log do not overlap.
    def verified(self, topics: Collection[str] | None = None) -> Sequence[VerifiedRange]:
        """The ranges that were verified, sorted by place; some for each log and day of scrubbing."""

    def note_verified(self, new: VerifiedRange) -> None:
        """Remember that a range was verified, in the place of what was known of it; neighbours of one day are merged."""

    def verified_shares(self, topics: Collection[str] | None = None) -> Sequence[VerifiedShare]:
        """How much of each topic was verified, sorted by topic. Reads the ledger once."""

    # What of which section was looked at, and when. Ranges of one section do not overlap.
    def checked(self, topics: Collection[str] | None = None) -> Sequence[CheckedRange]:
        """The ranges that were looked at, of ``topics`` (or of all, and of what is outside of topics), by section and key."""

    def note_checked(self, new: Sequence[CheckedRange]) -> None:
        """Remember that ranges were looked at, in the place of what was known of them."""

    def adopted_span(self, topic: str) -> tuple[int, int] | None:
        """Least and greatest timestamp (milliseconds) of a topic's rows that another archiver wrote; None without any."""

    def adopted_rows(self, topic: str, since_ms: int) -> Iterator[Row]:
        """Those rows, from a timestamp on, streamed by timestamp."""

    # Jobs that go over all rows once, in the order in which they were added; who does one holds its name.
    def begin_row_job(self, job: RowJob) -> RowRange:
        """Where a job goes on, and how far; called before it looks for rows."""

    def rows_for(self, job: RowJob, topics: Collection[str], after: int, last: int, most: int) -> RowPortion:
        """The first ``most`` rows of ``topics``, of those numbered in ``(after, last]``, that a job has still to deal with.

        ``CHECK_OBJECTS`` and ``CHECK_COPIES``: all. ``INDEX_TEXT``: those without text. ``MEDIA_TYPES``: our own, with a media type of which there may be a better one. None
        whose content is suppressed. They may be fewer, or none, though there are more: ``reached`` tells how far was looked.
        """

    def note_row_job(self, job: RowJob, done_to: int) -> None:
        """Remember that all rows up to ``done_to`` were dealt with; not beyond ``RowRange.settled_to``. It never goes back."""

    def add_texts(self, entries: Sequence[TextEntry]) -> int:
        """Let messages be found by these texts (of ``message_ts``, where archive-core's readers look); some hundreds.

        Those that are gone, suppressed, or have a text are left out.

        Returns:
            How many were added.
        """

    def text_backlog(self, topics: Collection[str], most: int) -> TextBacklog:
        """How many of the first ``most`` rows, of those that ``INDEX_TEXT`` was not done with, wait for it in ``topics``."""

    # Numbers by topic and day. They cost as much as there is in the days asked for, however large the archive is.
    def message_days(
        self, since: datetime.datetime, until: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[MessageDay]:
        """Messages and bytes by topic and day of their timestamps, in ``[since, until)``, sorted."""

    def ledger_days(
        self, since: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[LedgerDay]:
        """Duplicates, losses and lag by topic and day of commit, since a moment, sorted.

        Ledger rows that were merged count for the day of the last of them.
        """

    # Snapshots: the last good one of each topic and group of each cluster.
    def keep_snapshots(self, cluster_id: str, snapshots: Sequence[Snapshot]) -> None:
        """Put snapshots in the place of earlier ones, all or none; those of other names stay.

        One that was taken before the one that is there does not replace it, so two who do it at once, or one
        that hung and wakes up later, do no harm.

        Raises:
            ValueError: One is of another cluster, or two are of the same thing.
        """

    def snapshots(
        self, kind: SnapshotKind, names: Collection[str] | None = None, cluster_id: str | None = None
    ) -> Sequence[Snapshot]:
        """The snapshots of a kind, of these names and this cluster or of all, sorted by cluster and name, both by bytes."""
