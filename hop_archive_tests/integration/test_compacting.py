"""Compacting on real servers, while a reader reads everything again and again: fewer objects and bytes, nothing out of sight."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import boto3
import psycopg
import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.records import Row
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.samples import filler
from hop_archive.ingest.follow import catch_up
from hop_archive.model.limits import Limits
from hop_archive.model.topics import LayoutPolicy
from hop_archive.read.check import extent_of
from hop_archive.read.fetch import fetch_documents
from hop_archive.store.coalesce import spans
from hop_archive.store.protocol import Extent, NewObject
from hop_archive.store.s3.store import S3Store
from hop_archive.upkeep.compact.compact import compact
from hop_archive.upkeep.compact.plan import Compaction
from hop_archive.upkeep.remove.remove import Removing
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.verification import Verification
from hop_archive.upkeep.verify.verify import verify
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.roles import as_role

pytestmark = [pytest.mark.local, pytest.mark.slow, pytest.mark.role("cleaner")]

COUNT = 600


@pytest.fixture
def archive(open_archive: OpenArchive, namespace: str) -> Archive:
    """Messages of 1 kB: of one topic an object each, of another five a segment, as a follower writes them that has little to do."""
    alone, trickle = f"{namespace}.alone", f"{namespace}.trickle"
    made = replace(
        open_archive(limits=Limits(batch_messages=5)),
        layouts=LayoutPolicy("message", ((trickle, "segment"),)),
    )
    for topic in (alone, trickle):
        made.source.create_topic(topic, 2)
        alerts = enumerate(filler(COUNT, 1_000, topic=topic))
        made.source.publish([replace(alert, partition=number % 2) for number, alert in alerts])
    for _ in catch_up(made):
        pass
    return made


@pytest.fixture
def removing(archive: Archive, address: StackAddress, namespace: str) -> Iterator[Removing]:
    def opened(name: str, bucket: str, user: StackAddress) -> S3Store:
        return S3Store(
            name,
            bucket=bucket,
            endpoint=address.s3_endpoint,
            prefix=namespace,
            access_key=user.s3_access_key,
            secret_key=user.s3_secret_key,
            deleting_allowed=True,
        )

    store = opened("local-store", address.bucket, as_role("cleaner", address))
    backup = opened("backup", f"{namespace}-backup", address)
    boto3.client(
        "s3",
        endpoint_url=address.s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=address.s3_access_key,
        aws_secret_access_key=address.s3_secret_key,
    ).create_bucket(Bucket=backup.bucket)
    there = [info.key for info in store.listing()]
    bodies = store.fetch(Extent(key) for key in there)
    backup.create([NewObject(*pair) for pair in zip(there, bodies, strict=True)])
    yield Removing(archive.catalog, store, backup)
    store.close()
    backup.close()


def rows_of(archive: Archive) -> list[Row]:
    return [row for topic in archive.catalog.topics() for row in archive.catalog.rows(topic)]


def requests(rows: Sequence[Row]) -> int:
    """How many requests reading all of these takes."""
    return len(list(spans(map(extent_of, rows))))


def stored(store: Any) -> tuple[int, int]:
    """Objects, and their bytes."""
    sizes = [info.size_bytes for info in store.listing()]
    return len(sizes), sum(sizes)


@dataclass(slots=True)
class Looks:
    """How often all was read, and how many messages there were each time."""

    count: int = 0
    messages: set[int] = field(default_factory=set)
    is_going_on: bool = True


@contextmanager
def reading_on_and_on(archive: Archive) -> Iterator[Looks]:
    """Somebody reads rows, and then their documents, all the time; what was not to be had is raised at the end."""
    over, looks, wrong = threading.Event(), Looks(), list[object]()

    def read() -> None:
        try:
            while not over.is_set():
                rows = rows_of(archive)
                found = list(fetch_documents(archive.store, rows, archive.catalog.find))
                wrong.extend(one.problems for one in found if one.problems)
                looks.messages.add(len(found))
                looks.count += 1
        except BaseException as error:  # noqa: BLE001 (in this thread nobody else would hear of it)
            wrong.append(error)
        finally:
            looks.is_going_on = False

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield looks
    finally:
        over.set()
        reader.join()
    assert wrong == []


def test_few_objects_take_the_place_of_many_while_a_reader_sees_all_of_them(
    archive: Archive, removing: Removing, address: StackAddress, namespace: str
) -> None:
    layouts = LayoutPolicy("segment", compression="zstd")
    before, (objects, size_bytes) = rows_of(archive), stored(removing.store)
    assert (requests(before), objects) == (COUNT + COUNT // 5, COUNT + COUNT // 5)
    with reading_on_and_on(archive) as looks:
        for _ in range(2):  # the second time, the old objects are deleted
            wanted = Compaction(layouts, datetime.timedelta(0))
            assert list(compact(removing, wanted)) == []
            with psycopg.connect(address.database_url, options=f"-c search_path={namespace}") as connection:
                connection.execute("UPDATE condemned SET due = clock_timestamp()")
            begun = looks.count
            while looks.count < begun + 2 and looks.is_going_on:
                time.sleep(0.01)
    assert looks.messages == {2 * COUNT}
    after = rows_of(archive)
    assert {row.uuid for row in after} == {row.uuid for row in before}
    assert requests(after) == 4, "one a partition"
    for store in (removing.store, removing.backup):
        assert stored(store)[0] == 4
        assert stored(store)[1] < 0.7 * size_bytes
    assert removing.tally.objects == removing.tally.copies == objects
    verification = Verification(
        archive.catalog,
        removing.store,
        grace_s=0,
        backup=removing.backup,
        backup_grace_s=0,
        sleep=lambda _: None,
    )
    assert [*verify(verification, FindingsRecorder(archive.catalog), deep=True)] == []
