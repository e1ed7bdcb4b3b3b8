"""Verifying, cleaning up and restoring on three brokers of Apache Kafka, by the command line, with a real S3 and Postgres."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace

import psycopg
import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.records import Batch, Outcome
from hop_archive.devkit.local.address import StackAddress
from hop_archive.ingest.follow import catch_up
from hop_archive.model.document import crc32, decode, encode
from hop_archive.model.message import Message, TopicPartition
from hop_archive.model.slices import Slice
from hop_archive.read.check import extent_of
from hop_archive.store.protocol import NewObject
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.contract.source_fixtures import read_until
from hop_archive_tests.faults.real import (
    Processes,
    assert_all_archived,
    create_sample_topics,
    documents,
    ended,
    plain,
    publish,
    sample_alerts,
)
from hop_archive_tests.kafka.cluster import KafkaCluster
from hop_archive_tests.restores import Content, content
from hop_archive_tests.worlds import exhausted

pytestmark = [pytest.mark.kafka, pytest.mark.local, pytest.mark.timeout(900), pytest.mark.slow_kafka]

HERE = ("-H", "here", "-D", "here", "-S", "here")
DAY_MS = 86_400_000
SOURCE = ("--direction", "source", "--deep")


@pytest.fixture
def upkeep(processes: Processes, namespace: str) -> Processes:
    """The command line as programs, which may remove, and restore to the cluster."""
    stanzas = processes.directory / "hop_archive.toml"
    text = stanzas.read_text()
    for stanza in ("[source.here]", "[database.here]", "[store.here]"):
        permission = "writable = true" if "source" in stanza else "deleting_allowed = true"
        text = text.replace(stanza, f"{stanza}\n{permission}")
    stanzas.write_text(text)
    return processes


def called(processes: Processes, code: int, *args: str) -> str:
    """What a command says to its end, once it ends with that exit code."""
    with ended(processes.start(*args)) as process:
        told, errors = process.communicate(timeout=280)
    assert process.returncode == code, f"{args}: {told}{errors}"
    return told


def sql(address: StackAddress, schema: str, statement: str) -> None:
    with psycopg.connect(address.database_url, options=f"-c search_path={schema}") as connection:
        assert connection.execute(statement.encode()).rowcount > 0


def test_what_kafka_holds_is_verified_and_a_message_that_differs_or_lacks_is_told(
    on_three: OpenArchive, upkeep: Processes, address: StackAddress, namespace: str
) -> None:
    archive = on_three()
    topics = create_sample_topics(archive.source, namespace)
    publish(archive.source, sample_alerts(namespace, 300))
    exhausted(catch_up(archive))
    called(upkeep, 0, "verify", *HERE, *SOURCE)
    victim = topics[0]
    sql(
        address,
        namespace,
        "UPDATE messages SET digest = decode(md5('another'), 'hex') WHERE id = "
        f"(SELECT min(id) FROM messages WHERE topic = '{victim}')",
    )
    publish(archive.source, plain(topics[1], 3))
    found = json.loads(called(upkeep, 1, "verify", *HERE, *SOURCE, "--json"))
    assert {(one["kind"], one["topic"]) for one in found["findings"]} == {
        ("row_differs", victim),
        ("not_archived", topics[1]),
    }


def archive_twice(archive: Archive, topic: str, offset: int) -> uuid.UUID:
    """Archive the message at an offset as one of its own, though it is a copy of the first: as two archivers at once might."""
    row, _ = next(documents(archive, topic))
    (body,) = archive.store.fetch([extent_of(row)])
    own = uuid.uuid4()
    was = decode(body)
    document = replace(was, message=was.message._replace(offset=offset), uuid=own)
    body, key = encode(document), row.object_key.replace(str(row.uuid), str(own))
    archive.store.create([NewObject(key, body)])
    again = row._replace(uuid=own, offset=offset, object_key=key, size_bytes=len(body), crc32=crc32(body))
    archive.catalog.commit(Batch(Slice(topic, 1, 0, offset, offset + 1), rows=[again]))
    return own


def test_a_message_that_is_there_twice_becomes_a_duplicate_and_kafka_still_agrees(
    on_three: OpenArchive, kafka: KafkaCluster, upkeep: Processes, namespace: str
) -> None:
    archive = on_three()
    topic = kafka.create_topic(namespace, [[1, 2, 3]])
    sent = plain(topic, 20)
    publish(archive.source, sent)
    exhausted(catch_up(archive))
    publish(archive.source, sent[:1])
    copy = archive_twice(archive, topic, 20)
    assert "1" in called(upkeep, 0, "clean-duplicates", *HERE[2:])
    assert len(list(archive.catalog.rows(topic))) == 21
    called(upkeep, 0, "clean-duplicates", *HERE[2:], "--yes")
    rows = {row.uuid: row for row in archive.catalog.rows(topic)}
    assert copy not in rows
    assert [(d.offset, rows[d.uuid].offset) for _, d in archive.catalog.duplicates(topic)] == [(20, 0)]
    called(
        upkeep, 0, "verify", *HERE, *SOURCE, "--direction", "objects", "--direction", "ledger", "--grace", "0"
    )


def test_what_is_pruned_stays_away_though_kafka_holds_it_still(
    on_three: OpenArchive, kafka: KafkaCluster, upkeep: Processes, address: StackAddress, namespace: str
) -> None:
    archive = on_three()
    topic = kafka.create_topic(namespace, [[1, 2, 3]], retention_ms=-1)
    now_ms = int(time.time() * 1000)
    alerts = [
        replace(alert, timestamp_ms=now_ms - (500 * DAY_MS if number < 12 else 0))
        for number, alert in enumerate(plain(topic, 20))
    ]
    publish(archive.source, alerts)
    exhausted(catch_up(archive))
    policy = ("prune", *HERE[2:], "-T", topic, "--older-than", "400d")
    called(upkeep, 4, *policy, "--yes")  # archiving may be at work there
    sql(address, namespace, "UPDATE batches SET created_at = created_at - interval '1 hour'")
    called(upkeep, 0, *policy, "--yes")
    assert [row.offset for row in archive.catalog.rows(topic)] == [*range(12, 20)]
    called(upkeep, 0, "run", *HERE, "--until-caught-up")
    assert [row.offset for row in archive.catalog.rows(topic)] == [*range(12, 20)]
    (pruned,) = [e for e in archive.catalog.ledger([topic]) if e.outcome is Outcome.PRUNED]
    assert (pruned.slice.start, pruned.slice.stop) == (0, 12)
    called(
        upkeep, 0, "verify", *HERE, *SOURCE, "--direction", "objects", "--direction", "ledger", "--grace", "0"
    )


def standing(archive: Archive, topic: str, partitions: int) -> list[Sequence[Message]]:
    """What stands in each partition of a topic, as readers see it."""
    places = [TopicPartition(topic, number) for number in range(partitions)]
    marks = archive.source.watermarks(places)
    found: list[Sequence[Message]] = []
    for at in places:
        with archive.source.reader({at: 0}) as reader:
            found.append(read_until(reader, at, marks[at].stable))
    return found


def test_a_restore_that_is_killed_goes_on_while_leaders_change_and_writes_each_message_once(
    on_three: OpenArchive, kafka: KafkaCluster, upkeep: Processes, namespace: str
) -> None:
    archive = on_three(layout="segment")
    topic, again = namespace, f"{namespace}.again"
    for name in (topic, again):
        kafka.create_topic(name, [[1, 2, 3], [2, 3, 1]], min_insync_replicas=2)
    publish(archive.source, plain(topic, 4_000, partitions=2))
    exhausted(catch_up(archive, [topic]))
    asked = ("restore", *HERE[2:], "--to-source", "here", "-T", topic, "--to-topic", again)
    places = [TopicPartition(again, number) for number in range(2)]

    def there() -> int:
        return sum(mark.high for mark in archive.source.watermarks(places).values())

    with ended(upkeep.start(*asked, "--rate", "500")) as process:
        wait_for(lambda: there() > 500, "some are there")
        process.kill()
        process.wait()
    assert there() < 4_000
    with ended(upkeep.start(*asked, "--rate", "2000", "--json")) as process:
        before = there()
        wait_for(lambda: there() > before, "it goes on")
        kafka.broker(2).kill()
        told, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    kafka.broker(2).start()
    assert json.loads(told)["messages"] == 4_000
    wanted: list[list[Content]] = [[], []]
    for row, message in documents(archive, topic):
        wanted[row.partition or 0].append(content(message))
    assert [[content(m) for m in found] for found in standing(archive, again, 2)] == wanted


def test_times_from_the_first_year_to_the_last_are_archived_and_restored_where_the_target_takes_them(
    on_three: OpenArchive, kafka: KafkaCluster, upkeep: Processes, namespace: str
) -> None:
    archive = on_three()
    everlasting = {"retention_ms": -1, "message_timestamp_after_max_ms": 2**63 - 1}
    topic = kafka.create_topic(namespace, [[1, 2, 3]], **everlasting)
    again = kafka.create_topic(f"{namespace}.again", [[2, 3, 1]], retention_ms=DAY_MS)
    now_ms = int(time.time() * 1000)
    times = [
        now_ms,
        *(
            now_ms + sign * (span + more)
            for span in (2**31, 2**32, 25 * DAY_MS)
            for more in (-1, 0, 1)
            for sign in (-1, 1)
        ),
        1,
        253_402_300_799_999,  # the end of the year 9999
        2**53,
        now_ms,
    ]
    sent = publish(
        archive.source,
        [replace(alert, timestamp_ms=at) for alert, at in zip(plain(topic, len(times)), times, strict=True)],
    )
    exhausted(catch_up(archive, [topic]))
    assert [row.timestamp_ms for row in archive.catalog.rows(topic)] == times
    assert_all_archived(archive, [topic], sent)
    called(upkeep, 0, "verify", *HERE, *SOURCE, "-T", topic)
    asked = ("restore", *HERE[2:], "--to-source", "here", "-T", topic, "--to-topic", again)
    with ended(upkeep.start(*asked)) as process:
        _, errors = process.communicate(timeout=280)
    assert process.returncode == 2
    for name in ("retention.ms", "message.timestamp.after.max.ms"):
        assert name in errors
    before = archive.source.settings([again])[again]
    called(upkeep, 0, *asked, "--set-topic-config")
    assert [m.timestamp_ms for m in standing(archive, again, 1)[0]] == times
    assert archive.source.settings([again])[again] == before
