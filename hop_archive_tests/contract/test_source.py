"""The contract of a source, over the mock, Tansu and Apache Kafka alike."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError
from pydantic import SecretStr

from hop_archive.errors import (
    ConfigurationError,
    CorruptError,
    DataError,
    ForbiddenError,
    GenerationChangedError,
    HopArchiveError,
    MissingSettingError,
    OffsetsGoneError,
    UnavailableError,
    UnreadableMessageError,
)
from hop_archive.model.credentials import KafkaAccess
from hop_archive.model.message import ForPartition, Header, Message, Receipt, TimestampType, TopicPartition
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.kafka import publisher
from hop_archive.source.kafka.client import ClientErrors, Connection, NewLoginError
from hop_archive.source.kafka.reader import KafkaReader
from hop_archive.source.kafka.source import TIMEOUT_S, KafkaSource
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive.source.protocol import Reader, Source
from hop_archive_tests.contract.source_fixtures import (
    FAR_FUTURE_MS,
    ApacheBroker,
    Broker,
    KafkaBroker,
    MockBroker,
    Sent,
    TansuBroker,
    needs,
    new_name,
    now_ms,
    read_partition,
    read_until,
    read_until_error,
    strip,
    until,
)

pytest_plugins = ("hop_archive_tests.contract.source_plugin",)

MIB = 1024 * 1024
LOG = logging.getLogger(__name__)
"""Tells what was measured; see it with ``--log-cli-level=info``."""


def values(messages: list[Message]) -> list[bytes | None]:
    return [m.value for m in messages]


# Describing


def test_the_cluster_id_stays_the_same(broker: Broker, source: Source) -> None:
    assert source.cluster_id()
    assert source.cluster_id() == broker.source().cluster_id()


def test_what_may_be_done_with_topics_is_told_or_not_known_and_missing_ones_are_left_out(
    broker: Broker, source: Source
) -> None:
    topic = broker.create_topic()
    found = source.access([topic, f"{topic}.missing"])
    assert found.keys() == {topic}
    assert found[topic] is None if broker.name == "Tansu" else {"read", "write"} <= (found[topic] or set())
    assert source.access([]) == {}


def test_what_may_be_done_with_the_own_group_is_told_or_not_known(broker: Broker, source: Source) -> None:
    source.note_progress({TopicPartition(broker.create_topic(), 0): 0})
    if broker.name == "Tansu":
        assert source.group_access() is None
    else:
        until(lambda: "read" in (source.group_access() or ()), "the group's coordinator knows it")


def test_topics_are_told_with_ids_that_differ_and_partition_counts(broker: Broker, source: Source) -> None:
    one, three = broker.create_topic(), broker.create_topic(3)
    found = source.topics([one, three])
    assert {name: info.partitions for name, info in found.items()} == {one: 1, three: 3}
    assert {info.name for info in found.values()} == {one, three}
    assert found[one].topic_id
    assert found[one].topic_id != found[three].topic_id
    assert {one, three} <= source.topics().keys()


def test_a_topic_name_is_literal_and_one_that_does_not_exist_is_left_out(
    broker: Broker, source: Source
) -> None:
    topic = broker.create_topic()
    like_it = topic.replace(".", "x")
    assert source.topics([topic, like_it, "^test.*", ""]).keys() == {topic}
    assert source.topics([]) == {}
    asked = [TopicPartition(topic, 0), TopicPartition(topic, 1), TopicPartition(like_it, 0)]
    assert source.watermarks(asked).keys() == {TopicPartition(topic, 0)}
    assert source.watermarks([]) == {}


def test_watermarks_follow_what_is_published(broker: Broker, source: Source) -> None:
    topic = broker.create_topic(2)
    at, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    assert source.watermarks([at, other]) == {at: Watermarks(0, 0, 0), other: Watermarks(0, 0, 0)}
    source.publish([Sent(topic)] * 3)
    assert source.watermarks([at, other]) == {at: Watermarks(0, 3, 3), other: Watermarks(0, 0, 0)}


@pytest.mark.slow
def test_watermarks_tell_the_cluster_that_they_are_of(broker: Broker, source: Source) -> None:
    at = TopicPartition(broker.create_topic(), 0)
    assert source.watermarks([at]).cluster_id == source.cluster_id()


def test_watermarks_of_a_thousand_partitions(broker: Broker, source: Source) -> None:
    topic = broker.create_topic(1000)
    source.publish([Sent(topic, partition=999)])
    partitions = [TopicPartition(topic, number) for number in range(1000)]
    began = time.perf_counter()
    marks = source.watermarks(partitions)
    taken_s = time.perf_counter() - began
    broker.delete_topic(topic)
    LOG.info("%s: watermarks of 1,000 partitions in %.3f s", broker.name, taken_s)
    assert len(marks) == 1000
    assert marks[partitions[999]] == Watermarks(0, 1, 1)
    assert marks[partitions[0]] == Watermarks(0, 0, 0)


def test_creating_a_topic_that_exists_leaves_it_as_it_is(source: Source) -> None:
    topic = new_name()
    source.create_topic(topic, 2)
    before = source.topics([topic])
    source.create_topic(topic, 5)
    assert source.topics([topic]) == before


# Verbatim

ODD: dict[str, tuple[bytes | None, bytes | None, tuple[Header, ...], int]] = {
    "a null value and no key": (None, None, (), 1),
    "an empty value and an empty key": (b"", b"", (), 1),
    "a null value and an empty key": (b"", None, (), 1),
    "an empty value and no key": (None, b"", (), 1),
    "any bytes": (bytes(range(256)), bytes(range(255, -1, -1)), (), 1),
    "null and empty header values": (b"k", b"v", (("a", None), ("a", b""), ("a", b"\0")), 1),
    "repeated header names in order": (b"k", b"v", (("b", b"1"), ("a", b"2"), ("b", b"1")), 1),
    "an empty and a foreign header name": (b"k", b"v", (("", b"x"), ("é𝄞\u200b", b"\xff")), 1),
    "a hundred headers": (b"k", b"v", tuple((f"h{n}", bytes([n])) for n in range(100)), 1),
    "no timestamp": (b"k", b"v", (), -1),
    "a timestamp before 1970": (b"k", b"v", (), -86_400_000),
    "the present": (b"k", b"v", (), now_ms()),
    "the far future": (b"k", b"v", (), FAR_FUTURE_MS),
}


@pytest.mark.parametrize("name", ODD)
def test_a_published_message_comes_back_as_it_was_sent(broker: Broker, source: Source, name: str) -> None:
    key, value, headers, timestamp_ms = ODD[name]
    topic = broker.create_topic()
    source.publish([Sent(topic, value, key, headers, timestamp_ms)])
    (message,) = read_partition(source, topic, 1)
    assert strip([message]) == [(key, value, headers, timestamp_ms)]
    assert (message.topic, message.partition, message.offset) == (topic, 0, 0)
    assert message.timestamp_type is TimestampType.CREATE


def test_a_message_with_timestamp_zero_is_read_as_it_is(broker: Broker, source: Source) -> None:
    topic = broker.create_topic()
    broker.append(Sent(topic, timestamp_ms=0))
    (message,) = read_partition(source, topic, 1)
    assert (message.timestamp_ms, message.timestamp_type) == (0, TimestampType.CREATE)


def test_the_brokers_time_is_told_from_the_producers(broker: Broker, source: Source) -> None:
    needs(broker, "append time")
    topic = broker.create_topic(config={"message.timestamp.type": "LogAppendTime"})
    before = now_ms()
    source.publish([Sent(topic, timestamp_ms=1)])
    (message,) = read_partition(source, topic, 1)
    assert message.timestamp_type is TimestampType.APPEND
    assert before <= message.timestamp_ms <= now_ms()


def test_a_message_without_a_timestamp_gets_the_time_of_sending(broker: Broker, source: Source) -> None:
    topic = broker.create_topic()
    before = now_ms()
    source.publish([Sent(topic, timestamp_ms=None)])
    (message,) = read_partition(source, topic, 1)
    assert before <= message.timestamp_ms <= now_ms()


def test_a_value_of_20_mb_passes_where_the_topic_allows_it(broker: Broker, source: Source) -> None:
    topic = broker.create_topic(config={"max.message.bytes": str(21 * MIB)})
    value = os.urandom(MIB) * 20
    source.publish([Sent(topic, b"before"), Sent(topic, value), Sent(topic, b"after")])
    read = read_partition(source, topic, 3)
    assert len(read) == 3
    assert read[1].value == value


def test_a_value_that_the_topic_does_not_take_is_a_matter_of_configuration(
    broker: Broker, source: Source
) -> None:
    if isinstance(broker, TansuBroker):
        pytest.skip("Tansu 0.6 takes any size")
    topic = broker.create_topic(config={"max.message.bytes": "2000"})
    with pytest.raises(ConfigurationError):
        source.publish([Sent(topic, bytes(10_000))])
    assert source.publish([Sent(topic, b"small")]) == [Receipt(topic, 0, 0)]


def test_a_message_that_the_client_cannot_represent_is_an_error_that_names_it(
    broker: Broker, source: Source
) -> None:
    needs(broker, "unreadable names")
    topic = broker.create_topic()
    at = TopicPartition(topic, 0)
    # So many that Python has optimized the reader's loop: confluent-kafka's error is overlooked by that.
    source.publish(Sent(topic, headers=(("good", b""),)) for _ in range(1000))
    broker.append(Sent(topic, headers=(("not UTF-8: \udcff", b""),)))
    broker.append(Sent(topic, headers=(("good again", b""),)))
    with source.reader({at: 0}) as reader:
        read, error = read_until_error(reader)
        assert isinstance(error, UnreadableMessageError)
        assert (error.facts["topic"], error.facts["partition"], error.facts["offset"]) == (topic, 0, 1000)
        assert len(read) == reader.position(at) == 1000
        reader.add({at: 1001})
        assert [m.headers for m in read_until(reader, at, 1002)] == [(("good again", b""),)]


# Publishing


def test_receipts_tell_where_each_message_stands_in_the_order_given(broker: Broker, source: Source) -> None:
    topic, other = broker.create_topic(2), broker.create_topic()
    sent = [Sent(topic, partition=1), Sent(other), Sent(topic, partition=0), Sent(topic, partition=1)]
    receipts = source.publish(iter(sent))
    assert receipts == [
        Receipt(topic, 1, 0),
        Receipt(other, 0, 0),
        Receipt(topic, 0, 0),
        Receipt(topic, 1, 1),
    ]
    assert source.publish([]) == []


def test_what_is_appended_in_bulk_stands_as_it_was_given_where_the_offsets_say(
    broker: Broker, source: Source
) -> None:
    topic, called = broker.create_topic(3), list[str]()
    headers: list[Header] = [("a", b"1"), ("a", None), ("", b"")]
    sent = [
        ForPartition(n % 2, None if n % 3 else b"", str(n).encode(), headers, 1_000 + n) for n in range(3000)
    ]
    sent.append(ForPartition(2, b"key", None, [], -1))
    offsets = source.append(topic, iter(sent), lambda: called.append("meanwhile"))
    assert {partition: list(found) for partition, found in offsets.items()} == {
        0: [*range(1500)],
        1: [*range(1500)],
        2: [0],
    }
    assert called == ["meanwhile"]
    assert list(source.append(topic, sent[:1])[0]) == [1500]
    for partition in range(3):
        at = TopicPartition(topic, partition)
        wanted = [m for m in (*sent, sent[0]) if m.partition == partition]
        with source.reader({at: 0}) as reader:
            read = read_until(reader, at, len(wanted))
        assert [(m.key, m.value, [*m.headers]) for m in read] == [(m.key, m.value, m.headers) for m in wanted]
        if partition < 2:
            assert [m.timestamp_ms for m in read] == [m.timestamp_ms for m in wanted]
    assert source.append(topic, []) == {}


def test_what_cannot_be_appended_is_refused_as_if_it_was_published(broker: Broker, source: Source) -> None:
    topic = broker.create_topic()
    good = ForPartition(0, None, b"", [("good", b"")], 1)
    for bad in (good._replace(timestamp_ms=0), good._replace(headers=[("good", b""), ("a\0b", b"")])):
        with pytest.raises(DataError, match="can't be published as it is"):
            source.append(topic, [bad])
    with pytest.raises(MissingSettingError, match="no 7"):
        source.append(topic, [good._replace(partition=7)])
    with pytest.raises(MissingSettingError):
        source.append(new_name(), [good])
    with pytest.raises(ForbiddenError, match="not writable"):
        broker.source(writable=False).append(topic, [good])
    with pytest.raises(ConnectionResetError):
        source.append(topic, [good], raising(ConnectionResetError))
    assert source.watermarks([TopicPartition(topic, 0)])[TopicPartition(topic, 0)].high <= 1


@pytest.mark.parametrize("refused", [0, 100])
def test_nothing_stands_behind_a_message_that_is_refused_while_others_are_on_their_way(
    broker: Broker, source: Source, refused: int, caplog: pytest.LogCaptureFixture
) -> None:
    needs(broker, "checking settings")
    topic = broker.create_topic(config={"message.timestamp.before.max.ms": "604800000"})
    now = now_ms()  # five to a batch, and many batches on their way at once
    sent = [ForPartition(0, b"%d" % n, bytes(200_000), [], now) for n in range(250)]
    sent[refused] = sent[refused]._replace(timestamp_ms=1)
    with pytest.raises(ConfigurationError, match=r"(?i)timestamp"):
        source.append(topic, sent)
    source.publish([Sent(topic, key=b"the end", timestamp_ms=now)])
    at = TopicPartition(topic, 0)
    stand = [m.key for m in read_partition(source, topic, source.watermarks([at])[at].stable)]
    assert stand == [*(m.key for m in sent[: len(stand) - 1]), b"the end"]
    assert len(stand) - 1 <= refused
    assert "gap" not in caplog.text.lower()


def test_what_is_not_acknowledged_for_too_long_is_given_up(
    mortal: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "DELIVERY_TIMEOUT_S", 1.0)
    topic = mortal.create_topic()

    def messages() -> Iterator[ForPartition]:
        yield ForPartition(0, None, b"it answers", [], now_ms())
        mortal.stop()
        for number in range(3):
            yield ForPartition(0, None, b"%d" % number, [], now_ms())

    with closing(mortal.source()) as source, pytest.raises(UnavailableError):
        source.append(topic, messages())


def raising(error: type[Exception]) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_messages_with_the_same_key_go_to_one_partition_when_none_is_named(
    broker: Broker, source: Source
) -> None:
    topic = broker.create_topic(8)
    receipts = source.publish(Sent(topic, key=b"one key", partition=None) for _ in range(10))
    assert len({receipt.partition for receipt in receipts}) == 1
    assert len(source.publish([Sent(topic, key=None, partition=None)])) == 1


def test_the_order_of_each_partition_is_kept(broker: Broker, source: Source) -> None:
    topic = broker.create_topic(2)
    source.publish(Sent(topic, str(n).encode(), partition=n % 2) for n in range(1000))
    starts = {TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0}
    with source.reader(starts) as reader:
        read = [m for at in starts for m in read_until(reader, at, 500)]
    for number in (0, 1):
        numbers = [int(m.value or b"") for m in read if m.partition == number]
        assert numbers == list(range(number, 1000, 2))


def test_an_unwritable_source_refuses_before_it_connects(broker: Broker) -> None:
    topic = broker.create_topic()
    source = broker.source(writable=False)
    with pytest.raises(ForbiddenError, match="not writable"):
        source.publish([Sent(topic)])
    with pytest.raises(ForbiddenError, match="not writable"):
        source.create_topic(new_name())
    assert source.watermarks([TopicPartition(topic, 0)])[TopicPartition(topic, 0)].high == 0


def test_an_unwritable_source_that_nobody_answers_refuses_at_once() -> None:
    source = KafkaSource("nowhere", bootstrap_servers="127.0.0.1:9")
    with pytest.raises(ForbiddenError, match="not writable"):
        source.publish([Sent("topic")])


def test_publishing_to_a_topic_or_partition_that_is_not_there_creates_nothing(
    broker: Broker, source: Source
) -> None:
    name, topic = new_name(), broker.create_topic()
    with pytest.raises(MissingSettingError, match=name):
        source.publish([Sent(name)])
    with pytest.raises(MissingSettingError, match="no 7"):
        source.publish([Sent(topic, partition=7)])
    assert source.topics([name]) == {}


@pytest.mark.parametrize(
    "message",
    [Sent("", timestamp_ms=0), Sent("", headers=(("a\0b", b""),)), Sent("", headers=(("\ud800", b""),))],
    ids=["timestamp 0", "NUL in a header name", "a lone surrogate in a header name"],
)
def test_what_could_only_be_sent_altered_is_refused(broker: Broker, source: Source, message: Sent) -> None:
    topic = broker.create_topic()
    unsendable = Sent(topic, headers=message.headers, timestamp_ms=message.timestamp_ms)
    with pytest.raises(DataError, match="can't be published as it is"):
        source.publish([unsendable])
    assert source.watermarks([TopicPartition(topic, 0)])[TopicPartition(topic, 0)].high == 0


# Reading


def test_a_reader_starts_at_the_offset_asked_for(broker: Broker, source: Source) -> None:
    topic = broker.create_topic()
    source.publish(Sent(topic, str(n).encode()) for n in range(5))
    delivered = source.delivered
    assert [m.offset for m in read_partition(source, topic, 5, start=3)] == [3, 4]
    assert source.delivered - delivered == 2, "who shows how far reading is looks there"
    assert read_partition(source, topic, 5, start=5) == []


def test_one_poll_gives_no_more_messages_than_asked_for_and_loses_none(
    broker: Broker, source: Source
) -> None:
    topic = broker.create_topic()
    source.publish(Sent(topic, str(n).encode()) for n in range(50))
    at = TopicPartition(topic, 0)
    sizes, offsets = [], []
    with source.reader({at: 0}) as reader:
        while reader.position(at) < 50:
            polled = reader.poll(7, 0.1)
            sizes.append(len(polled))
            offsets += [m.offset for m in polled]
    assert max(sizes) <= 7
    assert offsets == list(range(50))


def test_an_empty_poll_at_the_end_is_not_an_error_and_reading_goes_on(broker: Broker, source: Source) -> None:
    topic = broker.create_topic()
    at = TopicPartition(topic, 0)
    with source.reader({at: 0}) as reader:
        assert reader.poll(10, 0.1) == []
        assert reader.position(at) == 0
        source.publish([Sent(topic, b"late")])
        assert values(read_until(reader, at, 1)) == [b"late"]


def test_many_partitions_in_one_reader_are_all_read(broker: Broker, source: Source) -> None:
    topic = broker.create_topic(40)
    source.publish(Sent(topic, str(n).encode(), partition=n % 40) for n in range(400))
    starts = {TopicPartition(topic, number): 5 for number in range(40)}
    read: list[Message] = []
    with source.reader(starts) as reader:
        for at in starts:
            read += read_until(reader, at, 10)
    offsets = {at: [m.offset for m in read if m.topic_partition == at] for at in starts}
    assert offsets == {at: [5, 6, 7, 8, 9] for at in starts}


def test_two_readers_of_one_source_do_not_disturb_each_other(broker: Broker, source: Source) -> None:
    topic = broker.create_topic()
    source.publish(Sent(topic, str(n).encode()) for n in range(10))
    at = TopicPartition(topic, 0)
    with source.reader({at: 0}) as one, source.reader({at: 5}) as other:
        assert [m.offset for m in read_until(other, at, 10)] == [5, 6, 7, 8, 9]
        assert [m.offset for m in read_until(one, at, 10)] == list(range(10))


def test_partitions_are_added_and_released_while_others_are_read(broker: Broker, source: Source) -> None:
    topics = [broker.create_topic() for _ in range(3)]
    one, two, three = (TopicPartition(topic, 0) for topic in topics)
    source.publish(Sent(topic, str(n).encode()) for n in range(4) for topic in topics)
    with source.reader({one: 0, two: 0}) as reader:
        read_until(reader, one, 4)
        read_until(reader, two, 4)
        reader.release([two, TopicPartition("never.added", 0)])
        reader.add({three: 2})
        source.publish([Sent(topic, b"more") for topic in topics])
        read = read_until(reader, three, 5) + read_until(reader, one, 5)
        read += reader.poll(100, 0.3)
    assert sorted((m.topic_partition, m.offset) for m in read) == sorted(
        [(one, 4), (three, 2), (three, 3), (three, 4)]
    )


def test_a_partition_that_is_added_again_starts_anew_from_there(broker: Broker, source: Source) -> None:
    topic = broker.create_topic()
    source.publish(Sent(topic, str(n).encode()) for n in range(100))
    at = TopicPartition(topic, 0)
    with source.reader({at: 50}) as reader:
        assert reader.poll(1, 10.0)[0].offset == 50  # the rest is fetched by now, and to be forgotten
        for start in (20, 80, 0):
            reader.add({at: start})
            assert reader.position(at) == start
            assert [m.offset for m in read_until(reader, at, 100)] == list(range(start, 100))


def test_what_was_fetched_of_a_released_partition_is_dropped(broker: Broker, source: Source) -> None:
    topic = broker.create_topic()
    source.publish(Sent(topic, str(n).encode()) for n in range(100))
    at = TopicPartition(topic, 0)
    with source.reader({at: 0}) as reader:
        assert len(reader.poll(1, 10.0)) == 1
        reader.release([at])
        assert reader.poll(100, 0.3) == []
        assert reader.position(at) == 1


# What is absent


def test_the_position_passes_over_a_trailing_marker(broker: Broker, source: Source) -> None:
    needs(broker, "transactions")
    topic = broker.create_topic()
    broker.open_transaction(topic, [b"a", b"b"]).commit()
    at = TopicPartition(topic, 0)
    assert source.watermarks([at])[at] == Watermarks(0, 3, 3)
    assert values(read_partition(source, topic, 3)) == [b"a", b"b"]


def test_aborted_messages_are_not_read_and_the_position_passes_over_them(
    broker: Broker, source: Source
) -> None:
    needs(broker, "transactions")
    topic = broker.create_topic()
    source.publish([Sent(topic, b"first")])
    broker.open_transaction(topic, [b"never", b"seen"]).abort()
    source.publish([Sent(topic, b"last")])
    broker.open_transaction(topic, [b"never seen either"]).abort()
    at = TopicPartition(topic, 0)
    assert source.watermarks([at])[at] == Watermarks(0, 7, 7)
    assert [(m.offset, m.value) for m in read_partition(source, topic, 7)] == [(0, b"first"), (4, b"last")]
    assert values(read_partition(source, topic, 7, start=2)) == [b"last"]
    assert read_partition(source, topic, 7, start=5) == []


def test_an_open_transaction_holds_readers_back_until_it_ends(broker: Broker, source: Source) -> None:
    needs(broker, "transactions")
    topic = broker.create_topic()
    source.publish([Sent(topic, b"before")])
    transaction = broker.open_transaction(topic, [b"within"])
    source.publish([Sent(topic, b"after")])
    at = TopicPartition(topic, 0)
    assert source.watermarks([at])[at] == Watermarks(0, 1, 3)
    with source.reader({at: 0}) as reader:
        assert values(read_until(reader, at, 1)) == [b"before"]
        assert reader.poll(10, 0.5) == []
        assert reader.position(at) == 1
        transaction.commit()
        assert values(read_until(reader, at, 4)) == [b"within", b"after"]


def test_the_position_passes_over_compacted_offsets(broker: Broker, source: Source) -> None:
    needs(broker, "compaction")
    topic = broker.topic_without_first()
    at = TopicPartition(topic, 0)
    stable = source.watermarks([at])[at].stable
    assert [m.offset for m in read_partition(source, topic, stable)][:2] == [1, 2]


# What is gone


def test_offsets_below_the_low_watermark_are_an_error_and_other_partitions_go_on(
    broker: Broker, source: Source
) -> None:
    needs(broker, "delete records")
    gone, whole = broker.create_topic(), broker.create_topic()
    source.publish(Sent(topic, str(n).encode()) for n in range(6) for topic in (gone, whole))
    broker.delete_records(gone, 4)
    here, there = TopicPartition(gone, 0), TopicPartition(whole, 0)
    assert source.watermarks([here])[here] == Watermarks(4, 6, 6)
    with source.reader({here: 1, there: 0}) as reader:
        read, error = read_until_error(reader)
        read += read_until(reader, there, 6)
        assert isinstance(error, OffsetsGoneError)
        assert (error.facts["topic"], error.facts["partition"], error.facts["offset"]) == (gone, 0, 1)
        assert [m.offset for m in read if m.topic == whole] == list(range(6))
        assert [m for m in read if m.topic == gone] == []
        reader.add({here: 4})
        assert [m.offset for m in read_until(reader, here, 6)] == [4, 5]


def test_retention_that_overtakes_a_read_is_an_error_after_what_was_still_to_be_had(
    broker: Broker, source: Source
) -> None:
    needs(broker, "delete records")
    topic = broker.create_topic()
    at = TopicPartition(topic, 0)
    source.publish(Sent(topic, str(n).encode()) for n in range(3))
    with source.reader({at: 0}) as reader:
        read = read_until(reader, at, 3)
        stop = _overtake(broker, source, topic)
        more, error = read_until_error(reader) if stop else ([], None)
    offsets = [m.offset for m in read + more]
    assert isinstance(error, OffsetsGoneError)
    # Some may have been fetched before they were deleted; none is skipped, none comes twice.
    assert offsets == list(range(len(offsets)))
    assert error.facts["offset"] == len(offsets)
    assert len(offsets) < stop


def _overtake(broker: Broker, source: Source, topic: str) -> int:
    """Publish more than a reader fetches ahead, and delete it; return where the partition begins now."""
    if isinstance(broker, MockBroker):
        source.publish(Sent(topic) for _ in range(10))
    else:
        source.publish(Sent(topic, bytes(MIB // 2), timestamp_ms=now_ms()) for _ in range(200))
    stop = source.watermarks([TopicPartition(topic, 0)])[TopicPartition(topic, 0)].high
    broker.delete_records(topic, stop)
    return stop


# Generations


def test_a_topic_made_anew_has_another_id_and_starts_at_zero(broker: Broker, source: Source) -> None:
    topic = broker.create_topic()
    at = TopicPartition(topic, 0)
    source.publish([Sent(topic)])
    before = source.topics([topic])[topic].topic_id
    broker.make_anew(topic)
    assert source.topics([topic])[topic].topic_id not in (before, None)
    assert source.watermarks([at])[at] == Watermarks(0, 0, 0)


def test_a_topic_that_is_deleted_under_a_reader_is_noticed_and_others_go_on(
    broker: Broker, source: Source
) -> None:
    needs(broker, "deletion under a reader")
    doomed, other = broker.create_topic(2), broker.create_topic()
    starts = {TopicPartition(doomed, 0): 0, TopicPartition(doomed, 1): 0, TopicPartition(other, 0): 0}
    source.publish([Sent(doomed), Sent(other)])
    with source.reader(starts) as reader:
        read_until(reader, TopicPartition(doomed, 0), 1)
        broker.delete_topic(doomed)
        _, error = read_until_error(reader)
        assert isinstance(error, GenerationChangedError)
        assert (error.facts["topic"], error.facts["partitions"]) == (doomed, [0, 1])
        source.publish([Sent(other, b"more")])
        read_until(reader, TopicPartition(other, 0), 2)


@pytest.mark.parametrize("count", [1, 5], ids=["shorter than before", "longer than before"])
def test_nothing_of_a_topic_made_anew_is_read_as_if_it_were_the_old_one(
    broker: Broker, source: Source, count: int
) -> None:
    needs(broker, "deletion under a reader")
    topic = broker.create_topic()
    at = TopicPartition(topic, 0)
    source.publish(Sent(topic, b"old") for _ in range(3))
    with source.reader({at: 0}) as reader:
        read = read_until(reader, at, 3)
        broker.make_anew(topic)
        source.publish(Sent(topic, b"new") for _ in range(count))
        more, error = read_until_error(reader)
        assert isinstance(error, GenerationChangedError)
        assert values(read + more) == [b"old"] * 3
        assert reader.position(at) == 3
        reader.add({at: 0})
        assert values(read_until(reader, at, count)) == [b"new"] * count


def test_a_topic_made_anew_is_noticed_though_its_only_partition_is_begun_anew_meanwhile(
    broker: Broker, source: Source
) -> None:
    """As where one slice of a partition is read to its end, and the next one begins."""
    needs(broker, "deletion under a reader")
    topic = broker.create_topic()
    at = TopicPartition(topic, 0)
    source.publish(Sent(topic, b"old") for _ in range(3))
    with source.reader({at: 0}) as reader:
        read_until(reader, at, 3)
        broker.make_anew(topic)
        source.publish(Sent(topic, b"new") for _ in range(5))
        reader.add({at: 1})
        more, error = read_until_error(reader)
    assert isinstance(error, GenerationChangedError)
    assert not more


@pytest.mark.kafka
def test_a_reader_that_is_led_into_a_new_topic_hands_out_nothing_of_it(apache: ApacheBroker) -> None:
    topic = apache.create_topic()
    at = TopicPartition(topic, 0)
    with apache.open() as source, source.reader({at: 0}) as reader:
        source.publish(Sent(topic, b"old") for _ in range(3))
        read = read_until(reader, at, 3)
        # Paused, librdkafka never sees the new topic shorter than the old one, and reads on at offset 3.
        assert isinstance(reader, KafkaReader)
        consumer: Any = reader._consumer
        consumer.pause(consumer.assignment())
        apache.make_anew(topic)
        source.publish(Sent(topic, b"new") for _ in range(6))
        consumer.resume(consumer.assignment())
        more, error = read_until_error(reader)
        assert isinstance(error, GenerationChangedError)
        assert values(read + more) == [b"old"] * 3
        assert reader.position(at) == 3


def test_an_offset_beyond_the_end_means_that_the_topic_is_another_one(broker: Broker, source: Source) -> None:
    needs(broker, "range check")
    topic = broker.create_topic()
    source.publish([Sent(topic)])
    with source.reader({TopicPartition(topic, 0): 5}) as reader:
        _, error = read_until_error(reader)
    assert isinstance(error, GenerationChangedError)


def test_a_partition_that_is_not_there_means_that_the_topic_is_another_one(
    broker: Broker, source: Source
) -> None:
    topic = broker.create_topic()
    source.publish([Sent(topic)])
    missing = [TopicPartition(topic, 3), TopicPartition(new_name(), 0)]
    with source.reader({TopicPartition(topic, 0): 0, **dict.fromkeys(missing, 0)}) as reader:
        errors: list[HopArchiveError] = []
        while len(errors) < 2:
            errors.append(read_until_error(reader)[1])
    assert [type(error) for error in errors] == [GenerationChangedError] * 2
    assert {error.facts["topic"] for error in errors} == {at.topic for at in missing}


def test_without_topic_ids_a_topic_that_became_shorter_is_still_noticed() -> None:
    cluster = MockCluster(topic_ids=False)
    source = MockSource(cluster=cluster)
    source.create_topic("topic")
    source.publish([Sent("topic")])
    assert source.topics(["topic"])["topic"].topic_id is None
    with source.reader({TopicPartition("topic", 0): 0}) as reader:
        read_until(reader, TopicPartition("topic", 0), 1)
        cluster.recreate_topic("topic")
        _, error = read_until_error(reader)
    assert isinstance(error, GenerationChangedError)


# Outages


@pytest.mark.timeout(90)  # and not for ever
def test_a_cluster_that_does_not_answer_is_unavailable_within_ten_seconds(mortal: Broker) -> None:
    source = mortal.source()
    mortal.stop()
    with pytest.raises(UnavailableError):
        source.cluster_id()
    source.close()


@pytest.mark.parametrize(
    ("servers", "reason"),
    [
        ("no-such-host.invalid:9092", "Failed to resolve 'no-such-host.invalid:9092'"),
        ("127.0.0.1:1", "Connection refused"),
    ],
)
@pytest.mark.parametrize("ask", [KafkaSource.topics, KafkaSource.cluster_id])
def test_a_host_that_has_no_address_or_refuses_is_said_to_well_within_ten_seconds(
    servers: str, reason: str, ask: Callable[[KafkaSource], object]
) -> None:
    source = KafkaSource("wrong", bootstrap_servers=servers, timeout_s=1.0)
    with pytest.raises(UnavailableError) as raised:
        ask(source)
    source.close()
    assert reason in str(raised.value)
    assert servers in str(raised.value)
    assert "\n" not in str(raised.value)
    assert TIMEOUT_S <= 7, "a call may take a second longer than that, and a command has to start"


def test_each_call_tells_that_a_cluster_does_not_answer(mortal: Broker) -> None:
    source = mortal.source(timeout_s=1.0)
    mortal.stop()
    at = TopicPartition("topic", 0)
    calls: list[Callable[[], object]] = [source.topics, lambda: source.topics(["topic"])]
    calls += [lambda: source.watermarks([at]), lambda: _read_once(source, at)]
    calls += [lambda: source.publish([Sent("topic")]), lambda: source.create_topic("topic")]
    for call in calls:
        with pytest.raises(UnavailableError):
            call()
    source.note_progress({at: 1})
    source.close()


def _read_once(source: Source, at: TopicPartition) -> None:
    with source.reader({at: 0}) as reader:
        reader.poll(1, 0.1)


@pytest.mark.timeout(90)  # and not for ever
def test_a_broker_that_dies_in_mid_read_is_unavailable_and_reading_goes_on_when_it_is_back(
    mortal: Broker,
) -> None:
    source = mortal.source()
    topic = mortal.create_topic()
    at = TopicPartition(topic, 0)
    source.publish([Sent(topic, b"before")])
    with source.reader({at: 0}) as reader:
        read_until(reader, at, 1)
        mortal.stop()
        _, error = read_until_error(reader)
        assert isinstance(error, UnavailableError)
        mortal.start()
        if "durability" not in mortal.lacks:
            until(lambda: _is_back(source), "the source answers again")
            assert source.watermarks([at])[at] == Watermarks(0, 1, 1)
            source.publish([Sent(topic, b"after")])
            assert values(read_until_through_outage(reader, at, 2)) == [b"after"]
    source.close()


def read_until_through_outage(reader: Reader, at: TopicPartition, stop: int) -> list[Message]:
    read: list[Message] = []

    def is_there() -> bool:
        with contextlib.suppress(UnavailableError):
            read.extend(reader.poll(100, 0.1))
        return reader.position(at) >= stop

    until(is_there, f"{at} is read to {stop}")
    return read


def _is_back(source: Source) -> bool:
    try:
        return bool(source.topics())
    except UnavailableError:
        return False


@pytest.mark.kafka
def test_watermarks_are_right_at_once_after_a_restart(apache: ApacheBroker) -> None:
    needs(apache, "stopping")
    topic = apache.create_topic()
    at = TopicPartition(topic, 0)
    with apache.open() as source:
        source.publish([Sent(topic)])
        assert source.watermarks([at])[at] == Watermarks(0, 1, 1)
        apache.stop()
        apache.start()
        assert source.watermarks([at])[at] == Watermarks(0, 1, 1)


def test_a_cluster_that_is_nowhere_is_named_with_what_to_check_and_nothing_else_is_printed() -> None:
    program = """
