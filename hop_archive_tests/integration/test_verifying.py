"""Damage done for real to an archive on the local stack: verification finds just that, and nothing in a sound one."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import boto3
import psycopg
import pytest

from hop_archive.archive import Archive, utc_now
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.samples import filler
from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.query import Query
from hop_archive.store.protocol import NewObject
from hop_archive.upkeep.verify.documents import documents
from hop_archive.upkeep.verify.ledger import ledger
from hop_archive.upkeep.verify.objects import backup_objects, objects
from hop_archive.upkeep.verify.source import source
from hop_archive.upkeep.verify.verification import BACKUP_GRACE_S, Verification
from hop_archive_tests.conftest import OpenArchive

pytestmark = pytest.mark.local

MESSAGES = 60
Layout = Literal["message", "segment"]
Direction = Callable[[Verification], Iterator[Finding]]


@dataclass
class Scene:
    """An archive of one topic in two partitions, and ways to damage it that no part of ours has."""

    archive: Archive
    layout: Layout
    topic: str
    address: StackAddress
    schema: str

    def sql(self, statement: str) -> Any:
        with psycopg.connect(
            self.address.database_url, options=f"-c search_path={self.schema}"
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else None

    @property
    def s3(self) -> Any:
        here = self.address
        return boto3.client(
            "s3",
            endpoint_url=here.s3_endpoint,
            aws_access_key_id=here.s3_access_key,
            aws_secret_access_key=here.s3_secret_key,
            region_name="us-east-1",
        )

    def victim(self) -> tuple[str, str, int, int]:
        """Key, UUID, position (0 for a whole object) and size of the tenth message."""
        ((key, own, position, size),) = self.sql(
            'SELECT key, uuid::text, coalesce(position, 0), size FROM messages ORDER BY partition, "offset" LIMIT 1 OFFSET 10'
        )
        return key, own, position, size

    def body(self, key: str) -> bytes:
        found: bytes = self.s3.get_object(Bucket=self.address.bucket, Key=f"{self.schema}/{key}")[
            "Body"
        ].read()
        return found

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.address.bucket, Key=f"{self.schema}/{key}", Body=body)

    def delete(self, key: str) -> None:
        self.s3.delete_object(Bucket=self.address.bucket, Key=f"{self.schema}/{key}")

    def verification(self, **changes: Any) -> Verification:
        return replace(
            Verification(
                self.archive.catalog, self.archive.store, grace_s=0, sleep=lambda _: None, backup_grace_s=0
            ),
            **changes,
        )

    def source(self, wanted: Verification) -> Iterator[Finding]:
        return source(wanted, self.archive)

    def all(self) -> tuple[Direction, ...]:
        return (objects, documents, ledger, self.source)

    def found(self, *directions: Direction, **changes: Any) -> list[Finding]:
        return [one for direction in directions for one in direction(self.verification(**changes))]

    def kinds(self, *directions: Direction, **changes: Any) -> list[str]:
        return [one.kind.value for one in self.found(*directions, **changes)]


@pytest.fixture(params=["message", "segment"])
def scene(
    request: pytest.FixtureRequest, open_archive: OpenArchive, address: StackAddress, namespace: str
) -> Scene:
    archive = open_archive(request.param)
    topic = f"{namespace}.alerts"
    archive.source.create_topic(topic, 2)
    alerts = enumerate(filler(MESSAGES, 300, topic=topic))
    archive.source.publish([replace(alert, partition=number % 2) for number, alert in alerts])
    for _ in catch_up(archive):
        pass
    return Scene(archive, request.param, topic, address, namespace)


def test_in_a_sound_archive_nothing_is_found_and_everything_is_looked_at(scene: Scene) -> None:
    wanted = scene.verification()
    assert [one for direction in scene.all() for one in direction(wanted)] == []
    counts = wanted.checked.counts
    objects = MESSAGES if scene.layout == "message" else 2
    assert (counts["objects"], counts["rows"], counts["messages"]) == (objects, MESSAGES, MESSAGES)
    assert counts["batches"] >= 2


def test_a_deleted_object_is_missing_in_a_listing_and_when_it_is_fetched(scene: Scene) -> None:
    key, own, _, _ = scene.victim()
    scene.delete(key)
    (shallow,) = scene.found(objects)
    assert (shallow.kind, shallow.topic, shallow.object_key) == (Kind.MISSING_OBJECT, scene.topic, key)
    deep = scene.found(documents)
    assert {one.kind for one in deep} == {Kind.MISSING_OBJECT}
    assert {one.object_key for one in deep} == {key}
    assert own in {str(one.uuid) for one in deep}
    assert scene.kinds(ledger, scene.source) == []


def test_a_truncated_object_has_the_wrong_size(scene: Scene) -> None:
    key, _, position, size = scene.victim()
    scene.put(key, scene.body(key)[: position + size - 1])
    (shallow,) = scene.found(objects)
    assert (shallow.kind, shallow.object_key) == (Kind.WRONG_SIZE, key)
    assert {one.kind for one in scene.found(documents)} == {Kind.WRONG_SIZE}


def test_a_flipped_bit_is_seen_in_that_message_alone_and_only_when_it_is_fetched(scene: Scene) -> None:
    key, own, position, size = scene.victim()
    body = bytearray(scene.body(key))
    body[position + size // 2] ^= 1
    scene.put(key, bytes(body))
    assert scene.kinds(objects) == []
    (deep,) = scene.found(documents)
    assert (deep.kind, str(deep.uuid)) == (Kind.CORRUPT_OBJECT, own)


def test_a_row_that_was_altered_differs_from_its_document(scene: Scene) -> None:
    _, own, _, _ = scene.victim()
    scene.sql(f"UPDATE messages SET timestamp = timestamp + 1 WHERE uuid = '{own}'")
    (deep,) = scene.found(documents)
    assert (deep.kind, str(deep.uuid)) == (Kind.ROW_DIFFERS, own)
    assert "timestamp" in deep.detail


def test_a_checksum_that_was_altered_differs_from_a_sound_document(scene: Scene) -> None:
    _, own, _, _ = scene.victim()
    scene.sql(f"UPDATE messages SET crc32 = crc32 # 1 WHERE uuid = '{own}'")
    assert [(t.kind, str(t.uuid)) for t in scene.found(documents)] == [(Kind.ROW_DIFFERS, own)]


def test_a_row_that_was_deleted_leaves_an_orphan_and_wrong_counts(scene: Scene) -> None:
    key, own, _, _ = scene.victim()
    scene.sql(f"DELETE FROM messages WHERE uuid = '{own}'")
    orphans = [one.object_key for one in scene.found(objects)]
    assert orphans == ([key] if scene.layout == "message" else [])
    (count,) = scene.found(ledger)
    assert (count.kind, count.slice is not None) == (Kind.COUNT_MISMATCH, True)


def test_an_object_that_no_row_names_is_an_orphan_or_foreign_once_it_is_old_enough(scene: Scene) -> None:
    key = f"{scene.topic}/2026/1/2/3/00000000-0000-4000-8000-000000000000.bson"
    segment = f"segments/{scene.topic}/1/0/{0:020}-{99:020}.bson"
    elsewhere = "no.topic/2026/1/2/3/00000000-0000-4000-8000-000000000000.bson"
    foreign = (f"{scene.topic}/readme.txt", "top.txt", "segments/top.txt", "zzz/a/b")
    scene.archive.store.create([NewObject(one, b"?") for one in (key, segment, elsewhere, *foreign)])
    found = {(one.kind, one.object_key) for one in scene.found(objects)}
    assert found == {
        *((Kind.ORPHAN_OBJECT, one) for one in (key, segment, elsewhere)),
        *((Kind.FOREIGN_OBJECT, one) for one in foreign),
    }
    assert scene.found(objects, grace_s=3600) == []
    of_topic = {one.object_key for one in scene.found(objects, query=Query((scene.topic,)))}
    assert of_topic == {key, segment, foreign[0]}


def test_what_the_archive_keeps_for_itself_is_neither(scene: Scene) -> None:
    scene.archive.store.create([NewObject("hop_archive/probe", b"?")])
    assert scene.found(objects) == []


def test_a_ledger_row_that_was_removed_is_a_hole_and_work(scene: Scene) -> None:
    ((number, start, stop),) = scene.sql(
        "DELETE FROM batches WHERE partition = 0 RETURNING generation, lower(offsets), upper(offsets)"
    )
    (hole,) = scene.found(ledger)
    assert hole.kind is Kind.COVERAGE_HOLE
    assert hole.slice is not None
    assert (hole.slice.generation, hole.slice.start, hole.slice.stop) == (number, start, stop)
    assert scene.kinds(scene.source) == ["not_archived"]


def test_rows_whose_ledger_is_gone_are_looked_at_all_the_same(scene: Scene) -> None:
    scene.sql("DELETE FROM batches")
    assert scene.found(objects) == []
    key, *_ = scene.victim()
    scene.delete(key)
    assert scene.kinds(objects) == ["missing_object"]


def test_rows_that_the_summary_denies_are_looked_at_all_the_same(scene: Scene) -> None:
    scene.sql("UPDATE topics SET n_messages = 0")
    wanted = scene.verification()
    assert list(documents(wanted)) == []
    assert wanted.checked.counts["messages"] == MESSAGES
    scene.sql("DELETE FROM topics; DELETE FROM batches")
    assert scene.found(objects) == []


def test_a_summary_that_miscounts_is_found(scene: Scene) -> None:
    scene.sql("UPDATE topics SET n_messages = n_messages + 1")
    (count,) = scene.found(ledger)
    assert (count.kind, count.slice) == (Kind.COUNT_MISMATCH, None)
    assert f"says {MESSAGES + 1}, the rows are {MESSAGES}" in count.detail


def test_messages_that_are_not_archived_yet_are_told(scene: Scene) -> None:
    scene.archive.source.publish(filler(4, 300, topic=scene.topic, seed=3))
    assert set(scene.kinds(scene.source)) == {"not_archived"}
    for _ in islice(catch_up(scene.archive), None):
        pass
    assert scene.found(*scene.all()) == []


def test_a_backup_that_lacks_an_object_is_told_of_its_bucket(scene: Scene, open_archive: OpenArchive) -> None:
    from hop_archive.store.mock import MockStore

    backup = MockStore("backup", bucket="the-backup")
    key, *_ = scene.victim()
    listed = [info.key for info in scene.archive.store.listing() if info.key != key]
    backup.create([NewObject(one, scene.body(one)) for one in listed])
    (missing,) = scene.found(backup_objects, backup=backup)
    assert (missing.kind, missing.object_key, missing.bucket) == (Kind.MISSING_OBJECT, key, "the-backup")


def test_what_replication_has_not_copied_yet_is_not_missing_in_the_backup(scene: Scene) -> None:
    from hop_archive.store.mock import MockStore

    backup = MockStore("backup", bucket="the-backup")
    listed = [info.key for info in scene.archive.store.listing()]
    backup.create([NewObject(one, scene.body(one)) for one in listed[::2]])
    wanted = scene.verification(backup=backup, backup_grace_s=BACKUP_GRACE_S)
    assert list(backup_objects(wanted)) == []
    assert wanted.checked.counts["copies not due yet"] == len(listed[1::2])
    later = lambda: utc_now() + datetime.timedelta(minutes=16)  # noqa: E731
    found = list(backup_objects(replace(wanted, now=later)))
    assert [(one.kind, one.object_key) for one in found] == [
        (Kind.MISSING_OBJECT, key) for key in sorted(listed[1::2], key=scene_order)
    ]


def scene_order(key: str) -> tuple[bool, str]:
    return key.startswith("segments/"), key
