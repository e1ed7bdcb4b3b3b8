"""Payloads made readable: what each kind looks like, that little is shown of much, and that nothing in them acts."""

from __future__ import annotations

import io
import json
import tracemalloc
import unicodedata
import zlib
from xml.etree import ElementTree

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hop_archive.devkit.samples import samples
from hop_archive.model.wording import harmless
from hop_archive.read.payload import PayloadKind, Shown, decode, show, text_of

KINDS = {
    "voevent": PayloadKind.XML,
    "gcn-json": PayloadKind.JSON,
    "gcn-text": PayloadKind.TEXT,
    "gcn-binary": PayloadKind.BINARY,
    "lvk": PayloadKind.JSON,
    "avro": PayloadKind.AVRO,
    "circular": PayloadKind.JSON,
    "blob": PayloadKind.BINARY,
    "tombstone": PayloadKind.NULL,
    "empty-value": PayloadKind.EMPTY,
}


def test_every_kind_of_sample_is_recognised() -> None:
    found = {sample.kind: show(sample.value).kind for sample in samples(200, now_ms=1)}
    assert {kind: found[kind] for kind in KINDS} == KINDS


def test_what_is_decoded_is_of_the_kind_that_is_shown_and_holds_all_of_it() -> None:
    found = {sample.kind: decode(sample.value) for sample in samples(200, now_ms=1)}
    assert {kind: type(found[kind]) for kind in KINDS} == {
        "voevent": ElementTree.Element,
        "gcn-json": dict,
        "gcn-text": str,
        "gcn-binary": bytes,
        "lvk": dict,
        "avro": list,
        "circular": dict,
        "blob": bytes,
        "tombstone": type(None),
        "empty-value": bytes,
    }
    assert found["voevent"].tag == "{http://www.ivoa.net/xml/VOEvent/v2.0}VOEvent"
    assert {sample.value for sample in samples(200, now_ms=1) if sample.kind == "lvk"} >= {
        json.dumps(found["lvk"]).encode()
    }
    assert decode(avro("deflate", count=100))[99]["cutout"] == b"\x1f\x8b" * 50


@given(
    st.binary()
    | st.text().map(lambda text: text.encode(errors="replace"))
    | st.binary().map(lambda rest: b"Obj\x01" + rest)
    | st.sampled_from([b"<r>", b"<r/>", b"[1", b"[" * 100_000, b'{"a": 1e999}', b'{"a": 1, "a": 2}'])
)
def test_any_bytes_are_decoded_to_what_they_are_shown_as(value: bytes) -> None:
    shown, found = show(value, None), decode(value)
    match shown.kind:
        case PayloadKind.JSON:
            assert isinstance(found, dict | list)
        case PayloadKind.XML:
            assert isinstance(found, ElementTree.Element) or "DOCTYPE" in shown.note
        case PayloadKind.AVRO:
            assert isinstance(found, list) or (shown.note and found == value)
        case PayloadKind.TEXT if not value.startswith(b"Obj\x01"):
            assert found == value.decode()
        case _:
            assert found == value


def test_what_is_not_safe_to_decode_comes_as_it_is() -> None:
    for markup in (BOMB, b'<!DOCTYPE r [<!ENTITY a "ha">]><r>&a;</r>'):
        assert decode(markup) == markup.decode()
    for value in (avro("deflate", count=1, cutout=bytes(65 * 2**20)), avro("bzip2")):
        assert decode(value) is value


def test_json_is_laid_out_and_otherwise_left_as_it_was_written() -> None:
    value = (
        b'{"a":1.10,"a":[1e400,{},[ ],{"b":"\\u00e9: {,}\xc3\xa9"}] , "big":123456789012345678901234567890}'
    )
    assert show(value).text == "\n".join(
        [
            "{",
            '  "a": 1.10,',
            '  "a": [',
            "    1e400,",
            "    {},",
            "    [],",
            "    {",
            '      "b": "\\u00e9: {,}é"',
            "    }",
            "  ],",
            '  "big": 123456789012345678901234567890',
            "}",
        ]
    )


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.lists(JSON, max_size=3) | st.dictionaries(st.text(max_size=5), JSON, max_size=3), st.booleans())
def test_laid_out_json_means_the_same(content: object, ascii_only: bool) -> None:
    shown = show(json.dumps(content, ensure_ascii=ascii_only).encode(errors="replace"), None)
    assert shown.kind is PayloadKind.JSON
    if ascii_only:
        assert json.loads(shown.text) == content


