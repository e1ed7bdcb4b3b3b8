"""What has to be put back of a message, out of the bytes of its document, in one pass. Pure.

``decode_statement`` is the judge: it reads every document, and what comes out here is what it says, or the error that it
raises. That of the archive's own encoder, whose parts are the same from message to message but for the value and some
numbers, is taken apart here by hand: parts that came before are looked up, and only what is new is read by it.
"""

from __future__ import annotations

import itertools
import struct
from binascii import hexlify
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from hop_archive.errors import CorruptError
from hop_archive.model.document import TIMESTAMP, decode, decode_statement, encode, form_of
from hop_archive.model.envelope import ID_HEADER
from hop_archive.model.identity import DIGEST_SIZE, uuid_of
from hop_archive.model.message import Header, content_bytes


class Content(NamedTuple):
    """What a message carries, and which one it is said to be.

    Attributes:
        uuid: The bytes of the UUID as which it was read; b"" where the document says another one, or says it in another way.
            Then the headers are those that are stored.
        digest: The digest that the document says; b"" in documents of other archivers.
        headers: As they were received. Not to be changed: messages share it.
        made_id: Whether the document has an ``_id`` header of the archive's after these.
        size_bytes: Bytes of key, value and these headers together.
        caveats: In what it may not be what Kafka carried.
    """

    uuid: bytes
    digest: bytes
    key: bytes | None
    value: bytes | None
    headers: list[Header]
    made_id: bool
    size_bytes: int
    caveats: tuple[str, ...] = ()

    @property
    def stored_headers(self) -> list[Header]:
        """The headers as they are stored."""
        return [*self.headers, (ID_HEADER, self.uuid)] if self.made_id else self.headers


class _Like(NamedTuple):
    """What holds of all documents that are like one that was read.

    Attributes:
        has_key: Whether their messages have a key.
        before: The headers before the ``_id`` that is the UUID, and ``after`` those after it.
        made_id: Whether that is the archive's own.
        headers_bytes: Of all headers, as received.
    """

    has_key: bool
    before: list[Header]
    after: list[Header]
    made_id: bool
    headers_bytes: int


class _Layout(NamedTuple):
    """Documents whose parts, after the value, are of the same sizes.

    Attributes:
        same: Takes the constants of its form out of a document.
        own: Takes out what it has of its own: key, UUID among the headers and as text, digest. Numbers are passed over.
        known: What holds of documents, by these constants.
    """

    same: Callable[[bytes, int], tuple[bytes, ...]]
    own: Callable[[bytes, int], tuple[bytes, bytes, bytes, bytes]]
    known: dict[tuple[bytes, ...], _Like]


_HEAD = struct.Struct("<i9siB").unpack_from
_HEAD_BYTES, _NULL_HEAD_BYTES = struct.calcsize("<i9siB"), struct.calcsize("<i9s")
_LARGEST_BYTES = 2_048
_MOST_KNOWN = 500
_layouts: dict[int, dict[str, _Layout]] = {}
"""By the bytes of a document after its value, and by the sizes of its parts."""
_NONE: dict[str, _Layout] = {}

_unlike = itertools.count()
_ALL_LEARNED, _ONE_IN = 200, 20
"""So many documents that are like none before are learned, then one of so many: where none is like another it does not pay."""


def content_of(body: bytes, message_uuid: bytes) -> Content:
    """What ``body``, which is read as the document of this UUID, holds.

    Raises:
        CorruptError: It is not the BSON of a document.
    """
    if len(body) < _HEAD_BYTES:
        return _read_whole(body, message_uuid)
    size_bytes, element, value_bytes, kind = _HEAD(body)
    value, at = None, _NULL_HEAD_BYTES
    if element == b"\x05message\0" and kind == 0 and value_bytes >= 0:
        at = _HEAD_BYTES + value_bytes
        value = body[_HEAD_BYTES:at]
    elif element != b"\x0amessage\0":
        return _read_whole(body, message_uuid)
    if size_bytes != len(body):
        return _read_whole(body, message_uuid)
    for layout in _layouts.get(size_bytes - at, _NONE).values():
        if (like := layout.known.get(layout.same(body, at))) is not None:
            key, room, text, digest = layout.own(body, at)
            if room != message_uuid or text.replace(b"-", b"") != hexlify(message_uuid):
                break
            has_key, before, after, made_id, headers_bytes = like
            return Content(
                message_uuid,
                digest,
                key if has_key else None,
                value,
                before if made_id else [*before, (ID_HEADER, room), *after],
                made_id,
                headers_bytes + len(key) + (value_bytes if value else 0),
            )
    content = _read_whole(body, message_uuid)
    seen = next(_unlike)
    if content.uuid and size_bytes - at <= _LARGEST_BYTES and (seen < _ALL_LEARNED or seen % _ONE_IN == 0):
        with suppress(CorruptError):  # of what is nothing to the content
            _learn(body, at, message_uuid)
    return content


def _read_whole(body: bytes, message_uuid: bytes) -> Content:
    stated = decode_statement(body, uuid_of(message_uuid))
    is_that = stated.uuid.replace("-", "") == message_uuid.hex()
    headers = [*(stated.received_headers if is_that else stated.headers)]
    return Content(
        message_uuid if is_that else b"",
        stated.digest,
        stated.key,
        stated.value,
        headers,
        len(headers) < len(stated.headers),
        content_bytes(stated.key, stated.value, headers),
        stated.caveats,
    )


def _learn(body: bytes, at: int, message_uuid: bytes) -> None:
    """Remember how a document is made that was read whole, if it is just what the archive's own encoder writes.

    Another one with the same constants has in their places what they say: a number, or bytes of the size that they say.
    """
    document = decode(body, uuid_of(message_uuid))
    message, headers = document.message, document.stored_headers
    like, room = form_of(document)
    if room != message_uuid or len(document.digest) != DIGEST_SIZE or encode(document) != body:
        return
    number = headers.index((ID_HEADER, message_uuid))
    opening, before_key, before_uuid, before_text, before_crc32, before_digest, closing = map(
        len, like.constants
    )
    key, clock = len(message.key or b""), len(TIMESTAMP)
    same = f"<{opening}s8x{clock}s8x{before_key}s{key}x{before_uuid}s16x{before_text}s36x{before_crc32}s8x{before_digest}s16x{closing}s"
    own = f"<{opening + 8 + clock + 8 + before_key}x{key}s{before_uuid}x16s{before_text}x36s{before_crc32 + 8 + before_digest}x16s"
    if sum(len(layout.known) for alike in _layouts.values() for layout in alike.values()) >= _MOST_KNOWN:
        _layouts.clear()
    alike = _layouts.setdefault(len(body) - at, {})
    layout = alike.setdefault(
        same, _Layout(struct.Struct(same).unpack_from, struct.Struct(own).unpack_from, {})
    )
    layout.known[layout.same(body, at)] = _Like(
        message.key is not None,
        [*headers[:number]],
        [*headers[number + 1 :]],
        len(message.headers) < len(headers),
        content_bytes(None, None, message.headers),
    )
