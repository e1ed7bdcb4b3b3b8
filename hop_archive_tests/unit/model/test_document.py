from __future__ import annotations

import random
import uuid
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import bson
import pytest
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.errors import CorruptError
from hop_archive.model.annotations import Annotations
from hop_archive.model.document import Document, crc32, decode, decode_statement, encode, encode_message
from hop_archive.model.identity import Identity, client_uuid
from hop_archive.model.keys import alternative_key, object_key, segment_key
from hop_archive.model.message import Header, Message, TimestampType
from hop_archive_tests.strategies import (
    GREATEST_INT64,
    LEAST_INT64,
    YEAR_10000_MS,
    archived,
    documents,
    headers_with_id,
    headers_without_id,
    messages,
    strangely_typed,
    timestamps_ms,
    topics,
)

OWN = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")

FULL = Message(
    topic="igwn.gwalert",
    partition=3,
    offset=2**40,
    timestamp_ms=1_700_000_000_123,
    timestamp_type=TimestampType.APPEND,
    key=b"",
    value=b'{"a": 1}',
    headers=(
        ("_sender", "mé".encode()),
        ("_id", None),
        ("tag", b"b"),
        ("tag", b""),
        ("_format", b"json"),
    ),
    leader_epoch=7,
)
BARE = Message("t", 0, 0, -1, TimestampType.NONE, None, None)
GIVEN = BARE._replace(headers=(("_id", b"text"), ("_id", OWN.bytes), ("note", b"x")))

FULL_BYTES = bytes.fromhex(
    "7d020000056d6573736167650008000000007b2261223a20317d036d65746164617461004a01000002746f706963000d"
    "0000006967776e2e6777616c6572740010706172746974696f6e0003000000126f666673657400000000000001000012"
    "74696d657374616d70007b68e5cf8b0100001074696d657374616d705f747970650001000000106c65616465725f6570"
    "6f63680007000000056b6579000000000000046865616465727300c20000000430001f000000023000080000005f7365"
    "6e6465720005310003000000006dc3a90004310013000000023000040000005f6964000a310000043200190000000230"
    "000400000074616700053100010000000062000433001800000002300004000000746167000531000000000000000434"
    "0020000000023000080000005f666f726d61740005310004000000006a736f6e0004350028000000023000040000005f"
    "69640005310010000000003929b435d8ad5322adea6eb129d3409d00000003616e6e6f746174696f6e73000101000002"
    "636f6e5f746578745f75756964002500000033393239623433352d643861642d353332322d616465612d366562313239"
    "6433343039640008636f6e5f69735f636c69656e745f75756964000012636f6e5f6d6573736167655f63726333320097"
    "8ea1fb0000000005646967657374001000000000cfc9ffba9b9732345ddfc80349b5321e087075626c69630001086469"
    "726563745f75706c6f61640000026d656469615f7479706500110000006170706c69636174696f6e2f6a736f6e000274"
    "69746c650001000000000273656e64657200040000006dc3a9000266696c655f6e616d65000100000000026f72696769"
    "6e61746f720001000000000000"
)
BARE_BYTES = bytes.fromhex(
    "b70100000a6d65737361676500036d6574616461746100a400000002746f706963000200000074001070617274697469"
    "6f6e0000000000126f66667365740000000000000000001274696d657374616d7000ffffffffffffffff1074696d6573"
    "74616d705f7479706500ffffffff0a6c65616465725f65706f6368000a6b657900046865616465727300300000000430"
    "0028000000023000040000005f6964000531001000000000834412a1fbf651f08a49a81b81f822ce00000003616e6e6f"
    "746174696f6e7300ee00000002636f6e5f746578745f75756964002500000038333434313261312d666266362d353166"
    "302d386134392d6138316238316638323263650008636f6e5f69735f636c69656e745f75756964000012636f6e5f6d65"
    "73736167655f6372633332000000000000000000056469676573740010000000008d5adbd76b17d8d9ee7788b2bcb76b"
    "cf087075626c69630001086469726563745f75706c6f61640000026d656469615f74797065000100000000027469746c"
    "650001000000000273656e6465720001000000000266696c655f6e616d65000100000000026f726967696e61746f7200"
    "01000000000000"
)


def test_a_crc_is_that_of_zlib_whatever_its_length() -> None:
    whole = random.Random(1).randbytes(70_000)
    for size_bytes in (*range(300), 1_023, 1_024, 1_025, 65_535, 65_536, 70_000):
        for begin in (0, 1, 7):
            data = whole[begin : begin + size_bytes]
            assert crc32(data) == zlib.crc32(data)
    assert crc32(None) == 0


