"""From watermarks and coverage to work: which slices to archive, which offsets are lost. Pure.

``work = [low, stable) − coverage − in flight``. There is no cursor: a hole anywhere in the coverage is simply
work, whatever made it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hop_archive.model.limits import Limits
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.watermarks import Watermarks


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, in order of topic, partition and offset.

    Attributes:
        slices: To be read and archived.
        lost: Retention removed these before they were archived: to be recorded.
        left: Offsets that are work too, but exceed the limit: for the next plan.
    """

    slices: tuple[Slice, ...] = ()
    lost: tuple[Slice, ...] = ()
    left: int = 0

    @property
    def messages(self) -> int:
        """Offsets in the slices: an upper bound of the messages."""
        return sum(len(s) for s in self.slices)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What planning needs to know of one partition.

    Attributes:
        watermarks: What Kafka holds.
        coverage: Offsets already dealt with, all of them: what it lacks below ``watermarks.low`` is lost.
        in_flight: Offsets that a live run has taken on.
    """

    watermarks: Watermarks
    coverage: OffsetSet = EMPTY
    in_flight: OffsetSet = EMPTY


def work(known: Knowledge) -> OffsetSet:
    """The offsets to read: ``[low, stable) − coverage − in flight``."""
    marks = known.watermarks
    if marks.low >= marks.stable:
        return EMPTY
    return OffsetSet.between(marks.low, marks.stable) - known.coverage - known.in_flight


def lost(known: Knowledge) -> OffsetSet:
    """The offsets below the low watermark that nothing covers: no longer to be had.

    Those in flight are left out: the run that has them may have read them in time.
    """
    return OffsetSet.between(0, known.watermarks.low) - known.coverage - known.in_flight


def plan(
    known: Mapping[PartitionLog, Knowledge], limits: Limits, unreadable: Collection[str] = frozenset()
) -> Plan:
    """The work over all partitions of ``known``, at most ``limits.run_messages`` offsets, shared fairly.

    Slices are whole contiguous ranges; reading cuts them into batches. The same input gives the same plan. Of topics that
    are ``unreadable``, that may not be read, nothing is work, and what of them is gone is lost all the same.
    """
    pending = {
        at: offsets
        for at, partition in known.items()
        if at.topic not in unreadable and (offsets := work(partition))
    }
    # Equal shares, so that no busy partition starves the others; what a small one does not need goes to the larger ones.
    budget, chosen = limits.run_messages, {}
    smallest_first = sorted(pending, key=lambda partition_log: (pending[partition_log].size, partition_log))
    for served, partition_log in enumerate(smallest_first):
        share = -(-budget // (len(smallest_first) - served))
        chosen[partition_log] = pending[partition_log].first(share)
        budget -= chosen[partition_log].size
    slices = [s for partition_log in sorted(chosen) for s in partition_log.slices(chosen[partition_log])]
    gone = [s for partition_log in sorted(known) for s in partition_log.slices(lost(known[partition_log]))]
    total = sum(offsets.size for offsets in pending.values())
    return Plan(tuple(slices), tuple(gone), left=total - sum(len(s) for s in slices))


def units(slices: Iterable[Slice], most_offsets: int) -> list[tuple[Slice, ...]]:
    """Divide slices, in order, into units of work of at most ``most_offsets`` offsets each; none is empty.

    Raises:
        ValueError: ``most_offsets`` is below 1.
    """
    if most_offsets < 1:
        raise ValueError(f"a unit of {most_offsets} offsets")
    divided: list[list[Slice]] = []
    room = 0
    for whole in slices:
        start = whole.start
        while start < whole.stop:
            if room == 0:
                divided.append([])
                room = most_offsets
            part = whole.within(start, min(whole.stop, start + room))
            divided[-1].append(part)
            start, room = part.stop, room - len(part)
    return [tuple(unit) for unit in divided]
