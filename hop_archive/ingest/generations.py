"""Telling one generation of a topic from the next. Pure.

A topic that is deleted and made anew, moved to another cluster, or truncated starts its offsets again. To
read such a topic as the old one would skip messages unnoticed, so each is a generation of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hop_archive.catalog.records import Generation
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.protocol import TopicInfo


@dataclass(frozen=True, slots=True)
class Recognition:
    """Which generation a topic is, by number, and why it is a new one; '' where the catalog has it already.

    ``truncated`` is what the generation before held, and the log of the same topic no longer does: it lost its end.
    """

    topic: str
    number: int
    reason: str = ""
    truncated: tuple[Slice, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether the catalog has yet to be told."""
        return bool(self.reason)


def recognise(
    info: TopicInfo,
    cluster_id: str,
    watermarks: Mapping[int, Watermarks],
    generations: Sequence[Generation],
    coverage: Mapping[PartitionLog, OffsetSet],
    ended: Collection[int] = (),
) -> Recognition:
    """The generation that a topic is, judged by topic id and cluster id, then by its watermarks.

    A cluster that was used before is recognised again: offsets covered then are covered still.

    Args:
        info: The topic as the source shows it now.
        cluster_id: The cluster it is on.
        watermarks: What is held of each partition, read after ``coverage``; partitions without a leader are missing.
        generations: Those that the catalog has of the topic, by ascending number.
        coverage: What is dealt with, at least of those generations.
        ended: The numbers of those whose topic was deleted, and what was left of them recorded as lost.
    """
    topic, topic_id = info.name, info.topic_id
    following = generations[-1].number + 1 if generations else 1
    # A broker that begins to tell ids makes a new generation too: what it holds is read once more and found to
    # be duplicates. To believe that the topic is the old one would be a guess.
    same = [g for g in generations if (g.cluster_id, g.topic_id) == (cluster_id, topic_id)]
    if same and same[-1].number in ended:
        return Recognition(
            topic, following, "it is there again, and what was left of it had been recorded as lost"
        )
    if not generations:
        return Recognition(topic, following, "first seen")
    if not same:
        last = generations[-1]
        if last.cluster_id != cluster_id:
            reason = f"on cluster {cluster_id}, was on {last.cluster_id}"
        elif last.topic_id is None:
            reason = f"the broker tells a topic id now, {topic_id}"
        else:
            reason = f"made anew: topic id {topic_id}, was {last.topic_id}"
        return Recognition(topic, following, reason)
    number = same[-1].number
    shorter = []  # what was dealt with beyond a log's end: it cannot be the one that was archived
    for partition, marks in sorted(watermarks.items()):
        covered = coverage.get(PartitionLog(topic, number, partition), EMPTY)
        if marks.high < covered.stop:
            shorter.append(Slice(topic, number, partition, marks.high, covered.stop))
    if not shorter:
        return Recognition(topic, number)
    reason = (
        f"watermarks went backwards: partition {shorter[0].partition} ends at offset {shorter[0].start}, "
        f"but offsets up to {shorter[0].stop} were dealt with"
    )
    # Without ids it may as well be another topic of that name.
    return Recognition(topic, following, reason, () if topic_id is None else tuple(shorter))


def truncated_logs(
    generations: Mapping[str, Sequence[Generation]], other: Mapping[PartitionLog, tuple[Slice, str]]
) -> dict[str, Recognition]:
    """The new generations of topics whose logs lost their end and grew past it again, after all that the catalog has.

    ``other`` has of each such partition the offsets from the first that is known to differ, and how it differs. It may be of
    another generation than the last: of one that was rebuilt later nobody knows where it came from.
    """
    found: dict[str, Recognition] = {}
    for partition_log, (slice_, how) in sorted(other.items()):
        before = found.get(partition_log.topic)
        found[partition_log.topic] = Recognition(
            partition_log.topic,
            generations[partition_log.topic][-1].number + 1,
            before.reason if before else f"log truncated: partition {partition_log.partition}: {how}",
            (*(before.truncated if before else ()), slice_),
        )
    return found
