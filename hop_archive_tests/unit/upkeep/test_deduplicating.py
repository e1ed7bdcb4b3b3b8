"""A zoo of duplicates: what is a copy and what only looks like one, found in the archive and moved."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace

import pytest

from hop_archive.catalog.records import Batch, Row
from hop_archive.errors import ConfigurationError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.annotations import Annotations
from hop_archive.model.document import Document, crc32, encode
from hop_archive.model.envelope import ID_HEADER
from hop_archive.model.identity import client_uuid, digest
from hop_archive.model.message import Header, Message, TimestampType
from hop_archive.model.query import Query
from hop_archive.model.slices import Slice
from hop_archive.store.protocol import NewObject
from hop_archive.upkeep.remove.duplicates import deduplicate, find_copies, sorted_topics
from hop_archive_tests.removals import Backed, assert_whole, small_world
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, exhausted

TOPIC, OTHER = "alerts", "news"
ID: tuple[Header, ...] = ((ID_HEADER, bytes(range(16))),)


@dataclass(slots=True)
class Zoo:
    """An archive into which messages are put as no archiver of ours would put them."""

    world: Backed = field(default_factory=small_world)
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)

    def add(
        self,
        value: bytes,
        headers: tuple[Header, ...] = (),
        *,
        timestamp_ms: int = 1_000,
        topic: str = TOPIC,
        generation: int = 1,
        adopted: bool = False,
        own: uuid.UUID | None = None,
    ) -> uuid.UUID:
        """A message with a row of its own; the UUID that it is archived under."""
        offset = self.offsets.get((topic, generation), 0)
        place = (-1, -1) if adopted else (0, offset)
        message = Message(topic, *place, timestamp_ms, TimestampType.CREATE, None, value, headers)
        own = own or uuid.UUID(int=len(self.world.rows()) + 1)
        content = b"" if adopted else digest(None, headers, value)
        mine = client_uuid(headers) == own
        document = Document(message, own, mine, content, crc32(value), Annotations())
        body, key = encode(document), f"{topic}/1970/1/1/0/{own}.bson"
        for store in (self.world.store, self.world.backup):
            store.create([NewObject(key, body)])
        row = Row(
            topic, generation, 0, offset, timestamp_ms, TimestampType.CREATE, own, mine, content, key, "mock",
            None, len(body), crc32(body), crc32(value), Annotations(),
        )  # fmt: skip
        if adopted:
            nulls = {"generation": None, "partition": None, "offset": None, "timestamp_type": None}
            self.world.catalog.adopt([row._replace(digest=None, **nulls)])  # type: ignore[arg-type]
        else:
            self.world.catalog.commit(Batch(Slice(topic, generation, 0, offset, offset + 1), rows=[row]))
            self.offsets[topic, generation] = offset + 1
        return own

    def copies(self) -> dict[uuid.UUID, uuid.UUID]:
        """The copies that are found, and what each is a copy of."""
        return {pair.copy.uuid: pair.kept.uuid for pair in find_copies(self.world.removing())}


def test_the_same_id_with_the_same_content_is_a_copy_whatever_its_timestamp_and_generation() -> None:
    zoo = Zoo()
    first = zoo.add(b"x", ID, own=uuid.UUID(bytes=ID[0][1]))
    later = zoo.add(b"x", ID, timestamp_ms=99_000)
    reborn = zoo.add(b"x", ID, generation=2)
    assert zoo.copies() == {later: first, reborn: first}


def test_the_same_id_with_other_content_is_no_copy() -> None:
    zoo = Zoo()
    zoo.add(b"x", ID, own=uuid.UUID(bytes=ID[0][1]))
    zoo.add(b"y", ID)
    zoo.add(b"x", (*ID, ("more", b"1")))
    assert zoo.copies() == {}


def test_without_an_id_the_same_content_is_a_copy_at_the_same_time_only() -> None:
    zoo = Zoo()
    first = zoo.add(b"beat")
    for n in range(1, 30):
        zoo.add(b"beat", timestamp_ms=1_000 + n)
    again = zoo.add(b"beat")
    late = zoo.add(b"beat", timestamp_ms=1_003)
    kept = next(row.uuid for row in zoo.world.rows() if row.timestamp_ms == 1_003)
    assert zoo.copies() == {again: first, late: kept}


def test_copies_across_topics_are_none() -> None:
    zoo = Zoo()
    zoo.add(b"x", ID, own=uuid.UUID(bytes=ID[0][1]))
    zoo.add(b"x", ID, topic=OTHER)
    assert zoo.copies() == {}


def test_an_adopted_row_is_a_copy_where_time_and_content_agree() -> None:
    zoo = Zoo()
    old = zoo.add(b"theirs", adopted=True)
    ours = zoo.add(b"theirs")
    twice = zoo.add(b"theirs", adopted=True)
    zoo.add(b"theirs", timestamp_ms=2_000, adopted=True)
    zoo.add(b"theirs", (("a", b""),))
    assert zoo.copies() == {ours: old, twice: old}


def test_an_adopted_row_whose_checksum_agrees_by_chance_is_none() -> None:
    zoo = Zoo()
    zoo.add(b"plumless", adopted=True)
    zoo.add(b"buckeroo")
    assert crc32(b"plumless") == crc32(b"buckeroo")
    assert zoo.copies() == {}


def test_an_empty_message_is_a_copy_of_an_adopted_one_where_key_and_headers_agree_too() -> None:
    zoo = Zoo()
    old = zoo.add(b"", (("a", b"1"),), adopted=True)
    again = zoo.add(b"", (("a", b"1"),))
    zoo.add(b"", (("a", b"2"),))
    assert zoo.copies() == {again: old}


def test_what_can_not_be_read_is_no_copy() -> None:
    zoo = Zoo()
    zoo.add(b"x")
    lost = zoo.add(b"x")
    row = zoo.world.catalog.find(lost)
    assert row is not None
    zoo.world.store.delete([row.object_key])
    assert zoo.copies() == {}


def test_copies_become_duplicates_of_the_oldest_their_objects_go_and_a_second_run_finds_nothing() -> None:
    zoo = Zoo()
    first = zoo.add(b"x", ID, own=uuid.UUID(bytes=ID[0][1]))
    later = zoo.add(b"x", ID, timestamp_ms=99_000)
    adopted = zoo.add(b"z")
    zoo.add(b"z", adopted=True)
    zoo.world.catalog.retract([later], retracted=True)
    removing = zoo.world.removing()
    deduplicate(removing)
    assert removing.tally.removed.messages == removing.tally.objects == removing.tally.copies == 2
    assert {row.uuid: row.retracted for row in zoo.world.rows()} == {first: True, adopted: False}
    assert [(d.offset, d.uuid) for _, d in zoo.world.catalog.duplicates(TOPIC)] == [(1, first)]
    assert_whole(zoo.world)
    assert zoo.copies() == {}


def test_what_was_archived_by_us_has_no_copies_though_it_was_published_often() -> None:
    world = small_world()
    for partition in (0, 1, 0):
        world.cluster.append(BUSY, b"again", headers=ID, partition=partition)
    exhausted(catch_up(world.archive(), overlap=0))
    assert list(find_copies(world.removing(), Query(topics=(BUSY,)))) == []


def test_a_store_that_is_not_that_of_the_rows_is_refused() -> None:
    zoo = Zoo()
    zoo.add(b"x")
    zoo.add(b"x")
    with pytest.raises(ConfigurationError, match="name the bucket mock; store backup is the bucket backup"):
        list(find_copies(replace(zoo.world.removing(), store=zoo.world.backup)))


def test_what_archiving_itself_leaves_twice_is_found_without_sorting_all_digests() -> None:
    """A publisher's UUID that is in use by other content, and a message under it that comes again and again."""
    world = small_world()
    world.cluster.append(BUSY, b"first", headers=ID)
    for number in range(3):
        world.cluster.append(BUSY, b"second", headers=ID, timestamp_ms=NOW_MS + number, partition=number % 2)
        exhausted(catch_up(world.archive(), overlap=0))
    everything = list(find_copies(world.removing()))
    assert len(everything) == 2
    assert list(find_copies(world.removing(), sorting=())) == everything


def test_the_digests_of_the_smallest_topics_are_sorted_up_to_a_number() -> None:
    world = small_world()  # ten messages and three
    exhausted(catch_up(world.archive(), overlap=0))
    found = [sorted_topics(world.removing(), most=most) for most in (2, 3, 12, 13)]
    assert found == [frozenset(), {QUIET}, {QUIET}, {BUSY, QUIET}]
    assert sorted_topics(world.removing(), Query(topics=(BUSY,)), most=10) == {BUSY}
