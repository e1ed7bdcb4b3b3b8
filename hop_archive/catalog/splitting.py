"""What becomes of a ledger row of which a part is taken away. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hop_archive.model.slices import OffsetRange, OffsetSet, Slice


class Numbers(NamedTuple):
    """What stands at some offsets.

    Attributes:
        archived: Messages.
        duplicates: Duplicates.
        absent: Offsets with neither.
        size_bytes: Bytes of the documents.
    """

    archived: int
    duplicates: int
    absent: int
    size_bytes: int

    def less(self, other: Numbers) -> Numbers:
        """What is left of these without ``other``; a number below 0 means that the ledger said too little."""
        return Numbers(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


class Cut(NamedTuple):
    """How a slice is cut.

    Attributes:
        taken: What is taken away of it.
        kept: What stays, in order.
    """

    taken: tuple[OffsetRange, ...]
    kept: tuple[OffsetRange, ...]


def cut(whole: Slice, places: Sequence[Slice]) -> Cut:
    """Cut out of ``whole`` what of it is among ``places``."""
    wanted = OffsetSet.of((p.start, p.stop) for p in places if p.partition_log == whole.partition_log)
    taken = whole.offsets & wanted
    return Cut(taken.ranges, (whole.offsets - taken).ranges)


def to_count(parts: Cut) -> tuple[OffsetRange, ...]:
    """The kept parts that have to be counted: the last one is what the others leave.

    So a number that was wrong before is wrong afterwards, in that last part, where verification goes on finding it.
    Counting all parts would make a lost row an absent offset, silently.
    """
    return parts.kept[:-1]
