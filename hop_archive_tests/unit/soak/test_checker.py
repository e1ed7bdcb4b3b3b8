"""The soak's checker agrees with an archive that is whole, and finds each kind of loss; it shares no code with the archive."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bson
import pytest

from hop_archive.devkit.known_set import known_set
from hop_archive.ingest.follow import catch_up
from hop_archive.store.protocol import Extent
from hop_archive_tests.soak.checker import Record, Sent, decompressed, derived, digest, judge, read_record
from hop_archive_tests.worlds import NOW_MS, World, WorldLayout, exhausted

TOPICS = ("first", "second")
BUCKET = "mock"


@dataclass
class Facts:
    """All that the checker looks at, to be damaged."""

    record: Record
    rows: list[Any]
    batches: list[Any]
    copies: list[Any]
    objects: dict[str, bytes]

    def wrong(self) -> dict[str, int]:
        self.rows.sort(key=lambda row: (row.key, row.frame or 0, row.position or 0))
        told = judge(self.record, self.rows, self.batches, self.copies, lambda _, key: self.objects.get(key))
        found: dict[str, int] = told["wrong"]
        assert bool(told["first"]) == bool(found)
        return found


@pytest.fixture(params=["message", "segment", "zstd"])
def facts(request: pytest.FixtureRequest) -> Facts:
    """An archive of every odd message, some under a UUID that another one has."""
    made = archived(request.param)

    def again(rows: list[Any]) -> list[Any]:
        return [SimpleNamespace(**vars(row)) for row in rows]

    record = Record(dict(made.record.messages), dict(made.record.acknowledged))
    return Facts(record, again(made.rows), again(made.batches), again(made.copies), dict(made.objects))


@cache
def archived(layout: WorldLayout) -> Facts:
    world, record = World(layout), Record()
    for topic in TOPICS:
        world.cluster.create_topic(topic, 2)
        for sample in known_set(topic, now_ms=NOW_MS, seed=5, partitions=2):
            partition, number = sample.partition or 0, len(record.messages)
            timestamp_ms = NOW_MS + number if sample.timestamp_ms is None else sample.timestamp_ms
            at = world.cluster.append(
                topic,
                sample.value,
                key=sample.key,
                headers=sample.headers,
                timestamp_ms=timestamp_ms,
                partition=partition,
            )
            content = digest(sample.key, sample.headers, sample.value)
            record.messages[number] = Sent(topic, content, sample.timestamp_ms)
            record.acknowledged[topic, partition, at.offset] = (number, timestamp_ms)
    exhausted(catch_up(world.archive()))
    catalog = world.catalog
    rows = [
        SimpleNamespace(
            **row._asdict(),
            timestamp=row.timestamp_ms,
            key=row.object_key,
            size=row.size_bytes,
        )
        for topic in TOPICS
        for row in catalog.rows(topic)
    ]
    batches = [
        SimpleNamespace(
            topic=e.slice.topic,
            generation=e.slice.generation,
            partition=e.slice.partition,
            start=e.slice.start,
            stop=e.slice.stop,
            outcome=e.outcome.value,
            reason=e.reason,
            archived=e.archived,
            duplicates=e.duplicates,
            absent=e.absent,
        )
        for e in sorted(catalog.ledger(TOPICS), key=lambda entry: entry.slice)
    ]
    copies = [
        SimpleNamespace(
            topic=log.topic,
            generation=1,
            partition=log.partition,
            offset=d.offset,
            timestamp=d.timestamp_ms,
            uuid=d.uuid,
        )
        for topic in TOPICS
        for log, d in catalog.duplicates(topic)
    ]
    infos = list(world.store.listing())
    bodies = world.store.fetch(Extent(info.key) for info in infos)
    objects = {info.key: body for info, body in zip(infos, bodies, strict=True)}
    return Facts(record, rows, batches, copies, objects)


def test_an_archive_that_is_whole_has_nothing_wrong(facts: Facts) -> None:
    assert facts.copies
    assert facts.wrong() == {}


Damage = Callable[[Facts], None]


def _first(facts: Facts) -> Any:
    """A row of a message that no duplicate refers to."""
    referred = {copy.uuid for copy in facts.copies}
    return next(row for row in facts.rows if row.uuid not in referred and row.is_client_uuid)


def _lose_a_row(facts: Facts) -> None:
    facts.rows.remove(_first(facts))


def _lose_an_object(facts: Facts) -> None:
    del facts.objects[_first(facts).key]


def _lose_the_end(facts: Facts) -> None:
    last = facts.batches.pop()
    log = (last.topic, last.partition)
    facts.rows = [row for row in facts.rows if (row.topic, row.partition) != log or row.offset < last.start]
    facts.copies = [
        row for row in facts.copies if (row.topic, row.partition) != log or row.offset < last.start
    ]


def _damage_a_byte(facts: Facts) -> None:
    row = _first(facts)
    body = bytearray(facts.objects[row.key])
    body[(row.frame or row.position or 0) + 30] ^= 1
    facts.objects[row.key] = bytes(body)


def _count_a_message_as_absent(facts: Facts) -> None:
    row = _first(facts)
    facts.rows.remove(row)
    batch = _batch_of(facts, row)
    batch.archived, batch.absent = batch.archived - 1, 1


def _batch_of(facts: Facts, row: Any) -> Any:
    log = (row.topic, row.partition)
    return next(b for b in facts.batches if (b.topic, b.partition) == log and b.start <= row.offset < b.stop)


def _take_a_message_for_a_duplicate_of_another(facts: Facts) -> None:
    row, other = _first(facts), facts.rows[-1]
    facts.rows.remove(row)
    batch = _batch_of(facts, row)
    batch.archived, batch.duplicates = batch.archived - 1, batch.duplicates + 1
    facts.copies.append(
        SimpleNamespace(
            topic=row.topic,
            generation=1,
            partition=row.partition,
            offset=row.offset,
            timestamp=row.timestamp,
            uuid=other.uuid,
        )
    )


def _lose_what_a_duplicate_repeats(facts: Facts) -> None:
    facts.copies[0].uuid = uuid.UUID(int=1)


def _archive_a_duplicate(facts: Facts) -> None:
    """The document again, under a UUID that the archive derives, at the duplicate's place."""
    copy = next(copy for copy in facts.copies)
    facts.copies.remove(copy)
    row = next(row for row in facts.rows if row.uuid == copy.uuid)
    batch = _batch_of(facts, copy)
    batch.archived, batch.duplicates = batch.archived + 1, batch.duplicates - 1
    stored = facts.objects[row.key]
    document = bson.decode(_body(row, stored))
    given = derived(SimpleNamespace(topic=row.topic, timestamp=copy.timestamp), row.digest)[0]
    headers = document["metadata"]["headers"]
    received = headers if row.is_client_uuid else headers[:-1]
    document["metadata"] |= {
        "offset": bson.Int64(copy.offset),
        "partition": copy.partition,
        "timestamp": bson.Int64(copy.timestamp),
        "headers": [*received, ["_id", given.bytes]],
    }
    document["annotations"] |= {"con_text_uuid": str(given), "con_is_client_uuid": False}
    body = bson.encode(document)
    new = SimpleNamespace(**vars(row))
    new.uuid, new.is_client_uuid, new.key, new.position, new.frame = given, False, "twice.bson", None, None
    new.offset, new.partition, new.timestamp, new.size = (
        copy.offset,
        copy.partition,
        copy.timestamp,
        len(body),
    )
    new.crc32 = zlib.crc32(body)
    facts.rows.append(new)
    facts.objects[new.key] = body


