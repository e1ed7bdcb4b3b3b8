"""What every store keeps to, in memory, in a directory and behind S3; then what only a server can do wrong."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.devkit.faults import Fault, Faults, When, fail
from hop_archive.errors import (
    ConfigurationError,
    CorruptError,
    ForbiddenError,
    HopArchiveError,
    MissingSettingError,
    ObjectMissingError,
    UnavailableError,
    UnsupportedError,
)
from hop_archive.model.frames import Frame, compress
from hop_archive.model.keys import object_key, segment_key
from hop_archive.store.coalesce import MAX_GAP_BYTES, MAX_SPAN_BYTES, Span, spans
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Created, Extent, NewObject, Store
from hop_archive.store.s3.read_ahead import FIRST_ROOM_BYTES, Fetched, ReadAhead
from hop_archive.store.s3.store import MAX_AHEAD_BYTES, S3Store
from hop_archive_tests.contract.store_fixtures import (  # fixtures are found by their names
    READER_KEYS,
    BreakingProxy,
    Opened,
    S3Server,
    ScriptedServer,
    moto_endpoint,
    opened,
    own_s3,
    page,
    proven,
    s3,
    s3_server,
    s3mock_address,
    silent_server,
    store,
)

__all__ = ["moto_endpoint", "opened", "own_s3", "page", "s3", "s3_server", "s3mock_address", "store"]

NEW, SAME, OTHER = Created.NEW, Created.SAME, Created.OTHER

# Topics that Kafka allows, in byte order of their folders: '-' and '.' come before '/', the others after.
TOPICS = (
    "-",
    "-a",
    "...",
    "..a",
    ".a",
    "A",
    "a-",
    "a-b",
    "a.",
    "a..b",
    "a.b",
    "a...",
    "a",
    "a0",
    "a_b",
    "aB",
    "x" * 249,
)


def create(store: Store, **bodies: bytes) -> Sequence[Created]:
    return store.create([NewObject(key, body) for key, body in bodies.items()])


def create_keys(store: Store, keys: Iterable[str]) -> None:
    objects = [NewObject(key, key.encode()) for key in keys]
    assert set(store.create(objects)) == {NEW}


def read(store: Store, key: str) -> bytes:
    (body,) = store.fetch([Extent(key)])
    return body


def keys_of(store: Store, prefix: str = "", start_after: str = "") -> list[str]:
    return [info.key for info in store.listing(prefix, start_after)]


# --- creating


def test_a_new_object_is_there_with_its_bytes(store: Store) -> None:
    assert create(store, key=b"\x00 bytes \xff") == [NEW]
    assert read(store, "key") == b"\x00 bytes \xff"


def test_what_was_created_or_found_there_is_counted(store: Store) -> None:
    before = store.created
    create(store, one=b"1", two=b"2")
    create(store, two=b"2")
    assert store.created - before == 3


def test_the_same_bytes_again_are_the_same(store: Store) -> None:
    create(store, key=b"bytes")
    assert create(store, key=b"bytes") == [SAME]


@pytest.mark.parametrize("other", [b"bytez", b"byte", b"bytes!", b""])
def test_other_bytes_are_refused_and_what_stands_there_stays(store: Store, other: bytes) -> None:
    create(store, key=b"bytes")
    assert create(store, key=other) == [OTHER]
    assert read(store, "key") == b"bytes"


def test_an_empty_body_is_a_body(store: Store) -> None:
    assert create(store, key=b"") == [NEW]
    assert create(store, key=b"") == [SAME]
    assert create(store, key=b"x") == [OTHER]
    assert read(store, "key") == b""


def test_a_body_of_20_mb_comes_back_whole(store: Store) -> None:
    body = random.Random(0).randbytes(20_000_000)
    assert create(store, key=body) == [NEW]
    assert create(store, key=body) == [SAME]
    assert create(store, key=body[:-1] + b"!") == [OTHER]
    assert read(store, "key") == body


def test_nothing_to_create_is_nothing(store: Store) -> None:
    assert list(store.create([])) == []


def test_a_pageful_at_once_is_answered_in_the_order_given(store: Store, page: int) -> None:
    bodies = [f"body {number}".encode() for number in range(page)]
    store.create([NewObject(f"t/{number}", bodies[number]) for number in range(0, page, 3)])
    store.create([NewObject(f"t/{number}", b"other") for number in range(1, page, 3)])
    results = store.create([NewObject(f"t/{number}", body) for number, body in enumerate(bodies)])
    assert list(results) == [(SAME, OTHER, NEW)[number % 3] for number in range(page)]
    expected = [b"other" if number % 3 == 1 else body for number, body in enumerate(bodies)]
    assert list(store.fetch(Extent(f"t/{number}") for number in range(page))) == expected


def race(count: int, run: Callable[[int], Sequence[Created]]) -> list[Sequence[Created]]:
    """Let threads do the same thing at once, and return what each got."""
    gate = threading.Barrier(count)

    def enter(number: int) -> Sequence[Created]:
        gate.wait()
        return run(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(enter, range(count)))


LOOKING_FIRST = ("moto", "s3mock")
"""Servers for tests, not for use by several at once. S3Mock 4.11 told both of two threads that they had made one object, of other bytes."""


def _skip_those_that_look_first(request: pytest.FixtureRequest) -> None:
    if (kind := request.node.callspec.params["opened"]) in LOOKING_FIRST:
        pytest.skip(f"{kind} looks whether a key is free, and then takes it")


def test_of_two_threads_with_other_bytes_one_creates_the_object(
    opened: Opened, request: pytest.FixtureRequest
) -> None:
    _skip_those_that_look_first(request)
    store = opened()
    keys = [f"t/{number}" for number in range(200)]
    mine, yours = race(2, lambda thread: store.create([NewObject(key, b"%d" % thread) for key in keys]))
    assert {frozenset(pair) for pair in zip(mine, yours, strict=True)} == {frozenset({NEW, OTHER})}
    winners = [b"0" if result is NEW else b"1" for result in mine]
    assert list(store.fetch(map(Extent, keys))) == winners


def test_of_two_threads_with_the_same_bytes_one_creates_the_object(
    opened: Opened, request: pytest.FixtureRequest
) -> None:
    _skip_those_that_look_first(request)
    store = opened()
    objects = [NewObject(f"t/{number}", b"bytes") for number in range(200)]
    mine, yours = race(2, lambda _: store.create(objects))
    assert {frozenset(pair) for pair in zip(mine, yours, strict=True)} == {frozenset({NEW, SAME})}


def test_an_answer_lost_is_settled_by_creating_again(store: Store) -> None:
    faulty = Faults((Fault(1, When.AFTER, fail),)).wrap(store, "store")
    with pytest.raises(UnavailableError):
        create(faulty, key=b"bytes")
    assert create(faulty, key=b"bytes") == [SAME]
    assert read(store, "key") == b"bytes"


# --- keys


def test_keys_of_any_topic_survive(store: Store) -> None:
    keys = [f"{topic}/2024/1/2/3/0.bson" for topic in TOPICS]
    keys += [segment_key(topic, 1, 0, 0, 9) for topic in TOPICS]
    create_keys(store, keys)
    assert keys_of(store) == sorted(keys)
    assert list(store.fetch(map(Extent, keys))) == [key.encode() for key in keys]


@pytest.mark.parametrize("key", ["a b", "a+b", "a%2Fb", "a~b", "é/ü", "a*b#?[c]&d=e", "a:b@c,d;e"])
def test_keys_with_characters_that_urls_escape_survive(store: Store, key: str) -> None:
    create_keys(store, [key])
    assert keys_of(store) == [key]
    assert read(store, key) == key.encode()
    store.delete([key])
    assert keys_of(store) == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", "a/.."])
def test_keys_that_clients_rewrite_are_refused(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="no object key"):
        store.create([NewObject("fine", b""), NewObject(key, b"")])
    with pytest.raises(ValueError, match="no object key"):
        list(store.fetch([Extent(key)]))
    with pytest.raises(ValueError, match="no object key"):
        store.delete([key])
    assert keys_of(store) == []


# --- fetching


def test_extents_come_in_the_order_given_whatever_their_sizes(store: Store) -> None:
    sizes = [1, 0, 3_000_000, 17, 1_500_000, 2, 0, 70_000]
    bodies = {f"t/{number}": random.Random(number).randbytes(size) for number, size in enumerate(sizes)}
    create(store, **bodies)
    order = [*bodies, *reversed(bodies), "t/2", "t/2", "t/3"]
    assert list(store.fetch(map(Extent, order))) == [bodies[key] for key in order]


RANGES = [
    pytest.param([(0, 1000)], id="all"),
    pytest.param([(0, 10), (10, 20), (30, 5)], id="adjacent"),
    pytest.param([(0, 10), (20, 10), (900, 100)], id="with gaps"),
    pytest.param([(500, 10), (0, 10), (990, 10)], id="backwards"),
    pytest.param([(0, 100), (50, 100), (60, 10), (0, 100)], id="overlapping"),
    pytest.param([(5, 5), (5, 5), (5, 5)], id="again"),
    pytest.param([(0, 0), (500, 0), (500, 10), (510, 0), (1000, 0)], id="empty"),
    pytest.param([(999, 1)], id="last byte"),
    pytest.param([(None, None), (10, 10), (None, None)], id="whole between"),
    pytest.param([(None, 10), (10, None), (1000, None)], id="from the beginning, to the end"),
]


@pytest.mark.parametrize("ranges", RANGES)
def test_ranges_are_exact(store: Store, ranges: list[tuple[int | None, int | None]]) -> None:
    body = random.Random(0).randbytes(1000)
    create(store, key=body)
    wanted = [
        body[start or 0 : None if length is None else (start or 0) + length] for start, length in ranges
    ]
    assert list(store.fetch(Extent("key", *one) for one in ranges)) == wanted


def test_neighbouring_ranges_of_many_sizes_are_exact(store: Store) -> None:
    chance = random.Random(1)
    bodies = {f"s/{number}": chance.randbytes(size) for number, size in enumerate([200_000, 9_000_000, 50])}
    create(store, **bodies)
    extents = list(itertools.islice(_walk_through(bodies, chance), 500))
    wanted = [bodies[key][start : start + length] for key, start, length in extents]
    assert list(store.fetch(Extent(*one) for one in extents)) == wanted


def _walk_through(bodies: dict[str, bytes], chance: random.Random) -> Iterator[tuple[str, int, int]]:
    """Walk through bodies: mostly onwards, with gaps on either side of the limit, and now and then back."""
    while True:
        for key, body in bodies.items():
            start = 0
            while start < len(body):
                length = min(chance.choice([0, 1, 1000, 65_536, 400_000]), len(body) - start)
                yield key, start, length
                start += length + chance.choice(
                    [0, 0, 0, 1, MAX_GAP_BYTES, MAX_GAP_BYTES + 1, -min(start, 100)]
                )
                start = max(start, 0)


def in_frames(sizes: Iterable[int], chance: random.Random) -> tuple[bytes, list[tuple[bytes, Extent]]]:
    """An object in zstd frames under the key ``z``, and each document with its extent."""
    documents = [chance.randbytes(size // 2) + bytes(size - size // 2) for size in sizes]
    body, places = compress(documents)
    extents = [
        Extent("z", place.position, len(document), place.frame)
        for document, place in zip(documents, places, strict=True)
    ]
    return body, list(zip(documents, extents, strict=True))


def test_documents_in_frames_come_decompressed_in_whatever_order(store: Store) -> None:
    chance = random.Random(3)
    body, pairs = in_frames([chance.choice([5, 900, 40_000, 300_000]) for _ in range(200)], chance)
    create(store, z=body, other=b"0123456789")
    again = [*pairs, *reversed(pairs), *chance.sample(pairs, 100)]
    again.insert(50, (b"345", Extent("other", 3, 3)))
    again.insert(60, (body, Extent("z")))
    again.insert(70, (body[10:20], Extent("z", 10, 10)))
    frame = pairs[0][1].frame
    content = b"".join(document for document, extent in pairs if extent.frame == frame)
    again.insert(0, (content, Extent("z", frame=frame)))
    assert list(store.fetch(extent for _, extent in again)) == [document for document, _ in again]


def test_a_damaged_frame_is_told_when_its_turn_comes_and_no_other_is(store: Store) -> None:
    body, pairs = in_frames([100_000] * 3, random.Random(4))
    damaged = pairs[1][1].frame
    assert damaged is not None
    at = damaged.position + damaged.size_bytes - 1
    create(store, z=body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])
    bodies = store.fetch(extent for _, extent in pairs)
    assert next(bodies) == pairs[0][0]
    with pytest.raises(CorruptError, match=f"object z is damaged at byte {damaged.position}") as caught:
        next(bodies)
    assert (caught.value.facts["object_key"], caught.value.facts["frame"]) == ("z", damaged.position)
    assert list(store.fetch([pairs[2][1]])) == [pairs[2][0]]


@pytest.mark.parametrize(
    "beyond",
    [
        Extent("z", 0, 101, Frame(0, 50)),
        Extent("z", 90, 11, Frame(0, 50)),
        Extent("z", 0, 100, Frame(0, 10**6)),
        Extent("z", 0, 100, Frame(10**6, 50)),
        Extent("z", 0, 100, Frame(0, 49)),
        Extent("z", 0, 100, Frame(1, 50)),
        Extent("z", 0, 100, Frame(0, 0)),
        Extent("z", 0, 100, Frame(-1, 50)),
        Extent("z", 0, 100, Frame(10, -5)),
        Extent("z", -1, 50, Frame(0, 50)),
    ],
)
def test_a_place_that_is_none_in_a_frame_is_an_error(store: Store, beyond: Extent) -> None:
    body, ((_, extent),) = in_frames([100], random.Random(5))
    assert extent.frame is not None
    create(store, z=body)
    assert beyond.frame is not None
    real = beyond._replace(frame=Frame(*(extent.frame.size_bytes if n == 50 else n for n in beyond.frame)))
    with pytest.raises(CorruptError, match="z"):
        list(store.fetch([real]))


def test_an_object_that_is_missing_is_told_when_its_turn_comes(store: Store) -> None:
    create(store, a=b"1", c=b"3")
    bodies = store.fetch([Extent("a"), Extent("b"), Extent("c")])
    assert next(bodies) == b"1"
    with pytest.raises(ObjectMissingError, match="no object b") as caught:
        next(bodies)
    assert caught.value.facts["object_key"] == "b"
    assert caught.value.facts["bucket"] == store.bucket


@pytest.mark.parametrize(
    "extent", [Extent("gone"), Extent("gone", 0, 10), Extent("gone", 5, 1), Extent("gone", 0, 0)]
)
def test_no_part_of_a_missing_object_is_there(store: Store, extent: Extent) -> None:
    with pytest.raises(ObjectMissingError):
        list(store.fetch([extent]))


@pytest.mark.parametrize("beyond", [(0, 11), (9, 2), (10, 1), (500, 1), (2, 10**6)])
def test_an_object_that_is_too_short_is_told_when_its_turn_comes(
    store: Store, beyond: tuple[int, int]
) -> None:
    create(store, key=b"0123456789")
    bodies = store.fetch([Extent("key", 0, 2), Extent("key", *beyond), Extent("key")])
    assert next(bodies) == b"01"
    with pytest.raises(CorruptError, match="key") as caught:
        next(bodies)
    assert caught.value.facts["object_key"] == "key"
    assert (caught.value.facts["position"], caught.value.facts["length"]) == beyond


@pytest.mark.parametrize("beyond", [(10, 1), (500, 1)])
def test_a_range_wholly_behind_the_end_is_too_short_by_itself(store: Store, beyond: tuple[int, int]) -> None:
    create(store, key=b"0123456789")
    with pytest.raises(CorruptError, match="key"):
        list(store.fetch([Extent("key", *beyond)]))


def test_only_a_bounded_number_of_extents_is_asked_for_ahead(store: Store) -> None:
    create_keys(store, [f"t/{number}" for number in range(300)])
    asked = 0

    def extents() -> Iterator[Extent]:
        nonlocal asked
        for asked in range(300):
            yield Extent(f"t/{asked}", 0, 3)

    bodies = store.fetch(extents())
    assert next(bodies) == b"t/0"
    assert asked <= 70
    assert len(list(bodies)) == 299


def test_a_fetch_that_is_given_up_harms_no_other(store: Store) -> None:
    create_keys(store, [f"t/{number}" for number in range(100)])
    bodies = store.fetch(Extent(f"t/{number}") for number in range(100))
    next(bodies)
    del bodies
    assert read(store, "t/99") == b"t/99"


def test_objects_can_be_created_while_others_are_fetched(store: Store) -> None:
    create_keys(store, [f"old/{number}" for number in range(300)])
    new = [NewObject(f"new/{number}", b"%d" % number) for number in range(300)]
    with ThreadPoolExecutor(1) as pool:
        creating = pool.submit(store.create, new)
        bodies = list(store.fetch(Extent(f"old/{number}") for number in range(300)))
        assert set(creating.result()) == {NEW}
    assert bodies == [b"old/%d" % number for number in range(300)]


# --- listing


def test_a_listing_tells_keys_and_sizes(store: Store) -> None:
    create(store, **{"b/1": b"12345", "a": b""})
    assert [(info.key, info.size_bytes) for info in store.listing()] == [("a", 0), ("b/1", 5)]


def test_a_listing_of_nothing_is_empty(store: Store) -> None:
    assert keys_of(store) == keys_of(store, "none/") == keys_of(store, "no") == []


def test_what_the_archive_keeps_for_itself_is_listed_in_byte_order_too(store: Store) -> None:
    topics = ("a", "a.b", "a-b", "a0")
    keys = [f"hop_archive/snapshots/ledger/topic={topic}/part" for topic in topics]
    keys += [f"hop_archive/restores/000001-x/offset-map/{topic}/0.parquet" for topic in topics]
    keys += [f"hop_archive/quarantine/{topic}/2026/1/2/3/x.bson" for topic in topics]
    store.create([NewObject(key, b"?") for key in [*keys, "a/x", "z/x"]])
    assert [info.key for info in store.listing()] == sorted([*keys, "a/x", "z/x"])
    after = sorted(keys)[4]
    assert [info.key for info in store.listing("hop_archive/", after)] == sorted(keys)[5:]
    assert [info.key for info in store.listing("hop_archive/quarantine/a.")] == [keys[9]]


@pytest.mark.parametrize("topic", ["hop_archive", "segments"])
def test_messages_of_a_topic_that_is_called_as_a_folder_is_are_listed_beside_what_stands_there(
    store: Store, topic: str
) -> None:
    hours = (0, 11, 1_000_000, -90_000_000, 10**12)
    keys = [object_key(topic, hour * 3_600_000, uuid.UUID(int=1)) for hour in hours]
    keys += ["hop_archive/probe", "hop_archive/quarantine/a/x", "hop_archive/snapshots/a/y"]
    keys += [segment_key(name, 1, 0, 0, 5) for name in ("2026", "1970", "a", "a.b", topic)]
    store.create([NewObject(key, b"?") for key in keys])
    assert [info.key for info in store.listing()] == sorted(keys)
    for start in sorted(keys):
        beyond = [key for key in sorted(keys) if key > start and key.startswith(f"{topic}/")]
        assert [info.key for info in store.listing(f"{topic}/", start)] == beyond


def test_more_keys_than_a_page_has_are_listed_in_byte_order_from_any_on(store: Store, page: int) -> None:
    an_hour = page // 20
    keys = [
        object_key("t", hour * 3_600_000, uuid.UUID(int=hour * an_hour + number))
        for hour in range(24)
        for number in range(an_hour)
    ]
    create_keys(store, keys)
    keys.sort()
    assert keys_of(store) == keys
    last = len(keys) - 1
    for position in (0, 1, last - page, page - 2, page - 1, page, last - 1, last):
        assert keys_of(store, start_after=keys[position]) == keys[position + 1 :]
        assert keys_of(store, "t/", start_after=keys[position]) == keys[position + 1 :]


TREE = sorted(
    [
        *(
            f"{topic}/2024/{month}/{name}"
            for topic in ("a", "a-b", "a.b", "b")
            for month in (1, 10, 2)
            for name in "xy"
        ),
        *(
            f"segments/{topic}/1/0/{name}"
            for topic in ("a", "a-b", "ab")
            for name in ("0-9.bson", "0-9.1.bson", "9-10.bson")
        ),
        "top",
    ]
)
PREFIXES = (
    "",
    "a",
    "a/",
    "a-",
    "a.b/2024/1",
    "a/2024/1/",
    "a/2024/1/x",
    "a/2024/3",
    "b/2",
    "s",
    "segments/",
    "segments/a",
    "segments/a/1/0/0",
    "t",
    "z",
)
STARTS = (
    "",
    "a",
    "a-",
    "a/",
    "a/2",
    "a/2024/1",
    "a/2024/10",
    "a/2024/1/x",
    "a/2024/1/x!",
    "segments",
    "segments/a",
    "segments/a/1/0/0-9",
    "top",
    "zz",
    *TREE,
)


def test_a_listing_is_of_keys_with_the_prefix_after_the_start_in_byte_order(store: Store) -> None:
    create_keys(store, TREE)
    for prefix, start in itertools.product(PREFIXES, STARTS):
        wanted = [key for key in TREE if key.startswith(prefix) and key > start]
        assert keys_of(store, prefix, start) == wanted, (prefix, start)


# --- deleting, checking, closing


def test_deleted_objects_are_gone_and_others_stay(store: Store, page: int) -> None:
    many = page + page // 10
    create_keys(store, [f"t/{number}" for number in range(many)])
    store.delete([f"t/{number}" for number in range(1, many)])
    assert keys_of(store) == ["t/0"]
    assert create(store, **{"t/1": b"anew"}) == [NEW]


def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    store.delete([])
    store.delete(["none", "t/none"])


def test_nothing_is_deleted_unless_the_stanza_allows_it(opened: Opened) -> None:
    store = opened(deleting_allowed=False)
    create(store, key=b"bytes")
    with pytest.raises(ForbiddenError, match="deleting_allowed"):
        store.delete(["key"])
    assert read(store, "key") == b"bytes"


def test_a_bucket_that_is_there_passes_the_check(store: Store) -> None:
    store.check()
    create(store, key=b"bytes")
    store.check()


def test_the_condition_of_a_bucket_tells_its_clock_and_that_old_versions_are_not_kept(store: Store) -> None:
    found = store.condition()
    assert found.at is not None
    assert abs(found.at - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=1)
    assert (found.versioning, found.replication, found.why_unknown) == (False, False, "")


def test_closing_twice_is_harmless(store: Store) -> None:
    create(store, key=b"bytes")
    store.close()
    store.close()


# --- the mock in a directory


def test_mocks_in_one_directory_see_each_others_objects(tmp_path: Path) -> None:
    one, another = MockStore(directory=tmp_path / "o"), MockStore(directory=tmp_path / "o")
    assert create(one, key=b"1") == [NEW]
    assert create(another, key=b"2") == [OTHER]
    assert read(another, "key") == b"1"


def test_an_object_may_have_the_name_of_a_folder_of_others(tmp_path: Path) -> None:
    store = MockStore(directory=tmp_path)
    create_keys(store, ["a", "a/b", "a+/b", "a/b/c"])
    assert keys_of(store) == ["a", "a+/b", "a/b", "a/b/c"]


def _create_in(directory: Path, mark: bytes) -> Sequence[Created]:
    objects = [NewObject(f"t/{number}", mark) for number in range(200)]
    return MockStore(directory=directory).create(objects)


def test_of_two_processes_one_creates_the_object(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pairs = zip(*pool.starmap(_create_in, [(tmp_path / "o", b"a"), (tmp_path / "o", b"b")]), strict=True)
    # One by one: an enum member that was sent by another process is equal to ours, and the same.
    assert {frozenset(pair) for pair in pairs} == {frozenset({NEW, OTHER})}


def test_what_a_crash_left_half_written_is_no_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MockStore(directory=tmp_path)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", dies)
        with pytest.raises(KeyboardInterrupt):
            create(store, key=b"bytes")
    assert any(tmp_path.iterdir())
    assert keys_of(store) == []
    assert create(store, key=b"bytes") == [NEW]


# --- extents put together

_extents = st.builds(
    Extent,
    st.sampled_from("ab"),
    st.none() | st.integers(0, 3 * MAX_GAP_BYTES),
    st.none() | st.integers(0, 2 * MAX_SPAN_BYTES),
    st.none() | st.builds(Frame, st.integers(0, 3 * MAX_GAP_BYTES), st.integers(0, 2 * MAX_SPAN_BYTES)),
)


@given(st.lists(_extents))
def test_spans_hold_each_extent_in_the_order_given_and_stay_within_bounds(extents: list[Extent]) -> None:
    together = list(spans(extents))
    assert [extent for span in together for extent in span.extents] == extents
    for span in together:
        assert all(_lies_within(extent, span) for extent in span.extents)
        if len(span.extents) > 1:
            assert span.stop is not None
            assert span.stop - span.start <= MAX_SPAN_BYTES


def _lies_within(extent: Extent, span: Span) -> bool:
    if extent.frame is not None:
        extent = Extent(extent.key, *extent.frame)
    start = extent.position or 0
    if span.stop is None or extent.length is None:
        return (extent.key, start, extent.length) == (span.key, span.start, None) or span.stop is None
    return extent.key == span.key and span.start <= start and start + extent.length <= span.stop


def test_adjacent_documents_of_a_segment_are_read_by_few_requests() -> None:
    extents = [Extent("segment", 1000 * number, 1000) for number in range(100_000)]
    assert len(list(spans(extents))) == -(-100_000_000 // (MAX_SPAN_BYTES // 1000 * 1000))


def test_documents_of_one_frame_are_read_by_one_request() -> None:
    extents = [
        Extent("segment", 1000 * (n % 100), 1000, Frame(20_000 * (n // 100), 20_000)) for n in range(10_000)
    ]
    assert [span.stop - span.start for span in spans(extents) if span.stop is not None] == [2_000_000]


_cuts = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 300), st.none() | st.integers(0, 300)))


@given(st.binary(max_size=300), st.binary(max_size=10), _cuts)
def test_whatever_is_asked_for_comes_exactly_or_not_at_all(
    first: bytes, second: bytes, cuts: list[tuple[str, int, int | None]]
) -> None:
    bodies = {"a": first, "b": second}
    store = MockStore()
    create(store, **bodies)
    for body, (key, start, length) in zip(_until_error(store, cuts), cuts, strict=False):
        stop = None if length is None else start + length
        assert body == bodies[key][start:stop]
        assert length is None or len(body) == length


def _until_error(store: Store, cuts: list[tuple[str, int, int | None]]) -> list[bytes]:
    bodies: list[bytes] = []
    try:
        bodies.extend(store.fetch(Extent(*one) for one in cuts))
    except ObjectMissingError:
        assert any(key == "c" for key, _, _ in cuts)
    except CorruptError:
        assert any(length for _, _, length in cuts)
    else:
        assert len(bodies) == len(cuts)
    return bodies


# --- reading ahead


class Shelf:
    """Objects of known sizes, and how many bytes of them were read and not yet taken, at most."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self.held = self.most_held = self.reads = 0
        self._lock = threading.Lock()

    def read(self, span: Span, room_bytes: int | None) -> Fetched:
        size = self.sizes[int(span.key)]
        with self._lock:
            self.reads += 1
            if room_bytes is not None and size > room_bytes:
                return Fetched(None, size)
            self.held += size
            self.most_held = max(self.most_held, self.held)
        return Fetched(memoryview(bytes(size)), size)

    def taken(self, size: int) -> None:
        with self._lock:
            self.held -= size

    def run(self, max_bytes: int, known: bool) -> list[int]:
        found: list[int] = []
        wanted = (Span(str(number), 0, size if known else None) for number, size in enumerate(self.sizes))
        with ThreadPoolExecutor(8) as pool:
            for span, data in ReadAhead(self.read, pool, max_requests=64, max_bytes=max_bytes).run(wanted):
                assert span.key == str(len(found))
                found.append(len(data))
                self.taken(len(data))
        return found


