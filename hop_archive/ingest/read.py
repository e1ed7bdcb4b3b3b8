"""Cutting what a reader delivers into readings: slices with their messages, ready to become batches.

A reading is complete by the reader's *position*, never by its last message: transaction markers, aborted
messages and compaction leave offsets for which nothing comes. What is held while readings fill is bounded.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from types import MappingProxyType
from typing import TypeAlias

from hop_archive.errors import (
    GenerationChangedError,
    HopArchiveError,
    OffsetsGoneError,
    UnavailableError,
    UnreadableMessageError,
)
from hop_archive.model.limits import Limits
from hop_archive.model.message import Message, TopicPartition, content_bytes
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive.source.protocol import Reader, place_of

Refused: TypeAlias = Callable[[HopArchiveError], None]
"""Told why a partition (``facts``) was given up, while others are read on."""

POLL_S = 0.25
"""How long one poll waits for a first message, seconds: how soon a stop is noticed when nothing comes."""

STALL_S = 30.0
"""After how long without any progress, in seconds, reading a slice that must have an end is given up."""

LINGER_S = 0.5
"""How long following gathers messages for one batch, in seconds: shorter is sooner, longer is fewer batches."""

_FIRST_POLLED = 100
_PLACE = itemgetter(0, 1)


@dataclass(frozen=True, slots=True)
class Reading:
    """A slice that was read whole.

    Attributes:
        slice: The offsets: each was delivered, or is absent.
        messages: Those delivered, in order.
        skipped: Why the one message in it cannot be archived; '' where all can.
        proven_epoch: Under which leader epoch the log had been proven when reading began; None where it tells none;
            ``UNPROVEN`` or ``GONE`` where it was not.
        is_void: Its topic or log changed meanwhile: it may not be stored, and was seen.
    """

    slice: Slice
    messages: tuple[Message, ...]
    skipped: str = ""
    size_bytes: int = 0
    proven_epoch: int | None = None
    is_void: bool = False

    @property
    def is_beyond_proof(self) -> bool:
        """Whether the log was not proven, or under an earlier leader than one of its messages is of: epochs only grow in a log."""
        if self.proven_epoch is None:
            return False
        last = self.messages[-1].leader_epoch if self.messages else None
        return self.proven_epoch < 0 or (last is not None and last > self.proven_epoch)

    def void_if_of(self, topics: Collection[str]) -> Reading:
        """The same, void where it is of one of these topics, which were made anew after they were planned."""
        return replace(self, is_void=True) if self.slice.topic in topics else self


@dataclass(slots=True)
class _Fill:
    """A reading of one partition in the making."""

    partition_log: PartitionLog
    start: int
    stop: int | None
    proven_epoch: int | None = None
    messages: list[Message] = field(default_factory=list)
    held_bytes: int = 0
    since: float | None = None

    def wait(self, now: float) -> float:
        """For how long something has been waiting to be handed over, from now on at the latest; seconds."""
        self.since = now if self.since is None else self.since
        return now - self.since

    def take(
        self, some: Sequence[Message], sizes: Sequence[int], limits: Limits, now: float
    ) -> Iterator[Reading]:
        """Take in what came together, of these sizes; the readings that are full because of it."""
        begin = 0
        while begin < len(some):
            end = begin + limits.batch_messages - len(self.messages)
            yield from self._take(some[begin:end], sizes[begin:end], limits, now)
            begin = end

    def _take(
        self, some: Sequence[Message], sizes: Sequence[int], limits: Limits, now: float
    ) -> Iterator[Reading]:
        """The same for no more messages than are left to the limit; all at once where they fit."""
        weight = self.held_bytes + sum(sizes)
        if weight <= limits.batch_bytes and (self.stop is None or some[-1].offset < self.stop):
            self.wait(now)
            self.messages += some
            self.held_bytes = weight
            if len(self.messages) == limits.batch_messages or weight == limits.batch_bytes:
                yield self.cut(some[-1].offset + 1)
            return
        for message, size_bytes in zip(some, sizes, strict=True):
            if self.stop is not None and message.offset >= self.stop:
                return
            if self.messages and self.held_bytes + size_bytes > limits.batch_bytes:
                yield self.cut(message.offset)
            self.wait(now)
            self.messages.append(message)
            self.held_bytes += size_bytes
            if len(self.messages) >= limits.batch_messages or self.held_bytes >= limits.batch_bytes:
                yield self.cut(message.offset + 1)

    def cut(self, stop: int) -> Reading:
        """The reading up to ``stop``; filling goes on from there."""
        reading = Reading(
            Slice(*self.partition_log, self.start, stop),
            tuple(self.messages),
            size_bytes=self.held_bytes,
            proven_epoch=self.proven_epoch,
        )
        self.start, self.messages, self.held_bytes, self.since = stop, [], 0, None
        return reading


class _Fills:
    """The readings in the making of all partitions that one reader reads."""

    def __init__(
        self,
        reader: Reader,
        limits: Limits,
        monotonic: Callable[[], float],
        epochs: Mapping[PartitionLog, int | None],
    ) -> None:
        self._reader = reader
        self._epochs = epochs
        self._limits = limits
        self._monotonic = monotonic
        self._at_once = min(_FIRST_POLLED, limits.poll_messages)
        self.polled_s = 0.0
        self.fills: dict[TopicPartition, _Fill] = {}

    def open(self, partition_log: PartitionLog, start: int, stop: int | None) -> None:
        at = TopicPartition(partition_log.topic, partition_log.partition)
        self.fills[at] = _Fill(partition_log, start, stop, self._epochs.get(partition_log))

    def close(self, partition: TopicPartition) -> _Fill:
        self._reader.release([partition])
        return self.fills.pop(partition)

    def poll(self, timeout_s: float) -> Iterator[Reading]:
        """Take what has come; readings that are full because of it, or while all together hold more than the buffer may."""
        limits, began = self._limits, self._monotonic()
        messages = self._reader.poll(self._at_once, timeout_s)
        now = self._monotonic()
        self.polled_s += now - began
        sizes = [content_bytes(key, value, headers) for _, _, _, _, _, key, value, headers, _ in messages]
        if sizes:  # about an eighth of the buffer at a time, judged by the size of what came last
            fitting = limits.buffer_bytes // 8 * len(sizes) // (sum(sizes) + len(sizes))
            self._at_once = max(1, min(limits.poll_messages, fitting, self._at_once * 4))
        begin = 0
        for place, run in itertools.groupby(messages, _PLACE):  # mostly, many of one partition come together
            some = list(run)
            fill = self.fills.get(TopicPartition(*place))
            if fill is not None:
                yield from fill.take(some, sizes[begin : begin + len(some)], limits, now)
            begin += len(some)
        while sum(f.held_bytes for f in self.fills.values()) > limits.buffer_bytes:
            fill = max(self.fills.values(), key=lambda f: f.held_bytes)
            yield fill.cut(fill.messages[-1].offset + 1)

    def position(self, partition: TopicPartition) -> int:
        """How far the partition is read: everything below was delivered or is absent."""
        fill = self.fills[partition]
        reached = max(self._reader.position(partition), fill.start)
        return reached if fill.stop is None else min(reached, fill.stop)

    def finish(self, at: TopicPartition, queue: deque[Slice]) -> Iterator[Reading]:
        """Where a slice was read to its end: its last reading, and the partition's next slice begun."""
        fill = self.fills[at]
        if fill.stop is None or self.position(at) < fill.stop:
            return
        if fill.start < fill.stop:
            yield fill.cut(fill.stop)
        if not queue:
            self.close(at)
            return
        following = queue.popleft()
        self._reader.add({at: following.start})
        self.open(following.partition_log, following.start, following.stop)

    def step_over(self, error: UnreadableMessageError) -> Iterator[Reading]:
        """The reading before a message that cannot be represented, one of that message, and reading goes on after it."""
        at = TopicPartition(str(error.facts["topic"]), int(str(error.facts["partition"])))
        offset = int(str(error.facts["offset"]))
        fill = self.fills.get(at)
        if fill is None or offset < fill.start or (fill.stop is not None and offset >= fill.stop):
            return  # about what was fetched beyond a slice that is read by now
        if fill.start < offset:
            yield fill.cut(offset)
        yield replace(fill.cut(offset + 1), skipped=str(error.facts["why"]))
        self._reader.add({at: offset + 1})

    def give_up(self, error: HopArchiveError) -> Iterator[Reading]:
        """Let go of the partition that an error is about; what was read of a topic that changed is void."""
        topic, partition = str(error.facts["topic"]), error.facts.get("partition")
        for at in [a for a in self.fills if a.topic == topic and partition in (None, a.partition)]:
            fill = self.close(at)
            if fill.messages:
                reading = fill.cut(fill.messages[-1].offset + 1)
                yield replace(reading, is_void=isinstance(error, GenerationChangedError))

    def ripe(self, now: float, linger_s: float) -> Iterator[Reading]:
        """The readings, up to the position reached, of which something has waited for ``linger_s``."""
        for at, fill in self.fills.items():
            reached = self.position(at)
            if (fill.messages or reached > fill.start) and fill.wait(now) >= linger_s:
                yield fill.cut(reached)


