"""The messages of a target, in the order in which they are written; the same each time."""

from __future__ import annotations

import itertools
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from typing import NamedTuple

from hop_archive.catalog.protocol import SELECT_TIMEOUT_S, Catalog
from hop_archive.catalog.records import Row
from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive.recover.restore.plan import Lane, Target, bounded, in_time
from hop_archive.recover.restore.request import Request

PAGE = 10_000
"""Rows that are asked for at once, and written of one partition before the next has its turn: some 10 MB."""

_AT_ONCE = 16
"""Partitions that take turns, so that several of the target's brokers have something to do."""


class Item(NamedTuple):
    """A message to write.

    Attributes:
        row: What holds its content.
        offset: Where it stood; None where nobody knows.
        timestamp_ms: Its timestamp: of a duplicate its own, not that of ``row``.
        partition_log: Where it stood: of a duplicate its own place, not that of ``row``; None where nobody knows.
    """

    row: Row
    offset: int | None
    timestamp_ms: int
    partition_log: PartitionLog | None

    @property
    def partition(self) -> int:
        """The partition in which it stood; 0 where nobody knows."""
        return self.partition_log.partition if self.partition_log else 0


@dataclass(frozen=True, slots=True)
class ItemReader:
    """Where items come from.

    Attributes:
        catalog: The catalog.
        request: What was asked for.
    """

    catalog: Catalog
    request: Request

    def items(self, target: Target) -> Iterator[Item]:
        """The items of a target: what another archiver left first; then partitions take turns, each of them in order.

        Asks for page after page, and, but for what another archiver left, keeps nothing open between: whoever takes
        them may take their time.
        """
        by_partition: dict[int, list[Lane]] = {}
        for lane in target.lanes:
            if lane.partition_log is not None:
                by_partition.setdefault(lane.partition, []).append(lane)
                continue
            rows = self._select(replace(bounded(self.request), topics=(lane.topic,), adopted=True))
            while page := list(itertools.islice(rows, PAGE)):
                yield from (Item(row, None, row.timestamp_ms, None) for row in self._unsuppressed(page))
        waiting = deque(self._pages(lanes) for _, lanes in sorted(by_partition.items()))
        taking_turns: deque[Iterator[Sequence[Item]]] = deque()
        while waiting or taking_turns:
            while waiting and len(taking_turns) < _AT_ONCE:
                taking_turns.append(waiting.popleft())
            pages = taking_turns.popleft()
            if (items := next(pages, None)) is not None:
                yield from items
                taking_turns.append(pages)

    def _pages(self, lanes: Iterable[Lane]) -> Iterator[Sequence[Item]]:
        """The items of the lanes of one partition, one lane after another, a page of rows at a time."""
        for place in (place for lane in lanes for place in lane.slices()):
            start = place.start
            while start < place.stop:
                ahead = place.within(start, place.stop)
                rows = list(self._select(replace(bounded(self.request), places=(ahead,), limit=PAGE)))
                start = place.stop if len(rows) < PAGE else (rows[-1].offset or 0) + 1
                items = [
                    Item(row, row.offset, row.timestamp_ms, place.partition_log)
                    for row in self._unsuppressed(rows)
                ]
                if self.request.duplicates:
                    copies, start = self._copies(ahead.within(ahead.start, start))
                    kept = [item for item in items if (item.offset or 0) < start]
                    items = list(merge(kept, copies, key=lambda item: item.offset or 0))
                if items:
                    yield items

    def _copies(self, place: Slice) -> tuple[list[Item], int]:
        """The duplicates of a slice, with the rows that hold them; and how far that goes."""
        copies = self.catalog.duplicates_in(place, PAGE)
        stop = place.stop if len(copies) < PAGE else copies[-1].offset + 1
        uuids = {copy.uuid for copy in copies}
        if self.request.query.uuids is not None:
            uuids &= set(self.request.query.uuids)
        held: dict[uuid.UUID, Row] = {}
        if uuids:
            # Of the message that is kept all bounds hold but those in time and place: the copy has its own.
            query = replace(bounded(self.request), uuids=tuple(sorted(uuids)), since_ms=None, until_ms=None)
            held = {row.uuid: row for row in self._unsuppressed([*self._select(query)])}
        return [
            Item(held[copy.uuid], copy.offset, copy.timestamp_ms, place.partition_log)
            for copy in copies
            if copy.uuid in held and in_time(self.request, copy.timestamp_ms)
        ], stop

    def _select(self, query: Query) -> Iterator[Row]:
        return iter(self.catalog.select(query, timeout_s=SELECT_TIMEOUT_S))

    def _unsuppressed(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Those whose content was not removed for good: that is never put back."""
        gone = self.catalog.suppressed([row.uuid for row in rows]) if rows else frozenset()
        return [row for row in rows if row.uuid not in gone]
