"""The pure parts of rebuilding, and what the store may hold that no archive left there."""

from __future__ import annotations

import datetime
import itertools
import sqlite3
import sys
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import bson
import pytest
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import UNKNOWN_CLUSTER, Batch, Generation
from hop_archive.errors import ConfigurationError, ConflictError, DataError, ForbiddenError, UnavailableError
from hop_archive.model.annotations import Annotations
from hop_archive.model.document import Document, crc32, encode
from hop_archive.model.findings import Kind
from hop_archive.model.frames import FramedPlace, compress
from hop_archive.model.identity import digest, identify
from hop_archive.model.keys import alternative_key, attempt_of, object_key, segment_key, slice_of
from hop_archive.model.message import Message, TimestampType
from hop_archive.model.slices import OffsetSet, Slice
from hop_archive.recover.rebuild.cut import cut, disjoint
from hop_archive.recover.rebuild.generations import KnownGenerations
from hop_archive.recover.rebuild.plan import stored_topics
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.recover.rebuild.spill import Spill, Unplaced, file_name
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import NewObject
from hop_archive_tests.strategies import strangely_typed

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdCompressor
else:
    from backports.zstd import ZstdCompressor

RANGES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 12)).map(lambda p: (p[0], p[0] + p[1])), max_size=8
)


# Cutting


@given(claims=RANGES, offsets=st.sets(st.integers(0, 80)), most=st.integers(1, 6))
def test_every_item_is_in_one_cut_and_claims_and_items_are_all_that_is_covered(
    claims: list[tuple[int, int]], offsets: set[int], most: int
) -> None:
    cuts = list(cut(disjoint(claims), [(offset, str(offset)) for offset in sorted(offsets)], most))
    assert [offset for one in cuts for offset, _ in one.items] == sorted(offsets)
    assert all(one.start <= offset < one.stop for one in cuts for offset, _ in one.items)
    assert all(len(one.items) <= most for one in cuts)
    assert all(before.stop <= after.start for before, after in itertools.pairwise(cuts))
    wanted = OffsetSet.of([*claims, *((offset, offset + 1) for offset in offsets)])
    assert OffsetSet.of((one.start, one.stop) for one in cuts) == wanted
    assert sum(one.stop - one.start for one in cuts) == wanted.size


def test_segments_that_do_not_overlap_keep_their_own_ranges() -> None:
    assert disjoint([(10, 20), (0, 10), (20, 30)]) == [(0, 10), (10, 20), (20, 30)]
    assert disjoint([(0, 10), (0, 15), (5, 12)]) == [(0, 10), (10, 15)]


# KnownGenerations of a topic

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def lives(
    found: list[Unplaced], known: Sequence[tuple[int, str, int]] = (), numbers: Sequence[int] = ()
) -> dict[int, int]:
    generations = [
        Generation("t", number, cluster, None, EPOCH + datetime.timedelta(milliseconds=seen_ms), "")
        for number, cluster, seen_ms in known
    ]
    return dict(KnownGenerations.of(generations, numbers, found).placed(found))


def home(number: int, offset: int, content: bytes, modified_ms: int) -> Unplaced:
    return Unplaced(number, (0, offset), (0, content), modified_ms, frozenset())


def test_documents_whose_places_do_not_collide_are_of_the_newest_generation_or_the_first() -> None:
    found = [home(n, n, b"%d" % n, 100 + n) for n in range(4)]
    assert set(lives(found).values()) == {1}
    assert set(lives(found, numbers=[1, 3]).values()) == {3}


def test_places_that_collide_tell_two_lives_apart_by_when_they_were_stored() -> None:
    first = [home(n, n, b"a%d" % n, 100 + n) for n in range(6)]
    second = [home(10 + n, n, b"b%d" % n, 200 + n) for n in range(3)]
    found = sorted([*first, *second], key=lambda one: (one.place, one.modified_ms))
    placed = lives(found)
    assert [placed[one.id] for one in first] == [1] * 6, (
        "offsets that only the first reached are of the first"
    )
    assert [placed[one.id] for one in second] == [2] * 3


