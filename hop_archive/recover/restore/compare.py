"""Reading a target back, and comparing it with what was to be written: digest by digest, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hop_archive.errors import OffsetsGoneError, UnavailableError
from hop_archive.model.identity import digest, digests
from hop_archive.model.message import Message, TimestampType, TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.recover.restore import offset_map as journal
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.offset_map import Entries, Entry, EntryReader
from hop_archive.recover.restore.write import STALL_S, TargetTopic

_MOST_TOLD = 100
_MOST_AT_ONCE = 5_000
_POLL_S = 0.25


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


class Delivered(NamedTuple):
    """What a target delivers of a part of a partition.

    Attributes:
        reached: The offset before which the part ends.
        messages: All that stand there, in order.
        missing: What is told of one that does not.
    """

    reached: int
    messages: Sequence[Message]
    missing: str


@dataclass(slots=True)
class ReadBack:
    """What reading back found.

    Attributes:
        complete: False where somebody asked to stop before all was compared.
        append_times: Messages whose timestamp is the time of writing, because the target's clock is its own.
    """

    messages: int = 0
    differences: list[Mismatch] = field(default_factory=list)
    difference_count: int = 0
    append_times: int = 0
    complete: bool = True

    def compare(self, at: TopicPartition, wanted: Entries, standing: Delivered) -> None:
        """Hold what stands in a part of a partition against what was written there, all of it or some."""
        self.messages += len(wanted.digests)
        if not _are_equal(wanted, standing.messages):
            found = {message.offset: message for message in standing.messages}
            for entry in wanted.one_by_one():
                if what := self._difference(entry, found.get(entry.target_offset), standing.missing):
                    self.difference_count += 1
                    if len(self.differences) < _MOST_TOLD:
                        self.differences.append(Mismatch(*at, entry.target_offset, str(entry.uuid), what))

    def _difference(self, entry: Entry, message: Message | None, missing: str) -> str:
        """In what a message differs from what was to stand there; '' for in nothing."""
        if message is None:
            return missing
        if digest(message.key, message.headers, message.value) != entry.digest:
            return "its key, value or headers are others"
        if message.timestamp_type is TimestampType.APPEND:
            self.append_times += 1
        elif message.timestamp_ms != entry.timestamp:
            return f"its timestamp is {message.timestamp_ms}, and was to be {entry.timestamp}"
        return ""


def _are_equal(wanted: Entries, standing: Sequence[Message]) -> bool:
    """Whether nothing else stands there, and all as it should, column by column: as nearly always."""
    if not standing:
        return False
    _, _, offsets, timestamps_ms, clocks, *_ = zip(*standing, strict=True)
    return (
        [*offsets] == wanted.target_offsets
        and [*timestamps_ms] == wanted.timestamps
        and TimestampType.APPEND not in clocks
        and digests(standing) == wanted.digests
    )


def compare(target: TargetTopic, folder: Path, control: Control, progress: Progress) -> ReadBack:
    """Compare each partition of a target with the journal of what was written to it, until somebody asks to stop.

    Raises:
        UnavailableError: The target does not answer, or does not deliver what it holds: that is not called missing.
    """
    found = ReadBack()
    for partition in journal.partitions(folder):
        at = TopicPartition(target.topic, partition)
        start, entries = target.base.get(partition, 0), EntryReader(folder, partition)
        stop = start + journal.count(folder, partition)
        for standing in _standing(target, at, range(start, stop), control):
            while start < standing.reached:
                wanted = entries.take(min(standing.reached - start, _MOST_AT_ONCE))
                found.compare(at, wanted, standing)
                start += len(wanted.digests)
                progress.counts["checked"] += len(wanted.digests)
            control.notice(progress)
            if start < stop and control.stop():
                found.complete = False
                return found
    return found


def _standing(
    target: TargetTopic, at: TopicPartition, offsets: range, control: Control
) -> Iterator[Delivered]:
    """What stands at these offsets of a partition, part by part."""
    missing, heard = "nothing stands there", control.monotonic()
    with target.source.reader({at: offsets.start}) as reader:
        while (position := reader.position(at)) < offsets.stop and control.monotonic() - heard < STALL_S:
            messages: Sequence[Message] = ()
            try:
                messages = reader.poll(min(offsets.stop - position, _MOST_AT_ONCE), _POLL_S)
            except OffsetsGoneError:
                low = target.source.watermarks([at]).whole()[at].low
                missing = f"nothing stands there: Kafka holds the partition from offset {low} on by now"
                reader.add({at: low})
            if (reached := reader.position(at)) > position:
                heard = control.monotonic()
                yield Delivered(min(reached, offsets.stop), messages, missing)
    if position < offsets.stop:  # nothing comes any more
        if position < min(offsets.stop, high := target.source.watermarks([at]).whole()[at].high):
            raise UnavailableError(
                f"{at} of source {target.source.name} holds messages up to offset {high}, "
                f"and delivers none from {position} on.",
                remedy="Run the same command again: it only compares what is written already.",
                topic=at.topic,
                partition=at.partition,
            )
        yield Delivered(offsets.stop, (), missing)
