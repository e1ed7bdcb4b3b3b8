"""What runs did, summed by topic. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hop_archive.catalog.records import Batch, Outcome


@dataclass(frozen=True, slots=True)
class TopicTally:
    """What one run did for one topic.

    Attributes:
        topic: Kafka topic name.
        messages: Messages archived.
        size_bytes: Bytes of their documents.
        duplicates: Offsets that were duplicates.
        absent: Offsets for which Kafka delivered nothing.
        lost: Offsets found to be lost.
        collisions: Publishers' UUIDs that were in use by other content.
        last_timestamp_ms: Greatest timestamp of the archived messages; None where there are none.
    """

    topic: str
    messages: int = 0
    size_bytes: int = 0
    duplicates: int = 0
    absent: int = 0
    lost: int = 0
    collisions: int = 0
    last_timestamp_ms: int | None = None

    def __add__(self, other: TopicTally) -> TopicTally:
        times = [t for t in (self.last_timestamp_ms, other.last_timestamp_ms) if t is not None]
        return TopicTally(
            self.topic,
            self.messages + other.messages,
            self.size_bytes + other.size_bytes,
            self.duplicates + other.duplicates,
            self.absent + other.absent,
            self.lost + other.lost,
            self.collisions + other.collisions,
            max(times, default=None),
        )


def tally(batches: Iterable[Batch]) -> dict[str, TopicTally]:
    """What batches amount to, by topic."""
    return sum_tallies(
        {
            batch.slice.topic: TopicTally(
                batch.slice.topic,
                messages=len(batch.rows),
                size_bytes=batch.size_bytes,
                duplicates=len(batch.duplicates),
                absent=batch.absent,
                lost=len(batch.slice) if batch.outcome is Outcome.LOST else 0,
                collisions=len(batch.collisions),
                last_timestamp_ms=max((row.timestamp_ms for row in batch.rows), default=None),
            )
        }
        for batch in batches
    )


def sum_tallies(parts: Iterable[Mapping[str, TopicTally]]) -> dict[str, TopicTally]:
    """The sum by topic of what several steps did."""
    tallies: dict[str, TopicTally] = {}
    for part in parts:
        for topic, summand in part.items():
            tallies[topic] = tallies[topic] + summand if topic in tallies else summand
    return tallies
