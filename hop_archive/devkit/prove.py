"""Proving an archive against Kafka, message by message: for demonstrations and tests of moderate size.

Reads again what Kafka still holds of the topics' present generations, and for each message looks up its row
(or the duplicate that stands for it), fetches the document and compares every field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hop_archive.archive import Archive
from hop_archive.ingest.read import read_slices
from hop_archive.ingest.survey import survey
from hop_archive.model.slices import OffsetSet
from hop_archive.upkeep.verify.sent import FieldDifference, Place, Sent, received_stored, sent_received

_CONTENT = frozenset({"key", "value", "headers"})


@dataclass(frozen=True, slots=True)
class TopicProof:
    """What a comparison of one topic found, of the messages that Kafka delivered.

    Attributes:
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

    Holds the rows of one topic in memory. The topics exist; ``sent`` is what was sent, as far as it is known.
    """
    sent, proofs = sent or {}, list[TopicProof]()
    for topic in topics:
        rows = {(row.generation, row.partition, row.offset): row for row in archive.catalog.rows(topic)}
        copies = {(*log[1:], copy.offset): copy.uuid for log, copy in archive.catalog.duplicates(topic)}
        watermarks = {at: known.watermarks for at, known in survey(archive, [topic]).knowledge.items()}
        held = {at: (marks.low, marks.stable) for at, marks in watermarks.items() if marks.low < marks.stable}
        slices = [part for at, offsets in held.items() for part in at.slices(OffsetSet.between(*offsets))]
        delivered = archived = duplicates = 0
        missing: list[str] = []
        awaited = {place for place in sent if place[0].topic == topic}
        differences: list[FieldDifference] = []
        with archive.source.reader({}) as reader:
            for reading in read_slices(reader, slices, archive.limits, archive.monotonic):
                messages = reading.messages
                places = [(reading.slice.generation, m.partition, m.offset) for m in messages]
                # What stands for each message: its row, that of the message it repeats, or nothing.
                standing = [
                    rows.get(at) or (archive.catalog.find(copies[at]) if at in copies else None)
                    for at in places
                ]
                pairs = [(m, row) for m, row in zip(messages, standing, strict=True) if row is not None]
                stored = received_stored(pairs, archive.store)
                for message, at, row in zip(messages, places, standing, strict=True):
                    place = (message.topic_partition, message.offset)
                    delivered += 1
                    awaited.discard(place)
                    if (was := sent.get(place)) is not None:
                        differences += sent_received(was, message)
                    if row is None:
                        missing.append(f"{message.topic_partition}@{message.offset}")
                        continue
                    is_copy = at not in rows
                    # A duplicate stands at another offset, and may have another timestamp.
                    differences += (d for d in next(stored) if not is_copy or d.field in _CONTENT)
                    duplicates += is_copy
                    archived += not is_copy
        undelivered = tuple(f"{at}@{offset}" for at, offset in sorted(awaited))
        proofs.append(
            TopicProof(
                topic, delivered, archived, duplicates, tuple(missing), undelivered, tuple(differences)
            )
        )
    return proofs
