"""How a topic's runs are found; how old runs are deleted with their events, and what the asset's page shows stays."""

from __future__ import annotations

import dagster as dg
import pytest

from hop_archive.orchestration.runs import purge_old_runs, tag_key, topic_tag, topics_of_run
from hop_archive_tests.orchestration.helpers import (
    add_partitions,
    definitions,
    launch,
    live_run,
    materializations,
    materialize_by_hand,
    run_shared,
    tick,
)
from hop_archive_tests.worlds import BUSY, QUIET, World

LONG = "x" * 249


def found(instance: dg.DagsterInstance, topic: str, kind: str) -> list[str]:
    return [run.run_id for run in instance.get_runs(dg.RunsFilter(tags={tag_key(topic): kind}))]


def test_the_sensors_runs_are_found_by_the_topics_that_they_archive(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = definitions(world)
    runs = launch(defs, instance, tick(defs, instance).run_requests)
    by_job = {run.job_def.name: run.run_id for run in runs}
    assert found(instance, BUSY, "own") == [by_job["archive_topic"]]
    filters = dg.AssetRecordsFilter(dg.AssetKey("archived_messages"), asset_partitions=[QUIET])
    (record,) = instance.fetch_materializations(filters, limit=9).records
    assert record.run_id == by_job["archive_quiet_topics"]


def test_a_shared_run_has_no_tag_for_each_of_its_topics_and_names_them_once(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = definitions(world)
    (request,) = [r for r in tick(defs, instance).run_requests if not r.partition_key]
    launch(defs, instance, [request])
    (run,) = instance.get_runs()
    assert not [tag for tag in run.tags if tag.startswith("topic/")]
    assert str(run.run_config).count(QUIET) == 1


def test_a_run_that_a_person_started_is_found_too(world: World, instance: dg.DagsterInstance) -> None:
    defs = definitions(world)
    add_partitions(defs, instance)
    run = materialize_by_hand(defs, instance, BUSY)
    assert found(instance, BUSY, "own") == [run.run_id]


@pytest.mark.parametrize("ending", ["a", "b"])
def test_long_names_are_told_apart(ending: str, instance: dg.DagsterInstance) -> None:
    world = World()
    for name in (LONG[:-1] + "a", LONG[:-1] + "b"):
        world.cluster.create_topic(name)
    topic = LONG[:-1] + ending
    world.cluster.append(topic, b"1")
    defs = definitions(world)
    add_partitions(defs, instance)
    run = materialize_by_hand(defs, instance, topic)
    assert found(instance, topic, "own") == [run.run_id]
    assert sum(len(found(instance, LONG[:-1] + e, "own")) for e in "ab") == 1


@pytest.mark.parametrize("length", [1, 62, 63, 64, 65, 249])
def test_any_topic_name_makes_a_tag_that_dagster_takes(length: int, instance: dg.DagsterInstance) -> None:
    topic = ("Az9._-" * 50)[:length]
    (key,) = topic_tag(topic)
    run = dg.DagsterRun(job_name="any", tags=topic_tag(topic))
    assert len(key.removeprefix("topic/")) <= 63
    dg.RunRequest(tags=topic_tag(topic))  # refuses keys and values that Dagster does not take
    instance.add_run(run)
    assert found(instance, topic, "own") == [run.run_id]


def test_a_runs_topics_are_read_from_tags_partition_and_configuration() -> None:
    known = ["tagged", "partition", "typed", "follows", "together", "other", LONG]
    tags = {**topic_tag("tagged"), **topic_tag(LONG), "dagster/partition": "partition"}
    config = {
        "ops": {
            "plan": {"config": {"topics": ["typed"]}},
            "follow": {"config": {"topics": ["follows", "gone"]}},
            "archive_topics": {"config": {"topics": ["together"]}},
        }
    }
    assert topics_of_run(tags, config, known) == {
        "tagged",
        LONG,
        "partition",
        "typed",
        "follows",
        "together",
    }


@pytest.mark.parametrize(
    "config", [{}, {"ops": None}, {"ops": {"plan": None}}, {"ops": {"plan": {"config": {"topics": None}}}}]
)
def test_a_run_without_tags_or_configuration_has_no_topics(config: dict[str, object]) -> None:
    assert topics_of_run({}, config, ["a"]) == frozenset()


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
