"""Reading a target back, and comparing it with what was to be written: digest by digest, in order."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hop_archive.errors import OffsetsGoneError, UnavailableError
from hop_archive.model.identity import digest
from hop_archive.model.message import Message, TimestampType, TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.recover.restore import offset_map as journal
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.offset_map import Entry
from hop_archive.recover.restore.write import TargetTopic, polled

_MOST_TOLD = 100


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