SIZES = [10, 3_000_000, 500, 2_000_000, 2_000_000, 900_000, *[100] * 50, 7_000_000, *[2_000_000] * 20, 0]


@pytest.mark.parametrize("known", [True, False])
def test_memory_stays_within_bounds_whatever_the_sizes(known: bool) -> None:
    shelf = Shelf(SIZES)
    assert shelf.run(max_bytes=4 * FIRST_ROOM_BYTES, known=known) == SIZES
    # What is being handed out is no longer ahead: one object more.
    assert shelf.most_held <= 4 * FIRST_ROOM_BYTES + max(SIZES)


def test_small_objects_of_unknown_size_are_read_once() -> None:
    shelf = Shelf([1000] * 200)
    shelf.run(max_bytes=MAX_AHEAD_BYTES, known=False)
    assert shelf.reads == 200


def test_large_objects_of_unknown_size_are_read_once_after_the_first() -> None:
    shelf = Shelf([2 * FIRST_ROOM_BYTES] * 50)
    shelf.run(max_bytes=4 * FIRST_ROOM_BYTES, known=False)
    assert shelf.reads <= 50 + 4


# --- a server that is not as it should be

VERBS: dict[str, Callable[[Store], object]] = {
    "check": lambda store: store.check(),
    "create": lambda store: store.create([NewObject(f"t/{number}", b"") for number in range(100)]),
    "fetch": lambda store: list(store.fetch([Extent("t/1"), Extent("t/2")])),
    "listing": lambda store: list(store.listing()),
    "listing of a topic": lambda store: list(store.listing("t/")),
    "delete": lambda store: store.delete(["t/1"]),
}
verbs = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
# Of those whose failures take one path, one.
some_verbs = pytest.mark.parametrize(
    "verb", [pytest.param(VERBS[name], id=name) for name in ("create", "fetch", "listing", "delete")]
)


