"""``hop-archive index-text`` and ``correct-media-types``: what they print, how they end, and what they refuse."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import RowJob
from hop_archive.devkit.samples import Sample
from hop_archive.errors import ConflictError
from hop_archive.source.mock.source import MockSource
from hop_archive_tests.cli_helpers import M, directory, invoke, place, store

__all__ = ["directory", "place"]


@pytest.fixture
def indexed(directory: Path, place: Path) -> Path:
    """The archive of sample alerts, whose texts are wanted."""
    path = place / "hop_archive.toml"
    path.write_text(path.read_text().replace("[database.m]", '[database.m]\n        index_text = ["*"]'))
    return directory


def messages(directory: Path) -> int:
    return sum(one.messages for one in MockCatalog("m", directory=directory).summaries())


def test_it_indexes_what_there_is_once(indexed: Path) -> None:
    ran = invoke("index-text", *M)
    assert ran.exit_code == 0, ran.output
    assert f"{messages(indexed)} messages indexed, " in ran.output
    assert ran.output.endswith("; 0 waiting.\n")
    assert "0 messages indexed" in invoke("index-text", *M).output
    assert "0 messages indexed" in invoke("index-text", *M, "--all").output


def test_json_tells_what_was_done_and_what_waits(indexed: Path) -> None:
    told = json.loads(invoke("index-text", *M, "--limit", "10", "--json").stdout)
    assert (told["indexed"], told["waiting"], told["waiting_is_all"]) == (10, messages(indexed) - 10, True)
    assert told["waiting_since"].endswith("Z")
    told = json.loads(invoke("index-text", *M, "--json").stdout)
    assert (told["waiting"], told["waiting_since"], told["unreadable"]) == (0, None, 0)


def test_without_the_key_it_says_what_to_set(directory: Path) -> None:
    ran = invoke("index-text", *M)
    assert ran.exit_code == 2
    assert 'index_text = ["*"]' in ran.output
    assert "Write it into [database.m] of your hop_archive.toml" in ran.output
    assert "docs/configuration.md" in ran.output


def test_documents_that_cannot_be_read_are_told_with_what_to_do(indexed: Path) -> None:
    store(indexed).delete([next(iter(store(indexed).listing())).key])
    ran = invoke("index-text", *M)
    assert ran.exit_code == 0
    assert "could not be read: hop-archive verify --deep says why" in ran.output


def test_a_second_one_at_the_same_time_is_refused(indexed: Path) -> None:
    with MockCatalog("m", directory=indexed).hold(RowJob.INDEX_TEXT.value):
        ran = invoke("index-text", *M)
    assert ran.exit_code == ConflictError.exit_code
    assert "index-text" in ran.output


def test_media_types_of_an_older_version_are_corrected_once_and_verify_agrees_before_and_after(
    directory: Path,
) -> None:
    with closing(MockSource("m", writable=True, directory=directory)) as source:
        source.create_topic("files")
        source.publish(
            [Sample("files", None, b"SIMPLE  =                    T", (), 1_700_000_000_000, 0, "filler")]
        )
    assert invoke("run", *M, "--until-caught-up", "-q").exit_code == 0
    catalog = MockCatalog("m", directory=directory)
    with catalog._state.change() as tables:
        row = next(row for row in tables.rows.values() if row.annotations.media_type == "image/fits")
        # What its document says, and an older version's row.
        tables.rows[row.uuid] = row._replace(
            annotations=row.annotations._replace(media_type="application/fits")
        )
    assert invoke("verify", *M, "--deep").exit_code == 0
    told = json.loads(invoke("correct-media-types", *M, "--json").stdout)
    assert told == {"corrected": 1, "is_complete": True}
    assert catalog.find(row.uuid) == row
    assert invoke("correct-media-types", *M).output == "0 rows corrected.\n"
    assert invoke("verify", *M, "--deep").exit_code == 0
