"""Whether stored bytes are the document that a catalog row describes. Does no I/O."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from hop_archive.catalog.records import Row
from hop_archive.errors import CorruptError
from hop_archive.model.annotations import Annotations
from hop_archive.model.document import Document, Statement, crc32, decode, decode_statement
from hop_archive.model.frames import Frame
from hop_archive.model.identity import digest
from hop_archive.model.message import Message, TimestampType
from hop_archive.store.protocol import Extent


def extent_of(row: Row) -> Extent:
    """Where the document of a row is, in either layout, compressed or not."""
    length = None if row.position is None else row.size_bytes
    frame = None if row.frame is None or length is None else Frame(row.frame, row.frame_size or 0)
    return Extent(row.object_key, row.position, length, frame)


def check(row: Row, body: bytes) -> tuple[Document | None, tuple[str, ...]]:
    """The document that ``body`` is, and in what it is not the one that ``row`` describes.

    What an adopted row does not say (partition, offset, timestamp type, digest) is not compared, nor the leader epoch, which
    no row says. The document is None where ``body`` is none.
    """
    problems = [_difference("size", row.size_bytes, len(body)), _difference("CRC-32", row.crc32, crc32(body))]
    try:
        document = decode(body, row.uuid)
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
    if row.timestamp_type is not None:
        problems.append(_difference("timestamp type", row.timestamp_type, message.timestamp_type))
    if row.digest is not None:
        if not document.suppressed:
            found_digest = digest(message.key, message.headers, message.value)
        problems.append(_difference("digest", row.digest, document.digest))
        problems.append(_difference("digest of its content", row.digest, found_digest))
        if (notes := document.annotations) != row.annotations:
            # A row may say more of the media type (``model.annotations``); and what was said of a content that is gone stays.
            told = row.annotations.media_type
            if document.suppressed or told == document.described.media_type:
                notes = notes._replace(media_type=told)
            problems += map(_difference, _NOTES, row.annotations, notes)
    return document, tuple(filter(None, problems))


def prove(row: Row, body: bytes) -> tuple[Document | None, tuple[str, ...]]:
    """As ``check``, but the document comes only with what is wrong of it: in 0.61 of the time where nothing is (2026-11-28).

    That is, for rows of our own with their content, which nearly all are.
    """
    return check(row, body) if _proven(row, body) is None else (None, ())


class HeldMessage(NamedTuple):
    """A message as its document holds it, and in what it may not be what Kafka carried; see ``Document``."""

    message: Message
    caveats: tuple[str, ...]


def check_message(row: Row, body: bytes) -> tuple[HeldMessage | None, tuple[str, ...]]:
    """The message that ``body`` holds, and in what ``body`` is not the document that ``row`` describes, as ``check`` tells it."""
    if (stated := _proven(row, body)) is not None:
        with suppress(CorruptError):
            return HeldMessage(stated.message(), stated.caveats), ()
    document, problems = check(row, body)
    return (None if document is None else HeldMessage(document.message, document.caveats)), problems


def _proven(row: Row, body: bytes) -> Statement | None:
    """What the document says, where all of it is what the row does; None where it is not, or only ``check`` can tell."""
    if row.digest is None or len(body) != row.size_bytes or crc32(body) != row.crc32:
        return None
    try:
        stated = decode_statement(body, row.uuid)
    except CorruptError:
        return None
    is_just_that = (
        stated.place == (row.topic, row.partition, row.offset, row.timestamp_ms)
        and type(clock := stated.metadata.get("timestamp_type")) is int
        and clock == row.timestamp_type
        and stated.uuid == str(row.uuid)
        and stated.annotations == row.annotations
        and not stated.is_suppressed
        and crc32(stated.value) == row.message_crc32
        and stated.digest == row.digest == digest(stated.key, stated.received_headers, stated.value)
    )
    return stated if is_just_that else None


_NOTES = [name.replace("_", " ") for name in Annotations._fields]


def _difference(what: str, wanted: object, found: object) -> str:
    return "" if wanted == found else f"{what}: the catalog says {_shown(wanted)}, stored is {_shown(found)}"


def _shown(value: object) -> str:
    match value:
        case bytes():
            return value.hex() or "none"
        case bool():
            return "yes" if value else "no"
        case TimestampType():
            return value.name.lower()
        case "":
            return "nothing"
        case _:
            return str(value)
