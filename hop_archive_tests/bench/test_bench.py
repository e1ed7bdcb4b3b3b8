"""The bench runs and says what it promises; that a rate is good is for people to judge, on a quiet machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hop_archive_tests.bench import page, report
from hop_archive_tests.bench.__main__ import main
from hop_archive_tests.bench.measures import Speed, interleaved
from hop_archive_tests.bench.parts import PARTS, Part, of_process
from hop_archive_tests.bench.report import Result, result_of


def speeds(*rates: float) -> list[Speed]:
    return [Speed(rate, 1e6 / rate) for rate in rates]


def unexpected(name: str, error: BaseException) -> None:
    raise error


def test_what_is_compared_takes_turns_and_keeps_its_place() -> None:
    order: list[str] = []

    def measure(name: str, rate: float) -> Speed:
        order.append(name)
        return Speed(rate, 0.0)

    measures = {"a": lambda: measure("a", 1.0), "b": lambda: measure("b", 2.0)}
    taken = interleaved(3, measures, unexpected)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert taken == {"a": [Speed(1.0, 0.0)] * 3, "b": [Speed(2.0, 0.0)] * 3}


def test_a_measure_that_fails_is_told_of_and_costs_no_other_one_its_rounds() -> None:
    told: list[tuple[str, str]] = []

    def broken() -> Speed:
        raise RuntimeError("no server")

    measures = {"a": lambda: Speed(1.0, 0.0), "broken": broken}
    taken = interleaved(2, measures, lambda name, error: told.append((name, str(error))))
    assert taken == {"a": [Speed(1.0, 0.0)] * 2}
    assert told == [("broken", "no server")]


def test_ratios_are_of_the_same_round_and_goals_are_judged_by_the_median() -> None:
    taken = {
        report.PUT: speeds(1000, 2000, 100),
        report.MESSAGE: speeds(900, 1500, 50),
        report.SEGMENT: [Speed(rate, 13.0) for rate in (44_000, 46_000, 80_000)],
        report.ZSTD: [Speed(9.0, 1.0, stored_bytes=601.0)],
        report.RESTORE: speeds(55_000, 65_000),
        report.COMPARED: speeds(40_000, 20_000),
    }
    found = {name: result_of(name, taken) for name in taken}
    assert found[report.MESSAGE].ratios == [0.9, 0.75, 0.5]
    judged = {
        (goal.row, goal.figure): (value, met) for one in found.values() for goal, value, met in one.judged()
    }
    assert judged == {
        (report.MESSAGE, "ratio"): (0.75, False),
        (report.SEGMENT, "per_second"): (46_000, True),
        (report.SEGMENT, "cpu_us"): (13.0, True),
        (report.ZSTD, "per_second"): (9.0, False),
        (report.ZSTD, "cpu_us"): (1.0, True),
        (report.ZSTD, "stored_bytes"): (601.0, False),
        (report.RESTORE, "per_second"): (60_000, True),
        (report.COMPARED, "per_second"): (30_000, False),
    }
    table = "\n".join(report.lines([*found.values()]))
    assert "75% of raw put" in table
    assert (table.count("MISSED"), table.count("  reached")) == (4, 4)


def test_a_goal_of_what_could_not_be_measured_is_missed_and_the_reason_is_told_everywhere() -> None:
    failed = [
        result_of(report.SEGMENT, {}, "no <server>"),
        Result(report.MANY, {"tick_s": 0.1}, failed="cut off"),
    ]
    table = "\n".join(report.lines(failed))
    assert (table.count("MISSED"), table.count("  reached")) == (6, 0)
    assert "FAILED: no <server>" in table
    written = report.as_object(failed)
    assert written[report.SEGMENT]["failed"] == "no <server>"
    assert [goal["reached"] for goal in written[report.MANY]["goals"]] == [False] * 4
    shown = page.html(failed, {})
    assert "no &lt;server&gt;" in shown
    assert "Goals: 0 of 6 reached" in shown


def test_every_row_says_what_it_is_and_every_goal_has_its_row() -> None:
    assert {goal.row for goal in report.GOALS} <= set(report.WHAT)
    assert {part.name for part in PARTS} <= set(report.WHAT)
    assert set(report.BASE) | set(report.BASE.values()) <= set(report.WHAT)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import sys; sys.exit('no such topic')", "exit code 1: no such topic"),
        ("import time; time.sleep(60)", "it did not end within 1 s"),
        ("print('{}')", "what it printed is not what it prints: KeyError('a')"),
        ("print('words')", "what it printed is not what it prints: JSONDecodeError"),
    ],
)
def test_a_part_that_fails_hangs_or_says_something_else_is_a_row_that_says_so(
    program: str, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    found = of_process(Part("x", ("y",), (), lambda told: {"a": told["a"]}), quick=False, longest_s=1)
    assert found.failed.startswith(why)


@pytest.mark.local
def test_the_bench_measures_all_rates_and_writes_them_as_json_and_as_a_page(tmp_path: Path) -> None:
    file, shown = tmp_path / "bench.json", tmp_path / "bench.html"
    options = [
        "--quick",
        "--only",
        "rates",
        "--only",
        report.STAGES,
        "--json",
        str(file),
        "--page",
        str(shown),
    ]
    ran = CliRunner().invoke(main, options, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    written = json.loads(file.read_text())
    parts = {part.name for part in PARTS}
    assert set(written["measures"]) == set(report.WHAT) - parts | {report.STAGES}
    for name, one in written["measures"].items():
        assert "failed" not in one
        assert name in ran.output
        assert name in shown.read_text()
        if name != report.STAGES:
            assert one["per_second"] > 0
    assert (
        written["measures"][report.ZSTD]["stored_bytes"] < written["measures"][report.SEGMENT]["stored_bytes"]
    )