@verbs
def test_a_bucket_that_is_not_there_is_a_missing_setting(
    s3: S3Server, verb: Callable[[Store], object]
) -> None:
    store = s3.store(bucket="nobodys-bucket", deleting_allowed=True)
    with pytest.raises(
        MissingSettingError, match=r"s3-test.*nobodys-bucket.*isn't there.*Create it"
    ) as caught:
        verb(store)
    assert caught.value.facts["bucket"] == "nobodys-bucket"


@verbs
@pytest.mark.parametrize("keys", ["unknown", "wrong"])
def test_wrong_keys_are_forbidden(s3: S3Server, verb: Callable[[Store], object], keys: str) -> None:
    wrong = ("nobody", "nobodys-secret") if keys == "unknown" else (s3.address.access_key, "nobodys-secret")
    store = s3.store(keys=wrong, deleting_allowed=True)
    with pytest.raises(ForbiddenError, match="s3-test") as caught:
        verb(store)
    assert (
        "nobodys-secret"
        not in f"{caught.value} {caught.value.facts} {caught.value.__cause__} {store!r} {vars(store)}"
    )


@pytest.mark.parametrize("name", ["create", "delete"])
def test_keys_that_may_only_read_are_forbidden_to_write(own_s3: S3Server, name: str) -> None:
    create_keys(own_s3.store(), ["t/1"])
    store = own_s3.store(keys=READER_KEYS, deleting_allowed=True)
    store.check()
    assert read(store, "t/1") == b"t/1"
    with pytest.raises(ForbiddenError, match="s3-test"):
        VERBS[name](store)
    assert keys_of(store) == ["t/1"]


