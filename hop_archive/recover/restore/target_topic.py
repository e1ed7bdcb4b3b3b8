"""The topic that a restore writes to, as it was when the restore began, and how much stands there by now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hop_archive.errors import GenerationChangedError
from hop_archive.model.message import Message, TopicPartition
from hop_archive.recover.restore.control import Control
from hop_archive.source.protocol import Reader, Source

STALL_S = 30.0
"""After how long without a message a target is given up that should hold more, in seconds."""


_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class TargetTopic:
    """Where a target topic is written to.

    Attributes:
        topic_id: Its id when the restore began; None where the broker gives none.
        base: Where each partition ended when the restore began.
    """

    source: Source
    topic: str
    topic_id: str | None
    partitions: int
    base: Mapping[int, int]


def polled(reader: Reader, count: int, control: Control) -> Iterator[Sequence[Message]]:
    """The next ``count`` messages of a reader of one partition, some at a time; fewer where nothing comes any more for ``STALL_S``."""
    heard = control.monotonic()
    while count > 0 and control.monotonic() - heard < STALL_S:
        found = reader.poll(min(count, 10_000), _POLL_S)
        if found:
            heard = control.monotonic()
            count -= len(found)
            yield found


def refuse_another(target: TargetTopic) -> None:
    """Raise where the topic is not the one any more that the restore began with.

    Raises:
        GenerationChangedError: It was deleted, or made anew.
        UnavailableError: The target does not answer.
    """
    now = target.source.topics([target.topic]).get(target.topic)
    if now is None or now.topic_id != target.topic_id:
        raise _deleted(target)


def already_there(target: TargetTopic) -> dict[int, int]:
    """How many messages stand in each partition beyond where it ended when the restore began.

    Raises:
        ConflictError: A partition ends before that: what stood there is gone.
        GenerationChangedError: The topic was deleted, or made anew.
        UnavailableError: The target does not answer.
    """
    refuse_another(target)
    partitions = [TopicPartition(target.topic, number) for number in range(target.partitions)]
    marks = target.source.watermarks(partitions)
    counts = {
        at.partition: marks[at].high - target.base.get(at.partition, 0) for at in partitions if at in marks
    }
    if any(count < 0 for count in counts.values()):
        raise _deleted(target)
    return counts


def _deleted(target: TargetTopic) -> GenerationChangedError:
    return GenerationChangedError(
        f"Topic {target.topic} of source {target.source.name} was deleted, or deleted and made anew, during the restore.",
        remedy="The same command with --restart begins anew.",
        topic=target.topic,
    )