from hop_archive.source.kafka.source import KafkaSource
source = KafkaSource("hop-nowhere", bootstrap_servers="127.0.0.1:9,127.0.0.1:11", timeout_s=1.0)
try:
    source.cluster_id()
except Exception as error:
    print(type(error).__name__, error)
source.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    for expected in (
        "UnavailableError",
        "hop-nowhere",
        "127.0.0.1:9,127.0.0.1:11",
        "Check that the broker runs",
    ):
        assert expected in line


def test_what_librdkafka_says_goes_to_a_log(caplog: pytest.LogCaptureFixture) -> None:
    source = KafkaSource("nowhere", bootstrap_servers="127.0.0.1:9", timeout_s=0.5)
    with pytest.raises(UnavailableError):
        source.topics()
    source.close()
    assert "hop_archive.librdkafka" in {record.name for record in caplog.records}


@pytest.mark.timeout(90)  # and not for ever
def test_a_server_that_says_nothing_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        source = KafkaSource("silent", bootstrap_servers=address, timeout_s=1.0)
        with pytest.raises(UnavailableError):
            source.topics()
        source.close()


@pytest.mark.timeout(90)  # and not for ever
@pytest.mark.kafka
def test_a_refused_login_is_forbidden_at_once_and_shows_no_password(apache: ApacheBroker) -> None:
    needs(apache, "login")
    wrong = login(apache, "hunter2")
    calls: list[Callable[[], object]] = [wrong.cluster_id, wrong.topics]
    for call in calls:
        with pytest.raises(ForbiddenError) as caught:
            call()
        assert "password" in str(caught.value)
        assert "hunter2" not in f"{caught.value} {caught.value.facts}"
    wrong.close()
    right = login(apache, "right")
    assert right.cluster_id()
    right.close()


