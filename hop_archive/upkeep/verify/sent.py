"""Comparing messages as sent, as received and as stored, field by field, for tests of the whole path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import bson

from hop_archive.catalog.records import Row
from hop_archive.errors import ConfigurationError, CorruptError, HopArchiveError, ObjectMissingError
from hop_archive.ingest.write import Done
from hop_archive.model.document import crc32, decode
from hop_archive.model.message import Message, Outgoing, Receipt, TopicPartition
from hop_archive.read.check import extent_of
from hop_archive.store.protocol import Extent, Store

Place = tuple[TopicPartition, int]
"""Where a message stands: partition and offset."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which two stages of a message's way differ.

    Attributes:
        topic: Kafka topic name.
        partition: Kafka partition.
        offset: Kafka offset.
        stage: ``sent/received`` or ``received/stored``.
        field: Which field.
        expected: What it was at the earlier stage, shortened.
        found: What it is at the later stage, shortened.
    """

    topic: str
    partition: int
    offset: int
    stage: str
    field: str
    expected: str
    found: str

    def __str__(self) -> str:
        where = f"{self.topic}[{self.partition}]@{self.offset}"
        return f"{where} {self.stage} {self.field}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True)
class Sent:
    """What a producer was given for one message; ``timestamp_ms`` None where the producer took the time."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int | None


def record_sent(path: Path, messages: Iterable[Outgoing], receipts: Iterable[Receipt]) -> None:
    """Append what was sent, and where it came to stand, to a file of BSON documents."""
    with path.open("ab") as file:
        for message, receipt in zip(messages, receipts, strict=True):
            file.write(
                bson.encode(
                    {
                        "topic": receipt.topic,
                        "partition": receipt.partition,
                        "offset": receipt.offset,
                        "key": message.key,
                        "value": message.value,
                        "headers": [list(header) for header in message.headers],
                        "timestamp": message.timestamp_ms,
                    }
                )
            )


def sent_by_place(messages: Iterable[Outgoing], receipts: Iterable[Receipt]) -> dict[Place, Sent]:
    """What was sent, by where it came to stand."""
    return {
        (TopicPartition(r.topic, r.partition), r.offset): Sent(m.key, m.value, m.headers, m.timestamp_ms)
        for m, r in zip(messages, receipts, strict=True)
    }


def read_sent(path: Path) -> dict[Place, Sent]:
    """What ``record_sent`` wrote, by place.

    Raises:
        ConfigurationError: The file cannot be read, or is no such file.
    """
    try:
        with path.open("rb") as file:
            return dict(_sent(document) for document in bson.decode_file_iter(file))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.", path=str(path)) from error
    except (bson.errors.InvalidBSON, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{path} is not a record of sent messages.",
            remedy="Name a file that hop-archive publish --record FILE (or local publish --record FILE) wrote.",
            path=str(path),
        ) from error


def compare(done: Done, store: Store, sent: Mapping[Place, Sent]) -> Iterator[Difference]:
    """The differences on the way of each message of one reading; none where all is well.

    Args:
        done: What was archived, with its reading.
        store: Where its objects are; each is fetched and decoded.
        sent: What was sent, as far as it was recorded; places that it lacks are not compared with it.

    Raises:
        UnavailableError: The store does not answer.
    """
    received = {m.offset: m for m in done.reading.messages} if done.reading else {}
    for message in received.values():
        if (was := sent.get((message.topic_partition, message.offset))) is not None:
            yield from sent_received(was, message)
    pairs = [
        (received[row.offset], row) for batch in done.batches for row in batch.rows if row.offset is not None
    ]
    for found in received_stored(pairs, store):
        yield from found


def received_stored(pairs: Sequence[tuple[Message, Row]], store: Store) -> Iterator[list[Difference]]:
    """The fields in which the document that a row names differs from its message, for each pair, in order.

    All documents are asked for in one call, so that the store fetches ahead and reads neighbours together; one
    that is not there, or is no document, is a difference of its own message and no other's.

    Raises:
        UnavailableError: The store does not answer.
    """
    bodies = _bodies([extent_of(row) for _, row in pairs], store)
    for (message, row), body in zip(pairs, bodies, strict=True):
        yield list(_against_body(message, row, body))


def _bodies(extents: Sequence[Extent], store: Store) -> Iterator[bytes | HopArchiveError]:
    """The bytes of each extent, or why they are not to be had; what comes after such a one is asked for anew."""
    taken = 0
    while taken < len(extents):
        try:
            for body in store.fetch(extents[taken:]):
                taken += 1
                yield body
        except (CorruptError, ObjectMissingError) as error:
            taken += 1
            yield error


def _against_body(message: Message, row: Row, body: bytes | HopArchiveError) -> Iterator[Difference]:
    if isinstance(body, HopArchiveError):
        yield _difference(message, "received/stored", "document", row.object_key, body)
        return
    try:
        stored = decode(body).message
    except CorruptError as error:
        yield _difference(message, "received/stored", "document", row.object_key, error)
        return
    if crc32(body) != row.crc32:
        yield _difference(message, "received/stored", "crc32", row.crc32, crc32(body))
    yield from _fields(message, stored)


def _fields(message: Message, stored: Message) -> Iterator[Difference]:
    for field in fields(Message):
        was, became = getattr(message, field.name), getattr(stored, field.name)
        if was != became:
            yield _difference(message, "received/stored", field.name, was, became)


def sent_received(was: Sent, message: Message) -> Iterator[Difference]:
    """The fields in which a message differs from what its producer was given."""
    for field in fields(Sent):
        expected, found = getattr(was, field.name), getattr(message, field.name)
        if field.name == "timestamp_ms" and expected is None:
            continue
        if expected != found:
            yield _difference(message, "sent/received", field.name, expected, found)


def _difference(message: Message, stage: str, field: str, expected: object, found: object) -> Difference:
    return Difference(
        message.topic, message.partition, message.offset, stage, field, _short(expected), _short(found)
    )


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, Exception) else str(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def _sent(document: Mapping[str, Any]) -> tuple[Place, Sent]:
    at = TopicPartition(document["topic"], document["partition"])
    headers = tuple((name, value) for name, value in document["headers"])
    return (at, document["offset"]), Sent(document["key"], document["value"], headers, document["timestamp"])