def fields(document: Document) -> dict[str, Any]:
    return bson.decode(encode(document))


def test_the_golden_document_of_a_full_message_has_not_changed() -> None:
    assert encode(archived(FULL)) == FULL_BYTES


def test_the_golden_document_of_a_bare_message_has_not_changed() -> None:
    assert encode(archived(BARE)) == BARE_BYTES


@pytest.mark.parametrize(("message", "data"), [(FULL, FULL_BYTES), (BARE, BARE_BYTES)])
def test_golden_documents_decode_to_the_messages_that_they_were(message: Message, data: bytes) -> None:
    assert decode(data) == archived(message)


def by_bson(document: Document) -> bytes:
    """What ``bson`` makes of a document: the judge of what is written by hand."""
    message, notes = document.message, document.annotations._asdict()
    annotations = {
        "con_text_uuid": str(document.uuid),
        "con_is_client_uuid": document.is_client_uuid,
        "con_message_crc32": Int64(document.message_crc32),
        "digest": document.digest,
        **notes,
    }
    if document.suppressed:
        annotations["suppressed"] = document.suppressed
    return bson.encode(
        {
            "message": message.value,
            "metadata": {
                "topic": message.topic,
                "partition": message.partition,
                "offset": Int64(message.offset),
                "timestamp": Int64(message.timestamp_ms),
                "timestamp_type": int(message.timestamp_type),
                "leader_epoch": message.leader_epoch,
                "key": message.key,
                "headers": [list(pair) for pair in document.stored_headers],
            },
            "annotations": annotations,
        }
    )


few_headers: st.SearchStrategy[tuple[Header, ...]] = st.lists(
    st.sampled_from([("_id", OWN.bytes), ("_id", bytes(16)), ("_id", b"odd"), ("a", b"1"), ("a", None)]),
    max_size=4,
).map(tuple)
"""Headers of few kinds in every order: what is remembered of some is met by others that are nearly the same."""


@given(st.one_of(documents(), documents(few_headers)), st.sampled_from(["", "by court order"]), st.booleans())
def test_what_is_written_by_hand_is_what_bson_writes(
    document: Document, suppressed: str, foreign: bool
) -> None:
    if foreign:  # of another archiver: it may have called a UUID the publisher's that is in no header, and had no digest
        document = replace(document, is_client_uuid=True, digest=b"")
    document = replace(document, suppressed=suppressed)
    assert encode(document) == by_bson(document)


@given(
    st.one_of(messages(), messages(few_headers)),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, b"", b"\x00\xff", b"a,b\n1,2\n3,4\n5,6\n", b'{"a": 1}', b"<html>", b"SIMPLE  ="]),
)
def test_a_message_is_encoded_as_the_document_of_it_would_be(
    message: Message, collides: bool, public: bool, value: bytes | None
) -> None:
    for one in (message, message._replace(value=value)):
        document = archived(one, collides=collides, public=public)
        notes = (
            document.is_client_uuid,
            one.topic,
            one.timestamp_ms,
            document.digest,
            document.message_crc32,
        )
        body, body_crc32, annotations = encode_message(one, Identity(document.uuid, *notes), public=public)
        assert (body, body_crc32) == (by_bson(document), crc32(body))
        assert annotations == document.described


@given(documents())
def test_what_was_encoded_decodes_exactly(document: Document) -> None:
    assert decode(encode(document)) == document


@given(documents())
def test_what_was_decoded_encodes_to_the_same_bytes(document: Document) -> None:
    assert encode(decode(encode(document))) == encode(document)


@pytest.mark.parametrize("size_bytes", [16_777_216, 20_480_000])
def test_a_large_value_survives_whole(size_bytes: int) -> None:
    value = bytes(range(256)) * (size_bytes // 256)
    document = archived(FULL._replace(value=value))
    data = encode(document)
    assert decode(data) == document
    assert bson.decode(data)["message"] == value


@pytest.mark.parametrize("timestamp_ms", [LEAST_INT64, -1, 0, YEAR_10000_MS, GREATEST_INT64])
@pytest.mark.parametrize("kind", TimestampType)
def test_any_timestamp_of_any_type_survives(timestamp_ms: int, kind: TimestampType) -> None:
    document = archived(BARE._replace(timestamp_ms=timestamp_ms, timestamp_type=kind))
    decoded = decode(encode(document)).message
    assert (decoded.timestamp_ms, decoded.timestamp_type) == (timestamp_ms, kind)
    assert isinstance(decoded.timestamp_type, TimestampType)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (BARE._replace(value=None), BARE._replace(value=b"")),
        (BARE._replace(key=None), BARE._replace(key=b"")),
        (BARE._replace(headers=(("a", None),)), BARE._replace(headers=(("a", b""),))),
        (BARE._replace(headers=(("a", b"1"), ("b", b""))), BARE._replace(headers=(("b", b""), ("a", b"1")))),
        (BARE._replace(leader_epoch=None), BARE._replace(leader_epoch=0)),
    ],
)
def test_messages_that_differ_have_documents_that_differ(one: Message, other: Message) -> None:
    assert encode(archived(one)) != encode(archived(other))


