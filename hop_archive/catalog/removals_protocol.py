"""How a catalog gives messages up: a part of its contract.

Rows go before objects. What a transaction leaves without a row is written down in the same transaction as *condemned*:
whatever dies in between, the next run of the same command finds there what is still to be deleted.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

from hop_archive.model.slices import PartitionLog, Slice

Gone = Literal["skipped", "pruned"]
"""The outcome that offsets have after their messages were taken away."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Who takes something away, and why.

    Attributes:
        command: Which command: it alone deletes what it condemned.
        reason: Why, for people; stands in the ledger.
        backups: Buckets that hold copies, which are condemned too.
        run_id: Which run does it, for people; '' where there is none.
    """

    command: str
    reason: str
    backups: tuple[str, ...] = ()
    run_id: str = ""


class Removed(NamedTuple):
    """How much was taken away.

    Attributes:
        messages: Rows of messages.
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


class Condemned(NamedTuple):
    """An object to be deleted once no row names it.

    Attributes:
        bucket: Where it is to be deleted: the bucket that rows named, or a backup of it.
        key: Its key.
        is_named: Whether a row names it, as of now: a segment that holds other messages stays.
        at: When it was condemned; another time means that it was condemned again.
    """

    bucket: str
    key: str
    is_named: bool
    at: datetime.datetime


class Candidate(NamedTuple):
    """A message that may be a copy of one before it in the same group.

    Attributes:
        group: Messages of one group may be copies of one another.
        uuid: Its UUID.
        timestamp_ms: Its timestamp.
        is_tied: Whether another one of the group has the same timestamp.
    """

    group: str
    uuid: UUID
    timestamp_ms: int
    is_tied: bool


class Copied(NamedTuple):
    """A message that another one is a copy of.

    Attributes:
        copy: UUID of the one to go.
        kept: UUID of the one that stays.
        reason: Why they are the same, for people.
    """

    copy: UUID
    kept: UUID
    reason: str


class Replaced(NamedTuple):
    """Where a message's document stands from now on.

    Attributes:
        uuid: The message.
        object_key: Key of the object.
        position: Where in it the document starts; None where it is the whole object.
        size_bytes: Length of the document.
        crc32: CRC-32 of the document.
        is_tombstone: Whether it has no content any more: what describes the message goes too.
    """

    uuid: UUID
    object_key: str
    position: int | None
    size_bytes: int
    crc32: int
    is_tombstone: bool


class Suppression(NamedTuple):
    """A message whose content was removed for good.

    Attributes:
        uuid: The message.
        topic: Its topic.
        reason: Why; stands in its document, too.
        at: When it was decided (UTC).
    """

    uuid: UUID
    topic: str
    reason: str
    at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Extent:
    """What a log, or the adopted rows of a topic, hold of what is to go.

    Attributes:
        messages: Rows of messages.
        size_bytes: Bytes of their documents.
        buckets: The buckets that they name.
    """

    messages: int = 0
    size_bytes: int = 0
    buckets: frozenset[str] = frozenset()


