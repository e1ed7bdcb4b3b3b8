"""Reading a target back, and comparing it with what was to be written: digest by digest, in order.

Most often all of it was read back while it was written (``ReadingAlong``), and nothing is left to do.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, TypeAlias

from hop_archive.catalog.stored import Stored
from hop_archive.errors import HopArchiveError, OffsetsGoneError, UnavailableError
from hop_archive.model.identity import digest
from hop_archive.model.message import Message, TimestampType, TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.recover.restore import offset_map as journal
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.offset_map import Entry
from hop_archive.recover.restore.target_topic import TargetTopic, polled
from hop_archive.source.protocol import Reader

log = logging.getLogger(__name__)

_MOST_TOLD = 100
_POLL_MESSAGES = 10_000
_POLL_S = 0.25
_MOST_AHEAD_BYTES = 64 * 2**20
"""Bytes of values that are read ahead of what is known to be written: some two portions, and no more where others write, too."""
_PATIENCE_S = 5.0
"""How long nothing may come of what was written, before it is left to be read at the end."""
_partition_of = itemgetter(1)

Expected: TypeAlias = tuple[Stored, bytes, int]
"""What was written, its digest as it was written, and at which offset of the target it stands."""


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

    def compare(self, at: TopicPartition, entry: Entry, message: Message | None) -> None:
        """Hold what stands in a partition of the target, None for nothing, against what was written there."""
        self.messages += 1
        what = ""
        if message is None:
            what = "nothing stands there"
        elif message.offset != entry.target_offset:
            what = f"the message stands at offset {message.offset}"
        elif digest(message.key, message.headers, message.value) != entry.digest:
            what = "its key, value or headers are others"
        elif message.timestamp_type is TimestampType.APPEND:
            self.append_times += 1
        elif message.timestamp_ms != entry.timestamp:
            what = f"its timestamp is {message.timestamp_ms}, and was to be {entry.timestamp}"
        if what:
            self.differ(Mismatch(*at, entry.target_offset, str(uuid.UUID(bytes=entry.uuid)), what))

    def compare_all(self, at: TopicPartition, entries: Iterator[Entry], messages: Sequence[Message]) -> None:
        """Likewise of messages that stand one after another, most of which are as they should be."""
        equal = 0
        for message, entry in zip(messages, entries, strict=False):
            _, _, offset, timestamp_ms, clock, key, value, headers, _ = message
            _, wanted_ms, wanted, target_offset = entry
            is_equal = (
                offset == target_offset and timestamp_ms == wanted_ms and clock is not TimestampType.APPEND
            )
            if is_equal and digest(key, headers, value) == wanted:
                equal += 1
            else:
                self.compare(at, entry, message)
        self.messages += equal


def compare(target: TargetTopic, folder: Path, control: Control, progress: Progress) -> ReadBack:
    """Compare each partition of a target with the journal of what was written to it.

    Raises:
        UnavailableError: The target does not answer, or does not deliver what it holds: that is not called missing.
    """
    found = ReadBack()
    for partition in journal.partitions(folder):
        at = TopicPartition(target.topic, partition)
        start, count = target.base.get(partition, 0), journal.count(folder, partition)
        entries, read = journal.entries(folder, partition), 0
        try:
            with target.source.reader({at: start}) as reader:
                for some in polled(reader, count, control):
                    found.compare_all(at, entries, some)
                    read += len(some)
                    progress.counts["checked"] += len(some)
                    control.notice(progress)
                stop = min(start + count, target.source.watermarks([at]).whole()[at].high)
                if read < count and reader.position(at) < stop:
                    raise UnavailableError(
                        f"{at} of source {target.source.name} holds messages up to offset {stop}, "
                        f"and delivers none from {reader.position(at)} on.",
                        remedy="Run the same command again: it only compares what is written already.",
                        topic=at.topic,
                        partition=at.partition,
                    )
        except OffsetsGoneError as error:
            found.differ(Mismatch(at.topic, at.partition, start, "", str(error)))
        for entry in entries:
            found.compare(at, entry, None)
            progress.counts["checked"] += 1
    return found


class ReadingAlong(contextlib.AbstractContextManager["ReadingAlong"]):
    """Reads a target back while it is written, as far as all goes as it should.

    For the one try of a restore that begins with nothing there. Whatever is otherwise (a message, an answer that does not come, a
    partition that loses something) ends it without a word: then ``compare`` reads all of it afterwards, and tells. Holds what is on
    its way to the target. Use as a context manager; for one thread.
    """

    def __init__(self, target: TargetTopic, control: Control, progress: Progress) -> None:
        self._target = target
        self._control = control
        self._progress = progress
        self._reading = contextlib.ExitStack()
        self._reader: Reader | None = None
        self._assigned: set[int] = set()
        self._expected: defaultdict[int, deque[Expected]] = defaultdict(deque)
        self._read: defaultdict[int, deque[Message]] = defaultdict(deque)
        self._messages = self._ahead_bytes = 0
        self._is_given_up = False

    def __exit__(self, *_: object) -> None:
        self._expected.clear()
        self._read.clear()
        self._reading.close()

    def expect(
        self, partition: int, first_offset: int, stored: Sequence[Stored], digests: Sequence[bytes]
    ) -> None:
        """Say what stands in a partition from an offset on: by partition in order of offsets, with nothing left out."""
        if not self._is_given_up:
            offsets = range(first_offset, first_offset + len(stored))
            self._expected[partition] += zip(stored, digests, offsets, strict=True)

    def catch_up(self) -> None:
        """Read, and compare, what was said."""
        if self._is_given_up:
            return
        before = self._messages
        try:
            self._is_given_up = not self._caught_up()
        except HopArchiveError as error:
            log.info("%s is read back once it is written: %s", self._target.topic, error)
            self._is_given_up = True
        self._progress.counts["checked"] += self._messages - before
        if self._is_given_up:
            self._progress.counts["checked"] -= self._messages
            self.__exit__()
        self._control.notice(self._progress)

    def outcome(self) -> ReadBack | None:
        """What reading back found, where all that was written stands there as it was to be; None where that is not known.

        Raises:
            UnavailableError: The target does not answer.
        """
        if self._is_given_up or any(self._expected.values()):
            return None
        target = self._target
        marks = target.source.watermarks([TopicPartition(target.topic, number) for number in self._assigned])
        is_held = all(
            at in marks and marks[at].low <= target.base.get(at.partition, 0)
            for at in (TopicPartition(target.topic, number) for number in self._assigned)
        )
        return ReadBack(self._messages) if is_held else None

    def _caught_up(self) -> bool:
        """Whether all that was said came, as it was said."""
        heard = self._control.monotonic()
        while True:
            before = self._messages
            if not self._compared():
                return False
            behind = [partition for partition, expected in self._expected.items() if expected]
            if not behind:
                return True
            now = self._control.monotonic()
            heard = now if self._messages > before else heard
            if now - heard > _PATIENCE_S or self._ahead_bytes > _MOST_AHEAD_BYTES:
                return False
            for partition, some in groupby(self._polled(behind), _partition_of):
                read = [*some]
                self._read[partition] += read
                self._ahead_bytes += sum(len(message.value or b"") for message in read)

    def _polled(self, partitions: Sequence[int]) -> Sequence[Message]:
        target = self._target
        new = {
            TopicPartition(target.topic, number): self._expected[number][0][2]
            for number in partitions
            if number not in self._assigned
        }
        if self._reader is None:
            self._reader = self._reading.enter_context(target.source.reader(new))
        elif new:
            self._reader.add(new)
        self._assigned.update(at.partition for at in new)
        return self._reader.poll(_POLL_MESSAGES, _POLL_S)

    def _compared(self) -> bool:
        """Compare what was read and said; whether all of it is as it should be."""
        for partition, expected in self._expected.items():
            read = self._read[partition]
            for _ in range(min(len(read), len(expected))):
                _, _, offset, timestamp_ms, _, key, value, headers, _ = read.popleft()
                stored, wanted, wanted_offset = expected.popleft()
                self._ahead_bytes -= len(value or b"")
                if (
                    offset != wanted_offset
                    or timestamp_ms != stored.timestamp_ms
                    or digest(key, headers, value) != wanted
                ):
                    return False
                self._messages += 1
        return True
