"""``run --memory``: what the limits that it makes hold at once, measured."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Collection, Iterator, Mapping, Sequence

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Batch
from hop_archive.ingest.write import archive_slices
from hop_archive.model.limits import Limits
from hop_archive.model.message import Message, TimestampType, TopicPartition
from hop_archive.model.slices import Slice
from hop_archive.model.topics import LayoutPolicy
from hop_archive.source.mock.source import MockReader, MockSource
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Created, NewObject

MEBIBYTE = 1024 * 1024
PARTITIONS = 4


class EndlessReader(MockReader):
    """Makes up each message when it is polled, so that only the archive holds any."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._at: dict[TopicPartition, int] = {}

    def add(self, starts: Mapping[TopicPartition, int]) -> None:
        self._at.update(starts)

    def release(self, partitions: Collection[TopicPartition]) -> None:
        for one in partitions:
            del self._at[one]

    def poll(self, max_messages: int, timeout_s: float) -> Sequence[Message]:
        share = max(1, max_messages // max(1, len(self._at)))
        return [message for at in list(self._at) for message in self._made(at, share)]

    def position(self, partition: TopicPartition) -> int:
        return self._at[partition]

    def _made(self, at: TopicPartition, count: int) -> Iterator[Message]:
        start = self._at[at]
        self._at[at] = start + count
        for offset in range(start, start + count):
            value = bytes(self._sizes[offset % len(self._sizes)])
            headers = (("_id", random.randbytes(16)), ("_sender", b"somebody"), ("_format", b"blob"))
            yield Message(at.topic, at.partition, offset, 1, TimestampType.CREATE, None, value, headers)


class EndlessSource(MockSource):
    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__("endless")
        self._sizes = sizes
        self.create_topic("t", PARTITIONS)

    def reader(self, starts: Mapping[TopicPartition, int]) -> EndlessReader:
        return EndlessReader(self._sizes)


class Sieve(MockStore):
    def create(self, objects: Sequence[NewObject]) -> Sequence[Created]:
        return [Created.NEW for _ in objects]


class Forgetful(MockCatalog):
    largest = 0

    def commit(self, *batches: Batch) -> None:
        self.largest = max(self.largest, *(len(batch.rows) for batch in batches))


def peak_bytes(limits: Limits, sizes: Sequence[int], messages: int) -> int:
    source, catalog = EndlessSource(sizes), Forgetful()
    catalog.begin_generation("t", 1, source.cluster_id(), source.topics()["t"].topic_id, "")
    archive = Archive(source, catalog, Sieve(), layouts=LayoutPolicy("segment"), limits=limits)
    slices = [Slice("t", 1, partition, 0, messages // PARTITIONS) for partition in range(PARTITIONS)]
    tracemalloc.start()
    try:
        for _ in archive_slices(archive, slices):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("sizes", "messages"),
    [
        pytest.param([0], 20_000, id="empty"),
        pytest.param([1_000], 25_000, id="usual"),
        pytest.param([50_000], 3_000, id="large"),
        pytest.param([100] * 400 + [60_000] * 60, 12_000, id="mixed"),
    ],
)
@pytest.mark.parametrize("mebibytes", [16, 32])
def test_what_is_held_stays_below_the_bound(mebibytes: int, sizes: list[int], messages: int) -> None:
    assert peak_bytes(Limits.within(mebibytes * MEBIBYTE), sizes, messages) < mebibytes * MEBIBYTE


def test_more_memory_makes_larger_batches_up_to_the_default() -> None:
    small, large = Limits.within(16 * MEBIBYTE), Limits.within(1024 * MEBIBYTE)
    assert small.batch_bytes < large.batch_bytes
    assert small.batch_messages < large.batch_messages == Limits().batch_messages


@pytest.mark.parametrize("memory_bytes", [0, 1, 100])
def test_any_memory_makes_limits_that_work(memory_bytes: int) -> None:
    limits = Limits.within(memory_bytes)
    assert min(limits.batch_messages, limits.batch_bytes, limits.buffer_bytes) >= 1
