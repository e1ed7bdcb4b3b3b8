"""Joining what is recorded with what is listed, and telling what a key is a key of."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.catalog.records import Recorded
from hop_archive.model.keys import alternative_key, is_segment_key, object_key, segment_key, topic_of
from hop_archive.read.side_by_side import side_by_side
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
        for record, info in side_by_side(records(left), infos(right))
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
        list(side_by_side(records(keys[0]), infos(keys[1])))


@pytest.mark.parametrize("topic", ["a", "a.b-c_d", "segments", "hop_archive", "9"])
@pytest.mark.parametrize("timestamp_ms", [0, -1, 1_795_000_000_000, 2**62, -(2**62)])
@pytest.mark.parametrize("attempt", [0, 1, 12])
def test_every_key_of_ours_tells_its_topic(topic: str, timestamp_ms: int, attempt: int) -> None:
    alone = alternative_key(object_key(topic, timestamp_ms, OWN), attempt)
    segment = alternative_key(segment_key(topic, 3, 10, 0, 2**62), attempt)
    assert (topic_of(alone), is_segment_key(alone)) == (topic, False)
    assert (topic_of(segment), is_segment_key(segment)) == (topic, True)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "a",
        "a/b",
        "a/2026/1/2/3/no-uuid.bson",
        f"a/2026/1/2/{OWN}.bson",
        f"a/2026/1/2/3/{OWN}.json",
        f"a/b/2026/1/2/3/{OWN}.bson",
        "segments/a/1/0/1-2.bson",
        f"segments/a/1/{0:020}-{1:020}.bson",
        f"x/segments/a/1/0/{0:020}-{1:020}.bson",
    ],
)
def test_other_keys_are_of_no_topic(key: str) -> None:
    assert topic_of(key) is None