@pytest.mark.kafka
def test_a_refused_login_is_asked_for_anew(apache: ApacheBroker) -> None:
    needs(apache, "login")
    source = login(apache, "the-old-one", renew=lambda: alice("right"))
    assert source.cluster_id()
    assert source.topics() == login(apache, "right").topics()
    source.close()


@pytest.mark.kafka
def test_a_reader_whose_login_is_refused_says_so_though_older_connections_live(apache: ApacheBroker) -> None:
    needs(apache, "login")
    topic = new_name()
    KafkaSource("plain", bootstrap_servers=apache.bootstrap_servers, writable=True).create_topic(topic)
    place = TopicPartition(topic, 0)
    current = ["changed"]
    source = login(apache, "right", renew=lambda: alice(current[-1]))
    assert source.cluster_id()
    source._connection.access = alice("changed")  # as the broker sees it from now on

    def silence_ends() -> None:
        with source.reader({place: 0}) as reader:
            for _ in range(100):
                reader.poll(1, 0.1)

    with pytest.raises(ForbiddenError, match="reading failed"):
        silence_ends()
    current.append("right")
    with pytest.raises(NewLoginError, match="reading failed"):
        silence_ends()
    silence_ends()
    source.close()


def login(apache: ApacheBroker, password: str, renew: Callable[[], KafkaAccess] | None = None) -> KafkaSource:
    return KafkaSource(
        "hop-login",
        bootstrap_servers=apache.login_servers,
        access=alice(password),
        renew=renew,
    )