def read_slices(
    reader: Reader,
    slices: Iterable[Slice],
    limits: Limits,
    monotonic: Callable[[], float],
    stall_s: float = STALL_S,
    epochs: Mapping[PartitionLog, int | None] = MappingProxyType({}),
    refused: Refused | None = None,
) -> Iterator[Reading]:
    """Read slices to their end, many partitions at a time, each slice cut into readings within the limits.

    A partition that may not be read, or at which nothing moved for ``stall_s``, is given up, too, and the others are read on.
    A slice whose offsets are gone is given up from there on: what was read of it comes as a reading, the rest is
    for the next plan to judge. Where a topic was deleted, nothing more of it comes. A message that the client
    cannot represent comes as a reading of its own that says why. ``refused`` is told of each partition that was given up, and
    why; without it, the first reason is raised when all others are read.

    The reader has no partition assigned that the slices are of; these are disjoint, those of one partition in order. The
    limits are of one reading, and of all in the making together; ``epochs`` says under which leader each log was proven.

    Raises:
        UnavailableError: The source does not answer.
        HopArchiveError: Without ``refused``: why a partition was given up; a message that is damaged, for one.
    """
    queues: dict[TopicPartition, deque[Slice]] = {}
    for planned in slices:
        queues.setdefault(planned.topic_partition, deque()).append(planned)
    fills = _Fills(reader, limits, monotonic, epochs)
    reader.add({at: queue[0].start for at, queue in queues.items()})
    for queue in queues.values():
        first = queue.popleft()
        fills.open(first.partition_log, first.start, first.stop)
    stall = _Stall(stall_s)
    failed: HopArchiveError | None = None
    while fills.fills:
        errors: list[HopArchiveError] = []
        try:
            yield from fills.poll(POLL_S)
        except UnreadableMessageError as error:
            yield from fills.step_over(error)
        except (OffsetsGoneError, GenerationChangedError) as error:
            yield from (r for r in fills.give_up(error) if not r.is_void)  # planned slices were seen before
        except HopArchiveError as error:
            if place_of(error) is None:
                raise  # it is about no partition
            errors.append(error)
        for at in list(fills.fills):
            yield from fills.finish(at, queues[at])
        errors += stall.check({at: fills.position(at) for at in fills.fills}, fills.polled_s)
        for given_up in errors:
            yield from fills.give_up(given_up)
            if refused is not None:
                refused(given_up)
            else:
                failed = failed or given_up
    if failed is not None:
        raise failed


