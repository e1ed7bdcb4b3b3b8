"""What stored bytes prove by themselves: everything that a document says of its content, and nothing less."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from hop_archive.model.document import Document, crc32, decode, encode
from hop_archive.read.contents import document_at, documents_in
from hop_archive.upkeep.repair.evidence import fits, proven
from hop_archive_tests.damaging import ruin
from hop_archive_tests.worlds import BUSY, QUIET


@pytest.fixture(scope="module")
def document() -> Document:
    sound = ruin("message")
    (row,) = [row for row in sound.rows(QUIET) if row.digest and not row.is_client_uuid][:1]
    return decode(sound.body(row.object_key))


def test_a_sound_document_proves_itself(document: Document) -> None:
    assert proven(encode(document)) == document


@pytest.mark.parametrize(
    "change",
    [
        {"key": b"another"},
        {"headers": (("another", b""),)},
        {"value": b"another"},
        {"timestamp_ms": 5},
        {"topic": "another"},
    ],
)
def test_a_document_of_other_content_does_not(document: Document, change: dict[str, object]) -> None:
    message = document.message._replace(**change)  # type: ignore[arg-type] # as given
    forged = replace(document, message=message, message_crc32=crc32(message.value))
    assert proven(encode(forged)) is None


def test_a_uuid_that_its_content_does_not_give_is_not_believed(document: Document) -> None:
    for own in (True, False):
        assert proven(encode(replace(document, uuid=uuid.uuid4(), is_client_uuid=own))) is None


def test_a_document_fits_under_its_own_key_alternatives_included_and_under_no_other() -> None:
    for layout in ("message", "segment"):
        sound = ruin(layout)
        first, other = sound.rows(BUSY)[0], sound.rows(QUIET)[0]
        body = sound.body(first.object_key)
        one = next(found for found in map(proven, (b for _, b in documents_in(body))) if found)
        assert fits(one, first.object_key)
        assert fits(one, first.object_key.replace(".bson", ".3.bson"))
        assert not fits(one, other.object_key)


def test_lengths_that_cannot_be_end_a_segment() -> None:
    assert list(documents_in(b"\x05\x00\x00\x00\x00" * 2)) == [
        (0, b"\x05\x00\x00\x00\x00"),
        (5, b"\x05\x00\x00\x00\x00"),
    ]
    for body in (b"", b"\x05", b"\xff\xff\xff\xff\x00", b"\x00" * 9, b"\x09\x00\x00\x00\x00"):
        assert list(documents_in(body)) == []
    assert document_at(b"\x05\x00\x00\x00\x00", -1) is None
