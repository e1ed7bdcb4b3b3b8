"""What is done in one pass over messages that are alike is what is done of each alone."""

from __future__ import annotations

import uuid
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.model.arrivals import arrivals
from hop_archive.model.document import encode
from hop_archive.model.identity import digest, digests, identify
from hop_archive.model.message import Header, Message, TimestampType
from hop_archive_tests.strategies import GREATEST_INT64, LEAST_INT64, archived, messages

own_ids = st.binary(min_size=16, max_size=16)
kinds = st.sampled_from(
    [
        lambda own: (("_id", own), ("_sender", b"somebody"), ("_format", b"json")),
        lambda own: (("_sender", "m\u00e9".encode()), ("_id", own), ("_id", own)),
        lambda own: (("_id", None), ("_id", b"text"), ("_id", own), ("tag", None), ("tag", b"")),
        lambda own: (("_format", b"blob"), ("_id", own)),
        lambda own: (("_id", own),),
        lambda own: (("_sender", b"somebody"), ("_id", own)),
        lambda own: (("_id", own), ("_sender", b"somebody")),
        lambda own: (("_sender", b"somebody"),),
        lambda own: (),
    ]
)
VALUES = (
    None, b"", b"{}", b"[1]", b"a,b\n1,2\n3,4\n5,6\n", b"<html>", b"SIMPLE  =", b"\x00\xff" * 9, b"Obj\x01\x00",
    b"plain words", "mé".encode(), bytes(4_096), bytes(4_097), b"{" * 5_000,
)  # fmt: skip
values = st.sampled_from(VALUES)


@st.composite
def alike(draw: st.DrawFn) -> list[Message]:
    """A message thrice, so that what follows may be taken for one of its kind, and some that differ from it in a few ways."""
    own = draw(own_ids)
    kind = draw(kinds)
    some = [
        Message(
            "töpic", 3, 9, 1_700_000_000_000, TimestampType.CREATE, draw(st.sampled_from([None, b"key"])), b"{}", kind(own), 7
        )
    ] * 3  # fmt: skip
    for _ in range(draw(st.integers(1, 5))):
        other: dict[str, st.SearchStrategy[Any]] = {
            "offset": st.integers(0, GREATEST_INT64),
            "timestamp_ms": st.integers(LEAST_INT64, GREATEST_INT64),
            "timestamp_type": st.just(TimestampType.APPEND),
            "key": st.sampled_from([None, b"", b"key", b"yek", b"keys"]),
            "value": values,
            "headers": st.one_of(own_ids.map(kind), kinds.map(lambda of: of(own))),
            "leader_epoch": st.sampled_from([None, 8]),
        }
        names = draw(st.lists(st.sampled_from(sorted(other)), min_size=1, max_size=2, unique=True))
        some.append(some[0]._replace(**{name: draw(other[name]) for name in names}))
    return some


thrice = st.lists(messages(), max_size=4).map(
    lambda some: [one._replace(topic="t", partition=0) for one in some] * 3
)


def compare_with_each_alone(some: list[Message], public: bool) -> None:
    assert digests(some) == [digest(one.key, one.headers, one.value) for one in some]
    for message, (identity, body, body_crc32, notes) in zip(some, arrivals(some, public=public), strict=True):
        document = archived(message, public=public)
        assert identity == identify(message)
        assert (body, body_crc32) == (encode(document), crc32(body))
        assert notes == document.described


@given(st.one_of(alike(), thrice), st.booleans())
def test_messages_that_are_alike_are_encoded_as_each_alone_would_be(
    some: list[Message], public: bool
) -> None:
    compare_with_each_alone(some, public)


@pytest.mark.parametrize("told", [b"blob", b"json", b"voevent", b"nothing known"])
def test_each_value_of_messages_that_are_alike_tells_its_own_media_type(told: bytes) -> None:
    headers = (("_format", told), ("_id", bytes(16)))
    some = [Message("t", 0, 0, 1, TimestampType.CREATE, None, v, headers) for v in VALUES * 3]
    compare_with_each_alone(some, public=True)


def test_a_uuid_at_another_place_among_the_same_headers_is_told_as_such() -> None:
    sender, own = ("_sender", b"somebody"), ("_id", bytes(16))
    some = [
        Message("t", 0, 0, 1, TimestampType.CREATE, None, b"{}", headers)
        for headers in [(own, sender)] * 3 + [(sender, own)] * 3
    ]
    compare_with_each_alone(some, public=True)


def test_a_uuid_of_what_follows_others_is_one_like_any_other() -> None:
    headers: list[tuple[Header, ...]] = [(("_id", bytes([n]) * 16),) for n in range(4)]
    some = [Message("t", 0, n, 1, TimestampType.CREATE, None, b"{}", headers[n]) for n in range(4)]
    for n, (identity, _, _, _) in enumerate(arrivals(some, public=True)):
        assert identity.uuid == uuid.UUID(bytes=bytes([n]) * 16)
        assert hash(identity.uuid) == hash(uuid.UUID(bytes=bytes([n]) * 16))
        assert identity.uuid.is_safe is uuid.SafeUUID.unknown
