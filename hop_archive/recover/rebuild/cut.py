"""Which slices the rows of a log make. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from hop_archive.model.slices import OffsetRange

Item = TypeVar("Item")


class FilledSlice(NamedTuple, Generic[Item]):
    """A slice, and what stands in it: by offset, in order."""

    start: int
    stop: int
    items: list[tuple[int, Item]]


def disjoint(claims: Iterable[tuple[int, int]]) -> list[OffsetRange]:
    """The same offsets as ranges that do not overlap, each as it was as far as the ones before leave of it."""
    found: list[OffsetRange] = []
    end = 0
    for start, stop in sorted(claims):
        if stop > max(start, end):
            found.append(OffsetRange(max(start, end), stop))
            end = stop
    return found


def cut(
    claims: Sequence[tuple[int, int]], items: Iterable[tuple[int, Item]], most: int
) -> Iterator[FilledSlice[Item]]:
    """Slices by ascending offset: the claimed ranges, and between them each run of offsets without a hole.

    A claimed range is dealt with as a whole, because a segment's name says that all of it was read: where nothing
    stands, Kafka delivered nothing, or a copy. Of other offsets only those where something stands are known.

    Args:
        claims: Disjoint, ascending.
        items: By ascending offset, no offset twice.
        most: Most items in one; larger ones are cut into several.
    """
    coming = iter(claims)
    claim = next(coming, None)
    current: FilledSlice[Item] | None = None
    for offset, item in items:
        while claim is not None and claim[1] <= offset:
            yield from _claimed(claim, current)
            current, claim = None, next(coming, None)
        if claim is not None and claim[0] <= offset:
            if current is None or current.start < claim[0]:
                yield from [current] if current else []
                current = FilledSlice(claim[0], claim[1], [])
        elif current is None or current.stop != offset:
            yield from [current] if current else []
            current = FilledSlice(offset, offset, [])
        if len(current.items) >= most:
            yield current._replace(stop=offset)
            current = FilledSlice(offset, current.stop, [])
        current.items.append((offset, item))
        current = current._replace(stop=max(current.stop, offset + 1))
    while claim is not None:
        yield from _claimed(claim, current)
        current, claim = None, next(coming, None)
    if current is not None:
        yield current


def _claimed(claim: tuple[int, int], current: FilledSlice[Item] | None) -> list[FilledSlice[Item]]:
    """What ends with a claimed range."""
    if current is not None and claim[0] <= current.start < claim[1]:
        return [current]
    return [*([current] if current else []), FilledSlice(*claim, [])]
