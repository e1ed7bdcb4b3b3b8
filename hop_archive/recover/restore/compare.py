"""Reading a target back while it is written, and comparing it with what was to be written: digest by digest, in order."""

from __future__ import annotations

import contextlib
import uuid
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from hop_archive.catalog.stored import Stored
from hop_archive.errors import ForbiddenError, OffsetsGoneError, UnavailableError
from hop_archive.model.identity import digest
from hop_archive.model.message import Message, TimestampType, TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.target_topic import STALL_S, TargetTopic
from hop_archive.source.protocol import Reader

_MOST_TOLD = 100
_POLL_MESSAGES = 10_000
_POLL_S = 0.25
_partition_of = itemgetter(1)

Expected: TypeAlias = tuple[Stored, bytes, int]
"""What was to be written, its digest as it was written, and at which offset of the target it was to stand."""


class Mismatch(NamedTuple):
    """A place in the target that does not hold what was to be written there.

    Attributes:
        uuid: Of the message that was to stand there; '' for none.
        what: In what it differs, for people.
    """

    topic: str
    partition: int
    offset: int
    uuid: str
    what: str


@dataclass(slots=True)
class ReadBack:
    """What reading back found.

    Attributes:
        append_times: Messages whose timestamp is the time of writing, because the target's clock is its own.
    """

    messages: int = 0
    differences: list[Mismatch] = field(default_factory=list)
    difference_count: int = 0
    append_times: int = 0

    def differ(self, mismatch: Mismatch) -> None:
        """Take down a difference."""
        self.difference_count += 1
        if len(self.differences) < _MOST_TOLD:
            self.differences.append(mismatch)

    def compare(self, at: TopicPartition, expected: Expected, message: Message | None) -> None:
        """Hold what stands in a partition of the target, None for nothing, against what was written there."""
        stored, wanted, offset = expected
        what = ""
        if message is None:
            what = "nothing stands there"
        elif message.offset != offset:
            what = f"the message stands at offset {message.offset}"
        elif digest(message.key, message.headers, message.value) != wanted:
            what = "its key, value or headers are others"
        elif message.timestamp_type is TimestampType.APPEND:
            self.append_times += 1
        elif message.timestamp_ms != stored.timestamp_ms:
            what = f"its timestamp is {message.timestamp_ms}, and was to be {stored.timestamp_ms}"
        if what:
            self.differ(Mismatch(*at, offset, str(uuid.UUID(bytes=stored.uuid)), what))


