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
from hop_archive.catalog.records import Duplicate, Row
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
        request: What is wanted.
        timeout_s: Longest that the database may take over one page.
    """

    catalog: Catalog
    request: Request
    timeout_s: float = SELECT_TIMEOUT_S

    def items(self, target: Target) -> Iterator[Item]:
        """The items of a target: what another archiver left first; then partitions take turns, each of them in order.

        Asks for page after page, and, but for what another archiver left, keeps nothing open between: whoever takes
        them may take their time.
        """
        by_partition: dict[int, list[Lane]] = {}
        for lane in target.lanes:
            if lane.partition_log is None:
                yield from itertools.chain.from_iterable(self._adopted(lane))
                continue
            by_partition.setdefault(lane.partition, []).append(lane)
        waiting = deque(self._pages(lanes) for _, lanes in sorted(by_partition.items()))
        taking_turns: deque[Iterator[Sequence[Item]]] = deque()
        while waiting or taking_turns:
            while waiting and len(taking_turns) < _AT_ONCE:
                taking_turns.append(waiting.popleft())
            pages = taking_turns.popleft()
            if (page := next(pages, None)) is not None:
                yield from page
                taking_turns.append(pages)

    def _pages(self, lanes: Iterable[Lane]) -> Iterator[Sequence[Item]]:
        for lane in lanes:
            yield from self._of_lane(lane)

    def _of_lane(self, lane: Lane) -> Iterator[Sequence[Item]]:
        for place in lane.slices():
            start = place.start
            while start < place.stop:
                page, start = self._page(place.within(start, place.stop))
                if page:
                    yield page

    def _page(self, place: Slice) -> tuple[list[Item], int]:
        """The first items of a slice, and where the next page begins."""
        query = replace(bounded(self.request), places=(place,), limit=PAGE)
        rows = list(self.catalog.select(query, timeout_s=self.timeout_s))
        stop = place.stop if len(rows) < PAGE else (rows[-1].offset or 0) + 1
        items = [Item(row, row.offset, row.timestamp_ms, place.partition_log) for row in self._kept(rows)]
        if not self.request.duplicates:
            return items, stop
        copies, stop = self._copies(place.within(place.start, stop))
        kept = [item for item in items if (item.offset or 0) < stop]
        return list(merge(kept, copies, key=lambda item: item.offset or 0)), stop

    def _copies(self, place: Slice) -> tuple[list[Item], int]:
        """The duplicates of a slice, with the rows that hold them; and how far that goes."""
        found = self.catalog.duplicates_in(place, PAGE)
        stop = place.stop if len(found) < PAGE else found[-1].offset + 1
        held = self._rows_of(found)
        return [
            Item(held[one.uuid], one.offset, one.timestamp_ms, place.partition_log)
            for one in found
            if one.uuid in held and in_time(self.request, one.timestamp_ms)
        ], stop

    def _rows_of(self, copies: Sequence[Duplicate]) -> dict[uuid.UUID, Row]:
        wanted = {one.uuid for one in copies}
        if self.request.query.uuids is not None:
            wanted &= set(self.request.query.uuids)
        if not wanted:
            return {}
        # Of the message that is kept all bounds hold but those in time and place: the copy has its own.
        query: Query = replace(
            bounded(self.request), uuids=tuple(sorted(wanted)), since_ms=None, until_ms=None
        )
        return {row.uuid: row for row in self._kept(self.catalog.select(query, timeout_s=self.timeout_s))}

    def _kept(self, rows: Iterable[Row]) -> list[Row]:
        """Those whose content was not removed for good: that is never put back."""
        every = list(rows)
        gone = self.catalog.suppressed([row.uuid for row in every]) if every else frozenset()
        return [row for row in every if row.uuid not in gone] if gone else every

    def _adopted(self, lane: Lane) -> Iterator[Sequence[Item]]:
        query = replace(bounded(self.request), topics=(lane.topic,), adopted=True)
        rows = iter(self.catalog.select(query, timeout_s=self.timeout_s))
        while page := list(itertools.islice(rows, PAGE)):
            yield [Item(row, None, row.timestamp_ms, None) for row in self._kept(page)]
