"""The archive on Apache Kafka itself: transactions, compaction, retention, deletion, whatever the local broker lacks."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import dagster as dg
import pytest
from confluent_kafka import Producer

from hop_archive.archive import Archive
from hop_archive.catalog.records import Outcome, TopicSummary
from hop_archive.devkit.prove import prove
from hop_archive.errors import HopArchiveError, UnavailableError
from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.survey import OVERTAKEN, look, plan_work, survey
from hop_archive.model.findings import Kind
from hop_archive.model.limits import Limits
from hop_archive.model.message import TimestampType, TopicPartition
from hop_archive.model.topics import Layout
from hop_archive.orchestration.overview import nothing_lost
from hop_archive.read.topic_facts import status
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults.real import (
    archiving_on_and_on,
    assert_all_archived,
    assert_first_life_is_accounted_for,
    begin_life,
    create_sample_topics,
    documents,
    plain,
    publish,
    sample_alerts,
)
from hop_archive_tests.integration.test_round_trip import assert_proved, corpus_alerts, published
from hop_archive_tests.invariants import assert_ledger_is_sound
from hop_archive_tests.kafka.broker import ApacheKafka
from hop_archive_tests.kafka.test_broker import Cluster, Offsets
from hop_archive_tests.worlds import exhausted

pytestmark = [pytest.mark.kafka, pytest.mark.local]

SMALL = Limits(batch_messages=50, poll_messages=50)
LITTLE_AT_A_TIME = 64 * 1024
"""Bytes that a reader fetches ahead, so that the broker still has a say in mid-run."""


@pytest.fixture
def cluster(broker: ApacheKafka) -> Cluster:
    return Cluster(broker.bootstrap_servers)


@pytest.fixture
def on_kafka(open_archive: OpenArchive, broker: ApacheKafka) -> Iterator[OpenArchive]:
    """Opens archives of Apache Kafka in the local Postgres and S3."""
    sources: list[KafkaSource] = []

    def make(fetch_bytes: int = 32 * 1024 * 1024, **options: object) -> Archive:
        source = KafkaSource(
            "apache", bootstrap_servers=broker.bootstrap_servers, writable=True, fetch_bytes=fetch_bytes
        )
        sources.append(source)
        return replace(open_archive(**options), source=source)

    yield make
    for source in sources:
        source.close()


def one_topic(archive: Archive, cluster: Cluster, namespace: str, **config: object) -> str:
    return cluster.new_topic(f"{namespace}.{len(archive.source.topics())}", **config)


def summary(archive: Archive, topic: str) -> TopicSummary:
    (found,) = archive.catalog.summaries([topic])
    return found


def lag(archive: Archive, topic: str) -> int | None:
    (found,) = status(archive, [topic]).topics
    return found.lag


def assert_holds(archive: Archive, topic: str, delivered: int) -> None:
    """Kafka delivers so many messages of a topic, and the archive has each, the same, and nothing else."""
    (proof,) = prove(archive, [topic])
    assert proof.holds, proof
    assert proof.delivered == delivered == proof.archived + proof.duplicates
    assert_ledger_is_sound(archive.catalog.ledger([topic]))
    assert lag(archive, topic) == 0


def stands_at(archive: Archive, topic: str, stable: int, high: int) -> Callable[[], bool]:
    """Whether a partition's ends are there; a transaction's marker is written a moment after it was ended."""
    at = TopicPartition(topic, 0)

    def look() -> bool:
        marks = archive.source.watermarks([at])[at]
        return (marks.stable, marks.high) == (stable, high)

    return look


@pytest.mark.parametrize("layout", ["message", "segment"])
def test_sample_alerts_of_every_kind_come_back(on_kafka: OpenArchive, namespace: str, layout: Layout) -> None:
    archive = on_kafka(layout=layout, limits=SMALL)
    topics = create_sample_topics(archive.source, namespace)
    sent = publish(archive.source, sample_alerts(namespace, 400))
    exhausted(catch_up(archive))
    assert_all_archived(archive, topics, sent)
    for proof in prove(archive, topics, sent):
        assert proof.holds, proof


def test_each_file_of_the_corpus_comes_back_byte_for_byte(
    on_kafka: OpenArchive, namespace: str, corpus: Path
) -> None:
    archive = on_kafka(layout="segment")
    archive.source.create_topic(namespace, 2)
    sent = published(archive, list(corpus_alerts(corpus, namespace)))
    exhausted(catch_up(archive))
    assert_proved(archive, [namespace], sent)


def test_what_was_aborted_is_absent_and_a_tail_of_markers_counts_as_caught_up(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster
) -> None:
    archive = on_kafka()
    topic = one_topic(archive, cluster, namespace)
    cluster.publish(topic, 3)
    cluster.commit(topic, 4)
    cluster.abort(topic, 5)
    cluster.abort(topic, 1)
    wait_for(stands_at(archive, topic, 3 + 5 + 6 + 2, 16), "the markers are there")
    exhausted(catch_up(archive))
    assert (summary(archive, topic).messages, summary(archive, topic).absent) == (7, 9)
    assert_holds(archive, topic, delivered=7)


def test_a_run_on_and_on_takes_in_markers_for_which_nothing_comes(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster
) -> None:
    archive, watching = on_kafka(), on_kafka()
    topic = one_topic(archive, cluster, namespace)
    with archiving_on_and_on(archive, [topic]):
        cluster.commit(topic, 2)
        wait_for(lambda: summary_or_none(watching, topic) == (2, 1), "a committed transaction")
        cluster.abort(topic, 4)
        wait_for(lambda: summary_or_none(watching, topic) == (2, 6), "an aborted one")
    assert_holds(watching, topic, delivered=2)


def summary_or_none(archive: Archive, topic: str) -> tuple[int, int] | None:
    found = archive.catalog.summaries([topic])
    return (found[0].messages, found[0].absent) if found else None


@pytest.mark.parametrize("commits", [True, False])
def test_a_hanging_transaction_holds_the_archive_back_until_it_ends(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster, commits: bool
) -> None:
    archive = on_kafka()
    topic = one_topic(archive, cluster, namespace)
    cluster.publish(topic, 2)
    hanging: Producer = cluster.open_transaction(topic, 3)
    cluster.publish(topic, 4)
    exhausted(catch_up(archive))
    assert (summary(archive, topic).messages, summary(archive, topic).absent) == (2, 0)
    (known,) = survey(archive, [topic]).knowledge.values()
    assert (known.watermarks.stable, known.watermarks.high) == (2, 9)
    if commits:
        hanging.commit_transaction(30)
    else:
        hanging.abort_transaction(30)
    wait_for(stands_at(archive, topic, 10, 10), "the marker is there")
    assert lag(archive, topic) == 8
    exhausted(catch_up(archive))
    expected = (9, 1) if commits else (6, 4)
    assert (summary(archive, topic).messages, summary(archive, topic).absent) == expected
    assert_holds(archive, topic, delivered=expected[0])


def test_what_compaction_removed_is_absent_and_the_rest_comes_back(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster
) -> None:
    archive = on_kafka()
    topic = one_topic(
        archive,
        cluster,
        namespace,
        cleanup_policy="compact",
        segment_ms=100,
        min_cleanable_dirty_ratio=0.0,
        max_compaction_lag_ms=100,
    )
    for number in range(20):
        assert cluster.publish_one(topic, b"%d" % number, key="ab"[number % 2]) is None

    def is_compacted() -> bool:
        # Only closed segments are compacted, and a message opens a new one.
        assert cluster.publish_one(topic, b"", key=os.urandom(8).hex()) is None
        return cluster.read(topic).offsets[:2] == [18, 19]

    wait_for(is_compacted, "compaction has removed all but the last of each key")
    exhausted(catch_up(archive))
    assert summary(archive, topic).absent == 18
    assert summary(archive, topic).lost == 0
    assert_holds(archive, topic, delivered=summary(archive, topic).messages)


def test_records_deleted_before_they_were_archived_are_lost_once_and_the_check_is_red(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster
) -> None:
    archive = on_kafka(limits=SMALL)
    topic = one_topic(archive, cluster, namespace)
    cluster.publish(topic, 60)
    exhausted(catch_up(archive))
    assert check(archive).passed
    cluster.publish(topic, 100)
    cluster.delete_records_before(topic, 90)
    for _ in range(2):
        exhausted(catch_up(archive))
        lost = [e for e in archive.catalog.ledger([topic]) if e.outcome is Outcome.LOST]
        assert [(e.slice.start, e.slice.stop, e.reason) for e in lost] == [(60, 90, OVERTAKEN)]
    assert not check(archive).passed
    assert check(archive).severity is dg.AssetCheckSeverity.ERROR
    assert check(archive).metadata["lost_offsets"].value == 30
    assert summary(archive, topic).messages == 60 + 70
    assert_holds(archive, topic, delivered=70)


def test_what_retention_removes_before_it_was_archived_is_lost_once_and_archiving_goes_on(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster
) -> None:
    archive = on_kafka(limits=SMALL)
    topic = one_topic(archive, cluster, namespace, segment_ms=100)
    cluster.publish(topic, 10)
    exhausted(catch_up(archive))
    assert check(archive).passed
    archive.source.change_settings(topic, {"retention.ms": "100"})
    cluster.publish(topic, 30)
    wait_for(lambda: cluster.offsets(topic) == Offsets(40, 40, 40), "retention has removed all of them")
    for _ in range(2):
        exhausted(catch_up(archive))
        lost = [e for e in archive.catalog.ledger([topic]) if e.outcome is Outcome.LOST]
        assert [(e.slice.start, e.slice.stop, e.reason) for e in lost] == [(10, 40, OVERTAKEN)]
    assert not check(archive).passed
    assert check(archive).metadata["lost_offsets"].value == 30
    archive.source.change_settings(topic, {"retention.ms": "3600000"})
    cluster.publish(topic, 20)
    exhausted(catch_up(archive))
    assert (summary(archive, topic).messages, summary(archive, topic).lost) == (30, 30)
    assert_holds(archive, topic, delivered=20)


def check(archive: Archive) -> dg.AssetCheckResult:
    return cast("dg.AssetCheckResult", nothing_lost(archive))


def test_records_deleted_in_mid_run_are_archived_or_lost_and_archiving_goes_on(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster
) -> None:
    archive = on_kafka(limits=SMALL, fetch_bytes=LITTLE_AT_A_TIME)
    topic = one_topic(archive, cluster, namespace)
    for seed in range(40):  # a batch of records is fetched whole
        publish(archive.source, plain(topic, 25, size_bytes=1_000, seed=seed))
    steps = catch_up(archive)
    next(steps)
    cluster.delete_records_before(topic, 900)
    exhausted(steps)
    exhausted(catch_up(archive))
    found = summary(archive, topic)
    assert found.messages + found.lost == 1_000
    assert found.absent == 0
    assert found.lost > 100, "it came too late to matter"
    assert_holds(archive, topic, delivered=100)


def test_a_topic_made_anew_in_mid_run_is_a_generation_of_its_own_and_both_are_accounted_for(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster
) -> None:
    archive = on_kafka(limits=SMALL)
    first = begin_life(archive, namespace, seed=1)
    steps = catch_up(archive)
    next(steps)
    for topic in first.topics:
        cluster.delete(topic)
    wait_for(lambda: not archive.source.topics(first.topics), "the topics are gone")
    second = begin_life(on_kafka(), namespace, seed=2, count=600)
    exhausted(steps)
    exhausted(catch_up(archive))
    kept = assert_first_life_is_accounted_for(archive, first)
    assert 0 < kept < len(first.sent)
    assert_all_archived(archive, second.topics, second.sent)


def test_a_topic_made_anew_while_it_is_followed_is_archived_in_both_lives(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster
) -> None:
    archive, watching = on_kafka(limits=SMALL), on_kafka()
    first = begin_life(watching, namespace, seed=1)
    with archiving_on_and_on(archive, first.topics):
        wait_for(lambda: not survey(watching, first.topics).pending(), "the first life is archived")
        for topic in first.topics:
            cluster.delete(topic)
        wait_for(lambda: not watching.source.topics(first.topics), "the topics are gone")
        second = begin_life(watching, namespace, seed=2, count=600)
        wait_for(lambda: not survey(watching, first.topics).pending(), "the second life is archived")
    assert assert_first_life_is_accounted_for(watching, first) == len(first.sent)
    assert_all_archived(watching, second.topics, second.sent)


def test_the_time_of_appending_is_kept_as_such(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster
) -> None:
    archive = on_kafka()
    topic = one_topic(archive, cluster, namespace, message_timestamp_type="LogAppendTime")
    for number in range(5):
        assert cluster.publish_one(topic, b"%d" % number, timestamp=5) is None
    exhausted(catch_up(archive))
    for row, message in documents(archive, topic):
        assert message.timestamp_type is row.timestamp_type is TimestampType.APPEND
        assert message.timestamp_ms == row.timestamp_ms > 5
    assert_holds(archive, topic, delivered=5)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_batches_compressed_by_any_codec_come_back(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster, codec: str
) -> None:
    archive = on_kafka(limits=SMALL)
    topic = one_topic(archive, cluster, namespace)
    cluster.publish(topic, 300, **{"compression.type": codec, "linger.ms": 20})
    exhausted(catch_up(archive))
    assert [message.value for _, message in documents(archive, topic)] == [
        b"value %d" % number for number in range(300)
    ]
    assert_holds(archive, topic, delivered=300)


def test_a_broker_killed_in_mid_run_is_named_and_the_next_run_completes_the_work(
    on_kafka: OpenArchive, namespace: str, own_broker: ApacheKafka
) -> None:
    archive = on_kafka(limits=SMALL, fetch_bytes=LITTLE_AT_A_TIME)
    first = begin_life(archive, namespace, seed=1)
    steps = catch_up(archive)
    next(steps)
    own_broker.kill()
    try:
        with pytest.raises(UnavailableError) as raised:
            exhausted(steps)
    finally:
        own_broker.start()
    assert own_broker.bootstrap_servers in str(raised.value)
    assert isinstance(raised.value, HopArchiveError)
    exhausted(catch_up(archive))
    assert_all_archived(archive, first.topics, first.sent)
    assert {len(found) for found in archive.catalog.generations(first.topics).values()} == {1}


def lose_end(broker: ApacheKafka, topic: str, stop: int) -> None:
    """Kill the broker, cut its log at an offset, and start it again: what power loss leaves of what was not flushed."""
    broker.kill()
    folder = broker.log.parent / "data" / f"{topic}-0"
    segment = folder / f"{0:020}.log"
    stored, at = segment.read_bytes(), 0
    while (
        at < len(stored) and int.from_bytes(stored[at : at + 8]) < stop
    ):  # a batch begins with offset and length
        at += 12 + int.from_bytes(stored[at + 8 : at + 12])
    os.truncate(segment, at)
    for file in folder.iterdir():
        if file.suffix in (".index", ".timeindex", ".snapshot"):
            file.unlink()
    broker.start()


def publish_singly(cluster: Cluster, topic: str, life: str, count: int) -> list[bytes]:
    """Publish messages in batches of one, so that a log can be cut between any two."""
    values = [b"%s %d" % (life.encode(), number) for number in range(count)]
    for value in values:
        assert cluster.publish_one(topic, value) is None
    return values


def assert_both_lives(archive: Archive, topic: str, old: list[bytes], new: list[bytes]) -> None:
    stored = {row.uuid: (row, message) for row, message in documents(archive, topic)}
    places = {(row.generation, row.offset): message.value for row, message in stored.values()}
    for at, copy in archive.catalog.duplicates(topic):
        places[at.generation, copy.offset] = stored[copy.uuid][1].value
    first = {(1, offset): value for offset, value in enumerate(old)}
    second = {(2, offset): value for offset, value in enumerate([*old[:6], *new])}
    assert places == {**first, **second}
    (finding,) = archive.catalog.findings([topic], [Kind.LOG_TRUNCATED])
    assert finding.finding.slice is not None
    assert (finding.finding.slice.generation, finding.finding.slice.stop) == (1, 10)
    assert_holds(archive, topic, delivered=14)
    assert not [e for e in archive.catalog.ledger([topic]) if e.outcome is Outcome.LOST]


def test_a_log_that_lost_its_end_and_grew_past_it_again_is_archived_in_both_lives(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster, own_broker: ApacheKafka
) -> None:
    archive = on_kafka()
    topic = one_topic(archive, cluster, namespace)
    old = publish_singly(cluster, topic, "old", 10)
    exhausted(catch_up(archive))
    lose_end(own_broker, topic, 6)
    new = publish_singly(cluster, topic, "new", 8)
    exhausted(catch_up(archive, [topic]))
    assert_both_lives(archive, topic, old, new)


def test_a_log_that_lost_its_end_while_it_was_followed_is_archived_in_both_lives(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster, own_broker: ApacheKafka
) -> None:
    archive, watching = on_kafka(), on_kafka()
    topic = one_topic(watching, cluster, namespace)
    old = publish_singly(cluster, topic, "old", 10)
    with archiving_on_and_on(archive, [topic]):
        wait_for(lambda: not survey(watching, [topic]).pending(), "the first life is archived")
        lose_end(own_broker, topic, 6)
        new = publish_singly(cluster, topic, "new", 8)
        wait_for(
            lambda: lag(watching, topic) == 0 and not survey(watching, [topic]).unproven(),
            "the second life is archived",
        )
    assert_both_lives(watching, topic, old, new)


def test_a_broker_that_is_only_restarted_loses_nothing_and_begins_no_generation(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster, own_broker: ApacheKafka
) -> None:
    archive, watching = on_kafka(), on_kafka()
    topic = one_topic(watching, cluster, namespace)
    publish_singly(cluster, topic, "old", 10)
    with archiving_on_and_on(archive, [topic]):
        wait_for(lambda: not survey(watching, [topic]).pending(), "what was there is archived")
        own_broker.restart()
        publish_singly(cluster, topic, "new", 8)
        wait_for(lambda: lag(watching, topic) == 0, "what came then is archived")
    assert_holds(watching, topic, delivered=18)
    assert len(watching.catalog.generations([topic])[topic]) == 1
    assert not list(watching.catalog.findings([topic]))


def test_what_a_topic_held_that_was_deleted_for_good_is_told_at_once_and_lost_a_minute_after(
    on_kafka: OpenArchive, namespace: str, cluster: Cluster
) -> None:
    archive = on_kafka(limits=replace(SMALL, run_messages=10))
    topic = one_topic(archive, cluster, namespace)
    cluster.publish(topic, 100)
    plan_work(archive, [topic])
    next(catch_up(archive, [topic]))
    stored = summary(archive, topic).messages
    cluster.delete(topic)
    wait_for(lambda: not archive.source.topics([topic]), "the topic is gone")
    look(archive)
    assert summary(archive, topic).lost == 0
    assert [one.finding.kind for one in archive.catalog.findings([topic])] == [Kind.NOT_SHOWN]
    then = archive.now() + datetime.timedelta(seconds=61)
    look(replace(archive, now=lambda: then))
    assert summary(archive, topic).lost == 100 - stored > 0
    assert not check(archive).passed