class Comparison(contextlib.AbstractContextManager["Comparison"]):
    """Compares what stands in a target with what was written there, as far as that was said.

    It outlives the tries of a restore, each of which enters it anew and says all that it writes, or finds there: what was
    compared in an earlier one is not read again. For one thread. Of what is read ahead of what was said it holds as much as is
    on its way to the target.

    Attributes:
        found: What it found so far.
        is_forbidden: Whether the target lets nothing of it be read.
    """

    def __init__(self, target: TargetTopic, control: Control, progress: Progress) -> None:
        self.found = ReadBack()
        self.is_forbidden = False
        self._target = target
        self._control = control
        self._progress = progress
        self._next = dict(target.base)
        """The first offset of each partition that was not compared."""
        self._gone: set[int] = set()
        """Partitions whose messages were deleted before they could be read."""
        self._reading = contextlib.ExitStack()
        self._reader: Reader | None = None
        self._assigned: set[int] = set()
        self._expected: defaultdict[int, deque[Expected]] = defaultdict(deque)
        self._read: defaultdict[int, deque[Message]] = defaultdict(deque)

    def __exit__(self, *_: object) -> None:
        self._reader = None
        for of_this_try in (self._assigned, self._expected, self._read):
            of_this_try.clear()
        self._reading.close()

    def stands(self, already: Mapping[int, int]) -> None:
        """Say how many messages of the restore each partition has when a try begins: what follows is written, and compared, anew."""
        for partition, count in already.items():
            base = self._target.base.get(partition, 0)
            self._next[partition] = min(self._next.get(partition, base), base + count)

    def expect(
        self, partition: int, first_offset: int, stored: Sequence[Stored], digests: Sequence[bytes]
    ) -> None:
        """Say what stands in a partition from an offset on: by partition in order of offsets, with nothing left out."""
        stop = first_offset + len(stored)
        start = max(first_offset, self._next.setdefault(partition, first_offset))
        said = slice(start - first_offset, None)
        self._expected[partition] += zip(stored[said], digests[said], range(start, stop), strict=True)

    def catch_up(self) -> None:
        """Compare all that was said.

        Raises:
            ForbiddenError: It may not be read.
            UnavailableError: The target does not answer, or does not deliver what it holds: that is not called missing.
        """
        heard = self._control.monotonic()
        self._compare()
        while behind := [partition for partition, expected in self._expected.items() if expected]:
            if self._poll(behind):
                heard = self._control.monotonic()
            elif self._reader is not None and self._control.monotonic() - heard >= STALL_S:
                self._gone.update(self._missing(self._reader, behind))
            self._compare()

    def _poll(self, partitions: Sequence[int]) -> bool:
        """Read on; whether anything came."""
        target = self._target
        try:
            new = {TopicPartition(target.topic, number): self._next[number] for number in partitions}
            new = {at: start for at, start in new.items() if at.partition not in self._assigned}
            if self._reader is None:
                self._reader = self._reading.enter_context(target.source.reader(new))
            elif new:
                self._reader.add(new)
            self._assigned.update(at.partition for at in new)
            found = self._reader.poll(_POLL_MESSAGES, _POLL_S)
        except ForbiddenError:
            self.is_forbidden = not self.found.messages
            raise
        except OffsetsGoneError as error:
            partition = int(str(error.facts["partition"]))
            mismatch = Mismatch(target.topic, partition, self._next[partition], "", str(error))
            self.found.differ(mismatch)
            self._gone.add(partition)
            return True
        for partition, some in groupby(found, _partition_of):
            self._read[partition] += some
        return bool(found)

    def _compare(self) -> None:
        """Compare what was read and said; most of it is as it should be."""
        before = self.found.messages
        for partition, expected in self._expected.items():
            at, read = TopicPartition(self._target.topic, partition), self._read[partition]
            together = min(len(read), len(expected))
            for _ in range(together):
                message, wanted = read.popleft(), expected.popleft()
                _, _, offset, timestamp_ms, _, key, value, headers, _ = message
                stored, wanted_digest, wanted_offset = wanted
                is_equal = (
                    offset == wanted_offset
                    and timestamp_ms == stored.timestamp_ms
                    and digest(key, headers, value) == wanted_digest
                )
                if not is_equal:
                    self.found.compare(at, wanted, message)
            while expected and partition in self._gone:
                self.found.compare(at, expected.popleft(), None)
                together += 1
            self._next[partition] += together
            self.found.messages += together
        self._progress.counts["checked"] += self.found.messages - before
        self._control.notice(self._progress)

    def _missing(self, reader: Reader, partitions: Sequence[int]) -> Sequence[int]:
        """Of partitions of which nothing came for long those that do not hold what was said: all, or it is not known.

        Raises:
            UnavailableError: One of them does hold some of it, or does not tell.
        """
        target = self._target
        marks = target.source.watermarks([TopicPartition(target.topic, number) for number in partitions])
        for at, mark in marks.whole().items():
            stop, position = self._expected[at.partition][-1][2] + 1, reader.position(at)
            if position < min(stop, mark.high):
                raise UnavailableError(
                    f"{at} of source {target.source.name} holds messages up to offset {min(stop, mark.high)}, "
                    f"and delivers none from {position} on.",
                    remedy="Run the same command again: what is written already is compared, and not written again.",
                    topic=at.topic,
                    partition=at.partition,
                )
        return partitions