def alice(password: str) -> KafkaAccess:
    settings = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "alice"}
    return KafkaAccess(settings, {"sasl.password": SecretStr(password)})


def test_an_error_that_quotes_a_secret_does_not_show_it() -> None:
    connection = Connection("stanza", "server", alice("hunter2"), 1.0)
    quoting = KafkaError(KafkaError._INVALID_ARG, "hunter2 is no password")
    assert "*** is no password" in str(connection.failure("trying", quoting, ClientErrors()))


def test_a_setting_that_librdkafka_does_not_know_is_a_matter_of_configuration() -> None:
    source = KafkaSource("odd", bootstrap_servers="127.0.0.1:9", access=KafkaAccess({"no.such.setting": "1"}))
    with pytest.raises(ConfigurationError, match=r"no\.such\.setting"):
        source.cluster_id()


@pytest.mark.kafka
def test_settings_cannot_take_the_guarantees_away(apache: ApacheBroker) -> None:
    topic = apache.create_topic()
    at = TopicPartition(topic, 0)
    loose = {"isolation.level": "read_uncommitted", "enable.partition.eof": "false", "acks": "0"}
    source = KafkaSource(
        "loose",
        bootstrap_servers=apache.bootstrap_servers,
        access=KafkaAccess(loose),
        writable=True,
        timeout_s=8.0,
    )
    source.publish([Sent(topic, b"before")])
    transaction = apache.open_transaction(topic, [b"uncommitted"])
    with source.reader({at: 0}) as reader:
        assert values(read_until(reader, at, 1)) == [b"before"]
        assert reader.poll(10, 0.5) == []
        transaction.abort()
        assert read_until(reader, at, 3) == []
    with source.reader({at: 7}) as reader:
        assert isinstance(read_until_error(reader)[1], GenerationChangedError)
    source.close()


