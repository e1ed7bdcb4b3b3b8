"""How a topic's runs are found."""

from __future__ import annotations

import dagster as dg
import pytest

from hop_archive.orchestration.runs import tag_key, topic_tags, topics_of_run
from hop_archive_tests.orchestration.helpers import (
    add_partitions,
    definitions,
    launch,
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
    assert found(instance, QUIET, "shared") == [by_job["archive_quiet_topics"]]


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
    run = run_shared(definitions(world), instance, [topic])
    assert found(instance, topic, "shared") == [run.run_id]
    assert sum(len(found(instance, LONG[:-1] + e, "shared")) for e in "ab") == 1


@pytest.mark.parametrize("length", [1, 62, 63, 64, 65, 249])
def test_any_topic_name_makes_a_tag_that_dagster_takes(length: int, instance: dg.DagsterInstance) -> None:
    topic = ("Az9._-" * 50)[:length]
    (key,) = topic_tags([topic], shared=True)
    run = dg.DagsterRun(job_name="any", tags={key: "shared"})
    assert len(key.removeprefix("topic/")) <= 63
    dg.RunRequest(tags={key: "shared"})  # refuses keys and values that Dagster does not take
    instance.add_run(run)
    assert found(instance, topic, "shared") == [run.run_id]


def test_a_runs_topics_are_read_from_tags_partition_and_configuration() -> None:
    known = ["tagged", "partition", "typed", "follows", "other", LONG]
    tags = {**topic_tags(["tagged", LONG], shared=True), "dagster/partition": "partition"}
    config = {
        "ops": {
            "plan": {"config": {"topics": ["typed"]}},
            "follow": {"config": {"topics": ["follows", "gone"]}},
        }
    }
    assert topics_of_run(tags, config, known) == {"tagged", LONG, "partition", "typed", "follows"}


@pytest.mark.parametrize(
    "config", [{}, {"ops": None}, {"ops": {"plan": None}}, {"ops": {"plan": {"config": {}}}}]
)
def test_a_run_without_tags_or_configuration_has_no_topics(config: dict[str, object]) -> None:
    assert topics_of_run({}, config, ["a"]) == frozenset()
