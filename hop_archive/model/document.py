"""The document: one message with its metadata and annotations as BSON. Pure.

The field names are those that readers of existing Hopskotch archives know. Nothing in a document comes from
a clock or from chance: the same message always encodes to the same bytes.
"""

from __future__ import annotations

import functools
import struct
import uuid
from binascii import hexlify
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

import bson
from bson.errors import InvalidBSON
from bson.int64 import Int64
from zlib_ng import zlib_ng

from hop_archive.errors import CorruptError
from hop_archive.model.adopted import in_our_shape
from hop_archive.model.annotations import REFINED, Annotations, refined_media_type, sniffed_media_type
from hop_archive.model.envelope import (
    ID_HEADER,
    UUID_BYTES,
    annotations_bson,
    enveloped,
    headers_bson,
    text_bson,
)
from hop_archive.model.identity import Identity, client_uuid
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
        digest: Digest of its content, 16 bytes.
        message_crc32: CRC-32 of its value.
        suppressed: Why its content was removed for good; '' where it is there. Then key and value are null, no header but
            the publisher's UUID is left, and digest and ``message_crc32`` are those of the content that was.
        caveats: In what it may not be what Kafka carried, for people: in some forms that other archivers wrote.
    """

    message: Message
    uuid: uuid.UUID
    is_client_uuid: bool
    digest: bytes
    message_crc32: int
    annotations: Annotations = field(default_factory=Annotations)
    suppressed: str = ""
    caveats: tuple[str, ...] = field(default=(), compare=False)

    @property
    def stored_headers(self) -> tuple[Header, ...]:
        """The headers as they are stored: those received, then an ``_id`` of the archive's if none was legal."""
        if self.is_client_uuid or client_uuid(self.message.headers) is not None:
            return self.message.headers
        return (*self.message.headers, (ID_HEADER, self.uuid.bytes))

    @property
    def described(self) -> Annotations:
        """The annotations that its catalog row has: with the better media type, if there is one. Of other archivers, theirs."""
        notes = self.annotations
        media_type = (
            refined_media_type(notes.media_type, self.message.value) if self.digest else notes.media_type
        )
        return notes if media_type == notes.media_type else notes._replace(media_type=media_type)


def crc32(data: bytes | None) -> int:
    """CRC-32 (ISO 3309, as in zlib) of ``data``; 0 for null and for empty.

    By zlib-ng, which takes 0.10 µs for 1 KB where zlib takes 0.45, and 15 for 1 MB where that takes 193 (2026-11-30).
    """
    return zlib_ng.crc32(data) if data else 0


def encode(document: Document) -> bytes:
    """The BSON bytes of ``document``; the same document always gives the same bytes."""
    like, room = form_of(document)
    identified = (document.uuid.bytes, document.digest, document.message_crc32)
    return like.written(document.message, room, *identified)


def form_of(document: Document) -> tuple[Form, bytes]:
    """The form of a document, and what stands in the place of the UUID among its headers; b"" where none does."""
    message, archived_as = document.message, document.uuid.bytes
    own, envelope = enveloped(message.headers)
    array, room = envelope.array, archived_as if own is None else own
    if own is None and document.is_client_uuid:  # of other archivers alone: none was made for it
        array, room = (headers_bson(message.headers), b""), b""
    notes = annotations_bson(document.annotations)
    if (
        document.suppressed
    ):  # only where it says something: every other document keeps the bytes that it always had
        notes += text_bson("suppressed", document.suppressed)
    return form(message, array, len(room), document.is_client_uuid, len(document.digest), notes), room


def encode_message(message: Message, identity: Identity, *, public: bool) -> tuple[bytes, int, Annotations]:
    """What is stored of a message from Kafka, and what its row says of that: body, its CRC-32, annotations.

    The body is what ``encode`` makes of the same message, whose annotations are those that ``annotate`` tells; the row's have
    the better media type, if there is one.
    """
    message_uuid, is_client_uuid, _, _, content, message_crc32 = identity
    own, envelope = enveloped(message.headers)
    archived_as = own if own is not None and is_client_uuid else message_uuid.bytes
    media_type = envelope.media_type or sniffed_media_type(message.value)
    annotations, notes = envelope.described(media_type, public)
    like = form(message, envelope.array, UUID_BYTES, is_client_uuid, len(content), notes)
    body = like.written(message, archived_as if own is None else own, archived_as, content, message_crc32)
    if media_type in REFINED:
        refined = refined_media_type(media_type, message.value)
        annotations = annotations if refined == media_type else envelope.described(refined, public)[0]
    return body, zlib_ng.crc32(body), annotations


