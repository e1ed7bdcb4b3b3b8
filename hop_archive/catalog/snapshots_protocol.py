"""The part of a catalog that keeps how topics and consumer groups of a cluster were set up. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from hop_archive.model.message import Committed, TopicPartition

Kind: TypeAlias = Literal["topic", "group"]
"""What a snapshot is of."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a cluster last said of one topic or one consumer group.

    Attributes:
        cluster_id: The cluster.
        kind: ``topic`` or ``group``.
        name: The topic's or the group's.
        content: JSON-able. Of a topic: ``topic_id``; ``partitions``, how many; ``settings``, its own, by name;
            ``settings_known``, False where the credentials may not look (``settings`` is empty then); and, where
            the topic was made anew, ``former``: the same of the life before, with ``taken_at``. Of a group:
            ``offsets``, triples of topic, partition and offset; ``topic_ids``: of which life of each topic
            they are; ``metadata``, triples of topic, partition and what the group wrote beside its offset, where it
            wrote anything (a snapshot of before these were kept has no such key); and, of topics that were made anew,
            ``former``: the ``topic_id`` of the life before, and the ``offsets`` in it, pairs of partition and offset,
            with their ``metadata`` as pairs.
        taken_at: When the cluster said so (UTC).
    """

    cluster_id: str
    kind: Kind
    name: str
    content: Mapping[str, Any]
    taken_at: datetime.datetime

    @property
    def offsets(self) -> dict[TopicPartition, int]:
        """The committed offsets of a group; empty for a topic."""
        return {TopicPartition(topic, at): offset for topic, at, offset in self.content.get("offsets", ())}

    @property
    def commits(self) -> dict[TopicPartition, Committed]:
        """The committed offsets of a group with what it wrote beside them; empty for a topic."""
        beside = {TopicPartition(topic, at): text for topic, at, text in self.content.get("metadata", ())}
        return {at: Committed(offset, beside.get(at, "")) for at, offset in self.offsets.items()}

    def commits_in(self, topic: str, topic_id: str | None) -> dict[TopicPartition, Committed]:
        """What a group had committed in one life of a topic: the present one, or the one before it."""
        if self.content.get("topic_ids", {}).get(topic) == topic_id:
            return {at: one for at, one in self.commits.items() if at.topic == topic}
        former = self.content.get("former", {}).get(topic, {})
        if former.get("topic_id") != topic_id:
            return {}
        beside = dict(former.get("metadata", ()))
        return {
            TopicPartition(topic, at): Committed(offset, beside.get(at, ""))
            for at, offset in former["offsets"]
        }


class Snapshots(Protocol):
    """Keeps one snapshot of each topic and group of each cluster: the last good one."""

    def keep_snapshots(self, cluster_id: str, snapshots: Sequence[Snapshot]) -> None:
        """Put snapshots in the place of earlier ones, all or none; those of other names stay.

        One that was taken before the one that is there does not replace it, so two who do it at once, or one
        that hung and wakes up later, do no harm.

        Raises:
            ValueError: One is of another cluster, or two are of the same thing.
            UnavailableError: The database did not answer; doing it again is right.
        """

    def snapshots(
        self, kind: Kind, names: Collection[str] | None = None, cluster_id: str | None = None
    ) -> Sequence[Snapshot]:
        """The snapshots of a kind, sorted by cluster and name, both by bytes.

        Args:
            kind: Of topics or of groups.
            names: Only these; None for all.
            cluster_id: Only of this cluster; None for all.
        """


def refuse_odd(cluster_id: str, snapshots: Sequence[Snapshot]) -> None:
    """Check what is to be kept, for every catalog alike.

    Raises:
        ValueError: One is of another cluster, or two are of the same thing.
    """
    if others := sorted({one.cluster_id for one in snapshots} - {cluster_id}):
        raise ValueError(f"snapshots of {others} among those of cluster {cluster_id}")
    if len({(one.kind, one.name) for one in snapshots}) < len(snapshots):
        raise ValueError(f"two snapshots of one thing of cluster {cluster_id}")
