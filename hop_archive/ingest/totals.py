"""What runs did, summed by topic. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hop_archive.catalog.records import Batch, Outcome


@dataclass(frozen=True, slots=True)
class TopicTotals:
    """What one run did for one topic: messages archived, with the bytes of their documents, and other outcomes of offsets.

    Attributes:
        absent: Offsets for which Kafka delivered nothing.
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

    def __add__(self, other: TopicTotals) -> TopicTotals:
        times = [t for t in (self.last_timestamp_ms, other.last_timestamp_ms) if t is not None]
        return TopicTotals(
            self.topic,
            self.messages + other.messages,
            self.size_bytes + other.size_bytes,
            self.duplicates + other.duplicates,
            self.absent + other.absent,
            self.lost + other.lost,
            self.collisions + other.collisions,
            max(times, default=None),
        )


def totals_of(batches: Iterable[Batch]) -> dict[str, TopicTotals]:
    """What batches amount to, by topic."""
    return sum_totals(
        {
            batch.slice.topic: TopicTotals(
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


def sum_totals(parts: Iterable[Mapping[str, TopicTotals]]) -> dict[str, TopicTotals]:
    """The sum by topic of what several steps did."""
    totals: dict[str, TopicTotals] = {}
    for part in parts:
        for topic, summand in part.items():
            totals[topic] = totals[topic] + summand if topic in totals else summand
    return totals
