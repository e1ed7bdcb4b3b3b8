"""The invariants of DESIGN, part 3, judged over a mock cluster and whatever catalog and store it was archived to.

Judged from outside: the cluster's own log says what was published, the ledger and rows say what was done, the
objects are fetched and decoded again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hop_archive.archive import Archive
from hop_archive.catalog.records import LedgerEntry, Outcome, Row
from hop_archive.model.document import Document, crc32, decode, encode
from hop_archive.model.message import Message, TopicPartition
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog
from hop_archive.read.check import extent_of
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.store.protocol import Store


def fetched(store: Store, row: Row) -> bytes:
    """The stored bytes of a row."""
    (body,) = store.fetch([extent_of(row)])
    return body


def committed(cluster: MockCluster, at: TopicPartition) -> list[Message]:
    """What a reader of committed messages is delivered, straight from the cluster's log."""
    with cluster.read() as state:
        log = state.topics[at.topic].logs[at.partition]
        return log.read(log.low, log.stable - log.low)[0] if log.stable > log.low else []


def assert_ledger_is_sound(entries: Iterable[LedgerEntry]) -> None:
    """Every slice once; in each, the sum of what became of its offsets is its length."""
    covered: dict[PartitionLog, OffsetSet] = {}
    for entry in entries:
        before = covered.get(entry.slice.partition_log, EMPTY)
        assert not before & entry.slice.offsets, f"{entry.slice} is covered twice"
        covered[entry.slice.partition_log] = before | entry.slice.offsets
        done = entry.archived + entry.duplicates + entry.absent
        assert done == (len(entry.slice) if entry.outcome is Outcome.ARCHIVED else 0), entry


def assert_archived(archive: Archive, cluster: MockCluster, topic: str) -> None:
    """All that the cluster holds of ``topic`` is accounted for once, and every message reads back the same."""
    entries = archive.catalog.ledger([topic])
    assert_ledger_is_sound(entries)
    rows = list(archive.catalog.rows(topic))
    stored = {row.uuid: _sound_document(archive.store, row) for row in rows}
    generation = archive.catalog.generations([topic])[topic][-1].number
    places = {(r.generation, r.partition, r.offset): stored[r.uuid].message for r in rows}
    copies = {
        (*partition_log[1:], d.offset): d.uuid for partition_log, d in archive.catalog.duplicates(topic)
    }
    assert len(places) == len(rows), "an offset has two rows"
    assert not places.keys() & copies.keys(), "an offset is archived and a duplicate"
    with cluster.read() as state:
        partitions = len(state.topics[topic].logs)
    for number in range(partitions):
        at = TopicPartition(topic, number)
        _assert_covered(archive, cluster, at, generation)
        for message in committed(cluster, at):
            place = (generation, number, message.offset)
            if place in places:
                assert places[place] == message
            else:
                kept = stored[copies[place]].message
                assert (kept.key, kept.value, kept.headers) == (message.key, message.value, message.headers)
    _assert_sums(archive, topic, entries, len(rows), len(copies))


def assert_no_object_twice(archive: Archive) -> None:
    """No message is stored in two objects that rows name; no row names bytes that another names."""
    extents = Counter(row.document_place for topic in _topics(archive) for row in archive.catalog.rows(topic))
    assert not [extent for extent, count in extents.items() if count > 1]


def _sound_document(store: Store, row: Row) -> Document:
    body = fetched(store, row)
    document = decode(body)
    assert len(body) == row.size_bytes
    assert crc32(body) == row.crc32
    assert encode(document) == body, "the same message does not encode to the same bytes again"
    message = document.message
    assert (document.uuid, document.digest) == (row.uuid, row.digest)
    assert (message.partition, message.offset, message.timestamp_ms) == (
        row.partition,
        row.offset,
        row.timestamp_ms,
    )
    return document


def _assert_covered(archive: Archive, cluster: MockCluster, at: TopicPartition, generation: int) -> None:
    with cluster.read() as state:
        stable = state.topics[at.topic].logs[at.partition].stable
    covered = archive.catalog.coverage([at.topic]).get(
        PartitionLog(at.topic, generation, at.partition), EMPTY
    )
    assert covered == OffsetSet.between(0, stable), f"{at}: {covered} of {stable}"


def _assert_sums(
    archive: Archive, topic: str, entries: Iterable[LedgerEntry], rows: int, copies: int
) -> None:
    entries = list(entries)
    assert sum(entry.archived for entry in entries) == rows
    assert sum(entry.duplicates for entry in entries) == copies
    (summary,) = archive.catalog.summaries([topic])
    assert (summary.messages, summary.duplicates) == (rows, copies)
    assert summary.absent == sum(entry.absent for entry in entries)


def _topics(archive: Archive) -> list[str]:
    return [summary.topic for summary in archive.catalog.summaries()]
