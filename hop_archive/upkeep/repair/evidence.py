"""What stored bytes prove by themselves, and which catalog row they make. Does no I/O.

A document proves itself where its digest and checksum are those of its content, its UUID is the one that its content
gives, and it encodes to the very bytes again. What it says of topic, partition, offset and time is then held against
the key that it stands under.
"""

from __future__ import annotations

import struct

from zlib_ng import zlib_ng

from hop_archive.catalog.records import Row
from hop_archive.errors import CorruptError
from hop_archive.ingest.write import row_of
from hop_archive.model.annotations import annotate
from hop_archive.model.document import Document, crc32, decode, encode
from hop_archive.model.identity import client_uuid, derived_uuid, digest
from hop_archive.model.keys import first_key, object_key, slice_of
from hop_archive.model.message import Message

_LENGTH = struct.Struct("<i")
_EPOCH = b"\x10leader_epoch\0"
_MOST_EPOCHS = 100_000
"""A row does not say a message's leader epoch, of which each election makes another. More would be checksums by chance."""
_DERIVED_ATTEMPTS = 10
"""Further ones are made only where a publisher uses the UUIDs that the archive derives."""


def proven(body: bytes) -> Document | None:
    """The document that these bytes are, where it proves itself; None where it does not."""
    try:
        document = decode(body)
    except CorruptError:
        return None
    return None if not document.digest or doubt(document, body) else document


def doubt(document: Document, body: bytes) -> str:
    """Why a document that was decoded from ``body`` does not prove itself, for people; '' where it does.

    One of another archiver has no digest: of that only the checksum of its payload is looked at.
    """
    message = document.message
    if crc32(message.value) != document.message_crc32:
        return "the CRC-32 of its payload is not the one that it says"
    if not document.digest:
        return ""
    if digest(message.key, message.headers, message.value) != document.digest:
        return "its digest is not that of its content"
    derived = (
        derived_uuid(message.topic, message.timestamp_ms, document.digest, attempt)
        for attempt in range(_DERIVED_ATTEMPTS)
    )
    is_its_uuid = (
        client_uuid(message.headers) == document.uuid if document.is_client_uuid else document.uuid in derived
    )
    if not is_its_uuid:
        return f"its UUID {document.uuid} is not that of its content"
    return "" if encode(document) == body else "it does not encode to the same bytes again"


def document_of(row: Row, message: Message) -> Document:
    """The document that was stored of a message which has this row: it says the media type by its own rule."""
    notes = row.annotations._replace(media_type=annotate(message.headers, message.value).media_type)
    return Document(message, row.uuid, row.is_client_uuid, row.digest or b"", row.message_crc32, notes)


def fits(document: Document, key: str) -> bool:
    """Whether the document may stand under this key, or in the segment of this key."""
    message = document.message
    where = slice_of(key)
    if where is None:
        return first_key(key) == object_key(message.topic, message.timestamp_ms, document.uuid)
    place = (message.topic, message.partition)
    return place == (where.topic, where.partition) and where.start <= message.offset < where.stop


def corrected(row: Row, body: bytes) -> Row | None:
    """The row that the document ``body`` makes in the place of ``row``; None where it does not prove that row wrong.

    It does where its checksum is the one that the row has, whatever else of the row differs; or where nothing
    but that checksum and the size differ, and it proves itself.
    """
    same_bytes = crc32(body) == row.crc32
    document = proven(body)
    if document is None:
        if not same_bytes or row.digest is not None:
            return None
        # Another archiver's document holds no digest: its checksum vouches for it.
        try:
            document = decode(body, row.uuid)
        except CorruptError:
            return None
        message = document.message
        if document.uuid != row.uuid or document.message_crc32 != crc32(message.value):
            return None
        return row._replace(
            topic=message.topic,
            timestamp_ms=message.timestamp_ms,
            message_crc32=document.message_crc32,
            size_bytes=len(body),
        )
    where = slice_of(row.object_key)
    generation = where.generation if where is not None else row.generation
    if generation is None or not fits(document, row.object_key):
        return None
    made = row_of(generation, row.bucket, document, body, row.document_place)
    made = made._replace(retracted=row.retracted)
    # That nobody has corrected its media type yet is no difference.
    if row.annotations == document.annotations:
        made = made._replace(annotations=row.annotations)
    alike = made == row._replace(crc32=made.crc32, size_bytes=made.size_bytes)
    return made if same_bytes or alike else None


def encoded_anew(row: Row, body: bytes) -> bytes | None:
    """The very bytes that ``row`` describes, where ``body`` is another document of its message; None where it is not.

    As archive-core leaves one under the same key. The row's digest proves key, headers and value; size and CRC-32 prove
    the rest, which is the row's own.
    """
    if row.digest is None or row.partition is None or row.offset is None or row.timestamp_type is None:
        return None
    try:
        found = decode(body, row.uuid).message
    except CorruptError:
        return None
    if digest(found.key, found.headers, found.value) != row.digest:
        return None
    message = found._replace(
        topic=row.topic,
        partition=row.partition,
        offset=row.offset,
        timestamp_ms=row.timestamp_ms,
        timestamp_type=row.timestamp_type,
    )

    def with_epoch(epoch: int | None) -> bytes:
        return encode(document_of(row, message._replace(leader_epoch=epoch)))

    made = with_epoch(None)
    if (len(made), crc32(made)) == (row.size_bytes, row.crc32):
        return made
    made = with_epoch(0)
    if len(made) != row.size_bytes:
        return None
    at = made.index(_EPOCH, len(message.value or b"")) + len(_EPOCH)
    before, after = zlib_ng.crc32(made[:at]), made[at + _LENGTH.size :]
    for epoch in range(_MOST_EPOCHS):
        if zlib_ng.crc32(after, zlib_ng.crc32(_LENGTH.pack(epoch), before)) == row.crc32:
            return with_epoch(epoch)
    return None
