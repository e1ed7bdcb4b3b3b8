"""From watermarks and coverage to work: which slices to archive, which offsets are lost. Pure.

``work = [low, stable) − coverage − in flight``. There is no cursor: a hole anywhere in the coverage is simply
work, whatever made it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hop_archive.slices import EMPTY, Lineage, OffsetSet, Slice


@dataclass(frozen=True, slots=True)
class Watermarks:
    """The offsets that Kafka holds of one partition, as it said at one moment.

    Attributes:
        low: First offset that it still holds (log start offset).
        stable: Last stable offset: readers of committed messages get no further.
        high: High watermark; an open transaction holds ``stable`` below it.
        leader_epoch: How often the partition has been given a leader (KIP-101); None where the broker does not tell. It
            grows whenever a log may have lost its end. No part of what is held: it counts for nothing in a comparison.

    Raises:
        ValueError: Made with an order other than ``0 <= low`` and ``stable <= high``.
    """

    low: int
    stable: int
    high: int
    leader_epoch: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.low < 0 or not 0 <= self.stable <= self.high:
            raise ValueError(f"not watermarks: {self}")


_OBJECTS_BYTES = 4096
"""More than what the objects of one message in the making weigh beyond its content: about 3.5 KB with three
headers, message, decision, document and row together."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one plan, one batch and one process may hold.

    Attributes:
        run_messages: Most offsets that one plan takes on.
        batch_messages: Most messages in one batch (one segment, one catalog transaction).
        batch_bytes: A batch is closed before its messages weigh more. One message alone may.
        buffer_bytes: Most bytes of messages held while batches fill, over all partitions.
        poll_messages: Most messages asked of the source at once.
    """

    run_messages: int = 200_000
    batch_messages: int = 10_000
    batch_bytes: int = 64 * 1024 * 1024
    buffer_bytes: int = 128 * 1024 * 1024
    poll_messages: int = 5_000

    @classmethod
    def within(cls, memory_bytes: int, overlap: int = 1) -> Limits:
        """Limits under which the messages and documents that one process holds stay below ``memory_bytes``.

        Held at most at once: the buffer while batches fill (two shares, a share being one batch); of each of
        the ``overlap + 1`` groups in the making its messages and its documents (two shares each); the documents
        of one batch once more, joined to a segment (one share); what Python objects weigh beyond their content
        (three shares, as no batch has more messages than one for each 4 KiB of its share); and what the
        allocator keeps of what was freed (two shares).

        On top come the interpreter itself, what the source's client has fetched (its stanza says how much), and
        whatever one message alone is larger than a share.

        Args:
            memory_bytes: The bound.
            overlap: Groups that are being stored while the next is read and encoded.
        """
        share = max(1, memory_bytes // (2 + 2 * (overlap + 1) + 1 + 3 + 2))
        messages = max(1, min(cls().batch_messages, share // _OBJECTS_BYTES))
        polled = max(1, min(cls().poll_messages, messages // 4))
        return cls(batch_messages=messages, batch_bytes=share, buffer_bytes=2 * share, poll_messages=polled)


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


@dataclass(slots=True)
class _Share:
    """A round-robin division of a message budget over partitions, so that no busy one starves the others."""

    wanted: dict[Lineage, OffsetSet]
    given: dict[Lineage, int] = field(default_factory=dict)

    def divide(self, budget: int) -> None:
        """Fill ``given``: equal shares; what a small partition does not need goes to the larger ones."""
        smallest_first = sorted(self.wanted, key=lambda lineage: (self.wanted[lineage].size, lineage))
        for served, lineage in enumerate(smallest_first):
            share = -(-budget // (len(smallest_first) - served))
            self.given[lineage] = min(share, self.wanted[lineage].size)
            budget -= self.given[lineage]


def plan(known: Mapping[Lineage, Knowledge], limits: Limits) -> Plan:
    """The work over all partitions of ``known``, at most ``limits.run_messages`` offsets, shared fairly.

    Slices are whole contiguous ranges; reading cuts them into batches. The same input gives the same plan.
    """
    wanted = {lineage: offsets for lineage, k in known.items() if (offsets := work(k))}
    share = _Share(wanted)
    share.divide(limits.run_messages)
    chosen = {lineage: wanted[lineage].first(count) for lineage, count in share.given.items()}
    slices = [s for lineage in sorted(chosen) for s in lineage.slices(chosen[lineage])]
    gone = [s for lineage in sorted(known) for s in lineage.slices(lost(known[lineage]))]
    total = sum(offsets.size for offsets in wanted.values())
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
