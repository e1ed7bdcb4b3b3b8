"""The parts of a bench that run as processes of their own: with servers of their own, or a machine's whole attention."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hop_archive_tests.bench.report import FOLLOW, MANY, QUIET, SHARING, STAGES, Result

LONGEST_S = 1_500.0
"""After so long a part is taken to hang."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of them.

    Attributes:
        name: Of its row.
        command: Module of this package and its options; it prints JSON.
        quick: Options that make it short.
        figures: What the row has of what was printed.
    """

    name: str
    command: Sequence[str]
    quick: Sequence[str]
    figures: Callable[[Mapping[str, Any]], Mapping[str, float]]


def _stages(told: Mapping[str, Any]) -> Mapping[str, float]:
    return {stage: us for stage, us in told["json"].items() if not stage.startswith("(")}


def _sharing(told: Mapping[str, Any]) -> Mapping[str, float]:
    return {"speedup": told["speedup"], "refused": sum(one["refused"] for one in told["two"])}


def _behind(told: Mapping[str, Any]) -> dict[str, float]:
    waited = told["waited_s"]
    return {
        **{f"{name}_s": waited[name] for name in ("p50", "p95", "p99")},
        "hand_overs": max(0, told["following"] - 1),
        "cores": sum(told["cores"].values()),
        "events_a_message": told["events_a_message"],
        "messages": told["messages"],
    }


def _many(told: Mapping[str, Any]) -> Mapping[str, float]:
    return {**_behind(told), "tick_s": told["tick_s"], "tick_cpu_s": told["tick_cpu_s"]}


PARTS = (
    Part(STAGES, ("stages", "--json"), ("--messages", "2000", "--rounds", "1"), _stages),
    Part(
        SHARING,
        ("sharing", "--rounds", "2"),
        ("--messages", "1600", "--batch", "50", "--delay", "0.2", "--rounds", "1"),
        _sharing,
    ),
    # Shorter than the ten minutes that the goal speaks of, with as many hand-overs.
    Part(
        FOLLOW,
        ("under_dagster", "follow", "--minutes", "3", "--follow-s", "20"),
        ("--local-kafka", "--topics", "3", "--rate", "20", "--minutes", "0.4", "--follow-s", "8"),
        _behind,
    ),
    Part(
        QUIET,
        ("under_dagster", "quiet", "--every-s", "21", "--minutes", "2.5"),
        ("--local-kafka", "--every-s", "8", "--minutes", "0.3"),
        _behind,
    ),
    Part(
        MANY,
        ("under_dagster", "many", "--minutes", "3"),
        ("--local-kafka", "--topics", "20", "--minutes", "0.3", "--warm-s", "10"),
        _many,
    ),
)


def of_process(part: Part, *, quick: bool, longest_s: float = LONGEST_S) -> Result:
    """The row of a part; one that fails, hangs or prints something else says so in its row."""
    module, *options = part.command
    command = [sys.executable, "-m", f"{__package__}.{module}", *options, *(part.quick if quick else ())]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=longest_s, check=False)
    except subprocess.TimeoutExpired:
        return Result(part.name, failed=f"it did not end within {longest_s:g} s")
    if ran.returncode:
        last = ran.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return Result(part.name, failed=f"exit code {ran.returncode}: {last[0]}")
    try:
        return Result(part.name, part.figures(json.loads(ran.stdout)))
    except (KeyError, TypeError, ValueError) as error:
        return Result(part.name, failed=f"what it printed is not what it prints: {error!r}")