def test_closing_lets_go_of_all_threads_and_may_be_done_twice(kafka: KafkaBroker) -> None:
    topic = kafka.create_topic()
    source = kafka.source()
    before = _threads()
    source.publish([Sent(topic)])
    with source.reader({TopicPartition(topic, 0): 0}) as reader:
        read_until(reader, TopicPartition(topic, 0), 1)
        assert _threads() > before
    assert isinstance(reader, KafkaReader)
    reader.close()
    source.close()
    source.close()
    gc.collect()
    until(lambda: _threads() <= before, "the threads are gone")
    assert source.cluster_id()  # a later call connects anew
    source.close()


def _threads() -> int:
    return (
        len(list(Path("/proc/self/task").iterdir())) if Path("/proc").exists() else threading.active_count()
    )


# Progress


def test_progress_is_committed_for_monitoring(kafka: KafkaBroker) -> None:
    topic = kafka.create_topic(2)
    group = f"group-{topic}"
    source = KafkaSource("progress", bootstrap_servers=kafka.bootstrap_servers, group_id=group)
    source.note_progress({TopicPartition(topic, 0): 3, TopicPartition(topic, 1): 4})
    source.note_progress({})
    monitor = confluent_kafka.Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    wanted = [confluent_kafka.TopicPartition(topic, number) for number in (0, 1)]
    until(lambda: [tp.offset for tp in monitor.committed(wanted, timeout=10)] == [3, 4], "both are committed")
    monitor.close()
    source.close()


