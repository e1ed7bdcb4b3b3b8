"""An instance of Dagster for each test, in a folder of its own, and a world to archive."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log.sqlite import consolidated_sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage

from hop_archive_tests.worlds import World, awkward_world

TELLING_NOBODY = {"telemetry": {"enabled": False}}


def quietly(home: Path | str) -> dict[str, Any]:
    """Settings of an instance in this folder that costs little.

    It keeps nothing of what steps print: for that Dagster starts four processes a step. And it keeps the events of all runs in
    one database, as in production: to make one for each run took longer than most runs of tests do, and each event of an asset
    was written to two (a third of what tests of runs cost, 2026-11-30).
    """
    return {
        **TELLING_NOBODY,
        "compute_logs": {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        },
        "event_log_storage": {
            "module": "dagster._core.storage.event_log",
            "class": "ConsolidatedSqliteEventLogStorage",
            "config": {"base_dir": str(Path(home) / "history")},
        },
    }


@pytest.fixture(scope="session", autouse=True)
def sqlite_waits_for_no_disk() -> Iterator[None]:
    """Let Dagster's databases not wait for the disk, on which no test here relies: no machine loses its power.

    Dagster opens one anew for each event of a run and commits by itself; what closes the last connection empties the log
    of what is to be written. Of 41 s that three runs and four evaluations took, 16 s were spent so (2026-11-29).
    """

    def opened(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", opened)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", opened)


@pytest.fixture(scope="session", autouse=True)
def migrations_are_read_once() -> Iterator[None]:
    """Let Alembic keep the list of Dagster's migrations, which is read anew for each database, and each run has one of its own.

    They are scores of modules. That was a seventh of what tests of runs took (2026-11-30).
    """
    read: dict[tuple[str | None, str | None], ScriptDirectory] = {}
    original = ScriptDirectory.from_config

    def once(config: Config) -> ScriptDirectory:
        which = (config.config_file_name, config.get_main_option("script_location"))
        if which not in read:
            read[which] = original(config)
        return read[which]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", staticmethod(once))
        yield


@pytest.fixture(autouse=True)
def engines_are_made_once() -> Iterator[None]:
    """Let Dagster's storages keep the engine of a database for a test, and what it has compiled: they make one for each statement."""
    made: dict[str, sqlalchemy.Engine] = {}

    def once(url: str, **options: Any) -> sqlalchemy.Engine:
        if url not in made:
            made[url] = sqlalchemy.create_engine(url, **options)
        return made[url]

    with pytest.MonkeyPatch.context() as patch:
        for module in (consolidated_sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
            patch.setattr(module, "create_engine", once)
        yield


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instance's folder with its databases made, which takes seconds."""
    home = tmp_path_factory.mktemp("dagster")
    with dg.DagsterInstance.local_temp(str(home), overrides=quietly(home)) as made:
        made.get_runs(limit=1)
        made.get_dynamic_partitions("topics")
    return home


@pytest.fixture
def instance(tmp_path: Path, empty_home: Path) -> Iterator[dg.DagsterInstance]:
    """Not an ephemeral one: with that, sensors cannot ask for runs of dynamic partitions."""
    home = tmp_path / "dagster"
    shutil.copytree(empty_home, home)
    with dg.DagsterInstance.local_temp(str(home), overrides=quietly(home)) as made:
        yield made


@pytest.fixture
def world() -> World:
    return awkward_world()
