"""Joining what is recorded with what is listed, and telling what a key is a key of."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.catalog.records import Recorded
from hop_archive.model.keys import (
    alternative_key,
    attempt_of,
    first_key,
    is_compressed_key,
    is_segment_key,
    object_key,
    segment_key,
    slice_of,
    topic_of,
    uuid_of,
)
from hop_archive.model.slices import Slice
from hop_archive.read.key_join import join_by_key
from hop_archive.store.protocol import ObjectInfo

OWN = uuid.UUID(int=1)
KEYS = st.lists(st.text("ab/0", min_size=1, max_size=3), max_size=12)


def records(keys: list[str]) -> list[Recorded]:
    return [Recorded(key, "bucket", "topic", 1, 1, False, OWN) for key in keys]


def infos(keys: list[str]) -> list[ObjectInfo]:
    return [ObjectInfo(key, 1, 0) for key in keys]


@given(recorded=KEYS, listed=KEYS)
def test_each_key_comes_with_what_has_it_and_in_order(recorded: list[str], listed: list[str]) -> None:
    left, right = sorted(recorded), sorted(set(listed))
    found = [
        (record.key if record else None, info.key if info else None)
        for record, info in join_by_key(records(left), infos(right))
    ]
    there = set(right)
    expected: list[tuple[str | None, str | None]] = [(key, key if key in there else None) for key in left]
    expected += [(None, key) for key in right if key not in left]
    assert sorted(found, key=lambda pair: pair[0] or pair[1] or "") == sorted(
        expected, key=lambda pair: pair[0] or pair[1] or ""
    )
    order = [one or other or "" for one, other in found]
    assert order == sorted(order)


@pytest.mark.parametrize("side", [0, 1])
def test_a_side_that_is_out_of_order_is_refused(side: int) -> None:
    keys = [["a", "b"], ["a", "b"]]
    keys[side].reverse()
    with pytest.raises(ValueError, match="not in byte order"):
        list(join_by_key(records(keys[0]), infos(keys[1])))


@pytest.mark.parametrize("topic", ["a", "a.b-c_d", "segments", "hop_archive", "9"])
@pytest.mark.parametrize("timestamp_ms", [0, -1, 1_795_000_000_000, 2**62, -(2**62)])
@pytest.mark.parametrize("attempt", [0, 1, 12])
def test_every_key_of_ours_tells_its_topic(topic: str, timestamp_ms: int, attempt: int) -> None:
    alone = alternative_key(object_key(topic, timestamp_ms, OWN), attempt)
    assert (topic_of(alone), is_segment_key(alone), is_compressed_key(alone)) == (topic, False, False)
    for compressed in (False, True):
        name = segment_key(topic, 3, 10, 0, 2**62, compressed=compressed)
        segment = alternative_key(name, attempt)
        assert segment.endswith(".bson.zst" if compressed else ".bson")
        assert (topic_of(segment), is_segment_key(segment), is_compressed_key(segment)) == (
            topic,
            True,
            compressed,
        )
        assert (attempt_of(segment), first_key(segment)) == (attempt, name)
        assert slice_of(segment) == Slice(topic, 3, 10, 0, 2**62)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "a",
        "a/b",
        "a/2026/1/2/3/no-uuid.bson",
        f"a/2026/1/2/{OWN}.bson",
        f"a/2026/1/2/3/{OWN}.json",
        f"a/2026/1/2/3/{OWN}.bson.zst",
        f"segments/a/1/0/{0:020}-{1:020}.zst",
        f"a/b/2026/1/2/3/{OWN}.bson",
        "segments/a/1/0/1-2.bson",
        f"segments/a/1/{0:020}-{1:020}.bson",
        f"x/segments/a/1/0/{0:020}-{1:020}.bson",
    ],
)
def test_other_keys_are_of_no_topic(key: str) -> None:
    assert topic_of(key) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("last", "found"),
    [
        (OWN.urn, OWN),
        (OWN.bytes, OWN),
        (uuid.UUID(int=0x27 << 120 | 0x0A2F5C).bytes, uuid.UUID(int=0x27 << 120 | 0x0A2F5C)),
        (b"15 bytes of them", uuid.UUID(bytes=b"15 bytes of them")),
        (b"seventeen of them", None),
        ("b'no end of it, truly", None),
        (r"b'\x no such escape, truly'", None),
        (r"b'\q no such escape'", None),
    ],
)
def test_keys_that_archive_ingest_made_in_november_2022_tell_topic_and_uuid(
    last: object, found: uuid.UUID | None
) -> None:
    key = f"a/2022/11/28/3/{last}.bson"
    assert uuid_of(key) == found
    assert topic_of(key) == (None if "no end" in key else "a")
