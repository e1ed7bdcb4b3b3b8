"""Old runs are deleted with their events; what the asset's page shows of each topic stays."""

from __future__ import annotations

import dagster as dg

from hop_archive.orchestration.runs import purge_old_runs
from hop_archive_tests.orchestration.helpers import (
    add_partitions,
    definitions,
    live_run,
    materializations,
    materialize_by_hand,
    run_shared,
)
from hop_archive_tests.worlds import BUSY, QUIET, World


def purge(instance: dg.DagsterInstance, **config: float) -> int:
    """How many runs are fewer, that of the purge itself not counted."""
    before = instance.get_runs_count()
    given = {"ops": {"delete_old_runs": {"config": config}}}
    assert purge_old_runs.execute_in_process(run_config=given, instance=instance).success
    return before + 1 - instance.get_runs_count()


def test_old_runs_and_their_events_go_and_the_newest_of_each_topic_stays(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = definitions(world)
    add_partitions(defs, instance)
    first = run_shared(defs, instance).run_id  # has messages of both topics
    newer = materialize_by_hand(defs, instance, BUSY).run_id  # the newest of this topic
    failed = live_run(defs, instance, "archive_quiet_topics", status=dg.DagsterRunStatus.FAILURE).run_id
    assert purge(instance, older_than_days=0) == 1
    left = {run.run_id for run in instance.get_runs()}
    assert left >= {first, newer}
    assert failed not in left
    materialize_by_hand(defs, instance, QUIET)  # now nothing of the first is the newest
    assert purge(instance, older_than_days=0) == 2  # it, and the run that purged
    assert first not in {run.run_id for run in instance.get_runs()}
    assert instance.all_logs(first) == []
    assert len(materializations(instance, BUSY)) == 1
    assert len(materializations(instance, QUIET)) == 1


def test_runs_that_are_young_or_not_over_stay(instance: dg.DagsterInstance, world: World) -> None:
    defs = definitions(world)
    young = live_run(defs, instance, "check_archive", status=dg.DagsterRunStatus.SUCCESS).run_id
    assert purge(instance, older_than_days=1) == 0
    others = [
        live_run(defs, instance, "check_archive", status=status).run_id
        for status in (
            dg.DagsterRunStatus.STARTING,
            dg.DagsterRunStatus.STARTED,
            dg.DagsterRunStatus.CANCELING,
        )
    ]
    purge(instance, older_than_days=0)
    left = {run.run_id for run in instance.get_runs()}
    assert left >= set(others)
    assert young not in left


def test_a_limit_leaves_the_younger_for_the_next_time(instance: dg.DagsterInstance, world: World) -> None:
    defs = definitions(world)
    runs = [
        live_run(defs, instance, "check_archive", status=dg.DagsterRunStatus.SUCCESS).run_id for _ in range(3)
    ]
    assert purge(instance, older_than_days=0, at_most=2) == 2
    assert runs[2] in {run.run_id for run in instance.get_runs()}
    assert instance.get_run_by_id(runs[0]) is None


def test_of_an_asset_without_partitions_the_newest_stays_too(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def whole() -> None:
        """Without partitions."""

    older, newer = (dg.materialize([whole], instance=instance).run_id for _ in range(2))
    assert purge(instance, older_than_days=0) == 1
    left = {run.run_id for run in instance.get_runs()}
    assert newer in left
    assert older not in left
