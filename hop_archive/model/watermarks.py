"""What Kafka says that it holds of a partition. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Watermarks:
    """The offsets that Kafka holds of one partition, as it said at one moment.

    Attributes:
        low: First offset that it still holds (log start offset).
        stable: Last stable offset: readers of committed messages get no further.
        high: High watermark; an open transaction holds ``stable`` below it.
        leader_epoch: How often the partition has been given a leader (KIP-101); None where the broker does not tell. It
            grows whenever a log may have lost its end. No part of what is held: it counts for nothing in a comparison.

    Raises:
        ValueError: Made with an order other than ``0 <= low`` and ``stable <= high``.
    """

    low: int
    stable: int
    high: int
    leader_epoch: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.low < 0 or not 0 <= self.stable <= self.high:
            raise ValueError(f"not watermarks: {self}")