@pytest.mark.timeout(90)  # and not for ever
@verbs
def test_where_nothing_listens_is_unavailable(s3: S3Server, verb: Callable[[Store], object]) -> None:
    store = s3.store(endpoint="http://127.0.0.1:1", deleting_allowed=True)
    with pytest.raises(UnavailableError, match=r"s3-test.*127\.0\.0\.1:1\b") as caught:
        verb(store)
    assert caught.value.retryable


@pytest.mark.timeout(90)  # and not for ever
@some_verbs
def test_a_server_that_is_silent_is_unavailable(s3: S3Server, verb: Callable[[Store], object]) -> None:
    with silent_server() as endpoint:
        store = s3.store(endpoint=endpoint, timeout_s=1, deleting_allowed=True)
        with pytest.raises(UnavailableError, match="s3-test"):
            verb(store)


@pytest.mark.timeout(90)  # and not for ever
def test_a_check_of_a_silent_server_takes_no_longer_than_10_s_whatever_the_timeout(s3: S3Server) -> None:
    with silent_server() as endpoint:
        store = s3.store(endpoint=endpoint, timeout_s=300, retry_s=300)
        with pytest.raises(UnavailableError):
            store.check()


def test_a_server_that_went_down_and_came_back_is_used_again(own_s3: S3Server) -> None:
    store = own_s3.store(deleting_allowed=True)
    create(store, **{"t/1": b"before"})
    own_s3.kill()
    for verb in VERBS.values():
        with pytest.raises(UnavailableError):
            verb(store)
    own_s3.start()
    store.check()
    assert create(store, **{"t/1": b"before"}) == [SAME]
    assert create(store, **{"t/2": b"after"}) == [NEW]
    assert read(store, "t/1") == b"before"


