"""Proving an archive against Kafka, message by message: for demonstrations and tests of moderate size.

Reads again what Kafka still holds of the topics' present generations, and for each message looks up its row
(or the duplicate that stands for it), fetches the document and compares every field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hop_archive.archive import Archive
from hop_archive.catalog.protocol import Row
from hop_archive.comparing import Difference, Place, Sent, received_stored, sent_received
from hop_archive.message import Message
from hop_archive.reading import read_slices
from hop_archive.slices import OffsetSet, Slice
from hop_archive.surveying import survey


@dataclass(frozen=True, slots=True)
class Proof:
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
    differences: tuple[Difference, ...]

    @property
    def holds(self) -> bool:
        """Whether every message is there and is the same."""
        return not (self.missing or self.undelivered or self.differences)


def prove(archive: Archive, topics: Sequence[str], sent: Mapping[Place, Sent] | None = None) -> list[Proof]:
    """Compare each topic's messages as Kafka delivers them now with what is stored, and with what was sent.

    Holds the rows of one topic in memory.

    Args:
        archive: To be proved.
        topics: Existing topics.
        sent: What was sent, as far as it is known.
    """
    return [_prove(archive, topic, sent or {}) for topic in topics]


def _prove(archive: Archive, topic: str, sent: Mapping[Place, Sent]) -> Proof:
    rows = {(r.generation, r.partition, r.offset): r for r in archive.catalog.rows(topic)}
    copies = {(*lineage[1:], d.offset): d.uuid for lineage, d in archive.catalog.duplicates(topic)}
    delivered = archived = duplicates = 0
    missing: list[str] = []
    awaited = {place for place in sent if place[0].topic == topic}
    differences: list[Difference] = []
    for generation, message in _delivered(archive, topic):
        delivered += 1
        awaited.discard((message.topic_partition, message.offset))
        differences += _against_sent(sent, message)
        place = (generation, message.partition, message.offset)
        if (row := rows.get(place)) is not None:
            archived += 1
            differences += received_stored(message, row, archive.store)
        elif (own := copies.get(place)) is not None and (kept := archive.catalog.find(own)) is not None:
            duplicates += 1
            differences += _copy_differences(message, kept, archive)
        else:
            missing.append(f"{message.topic_partition}@{message.offset}")
    undelivered = tuple(f"{at}@{offset}" for at, offset in sorted(awaited))
    return Proof(topic, delivered, archived, duplicates, tuple(missing), undelivered, tuple(differences))


def _delivered(archive: Archive, topic: str) -> Iterator[tuple[int, Message]]:
    held = survey(archive, [topic]).knowledge
    slices = [
        Slice(*lineage, start, stop)
        for lineage, known in held.items()
        if known.watermarks.low < known.watermarks.stable
        for start, stop in OffsetSet.between(known.watermarks.low, known.watermarks.stable)
    ]
    with archive.source.reader({}) as reader:
        for reading in read_slices(reader, slices, archive.limits, archive.monotonic):
            for message in reading.messages:
                yield reading.slice.generation, message


def _against_sent(sent: Mapping[Place, Sent], message: Message) -> Iterator[Difference]:
    if (was := sent.get((message.topic_partition, message.offset))) is not None:
        yield from sent_received(was, message)


def _copy_differences(message: Message, kept: Row, archive: Archive) -> Iterator[Difference]:
    """Content only: a duplicate stands at another offset, and may have another timestamp."""
    content = {"key", "value", "headers"}
    return (d for d in received_stored(message, kept, archive.store) if d.field in content)