def test_a_document_has_the_fields_that_readers_know_in_this_order() -> None:
    found = fields(archived(FULL))
    assert list(found) == ["message", "metadata", "annotations"]
    assert list(found["metadata"]) == [
        "topic",
        "partition",
        "offset",
        "timestamp",
        "timestamp_type",
        "leader_epoch",
        "key",
        "headers",
    ]
    assert list(found["annotations"]) == [
        "con_text_uuid",
        "con_is_client_uuid",
        "con_message_crc32",
        "digest",
        "public",
        "direct_upload",
        "media_type",
        "title",
        "sender",
        "file_name",
        "originator",
    ]


def test_plain_bson_reads_what_was_sent() -> None:
    found = fields(archived(GIVEN))
    assert found["message"] is None
    assert found["metadata"]["key"] is None
    assert found["metadata"]["headers"] == [["_id", b"text"], ["_id", OWN.bytes], ["note", b"x"]]
    assert found["annotations"]["con_text_uuid"] == str(OWN)
    assert found["annotations"]["con_is_client_uuid"] is True


@given(messages())
def test_offset_and_timestamp_are_64_bits_wide_and_bytes_are_plain_binary(message: Message) -> None:
    found = fields(archived(message))
    metadata, notes = found["metadata"], found["annotations"]
    widths = [metadata["offset"], metadata["timestamp"], notes["con_message_crc32"]]
    assert {type(number) for number in widths} == {Int64}
    # bson gives bytes for subtype 0 alone, and Binary for all others.
    binary = [
        found["message"],
        metadata["key"],
        notes["digest"],
        *(value for _, value in metadata["headers"]),
    ]
    assert {type(value) for value in binary} <= {bytes, type(None)}


@given(messages(headers_without_id))
def test_without_a_legal_id_the_archives_own_comes_last_of_the_stored_headers(message: Message) -> None:
    document = archived(message)
    stored = [tuple(pair) for pair in fields(document)["metadata"]["headers"]]
    assert stored == [*message.headers, ("_id", document.uuid.bytes)]
    assert not document.is_client_uuid
    assert decode(encode(document)).message.headers == message.headers


@given(messages(headers_with_id))
def test_with_a_legal_id_the_stored_headers_are_those_received_even_after_a_collision(
    message: Message,
) -> None:
    for document in (archived(message), archived(message, collides=True)):
        stored = [tuple(pair) for pair in fields(document)["metadata"]["headers"]]
        assert tuple(stored) == message.headers == decode(encode(document)).message.headers


def test_after_a_collision_the_document_tells_its_uuid_and_whose_it_is() -> None:
    document = archived(GIVEN, collides=True)
    notes = fields(document)["annotations"]
    assert notes["con_text_uuid"] == str(document.uuid) != str(OWN)
    assert notes["con_is_client_uuid"] is False


@given(documents())
def test_readers_find_the_uuid_in_the_stored_headers_unless_it_collided(document: Document) -> None:
    found = client_uuid(document.stored_headers)
    assert found is not None
    assert found == document.uuid or not document.is_client_uuid


def test_documents_end_to_end_read_like_a_dump() -> None:
    data = encode(archived(FULL)) + encode(archived(BARE)) + encode(archived(GIVEN))
    assert [found["metadata"]["topic"] for found in bson.decode_all(data)] == ["igwn.gwalert", "t", "t"]


def test_documents_of_other_archivers_are_read_with_what_they_lack_computed_or_left_open() -> None:
    foreign = {
        "message": b"text",
        "metadata": {"timestamp": 5, "headers": [["_id", OWN.bytes]], "key": b"k", "topic": "gcn"},
        "annotations": {
            "con_text_uuid": str(OWN),
            "con_is_client_uuid": True,
            "con_message_crc32": zlib.crc32(b"text"),
            "title": "An alert",
        },
    }
    assert decode(bson.encode(foreign)) == Document(
        Message("gcn", -1, -1, 5, TimestampType.CREATE, b"k", b"text", (("_id", OWN.bytes),)),
        OWN,
        is_client_uuid=True,
        digest=b"",
        message_crc32=zlib.crc32(b"text"),
        annotations=Annotations(title="An alert", media_type="text/plain"),
    )


