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
    open_cut: FilledSlice[Item] | None = None
    for offset, item in items:
        while claim is not None and claim[1] <= offset:
            open_cut, ended = _claimed(claim, open_cut)
            yield from ended
            claim = next(coming, None)
        if claim is not None and claim[0] <= offset:
            if open_cut is None or open_cut.start < claim[0]:
                yield from [open_cut] if open_cut else []
                open_cut = FilledSlice(claim[0], claim[1], [])
        elif open_cut is None or open_cut.stop != offset:
            yield from [open_cut] if open_cut else []
            open_cut = FilledSlice(offset, offset, [])
        if len(open_cut.items) >= most:
            yield open_cut._replace(stop=offset)
            open_cut = FilledSlice(offset, open_cut.stop, [])
        open_cut.items.append((offset, item))
        open_cut = open_cut._replace(stop=max(open_cut.stop, offset + 1))
    while claim is not None:
        open_cut, ended = _claimed(claim, open_cut)
        yield from ended
        claim = next(coming, None)
    if open_cut is not None:
        yield open_cut


def _claimed(
    claim: tuple[int, int], open_cut: FilledSlice[Item] | None
) -> tuple[FilledSlice[Item] | None, list[FilledSlice[Item]]]:
    """What ends with a claimed range."""
    if open_cut is not None and claim[0] <= open_cut.start < claim[1]:
        return None, [open_cut]
    before = [open_cut] if open_cut is not None else []
    return None, [*before, FilledSlice(*claim, [])]
