"""Reading a target back, and comparing it with what was to be written: digest by digest, in order."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from hop_archive.errors import OffsetsGoneError, UnavailableError
from hop_archive.model.identity import digest
from hop_archive.model.message import Message, TimestampType, TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.recover.restore import offset_map as journal
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.offset_map import Entry
from hop_archive.recover.restore.write import TargetTopic, messages

_MOST_TOLD = 100


class Mismatch(NamedTuple):
    """A place in the target that does not hold what was to be written there.

    Attributes:
        topic: The target topic.
        partition: The target partition.
        offset: The target offset.
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
        messages: How many messages were compared.
        differences: The first of the differences.
        difference_count: How many there are.
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

    def compare(self, entry: Entry, message: Message | None) -> None:
        """Hold what stands in the target, None for nothing, against what was written there."""
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
            message_uuid = str(uuid.UUID(bytes=entry.uuid))
            at = (entry.target_topic, entry.target_partition, entry.target_offset)
            self.differ(Mismatch(*at, message_uuid, what))


def compare(target: TargetTopic, folder: Path, control: Control, progress: Progress) -> ReadBack:
    """Compare each partition of a target with the journal of what was written to it.

    Raises:
        UnavailableError: The target does not answer, or does not deliver what it holds: that is not called missing.
    """
    found = ReadBack()
    for partition in journal.partitions(folder):
        at = TopicPartition(target.topic, partition)
        written = journal.entries(folder, partition)
        for entry, message in zip_longest(written, _standing(target, at, folder, control, found)):
            if entry is None:
                break
            found.compare(entry, message)
            progress.counts["checked"] += 1
            if progress.counts["checked"] % 1_000 == 0:
                control.notice(progress)
    return found


def _standing(
    target: TargetTopic, at: TopicPartition, folder: Path, control: Control, found: ReadBack
) -> Iterator[Message]:
    """What stands in a partition, from where the restore began on: as many messages as it wrote."""
    count = journal.count(folder, at.partition)
    start = target.base.get(at.partition, 0)
    try:
        with target.source.reader({at: start}) as reader:
            read = start
            for message in messages(reader, count, control):
                read += 1
                yield message
            marks = target.source.watermarks([at])
            if at in marks and read < start + count <= marks[at].high:
                raise UnavailableError(
                    f"{at} of source {target.source.name} holds messages up to offset {start + count}, "
                    f"and delivers none after {read}.",
                    remedy="Run the same command again: it only compares what is written already.",
                    topic=at.topic,
                    partition=at.partition,
                )
    except OffsetsGoneError as error:
        found.differ(Mismatch(at.topic, at.partition, start, "", str(error)))
