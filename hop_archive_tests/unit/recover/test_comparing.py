"""Reading a target back, while it is written and afterwards. On a mock; a real one is in ``kafka/test_restore_on_kafka``."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from hop_archive.catalog.stored import Stored
from hop_archive.errors import UnavailableError
from hop_archive.model.identity import digest
from hop_archive.model.message import Message, TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.model.slices import PartitionLog
from hop_archive.recover.restore import compare as comparing
from hop_archive.recover.restore.compare import ReadBack, ReadingAlong, compare
from hop_archive.recover.restore.offset_map import Journal
from hop_archive.recover.restore.target_topic import TargetTopic
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive_tests.invariants import committed
from hop_archive_tests.restores import empty_cluster, patient

TOPIC = "again"
AT = TopicPartition(TOPIC, 0)


class Target:
    """A topic with messages in partition 0, of which a restore would say that it wrote them."""

    def __init__(self, *values: bytes) -> None:
        self.cluster: MockCluster = empty_cluster()
        self.cluster.create_topic(TOPIC, 2)
        self.append(*values)
        self.source = MockSource("there", cluster=self.cluster)
        topic_id = self.source.topics([TOPIC])[TOPIC].topic_id
        self.topic = TargetTopic(self.source, TOPIC, topic_id, 2, {0: 0, 1: 0})
        self.progress = Progress()
        self.along = ReadingAlong(self.topic, patient(), self.progress)
        self.messages = committed(self.cluster, AT)

    def append(self, *values: bytes, partition: int = 0) -> None:
        for value in values:
            self.cluster.append(TOPIC, value, partition=partition)

    def expect(self, messages: list[Message], first: int = 0) -> None:
        self.along.expect(0, first, *written(messages))

    def outcome(self) -> ReadBack | None:
        """What reading along finds of all of it."""
        with self.along:
            self.expect(self.messages)
            self.along.catch_up()
            return self.along.outcome()

    def compared(self, folder: Path) -> ReadBack:
        """What comparing afterwards finds."""
        stored, digests = written(self.messages)
        with Journal(folder) as journal:
            journal.add(TOPIC, PartitionLog("a", 1, 0), AT, 0, stored, digests)
        return compare(self.topic, folder, patient(), self.progress)


def written(messages: list[Message]) -> tuple[list[Stored], list[bytes]]:
    stored = [
        Stored(n, message.timestamp_ms, uuid.UUID(int=n).bytes, None, "key", None, 1, 0, None, None)
        for n, message in enumerate(messages)
    ]
    return stored, [digest(m.key, m.headers, m.value) for m in messages]


def test_what_was_read_while_it_was_written_need_not_be_read_again() -> None:
    target = Target(b"a", b"b", b"c", b"d", b"e")
    with target.along:
        target.expect(target.messages[:3])
        target.along.catch_up()
        assert target.progress.counts["checked"] == 3
        target.expect(target.messages[3:], 3)
        target.along.catch_up()
        assert target.along.outcome() == ReadBack(5)
    assert target.source.delivered == 5


def test_what_was_not_read_to_its_end_is_compared_afterwards() -> None:
    target = Target(b"a", b"b")
    with target.along:
        target.expect(target.messages)
        assert target.along.outcome() is None


def overwritten(target: Target) -> None:
    target.cluster.lose_end(TOPIC, 0, 2)
    target.append(b"another")


def at_another_time(target: Target) -> None:
    target.cluster.lose_end(TOPIC, 0, 2)
    target.cluster.append(TOPIC, b"b", partition=0, timestamp_ms=1)


def moved(target: Target) -> None:
    target.cluster.compact(TOPIC, 0, {1})
    target.append(b"b")


UNUSUAL: dict[str, Callable[[Target], None]] = {
    "another message": overwritten,
    "another timestamp": at_another_time,
    "compaction at the end": lambda target: target.cluster.compact(TOPIC, 0, {2}),
    "the same at another offset": moved,
    "retention": lambda target: target.cluster.delete_records(TOPIC, 0, 1),
    "no leader": lambda target: target.cluster.lose_leader(TOPIC),
    "no right": lambda target: target.cluster.deny(TOPIC),
    "a topic made anew": lambda target: target.cluster.recreate_topic(TOPIC),
    "the end is lost": lambda target: target.cluster.lose_end(TOPIC, 0, 1),
    "no broker": lambda target: target.cluster.stop(),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_whatever_is_otherwise_is_left_to_who_compares_afterwards(what: str) -> None:
    target = Target(b"a", b"b", b"b")
    UNUSUAL[what](target)
    assert target.outcome() is None
    assert target.progress.counts["checked"] == 0


def test_what_is_deleted_once_it_was_read_is_compared_afterwards(tmp_path: Path) -> None:
    target = Target(b"a", b"b", b"c")
    with target.along:
        target.expect(target.messages)
        target.along.catch_up()
        target.cluster.delete_records(TOPIC, 0, 2)
        assert target.along.outcome() is None
    assert target.compared(tmp_path).difference_count == 4


def test_others_who_write_there_meanwhile_keep_nobody_waiting_and_fill_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comparing, "_MOST_AHEAD_BYTES", 1_000)
    target = Target(b"a", b"b")
    target.append(b"theirs", partition=1)
    target.cluster.compact(TOPIC, 0, {1})
    reader_of = target.source.reader
    polls = iter(range(1_000))

    def busy(starts):  # type: ignore[no-untyped-def]
        """A reader to whom something of another partition comes at each look."""
        reader = reader_of({**starts, TopicPartition(TOPIC, 1): 0})
        poll = reader.poll

        def polled(most: int, timeout_s: float):  # type: ignore[no-untyped-def]
            next(polls)
            target.append(b"x" * 300, partition=1)
            return poll(most, timeout_s)

        reader.poll = polled  # type: ignore[method-assign, assignment]
        return reader

    monkeypatch.setattr(target.source, "reader", busy)
    assert target.outcome() is None
    assert next(polls) < 10


def test_what_was_compacted_away_at_the_end_is_a_difference_and_no_outage(tmp_path: Path) -> None:
    target = Target(b"a", b"b", b"c")
    target.cluster.compact(TOPIC, 0, {2})
    found = target.compared(tmp_path)
    (told,) = found.differences
    assert (told.offset, told.what, found.messages) == (2, "nothing stands there", 3)


def test_what_a_partition_without_a_leader_holds_is_not_called_missing(tmp_path: Path) -> None:
    target = Target(b"a", b"b")
    target.cluster.lose_leader(TOPIC)
    with pytest.raises(UnavailableError):
        target.compared(tmp_path)
