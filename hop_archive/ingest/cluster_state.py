"""Snapshots of a cluster: how its topics were set up, and how far its consumer groups had read.

Messages alone do not bring a stream back as it was: a topic has partitions and settings, and those who read it
stood somewhere. Running it again, or twice at once, is harmless: the later look stays.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hop_archive.archive import Archive
from hop_archive.catalog.records import Snapshot
from hop_archive.errors import ForbiddenError, HopArchiveError
from hop_archive.model.message import Committed, TopicPartition
from hop_archive.model.wording import said
from hop_archive.source.protocol import Setting, TopicInfo

GROUPS_AT_ONCE = 500
"""Groups whose former snapshots are held at once, and whose new ones are one transaction."""

_LOOK = "describe_configs"

EVERY_S = 3_600.0
"""How old the last snapshot is when those who archive without Dagster take the next."""

_AGAIN_S = 300.0
_END_S = 10.0
_CALL_S = 8.0
"""No request to a source takes as long (seven seconds), though many groups take several."""

_NOT_TAKEN = (
    "No snapshot of the source's topics and consumer groups was taken, and what restoring needs of them is as old as the "
    "last"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a snapshot took, of how many topics, and of how many groups that have committed offsets of one.

    Attributes:
        at: When (UTC).
        changed: Topics that are set up otherwise than at the last snapshot; sorted.
        hidden: Topics whose settings the credentials may not look at, so that only their partitions are known.
        no_groups: Why no group was taken; '' where they may be seen.
        untold: Topics that could not be looked at, and why; they keep their last snapshot.
    """

    cluster_id: str
    at: datetime.datetime
    topics: int
    groups: int
    changed: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    no_groups: str = ""
    untold: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Cluster:
    """What the source said: topics that are archived and were the same from the first to the last call."""

    cluster_id: str
    at: datetime.datetime
    infos: Mapping[str, TopicInfo]
    settings: Mapping[str, Mapping[str, Setting]]
    groups: Mapping[str, Mapping[TopicPartition, Committed]]
    no_groups: str
    untold: Mapping[str, str]

    def topic(self, name: str, former: Snapshot | None) -> dict[str, Any]:
        """What the snapshot of a topic says, given the last one."""
        info, settings = self.infos[name], self.settings.get(name)
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

    def group(self, name: str, before: Snapshot | None) -> dict[str, Any]:
        """What the snapshot of a group says, given the last one."""
        commits = {at: commit for at, commit in self.groups[name].items() if at.topic in self.infos}
        ids = {topic: self.infos[topic].topic_id for topic in {at.topic for at in commits}}
        former: dict[str, Any] = {}
        if before:
            last = {at: commit for at, commit in before.commits.items() if at.topic not in ids}
            commits |= last
            ids |= {at.topic: before.content["topic_ids"].get(at.topic) for at in last}
            former |= before.content.get("former", {})
            for topic, was in before.content["topic_ids"].items():
                if (
                    topic in ids and ids[topic] != was
                ):  # made anew: what a restore needs is where the group had got to before
                    ended = sorted(
                        (at.partition, commit) for at, commit in before.commits.items() if at.topic == topic
                    )
                    former[topic] = {
                        "topic_id": was,
                        "offsets": [[partition, commit.offset] for partition, commit in ended],
                        "metadata": [
                            [partition, commit.metadata] for partition, commit in ended if commit.metadata
                        ],
                        "taken_at": before.taken_at.isoformat(),
                    }
        content: dict[str, Any] = {
            "offsets": [[*at, commit.offset] for at, commit in sorted(commits.items())],
            "metadata": [[*at, commit.metadata] for at, commit in sorted(commits.items()) if commit.metadata],
            "topic_ids": dict(sorted(ids.items())),
        }
        return content | ({"former": former} if former else {})


def take_snapshot(
    archive: Archive, also: Collection[str] = (), *, go_on: Callable[[], None] = lambda: None
) -> Taken:
    """Ask the source for the topics that are archived, and ``also`` these, their own settings, and the groups that read them.

    ``go_on`` is called before each question and each portion that is kept; what it raises ends the snapshot there. A good snapshot is never replaced by less: a topic or group that is gone keeps its last; a group keeps the
    offsets of a topic that it has none of any more, as after the topic was deleted; a topic made anew keeps what
    its generation before was like; and settings that may no longer be looked at stay as last known.

    Raises:
        UnavailableError: The source or the catalog does not answer. What was kept before stays; of groups, some
            may be kept already.
        ForbiddenError: The credentials are refused.
    """
    seen = _look(archive, also, go_on)
    catalog, cluster_id = archive.catalog, seen.cluster_id
    go_on()
    former = _by_name(catalog.snapshots("topic", list(seen.infos), cluster_id))
    topics = [
        Snapshot(cluster_id, "topic", name, seen.topic(name, former.get(name)), seen.at)
        for name in sorted(seen.infos)
    ]
    catalog.keep_snapshots(cluster_id, topics)
    changed = tuple(
        now.name for now in topics if now.name in former and now.content != former[now.name].content
    )
    readers = sorted(
        name for name, commits in seen.groups.items() if any(at.topic in seen.infos for at in commits)
    )
    for first in range(0, len(readers), GROUPS_AT_ONCE):
        names = readers[first : first + GROUPS_AT_ONCE]
        go_on()
        former = _by_name(catalog.snapshots("group", names, cluster_id))
        groups = [
            Snapshot(cluster_id, "group", name, seen.group(name, former.get(name)), seen.at) for name in names
        ]
        catalog.keep_snapshots(cluster_id, groups)
    hidden = tuple(sorted(seen.infos.keys() - seen.settings.keys()))
    return Taken(cluster_id, seen.at, len(topics), len(readers), changed, hidden, seen.no_groups, seen.untold)


