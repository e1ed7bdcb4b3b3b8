"""The examples of docs/python.md and the notebook, each run as it stands, on an archive and a catalog snapshot of mocks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

import hop_archive
from hop_archive.read.browse import OpenArchive
from hop_archive_tests.cli_helpers import invoke, place

__all__ = ["place"]

DOCS = Path(hop_archive.__file__).parents[1] / "docs"
TOML = """
[source.m]
type = "mock"
directory = "source"
samples = 120

[database.aws-prod-db]
type = "mock"
directory = "catalog-of-mock"

[store.s3-prod]
type = "mock"
directory = "store"
layout = "segment"
"""
M = ("-D", "aws-prod-db", "-S", "s3-prod")


@pytest.fixture
def archive(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenArchive]:
    (place / "hop_archive.toml").write_text(TOML)
    assert invoke("run", "-H", "m", *M, "--until-caught-up").exit_code == 0
    assert invoke("catalog-snapshot", "catalog", *M[:2]).exit_code == 0
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    with hop_archive.open("aws-prod-db", "s3-prod") as opened:
        yield opened


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)


def run(text: str, where: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(text, str(where), "exec"), names)
    return names


def test_the_examples_in_python_do_what_they_say(archive: OpenArchive) -> None:
    reading, of_snapshots = (run(text, DOCS / "python.md") for text in blocks("python"))
    notices = list(archive.rows("gcn.notices"))
    assert reading["found"].row in notices
    assert reading["one"].row == next(row for row in notices if row.uuid == reading["wanted"])
    assert len(reading["frame"]) == archive.count("igwn.*", since="2026-11-01")
    rows, sizes = of_snapshots["rows"], of_snapshots["sizes"].collect()
    recent = [row for row in notices if row.timestamp.isoformat() >= "2026-10"]
    assert {*rows["uuid"]} == {row.uuid for row in recent}
    assert of_snapshots["by_day"].sum() == sum(row.size_bytes for row in recent)
    assert sizes["size"].sum() == sum(row.size_bytes for row in notices)
    assert of_snapshots["ledger"].num_rows > 0


def test_the_examples_for_duckdb_do_what_they_say(archive: OpenArchive) -> None:
    counts, newest = filter(str.strip, "".join(blocks("sql")).split(";"))
    found = duckdb.sql(counts).fetchall()
    assert sum(messages for _, _, messages, _, _ in found) == archive.count(retracted=True)
    assert max(last for *_, last in found) == max(row.timestamp for row in archive.rows())
    wanted = archive.rows("gcn.notices", since="30d", newest_first=True, limit=10)
    rows = duckdb.sql(newest).fetchall()
    assert [(row[1], row[2]) for row in rows] == [(r.timestamp, r.annotations.sender) for r in wanted]


def test_every_reader_has_times_uuids_and_whole_numbers_as_it_has_such(
    archive: OpenArchive,
) -> None:
    import pandas as pd  # here, as Matplotlib below: the processes that only collect these tests need none of it
    import polars as pl

    assert invoke("export", "night", *M).exit_code == 0
    files = "catalog/messages/*/*/*.parquet"
    wanted = {row.uuid: (row.timestamp, row.offset) for row in archive.rows(retracted=True)}
    for file in (files, "night/catalog.parquet"):
        told = duckdb.sql(f"SELECT typeof(uuid), typeof(time), typeof(\"offset\") FROM '{file}' LIMIT 1")
        assert told.fetchall() == [("UUID", "TIMESTAMP WITH TIME ZONE", "BIGINT")]
        found = duckdb.sql(f"SELECT uuid, time, \"offset\" FROM '{file}'").fetchall()
        assert {uuid: (time, offset) for uuid, time, offset in found} == wanted
        schema = pl.read_parquet_schema("night/catalog.parquet")
        assert [schema["time"], schema["offset"]] == [pl.Datetime("ms", "UTC"), pl.Int64()]
        hexes = pl.scan_parquet(file).select(pl.col("uuid").bin.encode("hex")).collect().to_series()
        assert {*hexes} == {uuid.hex for uuid in wanted}
    for frame in (pd.read_parquet("night/catalog.parquet"), pd.read_parquet("catalog/messages")):
        kinds = frame.dtypes.astype(str)
        assert (kinds["time"], kinds["offset"], kinds["timestamp"]) == (
            "datetime64[ms, UTC]",
            "Int64",
            "int64",
        )
        assert {*frame["uuid"]} == wanted.keys()


def test_the_notebook_runs_and_draws_every_message(
    archive: OpenArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    monkeypatch.setenv("HOP_ARCHIVE_DATABASE", "aws-prod-db")
    monkeypatch.setenv("HOP_ARCHIVE_STORE", "s3-prod")
    notebook = DOCS / "examples" / "alerts_by_day.ipynb"
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    names = run("\n".join("".join(cell["source"]) for cell in cells), notebook)
    bars = [bar.get_height() for bar in names["axes"].patches]
    assert sum(bars) == archive.count() > 50