@pytest.mark.parametrize(
    ("written", "key", "headers"),
    [
        ({"key": None, "headers": None}, None, ()),
        ({"headers": []}, None, ()),
        ({"key": "kä", "headers": [["a", None]]}, "kä".encode(), (("a", None),)),
    ],
)
def test_what_archive_core_leaves_out_or_wrote_as_text_is_read(
    written: dict[str, object], key: bytes | None, headers: tuple[Header, ...]
) -> None:
    metadata = {"timestamp": 5, "topic": "gcn", **written}
    notes = {"con_text_uuid": str(OWN), "con_is_client_uuid": False, "con_message_crc32": 0}
    body = bson.encode({"message": b"", "metadata": metadata, "annotations": notes})
    message, content = decode(body).message, decode_statement(body)
    assert (message.key, message.headers) == (content.key, content.received_headers) == (key, headers)


@pytest.mark.parametrize("decoder", [decode, decode_statement])
@pytest.mark.parametrize("written", [{"key": "text"}, {"headers": None}])
def test_in_documents_of_our_own_nothing_of_that_is_taken_for_content(
    decoder: Callable[[bytes], object], written: dict[str, object]
) -> None:
    found = fields(archived(FULL))
    found["metadata"] |= written
    with pytest.raises(CorruptError):
        decoder(bson.encode(found))


def test_annotations_that_a_later_version_adds_are_passed_over() -> None:
    found = fields(archived(FULL))
    found["annotations"]["brightness"] = 3
    found["weather"] = "fine"
    assert decode(bson.encode(found)) == archived(FULL)


def test_every_truncation_of_a_document_is_corrupt() -> None:
    for length in range(len(FULL_BYTES)):
        with pytest.raises(CorruptError):
            decode(FULL_BYTES[:length])


def test_bytes_after_a_document_are_corrupt() -> None:
    with pytest.raises(CorruptError):
        decode(FULL_BYTES + b"\x00")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_document_are_corrupt_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(CorruptError):
        decode(data)


@given(st.integers(0, len(FULL_BYTES) - 1), st.integers(0, 255))
def test_a_damaged_document_is_read_or_corrupt_and_nothing_worse(place: int, byte: int) -> None:
    damaged = FULL_BYTES[:place] + bytes([byte]) + FULL_BYTES[place + 1 :]
    try:
        found = decode(damaged)
    except CorruptError:
        return
    assert (found == archived(FULL)) == (encode(found) == FULL_BYTES)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("annotations", "con_text_uuid", 5),
        ("annotations", "con_text_uuid", "no uuid"),
        ("annotations", "con_message_crc32", float("inf")),
        ("annotations", "con_message_crc32", None),
        ("metadata", "timestamp", "yesterday"),
        ("metadata", "timestamp_type", 9),
        ("metadata", "headers", None),
        ("metadata", "headers", [["only a name"]]),
        ("metadata", "headers", [["name", "text, not bytes"]]),
        ("metadata", "headers", [[5, b"name is no text"]]),
        ("metadata", "key", "text, not bytes"),
        ("metadata", "topic", 5),
        (None, "message", "text, not bytes"),
        (None, "metadata", []),
        (None, "annotations", "text"),
    ],
)
def test_a_field_of_the_wrong_kind_is_corrupt(part: str | None, name: str, value: object) -> None:
    found = fields(archived(FULL))
    (found[part] if part else found)[name] = value
    with pytest.raises(CorruptError):
        decode(bson.encode(found))


@pytest.mark.parametrize("decoder", [decode, decode_statement])
@given(strangely_typed(archived(FULL)))
def test_fields_of_any_types_are_a_document_or_corrupt_and_nothing_worse(
    decoder: Callable[[bytes], object], changed: bytes
) -> None:
    try:
        document = decoder(changed)
    except CorruptError:
        return
    if isinstance(document, Document):
        assert decode(encode(document)) == document


@pytest.mark.parametrize("decoder", [decode, decode_statement])
@pytest.mark.parametrize(
    "value", [Int64(GREATEST_INT64), Int64(2**50), 16, True, [1] * 16, "x" * 16, b"short"]
)
def test_a_digest_that_is_no_16_bytes_is_corrupt_and_nothing_is_made_of_it(
    decoder: Callable[[bytes], object], value: object
) -> None:
    found = fields(archived(FULL))
    found["annotations"]["digest"] = value
    with pytest.raises(CorruptError):
        decoder(bson.encode(found))