def test_a_server_that_is_back_in_time_is_waited_for(own_s3: S3Server) -> None:
    store = own_s3.store(retry_s=60)
    create(store, **{"t/1": b"before"})
    own_s3.kill()
    with ThreadPoolExecutor(1) as pool:
        creating = pool.submit(store.create, [NewObject(f"t/{number}", b"x") for number in range(200)])
        own_s3.start()
        results = creating.result()
    assert results[1] is OTHER
    # SAME: the server that was about to come back wrote it and said that it could not.
    assert set(results) - {OTHER} <= {NEW, SAME}
    assert list(store.fetch(Extent(f"t/{number}") for number in range(200))) == [
        b"x",
        b"before",
        *[b"x"] * 198,
    ]


@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_put_whose_answer_was_lost_is_settled_without_the_caller(s3: S3Server, hangs_up: bool) -> None:
    proxy = BreakingProxy(s3.address.endpoint, swallow=3, hangs_up=hangs_up)
    with proxy.run() as endpoint:
        store = proven(s3.store(endpoint=endpoint, timeout_s=2, retry_s=30))
        results = store.create([NewObject(f"t/{number}", b"x") for number in range(10)])
    assert len(proxy.swallowed) == 3
    assert all(" 200 " in answer for answer in proxy.swallowed)
    assert sorted(results, key=str) == [NEW] * 7 + [SAME] * 3
    assert list(s3.store().fetch(Extent(f"t/{number}") for number in range(10))) == [b"x"] * 10