def _body(row: Any, stored: bytes) -> bytes:
    if row.frame is not None:
        stored = decompressed(stored[row.frame : row.frame + row.frame_size])
    start = row.position or 0
    return stored[start : start + row.size]


def _leave_a_gap(facts: Facts) -> None:
    facts.batches.remove(next(batch for batch in facts.batches if batch.start == 0))


def _cover_twice(facts: Facts) -> None:
    facts.batches.insert(1, SimpleNamespace(**vars(facts.batches[0])))


def _tell_that_it_is_lost(facts: Facts) -> None:
    facts.batches[0].outcome = "lost"


def _begin_another_generation(facts: Facts) -> None:
    facts.batches.append(
        SimpleNamespace(**{**vars(facts.batches[0]), "generation": 2, "archived": 0, "duplicates": 0})
    )


def _send_something_else(facts: Facts) -> None:
    row = _first(facts)
    number, _ = facts.record.acknowledged[row.topic, row.partition, row.offset]
    sent = facts.record.messages[number]
    facts.record.messages[number] = sent._replace(digest=b"another")


def _send_at_another_time(facts: Facts) -> None:
    row = _first(facts)
    place = (row.topic, row.partition, row.offset)
    number, _ = facts.record.acknowledged[place]
    facts.record.acknowledged[place] = (number, 1)


