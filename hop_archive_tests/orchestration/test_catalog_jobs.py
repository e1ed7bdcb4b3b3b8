"""The jobs that rebuild the catalog and snapshot it, in this process, over a mock world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.ingest.follow import catch_up
from hop_archive_tests.orchestration.helpers import definitions, run_job, told
from hop_archive_tests.worlds import BUSY, World, awkward_world, exhausted


@pytest.fixture
def emptied() -> tuple[World, World]:
    """An archived world, and the same with an empty catalog."""
    world = awkward_world("segment")
    exhausted(catch_up(world.archive(), overlap=0))
    return world, replace(world, catalog=MockCatalog())


def metadata(world: World, job: str, **config: Any) -> dict[str, Any]:
    with dg.DagsterInstance.ephemeral() as instance:
        return told(run_job(definitions(world), instance, job, **config))


def test_a_rebuild_is_a_plan_unless_it_is_said_otherwise(emptied: tuple[World, World]) -> None:
    _, again = emptied
    found = metadata(again, "rebuild_catalog")
    assert found["objects_to_read"] > 0
    assert again.catalog.topics() == []


def test_a_rebuild_makes_the_rows_again_and_recognises_the_topic(emptied: tuple[World, World]) -> None:
    world, again = emptied
    found = metadata(again, "rebuild_catalog", dry_run=False)
    assert list(again.catalog.rows(BUSY)) == list(world.catalog.rows(BUSY))
    assert found["recognised"] == found["topics"] == 2


def test_a_snapshot_goes_to_the_store_or_a_folder(emptied: tuple[World, World], tmp_path: Path) -> None:
    world, _ = emptied
    rows = sum(len(list(world.catalog.rows(topic))) for topic in world.catalog.topics())
    found = metadata(world, "catalog_snapshot")
    assert found["rows_written"] == found["messages"] == rows
    assert metadata(world, "catalog_snapshot")["rows_written"] == 0
    folder = tmp_path / "catalog"
    assert metadata(world, "catalog_snapshot", folder=str(folder))["rows_written"] == rows
    assert any(folder.rglob("*.parquet"))