def follow(
    reader: Reader,
    starts: dict[PartitionLog, int],
    limits: Limits,
    monotonic: Callable[[], float],
    stop: Callable[[], bool],
    linger_s: float = LINGER_S,
    epochs: Mapping[PartitionLog, int | None] = MappingProxyType({}),
    refused: Refused | None = None,
) -> Iterator[list[Reading]]:
    """Read partitions from their starts on for as long as wanted, in readings of about ``linger_s``.

    Yields what is ready together after each poll; an empty list where nothing is. Offsets for which nothing
    came (markers) join the next reading of their partition, or come alone once they are ``linger_s`` old.
    Ends, after handing over what was read, when ``stop`` says so, and when offsets are gone or a topic was
    deleted (what was read of it is void): survey again to find what has become of it. A partition that may not be read, or whose next message is damaged,
    is given up, with ``refused`` told of it, and the others are followed on.

    Raises:
        UnavailableError: The source does not answer.
        HopArchiveError: Without ``refused``: why a partition was given up.
    """
    fills = _Fills(reader, limits, monotonic, epochs)
    reader.add({TopicPartition(at.topic, at.partition): start for at, start in starts.items()})
    for partition_log, start in starts.items():
        fills.open(partition_log, start, None)
    while not stop() and fills.fills:
        try:
            ready = list(fills.poll(min(POLL_S, linger_s)))
        except UnreadableMessageError as error:
            ready = list(fills.step_over(error))
        except (OffsetsGoneError, GenerationChangedError) as error:
            yield list(fills.give_up(error))
            break
        except HopArchiveError as error:
            if refused is None or place_of(error) is None:
                raise
            ready = list(fills.give_up(error))
            refused(error)
        yield ready + list(fills.ripe(monotonic(), linger_s))
    yield list(fills.ripe(monotonic(), 0.0))


def grouped(readings: Iterable[Reading], limits: Limits) -> Iterator[list[Reading]]:
    """Join small readings into groups of up to one batch's size, so that quiet topics share their requests."""
    group: list[Reading] = []
    messages = held_bytes = 0
    for reading in readings:
        weight = reading.size_bytes
        if group and (
            messages + len(reading.messages) > limits.batch_messages
            or held_bytes + weight > limits.batch_bytes
        ):
            yield group
            group, messages, held_bytes = [], 0, 0
        group.append(reading)
        messages, held_bytes = messages + len(reading.messages), held_bytes + weight
    if group:
        yield group


class _Stall:
    """Notices when nothing moves although something must; only time spent in polls counts."""

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._moved_at = 0.0
        self._last: dict[TopicPartition, int] = {}

    def check(self, positions: dict[TopicPartition, int], polled_s: float) -> list[UnavailableError]:
        """Why each of the partitions is to be given up, once none of them moves."""
        if positions != self._last:
            self._last, self._moved_at = positions, polled_s
        if polled_s - self._moved_at <= self._stall_s:
            return []
        return [
            UnavailableError(
                f"Reading {at} stands at offset {position} for {self._stall_s:g} s, though Kafka said that more is there.",
                remedy="Look at the broker that leads this partition; at its remote tier, if the topic has one (its broker's log "
                "tells what it could not fetch); and for a quota (consumer_byte_rate) of this client: one that allows less than a "
                "whole batch of messages holds it back for ever. The next run tries again.",
                topic=at.topic,
                partition=at.partition,
                offset=position,
            )
            for at, position in positions.items()
        ]
