"""The job that restores: a dry run by default, its metadata, and what becomes of errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from hop_archive.errors import ForbiddenError
from hop_archive.ingest.cluster_state import take_snapshot
from hop_archive.ingest.follow import catch_up
from hop_archive.model.topics import TopicPolicy
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive.source.protocol import Source
from hop_archive_tests.orchestration.helpers import AT_ONCE, archive_of, run_job, told
from hop_archive_tests.restores import archived_world, empty_cluster, held, stored
from hop_archive_tests.worlds import BUSY, QUIET, World, exhausted


class OneTarget:
    """Opens one mock cluster, whatever its name; what is read-only is refused as the real one does."""

    def __init__(self, cluster: MockCluster) -> None:
        self.cluster = cluster

    def open(self, name: str, production: str) -> Source:
        if name == "readonly":
            raise ForbiddenError("Source readonly is read-only.", remedy="Choose another.")
        return MockSource(name, cluster=self.cluster)

    def policy(self, name: str) -> TopicPolicy:
        return TopicPolicy(veto=("*",))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def known_world() -> World:
    """A world that was archived, with a snapshot of how its topics are set up."""
    world = archived_world()
    take_snapshot(world.archive())
    return world


def run(
    world: World, target: MockCluster, instance: dg.DagsterInstance, **config: Any
) -> dg.ExecuteInProcessResult:
    defs = build_definitions(archive=archive_of(world), pacing=AT_ONCE, restore_targets=OneTarget(target))
    fields = {"topics": ["*"], "to_source": "there", "to_topic_template": "{topic}.again", **config}
    return run_job(defs, instance, "restore", raise_on_error=False, **fields)


FRESH = {"topic_config": {"retention.ms": "-1"}}
"""The messages of the world are of 2023."""


def test_nothing_is_written_unless_that_is_asked_for(instance: dg.DagsterInstance) -> None:
    world, target = archived_world(), empty_cluster()
    result = run(world, target, instance)
    assert result.success
    found = told(result)
    rows = sum(1 for topic in (BUSY, QUIET) for _ in world.catalog.rows(topic))
    assert (found["dry_run"], found["messages"]) == (True, rows)
    with target.read() as state:
        assert not state.topics


def test_a_dry_run_of_a_restore_that_is_done_says_so(instance: dg.DagsterInstance) -> None:
    world, target = known_world(), empty_cluster()
    assert run(world, target, instance, dry_run=False, **FRESH).success
    found = told(run(world, target, instance, **FRESH))
    assert (found["dry_run"], found["in_the_way"]) == (True, 0)
    assert "This was done before" in found["notes"]


def test_what_no_snapshot_tells_fails_the_run_that_restored_all_the_rest(
    instance: dg.DagsterInstance,
) -> None:
    world, target = archived_world(), empty_cluster()
    result = run(world, target, instance, dry_run=False, **FRESH)
    assert not result.success
    data = result.failure_data_for_node("restores")
    assert data is not None
    assert "No snapshot tells the settings of" in str(data.user_failure_data)
    assert held(target, f"{BUSY}.again") == stored(world.archive(), BUSY)


def test_a_restore_writes_compares_and_reports(instance: dg.DagsterInstance) -> None:
    world, target = known_world(), empty_cluster()
    result = run(world, target, instance, dry_run=False, **FRESH)
    assert result.success
    found = told(result)
    assert (found["dry_run"], found["checked"], found["left_out"]) == (False, True, 0)
    assert found["report"].endswith("report.json")
    for topic in (BUSY, QUIET):
        assert held(target, f"{topic}.again") == stored(world.archive(), topic)


def test_what_stands_in_the_way_fails_the_run_and_is_not_retried(instance: dg.DagsterInstance) -> None:
    world, target = archived_world(), empty_cluster()
    target.create_topic(f"{QUIET}.again")
    target.append(f"{QUIET}.again", b"somebody's")
    result = run(world, target, instance, dry_run=False, **FRESH)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert "holds 1 offset" in str(data.description)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"to_source": "readonly"}, "read-only"),
        ({"topics": ["nope"]}, "no messages of a topic nope"),
        ({"topics": []}, "topics and to_source are wanted"),
        ({"to_source": ""}, "topics and to_source are wanted"),
        ({"since": "yesterday"}, "is no moment"),
        ({"generation": "newest"}, "latest, all or a number"),
    ],
)
def test_bad_configuration_is_one_message(
    instance: dg.DagsterInstance, config: dict[str, Any], says: str
) -> None:
    result = run(archived_world(), empty_cluster(), instance, **config)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    assert says in str(data.description)


def test_it_goes_on_with_the_same_configuration(instance: dg.DagsterInstance) -> None:
    world, target = known_world(), empty_cluster()
    assert run(world, target, instance, dry_run=False, **FRESH).success
    exhausted(catch_up(world.archive()))
    again = run(world, target, instance, dry_run=False, **FRESH)
    assert again.success
    assert told(again)["restore"] == 1