@pytest.mark.parametrize("value", [b'{"a": }', b"[" * 100_000, b"{'a': 1}", b'{"a": 1} x'])
def test_what_only_begins_like_json_is_text(value: bytes) -> None:
    assert show(value).kind is PayloadKind.TEXT


@pytest.mark.parametrize("inside", ["x" * 2_000_000, r"\n" * 1_000_000])
def test_a_long_string_in_json_takes_no_more_memory_than_a_few_copies_of_it(inside: str) -> None:
    value = f'{{"a": "{inside}"}}'.encode()
    tracemalloc.start()
    try:
        assert show(value).kind is PayloadKind.JSON
        assert tracemalloc.get_traced_memory()[1] < 10 * len(value)
    finally:
        tracemalloc.stop()


def test_xml_is_laid_out_with_its_prefixes_and_the_order_of_its_attributes() -> None:
    value = (
        b'<?xml version="1.0"?><!-- hi --><v:E xmlns:v="u" z="1" a="&lt;&quot;"><P n="x"/><T> t &amp; u </T>'
        b"mixed<b>in</b></v:E>"
    )
    assert show(value).text.splitlines() == [
        '<?xml version="1.0"?>',
        "<!-- hi -->",
        """<v:E xmlns:v="u" z="1" a='&lt;"'>""",
        '  <P n="x"/>',
        "  <T>t &amp; u</T>",
        "  mixed",
        "  <b>in</b>",
        "</v:E>",
    ]


BOMB = (
    b'<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;"><!ENTITY x SYSTEM "file:///etc/passwd">]><r>&b;&x;</r>'
)


def test_xml_with_a_document_type_is_shown_as_it_is_and_nothing_is_expanded() -> None:
    shown = show(BOMB)
    assert (shown.kind, shown.text) == (PayloadKind.XML, BOMB.decode())
    assert "DOCTYPE" in shown.note


@pytest.mark.parametrize(
    "value", [b"<r>", b"<r>&nbsp;</r>", b"<3 this", b'<?xml version="1.0" encoding="no-such"?><r/>']
)
def test_what_only_begins_like_xml_is_text(value: bytes) -> None:
    assert show(value).kind is PayloadKind.TEXT


def test_elements_deep_in_one_another_are_not_indented_ever_further() -> None:
    value = b"<a>" * 5_000 + b"</a>" * 5_000
    assert show(value).complete is False
    assert show(value, None).text.count("<a") == 5_000
    assert len(show(value, None).text) < 2_000_000