@pytest.mark.parametrize("decoder", [decode, decode_statement])
def test_parts_within_parts_beyond_all_measure_are_corrupt(decoder: Callable[[bytes], object]) -> None:
    depth = 20_000
    sizes = (5 + 8 * n for n in range(depth, 0, -1))
    heads = b"".join(size.to_bytes(4, "little") + b"\x03a\x00" for size in sizes)
    with pytest.raises(CorruptError):
        decoder(heads + b"\x05\x00\x00\x00\x00" + bytes(depth))


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("metadata", "partition", 2**31),
        ("metadata", "partition", "0"),
        ("metadata", "offset", -2),
        ("metadata", "offset", 1.0),
        ("metadata", "timestamp_type", True),
        ("metadata", "leader_epoch", "7"),
        ("metadata", "headers", {}),
        ("metadata", "headers", ""),
        ("annotations", "con_is_client_uuid", "yes"),
        ("annotations", "con_message_crc32", -1),
        ("annotations", "title", 5),
        ("annotations", "title", "no\x00database holds it"),
        ("annotations", "public", 1),
        ("annotations", "suppressed", None),
    ],
)
def test_what_no_row_could_hold_is_corrupt(part: str, name: str, value: object) -> None:
    found = fields(archived(FULL))
    found[part][name] = value
    with pytest.raises(CorruptError):
        decode(bson.encode(found))


@pytest.mark.parametrize("missing", ["message", "metadata", "annotations"])
def test_a_document_without_one_of_its_parts_is_corrupt(missing: str) -> None:
    found = fields(archived(FULL))
    del found[missing]
    with pytest.raises(CorruptError):
        decode(bson.encode(found))


def test_crc32_is_that_of_zlib_and_0_for_null_and_empty() -> None:
    assert crc32(b"123456789") == 0xCBF43926  # the check value of ISO 3309's CRC-32
    assert crc32(None) == crc32(b"") == 0


@pytest.mark.parametrize(
    ("timestamp_ms", "hour"),
    [
        (0, "1970/1/1/0"),
        (-1, "1969/12/31/23"),
        (1_709_166_840_000, "2024/2/29/0"),
        (1_741_744_799_999, "2025/3/12/1"),
        (YEAR_10000_MS - 1, "9999/12/31/23"),
        (YEAR_10000_MS, "10000/1/1/0"),
        # As java.time.Instant says of Long.MIN_VALUE and Long.MAX_VALUE milliseconds.
        (LEAST_INT64, "-292275055/5/16/16"),
        (GREATEST_INT64, "292278994/8/17/7"),
    ],
)
def test_object_keys_hold_the_hour_in_utc_unpadded(timestamp_ms: int, hour: str) -> None:
    assert object_key("a.b", timestamp_ms, OWN) == f"a.b/{hour}/{OWN}.bson"


@given(topics, timestamps_ms, st.uuids())
def test_every_timestamp_has_an_object_key_of_six_parts(
    topic: str, timestamp_ms: int, own: uuid.UUID
) -> None:
    parts = object_key(topic, timestamp_ms, own).split("/")
    assert parts[0] == topic
    assert parts[5] == f"{own}.bson"
    month, day, hour = map(int, parts[2:5])
    assert 1 <= month <= 12
    assert 1 <= day <= 31
    assert 0 <= hour <= 23


@given(st.lists(st.integers(0, GREATEST_INT64), min_size=2, max_size=8, unique=True))
def test_segment_keys_sort_by_offset(starts: list[int]) -> None:
    keys = [segment_key("t", 1, 0, start, start + 1) for start in sorted(starts)]
    assert keys == sorted(keys)


def test_a_segment_key_names_all_that_it_holds() -> None:
    expected = "segments/a.b/2/7/00000000000000000010-00000000000000000020.bson"
    assert segment_key("a.b", 2, 7, 10, 20) == expected


def test_alternative_keys_are_numbered_before_the_ending() -> None:
    key = segment_key("t", 1, 0, 0, 1)
    assert alternative_key(key, 0) == key
    assert alternative_key(key, 2) == key.removesuffix(".bson") + ".2.bson"


def header(name: str, value: bytes | None) -> tuple[Header, ...]:
    return ((name, value),)


@pytest.mark.parametrize("name", ["", "größe", "a\x00b", "日本", "\U0001f52d", "_id ", "x" * 10_000])
def test_any_header_name_survives(name: str) -> None:
    document = archived(BARE._replace(headers=header(name, b"v")))
    assert decode(encode(document)).message.headers == header(name, b"v")
