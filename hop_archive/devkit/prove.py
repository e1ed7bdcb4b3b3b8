"""Proving an archive against Kafka, message by message: for demonstrations and tests of moderate size.

Reads again what Kafka still holds of the topics' present generations, and for each message looks up its row
(or the duplicate that stands for it), fetches the document and compares every field.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hop_archive.archive import Archive
from hop_archive.catalog.records import Row
from hop_archive.ingest.read import read_slices
from hop_archive.ingest.survey import survey
from hop_archive.model.message import Message
from hop_archive.model.slices import OffsetSet, Slice
from hop_archive.upkeep.verify.sent import FieldDifference, Place, Sent, received_stored, sent_received

_AT_ONCE = 500
"""Messages whose documents are asked for together: enough for the store to fetch ahead, few enough to hold."""

_CONTENT = frozenset({"key", "value", "headers"})


@dataclass(frozen=True, slots=True)
class TopicProof:
    """What a comparison of one topic found.

    Attributes:
        topic: Kafka topic name.
        delivered: Messages that Kafka delivered.
        archived: Those that have a row, whose document was fetched and compared.
        duplicates: Those that stand as duplicates of another message, whose content was compared.
        missing: Those that have neither.
        undelivered: Messages that were sent, and that Kafka did not deliver.
        differences: Fields that differ.
    """

    topic: str
    delivered: int
    archived: int
    duplicates: int
    missing: tuple[str, ...]
    undelivered: tuple[str, ...]
    differences: tuple[FieldDifference, ...]

    @property
    def holds(self) -> bool:
        """Whether every message is there and is the same."""
        return not (self.missing or self.undelivered or self.differences)


def prove(
    archive: Archive, topics: Sequence[str], sent: Mapping[Place, Sent] | None = None
) -> list[TopicProof]:
    """Compare each topic's messages as Kafka delivers them now with what is stored, and with what was sent.

    Holds the rows of one topic in memory.

    Args:
        archive: To be proved.
        topics: Existing topics.
        sent: What was sent, as far as it is known.
    """
    return [_prove_topic(archive, topic, sent or {}) for topic in topics]


@dataclass(frozen=True, slots=True)
class _Standing:
    """A delivered message, and what the catalog has of it."""

    message: Message
    row: Row | None
    is_copy: bool = False

    def differences(self, found: Sequence[FieldDifference]) -> Iterator[FieldDifference]:
        """Those that count: a duplicate stands at another offset, and may have another timestamp."""
        return (d for d in found if not self.is_copy or d.field in _CONTENT)


def _prove_topic(archive: Archive, topic: str, sent: Mapping[Place, Sent]) -> TopicProof:
    places = _Places(archive, topic)
    delivered = archived = duplicates = 0
    missing: list[str] = []
    awaited = {place for place in sent if place[0].topic == topic}
    differences: list[FieldDifference] = []
    messages = _delivered(archive, topic)
    while some := list(itertools.islice(messages, _AT_ONCE)):
        standings = [places.standing(generation, message) for generation, message in some]
        stored = received_stored([(s.message, s.row) for s in standings if s.row], archive.store)
        for standing in standings:
            message = standing.message
            place = (message.topic_partition, message.offset)
            delivered += 1
            awaited.discard(place)
            if (was := sent.get(place)) is not None:
                differences += sent_received(was, message)
            if standing.row is None:
                missing.append(f"{message.topic_partition}@{message.offset}")
                continue
            differences += standing.differences(next(stored))
            duplicates += standing.is_copy
            archived += not standing.is_copy
    undelivered = tuple(f"{at}@{offset}" for at, offset in sorted(awaited))
    return TopicProof(topic, delivered, archived, duplicates, tuple(missing), undelivered, tuple(differences))


class _Places:
    """Where the catalog has what of one topic."""

    def __init__(self, archive: Archive, topic: str) -> None:
        self._catalog = archive.catalog
        self._rows = {(r.generation, r.partition, r.offset): r for r in archive.catalog.rows(topic)}
        self._copies = {
            (*partition_log[1:], d.offset): d.uuid for partition_log, d in archive.catalog.duplicates(topic)
        }

    def standing(self, generation: int, message: Message) -> _Standing:
        """What stands for a message: its row, that of the message it repeats, or nothing."""
        place = (generation, message.partition, message.offset)
        if (row := self._rows.get(place)) is not None:
            return _Standing(message, row)
        original = self._copies.get(place)
        return _Standing(message, self._catalog.find(original) if original else None, is_copy=True)


def _delivered(archive: Archive, topic: str) -> Iterator[tuple[int, Message]]:
    held = survey(archive, [topic]).knowledge
    slices = [
        Slice(*partition_log, start, stop)
        for partition_log, known in held.items()
        if known.watermarks.low < known.watermarks.stable
        for start, stop in OffsetSet.between(known.watermarks.low, known.watermarks.stable)
    ]
    with archive.source.reader({}) as reader:
        for reading in read_slices(reader, slices, archive.limits, archive.monotonic):
            for message in reading.messages:
                yield reading.slice.generation, message
