"""Contents are read in one pass, and are what whoever reads whole documents says of them."""

from __future__ import annotations

import random
import uuid
from typing import NamedTuple

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.errors import CorruptError
from hop_archive.model import content as reading
from hop_archive.model.annotations import Annotations
from hop_archive.model.content import Content, content_of
from hop_archive.model.document import Document, decode_statement, encode
from hop_archive.model.envelope import ID_HEADER
from hop_archive.model.message import Message, TimestampType, content_bytes
from hop_archive_tests.strategies import archived, documents, messages, strangely_typed


@pytest.fixture(autouse=True)
def _all_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_layouts", {})
    monkeypatch.setattr(reading, "_ONE_IN", 1)


def judged(body: bytes, message_uuid: uuid.UUID) -> Content | None:
    """What ``decode_statement`` says; None for a CorruptError."""
    try:
        stated = decode_statement(body, message_uuid)
    except CorruptError:
        return None
    is_that = stated.uuid.replace("-", "") == message_uuid.hex
    headers = [*(stated.received_headers if is_that else stated.headers)]
    return Content(
        message_uuid.bytes if is_that else b"",
        stated.digest,
        stated.key,
        stated.value,
        headers,
        len(headers) < len(stated.headers),
        content_bytes(stated.key, stated.value, headers),
        stated.caveats,
    )


def found(body: bytes, message_uuid: uuid.UUID) -> Content | None:
    try:
        return content_of(body, message_uuid.bytes)
    except CorruptError:
        return None


class Alike(NamedTuple):
    """Two messages that differ in what most messages of a topic differ in."""

    first: Document
    second: Document


@st.composite
def alike(draw: st.DrawFn) -> Alike:
    """Of these the second is read by what the first one taught."""
    one = draw(messages())
    own = draw(st.binary(min_size=16, max_size=16))
    headers = tuple(
        (n, own if n == ID_HEADER and v is not None and len(v) == 16 else v) for n, v in one.headers
    )
    offset, timestamp_ms = draw(st.integers(0, 2**63 - 1)), draw(st.integers(-1, 2**63 - 1))
    key = None if one.key is None else draw(st.binary(min_size=len(one.key), max_size=len(one.key)))
    value = draw(st.one_of(st.none(), st.binary(max_size=60)))
    other = one._replace(value=value, key=key, headers=headers, offset=offset, timestamp_ms=timestamp_ms)
    collides = draw(st.booleans())
    return Alike(archived(one, collides=collides), archived(other, collides=collides))


@given(alike())
def test_what_one_document_taught_reads_the_next_as_it_is(pair: Alike) -> None:
    for document in pair:
        assert found(encode(document), document.uuid) == judged(encode(document), document.uuid)


@given(st.lists(documents(), min_size=1, max_size=4), st.randoms())
def test_documents_in_any_order_and_each_read_twice_are_what_they_are(
    some: list[Document], chance: random.Random
) -> None:
    for document in chance.sample(some * 2, len(some) * 2):
        assert found(encode(document), document.uuid) == judged(encode(document), document.uuid)


@given(alike(), st.integers(0, 10_000), st.integers(0, 255))
def test_with_any_byte_another_it_is_what_the_judge_says(pair: Alike, at: int, byte: int) -> None:
    found(encode(pair.first), pair.first.uuid)
    body = bytearray(encode(pair.second))
    body[at % len(body)] = byte
    assert found(bytes(body), pair.second.uuid) == judged(bytes(body), pair.second.uuid)


FULL = Message(
    "gcn.notices",
    3,
    1000,
    1_700_000_000_123,
    TimestampType.CREATE,
    b"key",
    b"value",
    (
        (ID_HEADER, bytes(range(16))),
        ("_sender", b"someone"),
        ("empty", b""),
        ("null", None),
        ("_sender", b"again"),
    ),
    leader_epoch=4,
)


@given(strangely_typed(archived(FULL)))
def test_fields_of_any_types_are_what_the_judge_says(changed: bytes) -> None:
    whole = archived(FULL)
    found(encode(whole), whole.uuid)
    assert found(changed, whole.uuid) == judged(changed, whole.uuid)


@pytest.mark.parametrize("cut", [0, 1, 4, 12, 17, 18, 30, -1])
def test_a_document_that_ends_early_is_corrupt(cut: int) -> None:
    whole = archived(FULL)
    body = encode(whole)
    found(body, whole.uuid)
    with pytest.raises(CorruptError):
        content_of(body[:cut], whole.uuid.bytes)


def test_one_that_is_read_as_another_message_says_no_uuid() -> None:
    whole = archived(FULL)
    other = uuid.UUID(int=7)
    for _ in range(2):
        assert content_of(encode(whole), whole.uuid.bytes).uuid == whole.uuid.bytes
        assert content_of(encode(whole), other.bytes).uuid == b""


def test_a_document_in_another_order_teaches_nothing() -> None:
    whole = archived(FULL)
    fields = bson.decode(encode(whole))
    notes = fields["annotations"]
    notes["con_message_crc32"] = notes.pop("con_message_crc32")  # after the digest, and all others
    body = bson.encode(fields)
    assert len(body) == len(encode(whole))
    for _ in range(2):
        assert found(body, whole.uuid) == judged(body, whole.uuid)


def test_documents_that_are_alike_are_read_whole_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, read_whole = list[bytes](), reading._read_whole

    def counted(body: bytes, message_uuid: bytes) -> Content:
        whole.append(body)
        return read_whole(body, message_uuid)

    monkeypatch.setattr(reading, "_read_whole", counted)
    for number in range(50):
        headers = ((ID_HEADER, number.to_bytes(16)), ("_format", b"json"))
        for parts in ((None, b"{}" * number), (b"key %2d" % number, b"{}"), (None, None)):
            key, value = parts
            of = archived(FULL._replace(key=key, value=value, headers=headers, offset=number))
            assert found(encode(of), of.uuid) == judged(encode(of), of.uuid)
    assert len(whole) < 10


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MOST_KNOWN", 20)
    for number in range(100):
        whole = archived(FULL._replace(headers=(("title", str(number).encode()),)))
        content_of(encode(whole), whole.uuid.bytes)
    assert (
        sum(len(layout.known) for by_parts in reading._layouts.values() for layout in by_parts.values()) <= 20
    )


def test_where_none_is_like_another_few_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_ONE_IN", 20)
    learned = []
    monkeypatch.setattr(reading, "_learn", lambda *document: learned.append(document))
    monkeypatch.setattr(reading, "_unlike", iter(range(200, 1200)))
    for number in range(1000):
        whole = archived(FULL._replace(headers=(("title", str(number).encode()),)))
        content_of(encode(whole), whole.uuid.bytes)
    assert len(learned) == 50


def test_content_that_was_removed_is_read_as_the_nothing_that_is_left() -> None:
    gone = Document(
        FULL._replace(key=None, value=None, headers=FULL.headers[:1]),
        uuid.UUID(bytes=bytes(range(16))),
        is_client_uuid=True,
        digest=bytes(16),
        message_crc32=5,
        annotations=Annotations(),
        suppressed="asked for",
    )
    for _ in range(2):
        assert found(encode(gone), gone.uuid) == judged(encode(gone), gone.uuid)
