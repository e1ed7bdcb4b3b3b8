"""Snapshots of a cluster: how its topics were set up, and how far its consumer groups had read.

Messages alone do not bring a stream back as it was: a topic has partitions and settings, and those who read it
stood somewhere. Running it again, or twice at once, is harmless: the later look stays.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from hop_archive.archive import Archive
from hop_archive.catalog.snapshots_protocol import Snapshot
from hop_archive.errors import ForbiddenError
from hop_archive.message import TopicPartition
from hop_archive.source.protocol import Setting, TopicInfo

GROUPS_AT_ONCE = 500
"""Groups whose former snapshots are held at once, and whose new ones are one transaction."""

_LOOK = "describe_configs"


@dataclass(frozen=True, slots=True)
class Taken:
    """What a snapshot took.

    Attributes:
        cluster_id: Of which cluster.
        at: When (UTC).
        topics: Topics that were taken.
        groups: Groups that were taken: those that have committed offsets of such a topic.
        changed: Topics that are set up otherwise than at the last snapshot; sorted.
        hidden: Topics whose settings the credentials may not look at, so that only their partitions are known.
        no_groups: Why no group was taken; '' where they may be seen.
    """

    cluster_id: str
    at: datetime.datetime
    topics: int
    groups: int
    changed: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    no_groups: str = ""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the source said: topics that are archived and were the same from the first to the last call."""

    cluster_id: str
    at: datetime.datetime
    infos: Mapping[str, TopicInfo]
    settings: Mapping[str, Mapping[str, Setting]]
    groups: Mapping[str, Mapping[TopicPartition, int]]
    no_groups: str


def take_snapshot(archive: Archive) -> Taken:
    """Ask the source for the topics that are archived, their own settings, and the groups that read them; keep it.

    A good snapshot is never replaced by less: a topic or group that is gone keeps its last; a group keeps the
    offsets of a topic that it has none of any more, as after the topic was deleted; a topic made anew keeps what
    its life before was like; and settings that may no longer be looked at stay as last known.

    Raises:
        UnavailableError: The source or the catalog does not answer. What was kept before stays; of groups, some
            may be kept already.
        ForbiddenError: Topics may not be described.
    """
    seen = _look(archive)
    changed = _keep_topics(archive, seen)
    groups = sum(_keep_groups(archive, seen, names) for names in _portions(_readers(seen)))
    hidden = tuple(sorted(seen.infos.keys() - seen.settings.keys()))
    return Taken(seen.cluster_id, seen.at, len(seen.infos), groups, changed, hidden, seen.no_groups)


def _look(archive: Archive) -> _Seen:
    # The clock first: of two who look at once, the one whose answers may be older has the earlier time.
    source, at = archive.source, archive.now()
    before = {name: info for name, info in source.topics().items() if archive.topics.archived(name)}
    settings = _settings(archive, list(before))
    groups, no_groups = _groups(archive)
    # A topic made anew in between would get the settings, or lend its name to offsets, of the other life.
    infos = {
        name: info
        for name, info in source.topics(list(before)).items()
        if info.topic_id == before[name].topic_id
    }
    mine = {name: found for name, found in settings.items() if name in infos}
    return _Seen(source.cluster_id(), at, infos, mine, groups, no_groups)


def _settings(archive: Archive, names: Collection[str]) -> Mapping[str, Mapping[str, Setting]]:
    """Settings of the topics that the credentials may look at."""
    may = archive.source.access(names)
    open_ones = [name for name, rights in may.items() if rights is None or _LOOK in rights]
    try:
        return archive.source.settings(open_ones)
    except ForbiddenError:
        return {}  # of a cluster that does not tell rights, and has some


def _groups(archive: Archive) -> tuple[Mapping[str, Mapping[TopicPartition, int]], str]:
    try:
        return archive.source.groups(), ""
    except ForbiddenError as error:
        return {}, str(error)


def _readers(seen: _Seen) -> Iterator[str]:
    """The groups that have committed an offset of a topic that was taken, in order."""
    return (
        name for name, offsets in sorted(seen.groups.items()) if any(at.topic in seen.infos for at in offsets)
    )


def _keep_topics(archive: Archive, seen: _Seen) -> tuple[str, ...]:
    """Keep a snapshot of each topic; those that are not as they were."""
    former = _former(archive.catalog.snapshots("topic", list(seen.infos), seen.cluster_id))
    taken = [
        Snapshot(seen.cluster_id, "topic", name, _topic(seen, name, former.get(name)), seen.at)
        for name in sorted(seen.infos)
    ]
    archive.catalog.keep_snapshots(seen.cluster_id, taken)
    return tuple(one.name for one in taken if one.name in former and one.content != former[one.name].content)


def _topic(seen: _Seen, name: str, former: Snapshot | None) -> dict[str, Any]:
    info, settings = seen.infos[name], seen.settings.get(name)
    before: Mapping[str, Any] = former.content if former else {}
    content: dict[str, Any] = {"topic_id": info.topic_id, "partitions": info.partitions}
    content["settings_known"] = settings is not None
    content["settings"] = {n: s.value for n, s in sorted((settings or {}).items()) if s.own}
    if former is None or before["topic_id"] == info.topic_id:
        if settings is None and before:
            content |= {key: before[key] for key in ("settings", "settings_known")}
        return content | {key: before[key] for key in ("former",) if key in before}
    ended = {key: value for key, value in before.items() if key != "former"}
    return content | {"former": {**ended, "taken_at": former.taken_at.isoformat()}}


def _keep_groups(archive: Archive, seen: _Seen, names: Sequence[str]) -> int:
    former = _former(archive.catalog.snapshots("group", names, seen.cluster_id))
    taken = [
        Snapshot(seen.cluster_id, "group", name, _group(seen, name, former.get(name)), seen.at)
        for name in names
    ]
    archive.catalog.keep_snapshots(seen.cluster_id, taken)
    return len(taken)


def _group(seen: _Seen, name: str, former: Snapshot | None) -> dict[str, Any]:
    offsets = {at: offset for at, offset in seen.groups[name].items() if at.topic in seen.infos}
    ids = {topic: seen.infos[topic].topic_id for topic in {at.topic for at in offsets}}
    if former:
        last = {at: offset for at, offset in former.offsets.items() if at.topic not in ids}
        offsets |= last
        ids |= {at.topic: former.content["topic_ids"].get(at.topic) for at in last}
    triples = [[*at, offset] for at, offset in sorted(offsets.items())]
    content: dict[str, Any] = {"offsets": triples, "topic_ids": dict(sorted(ids.items()))}
    lives = _lives_before(ids, former) if former else {}
    return content | ({"former": lives} if lives else {})


def _lives_before(ids: Mapping[str, str | None], former: Snapshot) -> dict[str, Any]:
    """Where the group had got to in the life before of each topic that was made anew: that is what a restore needs."""
    lives: dict[str, Any] = dict(former.content.get("former", {}))
    for topic, was in former.content["topic_ids"].items():
        if topic in ids and ids[topic] != was:
            offsets = [[at.partition, offset] for at, offset in former.offsets.items() if at.topic == topic]
            lives[topic] = {
                "topic_id": was,
                "offsets": sorted(offsets),
                "taken_at": former.taken_at.isoformat(),
            }
    return lives


def _former(snapshots: Sequence[Snapshot]) -> dict[str, Snapshot]:
    return {one.name: one for one in snapshots}


def _portions(names: Iterator[str]) -> Iterator[list[str]]:
    while portion := list(islice(names, GROUPS_AT_ONCE)):
        yield portion