SCHEMA = {
    "type": "record",
    "name": "alert",
    "fields": [
        {"name": "number", "type": "long"},
        {"name": "cutout", "type": "bytes"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}


def avro(codec: str, count: int = 2, cutout: bytes = b"\x1f\x8b" * 50) -> bytes:
    out = io.BytesIO()
    records = [{"number": n, "cutout": cutout, "at": 1_700_000_000_000} for n in range(count)]
    fastavro.writer(out, SCHEMA, records, codec=codec, sync_interval=1000)
    return out.getvalue()


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_avro_is_decoded_record_by_record_with_long_bytes_shortened(codec: str) -> None:
    shown = show(avro(codec))
    assert (shown.kind, shown.complete, shown.note) == (PayloadKind.AVRO, True, "")
    assert shown.text.count('"number"') == 2
    assert f'"cutout": "<100 bytes: {"1f8b" * 8}…>"' in shown.text
    assert '"at": "2023-11-14T22:13:20+00:00"' in shown.text


def test_avro_of_many_blocks_is_decoded_up_to_the_limit_and_without_one_to_its_end() -> None:
    value = avro("deflate", count=100)
    assert show(value, 1000).complete is False
    assert show(value, None).text.count('"number"') == 100


def test_avro_that_would_inflate_to_gigabytes_is_not_inflated() -> None:
    value = avro("deflate", count=1, cutout=b"x" * 1_000)
    bomb = avro("deflate", count=1, cutout=bytes(8 * 2**20))
    assert len(bomb) < 200_000
    assert "more than 8 MiB" in show(bomb).note
    assert show(avro("deflate", count=1, cutout=bytes(8 * 2**20 - 2_000))).note == ""
    assert show(value).note == ""


def test_avro_in_a_compression_that_is_not_read_says_so() -> None:
    assert "bzip2" in show(avro("bzip2")).note


def number(value: int) -> bytes:
    """A long of Avro's."""
    zigzag, out = (value << 1) ^ (value >> 63), b""
    while zigzag > 0x7F:
        out += bytes([zigzag & 0x7F | 0x80])
        zigzag >>= 7
    return out + bytes([zigzag])


def avro_file(schema: object, data: bytes, count: int = 1, codec: bytes = b"null") -> bytes:
    """An Avro file of one block."""
    told = {b"avro.schema": json.dumps(schema).encode(), b"avro.codec": codec}
    table = b"".join(number(len(part)) + part for pair in told.items() for part in pair)
    if codec == b"deflate":
        data = zlib.compress(data, wbits=-15)
    head = b"Obj\x01" + number(len(told)) + table + number(0) + bytes(16)
    return head + number(count) + number(len(data)) + data + bytes(16)


def record(name: str, *types: object) -> dict[str, object]:
    return {
        "type": "record",
        "name": name,
        "fields": [{"name": f"f{n}", "type": one} for n, one in enumerate(types)],
    }


NOTHING = {"type": "fixed", "name": "N", "size": 0}
MUCH = record("R0", "null")
for _n in range(1, 12):
    MUCH = record(f"R{_n}", MUCH, f"R{_n - 1}")
ARRAY = number(3) + number(0)


@pytest.mark.parametrize(
    ("schema", "data", "why"),
    [
        ({"type": "array", "items": "null"}, ARRAY, "no bytes"),
        ({"type": "array", "items": {"type": "null"}}, ARRAY, "no bytes"),
        ({"type": "array", "items": NOTHING}, ARRAY, "no bytes"),
        ({"type": "array", "items": record("E")}, ARRAY, "no bytes"),
        ({"type": "array", "items": record("E", "null", NOTHING, "N")}, ARRAY, "no bytes"),
        (record("T", NOTHING, "int", {"type": "array", "items": "N"}), bytes(4), "no bytes"),
        (
            record("T", {**record("E", "null"), "namespace": "n"}, {"type": "array", "items": "n.E"}),
            ARRAY,
            "no bytes",
        ),
        (["int", {"type": "array", "items": "null"}], number(1) + ARRAY, "no bytes"),
        ({"type": "map", "values": {"type": "array", "items": "null"}}, bytes(1), "no bytes"),
        ({"type": "map", "values": "null"}, bytes(1), "no bytes"),
        (record("L", ["null", "L"]), number(1) * 3 + number(0), "holds itself"),
        (record("L", {"type": "array", "items": "L"}), bytes(1), "holds itself"),
        (MUCH, bytes(1), "few bytes"),
    ],
)
def test_avro_of_which_few_bytes_would_make_much_is_shown_as_bytes(
    schema: object, data: bytes, why: str
) -> None:
    shown = show(avro_file(schema, data), 64)
    assert shown.kind is PayloadKind.BINARY
    assert why in shown.note
    assert shown.text.startswith("00000000  4f 62 6a 01")
    assert (len(shown.text.splitlines()), shown.complete) == (4, False)


@pytest.mark.parametrize("codec", [b"null", b"deflate"])
def test_avro_with_more_objects_than_bytes_is_shown_as_bytes(codec: bytes) -> None:
    assert show(avro_file("boolean", bytes(100), 100, codec)).text.count("false") == 100
    shown = show(avro_file("boolean", bytes(100), 101, codec))
    assert (shown.kind, "objects" in shown.note) == (PayloadKind.BINARY, True)
    assert "objects" in show(avro_file("null", b"", 10, codec)).note


def test_avro_with_hints_for_its_reader_is_not_decoded() -> None:
    hints = {"__fastavro_parsed__": True, "__named_schemas__": {"T": {"type": "array", "items": "null"}}}
    assert show(avro_file({**record("T", "int"), **hints}, bytes(2))).kind is PayloadKind.BINARY


def test_avro_of_common_schemas_is_decoded_whatever_names_it_uses_again() -> None:
    point = {**record("P", "double", ["null", "string"]), "namespace": "n"}
    colour = {"type": "enum", "name": "C", "symbols": ["RED", "BLUE"]}
    hash_of = {"type": "fixed", "name": "H", "size": 1}
    many = {"type": "array", "items": ["null", "n.P"]}
    schema = record("T", point, many, {"type": "map", "values": "n.P"}, colour, "C", hash_of, "null", "H")
    out = io.BytesIO()
    one = {"f0": 1.5, "f1": None}
    value = dict(zip([f"f{n}" for n in range(8)], [one, [one, None], {"a": one}, "RED", "BLUE", b"x", None, b"y"], strict=True))  # fmt: skip
    fastavro.writer(out, schema, [value] * 3)
    shown = show(out.getvalue(), None)
    assert (shown.kind, shown.note, shown.text.count("BLUE")) == (PayloadKind.AVRO, "", 3)


@pytest.mark.parametrize("cut", [4, 20, 300, -20])
def test_damaged_avro_is_shown_as_what_it_is_then(cut: int) -> None:
    assert show(avro("null")[:cut]).kind in (PayloadKind.BINARY, PayloadKind.TEXT)


@given(st.binary())
def test_any_bytes_after_the_mark_of_avro_do_no_harm(rest: bytes) -> None:
    assert show(b"Obj\x01" + rest).kind is not PayloadKind.JSON


def test_a_hex_dump_has_offsets_bytes_and_characters() -> None:
    assert show(bytes(range(250, 256)) + b"hop \x00\x1b[31m ~\x7f").text.splitlines() == [
        "00000000  fa fb fc fd fe ff 68 6f  70 20 00 1b 5b 33 31 6d  |......hop ..[31m|",
        "00000010  20 7e 7f                                          | ~.|",
    ]


@given(st.binary(max_size=2_000), st.integers(1, 300))
def test_no_more_is_shown_than_is_asked_for_and_it_fits_a_terminal_as_hex(value: bytes, limit: int) -> None:
    shown = show(value, limit)
    if shown.kind is PayloadKind.BINARY:
        assert max(map(len, shown.text.splitlines())) <= 78
        assert len(shown.text.splitlines()) == -(-min(len(value), limit) // 16)
    else:
        assert len(shown.text) <= limit * len(r"\U0010ffff")
    if shown.kind is PayloadKind.TEXT and shown.complete:
        assert show(value, None) == shown


@given(st.text(min_size=1), st.integers(1, 50))
def test_text_is_cut_between_characters(text: str, limit: int) -> None:
    value = ("plain " * 40 + text).encode(errors="replace")
    shown = show(value, limit)
    assert shown == Shown(PayloadKind.TEXT, ("plain " * 40)[:limit], complete=False)


@given(st.text() | st.binary().map(lambda value: value.decode(errors="surrogateescape")))
def test_harmless_text_has_nothing_that_acts_and_can_be_printed(text: str) -> None:
    shown = harmless(text)
    shown.encode()
    assert {unicodedata.category(c) for c in shown}.isdisjoint({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[2J", r"\x1b[2J"), ("\x9b31m", r"\x9b31m"), ("a\u202eb", r"a\u202eb"), ("\r\n", r"\r\n"), ("é 漢 \xa0", "é 漢 \xa0")],
)  # fmt: skip
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert harmless(text) == shown


@pytest.mark.parametrize("kind", ["text", "json", "xml", "avro"])
def test_no_payload_brings_a_control_character_to_the_terminal(kind: str) -> None:
    nasty = "\x9b2J\u202e\u2066"
    value = {
        "text": (
            "\x1b[2J plain text that goes on for a while, longer than one in thirty-two" + nasty
        ).encode(),
        "json": json.dumps({"a": nasty, nasty: 1}, ensure_ascii=False).encode(),
        "xml": f"<a b='{nasty}'>{nasty}<!--{nasty}--><?p {nasty}?></a>".encode(),
        "avro": avro_text(nasty),
    }[kind]
    shown = show(value)
    assert shown.kind.value.lower() == kind
    assert "2J" in shown.text
    assert harmless(shown.text, "\n\t") == shown.text


def avro_text(text: str) -> bytes:
    out = io.BytesIO()
    fastavro.writer(
        out, {"type": "record", "name": "r", "fields": [{"name": "a", "type": "string"}]}, [{"a": text}]
    )
    return out.getvalue()


def test_gzip_is_binary() -> None:
    assert show(zlib.compress(b"x" * 100, wbits=31)).kind is PayloadKind.BINARY


def test_bytes_are_text_only_where_nothing_would_be_lost() -> None:
    assert text_of("grün\n".encode()) == "grün\n"
    assert text_of(b"") == ""
    assert text_of(b"\xff") is text_of(b"a\x00") is text_of(b"\x1b[m") is None
