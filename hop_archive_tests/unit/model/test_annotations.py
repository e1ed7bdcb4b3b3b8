from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.model.annotations import Annotations, annotate, sniffed_media_type
from hop_archive.model.message import Header
from hop_archive_tests.strategies import any_headers, nullable_bytes

TEXT_HEADERS = [
    ("title", "title"),
    ("_sender", "sender"),
    ("file_name", "file_name"),
    ("originator", "originator"),
]
FORMATS = {
    b"voevent": "application/x.voevent",
    b"gcntextnotice": "application/x.gcn.notice",
    b"circular": "application/x.gcn.circular",
    b"blob": "application/octet-stream",
    b"json": "application/json",
    b"avro": "application/avro",
    b"external": "message/x.hop.external+json",
}
JSON = b'{"a": 1}'


def media_type(*formats: bytes | None, value: bytes | None = JSON) -> str:
    return annotate([("_format", form) for form in formats], value).media_type


@pytest.mark.parametrize(("form", "expected"), list(FORMATS.items()))
def test_each_format_has_its_media_type_whatever_the_value_looks_like(form: bytes, expected: str) -> None:
    for value in (JSON, b"<?xml?>", b"\x00\xff", b"", None):
        assert media_type(form, value=value) == expected


@pytest.mark.parametrize(("first", "last"), list(itertools.permutations(FORMATS, 2)))
def test_of_several_formats_the_last_wins(first: bytes, last: bytes) -> None:
    assert media_type(first, last) == FORMATS[last]


@pytest.mark.parametrize("untelling", [None, b"", b"hologram", b"JSON", b"json ", b"\xff\xfe"])
def test_a_format_that_tells_nothing_is_passed_over(untelling: bytes | None) -> None:
    assert media_type(b"avro", untelling) == FORMATS[b"avro"]
    assert media_type(untelling, value=JSON) == "application/json"


def test_only_the_header_of_that_name_is_the_format() -> None:
    assert annotate([("format", b"avro"), ("_Format", b"avro")], JSON).media_type == "application/json"


@pytest.mark.parametrize(("header", "field"), TEXT_HEADERS)
def test_each_text_header_has_its_field_and_no_other(header: str, field: str) -> None:
    assert annotate([(header, "größe".encode())], None) == Annotations(**{field: "größe"})  # type: ignore[arg-type]  # (the name is data)


@pytest.mark.parametrize(("header", "field"), TEXT_HEADERS)
def test_the_first_text_header_that_decodes_counts(header: str, field: str) -> None:
    headers: list[Header] = [(header, None), (header, b"\xff\xfe"), (header, b"first"), (header, b"second")]
    assert getattr(annotate(headers, None), field) == "first"


@pytest.mark.parametrize(("header", "field"), TEXT_HEADERS)
def test_an_empty_text_header_decodes_and_so_counts(header: str, field: str) -> None:
    assert getattr(annotate([(header, b""), (header, b"second")], None), field) == ""


@pytest.mark.parametrize(("header", "field"), TEXT_HEADERS)
@pytest.mark.parametrize("value", [None, b"\xff", b"caf\xe9", b"\xed\xa0\x80"])
def test_text_that_is_not_utf8_is_left_out(header: str, field: str, value: bytes | None) -> None:
    assert getattr(annotate([(header, value)], None), field) == ""


def test_nul_characters_are_replaced_because_postgres_text_holds_none() -> None:
    assert annotate([("title", b"a\x00b\x00")], None).title == "a\ufffdb\ufffd"


@pytest.mark.parametrize("name", ["sender", "_title", "TITLE", "titles", "fileName"])
def test_headers_of_other_names_say_nothing(name: str) -> None:
    assert annotate([(name, b"text")], None) == Annotations()


@pytest.mark.parametrize("headers", [(), (("title", b"t"),)])
@pytest.mark.parametrize("public", [True, False])
def test_public_is_what_the_caller_says(headers: tuple[Header, ...], public: bool) -> None:
    found = annotate(headers, JSON, public=public)
    assert found.public is public
    assert found.direct_upload is False


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (b"", ""),
        (JSON, "application/json"),
        (b" \r\n\t[1]", "application/json"),
        (b'<?xml version="1.0"?><voe:VOEvent ivorn="x">', "application/x.voevent"),
        (b"<?xml version='1.0'?><other/>", "application/xml"),
        (b"Obj\x01" + bytes(20), "application/avro"),
        (b"Obj", "text/plain"),
        (b"SIMPLE  =                    T", "application/fits"),
        (b"\x89HDF\r\n\x1a\n", "application/x-hdf5"),
        (b"\x1f\x8b\x08\x00", "application/gzip"),
        (b"TITLE: GCN NOTICE\r\nDATE:\t24/01/01\n", "text/plain"),
        ("größe".encode(), "text/plain"),
        ("größe".encode("latin-1"), "application/octet-stream"),
        (b"\x00\x00\x00\x01" * 40, "application/octet-stream"),
        (b"\x80\x04\x95pickled", "application/octet-stream"),
        (b"a\x00b", "application/octet-stream"),
    ],
)
def test_a_value_without_a_format_is_judged_by_its_first_bytes(value: bytes | None, expected: str) -> None:
    assert sniffed_media_type(value) == expected
    assert annotate([], value).media_type == expected
    assert annotate([("title", b"t")], value).media_type == expected


@pytest.mark.parametrize("character", ["é", "日", "\U0001f52d"])
@pytest.mark.parametrize("shift", range(4))
def test_text_is_text_wherever_looking_ends_inside_a_character(character: str, shift: int) -> None:
    assert sniffed_media_type(b"a" * shift + character.encode() * 1_000) == "text/plain"


@pytest.mark.parametrize("length", range(509, 516))
def test_binary_data_is_not_taken_for_text_at_any_length(length: int) -> None:
    assert sniffed_media_type(b"\xff" * length) == "application/octet-stream"


def test_what_comes_after_the_first_bytes_is_not_looked_at() -> None:
    assert sniffed_media_type(b"a" * 512 + b"\xff\x00" * 100) == "text/plain"


@given(st.one_of(st.binary(max_size=600), st.binary(min_size=500, max_size=530), st.text().map(str.encode)))
def test_looking_never_fails_and_always_gives_a_media_type(value: bytes) -> None:
    assert ("/" in sniffed_media_type(value)) == bool(value)


@given(any_headers, nullable_bytes)
def test_annotating_never_fails_and_never_gives_what_postgres_cannot_hold(
    headers: tuple[Header, ...], value: bytes | None
) -> None:
    found = annotate(headers, value)
    for text in (found.media_type, found.title, found.sender, found.file_name, found.originator):
        assert "\x00" not in text
        text.encode()


@given(any_headers, nullable_bytes)
def test_annotations_are_the_same_each_time(headers: tuple[Header, ...], value: bytes | None) -> None:
    assert annotate(headers, value) == annotate(list(headers), value)
