"""The bench runs and says what it promises; that a rate is good is for people to judge, on a quiet machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hop_archive_tests.bench import report
from hop_archive_tests.bench.__main__ import main
from hop_archive_tests.bench.measures import Speed, interleaved


def speeds(*rates: float) -> list[Speed]:
    return [Speed(rate, 1e6 / rate) for rate in rates]


def test_what_is_compared_takes_turns_and_keeps_its_place() -> None:
    order: list[str] = []

    def measure(name: str, rate: float) -> Speed:
        order.append(name)
        return Speed(rate, 0.0)

    taken = list(interleaved(3, lambda: measure("a", 1.0), lambda: measure("b", 2.0)))
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [[speed.per_s for speed in pair] for pair in taken] == [[1.0, 2.0]] * 3


def test_ratios_are_of_the_same_round_and_goals_are_judged_by_the_median() -> None:
    found = report.results(
        {
            report.PUT: speeds(1000, 2000, 100),
            report.MESSAGE: speeds(900, 1500, 50),
            report.LISTING: speeds(80_000),
            report.CONSUME: speeds(400_000, 200_000, 300_000),
            report.SEGMENT: speeds(19_000, 21_000, 40_000),
            report.PRODUCE: speeds(100_000, 200_000),
            report.RESTORE: speeds(25_000, 30_000),
            report.COMPARED: speeds(20_000, 10_000),
            report.LISTED: speeds(80_000, 80_000, 80_000),
            report.SHALLOW: speeds(60_000, 60_000, 8),
            report.DEEP: speeds(5_000, 5_000, 30_000),
        }
    )
    named = {one.name: one for one in found}
    assert named[report.MESSAGE].ratios == [0.9, 0.75, 0.5]
    assert (named[report.MESSAGE].ratio, named[report.MESSAGE].met) == (0.75, False)
    assert (named[report.SEGMENT].rate, named[report.SEGMENT].met) == (21_000, True)
    table = "\n".join(report.lines(found))
    assert "75% of raw put" in table
    assert (named[report.RESTORE].ratios, named[report.RESTORE].met) == ([0.25, 0.15], True)
    assert (named[report.SHALLOW].met, named[report.DEEP].met) == (True, False)
    assert (table.count("MISSED"), table.count(": met")) == (2, 3)


@pytest.mark.local
def test_the_bench_measures_all_and_writes_it_as_json(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    options = ["--objects", "50", "--messages", "300", "--rounds", "1", "--json", str(file)]
    ran = CliRunner().invoke(main, options, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    written = json.loads(file.read_text())
    assert written["sizes"] == {"objects": 50, "messages": 300, "size_bytes": 1000, "rounds": 1}
    assert set(written["measures"]) == set(report.WHAT)
    for name, one in written["measures"].items():
        assert one["per_second"] > 0
        assert name in ran.output
