"""Interval algebra on offsets: half-open ranges, normalized sets of them, and slices. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from hop_archive.model.message import TopicPartition


class OffsetRange(NamedTuple):
    """Offsets from ``start`` up to, not including, ``stop``."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class OffsetSet:
    """A set of offsets as sorted, disjoint, non-adjacent, non-empty ranges.

    Equal sets compare equal, however they were built. Build with ``OffsetSet.of``, which normalizes.
    """

    ranges: tuple[OffsetRange, ...] = ()

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]]) -> OffsetSet:
        """The union of ``ranges`` (start, stop); empty ones are dropped.

        Raises:
            ValueError: A range ends before it starts, or starts below 0.
        """
        merged: list[OffsetRange] = []
        for start, stop in sorted(ranges):
            _check(start, stop)
            if merged and start <= merged[-1].stop:
                merged[-1] = OffsetRange(merged[-1].start, max(merged[-1].stop, stop))
            elif start < stop:
                merged.append(OffsetRange(start, stop))
        return cls(tuple(merged))

    @classmethod
    def between(cls, start: int, stop: int) -> OffsetSet:
        """All offsets in ``[start, stop)``."""
        return cls.of([(start, stop)])

    def __iter__(self) -> Iterator[OffsetRange]:
        return iter(self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __contains__(self, offset: int) -> bool:
        return any(start <= offset < stop for start, stop in self.ranges)

    def __or__(self, other: OffsetSet) -> OffsetSet:
        return OffsetSet.of([*self.ranges, *other.ranges])

    def __sub__(self, other: OffsetSet) -> OffsetSet:
        """Offsets of this set that are not in ``other``; linear in the ranges of both."""
        kept: list[tuple[int, int]] = []
        holes = iter(other.ranges)
        hole = next(holes, None)
        for start, stop in self.ranges:
            while hole is not None and hole.stop <= start:
                hole = next(holes, None)
            at = start
            while hole is not None and hole.start < stop:
                if at < hole.start:
                    kept.append((at, hole.start))
                at = max(at, hole.stop)
                if hole.stop >= stop:
                    break
                hole = next(holes, None)
            if at < stop:
                kept.append((at, stop))
        return OffsetSet.of(kept)

    def __and__(self, other: OffsetSet) -> OffsetSet:
        return self - (self - other)

    @property
    def size(self) -> int:
        """How many offsets it holds."""
        return sum(stop - start for start, stop in self.ranges)

    @property
    def stop(self) -> int:
        """One past the greatest offset; 0 for the empty set."""
        return self.ranges[-1].stop if self.ranges else 0

    def first(self, count: int) -> OffsetSet:
        """The ``count`` smallest offsets (all of them, where there are fewer)."""
        kept: list[OffsetRange] = []
        for start, stop in self.ranges:
            if count <= 0:
                break
            kept.append(OffsetRange(start, min(stop, start + count)))
            count -= stop - start
        return OffsetSet(tuple(kept))


EMPTY = OffsetSet()


@dataclass(frozen=True, slots=True, order=True)
class Slice:
    """Half-open offset range of one (topic, generation, partition); never empty.

    Raises:
        ValueError: Made empty, backwards or below offset 0.
    """

    topic: str
    generation: int
    partition: int
    start: int
    stop: int

    def __post_init__(self) -> None:
        _check(self.start, self.stop)
        if self.start == self.stop:
            raise ValueError(f"an empty slice: {self}")

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.start}-{self.stop} (generation {self.generation})"

    @property
    def topic_partition(self) -> TopicPartition:
        """The partition that it is a range of."""
        return TopicPartition(self.topic, self.partition)

    @property
    def partition_log(self) -> PartitionLog:
        """The offset sequence that it is a range of."""
        return PartitionLog(self.topic, self.generation, self.partition)

    @property
    def offsets(self) -> OffsetSet:
        """Its offsets as a set."""
        return OffsetSet((OffsetRange(self.start, self.stop),))

    def within(self, start: int, stop: int) -> Slice:
        """The same partition's range ``[start, stop)``."""
        return Slice(self.topic, self.generation, self.partition, start, stop)


class PartitionLog(NamedTuple):
    """One sequence of offsets that never starts again: a partition of one generation of a topic."""

    topic: str
    generation: int
    partition: int

    def slices(self, offsets: OffsetSet) -> list[Slice]:
        """The slices that ``offsets`` consist of, in order."""
        return [Slice(*self, start, stop) for start, stop in offsets]


def offsets_by_log(slices: Iterable[Slice]) -> dict[PartitionLog, OffsetSet]:
    """The offsets that slices consist of, by log, in order of the logs."""
    found: dict[PartitionLog, list[tuple[int, int]]] = {}
    for s in slices:
        found.setdefault(s.partition_log, []).append((s.start, s.stop))
    return {at: OffsetSet.of(ranges) for at, ranges in sorted(found.items())}


def _check(start: int, stop: int) -> None:
    if not 0 <= start <= stop:
        raise ValueError(f"not an offset range: [{start}, {stop})")
