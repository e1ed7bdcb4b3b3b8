"""The document: one message with its metadata and annotations as BSON. Pure.

The field names are those that readers of existing Hopskotch archives know. Nothing in a document comes from
a clock or from chance: the same message always encodes to the same bytes.
"""

from __future__ import annotations

import uuid
import zlib
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

import bson
from bson.errors import InvalidBSON
from bson.int64 import Int64

from hop_archive.errors import CorruptError
from hop_archive.model.annotations import Annotations
from hop_archive.model.identity import ID_HEADER, client_uuid
from hop_archive.model.message import CLOCKS, Header, Message, TimestampType

_MALFORMED = (InvalidBSON, AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)
"""What bson and the functions below raise. Nothing is made of a value before its type is known: ``bytes(2**40)`` is no
error of any kind, but a terabyte of zeros."""

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Document:
    """One message as it is archived.

    Attributes:
        message: The message, verbatim: headers are those received, without the archive's own ``_id``.
        uuid: The UUID that it is archived under.
        is_client_uuid: Whether the publisher gave that UUID.
        digest: Digest of its content, 16 bytes.
        message_crc32: CRC-32 of its value.
        annotations: What describes it.
        suppressed: Why its content was removed for good; '' where it is there. Then key and value are null, no header but
            the publisher's UUID is left, and digest and ``message_crc32`` are those of the content that was.
    """

    message: Message
    uuid: uuid.UUID
    is_client_uuid: bool
    digest: bytes
    message_crc32: int
    annotations: Annotations = field(default_factory=Annotations)
    suppressed: str = ""

    @property
    def stored_headers(self) -> tuple[Header, ...]:
        """The headers as they are stored: those received, then an ``_id`` of the archive's if none was legal."""
        if self.is_client_uuid or client_uuid(self.message.headers) is not None:
            return self.message.headers
        return (*self.message.headers, (ID_HEADER, self.uuid.bytes))


def crc32(data: bytes | None) -> int:
    """CRC-32 (ISO 3309, as in zlib) of ``data``; 0 for null and for empty."""
    return zlib.crc32(data) if data else 0


def encode(document: Document) -> bytes:
    """The BSON bytes of ``document``; the same document always gives the same bytes."""
    message, described = document.message, document.annotations
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
            "annotations": {
                "con_text_uuid": str(document.uuid),
                "con_is_client_uuid": document.is_client_uuid,
                "con_message_crc32": Int64(document.message_crc32),
                "digest": document.digest,
                "public": described.public,
                "direct_upload": described.direct_upload,
                "media_type": described.media_type,
                "title": described.title,
                "sender": described.sender,
                "file_name": described.file_name,
                "originator": described.originator,
                # Only where it says something: every other document keeps the bytes that it always had.
                **({"suppressed": document.suppressed} if document.suppressed else {}),
            },
        }
    )


class Statement(NamedTuple):
    """What a document says of its message's content, and of all that a catalog row says: nothing is made of it.

    Attributes:
        metadata: As it is written down.
        notes: The annotations, likewise.
        uuid: The UUID that it is archived under, as text.
        is_client_uuid: Whether the publisher gave that UUID.
        digest: Digest of its content; b"" in documents of other archivers.
        key: The message's key.
        value: Its value.
        headers: Its headers as they are stored: with the archive's own ``_id``, if it made one.
    """

    metadata: dict[str, Any]
    notes: dict[str, Any]
    uuid: str
    is_client_uuid: bool
    digest: bytes
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]

    @property
    def received_headers(self) -> tuple[Header, ...]:
        """The headers as they were received."""
        if self.is_client_uuid:
            return self.headers
        return _received(self.headers, uuid.UUID(self.uuid).bytes, is_client_uuid=False)

    @property
    def place(self) -> tuple[str, int, int, int] | None:
        """Topic, partition, offset and timestamp; None where one is not as we write it, or not there."""
        try:
            place: tuple[str, int, int, int] = _PLACE(self.metadata)
        except KeyError:
            return None
        return place if tuple(map(type, place)) == _PLACE_TYPES else None

    @property
    def annotations(self) -> tuple[object, ...] | None:
        """Values as in ``Annotations``; None where one is not as we write it, or not there."""
        try:
            described: tuple[object, ...] = _ANNOTATIONS(self.notes)
        except KeyError:
            return None
        return described if tuple(map(type, described)) == _ANNOTATION_TYPES else None

    @property
    def is_suppressed(self) -> bool:
        """Whether its content was removed for good."""
        return "suppressed" in self.notes


_PLACE = itemgetter("topic", "partition", "offset", "timestamp")
_PLACE_TYPES = (str, int, Int64, Int64)
_ANNOTATIONS = itemgetter(*Annotations._fields)
_ANNOTATION_TYPES = tuple(map(type, Annotations()))