def test_what_was_stored_at_once_gets_a_place_each_all_the_same() -> None:
    found = [home(n, n // 2, b"%d" % n, 100) for n in range(6)]
    placed = lives(found)
    assert set(placed.values()) == {1, 2}
    assert all({placed[n], placed[n + 1]} == {1, 2} for n in (0, 2, 4))


def test_known_generations_tell_by_when_they_were_first_seen() -> None:
    known = [(1, "c", 100), (2, "c", 200)]
    found = [home(1, 0, b"a", 150), home(2, 1, b"b", 250), home(3, 2, b"c", 50)]
    assert lives(found, known) == {1: 1, 2: 2, 3: 1}
    assert lives(found, [(1, UNKNOWN_CLUSTER, 90), (2, "c", 200)]) == {1: 1, 2: 2, 3: 1}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 5), st.integers(0, 3), st.sets(st.integers(1, 3), max_size=2)
        ),
        max_size=12,
    )
)
def test_no_two_messages_of_other_content_get_one_place(some: list[tuple[int, int, int, set[int]]]) -> None:
    taken = {offset: frozenset(taken) for offset, _, _, taken in some}
    found = [
        Unplaced(n, (0, offset), (0, b"%d" % content), modified_ms, taken[offset])
        for n, (offset, content, modified_ms, _) in enumerate(some)
    ]
    found.sort(key=lambda one: (one.place, one.modified_ms, one.content))
    placed = lives(found)
    assert placed.keys() == {one.id for one in found}
    by_place: dict[tuple[tuple[int, int], int], set[tuple[int, bytes]]] = {}
    for one in found:
        by_place.setdefault((one.place, placed[one.id]), set()).add(one.content)
        assert placed[one.id] not in one.taken
    assert all(len(contents) == 1 for contents in by_place.values())


# Keys


def test_keys_say_what_was_read_and_which_alternative_they_are() -> None:
    key = segment_key("a.b", 2, 1, 5, 9)
    assert slice_of(key) == slice_of(alternative_key(key, 3)) == Slice("a.b", 2, 1, 5, 9)
    assert (attempt_of(key), attempt_of(alternative_key(key, 3))) == (0, 3)
    alone = object_key("a.5.bson", 0, uuid.uuid4())
    assert (attempt_of(alone), attempt_of(alternative_key(alone, 2))) == (0, 2)
    assert slice_of(alone) is slice_of("segments/a/1/0/x.bson") is None


# What a store may hold


def document(offset: int, value: bytes = b"value", **changes: Any) -> Document:
    message = Message(
        "t", 0, offset, 1_700_000_000_000 + offset, TimestampType.CREATE, b"key", value, leader_epoch=0
    )
    identity = identify(message)
    made = Document(message, identity.uuid, False, identity.digest, crc32(value), Annotations(sender="me"))
    return replace(made, **changes)


def key_of(one: Document) -> str:
    return object_key(one.message.topic, one.message.timestamp_ms, one.uuid)


def rebuilt(*objects: NewObject) -> tuple[MockCatalog, list[tuple[str, str]]]:
    store, catalog = MockStore(), MockCatalog()
    store.create(objects)
    return catalog, [(one.kind.value, one.detail) for one in rebuild(Rebuild(catalog, store))]


