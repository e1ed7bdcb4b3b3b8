"""Which objects are to become one. Reads the catalog alone, and changes nothing."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from hop_archive.catalog.compaction import Compacted, ObjectShare
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import LedgerEntry, Outcome
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog, Slice, offsets_by_log
from hop_archive.model.times import milliseconds
from hop_archive.model.topics import LayoutPolicy

LEAST_OBJECTS = 10
"""Fewer objects are not worth a request each, and writing all their bytes anew."""

MOST_ROWS = 10_000
"""Messages of one segment, as an archiver writes it, and rows of one transaction."""

GRACE = datetime.timedelta(days=1)
"""So long the old objects stay: for who has read rows and not yet their documents."""

_PAGE_ROWS = 20_000

_COARSE = datetime.timedelta(days=7)
"""Ledger rows that are older are merged, whatever their age (``catalog.ledger``)."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """What to compact, and how.

    Attributes:
        layouts: What the store's stanza says: how large segments are, and whether they are compressed.
        older_than: How long ago messages have to have been archived.
        topics: Names or globs; empty: all.
        grace: How long the old objects stay.
        everything: Whether to look from the beginning of each log, not only where it was left.
        limit: Move so many messages at most, to the next whole segment; None: all.
        stop: Asked between two segments.
        attempt: A name that no other attempt at a segment has: what hung for an hour does not take another's for its own.
        progress: Where to count ``objects`` that were put together, the ``segments`` made of them, ``messages``,
            ``old_bytes`` and ``new_bytes``; ``damaged`` segments that were not made because a document is not sound, and
            ``disturbed`` ones, because another process moved its documents or compacts the same log.
        notice: Called when something was counted.
    """

    layouts: LayoutPolicy
    older_than: datetime.timedelta
    topics: tuple[str, ...] = ()
    grace: datetime.timedelta = GRACE
    everything: bool = False
    limit: int | None = None
    stop: Callable[[], bool] = field(default=lambda: False)
    attempt: Callable[[], str] = lambda: uuid.uuid4().hex
    progress: Progress = field(default_factory=Progress)
    notice: Callable[[Progress], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Group:
    """Objects whose documents are to stand in one.

    Attributes:
        place: The offsets of which the segment is to hold all messages that stand in these objects.
        objects: By the first offset of each; none: there is nothing to do here.
        settled_to: What stands below this offset stays as it is then; behind that, what is archived next may belong to it.
    """

    place: Slice
    objects: tuple[ObjectShare, ...]
    settled_to: int

    @property
    def rows(self) -> int:
        """How many messages."""
        return sum(share.rows for share in self.objects)

    @property
    def size_bytes(self) -> int:
        """Of the documents."""
        return sum(share.size_bytes for share in self.objects)

    @property
    def stored_bytes(self) -> int:
        """Of the objects that hold them."""
        return sum(share.stored_bytes for share in self.objects)

    @property
    def is_worth_it(self) -> bool:
        """Whether there are enough of them."""
        return len(self.objects) >= LEAST_OBJECTS


@dataclass(frozen=True, slots=True)
class LogPlan:
    """What of a log is old enough, and where to begin.

    Attributes:
        places: The archived slices; neighbours are one. Between them nothing was archived, or it was taken away.
        known: How far the log was compacted before.
        horizon: From this offset on it is too young to be looked at.
        sure_to: What stands below this offset is old enough by the ledger. Ledger rows of more than a week ago are merged, and
            say when the last of them was made: behind it, an object is old enough whose messages are older than ``before_ms``.
    """

    partition_log: PartitionLog
    places: Sequence[Slice]
    known: Compacted
    horizon: int
    sure_to: int
    before_ms: int


def hold_name(at: PartitionLog) -> str:
    """What whoever makes a segment of a log holds (``Catalog.hold``), from before it reads documents until rows name them there."""
    return f"compacting {' '.join(map(str, at))}"


def chosen_topics(catalog: Catalog, wanted: Compaction) -> Sequence[str]:
    """The topics that are meant.

    Raises:
        ConfigurationError: A name or glob means none.
    """
    return Query(wanted.topics).chosen_topics(catalog.known_topics())


def logs_to_look_at(
    catalog: Catalog, wanted: Compaction, topic: str, now: datetime.datetime
) -> Iterator[LogPlan]:
    """The logs of a topic in which something is old enough that was not looked at. Reads the ledger."""
    try:
        before = now - wanted.older_than
    except OverflowError:  # before the year 1
        return
    entries = catalog.ledger([topic])
    known = catalog.compacted([topic])
    for at, archived in offsets_by_log(e.slice for e in entries if e.outcome is Outcome.ARCHIVED).items():
        sure_to, horizon = _horizons(entries, at, before, now)
        done = known.get(at, Compacted(at))
        begin = 0 if wanted.everything else done.done_to
        if not wanted.everything and done.looked_to >= horizon:
            continue
        places = [
            Slice(*at, max(start, begin), min(stop, horizon))
            for start, stop in archived
            if start < horizon and stop > begin
        ]
        if places:
            yield LogPlan(at, places, done, horizon, sure_to, milliseconds(before))


def groups(catalog: Catalog, wanted: Compaction, log: LogPlan, bucket: str) -> Iterator[Group]:
    """The groups of a log, one after another, each as of when its turn comes; also those that are not worth it.

    A group is of neighbouring objects in ``bucket``, up to the size of a segment; one of half that size or more is left as it
    is. What is at the end is a group as large as it is; where an object is more than half of that, it is left for when there is
    more: so a message of a quiet topic is written anew some ten times in all, not every day.
    """
    most_bytes = wanted.layouts.segment_bytes
    for place in log.places:
        held: list[ObjectShare] = []
        rows = size_bytes = 0
        reached, stop, is_last = place.start, place.stop, place.stop == log.horizon
        for share in _objects(catalog, place):
            if share.last >= log.sure_to and share.newest_ms >= log.before_ms:
                stop, is_last = share.first, True
                break
            is_large = 2 * share.size_bytes >= most_bytes or 2 * share.rows >= MOST_ROWS
            is_apart = is_large or share.bucket != bucket
            if held and (
                is_apart or size_bytes + share.size_bytes > most_bytes or rows + share.rows > MOST_ROWS
            ):
                yield _group(place, reached, held, share.first)
                held, rows, size_bytes, reached = [], 0, 0, share.first
            if is_apart:
                reached = share.last + 1
                yield Group(place.within(share.first, reached), (), reached)
            else:
                held.append(share)
                rows, size_bytes = rows + share.rows, size_bytes + share.size_bytes
        if not is_last:
            yield _group(place, reached, held, stop)
            continue
        settled_to = reached
        while len(held) >= LEAST_OBJECTS and 2 * held[0].size_bytes > size_bytes:
            left = held.pop(0)
            size_bytes, reached = size_bytes - left.size_bytes, left.last + 1
        yield replace(_group(place, reached, held, stop), settled_to=settled_to)
        return


def _group(place: Slice, start: int, objects: Sequence[ObjectShare], stop: int) -> Group:
    """The group of these offsets, or of more: objects may stand among the messages of one another."""
    first = min((share.first for share in objects), default=start)
    last = max((share.last for share in objects), default=start)
    return Group(place.within(min(start, first), max(stop, last + 1)), tuple(objects), stop)


def _objects(catalog: Catalog, place: Slice) -> Iterator[ObjectShare]:
    """The objects of a slice by their first offsets, a page of rows at a time."""
    pending: ObjectShare | None = None
    start = place.start
    while start < place.stop:
        page = list(catalog.objects_in(place.within(start, place.stop), _PAGE_ROWS))
        is_over = sum(share.rows for share in page) < _PAGE_ROWS
        start = place.stop if is_over else max(share.last for share in page) + 1
        for share in page:
            if pending is not None and (pending.bucket, pending.key) == (share.bucket, share.key):
                pending = _joined(pending, share)  # it goes on where the page before ended
                continue
            if pending is not None:
                yield pending
            pending = share
    if pending is not None:
        yield pending


def _joined(one: ObjectShare, other: ObjectShare) -> ObjectShare:
    return one._replace(
        rows=one.rows + other.rows,
        size_bytes=one.size_bytes + other.size_bytes,
        stored_bytes=max(one.stored_bytes, other.stored_bytes),
        last=other.last,
    )


def _horizons(
    entries: Collection[LedgerEntry], at: PartitionLog, before: datetime.datetime, now: datetime.datetime
) -> tuple[int, int]:
    """Up to where all of a log is old enough by the ledger, and up to where some of it may be."""
    sure_to = horizon = 0
    mine = sorted((e for e in entries if e.slice.partition_log == at), key=lambda entry: entry.slice)
    is_sure = True
    for entry in mine:
        is_sure = is_sure and entry.created_at <= before
        first_ms = entry.first_timestamp_ms
        may_be = (
            now - entry.created_at >= _COARSE and first_ms is not None and first_ms < milliseconds(before)
        )
        if is_sure:
            sure_to = entry.slice.stop
        elif not may_be:
            break
        horizon = entry.slice.stop
    return sure_to, horizon
