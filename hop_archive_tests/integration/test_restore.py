"""Restoring between real servers: everything comes back, however often the process is killed on the way."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.records import Row
from hop_archive.devkit.local.address import External, StackAddress
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.ingest.cluster_state import take_snapshot
from hop_archive.ingest.follow import catch_up
from hop_archive.model.limits import Limits
from hop_archive.model.message import TopicPartition
from hop_archive.model.query import Query
from hop_archive.model.topics import LayoutPolicy, TopicPolicy
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.prepare import Restoration
from hop_archive.recover.restore.request import Request
from hop_archive.recover.restore.run import restore
from hop_archive.source.kafka.source import KafkaSource
from hop_archive.store.s3.store import S3Store
from hop_archive.upkeep.verify.documents import documents
from hop_archive.upkeep.verify.ledger import ledger
from hop_archive.upkeep.verify.objects import objects
from hop_archive.upkeep.verify.verification import Verification
from hop_archive_tests.cli_helpers import command, environment
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults.real import (
    create_sample_topics,
    ended,
    plain,
    publish,
    sample_alerts,
)
from hop_archive_tests.integration.test_round_trip import corpus_alerts, published
from hop_archive_tests.roles import as_role, migrate_and_grant
from hop_archive_tests.worlds import exhausted

pytestmark = pytest.mark.local

MESSAGES = 12_000
SAMPLES = 600
KILLS = 6


@pytest.fixture
def elsewhere(tmp_path: Path, address: StackAddress) -> Iterator[KafkaSource]:
    """A second cluster, empty; the other servers are those of the stack."""
    external = External(
        database_url=address.database_url,
        s3_endpoint=address.s3_endpoint,
        s3_access_key=address.s3_access_key,
        s3_secret_key=address.s3_secret_key,
        bucket=address.bucket,
    )
    stack = LocalStack(tmp_path / "elsewhere", external=external)
    try:
        found = stack.up()
        with closing(
            KafkaSource("elsewhere", bootstrap_servers=found.bootstrap_servers, writable=True)
        ) as source:
            yield source
    finally:
        stack.down(purge=True)


def second_archive(source: KafkaSource, address: StackAddress, name: str, large: str) -> Archive:
    """An empty archive of another cluster, with its own schema and prefix: one topic in segments, the others not."""
    migrate_and_grant(address.database_url, name, "second")
    user = as_role("archiver", address)
    return Archive(
        source=source,
        catalog=PostgresCatalog("second", user.database_url, schema=name),
        store=S3Store(
            "second",
            bucket=address.bucket,
            endpoint=address.s3_endpoint,
            region="us-east-1",
            prefix=name,
            access_key=user.s3_access_key,
            secret_key=user.s3_secret_key,
        ),
        topics=TopicPolicy(("*",)),
        layouts=LayoutPolicy("message", ((large, "segment"),)),
    )


def as_comparable(row: Row) -> Row:
    """A row without what has to differ: where the message stands in Kafka, and in the store."""
    return row._replace(generation=None, offset=None, object_key="", position=None, size_bytes=0, crc32=0)


def assert_equal_catalogs(one: Archive, other: Archive) -> int:
    """Every topic has the same rows, in the same order in each partition; how many there are."""
    topics = list(one.catalog.topics())
    assert list(other.catalog.topics()) == topics
    count = 0
    for topic in topics:
        left = [as_comparable(row) for row in one.catalog.rows(topic)]
        right = [as_comparable(row) for row in other.catalog.rows(topic)]
        assert left == right
        count += len(left)
    return count


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_is_restored_elsewhere_and_archived_there_gives_an_equal_catalog(
    open_archive: OpenArchive,
    namespace: str,
    address: StackAddress,
    elsewhere: KafkaSource,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    archive = open_archive(
        "segment", limits=Limits(batch_messages=1_000)
    )  # several segments of each partition
    topic = f"{namespace}.plain"
    archive.source.create_topic(topic, 4)
    publish(archive.source, plain(topic, MESSAGES, partitions=4))
    create_sample_topics(archive.source, namespace)
    publish(archive.source, sample_alerts(namespace, SAMPLES))
    shared = Path(__file__).parents[3] / "shared" / "corpus"
    if shared.is_dir():
        alerts = f"{namespace}.corpus"
        archive.source.create_topic(alerts, 1, {"max.message.bytes": str(64 * 1024 * 1024)})
        published(archive, list(corpus_alerts(request.getfixturevalue("corpus"), alerts)))
    exhausted(catch_up(archive))

    own = Restoration(archive.catalog, archive.store, elsewhere, Request())
    outcome = restore(own, Control(), tmp_path / "files")
    assert (outcome.complete, outcome.differences, outcome.left_out) == (True, 0, 0)
    with closing(second_archive(elsewhere, address, f"{namespace}_2", topic)) as second:
        exhausted(catch_up(second))
        count = assert_equal_catalogs(archive, second)
        assert count == outcome.report["messages"] > MESSAGES
        wanted = Verification(second.catalog, second.store, grace_s=0)
        assert [*objects(wanted), *ledger(wanted), *documents(wanted)] == []


@pytest.mark.slow
def test_a_topic_restored_into_itself_does_not_make_the_archive_grow(
    open_archive: OpenArchive, namespace: str, tmp_path: Path
) -> None:
    archive = open_archive("segment")
    topic = f"{namespace}.plain"
    archive.source.create_topic(topic, 2)
    publish(archive.source, plain(topic, 3_000, partitions=2))
    create_sample_topics(archive.source, namespace)
    publish(archive.source, sample_alerts(namespace, 700))
    exhausted(catch_up(archive))
    before = {one.topic: one for one in archive.catalog.summaries()}
    own = Restoration(archive.catalog, archive.store, archive.source, Request(append=True))
    outcome = restore(own, Control(), tmp_path)
    exhausted(catch_up(archive))
    for one in archive.catalog.summaries():
        assert (one.messages, one.size_bytes) == (before[one.topic].messages, before[one.topic].size_bytes)
        again = before[one.topic].messages + before[one.topic].duplicates
        assert one.duplicates == again
    assert outcome.report["messages"] == sum(one.messages for one in before.values())


# --- the command, killed


@pytest.fixture
def directory(tmp_path: Path, namespace: str) -> Path:
    """A working directory with stanzas ``here`` for the namespace on the local stack."""
    (tmp_path / "hop_archive.toml").write_text(
        f"""
        [source.here]
        type = "kafka"
        bootstrap_servers = "${{HOP_ARCHIVE_LOCAL_BOOTSTRAP_SERVERS}}"
        security = "plaintext"
        writable = true
        [database.here]
        type = "postgres"
        url = "${{HOP_ARCHIVE_LOCAL_DATABASE_URL}}"
        schema = "{namespace}"
        [store.here]
        type = "s3"
        endpoint = "${{HOP_ARCHIVE_LOCAL_S3_ENDPOINT}}"
        region = "us-east-1"
        bucket = "${{HOP_ARCHIVE_LOCAL_BUCKET}}"
        prefix = "{namespace}"
        access_key_env = "HOP_ARCHIVE_LOCAL_S3_ACCESS_KEY"
        secret_key_env = "HOP_ARCHIVE_LOCAL_S3_SECRET_KEY"
        """
    )
    return tmp_path


def started(directory: Path, address: StackAddress, *options: str) -> subprocess.Popen[str]:
    words = ("restore", "-D", "here", "-S", "here", "--to-source", "here", *options)
    return subprocess.Popen(
        command(*words),
        cwd=directory,
        env={**environment(), **as_role("archiver", address).environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def to_the_end(directory: Path, address: StackAddress, *options: str) -> Mapping[str, Any]:
    process = started(directory, address, *options, "--json")
    told, errors = process.communicate(timeout=600)
    assert process.returncode == 0, told + errors
    report: Mapping[str, Any] = json.loads(told)
    return report


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_restore_that_is_killed_again_and_again_writes_each_message_once_in_order(
    open_archive: OpenArchive, namespace: str, address: StackAddress, directory: Path
) -> None:
    archive = open_archive("segment")
    topic = f"{namespace}.plain"
    archive.source.create_topic(topic, 3)
    publish(archive.source, plain(topic, 12_000, partitions=3))
    exhausted(catch_up(archive))
    take_snapshot(archive)
    options = ("-T", topic, "--to-topic", f"{topic}.again")
    chance, at_work = random.Random(7), 0
    for _ in range(KILLS):
        before = written(archive, f"{topic}.again")
        # So slow that it is always at work when it is killed, however busy the machine is.
        with ended(started(directory, address, *options, "--rate", "500")) as process:
            end = time.monotonic() + 60
            while written(archive, f"{topic}.again") == before and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
        at_work += written(archive, f"{topic}.again") > before
    assert at_work > KILLS // 2
    assert written(archive, f"{topic}.again") < 12_000
    report = to_the_end(directory, address, *options)
    assert (report["messages"], report["differences"], report["left_out"]) == (12_000, 0, 0)
    assert written(archive, f"{topic}.again") == 12_000
    assert report["topics"][f"{topic}.again"]["compared"] == 12_000
    done_again = to_the_end(directory, address, *options)
    assert (done_again["restore"], done_again["messages"]) == (report["restore"], 12_000)
    assert written(archive, f"{topic}.again") == 12_000


def written(archive: Archive, topic: str) -> int:
    """How many offsets a topic has."""
    info = archive.source.topics([topic]).get(topic)
    if info is None:
        return 0
    partitions = [TopicPartition(topic, number) for number in range(info.partitions)]
    return sum(mark.high for mark in archive.source.watermarks(partitions).values())


@pytest.mark.slow
def test_of_two_at_once_one_is_refused_and_nothing_is_doubled(
    open_archive: OpenArchive, namespace: str, address: StackAddress, directory: Path
) -> None:
    archive = open_archive("segment")
    topic = f"{namespace}.plain"
    archive.source.create_topic(topic, 2)
    publish(archive.source, plain(topic, 4_000, partitions=2))
    exhausted(catch_up(archive))
    take_snapshot(archive)
    options = ("-T", topic, "--to-topic", f"{topic}.again", "--rate", "1500")
    both = [started(directory, address, *options) for _ in range(2)]
    ends = [(process.communicate(timeout=600), process.returncode) for process in both]
    assert sorted(code for _, code in ends) == [0, 4]
    refused = next(errors for (_, errors), code in ends if code == 4)
    assert "another process is at work" in refused
    assert "Traceback" not in refused
    assert written(archive, f"{topic}.again") == 4_000


def test_adding_a_selection_by_time_to_a_topic_of_its_own(
    open_archive: OpenArchive, namespace: str, address: StackAddress, directory: Path
) -> None:
    archive = open_archive()
    topic = f"{namespace}.plain"
    archive.source.create_topic(topic, 1)
    now_ms = int(time.time() * 1000)
    alerts = [
        replace(alert, timestamp_ms=now_ms - 60_000 + n * 100) for n, alert in enumerate(plain(topic, 300))
    ]
    publish(archive.source, alerts)
    exhausted(catch_up(archive))
    report = to_the_end(directory, address, "-T", topic, "--since", "45s", "--to-topic", f"{topic}.late")
    rows = list(archive.catalog.select(Query(topics=(topic,), since_ms=now_ms - 45_000)))
    assert 0 < report["messages"] <= len(rows) < 300
