"""What tests of restoring share: worlds that were archived, targets, and what a target should hold."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import NamedTuple

from hop_archive.archive import Archive
from hop_archive.devkit.faults import Faults
from hop_archive.ingest.follow import catch_up
from hop_archive.model.document import decode
from hop_archive.model.message import Header, Message, TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.prepare import Restoration
from hop_archive.recover.restore.request import Request
from hop_archive.recover.restore.run import RestoreResult, restore
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive_tests.invariants import committed, fetched
from hop_archive_tests.worlds import NOW_MS, World, WorldLayout, awkward_world, exhausted, ticking


class Content(NamedTuple):
    """What a restored message has to have in common with the archived one."""

    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    timestamp_ms: int


def content(message: Message) -> Content:
    return Content(message.key, message.value, message.headers, message.timestamp_ms)


def archived_world(layout: WorldLayout = "message") -> World:
    """The awkward world, archived."""
    world = awkward_world(layout)
    exhausted(catch_up(world.archive(), overlap=0))
    return world


def empty_cluster() -> MockCluster:
    return MockCluster(clock=lambda: NOW_MS, sleep=lambda _: None)


def held(cluster: MockCluster, topic: str) -> dict[int, list[Content]]:
    """What a topic holds, by partition, as readers of committed messages see it."""
    with cluster.read() as state:
        count = len(state.topics[topic].logs)
    return {n: [content(m) for m in committed(cluster, TopicPartition(topic, n))] for n in range(count)}


def stored(archive: Archive, topic: str) -> dict[int, list[Content]]:
    """What the archive holds of the latest generation of a topic, by partition, in order of offset."""
    found: dict[int, list[Content]] = {}
    latest = archive.catalog.generations([topic])[topic][-1].number
    for row in archive.catalog.rows(topic):
        if row.generation == latest and row.partition is not None and not row.retracted:
            message = decode(fetched(archive.store, row)).message
            found.setdefault(row.partition, []).append(content(message))
    return found


def restoration(
    world: World, cluster: MockCluster, request: Request, faults: Faults | None = None, **more: object
) -> Restoration:
    """A restore of a world into a cluster, whose calls are all subject to ``faults``."""
    wrap = (faults or Faults()).wrap
    return Restoration(
        catalog=wrap(world.catalog, "catalog"),
        store=wrap(world.store, "store"),
        target=wrap(MockSource("there", cluster=cluster), "target"),
        request=request,
        now=lambda: datetime.datetime.fromtimestamp(NOW_MS / 1000 + 3600, tz=datetime.UTC),
        **more,  # type: ignore[arg-type]  # as given
    )


def patient(**more: object) -> Control:
    """Control that wait for nothing; with ``patience_s``, which is 0, an outage ends the restore."""
    defaults: dict[str, object] = {"patience_s": 0.0, "sleep": lambda _: None, "monotonic": ticking()}
    return Control(**{**defaults, **more})  # type: ignore[arg-type]  # as given


def run(own: Restoration, folder: Path, control: Control | None = None, **more: object) -> RestoreResult:
    return restore(own, control or patient(), folder, progress=Progress(), **more)  # type: ignore[arg-type]  # as given