def decode_statement(data: bytes) -> Statement:
    """What a document says, in 0.38 of the time of ``decode`` (documents of 1 KB, 2026-11-28).

    Raises:
        CorruptError: ``data`` is not the BSON of a document.
    """
    try:
        fields = bson.decode(data)
        metadata, notes = _part(fields, "metadata"), _part(fields, "annotations")
        key, headers = _key_and_headers(metadata, notes)
        return Statement(
            metadata,
            notes,
            _text(notes["con_text_uuid"]),
            _flag(notes["con_is_client_uuid"]),
            _digest(notes.get("digest", b"")),
            key,
            _bytes(fields["message"]),
            headers,
        )
    except _MALFORMED as error:
        raise CorruptError(f"not an archived document: {error}", size_bytes=len(data)) from error


def decode(data: bytes) -> Document:
    """The document that ``data`` encodes.

    Reads documents of other archivers too, which lack partition, offset and digest: −1, −1 and b"" stand
    for those.

    Raises:
        CorruptError: ``data`` is not the BSON of a document.
    """
    try:
        fields = bson.decode(data)
        metadata, notes = _part(fields, "metadata"), _part(fields, "annotations")
        message_uuid = uuid.UUID(_text(notes["con_text_uuid"]))
        is_client_uuid = _flag(notes["con_is_client_uuid"])
        epoch = metadata.get("leader_epoch")
        key, headers = _key_and_headers(metadata, notes)
        message = Message(
            topic=_storable(metadata["topic"]),
            partition=_whole(metadata.get("partition", -1), -1, 2**31 - 1),
            offset=_whole(metadata.get("offset", -1), -1),
            timestamp_ms=_whole(metadata["timestamp"]),
            timestamp_type=CLOCKS[_whole(metadata.get("timestamp_type", TimestampType.CREATE))],
            key=key,
            value=_bytes(fields["message"]),
            headers=_received(headers, message_uuid.bytes, is_client_uuid),
            leader_epoch=None if epoch is None else _whole(epoch, -1, 2**31 - 1),
        )
        public, direct, *texts = map(notes.get, Annotations._fields, Annotations())
        return Document(
            message,
            message_uuid,
            is_client_uuid,
            digest=_digest(notes.get("digest", b"")),
            message_crc32=_whole(notes["con_message_crc32"], 0, 2**32 - 1),
            annotations=Annotations(_flag(public), _flag(direct), *map(_storable, texts)),
            suppressed=_storable(notes.get("suppressed", "")),
        )
    except _MALFORMED as error:
        raise CorruptError(f"not an archived document: {error}", size_bytes=len(data)) from error


def _key_and_headers(
    metadata: dict[str, Any], notes: dict[str, Any]
) -> tuple[bytes | None, tuple[Header, ...]]:
    """Of our own documents as we write them. archive-core has null for no headers; early on no key, or one as text."""
    if "digest" in notes:
        return _bytes(metadata["key"]), _headers(metadata["headers"])
    key, headers = metadata.get("key"), metadata["headers"]
    return (key.encode() if isinstance(key, str) else _bytes(key)), _headers(
        [] if headers is None else headers
    )


# --- types, looked at before a value is used; BSON's own integers are of at most 64 bits


def _part(fields: dict[str, Any], name: str) -> dict[str, Any]:
    found = fields[name]
    if type(found) is dict:
        return found
    raise _unlike("fields", found)


def _bytes(value: object) -> bytes | None:
    if value is None or type(value) is bytes:
        return value
    if isinstance(value, bytes):  # of another subtype of BSON's, which we never write
        return bytes(value)
    raise _unlike("bytes or null", value)


def _digest(value: object) -> bytes:
    found = _bytes(value)
    if found is not None and len(found) in (0, _DIGEST_BYTES):
        return found
    raise ValueError(f"wanted a digest of {_DIGEST_BYTES} bytes")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise _unlike("true or false", value)


def _whole(value: object, least: int = -(2**63), most: int = 2**63 - 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _unlike("a whole number", value)
    if not least <= value <= most:
        raise ValueError(f"wanted a number from {least} to {most}, found {value}")
    return int(value)  # not BSON's own class for those of 64 bits


def _text(value: object) -> str:
    if type(value) is str:
        return value
    raise _unlike("text", value)


def _storable(value: object) -> str:
    """Text that a catalog can hold: without U+0000."""
    text = _text(value)
    if "\x00" in text:
        raise ValueError("wanted text without NUL")
    return text


def _headers(value: object) -> tuple[Header, ...]:
    if type(value) is not list:
        raise _unlike("a list of headers", value)
    return tuple([(_text(name), _bytes(content)) for name, content in value])


def _unlike(wanted: str, found: object) -> TypeError:
    return TypeError(f"wanted {wanted}, found {type(found).__name__}")


def _received(headers: tuple[Header, ...], message_uuid: bytes, is_client_uuid: bool) -> tuple[Header, ...]:
    """Stored headers without the ``_id`` that the archive made, if it made one."""
    is_made = not is_client_uuid and headers[-1:] == ((ID_HEADER, message_uuid),)
    return headers[:-1] if is_made else headers
