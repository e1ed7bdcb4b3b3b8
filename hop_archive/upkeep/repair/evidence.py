"""What stored bytes prove by themselves, and which catalog row they make. Does no I/O.

A document proves itself where its digest and checksum are those of its content, its UUID is the one that its content
gives, and it encodes to the very bytes again. What it says of topic, partition, offset and time is then held against
the key that it stands under.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hop_archive.catalog.records import Row
from hop_archive.errors import CorruptError
from hop_archive.ingest.write import row_of
from hop_archive.model.document import Document, crc32, decode, encode
from hop_archive.model.identity import client_uuid, derived_uuid, digest
from hop_archive.model.keys import first_key, object_key, slice_of

_LENGTH = struct.Struct("<i")
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


def fits(document: Document, key: str) -> bool:
    """Whether the document may stand under this key, or in the segment of this key."""
    message = document.message
    where = slice_of(key)
    if where is None:
        return first_key(key) == object_key(message.topic, message.timestamp_ms, document.uuid)
    place = (message.topic, message.partition)
    return place == (where.topic, where.partition) and where.start <= message.offset < where.stop


def documents_in(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The documents that stand end to end in a segment, with their positions; ends where none begins.

    A document whose length was damaged hides those after it.
    """
    position = 0
    while (found := document_at(body, position)) is not None:
        yield position, found
        position += len(found)


def document_at(body: bytes, position: int) -> bytes | None:
    """The bytes of the document that begins at ``position``, by the length that it states; None where none can."""
    if not 0 <= position <= len(body) - 5:
        return None
    (length,) = _LENGTH.unpack_from(body, position)
    return body[position : position + length] if 5 <= length <= len(body) - position else None


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
            document = decode(body)
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
    made = row_of(generation, row.bucket, document, body, (row.object_key, row.position))
    made = made._replace(retracted=row.retracted)
    alike = made == row._replace(crc32=made.crc32, size_bytes=made.size_bytes)
    return made if same_bytes or alike else None
