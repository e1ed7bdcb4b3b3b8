from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.model.annotations import Annotations, annotate, refined_media_type, sniffed_media_type
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


@given(st.text(), st.binary(max_size=4), st.integers(0, 3), st.integers(0, 600))
def test_text_is_what_decodes_and_can_be_printed(text: str, more: bytes, cut: int, filling: int) -> None:
    value = (("x" * filling + text).encode() + more)[cut:]
    looked_at = value[:512]
    whole = looked_at.decode(errors="ignore")
    decodes = len(whole.encode()) > len(looked_at) - 4 if len(value) >= 512 else whole.encode() == value
    is_text = decodes and all(c.isprintable() or c in "\r\n\t\f" for c in whole)
    if not value.lstrip().startswith((b"<", b"{", b"[")) and value:
        assert sniffed_media_type(value) == ("text/plain" if is_text else "application/octet-stream")


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


# What a row says, where it is better. Of each of these file 5.44 (libmagic) says the same, but where a comment says otherwise.

CSV = b'ra,dec,mag\n1,2,"3,5"\n4,5,6\n'
REFINED = [
    (b"SIMPLE  =                    T", "image/fits"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff\xe0", "image/jpeg"),
    (b"GIF89a\x01\x00", "image/gif"),
    (b"II*\x00" + bytes(20), "image/tiff"),
    (b"MM\x00*" + bytes(20), "image/tiff"),
    (b"RIFF\x24\x0a\x00\x00WEBPVP8 ", "image/webp"),
    (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", "application/pdf"),
    (b"%PDF-1.4\n1 0 obj\n", "application/pdf"),
    (b"%!PS-Adobe-3.0\n", "application/postscript"),
    (b"PK\x03\x04\x14\x00", "application/zip"),
    (b"BZh91AY&SY", "application/x-bzip2"),
    (b"\xfd7zXZ\x00\x00", "application/x-xz"),
    (b"\x28\xb5\x2f\xfd\x04\x00", "application/zstd"),
    (b"name".ljust(257, b"\x00") + b"ustar\x0000", "application/x-tar"),
    (CSV, "text/csv"),
    (CSV + b"7,8", "text/csv"),
    (CSV * 1_000, "text/csv"),
    (b"a,b\nc,d\n", "text/plain"),  # file calls even this one CSV
    (b"Dear all, hello\nthis is a notice, with commas\nand one line more\n", "text/plain"),
    (b"<?xml version='1.0'?><other/>", "text/xml"),
    (b"<other/>", "text/xml"),  # file: text/plain
    (b"<!DOCTYPE html><html>", "text/html"),
    (b" \n<!-- a --><!-- b --><HTML lang='en'>", "text/html"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
    (b"<?xml version='1.0'?>\n<svg/>", "image/svg+xml"),
    (b"<3 is a heart", "text/plain"),
    ("größe des Sterns".encode("latin-1"), "text/plain"),
    (b"\xff" * 600, "application/octet-stream"),  # file: text/plain
    (bytes(range(256)), "application/octet-stream"),
    (b"", "application/x-empty"),
    (b'<?xml version="1.0"?><voe:VOEvent ivorn="x">', "application/x.voevent"),  # file: text/xml
    (b"Obj\x01" + bytes(20), "application/avro"),  # file: application/octet-stream
    (b"\x1f\x8b\x08\x00", "application/gzip"),
    (b"\x89HDF\r\n\x1a\n", "application/x-hdf5"),
    (JSON, "application/json"),
    (b"TITLE: GCN NOTICE\r\nDATE:\t24/01/01\n", "text/plain"),
]


@pytest.mark.parametrize(("value", "expected"), REFINED)
def test_a_row_says_what_archive_core_says_or_better(value: bytes, expected: str) -> None:
    assert refined_media_type(annotate([], value).media_type, value) == expected


@pytest.mark.parametrize(("value", "expected"), [pair for pair in REFINED if pair[0]])
def test_a_blob_is_looked_into(value: bytes, expected: str) -> None:
    assert refined_media_type(media_type(b"blob", value=value), value) == expected


@pytest.mark.parametrize("value", [b"[GCN] a notice in words", b"{not json}"])
def test_a_blob_of_text_in_brackets_is_text(value: bytes) -> None:
    assert refined_media_type("application/octet-stream", value) == "text/plain"


@pytest.mark.parametrize("form", [form for form in FORMATS if form != b"blob"])
@pytest.mark.parametrize("value", [b"\x89PNG\r\n\x1a\n", CSV, b""])
def test_a_telling_format_is_believed_whatever_the_value(form: bytes, value: bytes) -> None:
    assert refined_media_type(media_type(form, value=value), value) == FORMATS[form]


def test_of_a_value_that_is_gone_nothing_better_is_told() -> None:
    for told in ("application/octet-stream", "application/fits", "text/plain", ""):
        assert refined_media_type(told, None) == told


@given(
    st.one_of(
        st.binary(max_size=300), st.text(alphabet='<!->?xml svg,\n\r"a[{', max_size=200).map(str.encode)
    )
)
def test_refining_never_fails_and_is_done_once(value: bytes) -> None:
    for told in ("", "application/octet-stream", "text/plain", "application/fits", "application/xml"):
        assert "/" in refined_media_type(told, value) or value


@pytest.mark.parametrize("unit", [b"<!---->", b"<!--", b"<?xml ", b" ", b",\n", b'"', b"<!doctype svg "])
def test_refining_takes_linear_time(unit: bytes) -> None:
    value = b"<" + unit * 2_000
    for told in ("application/octet-stream", "text/plain", "application/xml"):
        assert refined_media_type(told, value)
