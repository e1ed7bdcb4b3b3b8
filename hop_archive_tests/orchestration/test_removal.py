"""The jobs that take something away: without being told to they only show, and each asset says what was done."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from hop_archive.archive import Archive
from hop_archive.config.open import Permission
from hop_archive.errors import ForbiddenError
from hop_archive.model.topics import TopicPolicy
from hop_archive.orchestration.archiving import archive_topic
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.upkeep.remove.remove import Removing
from hop_archive_tests.orchestration.helpers import run_job, told
from hop_archive_tests.removals import Backed, archive_all, assert_whole, doubled_world, small_world
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET

LATER = datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC) + datetime.timedelta(days=40)


@pytest.fixture
def full() -> Backed:
    return archive_all(small_world())


def execute(
    world: Backed, instance: dg.DagsterInstance, job: str, allowed: bool = True, **config: Any
) -> dg.ExecuteInProcessResult:
    @contextmanager
    def opened(permission: Permission, run_id: str) -> Iterator[Removing]:
        if permission != "look" and not allowed:
            raise ForbiddenError("The stanza does not say so.")
        yield replace(world.removing(), run_id=run_id, now=lambda: LATER)

    archive: Archive = replace(world.archive(), topics=TopicPolicy(test_topics=(QUIET,)))
    defs = build_definitions(archive=archive, removals=dg.ResourceDefinition.hardcoded_resource(opened))
    return run_job(defs, instance, job, raise_on_error=False, **config)


def test_without_being_told_to_no_job_takes_anything_away(full: Backed, instance: dg.DagsterInstance) -> None:
    rules = [{"topics": [BUSY], "older_than_days": 30}]
    before = full.rows()
    assert told(execute(full, instance, "deduplicate", allowed=False))["copies"] == "none"
    assert told(execute(full, instance, "prune", allowed=False, rules=rules))["messages"] == 10
    assert told(execute(full, instance, "clean_tests", allowed=False))["messages"] == 3
    assert full.rows() == before
    assert_whole(full)


def test_old_messages_and_tests_go_when_it_is_told_to(full: Backed, instance: dg.DagsterInstance) -> None:
    rules = [{"topics": [BUSY], "older_than_days": 30}]
    done = told(execute(full, instance, "prune", rules=rules, dry_run=False))
    assert (done["removed_messages"], done["removed_objects"]) == (10, 10)
    assert told(execute(full, instance, "clean_tests", dry_run=False))["removed_messages"] == 3
    assert full.rows() == []
    assert_whole(full)


def test_what_a_stanza_does_not_allow_fails_and_is_not_tried_again(
    full: Backed, instance: dg.DagsterInstance
) -> None:
    run = execute(full, instance, "clean_tests", allowed=False, dry_run=False)
    assert not run.success
    (failed,) = [e for e in run.all_events if e.event_type_value == "STEP_FAILURE"]
    assert "does not say so" in str(failed.step_failure_data.user_failure_data)
    assert len(full.rows()) == 13


def test_nothing_is_pruned_beside_a_run_that_archives(full: Backed, instance: dg.DagsterInstance) -> None:
    instance.add_run(dg.DagsterRun(job_name=archive_topic.name, status=dg.DagsterRunStatus.STARTED))
    rules = [{"topics": [BUSY], "older_than_days": 30}]
    assert not execute(full, instance, "prune", rules=rules, dry_run=False).success
    assert len(full.rows()) == 13


def test_copies_turn_the_check_yellow_or_red_and_moving_them_turns_it_green(
    instance: dg.DagsterInstance,
) -> None:
    world = doubled_world()

    def severity(**config: Any) -> tuple[bool, dg.AssetCheckSeverity]:
        (check,) = execute(world, instance, "deduplicate", **config).get_asset_check_evaluations()
        assert check.check_name == "no_duplicates"
        return check.passed, check.severity

    assert severity() == (False, dg.AssetCheckSeverity.WARN)
    assert severity(red_above=2) == (False, dg.AssetCheckSeverity.ERROR)
    assert len(world.rows()) == 16
    assert severity(dry_run=False)[0]
    assert len(world.rows()) == 13
    assert_whole(world)
