"""Reading a target back while it is written. On a mock; a real one is in ``integration/test_restores``."""

from __future__ import annotations

import uuid

import pytest

from hop_archive.catalog.stored import Stored
from hop_archive.errors import ForbiddenError, UnavailableError
from hop_archive.model.identity import digest
from hop_archive.model.message import Message, TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.recover.restore.compare import Comparison
from hop_archive.recover.restore.target_topic import TargetTopic
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive_tests.invariants import committed
from hop_archive_tests.restores import empty_cluster, patient

TOPIC = "again"
AT = TopicPartition(TOPIC, 0)


def a_target(*values: bytes) -> tuple[MockCluster, MockSource, Comparison]:
    cluster = empty_cluster()
    cluster.create_topic(TOPIC, 2)
    for value in values:
        cluster.append(TOPIC, value, partition=0)
    source = MockSource("there", cluster=cluster)
    target = TargetTopic(source, TOPIC, source.topics([TOPIC])[TOPIC].topic_id, 2, {0: 0, 1: 0})
    return cluster, source, Comparison(target, patient(), Progress())


def expect(comparison: Comparison, messages: list[Message], first: int = 0) -> None:
    """Say that these stand in partition 0 from an offset on."""
    stored = [
        Stored(n, message.timestamp_ms, uuid.UUID(int=n).bytes, None, "key", None, 1, 0, None, None)
        for n, message in enumerate(messages)
    ]
    comparison.expect(0, first, stored, [digest(m.key, m.headers, m.value) for m in messages])


def compare(comparison: Comparison, messages: list[Message]) -> None:
    """One try: what stands in partition 0 from its beginning on is compared with these."""
    with comparison:
        expect(comparison, messages)
        comparison.catch_up()


def test_what_stands_there_is_compared_as_far_as_it_was_said() -> None:
    cluster, source, comparison = a_target(b"a", b"b", b"c", b"d", b"e")
    messages = committed(cluster, AT)
    with comparison:
        expect(comparison, messages[:3])
        comparison.catch_up()
        assert (comparison.found.messages, comparison.found.difference_count) == (3, 0)
        expect(comparison, messages[3:], 3)
        comparison.catch_up()
    assert (comparison.found.messages, comparison.found.difference_count) == (5, 0)
    assert source.delivered == 5


def test_what_was_compared_in_an_earlier_try_is_not_read_again() -> None:
    cluster, source, comparison = a_target(b"a", b"b", b"c")
    with comparison:
        comparison.stands({0: 0})
        expect(comparison, committed(cluster, AT))
        comparison.catch_up()
    cluster.append(TOPIC, b"d", partition=0)
    with comparison:
        comparison.stands({0: 3})
        expect(comparison, committed(cluster, AT))
        comparison.catch_up()
    assert (comparison.found.messages, comparison.found.difference_count) == (4, 0)
    assert source.delivered == 4


def test_what_a_broker_lost_and_was_written_anew_is_compared_anew() -> None:
    cluster, _, comparison = a_target(b"a", b"b", b"c")
    messages = committed(cluster, AT)
    compare(comparison, messages)
    cluster.lose_end(TOPIC, 0, 1)
    for value in (b"b", b"another"):
        cluster.append(TOPIC, value, partition=0)
    with comparison:
        comparison.stands({0: 1})
        expect(comparison, messages)
        comparison.catch_up()
    (told,) = comparison.found.differences
    assert (told.offset, told.what) == (2, "its key, value or headers are others")


def test_what_retention_took_before_it_could_be_read_is_told() -> None:
    cluster, _, comparison = a_target(b"a", b"b", b"c")
    messages = committed(cluster, AT)
    cluster.delete_records(TOPIC, 0, 2)
    with comparison:
        expect(comparison, messages)
        comparison.catch_up()
        expect(comparison, messages, 3)
        comparison.catch_up()
    assert comparison.found.messages == 6
    assert "retention was faster" in comparison.found.differences[0].what
    assert {told.what for told in comparison.found.differences[1:]} == {"nothing stands there"}
    assert comparison.found.difference_count == 7


def test_what_was_compacted_away_at_the_end_is_a_difference_and_no_outage() -> None:
    cluster, _, comparison = a_target(b"a", b"b", b"c")
    messages = committed(cluster, AT)
    cluster.compact(TOPIC, 0, {2})
    compare(comparison, messages)
    (told,) = comparison.found.differences
    assert (told.offset, told.what, comparison.found.messages) == (2, "nothing stands there", 3)


def test_what_a_partition_without_a_leader_holds_is_not_called_missing() -> None:
    cluster, _, comparison = a_target(b"a", b"b")
    messages = committed(cluster, AT)
    cluster.lose_leader(TOPIC)
    with pytest.raises(UnavailableError):
        compare(comparison, messages)
    assert comparison.found.difference_count == 0
    cluster.elect_leader(TOPIC)
    compare(comparison, messages)
    assert (comparison.found.messages, comparison.found.difference_count) == (2, 0)


def test_it_tells_a_target_of_which_nothing_may_be_read_from_one_that_refuses_by_now() -> None:
    cluster, _, comparison = a_target(b"a")
    messages = committed(cluster, AT)
    cluster.deny(TOPIC)
    with pytest.raises(ForbiddenError):
        compare(comparison, messages)
    assert comparison.is_forbidden
    cluster.allow(TOPIC)
    compare(comparison, messages)
    cluster.append(TOPIC, b"b", partition=0)
    messages = committed(cluster, AT)
    cluster.deny(TOPIC)
    with pytest.raises(ForbiddenError):
        compare(comparison, messages)
    assert not comparison.is_forbidden
