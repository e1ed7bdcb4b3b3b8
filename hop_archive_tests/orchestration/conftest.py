"""An instance of Dagster for each test, in a folder of its own, and a world to archive."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from hop_archive_tests.worlds import World, awkward_world

QUIETLY = {"telemetry": {"enabled": False}}


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instance's folder with its databases made, which takes seconds."""
    home = tmp_path_factory.mktemp("dagster")
    with dg.DagsterInstance.local_temp(str(home), overrides=QUIETLY) as made:
        made.get_runs(limit=1)
        made.get_dynamic_partitions("topics")
    return home


@pytest.fixture
def instance(tmp_path: Path, empty_home: Path) -> Iterator[dg.DagsterInstance]:
    """Not an ephemeral one: with that, sensors cannot ask for runs of dynamic partitions."""
    home = tmp_path / "dagster"
    shutil.copytree(empty_home, home)
    with dg.DagsterInstance.local_temp(str(home), overrides=QUIETLY) as made:
        yield made


@pytest.fixture
def world() -> World:
    return awkward_world()