def _say_another_offset(facts: Facts) -> None:
    """As if a document stood under the row of its neighbour."""
    row = _first(facts)
    row.partition += 1


DAMAGES: dict[Damage, set[str]] = {
    _lose_a_row: {"lost", "sums of the ledger"},
    _lose_an_object: {"row points at nothing", "lost"},
    _lose_the_end: {"lost", "not covered"},
    _damage_a_byte: set(),
    _count_a_message_as_absent: {"lost", "told to be gone"},
    _take_a_message_for_a_duplicate_of_another: {"a duplicate of something else"},
    _lose_what_a_duplicate_repeats: {"a duplicate of nothing"},
    _archive_a_duplicate: {"one message under two UUIDs"},
    _leave_a_gap: {"gap or overlap in the ledger"},
    _cover_twice: {"gap or overlap in the ledger"},
    _tell_that_it_is_lost: {"told to be gone"},
    _begin_another_generation: {"a generation that never was"},
    _send_something_else: {"other bytes than were sent", "nobody sent what is archived"},
    _send_at_another_time: {"another timestamp"},
    _say_another_offset: {"row and document differ"},
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_each_kind_of_loss_is_found(facts: Facts, damage: Damage) -> None:
    damage(facts)
    found = facts.wrong()
    assert found
    assert DAMAGES[damage] <= found.keys(), found


def test_two_rows_at_one_place_are_found(facts: Facts) -> None:
    row = _first(facts)
    facts.rows.append(SimpleNamespace(**vars(row)))
    assert {"archived twice", "two messages of one UUID"} <= facts.wrong().keys()


def test_what_was_sent_and_never_acknowledged_may_be_archived_or_not(facts: Facts) -> None:
    row = _first(facts)
    del facts.record.acknowledged[row.topic, row.partition, row.offset]
    facts.record.messages[1_000_000] = Sent("first", b"on its way when the broker went", None)
    assert facts.wrong() == {}


def test_a_record_is_read_as_far_as_it_was_written(tmp_path: Path) -> None:
    message = {
        "number": 0,
        "topic": "t",
        "key": None,
        "value": b"v",
        "headers": [["a", None]],
        "timestamp": None,
    }
    place = {"number": 0, "topic": "t", "partition": 1, "offset": 7, "timestamp": 99}
    (tmp_path / "sent.bson").write_bytes(
        bson.encode(message) + bson.encode(place) + bson.encode(message)[:20]
    )
    record = read_record(tmp_path / "sent.bson")
    assert record.messages == {0: Sent("t", digest(None, [("a", None)], b"v"), None)}
    assert record.acknowledged == {("t", 1, 7): (0, 99)}
    assert record.ends() == {("t", 1): 8}