class Form(NamedTuple):
    """What the documents of messages share that are alike but for value, key, offset, timestamp and UUID.

    Written by hand, since ``bson`` takes a dict of dicts: in 0.27 of its time (messages of 1 KB, 2026-11-29). Values of
    many MB are copied once, instead of as often as a buffer has to grow. The BSON specification (bsonspec.org, 1.1) is the
    rule, and ``bson`` the judge, in ``unit/model/test_document.py``.

    Attributes:
        pack: Packs what goes after the value: the constants, and what is of one message between them.
        constants: What is the same in each.
        least_bytes: Bytes of a document whose value is null.
    """

    pack: Callable[..., bytes]
    constants: tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes]
    least_bytes: int

    def written(
        self, message: Message, room: bytes, archived_as: bytes, content: bytes, message_crc32: int
    ) -> bytes:
        """The bytes of a document; ``room`` is the UUID among its headers, ``archived_as`` that of its annotations."""
        _, _, offset, timestamp_ms, _, key, value, _, _ = message
        opening, before_key, before_uuid, before_text, before_crc32, before_digest, closing = self.constants
        text = hexlify(
            archived_as, b"-", 2
        )  # a dash after every second byte: those of a UUID, and three more
        after = self.pack(
            opening, offset, TIMESTAMP, timestamp_ms, before_key, key or b"", before_uuid, room, before_text,
            text[:4], text[5:29], text[30:34], text[35:], before_crc32, message_crc32, before_digest, content, closing,
        )  # fmt: skip
        if value is None:
            return NULL_HEAD(self.least_bytes, b"\x0amessage") + after
        value_bytes = len(value)
        return b"".join((HEAD(self.least_bytes + 5 + value_bytes, b"\x05message", value_bytes), value, after))


def form(
    like: Message,
    array: tuple[bytes, bytes],
    room_bytes: int,
    is_client_uuid: bool,
    digest_bytes: int,
    notes: bytes,
) -> Form:
    """The form of documents of messages like this one: of its partition, leader epoch, clock and length of key.

    Args:
        like: The message.
        array: BSON of the headers as they are stored, before and after the UUID that is among them.
        room_bytes: How long that is.
        is_client_uuid: Whether the UUID is the publisher's.
        digest_bytes: How long the digest is.
        notes: Elements of the annotations after the digest.
    """
    topic, partition, _, _, clock, key, _, _, epoch = like
    in_topic, of_epoch = _surroundings(topic, partition, epoch)
    key_bytes = len(key or b"")
    before_key = b"".join((
        b"\x10timestamp_type\0", _INT32(clock), of_epoch,
        b"\x0akey\0" if key is None else b"\x05key\0%b\0" % _INT32(key_bytes),
    ))  # fmt: skip
    before_uuid = b"\x04headers\0" + array[0]
    before_crc32 = b"\0\x08con_is_client_uuid\0%c\x12con_message_crc32\0" % is_client_uuid
    before_digest = b"\x05digest\0%b\0" % _INT32(digest_bytes)
    closing = notes + b"\0\0"
    notes_bytes = (
        4
        + len(_UUID_ELEMENT)
        + _TEXT_BYTES
        + len(before_crc32)
        + 8
        + len(before_digest)
        + digest_bytes
        + len(closing)
        - 1
    )
    before_text = b"".join((
        array[1], b"\0\x03annotations\0", _INT32(notes_bytes), _UUID_ELEMENT
    ))  # fmt: skip
    metadata_bytes = (
        4
        + len(in_topic)
        + 8
        + len(TIMESTAMP)
        + 8
        + len(before_key)
        + key_bytes
        + len(before_uuid)
        + room_bytes
        + len(array[1])
        + 1
    )
    opening = b"\x03metadata\0%b%b" % (_INT32(metadata_bytes), in_topic)
    packed = struct.Struct(
        f"<{len(opening)}sq{len(TIMESTAMP)}sq{len(before_key)}s{key_bytes}s{len(before_uuid)}s{room_bytes}s"
        f"{len(before_text)}s4s24s4s4s{len(before_crc32)}sq{len(before_digest)}s{digest_bytes}s{len(closing)}s"
    )
    constants = (opening, before_key, before_uuid, before_text, before_crc32, before_digest, closing)
    return Form(packed.pack, constants, _NULL_HEAD_BYTES + packed.size)


_INT32 = struct.Struct("<i").pack
HEAD = struct.Struct("<i9six").pack
"""Packs what goes before a value: length of the document, type and name, length of the value."""
NULL_HEAD = struct.Struct("<i9s").pack
_NULL_HEAD_BYTES = struct.calcsize("<i9s")
TIMESTAMP = b"\x12timestamp\0"
_TEXT_BYTES = 36
_UUID_ELEMENT = b"\x02con_text_uuid\0" + _INT32(_TEXT_BYTES + 1)


@functools.lru_cache(1_000)
def _surroundings(topic: str, partition: int, epoch: int | None) -> tuple[bytes, bytes]:
    """The elements of the metadata before the offset and after the kind of its timestamp: for long the same in a partition."""
    before = b"%b\x10partition\0%b\x12offset\0" % (text_bson("topic", topic), _INT32(partition))
    return before, b"\x0aleader_epoch\0" if epoch is None else b"\x10leader_epoch\0" + _INT32(epoch)


