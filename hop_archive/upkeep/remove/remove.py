"""What every removal does: take rows away in portions, and delete the objects that no row names any more after them.

Rows before objects: what a crash leaves is written down as pending deletes in the transaction that took the rows away, and
whoever runs the same command again deletes it first (``Removing.delete_pending``).
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from hop_archive.archive import utc_now
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Removal, RemovalOutcome, Removed, Row
from hop_archive.errors import ConfigurationError, CorruptError, ForbiddenError, ObjectMissingError
from hop_archive.ingest.plan import units
from hop_archive.model.document import Document, decode
from hop_archive.model.keys import alternative_key, slice_of
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice, offsets_by_log
from hop_archive.model.wording import counted
from hop_archive.read.check import check
from hop_archive.read.contents import ObjectContents
from hop_archive.store.free_keys import MOST_ALTERNATIVES
from hop_archive.store.protocol import Created, Extent, NewObject, Store
from hop_archive.upkeep.failures import Failures

PORTION_OFFSETS = 10_000
"""Offsets whose rows go in one transaction; their objects are deleted before the next."""

_PAGE = 1_000
"""Pending deletes that are asked for at once."""

PORTION_MESSAGES = 500
"""Messages that are looked at one by one and go in one transaction."""

MOST_REFUSED = 50
"""Where more objects than that may not be deleted, it is the rights that are lacking: nothing more is taken away."""

Item = TypeVar("Item")


@dataclass(slots=True)
class Tally:
    """What was done so far, for people and for ``--json``; counts only grow.

    Attributes:
        removed: What of the rows is gone.
        objects: Objects that were deleted, those of the backup not counted.
        copies: Objects that were deleted in the backup.
        staying: Keys of the objects that stay, because they hold other messages.
        backup_refusal: Why the backup's copies could not be deleted; '' where they were, or there is no backup.
        refused: Objects (bucket and key) that the store or its backup does not let this command delete, while it deletes others,
            and why.
    """

    removed: Removed = field(default_factory=Removed)
    objects: int = 0
    copies: int = 0
    staying: set[str] = field(default_factory=set)
    backup_refusal: str = ""
    refused: dict[tuple[str, str], ForbiddenError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Removing:
    """What a removal works on; ``run_id`` is noted in the ledger, '' where there is no run, and the ``tally`` counts."""

    catalog: Catalog
    store: Store
    backup: Store | None = None
    run_id: str = ""
    now: Callable[[], datetime.datetime] = utc_now
    tally: Tally = field(default_factory=Tally)

    def close(self) -> None:
        """Let go of every connection."""
        for part in (self.catalog, self.store, self.backup):
            if part is not None:
                part.close()

    @contextmanager
    def command(
        self, name: str, failures: Failures | None, new_failures: Callable[[], Failures]
    ) -> Iterator[Failures]:
        """What each command is done in: what it left to be deleted goes first, and what could not be done is told last.

        Args:
            name: The command's.
            failures: Takes in what could not be done, for the caller to raise; None: it is raised here.
            new_failures: Makes what takes it in then.

        Raises:
            ForbiddenError: As for ``delete_pending``; or, at the end, some objects could not be deleted.
            HopArchiveError: At the end, of what failed.
        """
        found = new_failures() if failures is None else failures
        self.tally.refused.clear()
        self.delete_pending(name)
        yield found
        found.besides = None
        if refused := self._refused(self.store):
            found.besides = ForbiddenError(
                f"{counted(len(refused), 'object')} could not be deleted; the others are. The first: {refused[0]}",
                remedy="No row names them. They are remembered: run this again with other rights.",
                **refused[0].facts,
            )
        if failures is None:
            found.raise_any()

    def all_answer(self) -> None:
        """Ask each server, and whether it lets anything be deleted.

        Raises:
            ForbiddenError: One does not, or not most of what was to be deleted.
            UnavailableError: One does not answer.
        """
        for part in (self.catalog, self.store, self.backup):
            if part is not None:
                part.check()
        self.store.delete([])
        if len(refused := self._refused(self.store)) > MOST_REFUSED:
            raise refused[-1]

    def removal(self, command: str, reason: str) -> Removal:
        """Who takes away, and why."""
        backups = () if self.backup is None else (self.backup.bucket,)
        return Removal(command, reason, backups, self.run_id)

    def count(self, removed: Removed) -> Removed:
        """Count what was removed; returns it."""
        self.tally.removed = self.tally.removed.plus(removed)
        return removed

    def remove_places(self, places: Iterable[Slice], outcome: RemovalOutcome, removal: Removal) -> None:
        """Take rows away portion by portion, each portion's objects after its rows; ``places`` are disjoint, in order.

        The outcome is what the ledger says of them afterwards. Again: goes on.
        """
        for portion in units(places, PORTION_OFFSETS):
            self.count(self.catalog.remove(portion, outcome, removal))
            self.delete_pending(removal.command)

    def remove_adopted(self, topic: str, removal: Removal, before_ms: int | None = None) -> None:
        """Take away the adopted rows of a topic, or those before a time, and their objects after them. Again: goes on."""
        while self.count(self.catalog.remove_adopted(topic, removal, before_ms=before_ms)).messages:
            self.delete_pending(removal.command)

    def delete_pending(self, command: str) -> None:
        """Delete what ``command`` left to be deleted, now or before it crashed, but for what is named or needed.

        A row names it, or needs what is in it (``only_in``), or nothing else may have that (``unsettled_in``). An object that may
        not be deleted is in the tally then, and holds up no other one.

        Raises:
            ForbiddenError: The store does not allow deleting, or not of more than ``MOST_REFUSED`` objects. (A backup that does
                not is told in the tally.)
            UnavailableError: The store does not answer. Running it again goes on.
        """
        self.tally.objects += self._delete(command, self.store)
        if self.backup is not None and len(self._refused(self.backup)) <= MOST_REFUSED:
            try:
                self.tally.copies += self._delete(command, self.backup)
            except ForbiddenError as error:
                self.tally.backup_refusal = str(error)
            if refused := self._refused(self.backup):
                self.tally.backup_refusal = str(refused[0])

    def _refused(self, store: Store) -> list[ForbiddenError]:
        return [error for (bucket, _), error in self.tally.refused.items() if bucket == store.bucket]

    def _delete(self, command: str, store: Store) -> int:
        deleted = 0
        is_there: dict[str, bool] = {}
        settled: dict[str, Mapping[PartitionLog, OffsetSet]] = {}
        refused = self.tally.refused
        most = _PAGE + MOST_REFUSED  # those that are refused come again and again
        while page := [
            pending
            for pending in self.catalog.pending_deletes(command, store.bucket, most)
            if (store.bucket, pending.key) not in refused
        ]:
            unnamed = [
                pending.key
                for pending in page
                if not pending.is_named
                and self.only_in(pending.key, (), is_there) is None
                and self.unsettled_in(pending.key, store, settled) is None
            ]
            self._delete_unless_refused(store, unnamed)
            gone = [key for key in unnamed if (store.bucket, key) not in refused]
            self.catalog.strike_out(
                [pending for pending in page if (store.bucket, pending.key) not in refused]
            )
            deleted += len(gone)
            self.tally.staying.difference_update(unnamed)
            self.tally.staying.update({pending.key for pending in page} - {*unnamed})
        return deleted

    def _delete_unless_refused(self, store: Store, keys: Sequence[str]) -> None:
        """Delete these, and note which of them may not be deleted: by halves, so that few among many take few requests.

        Raises:
            ForbiddenError: They are too many; or the stanza does not allow it.
        """
        if not keys:
            return
        try:
            store.delete(keys)
        except ForbiddenError as error:
            store.delete([])
            if len(keys) == 1:
                self.tally.refused[store.bucket, keys[0]] = error
                if len(self._refused(store)) > MOST_REFUSED:
                    raise
                return
            half = len(keys) // 2
            self._delete_unless_refused(store, keys[:half])
            self._delete_unless_refused(store, keys[half:])

    def only_in(self, key: str, staying: Collection[uuid.UUID], is_there: dict[str, bool]) -> Row | None:
        """The row of a message, not one that is ``staying``, whose document is in this segment alone: it names one that is gone.

        So it is where a catalog was put back to before its documents were moved there, perhaps to when the segment was a
        pending delete. ``verify`` and ``repair`` make rows name it.

        Args:
            key: The segment's; of another object: None.
            staying: UUIDs.
            is_there: Which objects are known to be there, or not; is added to.
        """
        place, bucket = slice_of(key), self.store.bucket
        named = self.catalog.objects_in(place, len(place)) if place is not None else ()
        others = {share.key for share in named if share.bucket == bucket and share.key != key}
        for other in others - is_there.keys():
            found = next(iter(self.store.listing(other)), None)
            is_there[other] = found is not None and found.key == other
        gone = {other for other in others if not is_there[other]}
        if place is None or not gone:
            return None
        rows = {
            row.uuid: row
            for row in self.catalog.select(Query(places=(place,)))
            if row.object_key in gone and row.uuid not in staying
        }
        with suppress(ObjectMissingError, CorruptError):  # of a damaged one, what comes before
            (body,) = self.store.fetch([Extent(key)])
            for _, part in ObjectContents(key, body).documents():
                row = rows.get(decode(part).uuid)
                if row is not None and not check(row, part)[1]:
                    return row
        return None

    def unsettled_in(
        self, key: str, store: Store, settled: dict[str, Mapping[PartitionLog, OffsetSet]]
    ) -> Document | None:
        """A message in this segment of whose offset the ledger does not say what became of it: perhaps nothing else has it.

        So it is where a catalog was begun anew and made again, in which other content has its UUID. Not of what was suppressed.

        Args:
            key: The segment's; of another object: None.
            store: Where it is looked for: this one or the backup.
            settled: The offsets of which the ledger says that, by topic, as far as it was asked; is added to.
        """
        if (place := slice_of(key)) is None:
            return None
        if place.topic not in settled:
            settled[place.topic] = offsets_by_log(
                entry.slice for entry in self.catalog.ledger([place.topic]) if entry.is_settled
            )
        unsettled = place.offsets - settled[place.topic].get(place.partition_log, EMPTY)
        if unsettled:
            with suppress(ObjectMissingError, CorruptError):  # of a damaged one, what comes before
                (body,) = store.fetch([Extent(key)])
                for _, part in ObjectContents(key, body).documents():
                    document = decode(part)
                    is_kept = document.message.offset in unsettled
                    if is_kept and not self.catalog.suppressed([document.uuid]):
                        return document
        return None

    def make(self, new: NewObject, topic: str, removal: Removal) -> str:
        """Make an object under the first free key of this name, in the store and in its backup, and return that key.

        It is a pending delete, for as long as the grace of ``removal``, until rows name it. A backup that does not let it be
        made is told in the tally.
        """
        stores = [self.store, *([self.backup] if self.backup else [])]
        for attempt in range(MOST_ALTERNATIVES):
            tried = new._replace(key=alternative_key(new.key, attempt))
            if any(info.key == tried.key for store in stores for info in store.listing(tried.key)):
                continue  # no pending delete: it may be named
            self.catalog.note_pending_deletes([(self.store.bucket, tried.key)], topic, removal)
            if self.store.create([tried]) == [Created.OTHER]:
                continue  # somebody was faster; a pending delete is named, or goes
            try:
                # Replication would put it into the backup as well; where there is none, the backup would lack it.
                if self.backup is None or self.backup.create([tried]) != [Created.OTHER]:
                    return tried.key
            except ForbiddenError as error:
                self.tally.backup_refusal = str(error)
                return tried.key
        raise CorruptError(
            f"{MOST_ALTERNATIVES} objects with other bytes stand under the name {new.key!r}.",
            remedy="Find out who writes there; nothing was overwritten.",
            object_key=new.key,
            bucket=self.store.bucket,
        )

    def at_hand(self, row: Row) -> Row:
        """The row, unless its object is in another bucket, which is refused as by ``refuse_other_buckets``."""
        self.refuse_other_buckets([row.bucket])
        return row

    def refuse_other_buckets(self, buckets: Collection[str]) -> None:
        """Refuse to take rows away whose objects are in a bucket that is not at hand: they would stay for ever.

        Raises:
            ConfigurationError: Such a bucket is among them.
        """
        if others := sorted(set(buckets) - {self.store.bucket}):
            raise ConfigurationError(
                f"Rows in database {self.catalog.name} name the bucket {', '.join(others)}; store {self.store.name} is "
                f"the bucket {self.store.bucket}.",
                remedy="Nothing was removed. Name the store that has them.",
                database=self.catalog.name,
                store=self.store.name,
            )


def portions(items: Iterable[Item], most: int = PORTION_MESSAGES) -> Iterator[list[Item]]:
    """Cut a stream into lists of at most ``most``; none is empty."""
    coming = iter(items)
    while portion := list(islice(coming, most)):
        yield portion
