"""A small world for fault tests: a mock cluster with everything awkward in it, an empty catalog and store."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Batch, Generation, Row
from hop_archive.devkit.faults import Fault, Faults, When
from hop_archive.errors import StaleDecisionError
from hop_archive.model.annotations import Annotations
from hop_archive.model.limits import Limits
from hop_archive.model.topics import LayoutPolicy
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore

SMALL = Limits(run_messages=500, batch_messages=7, batch_bytes=4_000, buffer_bytes=16_000, poll_messages=11)
"""Limits so small that some dozens of messages make many batches."""

BUSY, QUIET = "alerts.busy", "alerts.quiet"
NOW_MS = 1_700_000_000_000


WorldLayout: TypeAlias = Literal["message", "segment", "zstd"]
"""The layout of a world's objects; ``zstd`` is that of segments, compressed."""


def layout_policy(layout: WorldLayout) -> LayoutPolicy:
    """What a store's stanza says for this."""
    return LayoutPolicy("segment", compression="zstd") if layout == "zstd" else LayoutPolicy(layout)


def ticking(start: float = 0.0, step: float = 0.001) -> Callable[[], float]:
    """A clock that goes on by ``step`` seconds whenever it is asked."""
    ticks = itertools.count()
    return lambda: start + next(ticks) * step


@dataclass(slots=True)
class World:
    """The lasting parts, to which any number of archives are opened, one after another or at once.

    Attributes:
        cluster: Where messages come from.
        catalog: Where rows go.
        store: Where objects go.
        layout: The layout of objects.
        limits: Of the archives that are opened.
        text_topics: Whose messages are to be found by text.
    """

    layout: WorldLayout = "message"
    limits: Limits = SMALL
    text_topics: tuple[str, ...] = ()
    cluster: MockCluster = field(
        default_factory=lambda: MockCluster(clock=lambda: NOW_MS, sleep=lambda _: None)
    )
    catalog: MockCatalog = field(default_factory=MockCatalog)
    store: MockStore = field(default_factory=MockStore)

    def archive(self, faults: Faults | None = None, run_id: str = "") -> Archive:
        """An archive of this world, as a new process opens it; its calls are subject to ``faults``."""
        source = MockSource(cluster=self.cluster)
        wrap = (faults or Faults()).wrap
        return Archive(
            source=wrap(source, "source"),
            catalog=wrap(self.catalog, "catalog"),
            store=wrap(self.store, "store"),
            layouts=layout_policy(self.layout),
            text_topics=self.text_topics,
            limits=self.limits,
            run_id=run_id,
            monotonic=ticking(),
        )


def at_call(what: str, then: Callable[[], object]) -> Faults:
    """Do something else, once, before the first call of that name."""
    pending = [then]

    def strike(call: str) -> None:
        if call.startswith(f"{what} ") and pending:
            pending.pop()()

    return Faults(tuple(Fault(number, When.BEFORE, strike) for number in range(1, 200)))


class StubbornCatalog(MockCatalog):
    """A catalog that commits nothing of some topics, each time for the same reason: so often, or as long as it is told so."""

    refused: frozenset[str] = frozenset()
    times = 1_000_000
    reason = "the catalog has a row with its number 17"

    def commit(self, *batches: Batch) -> None:
        """Commit, or refuse."""
        if self.times and any(batch.slice.topic in self.refused and batch.rows for batch in batches):
            self.times -= len(batches) == 1
            raise StaleDecisionError(self.reason)
        super().commit(*batches)


def stubborn_world(*refused: str) -> tuple[World, StubbornCatalog]:
    """An awkward world, and its catalog, which refuses these topics."""
    world, catalog = awkward_world(), StubbornCatalog()
    catalog.refused = frozenset(refused)
    world.catalog = catalog
    return world, catalog


class RestlessCatalog(MockCatalog):
    """A catalog in which somebody else records another generation of ``QUIET`` first: so often, or as long as it is told so."""

    times = 1_000_000

    def begin_generation(
        self, topic: str, number: int, cluster_id: str, topic_id: str | None, reason: str
    ) -> Generation:
        """Record it, or find another one recorded."""
        if topic == QUIET and self.times:
            self.times -= 1
            topic_id = f"life {number}"
        return super().begin_generation(topic, number, cluster_id, topic_id, reason)


def restless_world(times: int) -> tuple[World, RestlessCatalog]:
    """An awkward world in which ``QUIET`` changes whenever it is looked at: so often, or as long as its catalog is told so."""
    world, catalog = awkward_world(), RestlessCatalog()
    world.catalog, catalog.times = catalog, times
    return world, catalog


def awkward_world(layout: WorldLayout = "message", limits: Limits = SMALL) -> World:
    """A world whose topics hold duplicates, collisions, null and empty parts, markers, aborts and holes."""
    world = World(layout, limits)
    world.cluster.create_topic(BUSY, 2)
    world.cluster.create_topic(QUIET)
    fill(world.cluster)
    return world


def fill(cluster: MockCluster, seed: int = 0) -> None:
    """Publish to both topics: each call other messages, as ``seed`` says."""
    for number in range(24):
        cluster.append(BUSY, _value(seed, number), headers=_id(seed, number), partition=number % 2)
    _awkward(cluster, seed)
    for number in range(24, 40):
        cluster.append(BUSY, _value(seed, number), headers=(), partition=number % 2)


def _awkward(cluster: MockCluster, seed: int) -> None:
    same = {"value": b"same", "headers": _id(seed, 1000), "timestamp_ms": NOW_MS + seed}
    for partition in (0, 0, 1):
        cluster.append(BUSY, partition=partition, **same)  # type: ignore[arg-type]
    cluster.append(BUSY, b"other content", headers=_id(seed, 1000), partition=1)
    cluster.append(BUSY, b"other content", headers=_id(seed, 1000), partition=0, timestamp_ms=NOW_MS)
    cluster.append(QUIET, None, key=b"tombstone")
    cluster.append(QUIET, b"", key=b"", headers=(("a", None), ("a", b""), ("_id", None), ("_id", b"text")))
    _transactions(cluster, seed)
    cluster.compact(BUSY, 0, [2, 3])


def _transactions(cluster: MockCluster, seed: int) -> None:
    aborted, kept = cluster.begin(), cluster.begin()
    for number in range(9):
        cluster.append(BUSY, b"aborted %d" % number, partition=0, transaction=aborted)
    cluster.append(BUSY, b"kept %d" % seed, partition=0, transaction=kept)
    cluster.append(QUIET, b"kept %d" % seed, transaction=kept)
    cluster.abort(aborted)
    cluster.commit(kept)


def _value(seed: int, number: int) -> bytes:
    return b"alert %d of %d" % (number, seed) * (1 + number % 5)


def _id(seed: int, number: int) -> tuple[tuple[str, bytes | None], ...]:
    return (("_id", uuid.UUID(int=(seed << 32) | (number + 1)).bytes),)


def exhausted(steps: Iterator[object]) -> None:
    """Take all that comes."""
    for _ in steps:
        pass


def adopted_row(topic: str) -> Row:
    """A row as another archiver left it."""
    return Row(
        topic=topic,
        generation=None,
        partition=None,
        offset=None,
        timestamp_ms=NOW_MS - 1,
        timestamp_type=None,
        uuid=uuid.UUID(int=1 << 100),
        is_client_uuid=False,
        digest=None,
        object_key=f"{topic}/old.bson",
        bucket="mock",
        position=None,
        size_bytes=10,
        crc32=1,
        message_crc32=2,
        annotations=Annotations(),
    )
