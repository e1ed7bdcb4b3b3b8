"""The model of much larger streams: its page is what it makes of the figures, and its arithmetic holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from hop_archive_tests.bench.report import SEGMENT
from hop_archive_tests.bench.scale import FIGURES, MILLION, RUBIN, Stream, main, needs, with_measured

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
VALUES = {name: float(figure["value"]) for name, figure in json.loads(FIGURES.read_text()).items()}


def test_the_page_is_what_the_model_makes_of_the_figures() -> None:
    made = CliRunner().invoke(main, [], catch_exceptions=False).output
    assert PAGE.read_text() == made, "python -m hop_archive_tests.bench.scale > docs/scale.md"


def test_every_figure_says_its_unit_and_where_it_is_from() -> None:
    for name, figure in json.loads(FIGURES.read_text()).items():
        assert figure.keys() == {"value", "unit", "source"}, name
        assert figure["source"], name


def test_what_twice_as_much_takes_is_twice_as_much() -> None:
    one, two = (
        needs(MILLION, VALUES),
        needs(replace(MILLION, messages_a_day=2 * MILLION.messages_a_day), VALUES),
    )
    for name in ("wal_bytes_s", "room_bytes_day", "stored_bytes_day", "bulk_puts"):
        assert getattr(two, name) == pytest.approx(2 * getattr(one, name))
    assert two.tasks == pytest.approx(2 * one.tasks, abs=1)


def test_segments_are_as_large_as_limits_allow_and_never_more_than_messages() -> None:
    assert needs(replace(MILLION, messages_a_day=1e6), VALUES).bulk_puts == 100
    assert needs(replace(RUBIN, size_bytes=64 * 2**20), VALUES).bulk_puts == RUBIN.messages_a_day
    quiet = Stream("quiet", 100, 86_400, 1000, 16)
    assert needs(quiet, VALUES).following_puts == 100


def test_new_measurements_take_the_place_of_figures_and_say_where_they_are_from(tmp_path: Path) -> None:
    bench = {"measures": {SEGMENT: {"cpu_us": 12.5}}}
    sharing = {
        "speedup": 1.8,
        "load": {"batch": 500},
        "one": [{"wal_bytes": 900.2, "room_bytes": 500.0}, {"wal_bytes": 1000.4, "room_bytes": 600.0}],
    }
    found = with_measured(json.loads(FIGURES.read_text()), bench, sharing)
    assert (found["own_cpu_us"]["value"], found["speedup"]["value"]) == (12.5, 1.8)
    assert (found["wal_bytes"]["value"], found["room_bytes"]["value"]) == (950, 550)
    assert found["put_usd"]["value"] == VALUES["put_usd"]
    files = {"--bench": bench, "--sharing": sharing}
    options = []
    for option, content in files.items():
        file = tmp_path / f"{option}.json"
        file.write_text(json.dumps(content))
        options += [option, str(file)]
    assert "**1.80 times**" in CliRunner().invoke(main, options, catch_exceptions=False).output