def test_progress_that_cannot_be_committed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    source = KafkaSource("nowhere", bootstrap_servers="127.0.0.1:9", timeout_s=0.5)
    source.note_progress({TopicPartition("topic", 0): 3})
    assert "not committed" in caplog.text
    caplog.clear()
    source.note_progress({TopicPartition("topic", 0): 4})
    assert "not committed" not in caplog.text, (
        "a minute's rest: a cluster that is down is not waited for each time"
    )
    source.close()


# Speed


@pytest.mark.slow
def test_two_hundred_thousand_messages_are_published_and_read_in_order(
    broker: Broker, source: Source
) -> None:
    needs(broker, "load")
    count = 50_000 if isinstance(broker, MockBroker) else 200_000
    topic = broker.create_topic()
    at = TopicPartition(topic, 0)
    began = time.perf_counter()
    receipts = source.publish(Sent(topic, n.to_bytes(8, "big") + bytes(992)) for n in range(count))
    LOG.info("%s: published %.0f messages/s", broker.name, count / (time.perf_counter() - began))
    assert [receipt.offset for receipt in receipts] == list(range(count))
    expected = 0
    with source.reader({at: 0}) as reader:
        began = time.perf_counter()
        while expected < count:
            for message in reader.poll(5000, 1.0):
                assert message.value is not None
                assert (message.offset, message.value[:8]) == (expected, expected.to_bytes(8, "big"))
                expected += 1
        LOG.info("%s: read %.0f messages/s", broker.name, count / (time.perf_counter() - began))
    broker.delete_topic(topic)


