"""What a million messages cost: the page is what the calculation makes of its figures, and its arithmetic holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hop_archive_tests.bench.costs import OWN_FIGURES, Way, a_year, dollars, main, with_measured
from hop_archive_tests.bench.report import RESTORE, ZSTD
from hop_archive_tests.bench.scale import FIGURES

PAGE = Path(__file__).parents[2] / "docs" / "costs.md"
OWN = json.loads(OWN_FIGURES.read_text())
VALUES = {name: float(f["value"]) for name, f in {**json.loads(FIGURES.read_text()), **OWN}.items()}
ALONE = Way("alone", "stored_message", "cpu_message", 1)
FULL = Way("full", "stored_segment", "cpu_segment", 10_000)


def test_the_page_is_what_is_calculated_from_the_figures() -> None:
    made = CliRunner().invoke(main, [], catch_exceptions=False).output
    assert PAGE.read_text() == made, "python -m hop_archive_tests.bench.costs > docs/costs.md"


def test_every_figure_says_its_unit_and_where_it_is_from() -> None:
    for name, figure in OWN.items():
        assert figure.keys() == {"value", "unit", "source"}, name
        assert figure["source"], name


def test_a_million_messages_alone_are_a_million_puts_a_thousand_listings_and_a_million_reads() -> None:
    values = {
        **VALUES,
        "put_usd": 5e-6,
        "get_usd": 4e-7,
        "task_usd": 0.0,
        "stored_usd": 0.023,
        "stored_message": 1_000,
    }
    costs = dollars(ALONE, values)
    assert costs["archiving: puts"] == pytest.approx(5.0)
    assert costs["verify by listing, once"] == pytest.approx(0.005)
    assert costs["scrub (all read again), once"] == costs["restore, once"] == pytest.approx(0.4)
    assert costs["storage in S3, a month"] == pytest.approx(0.023)


def test_full_segments_are_a_hundred_puts_and_are_read_in_spans() -> None:
    values = {
        **VALUES,
        "put_usd": 5e-6,
        "get_usd": 4e-7,
        "task_usd": 0.0,
        "stored_segment": 1_000,
        "span_bytes": 4e6,
    }
    costs = dollars(FULL, values)
    assert costs["archiving: puts"] == pytest.approx(100 * 5e-6)
    assert costs["restore, once"] == pytest.approx(300 * 4e-7)  # 10 MB in spans of 4 MB


def test_what_is_compacted_is_read_and_written_once_more_and_costs_less_from_then_on() -> None:
    compacted = Way("compacted", "stored_message", "cpu_message", 1, compacted=True, zstd=True)
    values = {**VALUES, "task_usd": 0.0, "put_usd": 5e-6, "get_usd": 4e-7}
    before, after = dollars(ALONE, values), dollars(compacted, values)
    assert after["compacting, once"] == pytest.approx(100 * 5e-6 + (1_000_000 + 100) * 4e-7)
    for name in (
        "storage in S3, a month",
        "verify by listing, once",
        "scrub (all read again), once",
        "restore, once",
    ):
        assert after[name] < before[name], name
    assert after["archiving: puts"] == before["archiving: puts"]
    assert a_year(after) < a_year(before)


def test_cpu_is_counted_in_hours_of_a_task() -> None:
    costs = dollars(FULL, {**VALUES, "cpu_segment": 3_600.0, "task_usd": 2.0})
    assert costs["archiving: own CPU"] == pytest.approx(2.0)  # 3.6 ms for each of a million


def test_new_measurements_take_the_place_of_figures_and_what_was_not_measured_stays() -> None:
    bench = {
        "on": "2027-01-02 03:04 UTC",
        "measures": {ZSTD: {"stored_bytes": 333.33}, RESTORE: {"failed": "x"}},
    }
    found = with_measured(OWN, bench)
    assert found["stored_zstd"]["value"] == 333.3
    assert found["stored_zstd"]["source"] == "make bench, segments in zstd, 2027-01-02"
    assert found["cpu_restore"] == OWN["cpu_restore"]
    assert with_measured(OWN, None) == OWN