class _GivenUp(Exception):  # noqa: N818 - nothing went wrong
    """Nobody waits for this snapshot any more."""


class HourlySnapshots:
    """Takes a snapshot whenever the last one is an hour old, whoever took that, beside other work. A context manager.

    One that fails, of whatever, ends nothing and is told as a warning; it is tried again after some minutes. Leaving the
    block waits for the one that is under way, for ten seconds. Then it is given up, and asks nothing more once the call
    that it is in has ended, which is waited for some seconds, too: the archive may be closed.
    """

    def __init__(self, archive: Archive, also: Collection[str] = ()) -> None:
        self._archive = archive
        self._also = also
        self._next = 0.0
        self._thread: threading.Thread | None = None
        self._over = False

    def __enter__(self) -> HourlySnapshots:
        self.take_if_due()
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self._over = True
        if self._thread is not None and self._thread.is_alive():
            log.warning(
                "The snapshot of the source's topics and consumer groups that was under way is given up at the end of the "
                "run: it was not done within %d s. What is kept may be partly of before.",
                _END_S,
            )
            self._thread.join(_CALL_S)

    def wait(self) -> None:
        """Wait for the one that is under way; for ten seconds at most."""
        if self._thread is not None:
            self._thread.join(_END_S)

    def take_if_due(self) -> None:
        """Begin to take one, if it is time; never waits."""
        if self._archive.monotonic() < self._next or (self._thread and self._thread.is_alive()):
            return
        self._next = self._archive.monotonic() + _AGAIN_S
        self._thread = threading.Thread(target=self._take, name="hourly-snapshot", daemon=True)
        self._thread.start()

    def _take(self) -> None:
        began = self._archive.monotonic()
        try:
            left_s = 0.0
            kept = self._archive.catalog.snapshots("topic", None, self._archive.source.cluster_id())
            if kept:
                age_s = (self._archive.now() - max(topic.taken_at for topic in kept)).total_seconds()
                left_s = (
                    EVERY_S - age_s if age_s >= 0 else 0.0
                )  # a clock was set back: nobody knows how old it is
            if left_s <= 0:

                def go_on() -> None:
                    if self._over:
                        raise _GivenUp

                taken = take_snapshot(self._archive, self._also, go_on=go_on)
                if taken.hidden or taken.no_groups:
                    log.info(
                        "The snapshot of the source lacks what may not be seen: settings of %d topics; %s",
                        len(taken.hidden),
                        taken.no_groups or "all groups were shown",
                    )
                for topic, why in taken.untold.items():
                    log.warning(
                        "The snapshot of topic %s, if there is one, stays as it was: %s",
                        topic,
                        why,
                        extra={"topic": topic},
                    )
            self._next = began + (left_s if left_s > 0 else EVERY_S)
        except _GivenUp:
            pass  # told by who gave it up
        except HopArchiveError as error:
            log.warning("%s: %s", _NOT_TAKEN, error)
        except BaseException as error:  # in this thread nobody else would hear of it
            log.warning("%s. This is a bug: %s", _NOT_TAKEN, said(error), exc_info=error)


def _look(archive: Archive, also: Collection[str], go_on: Callable[[], None]) -> _Cluster:
    go_on()
    # The clock first: of two who look at once, the one whose answers may be older has the earlier time.
    source, at = archive.source, archive.now()

    def is_taken(name: str) -> bool:
        return archive.topics.archived(name) or name in also

    listed = source.topics()
    # One that may not even be listed is asked for by name, if the archive knows it, to learn why.
    known = {*archive.catalog.generations(None), *also} - {*listed, *listed.untold}
    asked = source.topics(sorted(filter(is_taken, known)))
    before = {name: info for name, info in {**listed, **asked}.items() if is_taken(name)}
    untold = {n: str(why) for n, why in {**listed.untold, **asked.untold}.items() if is_taken(n)}
    go_on()
    may = source.access(list(before))
    settings: Mapping[str, Mapping[str, Setting]] = {}
    # Forbidden all the same: of a cluster that does not tell rights, and has some.
    with contextlib.suppress(ForbiddenError):
        settings = source.settings(
            [name for name, rights in may.items() if rights is None or _LOOK in rights]
        )
    go_on()
    groups: Mapping[str, Mapping[TopicPartition, Committed]] = {}
    no_groups = ""
    try:
        groups = source.groups()
    except ForbiddenError as error:
        no_groups = str(error)
    go_on()
    # A topic made anew in between would get the settings, or lend its name to offsets, of the other generation.
    again = source.topics(list(before))
    infos = {name: info for name, info in again.items() if info.topic_id == before[name].topic_id}
    mine = {name: found for name, found in settings.items() if name in infos}
    anew = f"it was made anew while source {source.name} was asked; the next snapshot takes it"
    untold |= {name: str(why) for name, why in again.untold.items()}
    untold |= dict.fromkeys(again.keys() - infos.keys(), anew)
    return _Cluster(source.cluster_id(), at, infos, mine, groups, no_groups, dict(sorted(untold.items())))


def _by_name(snapshots: Sequence[Snapshot]) -> dict[str, Snapshot]:
    return {snapshot.name: snapshot for snapshot in snapshots}
