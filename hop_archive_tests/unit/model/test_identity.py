from __future__ import annotations

import hashlib
import itertools
import struct
import uuid
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hop_archive.model.identity import (
    DIGEST_SIZE,
    UUID_NAMESPACE,
    Identity,
    Known,
    candidates,
    client_uuid,
    derived_uuid,
    digest,
    identify,
    same_message,
)
from hop_archive.model.message import Header, Message, TimestampType
from hop_archive_tests.strategies import (
    any_headers,
    headers_with_id,
    headers_without_id,
    messages,
    nullable_bytes,
    timestamps_ms,
    topics,
)

OWN = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
OTHER = uuid.UUID(int=7)

contents = st.tuples(nullable_bytes, any_headers, nullable_bytes)


def content(message: Message) -> tuple[bytes | None, tuple[Header, ...], bytes | None]:
    return message.key, message.headers, message.value


def framed(item: bytes | None) -> bytes:
    """As the docstring of ``digest`` says, written anew."""
    return struct.pack(">q", -1) if item is None else struct.pack(">q", len(item)) + item


def framing(key: bytes | None, headers: Sequence[Header], value: bytes | None) -> bytes:
    middle = b"".join(framed(name.encode()) + framed(held) for name, held in headers)
    return framed(key) + struct.pack(">q", len(headers)) + middle + framed(value)


def identity(message: Message) -> Identity:
    return identify(message)


def known(found: Identity, *, adopted: bool = False) -> Known:
    return Known(
        found.uuid,
        found.topic,
        found.timestamp_ms,
        found.message_crc32,
        found.is_client_uuid,
        None if adopted else found.digest,
    )


def sent(value: bytes | None = b"v", headers: tuple[Header, ...] = (), topic: str = "gcn") -> Message:
    return Message(topic, 0, 0, 1_000, TimestampType.CREATE, None, value, headers)


def with_id(own: uuid.UUID) -> tuple[Header, ...]:
    return (("_id", own.bytes),)


def test_the_golden_digests_have_not_changed() -> None:
    assert digest(None, (), None).hex() == "8d5adbd76b17d8d9ee7788b2bcb76bcf"
    full = digest(b"", (("_sender", "mé".encode()), ("_id", None), ("tag", b"")), b'{"a": 1}')
    assert full.hex() == "7cf7b9ab5b068913252c7a749bd2a7f7"


def test_the_golden_uuids_have_not_changed() -> None:
    assert uuid.uuid5(uuid.NAMESPACE_DNS, "hop_archive") == UUID_NAMESPACE
    assert str(derived_uuid("t", -1, bytes(16))) == "b66cd7e4-cef9-5ca0-b63a-6c63f58dc955"
    assert str(derived_uuid("t", -1, bytes(16), attempt=1)) == "9210662e-1f73-5b86-a51a-8ccebfbd018f"


@given(contents)
def test_a_digest_is_blake2b_over_the_framing_that_is_documented(
    one: tuple[bytes | None, tuple[Header, ...], bytes | None],
) -> None:
    assert digest(*one) == hashlib.blake2b(framing(*one), digest_size=DIGEST_SIZE).digest()


@given(contents, contents)
def test_contents_that_differ_have_digests_that_differ(
    one: tuple[bytes | None, tuple[Header, ...], bytes | None],
    other: tuple[bytes | None, tuple[Header, ...], bytes | None],
) -> None:
    assert (digest(*one) == digest(*other)) == (one == other)


@given(st.binary(max_size=60), st.data())
def test_bytes_moved_between_key_header_and_value_change_the_digest(
    whole: bytes, data: st.DataObject
) -> None:
    cuts = st.lists(st.integers(0, len(whole)), min_size=2, max_size=2).map(sorted)
    (a, b), (c, d) = data.draw(cuts), data.draw(cuts)
    assume((a, b) != (c, d))
    one = digest(whole[:a], (("h", whole[a:b]),), whole[b:])
    assert one != digest(whole[:c], (("h", whole[c:d]),), whole[d:])


LENGTH_0, LENGTH_1 = bytes(8), bytes(7) + b"\x01"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((None, (), b"a"), (b"a", (), None)),
        ((None, (), None), (b"", (), None)),
        ((None, (), None), (None, (), b"")),
        ((None, (("a", None),), None), (None, (("a", b""),), None)),
        ((None, (("ab", b"c"),), None), (None, (("a", b"bc"),), None)),
        ((None, (("a", b""), ("b", b"")), None), (None, (("b", b""), ("a", b"")), None)),
        ((None, (("a", b""),), None), (None, (("a", b""), ("a", b"")), None)),
        ((None, (("", b""),), None), (None, (), None)),
        # Values that imitate the framing of a header.
        (
            (None, (("a", b"b"),), b"c"),
            (None, (), LENGTH_1 + b"a" + LENGTH_1 + b"b" + LENGTH_1 + b"c"),
        ),
        ((LENGTH_0, (), None), (b"", (), LENGTH_0)),
        ((b"\xff" * 8, (), None), (None, (), b"\xff" * 8)),
    ],
)
def test_contents_that_are_easily_confused_have_digests_that_differ(
    one: tuple[bytes | None, tuple[Header, ...], bytes | None],
    other: tuple[bytes | None, tuple[Header, ...], bytes | None],
) -> None:
    assert digest(*one) != digest(*other)


