"""Dagster's runs on a catalog whose sequences stand behind: they archive, or they fail and say why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import dagster as dg
import pytest

from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive_tests.contract.catalog_helpers import connect, full_batch
from hop_archive_tests.invariants import assert_archived
from hop_archive_tests.orchestration.helpers import add_partitions, definitions, run_shared
from hop_archive_tests.orchestration.test_left_undone import why
from hop_archive_tests.worlds import QUIET, World, awkward_world

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)


@pytest.fixture
def behind(postgres: PostgresCatalog, database_url: str) -> World:
    """A world whose catalog has thousands of messages of another topic, and numbers the next one 1."""
    put_back(database_url)
    postgres.commit(full_batch(0, 5_000))
    put_back(database_url)
    return replace(awkward_world(), catalog=postgres)  # type: ignore[arg-type] # obeys the same contract


def put_back(url: str) -> None:
    with connect(url) as connection:
        connection.execute("ALTER SEQUENCE messages_id_seq RESTART WITH 1")


@contextmanager
def without_right(url: str) -> Iterator[None]:
    """Nobody may set the sequence right, as archivers may not whose rights are older than that."""
    with connect(url) as connection:
        connection.execute("REVOKE SELECT, UPDATE ON SEQUENCE messages_id_seq FROM CURRENT_USER")
        yield
        connection.execute("GRANT ALL ON SEQUENCE messages_id_seq TO CURRENT_USER")


def test_a_run_sets_the_sequence_right_and_archives(behind: World, instance: dg.DagsterInstance) -> None:
    defs = definitions(behind)
    add_partitions(defs, instance)
    assert run_shared(defs, instance).success
    assert_archived(behind.archive(), behind.cluster, QUIET)


@pytest.mark.role("owner")  # of whom the right is taken
def test_a_run_that_may_not_fails_and_names_the_sequence(
    behind: World, database_url: str, instance: dg.DagsterInstance
) -> None:
    defs = definitions(behind)
    add_partitions(defs, instance)
    with without_right(database_url):
        run = run_shared(defs, instance, raise_on_error=False)
        assert not run.success
        assert "messages_id_seq" in why(run)
    assert run_shared(defs, instance).success
    assert_archived(behind.archive(), behind.cluster, QUIET)
