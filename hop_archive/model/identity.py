"""Who a message is: its digest, its UUID, and when another message is the same one. Pure.

The digest is over content (key, headers as received, value), so the same content at another offset, on
another cluster or after a restore has the same digest. The UUID is the publisher's where it gave a legal
one, else derived from topic, timestamp and digest: the same message always has the same UUID.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hop_archive.model.message import Header, Message

ID_HEADER = "_id"
"""Name of the header in which Hopskotch publishers send a message's UUID as 16 raw bytes (hop-client)."""

DIGEST_SIZE = 16
"""Bytes of a digest: BLAKE2b at 128 bits (RFC 7693)."""

UUID_NAMESPACE = uuid.UUID("e021a8e5-8f97-5983-bae8-989b877b5c44")
"""Namespace of the UUIDs that the archive derives: UUIDv5 (RFC 9562, 5.5) of the DNS name ``hop_archive``.
Changing it would rename messages."""

_LENGTH = struct.Struct(">q").pack
_NULL = _LENGTH(-1)


def client_uuid(headers: Sequence[Header]) -> uuid.UUID | None:
    """The UUID in the first ``_id`` header that is 16 bytes long; None where there is none.

    Publishers also send ``_id`` missing, null, empty, as text, too long, or several times: all are legal,
    and only 16 bytes make a UUID. Any 16 bytes do, whatever version they claim.
    """
    for name, value in headers:
        if name == ID_HEADER and value is not None and len(value) == 16:
            return uuid.UUID(bytes=value)
    return None


def digest(key: bytes | None, headers: Sequence[Header], value: bytes | None) -> bytes:
    """128-bit BLAKE2b over an unambiguous framing of the content; 16 bytes.

    Framing: each item is its length as big-endian int64 and its bytes, a null is length −1; in the order
    key, number of headers, each header's name (UTF-8) and value, value. So null differs from empty, and no
    two contents share a framing.
    """
    parts = [_NULL if key is None else _LENGTH(len(key)) + key, _LENGTH(len(headers))]
    for name, content in headers:
        encoded = name.encode()
        parts += (_LENGTH(len(encoded)), encoded)
        parts += (_NULL,) if content is None else (_LENGTH(len(content)), content)
    hasher = hashlib.blake2b(b"".join(parts), digest_size=DIGEST_SIZE)
    hasher.update(_NULL if value is None else _LENGTH(len(value)))
    if value:
        hasher.update(value)
    return hasher.digest()


def derived_uuid(topic: str, timestamp_ms: int, content: bytes, attempt: int = 0) -> uuid.UUID:
    """The UUIDv5 that the archive gives to a message of this topic, timestamp and content digest.

    Args:
        topic: Kafka topic name.
        timestamp_ms: The message's timestamp.
        content: The digest.
        attempt: 0; counts up only where a publisher already used the derived UUID for something else.
    """
    suffix = f"/{attempt}" if attempt else ""
    return uuid.uuid5(UUID_NAMESPACE, f"{topic}/{timestamp_ms}/{content.hex()}{suffix}")


@dataclass(frozen=True, slots=True)
class Identity:
    """What decides whether a message is already in the catalog.

    Attributes:
        uuid: The publisher's UUID, else the derived one.
        is_client_uuid: Whether the publisher gave it.
        topic: Kafka topic name.
        timestamp_ms: The message's timestamp.
        digest: Digest of the content.
        message_crc32: CRC-32 of the value (0 for null and for empty).
    """

    uuid: uuid.UUID
    is_client_uuid: bool
    topic: str
    timestamp_ms: int
    digest: bytes
    message_crc32: int


def identify(message: Message, message_crc32: int) -> Identity:
    """The identity of ``message``; depends on nothing but its content, topic and timestamp."""
    content = digest(message.key, message.headers, message.value)
    given = client_uuid(message.headers)
    message_uuid = given or derived_uuid(message.topic, message.timestamp_ms, content)
    return Identity(
        message_uuid, given is not None, message.topic, message.timestamp_ms, content, message_crc32
    )


def candidates(identity: Identity) -> Iterator[Identity]:
    """The identities to try in turn for one message: its own, then with UUIDs that the archive derives.

    The second is needed where a publisher's UUID is in use by other content; further ones only where
    somebody publishes under a UUID that the archive would derive.
    """
    yield identity
    for attempt in itertools.count(0 if identity.is_client_uuid else 1):
        derived = derived_uuid(identity.topic, identity.timestamp_ms, identity.digest, attempt)
        yield replace(identity, uuid=derived, is_client_uuid=False)


@dataclass(frozen=True, slots=True)
class Known:
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
