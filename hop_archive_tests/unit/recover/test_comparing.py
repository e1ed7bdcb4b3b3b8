"""What comparing makes of a target that does not deliver all that was written. On a mock."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from hop_archive.catalog.stored import Stored
from hop_archive.errors import UnavailableError
from hop_archive.model.identity import digest
from hop_archive.model.message import TimestampType, TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.model.slices import PartitionLog
from hop_archive.recover.restore.compare import ReadBack, compare
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.offset_map import Journal
from hop_archive.recover.restore.write import TargetTopic
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive_tests.invariants import committed
from hop_archive_tests.restores import empty_cluster, patient

TOPIC = "again"
AT = TopicPartition(TOPIC, 0)


@pytest.fixture
def cluster() -> MockCluster:
    made = empty_cluster()
    made.create_topic(TOPIC)
    return made


def written(cluster: MockCluster, folder: Path, *values: bytes, timestamp_ms: int | None = None) -> None:
    """Write these as a restore does, and its journal."""
    for value in values:
        cluster.append(TOPIC, value, timestamp_ms=timestamp_ms)
    messages = committed(cluster, AT)
    stored = [
        Stored(n, message.timestamp_ms, uuid.UUID(int=n).bytes, None, "key", None, 1, 0, None, None)
        for n, message in enumerate(messages)
    ]
    with Journal(folder) as journal:
        digests = [digest(m.key, m.headers, m.value) for m in messages]
        journal.add(TOPIC, PartitionLog("a", 1, 0), AT, 0, stored, digests)


def compared(cluster: MockCluster, folder: Path, control: Control | None = None) -> ReadBack:
    source = MockSource("there", cluster=cluster)
    target = TargetTopic(source, TOPIC, source.topics([TOPIC])[TOPIC].topic_id, 1, {0: 0})
    return compare(target, folder, control or patient(), Progress())


def told(found: ReadBack) -> dict[int, str]:
    return {one.offset: one.what for one in found.differences}


def test_what_was_compacted_away_at_the_end_is_a_difference_and_no_outage(
    cluster: MockCluster, tmp_path: Path
) -> None:
    written(cluster, tmp_path, b"a", b"b", b"c")
    cluster.compact(TOPIC, 0, {2})
    found = compared(cluster, tmp_path)
    (told,) = found.differences
    assert (told.offset, told.what, found.messages) == (2, "nothing stands there", 3)


def test_what_a_partition_without_a_leader_holds_is_not_called_missing(
    cluster: MockCluster, tmp_path: Path
) -> None:
    written(cluster, tmp_path, b"a", b"b")
    cluster.lose_leader(TOPIC)
    with pytest.raises(UnavailableError):
        compared(cluster, tmp_path)
    cluster.elect_leader(TOPIC)
    assert compared(cluster, tmp_path) == ReadBack(messages=2)


@pytest.mark.parametrize("at_once", [1, 2, 3, 10_000])
def test_of_what_is_gone_each_is_told_and_all_else_is_compared(
    cluster: MockCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("hop_archive.recover.restore.compare._MOST_AT_ONCE", at_once)
    monkeypatch.setattr("hop_archive.recover.restore.offset_map.ROW_GROUP", 3)
    monkeypatch.setattr("hop_archive.recover.restore.offset_map.FILE_ROWS", 4)
    written(cluster, tmp_path, *(b"%d" % n for n in range(10)))
    cluster.compact(TOPIC, 0, {4, 5, 9})
    cluster.delete_records(TOPIC, 0, 2)
    cluster.append(TOPIC, b"of another, who comes later")
    found = compared(cluster, tmp_path)
    begins = "nothing stands there: Kafka holds the partition from offset 2 on by now"
    assert [one.offset for one in found.differences] == [0, 1, 4, 5, 9]
    assert (told(found)[0], told(found)[1]) == (begins, begins)
    assert (found.messages, found.difference_count, found.complete) == (10, 5, True)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"key": b""}, "its key, value or headers are others"),
        ({"headers": (("tag", None),)}, "its key, value or headers are others"),
        ({"value": None}, "its key, value or headers are others"),
        ({"timestamp_ms": 5}, "its timestamp is 5, and was to be {}"),
    ],
)
def test_one_that_differs_in_one_way_is_told_and_in_what(
    cluster: MockCluster, tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    written(cluster, tmp_path, b"a", b"b", b"c")
    wanted_ms = committed(cluster, AT)[1].timestamp_ms
    change(cluster, 1, **changes)
    found = compared(cluster, tmp_path)
    assert told(found) == {1: what.format(wanted_ms)}
    assert found.differences[0].uuid == str(uuid.UUID(int=1))
    assert (found.messages, found.difference_count) == (3, 1)


def change(cluster: MockCluster, offset: int, **changes: Any) -> None:
    with cluster.change() as state:
        log = state.log(AT)
        assert log is not None
        log.messages[offset] = log.messages[offset]._replace(**changes)


def test_one_that_has_the_time_of_writing_is_counted_and_its_content_compared(
    cluster: MockCluster, tmp_path: Path
) -> None:
    written(cluster, tmp_path, b"a", b"b", b"c")
    change(cluster, 0, timestamp_type=TimestampType.APPEND)
    assert compared(cluster, tmp_path) == ReadBack(messages=3, append_times=1)
    change(cluster, 2, timestamp_type=TimestampType.APPEND, value=b"another")
    found = compared(cluster, tmp_path)
    assert told(found) == {2: "its key, value or headers are others"}
    assert found.append_times == 1


def test_an_equal_message_at_another_offset_does_not_stand_for_one_that_is_gone(
    cluster: MockCluster, tmp_path: Path
) -> None:
    written(cluster, tmp_path, b"same", b"same", b"same", timestamp_ms=1)
    cluster.append(TOPIC, b"same", timestamp_ms=1)
    cluster.compact(TOPIC, 0, {0})
    assert told(compared(cluster, tmp_path)) == {0: "nothing stands there"}


def test_comparing_ends_when_it_is_asked_to(
    cluster: MockCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hop_archive.recover.restore.compare._MOST_AT_ONCE", 2)
    written(cluster, tmp_path, b"a", b"b", b"c", b"d", b"e")
    asked = iter([False, True])
    found = compared(cluster, tmp_path, patient(stop=lambda: next(asked)))
    assert (found.messages, found.complete) == (4, False)
    found = compared(cluster, tmp_path, patient(stop=lambda: False))
    assert found == ReadBack(messages=5)
