"""What the numbers amount to: medians, ratios within each round, goals, one table, one JSON object."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hop_archive_tests.bench.measures import Speed

PUT, MESSAGE = "raw put", "layout message"
LISTING, CONSUME, SEGMENT = "raw listing", "raw consume", "layout segment"
PRODUCE, RESTORE, COMPARED = "raw produce", "restore", "and compared"
LISTED, SHALLOW, DEEP = "raw listing of them", "verify", "verify --deep"

WHAT: Mapping[str, str] = {
    PUT: "obstore, 64 in flight, put-if-absent",
    MESSAGE: "Kafka to committed rows, an object each",
    LISTING: "obstore, all keys of this run",
    CONSUME: "confluent-kafka",
    SEGMENT: "Kafka to committed rows, 10,000 an object",
    PRODUCE: "confluent-kafka, idempotent, acknowledged by all",
    RESTORE: "segments to another topic, in order",
    COMPARED: "the same, read back and compared digest by digest",
    LISTED: "obstore, the objects of layout message",
    SHALLOW: "those, joined with their rows, nothing fetched",
    DEEP: "documents in segments, fetched and compared",
}
UNIT: Mapping[str, str] = {PUT: "objects/s", LISTING: "keys/s", LISTED: "keys/s", SHALLOW: "objects/s"}

MESSAGE_SHARE = 0.8
SEGMENT_RATE = 20_000.0
RESTORE_RATE = 20_000.0
SHALLOW_SHARE = 0.7
DEEP_RATE = 20_000.0


@dataclass(frozen=True, slots=True)
class Result:
    """One measure.

    Attributes:
        name: Of the measure.
        speeds: One a round.
        base: The measure that it is compared with, taken in the same rounds; '' for none.
        ratios: To that one, round by round.
        goal: In words; '' for none.
        met: Whether the goal is met; None without one.
    """

    name: str
    speeds: Sequence[Speed]
    base: str = ""
    ratios: Sequence[float] = ()
    goal: str = ""
    met: bool | None = None

    @property
    def rates(self) -> list[float]:
        """Items a second, round by round."""
        return [speed.per_s for speed in self.speeds]

    @property
    def rate(self) -> float:
        """The median of them."""
        return statistics.median(self.rates)

    @property
    def cpu_us(self) -> float:
        """CPU time of this process for one item: the median, in microseconds."""
        return statistics.median(speed.cpu_us for speed in self.speeds)

    @property
    def ratio(self) -> float | None:
        """The median of the ratios."""
        return statistics.median(self.ratios) if self.ratios else None


def _shallow(taken: Mapping[str, Sequence[Speed]]) -> Result:
    ratios = _ratios(taken[SHALLOW], taken[LISTED])
    met = statistics.median(ratios) >= SHALLOW_SHARE
    return Result(SHALLOW, taken[SHALLOW], LISTED, ratios, f">= {SHALLOW_SHARE:.0%} of {LISTED}", met)


def _deep(taken: Mapping[str, Sequence[Speed]]) -> Result:
    met = statistics.median(speed.per_s for speed in taken[DEEP]) >= DEEP_RATE
    return Result(DEEP, taken[DEEP], goal=f">= {DEEP_RATE:,.0f}/s", met=met)


def results(taken: Mapping[str, Sequence[Speed]]) -> list[Result]:
    """What was measured, compared and judged."""
    by_put, by_consume = _ratios(taken[MESSAGE], taken[PUT]), _ratios(taken[SEGMENT], taken[CONSUME])
    share = statistics.median(by_put)
    rate = statistics.median(speed.per_s for speed in taken[SEGMENT])
    by_produce, compared = (_ratios(taken[name], taken[PRODUCE]) for name in (RESTORE, COMPARED))
    restored = statistics.median(speed.per_s for speed in taken[RESTORE])
    restore_goal = f">= {RESTORE_RATE:,.0f}/s"
    message_goal, segment_goal = f">= {MESSAGE_SHARE:.0%} of {PUT}", f">= {SEGMENT_RATE:,.0f}/s"
    return [
        Result(PUT, taken[PUT]),
        Result(MESSAGE, taken[MESSAGE], PUT, by_put, message_goal, share >= MESSAGE_SHARE),
        Result(LISTING, taken[LISTING]),
        Result(CONSUME, taken[CONSUME]),
        Result(SEGMENT, taken[SEGMENT], CONSUME, by_consume, segment_goal, rate >= SEGMENT_RATE),
        Result(PRODUCE, taken[PRODUCE]),
        Result(RESTORE, taken[RESTORE], PRODUCE, by_produce, restore_goal, restored >= RESTORE_RATE),
        Result(COMPARED, taken[COMPARED], PRODUCE, compared),
        Result(LISTED, taken[LISTED]),
        _shallow(taken),
        _deep(taken),
    ]


def lines(found: Sequence[Result]) -> Iterator[str]:
    """The table."""
    yield f"{'':14} {'rate':>20}  {'least - most':>18}  {'own CPU':>8}  {'ratio':>18}  goal"
    for one in found:
        rate = f"{one.rate:,.0f} {UNIT.get(one.name, 'messages/s')}"
        span = f"{min(one.rates):,.0f} - {max(one.rates):,.0f}"
        ratio = f"{one.ratio:.0%} of {one.base}" if one.ratio is not None else ""
        goal = f"{one.goal}: {'met' if one.met else 'MISSED'}" if one.goal else ""
        cpu = f"{one.cpu_us:,.0f} us"
        yield f"{one.name:14} {rate:>20}  {span:>18}  {cpu:>8}  {ratio:>18}  {goal}".rstrip()
    yield ""
    yield from (f"{name}: {what}" for name, what in WHAT.items())


def as_object(found: Sequence[Result]) -> dict[str, Any]:
    """The same as JSON has it."""
    return {
        one.name: {
            "per_second": round(one.rate, 1),
            "cpu_us": round(one.cpu_us, 1),
            "rounds": [round(rate, 1) for rate in one.rates],
            **({"ratio_to": one.base, "ratio": round(one.ratio, 4)} if one.ratio is not None else {}),
            **({"goal": one.goal, "met": one.met} if one.goal else {}),
        }
        for one in found
    }


def _ratios(speeds: Sequence[Speed], bases: Sequence[Speed]) -> list[float]:
    return [speed.per_s / base.per_s for speed, base in zip(speeds, bases, strict=True)]