FORGED = {
    "the digest of other content": lambda one: replace(one, digest=bytes(16)),
    "a UUID of nobody": lambda one: replace(one, uuid=uuid.UUID(int=5)),
    "a publisher's UUID that is in no header": lambda one: replace(one, is_client_uuid=True),
    "another CRC-32": lambda one: replace(one, message_crc32=5),
    "another topic": lambda one: replace(one, message=one.message._replace(topic="u")),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_document_that_does_not_prove_itself_gets_no_row(what: str) -> None:
    one = document(3)
    forged = FORGED[what](one)
    key = object_key("t", one.message.timestamp_ms, forged.uuid)
    catalog, findings = rebuilt(NewObject(key, encode(forged)))
    assert [kind for kind, _ in findings] == [Kind.CORRUPT_OBJECT.value]
    assert list(catalog.topics()) == []


def test_content_that_was_exchanged_under_a_publishers_uuid_gets_no_row() -> None:
    own = uuid.uuid4()
    sent = Message(
        "t", 0, 3, 1_700_000_000_000, TimestampType.CREATE, b"key", b"value", (("_id", own.bytes),)
    )
    was = Document(sent, own, True, digest(b"key", sent.headers, b"value"), crc32(b"value"))
    catalog, findings = rebuilt(NewObject(key_of(was), encode(was)))
    assert (len(list(catalog.rows("t"))), findings) == (1, [])
    exchanged = replace(was, message=sent._replace(key=b"another"))
    catalog, findings = rebuilt(NewObject(key_of(was), encode(exchanged)))
    assert [kind for kind, _ in findings] == [Kind.CORRUPT_OBJECT.value]
    assert list(catalog.topics()) == []


def test_a_sound_document_under_the_key_of_another_message_gets_no_row() -> None:
    catalog, findings = rebuilt(NewObject(key_of(document(4)), encode(document(3))))
    assert [kind for kind, _ in findings] == [Kind.CORRUPT_OBJECT.value]
    assert list(catalog.topics()) == []


def test_a_document_outside_of_its_segments_slice_gets_no_row_and_the_slice_is_not_claimed() -> None:
    body = encode(document(3)) + encode(document(9))
    catalog, findings = rebuilt(NewObject(segment_key("t", 1, 0, 0, 5), body))
    assert [kind for kind, _ in findings] == [Kind.CORRUPT_OBJECT.value]
    assert [row.offset for row in catalog.rows("t")] == [3]
    assert [str(entry.slice) for entry in catalog.ledger()] == ["t[0]@3-4 (generation 1)"]


def test_segments_larger_than_a_piece_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hop_archive.recover.rebuild.evidence._PIECE_BYTES", 100)
    bodies = [encode(document(offset, b"x" * (offset * 37 % 400))) for offset in range(20)]
    catalog, findings = rebuilt(NewObject(segment_key("t", 1, 0, 0, 20), b"".join(bodies)))
    assert findings == []
    rows = list(catalog.rows("t"))
    assert [row.size_bytes for row in rows] == [len(body) for body in bodies]
    assert [row.position for row in rows] == [sum(len(b) for b in bodies[:n]) for n in range(20)]


COMPRESSED = segment_key("t", 1, 0, 0, 20, compressed=True)


@pytest.fixture
def framed(monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, list[FramedPlace]]:
    """A compressed segment of twenty documents in several frames, read in small pieces, and their places."""
    monkeypatch.setattr("hop_archive.recover.rebuild.evidence._PIECE_BYTES", 1_000)
    monkeypatch.setattr("hop_archive.model.frames.FRAME_BYTES", 2_000)
    return compress([encode(document(offset, b"x" * (offset * 37 % 400))) for offset in range(20)])


Framed: TypeAlias = tuple[bytes, list[FramedPlace]]


def test_a_compressed_segment_gives_every_row_with_its_place(framed: Framed) -> None:
    body, places = framed
    catalog, findings = rebuilt(NewObject(COMPRESSED, body))
    assert findings == []
    rows = list(catalog.rows("t"))
    assert [(row.frame, row.frame_size, row.position) for row in rows] == [
        (*place.frame, place.position) for place in places
    ]
    assert len({place.frame for place in places}) > 3


@pytest.mark.parametrize("at", [0, 4, 12, -1])
@pytest.mark.parametrize("which", [0, 8, 19])
def test_a_damaged_frame_costs_its_own_documents_only(framed: Framed, at: int, which: int) -> None:
    body, places = framed
    frame = places[which].frame
    damaged = bytearray(body)
    damaged[frame.position + at % frame.size_bytes] ^= 0xFF
    catalog, findings = rebuilt(NewObject(COMPRESSED, bytes(damaged)))
    assert {kind for kind, _ in findings} == {Kind.CORRUPT_OBJECT.value}
    sound = [offset for offset, place in enumerate(places) if place.frame != frame]
    assert [row.offset for row in catalog.rows("t")] == sound


def test_without_its_seek_table_a_compressed_segment_gives_what_follows_one_another(framed: Framed) -> None:
    body, places = framed
    end = places[-1].frame.position + places[-1].frame.size_bytes
    for cut_at in (end, end + 5, len(body) - 1):
        catalog, findings = rebuilt(NewObject(COMPRESSED, body[:cut_at]))
        assert [kind for kind, _ in findings] == [Kind.CORRUPT_OBJECT.value]
        assert len(list(catalog.rows("t"))) == 20
    last = places[-1].frame
    catalog, findings = rebuilt(NewObject(COMPRESSED, body[: last.position + 10]))
    assert [kind for kind, _ in findings] == [Kind.CORRUPT_OBJECT.value]
    assert [row.offset for row in catalog.rows("t")] == [n for n, at in enumerate(places) if at.frame != last]


def test_of_a_frame_that_claims_too_much_nothing_is_made() -> None:
    bomb = ZstdCompressor().compress(bytes(64 * 2**20), ZstdCompressor.FLUSH_FRAME)
    catalog, findings = rebuilt(NewObject(COMPRESSED, bomb))
    assert any("claims 67108864 bytes" in detail for _, detail in findings)
    assert list(catalog.topics()) == []


def test_a_frame_that_ends_within_a_document_is_told(framed: Framed) -> None:
    body, _ = compress([encode(document(1)), encode(document(2))[:-1]])
    catalog, findings = rebuilt(NewObject(COMPRESSED, body))
    assert [kind for kind, _ in findings] == [Kind.CORRUPT_OBJECT.value]
    assert [row.offset for row in catalog.rows("t")] == [1]


def test_foreign_objects_and_what_the_archive_keeps_for_itself_are_passed_over() -> None:
    objects = [
        NewObject(key, b"?") for key in ("top.txt", "t/readme.md", "hop_archive/probe", "segments/t/x.bson")
    ]
    catalog, findings = rebuilt(*objects, NewObject(key_of(document(3)), encode(document(3))))
    assert findings == []
    assert len(list(catalog.rows("t"))) == 1


def test_documents_of_another_archiver_become_rows_as_it_leaves_them() -> None:
    one = document(3)
    fields = bson.decode(encode(one))
    for name in ("partition", "offset", "timestamp_type", "leader_epoch"):
        del fields["metadata"][name]
    del fields["annotations"]["digest"]
    body = bson.encode(fields)
    catalog, findings = rebuilt(NewObject(key_of(one), body))
    assert findings == []
    (row,) = catalog.rows("t")
    assert (row.generation, row.partition, row.offset, row.digest, row.timestamp_type) == (None,) * 5
    assert (row.uuid, row.size_bytes, row.crc32, row.annotations.sender) == (
        one.uuid,
        len(body),
        crc32(body),
        "me",
    )
    assert catalog.ledger() == []


def tombstone(one: Document) -> bytes:
    bare = one.message._replace(key=None, value=None, headers=())
    return encode(replace(one, message=bare, suppressed="by court order"))


@pytest.mark.parametrize("attempts", [(0, 1), (1, 0)])
def test_a_tombstone_takes_the_place_of_its_message_whichever_was_stored_last(
    attempts: tuple[int, int],
) -> None:
    one, other = document(3), document(4)
    first, second = (alternative_key(key_of(one), attempt) for attempt in attempts)
    objects = [
        NewObject(first, tombstone(one)),
        NewObject(key_of(other), encode(other)),
        NewObject(second, encode(one)),
    ]
    catalog, findings = rebuilt(*objects)
    assert [kind for kind, _ in findings] == [Kind.ORPHAN_OBJECT.value]
    removed, kept = catalog.rows("t")
    assert (removed.object_key, removed.size_bytes) == (objects[0].key, len(objects[0].body))
    assert removed.digest == digest(b"key", (), b"value")
    assert kept.object_key == objects[1].key
    with catalog._state.read() as tables:
        assert {own: said.reason for own, said in tables.suppressions.items()} == {one.uuid: "by court order"}


def test_content_that_the_catalog_knows_to_be_removed_does_not_come_back() -> None:
    one, other = document(3), document(4)
    store, catalog = MockStore(), MockCatalog()
    store.create([NewObject(key_of(d), encode(d)) for d in (one, other)])
    catalog.suppress({one.uuid: "t"}, "by court order")
    wanted = Rebuild(catalog, store)
    assert [(t.kind, t.uuid) for t in rebuild(wanted)] == [(Kind.ORPHAN_OBJECT, one.uuid)]
    assert [row.uuid for row in catalog.rows("t")] == [other.uuid]


def test_topics_are_found_by_jumping_over_folders_and_patterns_must_mean_one() -> None:
    store = MockStore()
    for topic in ("a", "a.b", "segments", "z"):
        store.create([NewObject(object_key(topic, 0, uuid.uuid4()), b"?")])
    store.create([NewObject(segment_key("s", 1, 0, 0, 5), b"?"), NewObject("y/other.txt", b"?")])
    assert stored_topics(store) == ["a", "a.b", "s", "segments", "z"]
    assert stored_topics(store, ("a*",)) == ["a", "a.b"]
    with pytest.raises(ConfigurationError, match="no messages of a topic x"):
        stored_topics(store, ("x",))


# One bad document, or topic, never stops the others


def document_of(topic: str, offset: int) -> Document:
    message = Message(topic, 0, offset, 1_700_000_000_000 + offset, TimestampType.CREATE, None, b"v")
    identity = identify(message)
    return Document(message, identity.uuid, False, identity.digest, crc32(b"v"), Annotations())


def altered(one: Document, part: str, name: str, value: object) -> bytes:
    fields = bson.decode(encode(one))
    fields[part][name] = value
    return bson.encode(fields)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("annotations", "digest", Int64(2**50)),
        ("annotations", "digest", Int64(2**63 - 1)),
        ("annotations", "title", 5),
        ("annotations", "title", "a\x00b"),
        ("metadata", "partition", {"a": 1}),
        ("metadata", "partition", -1),
        ("metadata", "offset", Int64(2**63 - 1)),
        ("metadata", "offset", -1),
        ("metadata", "offset", []),
        ("metadata", "timestamp", 1.5),
        ("metadata", "topic", None),
    ],
)
@pytest.mark.parametrize("in_segment", [False, True])
def test_a_document_with_a_field_of_any_kind_is_one_trouble_and_the_others_get_rows(
    part: str, name: str, value: object, in_segment: bool
) -> None:
    bad, good = altered(document(3), part, name, value), encode(document(4))
    objects = [NewObject(key_of(document(3)), bad), NewObject(key_of(document(4)), good)]
    if in_segment:
        objects = [NewObject(segment_key("t", 1, 0, 0, 9), bad + good)]
    other = document_of("u", 0)
    catalog, findings = rebuilt(*objects, NewObject(key_of(other), encode(other)))
    assert [kind for kind, _ in findings] == [Kind.CORRUPT_OBJECT.value]
    assert [row.offset for row in catalog.rows("t")] == [4]
    assert [row.uuid for row in catalog.rows("u")] == [other.uuid]