@pytest.mark.parametrize("conflicts", [1, 3])
def test_a_conflict_with_a_put_under_way_is_tried_again(s3: S3Server, conflicts: int) -> None:
    script = {
        "PUT": [*[(409, "ConditionalRequestConflict")] * conflicts, (200, "")],
        "GET": [(404, "NoSuchKey")],
    }
    server = ScriptedServer(script)
    with server.run() as endpoint:
        assert create(proven(s3.store(endpoint=endpoint)), key=b"x") == [NEW]
    assert server.asked.count("PUT") == conflicts + 1


ANSWERS = [
    (503, "SlowDown", UnavailableError),
    (500, "InternalError", UnavailableError),
    (429, "TooManyRequests", UnavailableError),
    (403, "AccessDenied", ForbiddenError),
    (403, "RequestTimeTooSkewed", ForbiddenError),
    (400, "ExpiredToken", ForbiddenError),
    (400, "BadDigest", UnavailableError),
    (401, "Unauthorized", ForbiddenError),
    (404, "NoSuchBucket", MissingSettingError),
    (400, "AuthorizationHeaderMalformed", MissingSettingError),
    (301, "PermanentRedirect", MissingSettingError),
    (301, "", MissingSettingError),
]


@pytest.mark.parametrize(("status", "code", "error"), ANSWERS)
@some_verbs
def test_each_refusal_is_the_error_of_who_must_act(
    s3: S3Server, verb: Callable[[Store], object], status: int, code: str, error: type[HopArchiveError]
) -> None:
    server = ScriptedServer({method: [(status, code)] for method in ("GET", "PUT", "POST", "DELETE")})
    with server.run() as endpoint, pytest.raises(error, match="s3-test"):
        verb(s3.store(endpoint=endpoint, retry_s=0.2, deleting_allowed=True))


