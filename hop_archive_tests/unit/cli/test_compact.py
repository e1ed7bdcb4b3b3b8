"""``hop-archive compact``: the plan first, then few large objects, and what a second run finds."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.model.keys import is_segment_key
from hop_archive.store.mock import MockStore
from hop_archive_tests.cli_helpers import archived, invoke, mocks, place, toml

__all__ = ["place"]  # a fixture

DATABASE = ("-D", "m", "-S", "m")
NOW = ("--older-than", "0d")


def small_objects(place: Path, store: str = "", *, deleting: bool = True) -> Path:
    """Mocks that share a directory, with sample alerts archived, an object each."""
    mocks(place, samples=400, archived=True)
    stanza(place, store, deleting=deleting)
    return place / "mocks"


def stanza(place: Path, store: str = "", *, deleting: bool = True) -> None:
    may = f"deleting_allowed = {str(deleting).lower()}"
    toml(
        place,
        f"""
        [source.m]
        type = "mock"
        directory = "{place}/mocks"
        samples = 400
        [database.m]
        type = "mock"
        directory = "{place}/mocks"
        {may}
        [store.m]
        type = "mock"
        directory = "{place}/mocks/objects"
        {may}
        {store}
        """,
    )


def told(*command: str) -> Any:
    ran = invoke("compact", *DATABASE, *command, "--json")
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def keys(directory: Path) -> list[str]:
    catalog = MockCatalog("m", directory=directory)
    return [row.object_key for topic in catalog.topics() for row in catalog.rows(topic)]


def test_without_yes_the_plan_is_shown_and_nothing_is_done(place: Path) -> None:
    directory = small_objects(place)
    before = archived(directory), keys(directory)
    ran = invoke("compact", *DATABASE, *NOW)
    assert ran.exit_code == 0, ran.output
    assert "objects now" in ran.stdout
    assert " in place of " in ran.stdout
    assert "Add --yes" in ran.stdout
    told_plan = told(*NOW)
    assert told_plan["done"] is False
    assert sum(part["objects"] for part in told_plan["plan"]) > 100
    assert (archived(directory), keys(directory)) == before


def test_small_objects_become_segments_and_verification_finds_all_well(place: Path) -> None:
    directory = small_objects(place)
    done = told(*NOW, "--yes")
    planned, made = done["plan"], done["compacted"]
    assert made["objects"] == sum(part["objects"] for part in planned) > 100
    assert made["segments"] == sum(part["segments"] for part in planned) == len(planned)
    assert sum(is_segment_key(key) for key in keys(directory)) == made["messages"]
    ran = invoke("verify", *DATABASE, "--deep", "--grace", "0")
    assert ran.exit_code == 0, ran.output
    assert "objects waiting to be deleted" in ran.stdout
    assert told(*NOW, "--yes")["compacted"]["segments"] == 0
    assert "There is nothing to put together." in invoke("compact", *DATABASE, *NOW).stdout


def test_old_objects_are_deleted_by_the_run_after_their_grace(place: Path) -> None:
    directory = small_objects(place)
    made = told(*NOW, "--yes")["compacted"]
    assert made["deleted_objects"] == 0
    there = len(list(MockStore("m", directory / "objects").listing()))
    at_once = small_objects_left(directory)
    assert at_once == made["objects"]
    catalog = MockCatalog("m", directory=directory)
    catalog._clock = lambda: datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=25)
    assert len(catalog.pending_deletes("compact", "mock", 10_000)) == made["objects"]
    assert there == made["objects"] + len(set(keys(directory)))


def small_objects_left(directory: Path) -> int:
    named = set(keys(directory))
    return sum(info.key not in named for info in MockStore("m", directory / "objects").listing())


def test_without_a_grace_they_are_deleted_in_the_same_run(place: Path) -> None:
    directory = small_objects(place)
    ran = invoke("compact", *DATABASE, *NOW, "--grace", "0", "--yes")
    assert ran.exit_code == 0, ran.output
    assert "The old objects are deleted." in ran.stdout
    assert small_objects_left(directory) == 0
    assert invoke("verify", *DATABASE, "--deep", "--grace", "0").exit_code == 0


def test_what_is_not_old_enough_stays_and_the_stanza_says_what_is(place: Path) -> None:
    small_objects(place)
    assert told("--yes")["compacted"]["objects"] == 0
    assert told("--older-than", "1d")["plan"] == []
    stanza(place, "compact_after_days = 0")
    assert told()["plan"] != []


def test_of_an_age_beyond_all_time_there_is_nothing(place: Path) -> None:
    small_objects(place)
    ran = invoke("compact", *DATABASE, "--older-than", "3000y")
    assert ran.exit_code == 0, ran.output
    assert "nothing to put together" in ran.output


def test_a_stanza_that_would_wait_for_more_than_a_century_is_refused(place: Path) -> None:
    stanza(place, "compact_after_days = 1e9")
    ran = invoke("compact", *DATABASE)
    assert ran.exit_code != 0
    assert "compact_after_days" in ran.output


def test_segments_are_as_the_stanza_says(place: Path) -> None:
    directory = small_objects(place, 'compact_after_days = 0\ncompression = "zstd"')
    assert told("--yes", "--limit", "1")["compacted"]["segments"] == 1
    assert told("--yes")["compacted"]["segments"] > 1
    assert {key.rpartition(".")[2] for key in keys(directory) if is_segment_key(key)} == {"zst"}


def test_a_stanza_that_allows_no_deleting_refuses_before_anything_is_made(place: Path) -> None:
    directory = small_objects(place, deleting=False)
    before = archived(directory)
    assert told(*NOW)["plan"] != []
    ran = invoke("compact", *DATABASE, *NOW, "--yes")
    assert ran.exit_code != 0
    assert "deleting_allowed = true" in ran.stderr
    assert archived(directory) == before


def test_damage_is_told_and_is_the_exit_code(place: Path) -> None:
    directory = small_objects(place)
    plan = max(told(*NOW)["plan"], key=lambda part: part["objects"])
    catalog = MockCatalog("m", directory=directory)
    row = next(
        row
        for row in catalog.rows(plan["topic"])
        if (row.generation, row.partition) == (plan["generation"], plan["partition"])
    )
    path = MockStore("m", directory / "objects")._shelf._path(row.object_key)  # type: ignore[union-attr] # of a directory
    path.write_bytes(path.read_bytes()[:-1])
    ran = invoke("compact", *DATABASE, *NOW, "--yes")
    assert ran.exit_code == 1
    assert "1 segment not made" in ran.stdout
    assert row.object_key in ran.stdout
    assert row.object_key in invoke("findings", "-D", "m").stdout