# What librdkafka reports, staged: events that a healthy broker does not send


class Staged:
    """A reader of partition 0 of a mock cluster's topic that is fed with events that are made up."""

    def __init__(self) -> None:
        self.cluster = MockCluster()
        self.cluster.create_topic("topic")
        connection = Connection("staged", "127.0.0.1:9", KafkaAccess(), 1.0)
        source = MockSource("staged", cluster=self.cluster)
        self.reader = KafkaReader(source, connection, {AT: 0}, group_id="group", fetch_bytes=MIB)

    def poll(self, *events: confluent_kafka.Message, count: int = 100) -> list[Message]:
        self.reader._held += events
        return list(self.reader.poll(count, 0.0))

    def hold(self, *events: confluent_kafka.Message) -> None:
        """Let events come while nobody can tell whose they are."""
        self.cluster.stop()
        with pytest.raises(UnavailableError):
            self.poll(*events)
        self.cluster.start()


AT = TopicPartition("topic", 0)


@pytest.fixture
def staged() -> Iterator[Staged]:
    made = Staged()
    yield made
    made.reader.close()


def event(offset: int, code: int | None = None, **more: Any) -> confluent_kafka.Message:
    known: Mapping[str, Any] = {"topic": "topic", "partition": 0, "timestamp": (1, 5), "value": b"v"}
    error = {} if code is None else {"error": KafkaError(code)}
    return confluent_kafka.Message(**{**known, "offset": offset, **error, **more})


@pytest.mark.parametrize(
    ("kind", "expected"), [(0, TimestampType.NONE), (1, TimestampType.CREATE), (2, TimestampType.APPEND)]
)
def test_each_timestamp_type_of_the_client_has_its_own(
    staged: Staged, kind: int, expected: TimestampType
) -> None:
    (message,) = staged.poll(event(0, timestamp=(kind, -1)))
    assert (message.timestamp_type, message.timestamp_ms) == (expected, -1)


def test_messages_that_came_with_an_error_are_handed_out_before_it(staged: Staged) -> None:
    assert [m.offset for m in staged.poll(event(0), event(1), event(2, KafkaError._BAD_MSG))] == [0, 1]
    with pytest.raises(CorruptError, match="offset 2") as caught:
        staged.poll()
    assert caught.value.facts == {"topic": "topic", "partition": 0, "offset": 2}
    assert staged.poll(event(3)) == []  # the partition is released