@given(strangely_typed(document(3)), st.booleans())
def test_whatever_a_document_says_the_others_get_their_rows(strange: bytes, in_segment: bool) -> None:
    good = document(4)
    objects = [NewObject(key_of(document(3)), strange), NewObject(key_of(good), encode(good))]
    if in_segment:
        objects = [NewObject(segment_key("t", 1, 0, 0, 9), strange + encode(good))]
    catalog, _ = rebuilt(*objects)
    assert good.uuid in {row.uuid for row in catalog.rows("t")}


@pytest.mark.parametrize("length", [239, 240, 249])
def test_topics_whose_names_are_as_long_as_kafka_lets_them_be_are_rebuilt(
    tmp_path: Path, length: int
) -> None:
    some = [document_of(topic, 0) for topic in ("x" * length, "x" * (length - 1) + "y", "z")]
    store, catalog = MockStore(), MockCatalog()
    store.create([NewObject(key_of(one), encode(one)) for one in some])
    assert list(rebuild(Rebuild(catalog, store, work_dir=tmp_path))) == []
    assert list(catalog.topics()) == sorted(one.message.topic for one in some)
    assert list(tmp_path.iterdir()) == []


class Choosy(MockCatalog):
    """Refuses all that is of some topics, as a database may for a reason of its own."""

    def __init__(self, refused: dict[str, Exception]) -> None:
        super().__init__()
        self._refused = refused

    def commit(self, *batches: Batch) -> None:
        for batch in batches:
            if error := self._refused.get(batch.slice.topic):
                raise error
        super().commit(*batches)


