"""Who a message is: its digest, its UUID, and when another message is the same one. Pure.

The digest is over content (key, headers as received, value), so the same content at another offset, on
another cluster or after a restore has the same digest. The UUID is the publisher's where it gave a legal
one, else derived from topic, timestamp and digest: the same message always has the same UUID.
"""

from __future__ import annotations

import itertools
import struct
import uuid
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple, TypeAlias
from uuid import UUID, SafeUUID

from zlib_ng import zlib_ng

from hop_archive.model.envelope import UUID_BYTES, Envelope, enveloped, without_uuid
from hop_archive.model.message import Header, Message

DIGEST_SIZE = 16
"""Bytes of a digest: BLAKE2b at 128 bits (RFC 7693)."""

UUID_NAMESPACE = uuid.UUID("e021a8e5-8f97-5983-bae8-989b877b5c44")
"""Namespace of the UUIDs that the archive derives: UUIDv5 (RFC 9562, 5.5) of the DNS name ``hop_archive``.
Changing it would rename messages."""

_LENGTH = struct.Struct(">q").pack
_NULL = _LENGTH(-1)
_bare, _number, _UNKNOWN = object.__new__, int.from_bytes, SafeUUID.unknown
_set_int, _set_safety = vars(UUID)["int"].__set__, vars(UUID)["is_safe"].__set__
COPIED_BYTES = 4_096
"""A value of up to so many bytes is hashed at once with what goes before it; a larger one by itself, where it is."""


def client_uuid(headers: Sequence[Header]) -> uuid.UUID | None:
    """The UUID in the first ``_id`` header that is 16 bytes long; None where there is none: see ``without_uuid``."""
    _, own, _ = without_uuid(tuple(headers))
    return None if own is None else uuid_of(own)


def digest(key: bytes | None, headers: tuple[Header, ...], value: bytes | None) -> bytes:
    """128-bit BLAKE2b over an unambiguous framing of the content; 16 bytes.

    Framing: each item is its length as big-endian int64 and its bytes, a null is length −1; in the order
    key, number of headers, each header's name (UTF-8) and value, value. So null differs from empty, and no
    two contents share a framing.
    """
    return _digest(key, *enveloped(headers), value)


def _digest(key: bytes | None, own: bytes | None, envelope: Envelope, value: bytes | None) -> bytes:
    before, after = envelope.framing
    framed_key = _NULL if key is None else _LENGTH(len(key)) + key
    if value is None or len(value) > COPIED_BYTES:
        length = _NULL if value is None else _LENGTH(len(value))
        hasher = blake2b(b"".join((framed_key, before, own or b"", after, length)), digest_size=DIGEST_SIZE)
        hasher.update(value or b"")
        return hasher.digest()
    framed = b"".join((framed_key, before, own or b"", after, _LENGTH(len(value)), value))
    return blake2b(framed, digest_size=DIGEST_SIZE).digest()


Framing: TypeAlias = tuple[Callable[..., bytes], bytes, bytes, bytes]
"""What packs all that is hashed but for the value, and of it the parts before the key, before the UUID, and after it."""


def framing(key: bytes | None, envelope: Envelope) -> Framing:
    """How messages are framed that have these headers, with a UUID among them, and a key as long as this one."""
    before, after = envelope.framing
    key_bytes = len(key or b"")
    framed = struct.Struct(f">8s{key_bytes}s{len(before)}s{UUID_BYTES}s{len(after)}sq")
    return framed.pack, _NULL if key is None else _LENGTH(key_bytes), before, after


def digests(messages: Sequence[Message]) -> list[bytes]:
    """The ``digest`` of each of these: in 0.87 of the time where one is like the next but for UUID and value (1 KB, 2026-12-01)."""
    found: list[bytes] = []
    last: tuple[object, ...] | None = None
    for _, _, _, _, _, key, value, headers, _ in messages:
        at, own, others = without_uuid(headers)
        if own is None or value is None or len(value) > COPIED_BYTES:
            found.append(digest(key, headers, value))
            continue
        like = (others, at, None if key is None else len(key))
        if like != last:
            last, (frame, before_key, before_own, after_own) = like, framing(key, enveloped(headers)[1])
        framed = frame(before_key, key or b"", before_own, own, after_own, len(value)) + value
        found.append(blake2b(framed, digest_size=DIGEST_SIZE).digest())
    return found


