"""Every kind of damage at once to an archive of many segments: just that is found, repair mends it, and all is clean."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import boto3
import psycopg
import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.samples import filler
from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.limits import Limits
from hop_archive.model.topics import LayoutPolicy
from hop_archive.store.protocol import Extent, NewObject
from hop_archive.store.s3.store import S3Store
from hop_archive.upkeep.repair.plan import QUARANTINE, Repair, Upstream
from hop_archive.upkeep.repair.repair import RepairOutcome, repair
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.verification import Verification
from hop_archive.upkeep.verify.verify import verify
from hop_archive_tests.conftest import OpenArchive

pytestmark = [pytest.mark.local, pytest.mark.slow, pytest.mark.role("repairer")]

ALONE, TOGETHER = 500, 9_500
SEGMENT = 2_000
Told = tuple[str, str]


@dataclass
class Scene:
    """An archive in both layouts, its backup, and tools that no part of ours has."""

    archive: Archive
    backup: S3Store
    address: StackAddress
    schema: str
    alone: str
    together: str
    expected: Counter[Told] = field(default_factory=Counter)

    def sql(self, statement: str, *values: object) -> Any:
        options = f"-c search_path={self.schema}"
        with psycopg.connect(self.address.database_url, options=options) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else None

    @property
    def s3(self) -> Any:
        here = self.address
        keys = {"aws_access_key_id": here.s3_access_key, "aws_secret_access_key": here.s3_secret_key}
        return boto3.client("s3", endpoint_url=here.s3_endpoint, region_name="us-east-1", **keys)

    def place(self, key: str, bucket: str = "") -> dict[str, str]:
        return {"Bucket": bucket or self.address.bucket, "Key": f"{self.schema}/{key}"}

    def body(self, key: str) -> bytes:
        found: bytes = self.s3.get_object(**self.place(key))["Body"].read()
        return found

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(**self.place(key), Body=body)

    def delete(self, key: str, bucket: str = "") -> None:
        self.s3.delete_object(**self.place(key, bucket))

    def victim(self, topic: str, number: int) -> tuple[str, str, int, int]:
        """Key, UUID, position and size of a message of partition 0."""
        ((key, own, position, size),) = self.sql(
            "SELECT key, uuid::text, coalesce(position, 0), size FROM messages WHERE topic = %s AND partition = 0"
            ' ORDER BY "offset" LIMIT 1 OFFSET %s',
            topic,
            number,
        )
        return key, own, position, size

    def expect(self, kind: str, where: str) -> None:
        self.expected[kind, where] += 1

    def verify(self) -> Iterator[Finding]:
        """Every direction, deep, noting what is found."""
        wanted = Verification(
            self.archive.catalog,
            self.archive.store,
            grace_s=0,
            backup_grace_s=0,
            sleep=lambda _: None,
            backup=self.backup,
            open_archive=lambda: nullcontext(self.archive),
        )
        recorder = FindingsRecorder(self.archive.catalog)
        for finding, _ in verify(wanted, recorder, ("source",)):
            yield finding
        for finding, _ in verify(wanted, recorder, ("objects", "ledger", "backup"), deep=True):
            yield finding

    def seen(self) -> Counter[Told]:
        return Counter((one.kind.value, _where(one)) for one in self.verify())

    def replicate(self) -> None:
        """What S3's replication does."""
        there = {info.key for info in self.backup.listing()}
        new = [info.key for info in self.archive.store.listing() if info.key not in there]
        bodies = self.archive.store.fetch(Extent(key) for key in new)
        self.backup.create([NewObject(*pair) for pair in zip(new, bodies, strict=True)])


def _where(one: Finding) -> str:
    if one.kind in (Kind.CORRUPT_OBJECT, Kind.ROW_DIFFERS):
        return str(one.uuid)
    return one.object_key or f"{one.topic} {one.slice and one.slice.start}"


@pytest.fixture
def scene(open_archive: OpenArchive, address: StackAddress, namespace: str) -> Iterator[Scene]:
    alone, together = f"{namespace}.alone", f"{namespace}.together"
    archive = replace(
        open_archive(limits=Limits(batch_messages=SEGMENT)),
        layouts=LayoutPolicy("message", ((together, "segment"),)),
    )
    for topic, count in ((alone, ALONE), (together, TOGETHER)):
        archive.source.create_topic(topic, 2)
        alerts = enumerate(filler(count, 200, topic=topic))
        archive.source.publish([replace(alert, partition=number % 2) for number, alert in alerts])
    for _ in catch_up(archive):
        pass
    backup = S3Store(
        "backup",
        bucket=f"{namespace}-backup",
        endpoint=address.s3_endpoint,
        prefix=namespace,
        access_key=address.s3_access_key,
        secret_key=address.s3_secret_key,
    )
    made = Scene(archive, backup, address, namespace, alone, together)
    made.s3.create_bucket(Bucket=backup.bucket)
    made.replicate()
    yield made
    backup.close()


