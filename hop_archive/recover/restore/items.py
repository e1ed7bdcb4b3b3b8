"""The messages of a target, in the order in which they are written; the same each time."""

from __future__ import annotations

import itertools
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from operator import itemgetter
from typing import NamedTuple

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.stored import Stored
from hop_archive.model.slices import PartitionLog
from hop_archive.recover.restore.plan import Lane, Target, bounded, in_time
from hop_archive.recover.restore.request import Request

PAGE = 10_000
"""Messages that are asked for at once, and written of one partition before the next has its turn: some 10 MB."""

_AT_ONCE = 16
"""Partitions that take turns, so that several of the target's brokers have something to do."""


class Page(NamedTuple):
    """Messages of one log, to be written one after another.

    Attributes:
        partition_log: Where they stood: of duplicates their own place, not that of the message that is kept; None where
            nobody knows.
        messages: With offset and timestamp as they stood there.
    """

    topic: str
    partition_log: PartitionLog | None
    messages: Sequence[Stored]

    @property
    def partition(self) -> int:
        """The partition in which they stood; 0 where nobody knows."""
        return self.partition_log.partition if self.partition_log else 0


@dataclass(frozen=True, slots=True)
class ItemReader:
    """Where the messages come from."""

    catalog: Catalog
    request: Request

    def pages(self, target: Target) -> Iterator[Page]:
        """The messages of a target: what another archiver left first; then partitions take turns, each of them in order.

        Asks for page after page, and, but for what another archiver left, keeps nothing open between: whoever takes
        them may take their time.
        """
        by_partition: dict[int, list[Lane]] = {}
        for lane in target.lanes:
            if lane.partition_log is not None:
                by_partition.setdefault(lane.partition, []).append(lane)
                continue
            rows = self.catalog.select(replace(bounded(self.request), topics=(lane.topic,), adopted=True))
            while some := list(itertools.islice(rows, PAGE)):
                gone = self.catalog.suppressed([row.uuid for row in some])
                yield Page(lane.topic, None, [Stored.of(row) for row in some if row.uuid not in gone])
        waiting = deque(self._pages(lanes) for _, lanes in sorted(by_partition.items()))
        taking_turns: deque[Iterator[Page]] = deque()
        while waiting or taking_turns:
            while waiting and len(taking_turns) < _AT_ONCE:
                taking_turns.append(waiting.popleft())
            pages = taking_turns.popleft()
            if (page := next(pages, None)) is not None:
                yield page
                taking_turns.append(pages)

    def _pages(self, lanes: Iterable[Lane]) -> Iterator[Page]:
        """The messages of the lanes of one partition, one lane after another, a page at a time."""
        for place in (place for lane in lanes for place in lane.slices()):
            start = place.start
            while start < place.stop:
                ahead = place.within(start, place.stop)
                messages = self.catalog.stored(replace(bounded(self.request), places=(ahead,), limit=PAGE))
                start = place.stop if len(messages) < PAGE else (messages[-1].offset or 0) + 1
                if self.request.duplicates:
                    found = self.catalog.duplicates_in(ahead.within(ahead.start, start), PAGE)
                    start = start if len(found) < PAGE else found[-1].offset + 1
                    held = self._held({copy.uuid for copy in found})
                    copies = [
                        held[copy.uuid]._replace(offset=copy.offset, timestamp_ms=copy.timestamp_ms)
                        for copy in found
                        if copy.uuid in held and in_time(self.request, copy.timestamp_ms)
                    ]
                    kept = [message for message in messages if (message.offset or 0) < start]
                    messages = list(merge(kept, copies, key=itemgetter(0)))
                if messages:
                    yield Page(place.topic, place.partition_log, messages)

    def _held(self, uuids: set[uuid.UUID]) -> dict[uuid.UUID, Stored]:
        """Those of these messages that are selected, and whose content was not removed for good: that is never put back."""
        if self.request.query.uuids is not None:
            uuids &= set(self.request.query.uuids)
        if not uuids:
            return {}
        # Of the message that is kept all bounds hold but those in time and place: the copy has its own.
        chosen = replace(bounded(self.request), uuids=tuple(sorted(uuids)), since_ms=None, until_ms=None)
        gone = self.catalog.suppressed(uuids)
        return {row.uuid: Stored.of(row) for row in self.catalog.select(chosen) if row.uuid not in gone}