def a_store_of(*topics: str) -> MockStore:
    store = MockStore()
    store.create([NewObject(key_of(one), encode(one)) for one in (document_of(topic, 0) for topic in topics)])
    return store


def test_a_topic_that_cannot_be_rebuilt_is_named_once_all_others_are_done() -> None:
    catalog = Choosy({"b": ForbiddenError("no room for it.")})
    wanted = Rebuild(catalog, a_store_of("a", "b", "c"))
    with pytest.raises(ForbiddenError, match=r"1 topic could not be rebuilt.*b: no room for it\."):
        list(rebuild(wanted))
    assert list(catalog.topics()) == ["a", "c"]
    assert wanted.progress.counts["topics"] == 2


def test_topics_that_fail_for_several_reasons_are_all_named() -> None:
    catalog = Choosy({"a": ForbiddenError("no room."), "b": ConfigurationError("no right.")})
    with pytest.raises(DataError, match=r"2 topics could not be rebuilt.*a: no room\. b: no right\."):
        list(rebuild(Rebuild(catalog, a_store_of("a", "b", "c"))))
    assert list(catalog.topics()) == ["c"]


def test_a_fault_of_our_own_in_one_topic_leaves_the_others_done_and_is_raised_as_it_is() -> None:
    catalog = Choosy({"a": ZeroDivisionError("ours")})
    with pytest.raises(ZeroDivisionError):
        list(rebuild(Rebuild(catalog, a_store_of("a", "b"))))
    assert list(catalog.topics()) == ["b"]


