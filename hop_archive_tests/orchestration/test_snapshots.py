"""The asset source_snapshot, by its job: what it keeps and says."""

from __future__ import annotations

import dagster as dg

from hop_archive.devkit.faults import Fault, Faults, When
from hop_archive.errors import ForbiddenError
from hop_archive.model.message import Committed, TopicPartition
from hop_archive.orchestration.snapshots import snapshot_hourly, take_source_snapshot
from hop_archive.source.mock.source import MockSource
from hop_archive_tests.orchestration.helpers import definitions
from hop_archive_tests.worlds import BUSY, QUIET, World


def take(
    world: World, instance: dg.DagsterInstance, faults: Faults | None = None
) -> dg.ExecuteInProcessResult:
    job = definitions(world, faults).resolve_job_def(take_source_snapshot.name)
    ran = job.execute_in_process(instance=instance, raise_on_error=faults is None)
    assert ran.success is (faults is None)
    return ran


def test_the_job_needs_no_configuration_and_says_what_it_took(
    world: World, instance: dg.DagsterInstance
) -> None:
    MockSource(cluster=world.cluster).set_group_offsets("reader", {TopicPartition(BUSY, 0): Committed(3)})
    ran = take(world, instance)
    (event,) = ran.asset_materializations_for_node("source_snapshot")
    told = {name: value.value for name, value in event.metadata.items()}
    assert (told["topics"], told["groups"], told["topics_changed"]) == (2, 1, "none")
    assert told["changed"] == "none", "an empty field says nothing"
    assert [one.name for one in world.catalog.snapshots("topic")] == [BUSY, QUIET]
    assert [one.name for one in world.catalog.snapshots("group")] == ["reader"]


def refuse(call: str) -> None:
    raise ForbiddenError(f"not allowed at {call}")


def test_what_the_core_refuses_fails_the_run_with_its_message(
    world: World, instance: dg.DagsterInstance
) -> None:
    ran = take(world, instance, Faults((Fault(1, When.BEFORE, refuse),)))
    (failed,) = ran.get_step_failure_events()
    assert "not allowed at source.topics" in str(failed.step_failure_data)
    assert world.catalog.snapshots("topic") == []


def test_the_schedule_runs_the_job_every_hour() -> None:
    assert snapshot_hourly.job_name == take_source_snapshot.name
    assert str(snapshot_hourly.cron_schedule).split()[1:] == ["*"] * 4
