"""Whether stored bytes are the document that a catalog row describes. Does no I/O."""

from __future__ import annotations

from hop_archive.catalog.records import Row
from hop_archive.errors import CorruptError
from hop_archive.model.annotations import Annotations
from hop_archive.model.document import Document, Statement, crc32, decode, decode_statement
from hop_archive.model.identity import digest
from hop_archive.store.protocol import Extent


def extent_of(row: Row) -> Extent:
    """Where the document of a row is, in either layout."""
    return Extent(row.object_key, row.position, None if row.position is None else row.size_bytes)


def check(row: Row, body: bytes) -> tuple[Document | None, tuple[str, ...]]:
    """The document that ``body`` is, and in what it is not the one that ``row`` describes.

    What an adopted row does not say (partition, offset, digest) is not compared. The document is None where
    ``body`` is none.
    """
    problems = [_difference("size", row.size_bytes, len(body)), _difference("CRC-32", row.crc32, crc32(body))]
    try:
        document = decode(body)
    except CorruptError as error:
        return None, (*filter(None, problems), str(error))
    message = document.message
    # Of a content that was removed for good, only what is written down of it is there to be compared.
    found_crc32, found_digest = document.message_crc32, document.digest
    if not document.suppressed:
        found_crc32 = crc32(message.value)
    problems += (
        _difference("UUID", row.uuid, document.uuid),
        _difference("topic", row.topic, message.topic),
        _difference("timestamp", row.timestamp_ms, message.timestamp_ms),
        _difference("CRC-32 of the value", row.message_crc32, found_crc32),
    )
    if row.partition is not None:
        problems.append(_difference("partition", row.partition, message.partition))
        problems.append(_difference("offset", row.offset, message.offset))
    if row.digest is not None:
        if not document.suppressed:
            found_digest = digest(message.key, message.headers, message.value)
        problems.append(_difference("digest", row.digest, document.digest))
        problems.append(_difference("digest of its content", row.digest, found_digest))
        if row.annotations != document.annotations:
            problems += map(_difference, _NOTES, row.annotations, document.annotations)
    return document, tuple(filter(None, problems))


def prove(row: Row, body: bytes) -> tuple[Document | None, tuple[str, ...]]:
    """As ``check``, but the document comes only with what is wrong of it: in 0.61 of the time where nothing is (2026-11-28).

    That is, for rows of our own with their content, which nearly all are.
    """
    if len(body) != row.size_bytes or crc32(body) != row.crc32:
        return check(row, body)
    try:
        stated = decode_statement(body)
    except CorruptError:
        return check(row, body)
    is_just_that = (
        stated.place == (row.topic, row.partition, row.offset, row.timestamp_ms)
        and stated.uuid == str(row.uuid)
        and stated.annotations == row.annotations
        and not stated.is_suppressed
        and crc32(stated.value) == row.message_crc32
        and stated.digest == row.digest == digest(stated.key, stated.received_headers, stated.value)
    )
    return (None, ()) if is_just_that else check(row, body)


def check_content(row: Row, body: bytes) -> tuple[Statement | None, tuple[str, ...]]:
    """What the document that ``body`` is says, where it is the very bytes that ``row`` describes.

    By size, CRC-32, UUID and recorded digest, which is all that can differ where the bytes are those that were stored: in
    0.34 of the time of ``check`` (2026-11-28). Where they are not, ``check`` tells in what.
    """
    if len(body) == row.size_bytes and crc32(body) == row.crc32:
        try:
            found = decode_statement(body)
        except CorruptError as error:
            return None, (str(error),)
        if found.uuid == str(row.uuid) and row.digest in (None, found.digest):
            return found, ()
        _, problems = check(row, body)  # which also knows a UUID that is written in another way
        return (None if problems else found), problems
    _, problems = check(row, body)
    return None, problems


_NOTES = [name.replace("_", " ") for name in Annotations._fields]


def _difference(what: str, wanted: object, found: object) -> str:
    return "" if wanted == found else f"{what}: the catalog says {_shown(wanted)}, stored is {_shown(found)}"


def _shown(value: object) -> str:
    match value:
        case bytes():
            return value.hex() or "none"
        case bool():
            return "yes" if value else "no"
        case "":
            return "nothing"
        case _:
            return str(value)