def test_a_topic_that_is_too_much_for_a_server_which_answers_leaves_the_others_done() -> None:
    catalog = Choosy({"a": UnavailableError("it took too long.")})
    with pytest.raises(UnavailableError, match="a: it took too long"):
        list(rebuild(Rebuild(catalog, a_store_of("a", "b"))))
    assert list(catalog.topics()) == ["b"]


def test_a_server_that_does_not_answer_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, store = Choosy({"a": UnavailableError("slow.")}), a_store_of("a", "b")

    def silent() -> None:
        raise UnavailableError("down.")

    monkeypatch.setattr(store, "check", silent)
    with pytest.raises(UnavailableError, match=r"^down\.$"):
        list(rebuild(Rebuild(catalog, store)))
    assert list(catalog.topics()) == []


# The file


def test_two_rebuilds_in_one_folder_are_refused(tmp_path: Path) -> None:
    store = MockStore()
    store.create([NewObject(key_of(document(3)), encode(document(3)))])
    with Spill(tmp_path / file_name("t"), "t"), pytest.raises(ConflictError):
        list(rebuild(Rebuild(MockCatalog(), store, work_dir=tmp_path)))


def test_a_file_of_before_there_were_frames_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / file_name("t")
    with Spill(path, "t"):
        pass
    with closing(sqlite3.connect(path)) as connection:
        for name in ("frame", "frame_size"):
            connection.execute(f"ALTER TABLE found DROP COLUMN {name}")
    store, catalog = MockStore(), MockCatalog()
    body, _ = compress([encode(document(3))])
    store.create([NewObject(COMPRESSED, body)])
    assert list(rebuild(Rebuild(catalog, store, work_dir=tmp_path))) == []
    assert [row.frame for row in catalog.rows("t")] == [0]


def test_a_file_that_is_none_of_ours_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / file_name("t")).write_bytes(b"no database, whatever its name says" * 99)
    store = MockStore()
    store.create([NewObject(key_of(document(3)), encode(document(3)))])
    with pytest.raises(ConfigurationError, match="Delete it"):
        list(rebuild(Rebuild(MockCatalog(), store, work_dir=tmp_path)))
