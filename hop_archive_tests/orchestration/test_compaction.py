"""The job that puts small objects together, and the schedule that does so where the stanza says it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dagster as dg

from hop_archive.config.open import Permission
from hop_archive.model.topics import LayoutPolicy
from hop_archive.orchestration.compaction import compact_nightly
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.upkeep.remove.remove import Removing
from hop_archive_tests.compactions import after_grace, trickled_world
from hop_archive_tests.orchestration.helpers import run_job, told
from hop_archive_tests.removals import Backed, assert_whole


def definitions(world: Backed, asked: list[str], compact_after_days: float | None = 1.0) -> dg.Definitions:
    @contextmanager
    def opened(permission: Permission, run_id: str) -> Iterator[Removing]:
        asked.append(permission)
        yield replace(world.removing(), run_id=run_id)

    archive = replace(world.archive(), layouts=LayoutPolicy("segment", compact_after_days=compact_after_days))
    return build_definitions(archive=archive, removals=dg.ResourceDefinition.hardcoded_resource(opened))


def execute(defs: dg.Definitions, instance: dg.DagsterInstance, config: dict[str, Any]) -> dict[str, Any]:
    return told(run_job(defs, instance, "compact", **config))


def test_started_by_a_person_it_shows_its_plan_and_wants_no_right_to_delete(
    instance: dg.DagsterInstance,
) -> None:
    world, asked = trickled_world("message"), list[str]()
    before = world.rows()
    said = execute(definitions(world, asked), instance, {})
    assert asked == ["look"]
    assert (said["planned_segments"], said["segments"]) == (2, 0)
    assert world.rows() == before


def test_the_schedule_starts_a_run_that_acts_where_the_stanza_says_so(instance: dg.DagsterInstance) -> None:
    world, asked = trickled_world("message"), list[str]()
    defs = definitions(world, asked)
    with dg.build_schedule_context(instance=instance, resources=dict(defs.resources or {})) as context:
        (request,) = compact_nightly.evaluate_tick(context).run_requests or ()
    said = execute(defs, instance, dict(request.run_config))
    assert asked == ["delete"]
    assert said["objects"] > 20
    assert "planned_objects" not in said, "to plan first would read all rows that are left, each night"
    assert said["segments"] == 2
    after_grace(world)
    assert_whole(world)


def test_where_the_stanza_says_nothing_the_schedule_starts_none_and_says_why(
    instance: dg.DagsterInstance,
) -> None:
    defs = definitions(trickled_world("message"), [], None)
    with dg.build_schedule_context(instance=instance, resources=dict(defs.resources or {})) as context:
        data = compact_nightly.evaluate_tick(context)
    assert not data.run_requests
    assert "compact_after_days" in (data.skip_message or "")