def test_an_offset_below_the_one_asked_for_is_refused(staged: Staged) -> None:
    assert [m.offset for m in staged.poll(event(4), event(3), event(5))] == [4]
    with pytest.raises(DataError, match="to be read from offset 5, and 3 came"):
        staged.poll()


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT])
def test_a_broken_connection_is_no_error_while_the_cluster_answers(staged: Staged, code: int) -> None:
    assert staged.poll(event(-1, code, topic=None, partition=-1)) == []
    assert staged.poll(event(0, code), event(0)) != []


def test_what_came_before_an_outage_is_handed_out_after_it_and_no_more_than_asked_for(staged: Staged) -> None:
    staged.hold(*(event(offset) for offset in range(5)))
    assert staged.reader.position(AT) == 0
    assert [m.offset for m in staged.poll(count=2)] == [0, 1]
    assert [m.offset for m in staged.poll(count=2)] == [2, 3]
    assert [m.offset for m in staged.poll(count=2)] == [4]


def test_what_came_before_an_outage_goes_with_its_partition(staged: Staged) -> None:
    staged.hold(event(0), event(1))
    staged.reader.add({AT: 0})
    assert staged.poll() == []
    assert staged.reader.position(AT) == 0


def test_an_offset_out_of_range_is_judged_by_the_watermarks(staged: Staged) -> None:
    for _ in range(5):
        staged.cluster.append("topic", b"")
    with pytest.raises(
        GenerationChangedError, match="lost its end"
    ) as changed:  # in range: librdkafka found it cut
        staged.poll(event(3, KafkaError._AUTO_OFFSET_RESET))
    assert changed.value.facts == {"topic": "topic", "partitions": [0], "offsets": [3]}
    staged.reader.add({AT: 3})
    staged.cluster.delete_records("topic", 0, 4)
    with pytest.raises(OffsetsGoneError) as caught:
        staged.poll(event(3, KafkaError.OFFSET_OUT_OF_RANGE))
    assert caught.value.facts == {"topic": "topic", "partition": 0, "offset": 3, "low": 4}


def test_a_topic_that_only_the_client_takes_for_unknown_is_asked_for_again(staged: Staged) -> None:
    assert staged.poll(event(0), event(1, KafkaError.UNKNOWN_TOPIC_OR_PART)) != []
    assert staged.poll(event(1)) != []
    staged.cluster.delete_topic("topic")
    with pytest.raises(GenerationChangedError):
        staged.poll(event(2, KafkaError.UNKNOWN_TOPIC_OR_PART))


def test_being_forbidden_to_read_a_topic_is_told(staged: Staged) -> None:
    with pytest.raises(ForbiddenError, match="topic"):
        staged.poll(event(0, KafkaError.TOPIC_AUTHORIZATION_FAILED))


# The mock by itself


def test_what_one_process_wrote_to_a_directory_the_next_one_finds(tmp_path: Path) -> None:
    first = MockSource(directory=tmp_path)
    first.create_topic("topic")
    first.publish([Sent("topic", b"kept")])
    second = MockSource(directory=tmp_path)
    assert second.cluster_id() == first.cluster_id()
    assert values(read_partition(second, "topic", 1)) == [b"kept"]


def test_a_mock_that_restarts_empty_has_new_topic_ids_and_the_same_cluster_id() -> None:
    cluster = MockCluster()
    source = MockSource(cluster=cluster)
    source.create_topic("topic")
    before = source.cluster_id(), source.topics()["topic"].topic_id
    cluster.restart_empty()
    assert source.topics() == {}
    source.create_topic("topic")
    assert source.cluster_id() == before[0]
    assert source.topics()["topic"].topic_id != before[1]


def test_the_mocks_timestamps_are_those_of_its_clock() -> None:
    cluster = MockCluster(clock=lambda: 42)
    cluster.create_topic("topic")
    cluster.append("topic", b"")
    (message,) = read_partition(MockSource(cluster=cluster), "topic", 1)
    assert message.timestamp_ms == 42


# One sick part


def test_a_topic_that_may_not_be_read_is_told_so_and_given_up_alone(broker: Broker, source: Source) -> None:
    needs(broker, "rights")
    shut, well = broker.create_topic(), broker.create_topic()
    for topic in (shut, well):
        broker.append(Sent(topic, b"x"))
    broker.deny(shut, "read")
    until(lambda: source.topics([shut])[shut].readable is False, "the right is gone")
    assert source.topics([well])[well].readable
    places = [TopicPartition(topic, 0) for topic in (shut, well)]
    assert {at: marks.high for at, marks in source.watermarks(places).items()} == dict.fromkeys(places, 1)
    seen, refused = read_what_may_be(source, places)
    assert seen == [well]
    assert [(e.facts["topic"], e.facts["partition"]) for e in refused] == [(shut, 0)]
    broker.allow(shut)
    until(lambda: source.topics([shut])[shut].readable is True, "the right is back")
    assert sorted(read_what_may_be(source, places)[0]) == sorted([shut, well])


def read_what_may_be(
    source: Source, places: Sequence[TopicPartition]
) -> tuple[list[str], list[ForbiddenError]]:
    seen: list[str] = []
    refused: list[ForbiddenError] = []
    with source.reader(dict.fromkeys(places, 0)) as reader:

        def poll() -> bool:
            try:
                seen.extend(message.topic for message in reader.poll(10, 0.2))
            except ForbiddenError as error:
                refused.append(error)
            return len(seen) + len(refused) == len(places)

        until(poll, "all is read, or refused")
    return seen, refused


def test_a_topic_that_may_not_be_described_is_untold_and_not_taken_for_one_that_is_not_there(
    broker: Broker, source: Source
) -> None:
    needs(broker, "rights")
    hidden, well = broker.create_topic(), broker.create_topic()
    broker.deny(hidden, "describe")
    names = [hidden, well, new_name()]
    until(lambda: source.topics(names).untold, "the right is gone")
    assert list(source.topics(names)) == [well]
    with pytest.raises(ForbiddenError, match=re.escape(hidden)):
        source.topics(names).get(hidden)
    assert hidden not in set(source.topics())
    assert isinstance(
        source.watermarks([TopicPartition(hidden, 0)]).untold[TopicPartition(hidden, 0)], ForbiddenError
    )


def test_a_partition_without_a_leader_is_untold_and_the_others_are_told(
    broker: Broker, source: Source
) -> None:
    needs(broker, "losing a leader")
    topic = broker.create_topic(2)
    broker.lose_leader(topic)
    found = source.watermarks([TopicPartition(topic, number) for number in (0, 1, 2)])
    assert list(found) == [TopicPartition(topic, 1)]
    with pytest.raises(UnavailableError, match="no leader"):
        found.get(TopicPartition(topic, 0))
    assert TopicPartition(topic, 2) not in found
