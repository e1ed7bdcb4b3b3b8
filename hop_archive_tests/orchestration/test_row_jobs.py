"""The jobs that index text and correct media types, their schedule, and the check of how far the index is behind."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from hop_archive.ingest.follow import catch_up
from hop_archive.orchestration.row_jobs import index_text_often
from hop_archive.upkeep.text_index import NOT_SET
from hop_archive_tests.orchestration.helpers import archive_of, definitions, run_job, told
from hop_archive_tests.worlds import BUSY, QUIET, World, awkward_world, exhausted


@pytest.fixture
def archived() -> World:
    world = awkward_world()
    exhausted(catch_up(world.archive(), overlap=0))
    return replace(world, text_topics=("*",))


def run(world: World, instance: dg.DagsterInstance, job: str, **config: Any) -> dict[str, Any]:
    return told(run_job(definitions(world), instance, job, **config))


def check(world: World, instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    made = definitions(world).resolve_job_def("check_archive").execute_in_process(instance=instance)
    (found,) = [e for e in made.get_asset_check_evaluations() if e.check_name == "text_indexed_in_time"]
    return found


def test_the_job_indexes_what_there_is_and_goes_on_where_it_was(
    archived: World, instance: dg.DagsterInstance
) -> None:
    rows = sum(len(list(archived.catalog.rows(topic))) for topic in (BUSY, QUIET))
    says = run(archived, instance, "index_text", most_messages=5)
    assert (says["indexed"], says["waiting"]) == (5, rows - 5)
    says = run(archived, instance, "index_text")
    assert (says["indexed"], says["waiting"], says["unreadable_documents"]) == (rows - 5, "none", "none")


def test_where_it_is_off_the_job_does_nothing_and_says_so(
    archived: World, instance: dg.DagsterInstance
) -> None:
    says = run(replace(archived, text_topics=()), instance, "index_text")
    assert says == {"indexed": 0, "why": NOT_SET}
    assert archived.catalog.text_backlog([BUSY, QUIET], 1_000).messages > 0


@pytest.mark.parametrize("on", [True, False])
def test_the_schedule_starts_the_job_where_it_is_on_and_else_says_why_not(
    archived: World, instance: dg.DagsterInstance, on: bool
) -> None:
    world = archived if on else replace(archived, text_topics=())
    with dg.build_schedule_context(instance=instance, resources={"archive": archive_of(world)}) as context:
        data = index_text_often.evaluate_tick(context)
    assert len(data.run_requests or ()) == on
    assert data.skip_message == (None if on else NOT_SET)


def test_an_index_that_does_not_keep_up_is_yellow_until_it_does(
    archived: World, instance: dg.DagsterInstance
) -> None:
    assert check(archived, instance).passed, "what was archived a moment ago may wait"
    earlier = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=3)
    with archived.catalog._state.change() as tables:
        for ledger in tables.ledger.values():
            ledger[:] = [replace(entry, created_at=earlier) for entry in ledger]
    found = check(archived, instance)
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.metadata["oldest_waits_hours"].value == pytest.approx(3.0, abs=0.1)
    run(archived, instance, "index_text")
    assert check(archived, instance).passed


def test_the_other_job_corrects_media_types(archived: World, instance: dg.DagsterInstance) -> None:
    archived.cluster.append(QUIET, b"\x89PNG\r\n\x1a\n")
    exhausted(catch_up(archived.archive(), overlap=0))
    row = list(archived.catalog.rows(QUIET))[-1]
    assert row.annotations.media_type == "image/png"
    old = row._replace(annotations=row.annotations._replace(media_type="application/octet-stream"))
    with archived.catalog._state.change() as tables:
        tables.rows[row.uuid] = old
    says = run(archived, instance, "correct_media_types")
    assert says == {"corrected": 1, "is_complete": True}
    assert archived.catalog.find(row.uuid) == row