def test_what_the_service_said_is_told_harmless_and_cut(s3: S3Server) -> None:
    says = f"\x1b]0;owned\x07 the digest differs {'again and ' * 500}\nand a second line"
    server = ScriptedServer({"PUT": [(400, "BadDigest")], "GET": [(200, "")]}, says)
    with server.run() as endpoint, pytest.raises(UnavailableError, match="status 400, BadDigest") as caught:
        create(proven(s3.store(endpoint=endpoint, retry_s=0.1)), key=b"x")
    told = str(caught.value)
    assert told.isprintable()
    assert r"\x1b]0;owned\x07 the digest differs" in told
    assert len(told) < 1_000
    assert "second line" not in told


def test_a_server_that_knows_no_conditional_puts_is_told_at_once_what_it_lacks(s3: S3Server) -> None:
    server = ScriptedServer({"PUT": [(501, "NotImplemented")], "GET": [(200, "")]})
    with server.run() as endpoint, pytest.raises(UnsupportedError, match="If-None-Match") as caught:
        create(proven(s3.store(endpoint=endpoint, retry_s=0.1)), key=b"x")
    assert "status 501, NotImplemented: on order" in str(caught.value)


def test_a_body_that_is_always_cut_off_is_not_asked_for_twice_as_long_as_patience_lasts(s3: S3Server) -> None:
    server = ScriptedServer({"GET": [(200, "")]}, cuts=True)
    with server.run() as endpoint, pytest.raises(UnavailableError, match="body error"):
        read(s3.store(endpoint=endpoint, retry_s=1), "key")
    assert server.ranges.count(None) == 1


def test_one_refusal_of_a_put_is_not_believed(s3: S3Server) -> None:
    server = ScriptedServer({"PUT": [(403, "AccessDenied"), (200, "")], "GET": [(200, "")]})
    with server.run() as endpoint:
        assert create(proven(s3.store(endpoint=endpoint)), key=b"x") == [NEW]


def test_one_refusal_of_a_get_is_not_believed(s3: S3Server) -> None:
    server = ScriptedServer({"GET": [(403, "AccessDenied"), (200, "")]})
    with server.run() as endpoint:
        assert read(s3.store(endpoint=endpoint), "key").startswith(b"<ListBucketResult>")


@pytest.mark.parametrize("listed", [(200, ""), (403, "RequestTimeTooSkewed")])
def test_who_has_a_skewed_clock_is_told_to_look_at_that_and_not_at_the_keys(
    s3: S3Server, listed: tuple[int, str]
) -> None:
    server = ScriptedServer({"PUT": [(403, "RequestTimeTooSkewed")], "GET": [listed]})
    with server.run() as endpoint, pytest.raises(ForbiddenError, match="clock") as caught:
        create(proven(s3.store(endpoint=endpoint)), key=b"x")
    assert "keys" not in str(caught.value)


