"""What comparing makes of a target that does not deliver all that was written. On a mock."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from hop_archive.catalog.stored import Stored
from hop_archive.errors import UnavailableError
from hop_archive.model.identity import digest
from hop_archive.model.message import TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.model.slices import PartitionLog
from hop_archive.recover.restore.compare import ReadBack, compare
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


def written(cluster: MockCluster, folder: Path, *values: bytes) -> None:
    """Write these as a restore does, and its journal."""
    for value in values:
        cluster.append(TOPIC, value)
    messages = committed(cluster, AT)
    stored = [
        Stored(n, message.timestamp_ms, uuid.UUID(int=n).bytes, None, "key", None, 1, 0, None, None)
        for n, message in enumerate(messages)
    ]
    with Journal(folder) as journal:
        digests = [digest(m.key, m.headers, m.value) for m in messages]
        journal.add(TOPIC, PartitionLog("a", 1, 0), AT, 0, stored, digests)


def compared(cluster: MockCluster, folder: Path) -> ReadBack:
    source = MockSource("there", cluster=cluster)
    target = TargetTopic(source, TOPIC, source.topics([TOPIC])[TOPIC].topic_id, 1, {0: 0})
    return compare(target, folder, patient(), Progress())


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