def test_every_kind_of_damage_is_found_and_mended_and_nothing_else(scene: Scene) -> None:
    assert scene.seen() == Counter()
    damage(scene)
    assert scene.seen() == scene.expected
    asked = Repair(scene.archive.catalog, scene.archive.store, scene.backup, Upstream(scene.archive))
    planned = list(repair(asked))
    assert len(planned) >= len(scene.expected)
    assert not list(scene.archive.store.listing(QUARANTINE)), "a plan changed something"
    mended = list(repair(asked, dry_run=False))
    assert {one.outcome for one in mended} <= {RepairOutcome.MENDED, RepairOutcome.GONE}, [
        one for one in mended if one.outcome is RepairOutcome.LEFT
    ]
    scene.replicate()
    assert scene.seen() == Counter()
    assert list(scene.archive.catalog.findings()) == []
    assert len(list(scene.archive.store.listing(QUARANTINE))) >= 5
    ((count,),) = scene.sql("SELECT count(*) FROM messages")
    assert count == ALONE + TOGETHER


def damage(scene: Scene) -> None:
    """Each of its kinds, in both layouts, in messages that do not meet."""
    for topic in (scene.alone, scene.together):
        is_segment = topic == scene.together
        far = SEGMENT if is_segment else 1  # messages so far apart stand in other segments
        _damage_objects(scene, topic, far, is_segment=is_segment)
        _damage_rows(scene, topic, far, is_segment=is_segment)
    key, *_ = scene.victim(scene.alone, 200)
    scene.delete(key, scene.backup.bucket)  # missing in the backup only
    scene.expect("missing_object", key)


def _damage_objects(scene: Scene, topic: str, far: int, *, is_segment: bool) -> None:
    key, _, position, size = scene.victim(topic, 0)
    if is_segment:
        body = bytearray(scene.body(key))
        body[position + size // 2] ^= 1
        scene.put(key, bytes(body))
        scene.expect("corrupt_object", scene.victim(topic, 0)[1])
    else:
        scene.delete(key)
        scene.expect("missing_object", key)
        key, own, position, size = scene.victim(topic, 5)
        body = bytearray(scene.body(key))
        body[position + size // 2] ^= 1
        scene.put(key, bytes(body))
        scene.expect("corrupt_object", own)
    key, _, position, size = scene.victim(topic, far + 1)
    scene.put(key, scene.body(key)[: position + size - 1])  # truncated, and a segment cut in the middle
    scene.expect("wrong_size", key)
    orphan = f"{topic}/2026/1/2/3/{uuid.UUID(int=1)}.bson"
    scene.put(orphan, b"?")
    scene.expect("orphan_object", orphan)
    if is_segment:
        ((key,),) = scene.sql(
            'SELECT key FROM messages WHERE topic = %s AND partition = 1 ORDER BY "offset" DESC LIMIT 1',
            topic,
        )
        scene.delete(key)
        scene.expect("missing_object", key)


def _damage_rows(scene: Scene, topic: str, far: int, *, is_segment: bool) -> None:
    _, own, _, _ = scene.victim(topic, 2 * far + 10)
    scene.sql("UPDATE messages SET timestamp = timestamp + 1, title = 'x' WHERE uuid = %s", own)
    scene.expect("row_differs", own)
    key, own, _, _ = scene.victim(topic, 2 * far + 20)
    ((generation, offset),) = scene.sql(
        'DELETE FROM messages WHERE uuid = %s RETURNING generation, "offset"', own
    )
    if not is_segment:
        scene.expect("orphan_object", key)
    ((start,),) = scene.sql(
        "SELECT lower(offsets) FROM batches WHERE topic = %s AND generation = %s AND partition = 0"
        " AND offsets @> %s::bigint",
        topic,
        generation,
        offset,
    )
    scene.expect("count_mismatch", f"{topic} {start}")
    ((first,),) = scene.sql(
        "DELETE FROM batches WHERE (topic, partition, offsets) IN (SELECT topic, partition, offsets FROM batches"
        " WHERE topic = %s AND partition = 1 ORDER BY offsets LIMIT 1) RETURNING lower(offsets)",
        topic,
    )
    scene.expect("coverage_hole", f"{topic} {first}")
    scene.expect("not_archived", f"{topic} {first}")
