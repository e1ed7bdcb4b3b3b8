"""Comparing messages as sent, as received and as stored, field by field, for tests of the whole path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import bson

from hop_archive.catalog.records import Row
from hop_archive.errors import ConfigurationError, CorruptError
from hop_archive.ingest.write import Done
from hop_archive.model.document import crc32, decode
from hop_archive.model.message import Message, Outgoing, Receipt, TopicPartition
from hop_archive.read.fetch import fetch_checked
from hop_archive.store.protocol import Store

Place = tuple[TopicPartition, int]
"""Where a message stands: partition and offset."""


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """One field in which two stages of a message's way differ, ``sent/received`` or ``received/stored``.

    What was expected is what it was at the earlier stage, what was found at the later one; both are shortened.
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
            return {
                (TopicPartition(sent["topic"], sent["partition"]), sent["offset"]): Sent(
                    sent["key"],
                    sent["value"],
                    tuple((name, value) for name, value in sent["headers"]),
                    sent["timestamp"],
                )
                for sent in bson.decode_file_iter(file)
            }
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.", path=str(path)) from error
    except (bson.errors.InvalidBSON, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{path} is not a record of sent messages.",
            remedy="Name a file that hop-archive publish --record FILE (or local publish --record FILE) wrote.",
            path=str(path),
        ) from error


def compare(done: Done, store: Store, sent: Mapping[Place, Sent]) -> Iterator[FieldDifference]:
    """The differences on the way of each message of one reading; none where all is well.

    Each document is fetched and decoded. Places that ``sent`` lacks are not compared with it.

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


def received_stored(pairs: Sequence[tuple[Message, Row]], store: Store) -> Iterator[list[FieldDifference]]:
    """The fields in which the document that a row names differs from its message, for each pair, in order.

    All documents are asked for in one call, so that the store fetches ahead and reads neighbours together; one
    that is not there, or is no document, is a difference of its own message and no other's.

    Raises:
        UnavailableError: The store does not answer.
    """
    stage = "received/stored"
    fetched = fetch_checked(store, [row for _, row in pairs], _decoded)
    for (message, row), found in zip(pairs, fetched, strict=True):
        stored = found.document if found.error is None else found.error
        if not isinstance(stored, Message):
            yield [_difference(message, stage, "document", row.object_key, stored)]
            continue
        differences = []
        if (crc := crc32(found.body)) != row.crc32:
            differences.append(_difference(message, stage, "crc32", row.crc32, crc))
        for field in Message._fields:
            was, became = getattr(message, field), getattr(stored, field)
            if was != became:
                differences.append(_difference(message, stage, field, was, became))
        yield differences


def _decoded(_: Row, body: bytes) -> tuple[Message | CorruptError, tuple[str, ...]]:
    try:
        return decode(body).message, ()
    except CorruptError as error:
        return error, ()


def sent_received(was: Sent, message: Message) -> Iterator[FieldDifference]:
    """The fields in which a message differs from what its producer was given."""
    for field in fields(Sent):
        expected, found = getattr(was, field.name), getattr(message, field.name)
        if field.name == "timestamp_ms" and expected is None:
            continue
        if expected != found:
            yield _difference(message, "sent/received", field.name, expected, found)


def _difference(message: Message, stage: str, field: str, expected: object, found: object) -> FieldDifference:
    return FieldDifference(
        message.topic, message.partition, message.offset, stage, field, _short(expected), _short(found)
    )


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, Exception) else str(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