def test_a_digest_has_16_bytes() -> None:
    assert len(digest(None, (), bytes(1_000_000))) == 16 == DIGEST_SIZE


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), None),
        ((("other", OWN.bytes),), None),
        ((("_ID", OWN.bytes),), None),
        ((("_id", None),), None),
        ((("_id", b""),), None),
        ((("_id", str(OWN).encode()),), None),
        ((("_id", OWN.hex.encode()),), None),
        ((("_id", OWN.bytes + b"x"),), None),
        ((("_id", OWN.bytes[:15]),), None),
        ((("_id", OWN.bytes),), OWN),
        ((("_id", bytes(16)),), uuid.UUID(int=0)),
        ((("_id", b"\xff" * 16),), uuid.UUID(int=2**128 - 1)),
        ((("_id", OWN.bytes), ("_id", OTHER.bytes)), OWN),
        ((("_id", None), ("_id", b"text"), ("a", b""), ("_id", OTHER.bytes), ("_id", OWN.bytes)), OTHER),
    ],
)
def test_the_uuid_is_in_the_first_id_header_of_16_bytes(
    headers: tuple[Header, ...], expected: uuid.UUID | None
) -> None:
    assert client_uuid(headers) == expected


@given(headers_without_id)
def test_no_illegal_id_makes_a_uuid(headers: tuple[Header, ...]) -> None:
    assert client_uuid(headers) is None


@given(messages(headers_with_id))
def test_a_publishers_uuid_is_kept_whatever_else_the_message_is(message: Message) -> None:
    found = identity(message)
    assert found.uuid == client_uuid(message.headers)
    assert found.is_client_uuid


@given(messages(headers_without_id))
def test_without_one_the_uuid_is_derived_and_is_a_version_5(message: Message) -> None:
    found = identity(message)
    name = f"{message.topic}/{message.timestamp_ms}/{digest(*content(message)).hex()}"
    assert found.uuid == uuid.uuid5(UUID_NAMESPACE, name)
    assert found.uuid.version == 5
    assert not found.is_client_uuid


@given(messages(), messages())
def test_an_identity_does_not_depend_on_where_the_message_stands(
    message: Message, elsewhere: Message
) -> None:
    moved = elsewhere._replace(
        topic=message.topic,
        timestamp_ms=message.timestamp_ms,
        key=message.key,
        value=message.value,
        headers=message.headers,
    )
    assert identity(moved) == identity(message)


@given(topics, topics, timestamps_ms, timestamps_ms)
def test_derived_uuids_differ_by_topic_and_timestamp(
    topic: str, other_topic: str, at_ms: int, other_ms: int
) -> None:
    one, other = derived_uuid(topic, at_ms, bytes(16)), derived_uuid(other_topic, other_ms, bytes(16))
    assert (one == other) == ((topic, at_ms) == (other_topic, other_ms))


@given(messages())
def test_candidates_are_the_identity_then_ever_new_uuids_of_the_archives(message: Message) -> None:
    own = identity(message)
    tried = list(itertools.islice(candidates(own), 5))
    assert tried[0] == own
    assert len({candidate.uuid for candidate in tried}) == 5
    assert all(c._replace(uuid=own.uuid, is_client_uuid=own.is_client_uuid) == own for c in tried)
    assert not any(candidate.is_client_uuid for candidate in tried[1:])
    assert tried == list(itertools.islice(candidates(own), 5))


@given(messages())
def test_a_message_is_a_copy_of_itself_in_our_rows_and_in_adopted_ones(message: Message) -> None:
    own = identity(message)
    assert same_message(own, known(own))
    assert same_message(own, known(own, adopted=True))


@given(messages(), topics)
def test_the_same_content_in_another_topic_is_another_message(message: Message, topic: str) -> None:
    assume(topic != message.topic)
    own, elsewhere = identity(message), identity(message._replace(topic=topic))
    assert not same_message(own, known(elsewhere))
    assert not same_message(own, known(elsewhere, adopted=True))


@pytest.mark.parametrize("change", [{"value": b"w"}, {"key": b""}, {"headers": (*with_id(OWN), ("a", None))}])
def test_other_content_under_the_same_uuid_is_another_message(change: dict[str, bytes]) -> None:
    first = sent(headers=with_id(OWN))
    assert not same_message(identity(first._replace(**change)), known(identity(first)))  # type: ignore[arg-type]  # (the names are data)


def test_our_rows_know_a_copy_at_another_timestamp_by_its_uuid_and_digest() -> None:
    first = sent(headers=with_id(OWN))
    assert same_message(identity(first._replace(timestamp_ms=2_000)), known(identity(first)))


def test_a_payload_sent_again_at_another_time_without_an_id_is_another_message() -> None:
    assert not same_message(identity(sent()._replace(timestamp_ms=2_000)), known(identity(sent())))


@pytest.mark.parametrize("change", [{"value": b"w"}, {"timestamp_ms": 2_000}, {"topic": "other"}])
@pytest.mark.parametrize("headers", [(), with_id(OWN)])
def test_an_adopted_row_needs_topic_timestamp_and_crc(
    change: dict[str, bytes], headers: tuple[Header, ...]
) -> None:
    first = sent(headers=headers)
    row = known(identity(first), adopted=True)
    assert not same_message(identity(first._replace(**change)), row)  # type: ignore[arg-type]  # (the names are data)


@pytest.mark.parametrize(
    ("row_headers", "headers", "copy"),
    [
        ((), (), True),
        (with_id(OWN), with_id(OWN), True),
        (with_id(OWN), with_id(OTHER), False),  # a publisher who sends a payload twice means two messages
        ((), with_id(OTHER), True),
        (with_id(OWN), (), True),
    ],
)
def test_adopted_rows_and_publishers_uuids(
    row_headers: tuple[Header, ...], headers: tuple[Header, ...], copy: bool
) -> None:
    row = known(identity(sent(headers=row_headers)), adopted=True)
    assert same_message(identity(sent(headers=headers)), row) is copy
