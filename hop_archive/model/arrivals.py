"""Messages as they come from Kafka, in one pass over each: who it is, and what is stored of it. Pure.

Nearly all messages of a partition are alike: a UUID of their publisher's, headers else that came before, some KB. Of these
nothing is looked up, called or put into a value that needs not be: 4.6 µs, where ``identify`` and ``encode_message`` take 9.9
(1 KB of JSON, four headers; of both 1.3 were the hash and 0.6 the CRCs; 2026-11-29, before these were taken by zlib-ng). These
two do all others, and are the judges of this in ``unit/model/test_arrivals.py``.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, TypeAlias

from zlib_ng.zlib_ng import crc32

from hop_archive.model.annotations import REFINED, Annotations, refined_media_type, sniffed_media_type
from hop_archive.model.document import HEAD, TIMESTAMP, Form, encode_message, form
from hop_archive.model.envelope import UUID_BYTES, enveloped, without_uuid
from hop_archive.model.identity import COPIED_BYTES, DIGEST_SIZE, Identity, framing, identify, uuid_of
from hop_archive.model.message import Message

Arrival: TypeAlias = tuple[Identity, bytes, int, Annotations]
"""Who a message is; the document that is stored of it, if it is new, with its CRC-32; and the annotations of its row."""

_new = tuple.__new__


def arrivals(messages: Sequence[Message], *, public: bool) -> list[Arrival]:
    """Of each of these messages of one partition, in their order, what ``identify`` and ``encode_message`` say.

    ``public``: whether anybody may read the topic.
    """
    found: list[Arrival] = []
    kinds: dict[tuple[object, ...], _Kind | None] = {}
    last: tuple[Any, ...] = (None,) * 5
    for message in messages:
        topic, _, offset, timestamp_ms, clock, key, value, headers, epoch = message
        at, own, others = without_uuid(headers)
        if own is None or value is None or len(value) > COPIED_BYTES:
            found.append(_alone(message, public))
            continue
        like = (others, at, clock, epoch, None if key is None else len(key))
        if like != last:  # to compare takes half of what looking up takes
            kind = kinds.get(like)
            if kind is None:  # Of the first of a kind nothing is prepared: there may be no other.
                kinds[like] = _Kind(message, public) if like in kinds else None
                found.append(_alone(message, public))
                continue
            last, sniffed = like, kind.sniffed if kind.is_sniffed else None
            frame, before_key, before_own, after_own = kind.framing
            (pack, constants, least_bytes), annotations = kind.told
            opening, clocks, headers_before, headers_after, crc_name, digest_name, closing = constants
        value_bytes, key = len(value), key or b""
        framed = frame(before_key, key, before_own, own, after_own, value_bytes) + value
        content = blake2b(framed, digest_size=DIGEST_SIZE).digest()
        value_crc32 = crc32(value)
        if sniffed is not None:
            (pack, constants, least_bytes), annotations = sniffed(message)
            opening, clocks, headers_before, headers_after, crc_name, digest_name, closing = constants
        text = hexlify(own, b"-", 2)  # as ``Form.written``
        after = pack(
            opening, offset, TIMESTAMP, timestamp_ms, clocks, key, headers_before, own, headers_after,
            text[:4], text[5:29], text[30:34], text[35:], crc_name, value_crc32, digest_name, content, closing,
        )  # fmt: skip
        body = b"".join((HEAD(least_bytes + 5 + value_bytes, b"\x05message", value_bytes), value, after))
        identity = _new(Identity, (uuid_of(own), True, topic, timestamp_ms, content, value_crc32))
        found.append((identity, body, crc32(body), annotations))
    return found


def _alone(message: Message, public: bool) -> Arrival:
    identity = identify(message)
    return (identity, *encode_message(message, identity, public=public))


class _Kind:
    """What is the same of messages of one kind.

    Attributes:
        framing: How they are framed to be hashed.
        told: Form of their documents, and annotations of their rows, where ``is_sniffed`` does not say that the value has a say.
    """

    __slots__ = ("_envelope", "_public", "_sniffed", "framing", "is_sniffed", "told")

    def __init__(self, like: Message, public: bool) -> None:
        _, self._envelope = enveloped(like.headers)
        self._public = public
        self._sniffed: dict[tuple[str, str], tuple[Form, Annotations]] = {}
        self.framing = framing(like.key, self._envelope)
        self.is_sniffed = not self._envelope.media_type or self._envelope.media_type in REFINED
        self.told = self.sniffed(like)

    def sniffed(self, message: Message) -> tuple[Form, Annotations]:
        """The form of a document, and the annotations of its row, by what the value tells of the media type."""
        media_type = self._envelope.media_type or sniffed_media_type(message[6])
        better = refined_media_type(media_type, message[6]) if media_type in REFINED else media_type
        told = self._sniffed.get((media_type, better))
        if told is None:
            _, notes = self._envelope.described(media_type, self._public)
            annotations, _ = self._envelope.described(better, self._public)
            like = form(message, self._envelope.array, UUID_BYTES, True, DIGEST_SIZE, notes)
            told = self._sniffed[media_type, better] = (like, annotations)
        return told
