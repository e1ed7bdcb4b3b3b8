"""Signs of life as production keeps them: in Dagster's storage on Postgres, shown by one process and judged by another."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from hop_archive.devkit.local.address import StackAddress
from hop_archive.orchestration.runs import PATIENCE, SIGNS, Watch, end_the_dead, signs_of_life
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.databases import drop_database
from hop_archive_tests.orchestration.helpers import definitions, live_run
from hop_archive_tests.worlds import World

pytestmark = pytest.mark.local


@pytest.fixture
def database_url(address: StackAddress) -> Iterator[str]:
    database = f"t{uuid.uuid4().hex[:12]}"
    name = sql.Identifier(database)
    with psycopg.connect(address.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        parts = urlsplit(address.database_url)
        yield parts._replace(scheme="postgresql+psycopg2", path=f"/{database}").geturl()
        drop_database(connection, database)


@contextmanager
def process(directory: Path, database_url: str) -> Iterator[dg.DagsterInstance]:
    """An instance as each process opens it, with connections of its own."""
    directory.mkdir()
    storage = {"postgres": {"postgres_url": database_url}}
    overrides = {"telemetry": {"enabled": False}, "storage": storage}
    with dg.DagsterInstance.local_temp(str(directory), overrides=overrides) as instance:
        yield instance


def test_a_run_that_lives_is_left_alone_and_one_that_died_is_failed(
    database_url: str, tmp_path: Path
) -> None:
    def look(watch: Watch, now: float) -> tuple[Watch, list[str]]:
        return end_the_dead(judging, watch, now, 60.0, lambda run: False)

    with (
        process(tmp_path / "run", database_url) as running,
        process(tmp_path / "judge", database_url) as judging,
    ):
        defs = definitions(World())
        says = {PATIENCE: "60"}
        lives, died = (live_run(defs, running, "verify", tags=says) for _ in range(2))
        old = live_run(defs, running, "verify")  # of a version that says nothing: it has ten times as long
        running.add_dynamic_partitions(SIGNS, [f"{old.run_id}/5"])
        running.add_dynamic_partitions(SIGNS, [f"{died.run_id}/5"])
        with signs_of_life(running, lives.run_id, every_s=0.02):
            watch, ended, shown = Watch(), list[str](), set[str]()
            for number in range(7):
                shown.update(judging.get_dynamic_partitions(SIGNS))
                before = len(shown)

                def changes(before: int = before) -> bool:
                    shown.update(judging.get_dynamic_partitions(SIGNS))
                    return len(shown) > before

                wait_for(changes, "the sign of the one that lives changes")
                watch, gone = look(watch, 1e9 + 10.0 * number)
                ended += gone
        assert ended == [died.run_id]
        found = judging.get_run_by_id(died.run_id)
        assert found
        assert found.status is dg.DagsterRunStatus.FAILURE
        assert judging.get_dynamic_partitions(SIGNS) == [f"{old.run_id}/5"]
