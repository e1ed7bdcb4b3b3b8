"""What the numbers amount to: medians, ratios within each round, goals, one table, one JSON object. Measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hop_archive_tests.bench.measures import Speed

PUT, MESSAGE = "raw put", "layout message"
LISTING, CONSUME, COPY, SEGMENT, ZSTD = (
    "raw listing", "raw consume", "raw COPY", "layout segment", "segments in zstd",
)  # fmt: skip
PRODUCE, RESTORE, COMPARED = "raw produce", "restore", "and compared"
LISTED, SHALLOW, DEEP, READ = "raw listing of them", "verify", "verify --deep", "read"
LARGE_PUT, LARGE_CONSUME, LARGE, LARGE_RUN, LARGE_RESTORE = (
    "raw put, 60 MB", "raw consume, 5 MB", "archive, 5 MB", "run, 5 MB", "restore, 5 MB",
)  # fmt: skip
STAGES, SHARING, FOLLOW, QUIET, MANY = "stages", "sharing", "follow", "quiet", "1,000 topics"

WHAT: Mapping[str, str] = {
    PUT: "obstore, 64 in flight, put-if-absent, the documents of the next row",
    MESSAGE: "Kafka to committed rows, an object each",
    LISTING: "obstore, all keys of this run",
    CONSUME: "confluent-kafka, JSON of 1 KB",
    COPY: "psycopg, the rows of the next row, table and indexes of the catalog",
    SEGMENT: "Kafka to committed rows, 10,000 an object",
    ZSTD: "the same, in frames of zstd",
    PRODUCE: "confluent-kafka, idempotent, acknowledged by all",
    RESTORE: "segments to another topic, in order",
    COMPARED: "the same, read back and compared digest by digest",
    LISTED: "obstore, the objects of layout message",
    SHALLOW: "those, joined with their rows, nothing fetched",
    DEEP: "documents in segments, fetched and compared",
    READ: "messages in segments, as hop_archive.open gives them, checked",
    LARGE_PUT: "obstore, one at a time, counted in messages of 5 MB",
    LARGE_CONSUME: "confluent-kafka",
    LARGE: "Kafka to committed rows, segments",
    LARGE_RUN: "hop-archive run --memory 512, from start to end of the process",
    LARGE_RESTORE: "segments to another topic, in order",
    STAGES: "own CPU of archiving a message of JSON, without servers and their clients (bench.stages)",
    SHARING: "two processes on one topic of 16 partitions, over one; each put waits (bench.sharing)",
    FOLLOW: "under Dagster, 700 messages/s over 50 topics, from run to run (bench.under_dagster follow)",
    QUIET: "under Dagster, a message now and then, default pacing (bench.under_dagster quiet)",
    MANY: "under Dagster, 1,000 topics with a message a minute each (bench.under_dagster many)",
}
UNIT: Mapping[str, str] = {PUT: "objects/s", LISTING: "keys/s", LISTED: "keys/s", SHALLOW: "objects/s"}
BASE: Mapping[str, str] = {
    MESSAGE: PUT, SEGMENT: CONSUME, ZSTD: CONSUME, RESTORE: PRODUCE, COMPARED: PRODUCE, SHALLOW: LISTED, LARGE: LARGE_CONSUME,
}  # fmt: skip
"""What each is compared with, round by round."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a row is to reach.

    Attributes:
        row: Its name.
        figure: Of its figures.
        at: Whether ``bound`` is the least or the most.
        said: How the figure is read.
    """

    row: str
    figure: str
    at: Literal["least", "most"]
    bound: float
    said: str

    def met(self, found: float) -> bool:
        """Whether a figure reaches it."""
        return found >= self.bound if self.at == "least" else found <= self.bound


GOALS = (
    Goal(MESSAGE, "ratio", "least", 0.9, "of raw put"),
    Goal(SEGMENT, "per_second", "least", 45_000, "messages/s"),
    Goal(SEGMENT, "cpu_us", "most", 14, "µs of own CPU"),
    Goal(ZSTD, "per_second", "least", 45_000, "messages/s"),
    Goal(ZSTD, "cpu_us", "most", 14, "µs of own CPU"),
    Goal(ZSTD, "stored_bytes", "most", 600, "bytes stored a message"),
    Goal(RESTORE, "per_second", "least", 60_000, "messages/s"),
    Goal(COMPARED, "per_second", "least", 45_000, "messages/s"),
    Goal(SHALLOW, "ratio", "least", 0.75, "of raw listing"),
    Goal(DEEP, "per_second", "least", 20_000, "messages/s"),
    Goal(READ, "per_second", "least", 10_000, "messages/s"),
    Goal(LARGE, "per_second", "least", 29, "messages/s"),
    Goal(LARGE_RUN, "peak_mb", "most", 512, "MB of memory at most"),
    Goal(LARGE_RESTORE, "per_second", "least", 42, "messages/s"),
    Goal(SHARING, "speedup", "least", 1.5, "times as fast"),
    Goal(FOLLOW, "p50_s", "most", 1, "s behind, half of them"),
    Goal(FOLLOW, "p99_s", "most", 3, "s behind, all but 1 %"),
    Goal(FOLLOW, "hand_overs", "least", 5, "hand-overs"),
    Goal(QUIET, "p50_s", "most", 8, "s behind, half of them"),
    Goal(MANY, "tick_s", "most", 0.75, "s an idle tick"),
    Goal(MANY, "tick_cpu_s", "most", 0.3, "CPU s an idle tick"),
    Goal(MANY, "cores", "most", 0.35, "of a core"),
    Goal(MANY, "events_a_message", "most", 0.1, "event rows a message"),
)
"""What is to be reached on two cores with all servers on them; of messages of 5 MB, what was measured on 2026-11-28."""


@dataclass(frozen=True, slots=True)
class Result:
    """One row.

    Attributes:
        figures: By name, each the median of its rounds.
        rounds: Items a second, round by round; empty for what is measured once.
        ratios: To those of ``BASE``, taken in the same rounds.
        failed: Why it could not be measured, or not in all rounds; '' where it was.
    """

    name: str
    figures: Mapping[str, float] = field(default_factory=dict)
    rounds: Sequence[float] = ()
    ratios: Sequence[float] = ()
    failed: str = ""

    def judged(self) -> Iterator[tuple[Goal, float | None, bool]]:
        """Its goals, each with what was measured (None where nothing was) and whether that reaches it."""
        for goal in GOALS:
            if goal.row == self.name:
                found = self.figures.get(goal.figure)
                yield goal, found, found is not None and not self.failed and goal.met(found)


def result_of(name: str, taken: Mapping[str, Sequence[Speed]], failed: str = "") -> Result:
    """The row of a measure that was taken in turns with that of ``BASE``."""
    speeds = taken.get(name, ())
    if not speeds:
        return Result(name, failed=failed or "not measured")
    bases = taken.get(BASE.get(name, ""), ())
    ratios = [speed.per_s / base.per_s for speed, base in zip(speeds, bases, strict=False)]
    columns = {
        field_name: [one[field_name] for one in map(asdict, speeds)] for field_name in asdict(speeds[0])
    }
    figures = {
        _FIGURES.get(column, column): statistics.median(values)
        for column, values in columns.items()
        if None not in values
    }
    if ratios:
        figures["ratio"] = statistics.median(ratios)
    return Result(name, figures, columns["per_s"], ratios, failed)


_FIGURES = {"per_s": "per_second"}


def lines(found: Sequence[Result]) -> Iterator[str]:
    """The table."""
    yield f"{'':19} {'rate':>18} {'least - most':>17} {'own CPU':>9} {'servers':>9} {'stored':>7} {'peak':>7}  of the raw one"
    for one in found:
        if one.rounds:
            rate = f"{one.figures['per_second']:,.0f} {UNIT.get(one.name, 'messages/s')}"
            span = f"{min(one.rounds):,.0f} - {max(one.rounds):,.0f}"
            cells = (_told(one.figures.get(name), unit) for name, unit in _COLUMNS)
            own, servers, stored, peak = cells
            share = f"{one.figures['ratio']:.0%} of {BASE[one.name]}" if "ratio" in one.figures else ""
            line = f"{one.name:19} {rate:>18} {span:>17} {own:>9} {servers:>9} {stored:>7} {peak:>7}  {share}"
        else:
            told = ", ".join(f"{name} {value:g}" for name, value in one.figures.items())
            line = f"{one.name:19} {told}"
        yield line.rstrip()
        if one.failed:
            yield f"{'':19} FAILED: {one.failed}"
    yield ""
    yield f"{'goal':49} {'measured':>12}"
    for one in found:
        for goal, value, is_met in one.judged():
            measured = "nothing" if value is None else number(value)
            yield f"{one.name:19} {wanted(goal):29} {measured:>12}  {'reached' if is_met else 'MISSED'}"
    yield ""
    yield from (f"{one.name}: {WHAT[one.name]}" for one in found)


_COLUMNS = (("cpu_us", " µs"), ("servers_us", " µs"), ("stored_bytes", " B"), ("peak_mb", " MB"))


def _told(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.{1 if value < 100 else 0}f}{unit}"


def number(value: float) -> str:
    """A figure for people, to three places or to the whole."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def wanted(goal: Goal) -> str:
    """A goal in words."""
    return f"{'>=' if goal.at == 'least' else '<='} {number(goal.bound)} {goal.said}"


def as_object(found: Sequence[Result]) -> dict[str, Any]:
    """The same as JSON has it."""
    return {
        one.name: {
            **{name: round(value, 4) for name, value in one.figures.items()},
            **({"rounds": [round(rate, 1) for rate in one.rounds]} if one.rounds else {}),
            **({"ratio_to": BASE[one.name]} if one.ratios else {}),
            "goals": [
                {"goal": wanted(goal), "figure": goal.figure, "measured": value, "reached": is_met}
                for goal, value, is_met in one.judged()
            ],
            **({"failed": one.failed} if one.failed else {}),
        }
        for one in found
    }