class RemovalsCatalog(Protocol):
    """Rows are taken away, moved or marked; each call is one transaction, or changes nothing."""

    def extent(self, places: Sequence[Slice]) -> Extent:
        """How many messages stand at these places."""

    def adopted_extent(self, topic: str, before_ms: int | None = None) -> Extent:
        """How many adopted rows ``topic`` has: all, or those with a timestamp from 0 up to, not including, ``before_ms``."""

    def remove(self, places: Sequence[Slice], outcome: Gone, deed: Deed) -> Removed:
        """Take messages and duplicates away at these places, and say so in the ledger; condemn their objects.

        Only what the ledger calls archived is touched: its row is split, and the rest of it keeps outcome and
        ``created_at``, with the numbers that are its own. Running it again, or two at once, changes nothing more. Rows
        that no ledger row covers stay.

        Args:
            places: Disjoint, in order; their offsets together not more than some ten thousand.
            outcome: What the ledger says of the offsets afterwards.
            deed: Who, and why.

        Raises:
            DataError: The ledger says less of an offset than there is: it has to be mended first. Nothing was changed.
            ForbiddenError: The role may not delete.
        """

    def remove_adopted(
        self, topic: str, deed: Deed, *, before_ms: int | None = None, most: int = 1_000
    ) -> Removed:
        """Take away adopted rows of ``topic``, the oldest first, and condemn their objects; no ledger knows them.

        Args:
            topic: Of which topic.
            deed: Who, and why.
            before_ms: Only with a timestamp from 0 up to, not including, this; None: all.
            most: So many at once.
        """

    def remove_messages(self, own: Collection[UUID], outcome: Gone, deed: Deed) -> Removed:
        """Take these messages away, adopted or not, with the duplicates that refer to them; as ``remove`` does.

        Some hundreds at once.
        """

    def likely_copies(self, topic: str) -> Iterator[Candidate]:
        """Messages of ``topic`` that may be copies of one another, streamed: by group, in each the oldest first.

        Those of one digest; and adopted rows with whatever has their topic, timestamp and CRC-32 of the value. Reads
        the whole topic: for the night.
        """

    def move_to_duplicates(self, copies: Sequence[Copied], deed: Deed) -> Removed:
        """Make duplicates of messages that are copies: no row any more, an offset that refers to the kept one.

        The ledger counts them as duplicates; what referred to the copy refers to the kept one. One that is gone, or
        whose kept one is, is left. An adopted copy has no offset: it is remembered in the table ``duplicates`` with
        generation 0, partition 0 and its row's number, and shown by no method. Some hundreds at once.
        """

    def keepers(self, places: Sequence[Slice], since_ms: int) -> Mapping[PartitionLog, int]:
        """The first offset, of each log, at these places that is not old: what stands there stays.

        Not old is a message or duplicate with a timestamp at or after ``since_ms``, or below 0 (which tells nothing); and
        a message that a duplicate which is not old refers to, wherever that stands. Logs without any are left out.
        """

    def spans(self, topic: str) -> Sequence[Slice]:
        """Of each log of ``topic`` that has messages: from the first of them up to and including the last."""

    def retract(self, own: Collection[UUID], *, retracted: bool) -> frozenset[UUID]:
        """Mark these messages as taken back, or undo it; the UUIDs that are in the catalog."""

    def suppress(self, own: Mapping[UUID, str], reason: str) -> None:
        """Remember that the content of these messages (UUID to topic) is to go; what is remembered stays as it is."""

    def suppressed(self, own: Collection[UUID]) -> frozenset[UUID]:
        """Which of these messages have no content any more, or are to have none: whoever puts back asks this."""

    def suppressions(self, own: Collection[UUID] | None = None) -> Sequence[Suppression]:
        """The suppressions of these UUIDs, or all, in the order in which they were decided; some thousands at most."""

    def replace_documents(self, old: tuple[str, str], new: Sequence[Replaced], deed: Deed) -> frozenset[UUID]:
        """Let rows name another object, which is durable, and condemn the old one.

        The new object was condemned before it was made, so that a crash leaves nothing behind; now it is struck out.
        Summary and ledger count the bytes anew. Rows that do not name the old object any more are left; where none does,
        nothing is changed, and the new object stays condemned.

        Args:
            old: Bucket and key of the object that the rows name now.
            new: Where the documents are: all in one object, in the same bucket.
            deed: Who, and why.

        Raises:
            ConflictError: The new object is not condemned any more, or somebody is about to delete it: make another.
                Nothing was changed.

        Returns:
            The messages whose rows were changed.
        """

    def condemn(self, objects: Collection[tuple[str, str]], topic: str, deed: Deed) -> None:
        """Condemn objects (bucket and key), and their copies in backups: those that no row names, or not yet."""

    def condemned(self, command: str, bucket: str, most: int = 1_000) -> Sequence[Condemned]:
        """Objects of ``bucket`` that ``command`` condemned and that are not acquitted yet, the first of them by key.

        Those that no row names are the caller's to delete: from now on ``replace_documents`` lets no row name them.
        """

    def doomed(self, bucket: str, keys: Collection[str]) -> frozenset[str]:
        """Which of these objects are condemned, by whichever command: whoever would catalogue an orphan asks this first."""

    def acquit(self, objects: Sequence[Condemned]) -> None:
        """Strike objects out that are deleted, or named; one that was condemned again meanwhile stays."""
