"""The topic that a restore writes to, as it was when the restore began, and how much stands there by now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hop_archive.errors import GenerationChangedError
from hop_archive.model.message import TopicPartition
from hop_archive.source.protocol import Source

STALL_S = 30.0
"""After how long without a message a target is given up that should hold more, in seconds."""


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
