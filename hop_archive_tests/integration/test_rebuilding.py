"""A catalog on the local stack, dropped and rebuilt, or put back from an old dump: equal in all that documents tell."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bson
import psycopg
import pytest
from bson.int64 import Int64

from hop_archive.archive import Archive
from hop_archive.catalog.postgres.sql import ROW_COLUMNS
from hop_archive.catalog.records import COLUMNS
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.samples import filler
from hop_archive.ingest.follow import catch_up
from hop_archive.model.conditions import TABLES
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.keys import alternative_key, object_key
from hop_archive.model.topics import TopicPolicy
from hop_archive.read.catalog_snapshot import CatalogSnapshot, snapshot
from hop_archive.read.check import extent_of
from hop_archive.read.snapshot_locations import FolderLocation
from hop_archive.recover.rebuild.from_snapshot import take_in
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive.store.protocol import NewObject
from hop_archive.upkeep.verify.documents import documents
from hop_archive.upkeep.verify.ledger import ledger
from hop_archive.upkeep.verify.objects import objects
from hop_archive.upkeep.verify.source import source
from hop_archive.upkeep.verify.verification import Verification
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.roles import migrate_and_grant
from hop_archive_tests.worlds import WorldLayout

pytestmark = pytest.mark.local

MANY, SOME = 50_000, 1_500
ALONE = int(os.environ.get("HOP_ARCHIVE_TEST_REBUILD_ALONE", "300"))
"""Messages with an object each, which cost a request each: set it to 50000 for the whole proof."""


@dataclass
class Scene:
    """One catalog and prefix with two topics: one in segments, one with an object a message."""

    segments: Archive
    alone: Archive
    address: StackAddress
    schema: str

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(
            self.address.database_url, options=f"-c search_path={self.schema}"
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def drop_database(self) -> None:
        for archive in (self.segments, self.alone):
            archive.catalog.close()
        self.sql(f"DROP SCHEMA {self.schema} CASCADE")
        migrate_and_grant(self.address.database_url, self.schema, "local-db")

    def rows(self) -> list[tuple[Any, ...]]:
        return self.sql(f"SELECT {ROW_COLUMNS} FROM messages ORDER BY uuid")

    def catch_up(self) -> None:
        for archive in (self.segments, self.alone):
            for _ in catch_up(archive):
                pass

    def findings(self) -> list[Finding]:
        found: list[Finding] = []
        for archive in (self.segments, self.alone):
            wanted = Verification(archive.catalog, archive.store, grace_s=0, sleep=lambda _: None)
            found += source(wanted, archive)
        return [*found, *objects(wanted), *documents(wanted), *ledger(wanted)]

    @property
    def topics(self) -> tuple[str, str]:
        return f"{self.schema}.segments", f"{self.schema}.alone"


@pytest.fixture
def scene(open_archive: OpenArchive, address: StackAddress, namespace: str) -> Scene:
    return made(open_archive, address, namespace, SOME)


@pytest.fixture
def large_scene(open_archive: OpenArchive, address: StackAddress, namespace: str) -> Scene:
    return made(open_archive, address, namespace, MANY)


def made(open_archive: OpenArchive, address: StackAddress, namespace: str, in_segments: int) -> Scene:
    one = open_archive("segment", topics=TopicPolicy((f"{namespace}.segments",)), run_id="first")
    other = open_archive("message", topics=TopicPolicy((f"{namespace}.alone",)), run_id="first")
    found = Scene(one, other, address, namespace)
    for topic, count in zip(found.topics, (in_segments, ALONE), strict=True):
        one.source.create_topic(topic, 2)
        alerts = [
            replace(alert, partition=number % 2)
            for number, alert in enumerate(filler(count, 300, topic=topic))
        ]
        copies = [*alerts[3:5], replace(alerts[7], value=b"other content"), alerts[3]]
        one.source.publish([*alerts[:50], *copies, *alerts[50:]])
    found.catch_up()
    return found


def put_back(scene: Scene, saved: str) -> None:
    scene.sql(f"TRUNCATE {', '.join(TABLES)}")
    for table in TABLES:
        scene.sql(f"INSERT INTO {table} SELECT * FROM {saved}.{table}")


@pytest.fixture
def dump(scene: Scene) -> Iterator[Callable[[], None]]:
    """A copy of every table as it is now; what is returned puts it back."""
    saved = f"{scene.schema}_dump"
    scene.sql(f"CREATE SCHEMA {saved}")
    for table in TABLES:
        scene.sql(f"CREATE TABLE {saved}.{table} AS TABLE {table}")
    yield lambda: put_back(scene, saved)
    scene.sql(f"DROP SCHEMA {saved} CASCADE")


def test_a_dropped_database_is_rebuilt_equal_column_by_column_and_archiving_goes_on(
    large_scene: Scene,
) -> None:
    scene = large_scene
    before = scene.rows()
    collisions = scene.sql("SELECT topic, partition, offsets, uuid, detail FROM findings ORDER BY uuid")
    summary = scene.sql(
        "SELECT topic, e_timestamp, l_timestamp, n_messages, n_bytes FROM topics ORDER BY topic"
    )
    generations = scene.sql("SELECT topic, generation, cluster_id, topic_id FROM generations ORDER BY topic")
    assert len(before) > MANY
    scene.drop_database()
    wanted = Rebuild(scene.segments.catalog, scene.segments.store, scene.segments.source, run_id="rebuild")
    assert list(rebuild(wanted)) == []
    assert wanted.progress.counts["added"] == len(before)
    now = scene.rows()
    for number, column in enumerate(COLUMNS):
        assert [row[number] for row in now] == [row[number] for row in before], column
    assert (
        scene.sql("SELECT topic, partition, offsets, uuid, detail FROM findings ORDER BY uuid") == collisions
    )
    assert (
        scene.sql("SELECT topic, e_timestamp, l_timestamp, n_messages, n_bytes FROM topics ORDER BY topic")
        == summary
    )
    assert (
        scene.sql("SELECT topic, generation, cluster_id, topic_id FROM generations ORDER BY topic")
        == generations
    )
    scene.catch_up()
    assert scene.rows() == before
    assert scene.findings() == []


def test_a_snapshot_of_the_database_brings_it_back_whole(scene: Scene, tmp_path: Path) -> None:
    scene.sql('UPDATE messages SET retracted = true WHERE "offset" = 5')
    told = (
        "SELECT topic, generation, partition, offsets, outcome, reason, archived, duplicates, absent, bytes, run_id"
        " FROM batches ORDER BY 1, 2, 3, 4"
    )
    copies = 'SELECT topic, generation, partition, "offset", timestamp, uuid, reason FROM duplicates ORDER BY 1, 2, 3, 4'
    before = (scene.rows(), scene.sql(told), scene.sql(copies))
    location = FolderLocation(tmp_path / "catalog")
    manifest = snapshot(CatalogSnapshot(scene.segments.catalog, location))
    assert manifest["messages"] == len(before[0])
    scene.drop_database()
    assert list(take_in(Rebuild(scene.segments.catalog, scene.segments.store), location)) == []
    assert (scene.rows(), scene.sql(told), scene.sql(copies)) == before
    wanted = CatalogSnapshot(scene.segments.catalog, location)
    assert snapshot(wanted)["messages"] == len(before[0])
    assert wanted.progress.counts["rows"] == 0
    scene.catch_up()
    assert scene.findings() == []


def test_a_database_put_back_from_an_old_dump_catches_up_without_loss_or_doubling(
    scene: Scene, dump: Callable[[], None]
) -> None:
    """The cursor reset: what came after the dump is read from Kafka again, and its objects are found to be there."""
    for topic in scene.topics:
        later = [
            replace(alert, partition=0, headers=(*alert.headers, ("_id", uuid.uuid4().bytes)))
            for alert in filler(500, 300, topic=topic, seed=5)
        ]
        scene.segments.source.publish(later)
        scene.catch_up()  # so that the segments of the two topics are not cut by one run
    before = scene.rows()
    dump()
    assert len(scene.rows()) == len(before) - 1_000
    scene.catch_up()
    now = scene.rows()
    assert [(row[0], row[6], row[3]) for row in now] == [(row[0], row[6], row[3]) for row in before]
    assert {one.kind for one in scene.findings()} <= {Kind.ORPHAN_OBJECT}
    alone = [one for one in scene.findings() if one.topic == scene.topics[1]]
    assert alone == [], "an object a message: the same message has the same object"


def test_what_an_old_dump_calls_lost_afterwards_is_taken_back_from_the_store(
    scene: Scene, dump: Callable[[], None]
) -> None:
    topic = scene.topics[0]
    scene.segments.source.publish([replace(a, partition=1) for a in filler(200, 300, topic=topic, seed=6)])
    scene.catch_up()
    before = scene.rows()
    dump()
    ((generation, stop),) = scene.sql(
        f"SELECT generation, max(upper(offsets)) FROM batches WHERE topic = '{topic}' AND partition = 1 GROUP BY 1"
    )
    scene.sql(
        "INSERT INTO batches (topic, generation, partition, offsets, outcome, reason)"
        f" VALUES ('{topic}', {generation}, 1, int8range({stop}, {stop + 200}), 'lost', 'too late')"
    )
    assert list(rebuild(Rebuild(scene.segments.catalog, scene.segments.store, run_id="rebuild"))) == []
    assert scene.rows() == before
    assert scene.sql("SELECT count(*) FROM batches WHERE outcome = 'lost'") == [(0,)]
    assert scene.findings() == []


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM batches; DELETE FROM generations; DELETE FROM topics",
        "DELETE FROM messages WHERE partition = 1; DELETE FROM batches WHERE partition = 0",
    ],
)
def test_a_damaged_database_gets_back_what_it_lacks(scene: Scene, damage: str) -> None:
    before = scene.rows()
    scene.sql(damage)
    wanted = Rebuild(scene.segments.catalog, scene.segments.store, scene.segments.source, run_id="rebuild")
    assert list(rebuild(wanted)) == []
    assert scene.rows() == before
    scene.catch_up()
    assert scene.rows() == before
    assert scene.findings() == []


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_topics_of_awkward_names_come_back_beside_a_document_that_no_type_of_ours_fits(
    open_archive: OpenArchive, address: StackAddress, namespace: str, layout: WorldLayout
) -> None:
    cluster = MockCluster()
    names = ("hop_archive", "segments", "2026", "x" * 249, "x" * 248 + "y", "plain")
    for name in names:
        cluster.create_topic(name)
        for number in range(5):
            cluster.append(name, b"%d of %s" % (number, name.encode()), headers=())
    archive = replace(open_archive(layout), source=MockSource(cluster=cluster), topics=TopicPolicy(names))
    for _ in catch_up(archive, overlap=0):
        pass
    wanted = Verification(archive.catalog, archive.store, grace_s=0, sleep=lambda _: None)
    assert [*objects(wanted), *documents(wanted), *ledger(wanted)] == []
    row = next(iter(archive.catalog.rows("plain")))
    body = bson.decode(next(iter(archive.store.fetch([extent_of(row)]))))
    body["annotations"]["digest"] = Int64(2**50)
    bad = alternative_key(object_key("plain", row.timestamp_ms, row.uuid), 1)
    archive.store.create([NewObject(bad, bson.encode(body)), NewObject("hop_archive/probe", b"?")])
    scene = Scene(archive, archive, address, namespace)
    before = scene.rows()
    scene.drop_database()
    findings = list(rebuild(Rebuild(archive.catalog, archive.store)))
    assert [(one.kind, one.object_key) for one in findings] == [(Kind.CORRUPT_OBJECT, bad)]
    assert scene.rows() == before
    assert len(before) == 5 * len(names)