class Statement(NamedTuple):
    """What a document says of its message's content, and of all that a catalog row says: nothing is made of it.

    Attributes:
        metadata: As it is written down.
        notes: The annotations, likewise.
        uuid: The UUID that it is archived under, as text.
        digest: Digest of its content; b"" in documents of other archivers.
        headers: Its headers as they are stored: with the archive's own ``_id``, if it made one.
        caveats: As those of a ``Document``.
    """

    metadata: dict[str, Any]
    notes: dict[str, Any]
    uuid: str
    is_client_uuid: bool
    digest: bytes
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    caveats: tuple[str, ...]

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

    def message(self) -> Message:
        """The message, as ``decode`` has it.

        Raises:
            CorruptError: What is said of it cannot be.
        """
        try:
            return _message(self.metadata, self.key, self.value, self.received_headers)
        except _MALFORMED as error:
            raise CorruptError(f"not an archived document: {error}") from error

    @property
    def is_suppressed(self) -> bool:
        """Whether its content was removed for good."""
        return "suppressed" in self.notes


_PLACE = itemgetter("topic", "partition", "offset", "timestamp")
_PLACE_TYPES = (str, int, Int64, Int64)
_ANNOTATIONS = itemgetter(*Annotations._fields)
_ANNOTATION_TYPES = tuple(map(type, Annotations()))


def decode_statement(data: bytes, under: uuid.UUID | None = None) -> Statement:
    """What a document says, in 0.38 of the time of ``decode`` (documents of 1 KB, 2026-11-28).

    Raises:
        CorruptError: ``data`` is not the BSON of a document.
    """
    try:
        fields, caveats = _fields(data, under)
        metadata, notes = _part(fields, "metadata"), fields["annotations"]
        return Statement(
            metadata,
            notes,
            _text(notes["con_text_uuid"]),
            _flag(notes["con_is_client_uuid"]),
            _digest(notes.get("digest", b"")),
            _bytes(metadata["key"]),
            _bytes(fields["message"]),
            _headers(metadata["headers"]),
            caveats,
        )
    except _MALFORMED as error:
        raise CorruptError(f"not an archived document: {error}", size_bytes=len(data)) from error


def decode(data: bytes, under: uuid.UUID | None = None) -> Document:
    """The document that ``data`` encodes.

    Reads documents of other archivers too, in every form that they wrote (docs/adopting.md). These lack partition, offset
    and digest: −1, −1 and b"" stand for those. In the oldest the UUID is not there either: ``under`` is the one under
    which it was read, by its row or key.

    Raises:
        CorruptError: ``data`` is not the BSON of a document.
    """
    try:
        fields, caveats = _fields(data, under)
        metadata, notes = _part(fields, "metadata"), fields["annotations"]
        message_uuid = uuid.UUID(_text(notes["con_text_uuid"]))
        is_client_uuid = _flag(notes["con_is_client_uuid"])
        received = _received(_headers(metadata["headers"]), message_uuid.bytes, is_client_uuid)
        message = _message(metadata, _bytes(metadata["key"]), _bytes(fields["message"]), received)
        public, direct, *texts = map(notes.get, Annotations._fields, Annotations())
        return Document(
            message,
            message_uuid,
            is_client_uuid,
            digest=_digest(notes.get("digest", b"")),
            message_crc32=_whole(notes["con_message_crc32"], 0, 2**32 - 1),
            annotations=Annotations(_flag(public), _flag(direct), *map(_storable, texts)),
            suppressed=_storable(notes.get("suppressed", "")),
            caveats=caveats,
        )
    except _MALFORMED as error:
        raise CorruptError(f"not an archived document: {error}", size_bytes=len(data)) from error


def _message(
    metadata: dict[str, Any], key: bytes | None, value: bytes | None, headers: tuple[Header, ...]
) -> Message:
    epoch = metadata.get("leader_epoch")
    return Message(
        topic=_storable(metadata["topic"]),
        partition=_whole(metadata.get("partition", -1), -1, 2**31 - 1),
        offset=_whole(metadata.get("offset", -1), -1),
        timestamp_ms=_whole(metadata["timestamp"]),
        timestamp_type=CLOCKS[_whole(metadata.get("timestamp_type", TimestampType.CREATE))],
        key=key,
        value=value,
        headers=headers,
        leader_epoch=None if epoch is None else _whole(epoch, -1, 2**31 - 1),
    )


def _fields(data: bytes, under: uuid.UUID | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The parts of a document in our shape, those of other archivers with caveats; the annotations are a dict."""
    fields = bson.decode(data)
    notes = fields.get("annotations")
    if type(notes) is dict and "digest" in notes:  # as in all of our own
        return fields, ()
    shaped, caveats = in_our_shape(fields, under)
    return shaped, tuple(caveats)


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