@pytest.mark.parametrize("place", ["stanza", "environment"])
def test_a_key_with_a_line_end_is_told_before_the_client_panics(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("anyone\n", "unseen-secret") if place == "stanza" else (None, None)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unseen-secret")
    store = S3Store(
        "s3-test", bucket="bucket", endpoint="http://127.0.0.1:1", access_key=keys[0], secret_key=keys[1]
    )
    for verb in ("check", "create", "fetch", "listing"):
        with pytest.raises(ForbiddenError, match="access_key_id holds a line end") as caught:
            VERBS[verb](store)
        assert "unseen-secret" not in str(caught.value)


def test_a_panic_of_the_client_is_an_error_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hop_archive.store.s3.store.S3Store._sendable", lambda self, provider: provider)
    store = S3Store(
        "s3-test", bucket="bucket", endpoint="http://127.0.0.1:1", access_key="anyone\n", secret_key="any"
    )
    for verb in ("check", "create", "fetch", "listing", "listing of a topic"):
        with pytest.raises(UnavailableError, match=r"obstore.*InvalidHeaderValue"):
            VERBS[verb](store)


def test_a_bucket_in_another_region_is_told_with_the_region(s3: S3Server) -> None:
    server = ScriptedServer({"GET": [(301, "PermanentRedirect")]})
    with server.run() as endpoint, pytest.raises(MissingSettingError, match="eu-north-1") as caught:
        s3.store(endpoint=endpoint).check()
    assert caught.value.facts["bucket_region"] == "eu-north-1"


def test_a_server_that_slows_down_for_a_while_is_waited_for(s3: S3Server) -> None:
    server = ScriptedServer({"PUT": [*[(503, "SlowDown")] * 3, (200, "")], "GET": [(404, "NoSuchKey")]})
    with server.run() as endpoint:
        assert create(proven(s3.store(endpoint=endpoint, retry_s=30)), key=b"x") == [NEW]


def test_a_fetch_waits_for_a_server_that_slows_down(s3: S3Server) -> None:
    server = ScriptedServer({"GET": [*[(503, "SlowDown")] * 3, (200, "")]})
    with server.run() as endpoint:
        assert read(s3.store(endpoint=endpoint, retry_s=60), "key").startswith(b"<ListBucketResult>")
    assert server.asked == ["GET"] * 4


def test_patience_is_measured_in_time_and_not_in_attempts(s3: S3Server) -> None:
    # Eleven: obstore gives up after ten repetitions, within two seconds, unless told otherwise.
    server = ScriptedServer({"GET": [*[(503, "SlowDown")] * 11, (200, "")]})
    with server.run() as endpoint:
        assert keys_of(s3.store(endpoint=endpoint, retry_s=60), "t/") == []
    assert server.asked == ["GET"] * 12


def test_a_server_that_lists_in_another_order_is_not_believed(own_s3: S3Server) -> None:
    # SeaweedFS goes folder by folder. Of topics that is put right; of others' folders below a topic it is told.
    store = own_s3.store()
    create_keys(store, ["t/a/1", "t/a-b/1"])
    with pytest.raises(ConfigurationError, match="byte order"):
        keys_of(store, "t/")


# --- credentials and the environment


def test_variables_meant_for_other_clients_change_nothing(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "anothers",
        "AWS_SECRET_ACCESS_KEY": "anothers",
        "AWS_SESSION_TOKEN": "anothers",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_BUCKET": "anothers",
        "AWS_REGION": "eu-north-1",
        "AWS_CONDITIONAL_PUT": "disabled",
        "AWS_SKIP_SIGNATURE": "true",
    }.items():
        monkeypatch.setenv(name, value)
    store = s3.store()
    assert create(store, key=b"1") == [NEW]
    assert create(store, key=b"2") == [OTHER]
    store.check()


def _of_the_chain(s3: S3Server) -> S3Store:
    return S3Store("s3-test", bucket=s3.bucket, endpoint=s3.address.endpoint)


def _without_credentials(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_without_keys_the_default_chain_supplies_them(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _without_credentials(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.address.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.address.secret_key)
    store = _of_the_chain(s3)
    store.check()
    assert create(store, key=b"1") == [NEW]


def test_a_profile_supplies_them_too(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _without_credentials(monkeypatch, tmp_path)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        f"[observatory]\naws_access_key_id={s3.address.access_key}\naws_secret_access_key={s3.address.secret_key}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "observatory")
    _of_the_chain(s3).check()


@verbs
def test_no_credentials_anywhere_is_forbidden(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: Callable[[Store], object]
) -> None:
    _without_credentials(monkeypatch, tmp_path)
    store = S3Store("s3-test", bucket=s3.bucket, endpoint=s3.address.endpoint, deleting_allowed=True)
    with pytest.raises(ForbiddenError, match="no credentials"):
        verb(store)


def test_opening_a_store_connects_to_nothing() -> None:
    S3Store("s3-test", bucket="b", endpoint="http://127.0.0.1:1").close()


def test_importing_the_store_does_not_import_boto3() -> None:
    program = "import sys, hop_archive.store.s3; sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_etag_of_a_small_object_is_the_md5_of_its_bytes_and_one_that_is_not_there_is_missing(
    store: Store,
) -> None:
    store.create([NewObject("etag/a.bson", b"bytes")])
    assert store.etag("etag/a.bson").strip('"') == hashlib.md5(b"bytes", usedforsecurity=False).hexdigest()
    with pytest.raises(ObjectMissingError):
        store.etag("etag/none.bson")
