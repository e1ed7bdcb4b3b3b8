"""What every removal does: take rows away in portions, and delete the objects that no row names any more after them.

Rows before objects: what a crash leaves is written down as pending deletes in the transaction that took the rows away, and
whoever runs the same command again deletes it first (``Removing.delete_pending``).
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from hop_archive.archive import utc_now
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Deed, RemovalOutcome, Removed, Row
from hop_archive.errors import ConfigurationError, ForbiddenError
from hop_archive.ingest.plan import units
from hop_archive.model.slices import Slice
from hop_archive.store.protocol import Store

PORTION_OFFSETS = 10_000
"""Offsets whose rows go in one transaction; their objects are deleted before the next."""

PORTION_MESSAGES = 500
"""Messages that are looked at one by one and go in one transaction."""

Item = TypeVar("Item")


@dataclass(slots=True)
class Tally:
    """What was done so far, for people and for ``--json``; counts only grow.

    Attributes:
        removed: Messages, duplicates, offsets and bytes whose rows are gone.
        objects: Objects that were deleted, those of the backup not counted.
        copies: Objects that were deleted in the backup.
        staying: Keys of the objects that stay, because they hold other messages.
        backup_refusal: Why the backup's copies could not be deleted; '' where they were, or there is no backup.
    """

    removed: Removed = field(default_factory=Removed)
    objects: int = 0
    copies: int = 0
    staying: set[str] = field(default_factory=set)
    backup_refusal: str = ""


@dataclass(frozen=True, slots=True)
class Removing:
    """What a removal works on.

    Attributes:
        catalog: Where the rows are.
        store: Where the objects are; it lets them be deleted.
        backup: Where the copies are; None where there is no backup.
        run_id: Noted in the ledger; '' where there is no run.
        now: The clock on the wall.
        tally: Where to count.
    """

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

    def deed(self, command: str, reason: str) -> Deed:
        """Who takes away, and why."""
        backups = () if self.backup is None else (self.backup.bucket,)
        return Deed(command, reason, backups, self.run_id)

    def count(self, removed: Removed) -> Removed:
        """Count what was removed; returns it."""
        self.tally.removed = self.tally.removed.plus(removed)
        return removed

    def remove_places(self, places: Iterable[Slice], outcome: RemovalOutcome, deed: Deed) -> None:
        """Take rows away portion by portion, each portion's objects after its rows. Again: goes on.

        Args:
            places: Disjoint, in order.
            outcome: What the ledger says of them afterwards.
            deed: Who, and why.
        """
        for portion in units(places, PORTION_OFFSETS):
            self.count(self.catalog.remove(portion, outcome, deed))
            self.delete_pending(deed.command)

    def remove_adopted(self, topic: str, deed: Deed, before_ms: int | None = None) -> None:
        """Take away the adopted rows of a topic, or those before a time, and their objects after them. Again: goes on."""
        while self.count(self.catalog.remove_adopted(topic, deed, before_ms=before_ms)).messages:
            self.delete_pending(deed.command)

    def delete_pending(self, command: str) -> None:
        """Delete what ``command`` left to be deleted, now or before it crashed, but for what a row names.

        Raises:
            ForbiddenError: The store does not allow deleting. (A backup that does not is told in the tally.)
            UnavailableError: The store does not answer. Running it again goes on.
        """
        self.tally.objects += self._delete(command, self.store)
        if self.backup is not None:
            try:
                self.tally.copies += self._delete(command, self.backup)
            except ForbiddenError as error:
                self.tally.backup_refusal = str(error)

    def _delete(self, command: str, store: Store) -> int:
        deleted = 0
        while page := self.catalog.pending_deletes(command, store.bucket):
            unnamed = [pending.key for pending in page if not pending.is_named]
            if unnamed:
                store.delete(unnamed)
            self.catalog.strike_out(page)
            deleted += len(unnamed)
            self.tally.staying.difference_update(unnamed)
            self.tally.staying.update(pending.key for pending in page if pending.is_named)
        return deleted

    def at_hand(self, row: Row) -> Row:
        """The row, where its object is in the store.

        Raises:
            ConfigurationError: As for ``refuse_other_buckets``.
        """
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
