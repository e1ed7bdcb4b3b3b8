"""A run of Dagster's that leaves work undone for the same reason twice is not a success, and a check turns red."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg
import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Batch, TopicSummary
from hop_archive.devkit.faults import Fault, Faults, When, fail
from hop_archive.errors import ForbiddenError, UnavailableError
from hop_archive.model.findings import Kind
from hop_archive_tests.invariants import assert_archived
from hop_archive_tests.orchestration.helpers import (
    add_partitions,
    definitions,
    materializations,
    materialize_by_hand,
    run_shared,
    striking,
    tick,
    trace,
)
from hop_archive_tests.orchestration.test_topic_checks import last
from hop_archive_tests.worlds import BUSY, QUIET, World, awkward_world, fill, restless_world, stubborn_world


class AwayCatalog(MockCatalog):
    """A catalog that answers no commit after so many."""

    commits = 1_000_000

    def commit(self, *batches: Batch) -> None:
        """Commit, or be away."""
        if not self.commits:
            raise UnavailableError("The catalog is away.")
        self.commits -= 1
        super().commit(*batches)


def open_kinds(world: World) -> list[tuple[str, Kind]]:
    return [(one.topic, one.kind) for one in world.catalog.open_findings()]


def why(run: dg.ExecuteInProcessResult) -> str:
    (failed,) = [event for event in run.all_events if event.is_step_failure]
    return failed.step_failure_data.error_display_string


def is_red(defs: dg.Definitions, instance: dg.DagsterInstance) -> bool:
    run = defs.resolve_job_def("check_archive").execute_in_process(instance=instance)
    (check,) = [e for e in run.get_asset_check_evaluations() if e.check_name == "no_open_findings"]
    return not check.passed and check.severity is dg.AssetCheckSeverity.ERROR


def test_a_shared_run_fails_with_the_reason_once_the_others_are_archived_and_reported(
    instance: dg.DagsterInstance,
) -> None:
    world, catalog = stubborn_world(QUIET)
    defs = definitions(world)
    add_partitions(defs, instance)
    run = run_shared(defs, instance, raise_on_error=False)
    assert not run.success
    assert catalog.reason in why(run)
    assert_archived(world.archive(), world.cluster, BUSY)
    assert materializations(instance, BUSY)
    assert not materializations(instance, QUIET)
    assert open_kinds(world) == [(QUIET, Kind.LEFT_UNDONE)]
    assert not last(instance, "no_open_findings", QUIET).passed
    assert is_red(defs, instance)


def test_the_run_that_does_it_in_the_end_is_a_success_and_the_check_is_green(
    instance: dg.DagsterInstance,
) -> None:
    world, catalog = stubborn_world(QUIET)
    defs = definitions(world)
    run_shared(defs, instance, raise_on_error=False)
    catalog.refused = frozenset()
    assert run_shared(defs, instance).success
    assert open_kinds(world) == []
    assert not is_red(defs, instance)


def test_a_run_of_one_partition_fails_after_it_has_reported_what_it_archived(
    instance: dg.DagsterInstance,
) -> None:
    world, catalog = stubborn_world(BUSY)
    defs = definitions(world)
    add_partitions(defs, instance)
    run = materialize_by_hand(defs, instance, BUSY, raise_on_error=False)
    assert not run.success
    assert catalog.reason in why(run)
    assert len(materializations(instance, BUSY)) == 1
    assert open_kinds(world) == [(BUSY, Kind.LEFT_UNDONE)]


@pytest.mark.parametrize("follow_s", [0.0, 0.2])
def test_what_is_refused_at_first_only_is_done_by_the_same_run(
    instance: dg.DagsterInstance, follow_s: float
) -> None:
    world, catalog = stubborn_world(QUIET)
    catalog.times = 1
    assert run_shared(definitions(world), instance, follow_s=follow_s).success
    assert catalog.times == 0
    assert list(world.catalog.findings(open_only=False)) == []
    assert_archived(world.archive(), world.cluster, QUIET)


def test_what_could_not_be_done_at_first_and_was_while_following_fails_no_run(
    instance: dg.DagsterInstance,
) -> None:
    world, catalog = stubborn_world(QUIET)
    catalog.times = 25  # until what is tried again gives up, and not a commit longer
    assert run_shared(definitions(world), instance, follow_s=0.5).success
    assert catalog.times == 0
    assert open_kinds(world) == []
    assert [one.finding.topic for one in world.catalog.findings(open_only=False)] == [QUIET], (
        "it had been left"
    )
    assert_archived(world.archive(), world.cluster, QUIET)


def test_a_catalog_that_does_not_answer_in_the_end_fails_the_run_once_what_it_archived_is_reported(
    instance: dg.DagsterInstance,
) -> None:
    world = awkward_world()
    calls = trace(awkward_world())
    stored = len(calls) - calls[::-1].index("catalog.commit")
    faults = striking("catalog.coverage", fail, occurrence=calls[:stored].count("catalog.coverage") + 1)
    run = run_shared(definitions(world, faults), instance, raise_on_error=False)
    assert "told to fail at catalog.coverage" in why(run)
    for summary in world.catalog.summaries():
        assert materializations(instance, summary.topic)[0]["dagster/row_count"] == summary.messages
    assert run_shared(definitions(world), instance).success


def away_while_it_follows(
    instance: dg.DagsterInstance, catalog: AwayCatalog
) -> tuple[World, dg.ExecuteInProcessResult]:
    """A run whose catalog takes two commits more of what arrives while it follows, and then is away."""
    world = awkward_world()
    world.catalog = catalog

    def arrive(_: str) -> None:
        fill(world.cluster, seed=1)
        catalog.commits = 2

    arrives = Fault(len(trace(awkward_world())) + 20, When.BEFORE, arrive)
    faulty = definitions(world, Faults((arrives,)))
    return world, run_shared(faulty, instance, follow_s=2.0, raise_on_error=False)


def test_an_outage_while_a_run_follows_fails_it_once_what_it_archived_is_reported(
    instance: dg.DagsterInstance,
) -> None:
    world, run = away_while_it_follows(instance, AwayCatalog())
    assert "The catalog is away." in why(run)
    for summary in world.catalog.summaries():
        assert materializations(instance, summary.topic)[0]["dagster/row_count"] == summary.messages


class DumbCatalog(AwayCatalog):
    """One that tells nothing of topics either, once it takes no commit."""

    def summaries(self, *args: Any, **options: Any) -> Sequence[TopicSummary]:
        """What there is, or why it is not told."""
        if not self.commits:
            raise ForbiddenError("The catalog refuses to tell.")
        return super().summaries(*args, **options)


def test_a_catalog_that_tells_no_more_of_topics_hides_neither_why_a_run_fails_nor_what_it_archived(
    instance: dg.DagsterInstance,
) -> None:
    _, run = away_while_it_follows(instance, DumbCatalog())
    assert "The catalog is away. The catalog refuses to tell." in why(run)
    (ended,) = [event for event in run.all_events if event.is_successful_output]
    assert ended.step_output_data.metadata


def test_nor_does_it_where_the_run_is_of_one_partition(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, catalog = stubborn_world(BUSY)
    defs = definitions(world)
    add_partitions(defs, instance)

    def refuse(*_: object, **__: object) -> Sequence[TopicSummary]:
        raise ForbiddenError("The catalog refuses to tell.")

    monkeypatch.setattr(type(catalog), "summaries", refuse)
    run = materialize_by_hand(defs, instance, BUSY, raise_on_error=False)
    assert catalog.reason in why(run)
    assert "The catalog refuses to tell." in why(run)


def test_what_is_work_no_more_is_closed_by_the_next_tick_and_what_still_is_stays_open(
    instance: dg.DagsterInstance,
) -> None:
    world, _ = stubborn_world(QUIET, BUSY)
    defs = definitions(world)
    run_shared(defs, instance, raise_on_error=False)
    tick(defs, instance)
    assert {topic for topic, _ in open_kinds(world)} == {BUSY, QUIET}
    world.cluster.delete_topic(QUIET)
    tick(defs, instance)
    assert {topic for topic, kind in open_kinds(world) if kind is Kind.LEFT_UNDONE} == {BUSY}


def test_a_topic_that_changes_whenever_it_is_looked_at_is_red_and_the_others_are_archived(
    instance: dg.DagsterInstance,
) -> None:
    world, catalog = restless_world(1_000)
    defs = definitions(world)
    run_shared(defs, instance)
    assert_archived(world.archive(), world.cluster, BUSY)
    tick(defs, instance)
    assert open_kinds(world) == [(QUIET, Kind.NOT_READABLE)]
    assert is_red(defs, instance)
    catalog.times = 0
    run_shared(defs, instance)
    tick(defs, instance)
    assert open_kinds(world) == []
    assert_archived(world.archive(), world.cluster, QUIET)