def uuid_of(raw: bytes) -> uuid.UUID:
    """The UUID of 16 bytes, as ``uuid.UUID(bytes=raw)`` makes it, in 0.2 of the time (2026-11-29).

    By the way in which one is unpickled, and psycopg makes its own: nothing has to be looked at. Its slots are set directly, since
    ``object.__setattr__`` takes twice as long.
    """
    found = _bare(UUID)
    _set_int(found, _number(raw))
    _set_safety(found, _UNKNOWN)
    return found


def derived_uuid(topic: str, timestamp_ms: int, content: bytes, attempt: int = 0) -> uuid.UUID:
    """The UUIDv5 that the archive gives to a message of this topic, timestamp and content digest.

    ``attempt`` counts up only where a publisher already used the derived UUID for something else.
    """
    suffix = f"/{attempt}" if attempt else ""
    return uuid.uuid5(UUID_NAMESPACE, f"{topic}/{timestamp_ms}/{content.hex()}{suffix}")


class Identity(NamedTuple):
    """What decides whether a message is already in the catalog.

    Attributes:
        uuid: The publisher's UUID, else the derived one.
        message_crc32: CRC-32 of the value (0 for null and for empty).
    """

    uuid: uuid.UUID
    is_client_uuid: bool
    topic: str
    timestamp_ms: int
    digest: bytes
    message_crc32: int


def identify(message: Message) -> Identity:
    """The identity of ``message``; depends on nothing but its content, topic and timestamp."""
    topic, _, _, timestamp_ms, _, key, value, headers, _ = message
    own, envelope = enveloped(headers)
    content = _digest(key, own, envelope, value)
    message_uuid = derived_uuid(topic, timestamp_ms, content) if own is None else uuid_of(own)
    return Identity(
        message_uuid, own is not None, topic, timestamp_ms, content, zlib_ng.crc32(value) if value else 0
    )


def candidates(identity: Identity) -> Iterator[Identity]:
    """The identities to try in turn for one message: its own, then with UUIDs that the archive derives.

    The second is needed where a publisher's UUID is in use by other content; further ones only where
    somebody publishes under a UUID that the archive would derive.
    """
    yield identity
    for attempt in itertools.count(0 if identity.is_client_uuid else 1):
        derived = derived_uuid(identity.topic, identity.timestamp_ms, identity.digest, attempt)
        yield identity._replace(uuid=derived, is_client_uuid=False)


class Known(NamedTuple):
    """What the catalog knows of a message that it holds.

    ``digest`` is None in rows that another archiver wrote (adopted rows). ``content`` is the digest of what the document
    of such a row holds, where that was read; None where it was not, or cannot be.
    """

    uuid: uuid.UUID
    topic: str
    timestamp_ms: int
    message_crc32: int
    is_client_uuid: bool
    digest: bytes | None
    content: bytes | None = None


def same_message(identity: Identity, known: Known | Identity) -> bool:
    """Whether ``identity`` is a copy of the ``known`` message with which it shares a UUID or adopted key.

    True for the same topic and the same digest; or, where the known row has no digest, when topic, timestamp
    and CRC-32 of the value agree, unless both have UUIDs of their publishers' that differ: publishers who
    send the same payload twice in a millisecond under two UUIDs mean two messages. Where the CRC-32 is that of nothing
    and the UUIDs differ, it proves nothing: then the content of the known row's document has to be the same.
    """
    if known.topic != identity.topic:
        return False
    if known.digest is not None:
        return known.digest == identity.digest and known.uuid == identity.uuid
    assert isinstance(known, Known)
    if only_content_tells(identity, known):
        return known.content == identity.digest
    if known.uuid != identity.uuid and known.is_client_uuid and identity.is_client_uuid:
        return False
    return (known.timestamp_ms, known.message_crc32) == (identity.timestamp_ms, identity.message_crc32)


def only_content_tells(identity: Identity, known: Known) -> bool:
    """Whether all that the catalog knows leaves open if ``identity`` is a copy of a row that another archiver wrote."""
    return (
        known.digest is None
        and known.message_crc32 == identity.message_crc32 == 0
        and (known.topic, known.timestamp_ms) == (identity.topic, identity.timestamp_ms)
        and known.uuid != identity.uuid
        and not (known.is_client_uuid and identity.is_client_uuid)
    )
