"""The text by which a message is found: archive-core's choice of it, within bounds, whatever a stranger sends."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.model.message import Header, Message, TimestampType
from hop_archive.read.indexable_text import MOST_CHARACTERS, MOST_PAYLOAD_BYTES, indexable_text
from hop_archive_tests.strategies import any_headers, archived, nullable_bytes

LONG = "QUFB" * 40
"""Text of 128 characters and more without a space: an encoding of something else, most likely."""


def text_of(value: bytes | None, *headers: Header, format: str = "") -> tuple[str, bool]:  # noqa: A002 (hop-client's word)
    told = (*headers, ("_format", format.encode())) if format else headers
    message = Message("t", 0, 0, 1, TimestampType.CREATE, None, value, told)
    return indexable_text(archived(message))


def avro(schema: Any, *records: Any) -> bytes:
    file = io.BytesIO()
    fastavro.writer(file, schema, records)
    return file.getvalue()


VOEVENT = b"""<?xml version="1.0"?>
<voe:VOEvent ivorn="ivo://gwnet/LVC#S200302c" role="observation" xmlns:voe="http://www.ivoa.net/xml/VOEvent/v2.0">
  <Who><Date>2020-03-02T01:58:11</Date><Author><contactName>LIGO &amp; Virgo</contactName></Author></Who>
  <What><Param name="Instruments" value="H1,V1"><Description>List of instruments</Description></Param>
  <Param name="skymap" value="https://gracedb.ligo.org/bayestar.fits.gz"/><!-- aside --></What>
  <Description>Report of a candidate</Description>
</voe:VOEvent>"""
NOTICE = b"TITLE:  GCN/AMON NOTICE\r\nSRC_RA:  103.7861d {+06h 55m 09s}\r\n         103.9d (current)\r\nTITLE: again\r\n"
CIRCULAR = {"header": {"title": "GCN CIRCULAR", "number": "40"}, "body": "We observed the afterglow."}


@pytest.mark.parametrize(
    ("value", "format_name", "expected"),
    [
        (
            json.dumps(
                {
                    "foo": "bar",
                    "baz": {"quux": [1, "some text", 3], "xen": False, "hom": 3.6, "n": 12},
                    "no": None,
                }
            ).encode(),
            "json",
            "foo bar some text xen False hom 3.6 n 12",
        ),
        (json.dumps({"skymap": LONG, "note": f"{LONG} {LONG}"}).encode(), "json", f"note {LONG} {LONG}"),
        (b'"alone"', "json", "alone"),
        (
            json.dumps(CIRCULAR).encode(),
            "circular",
            "title GCN CIRCULAR number 40 We observed the afterglow.",
        ),
        (b'{"circularId": 7, "subject": "GRB"}', "circular", "circularId 7 subject GRB"),
        (b"TITLE: GCN CIRCULAR", "circular", "TITLE: GCN CIRCULAR"),
        (
            NOTICE,
            "gcntextnotice",
            "title GCN/AMON NOTICE again src_ra 103.7861d {+06h 55m 09s} 103.9d (current)",
        ),
        (
            VOEVENT,
            "voevent",
            "Date 2020-03-02T01:58:11 contactName LIGO & Virgo name Instruments value H1,V1 Description List of instruments "
            "name skymap value https://gracedb.ligo.org/bayestar.fits.gz Description Report of a candidate",
        ),
        (b'{"ivorn": "ivo://x", "Who": {"Date": "2020"}}', "voevent", "Date 2020"),
        (b"plain words", "", "plain words"),
        (LONG.encode(), "", ""),
        (
            avro(
                {
                    "type": "record",
                    "name": "r",
                    "fields": [
                        {"name": "id", "type": "string"},
                        {"name": "mag", "type": "double"},
                        {"name": "cutout", "type": "bytes"},
                    ],
                },
                {"id": "ZTF18a", "mag": 17.5, "cutout": b"words"},
                {"id": "ZTF18b", "mag": 18.0, "cutout": b""},
            ),
            "avro",
            "id ZTF18a mag 17.5 id ZTF18b mag 18.0",
        ),
    ],
)
def test_each_kind_of_payload_gives_its_words(value: bytes, format_name: str, expected: str) -> None:
    assert text_of(value, format=format_name) == (expected, True)


def test_headers_that_are_text_come_first_and_reserved_ones_not_at_all_but_for_the_sender() -> None:
    headers = (
        ("title", "Größe".encode()),
        ("_sender", b"egorey"),
        ("_id", bytes(16)),
        ("_test", b"true"),
        ("binary", b"\xff"),
        ("null", None),
        ("empty", b""),
    )
    assert text_of(b"payload", *headers) == ("title Größe sender egorey empty  payload", True)


@pytest.mark.parametrize(
    ("value", "format_name"),
    [
        (None, ""),
        (b"\x00\x01\x02", ""),
        (b"\x89PNG\r\n\x1a\n", ""),
        (b"words " * (MOST_PAYLOAD_BYTES // 6 + 1), ""),
        (b'{"a": ', "json"),
        (b'{"a": "\xff"}', "json"),
        (b"[" * 100_000 + b"]" * 100_000, "json"),
        (b"Obj\x01 and no more", "avro"),
        (b"<a><b></a>", "voevent"),
        (b'<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>', "voevent"),
        ("größe".encode("latin-1"), ""),
    ],
)
def test_where_a_payload_is_not_looked_into_the_headers_stay_and_it_is_said(
    value: bytes | None, format_name: str
) -> None:
    assert text_of(value, ("title", b"found"), format=format_name) == ("title found", False)


def test_text_is_cut_and_more_is_not_decoded() -> None:
    text, is_full = text_of(b'{"a": "' + b"word " * 100_000 + b'"}', format="json")
    assert (len(text), is_full) == (MOST_CHARACTERS, True)


def test_a_notice_of_many_lines_takes_linear_time() -> None:
    value = b"A:\n" * (MOST_PAYLOAD_BYTES // 4)
    assert text_of(value, format="gcntextnotice")[1]


def test_no_control_character_and_no_lone_surrogate_is_left() -> None:
    text, is_full = text_of(
        b'{"a\\u0000b": "c\\ud800d\\u0007\\ud83d\\udd2d"}', ("t", b"x\x00\x7fy"), format="json"
    )
    assert (text, is_full) == ("t x  y a b c d \U0001f52d", True)


def test_numbers_of_any_length_are_words() -> None:
    digits = "9" * 5_000
    assert text_of(b'{"n": %s}' % digits.encode(), format="json") == (f"n {digits}", True)


FORMATS = st.sampled_from(["", "json", "avro", "voevent", "circular", "gcntextnotice", "blob"])


@given(
    any_headers,
    st.one_of(nullable_bytes, st.text().map(lambda text: text.encode(errors="surrogatepass"))),
    FORMATS,
)
def test_nothing_that_a_stranger_sends_is_an_error_or_more_than_a_database_takes(
    headers: tuple[Header, ...], value: bytes | None, format_name: str
) -> None:
    text, _ = text_of(value, *headers, format=format_name)
    assert len(text) <= MOST_CHARACTERS
    assert "\x00" not in text
    text.encode()
