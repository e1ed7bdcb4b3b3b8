"""One following run takes over from another: nobody waits while a process starts, and nothing is doubled."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.records import Batch
from hop_archive.ingest.survey import survey
from hop_archive.orchestration import reports, succession
from hop_archive.orchestration.runs import FOLLOWING
from hop_archive.orchestration.succession import (
    STAYS_S,
    SUCCESSIONS,
    TAKES_OVER,
    TAKES_S,
    Stay,
    release,
    take_over,
)
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.faults.real import in_background
from hop_archive_tests.invariants import assert_archived
from hop_archive_tests.orchestration.helpers import (
    AT_ONCE,
    definitions,
    launch,
    live_run,
    log_messages,
    materializations,
    run_shared,
    shared_config,
    tick,
)
from hop_archive_tests.worlds import BUSY, QUIET, StubbornCatalog, World, awkward_world, fill, ticking

FOLLOW = replace(AT_ONCE, busy_messages=1_000_000, follow_s=0.5)
NO_MORE = replace(FOLLOW, follow_s=0.0)
TOPICS = (BUSY, QUIET)


def words(instance: dg.DagsterInstance) -> set[str]:
    return {key.rpartition("/")[2] for key in instance.get_dynamic_partitions(SUCCESSIONS)}


def is_leaving(instance: dg.DagsterInstance, run_id: str) -> bool:
    return instance.has_dynamic_partition(SUCCESSIONS, f"{run_id}/leaving")


def is_all_archived(world: World) -> bool:
    return not survey(world.archive(), TOPICS).pending()


def arrives(world: World, seed: int) -> None:
    """New messages in both topics, which somebody archives."""
    fill(world.cluster, seed=seed)
    wait_for(lambda: is_all_archived(world), "what arrives is archived")


def _launched(defs: dg.Definitions, instance: dg.DagsterInstance, request: dg.RunRequest) -> None:
    launch(defs, instance, [request])


@contextmanager
def following(defs: dg.Definitions, instance: dg.DagsterInstance) -> Iterator[tuple[str, dg.RunRequest]]:
    """Do what a tick asks for, in a thread; its run id, and the request. At the end it is told to end."""
    (request,) = tick(defs, instance).run_requests
    before = {run.run_id for run in instance.get_runs()}
    with in_background(lambda: _launched(defs, instance, request)):
        wait_for(lambda: len(instance.get_runs()) > len(before), "it begins")
        (run_id,) = {run.run_id for run in instance.get_runs()} - before
        try:
            yield run_id, request
        finally:
            wait_for(lambda: is_leaving(instance, run_id) or is_over(instance, run_id), "its time is over")
            if not is_over(instance, run_id):
                succession.release(instance, [run_id])


def is_over(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished


def test_a_run_goes_on_until_its_successor_is_ready_which_begins_where_it_ended(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = definitions(world, pacing=FOLLOW)
    with following(defs, instance) as (first, _):
        wait_for(lambda: is_leaving(instance, first), "its time is over")
        arrives(world, seed=1)
        assert not is_over(instance, first), "nobody was there but this run"
        with following(defs, instance) as (second, request):
            assert request.tags[TAKES_OVER] == first
            wait_for(lambda: is_over(instance, first), "the first is over")
            arrives(world, seed=2)
    for topic in TOPICS:
        assert_archived(world.archive(), world.cluster, topic)
    entries = sorted(world.catalog.ledger(), key=lambda entry: entry.slice)
    for at in {entry.slice.partition_log for entry in entries}:
        by = [entry.run_id for entry in entries if entry.slice.partition_log == at]
        assert by == [first] * by.count(first) + [second] * by.count(second), at
        assert {*by} == {first, second}
    notes = [m for run_id in (first, second) for m in log_messages(instance, run_id)]
    assert not [note for note in notes if note.startswith("Left for the next plan")]


def test_a_run_whose_successor_dies_before_it_is_ready_stays_and_another_one_is_asked_for(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = definitions(world, pacing=FOLLOW)
    with following(defs, instance) as (first, _):
        wait_for(lambda: is_leaving(instance, first), "its time is over")
        (request,) = tick(defs, instance).run_requests
        dead = live_run(defs, instance, request.job_name, tags=request.tags, run_config=request.run_config)
        assert not tick(defs, instance).run_requests, "one is on its way"
        instance.report_run_failed(dead)
        (again,) = tick(defs, instance).run_requests
        assert again.tags[TAKES_OVER] == first
        arrives(world, seed=1)
        assert not is_over(instance, first)


class WatchedCatalog(StubbornCatalog):
    """Notes with each commit that it refuses whether something is open of that topic."""

    def __init__(self) -> None:
        super().__init__()
        self.was_open: list[bool] = []

    def commit(self, *batches: Batch) -> None:
        """Note, and commit or refuse."""
        for topic in {batch.slice.topic for batch in batches} & self.refused:
            self.was_open.append(bool(self.open_findings([topic])))
        super().commit(*batches)


def run_successor(defs: dg.Definitions, instance: dg.DagsterInstance) -> str:
    """Run one whose predecessor is over; its run id."""
    run = defs.resolve_job_def("archive_quiet_topics").execute_in_process(
        run_config=shared_config(TOPICS, follow_s=0.3),
        tags={FOLLOWING: "0.3 s", TAKES_OVER: "a run that is over"},
        instance=instance,
        raise_on_error=False,
    )
    return run.run_id


def test_what_arrives_is_archived_while_pages_of_topics_are_being_written(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster's storage takes its time, and a run that follows has fifty of them to write when it begins."""
    run_id, write = str(uuid.uuid4()), reports.materializations
    seeds = [1]

    def slowly(archive: Archive, topics: Collection[str]) -> Iterator[dg.AssetMaterialization]:
        if seeds:
            arrives(world, seeds.pop())
            release(instance, [run_id])  # else it follows for an hour
        yield from write(archive, topics)

    monkeypatch.setattr(reports, "materializations", slowly)
    run = (
        definitions(world, pacing=FOLLOW)
        .resolve_job_def("archive_quiet_topics")
        .execute_in_process(
            run_id=run_id,
            run_config=shared_config(TOPICS, follow_s=0.1),
            tags={FOLLOWING: "0.1 s"},
            instance=instance,
        )
    )
    assert run.success
    assert not seeds
    assert all(materializations(instance, topic) for topic in TOPICS)


def test_a_successor_says_what_it_finds_lost(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(succession, "STAYS_S", 0.0)
    defs = definitions(world, pacing=FOLLOW)
    run_shared(defs, instance)
    fill(world.cluster, seed=1)
    with world.cluster.read() as state:
        world.cluster.delete_records(QUIET, 0, state.topics[QUIET].logs[0].stable)
    run_id = run_successor(defs, instance)
    assert materializations(instance, QUIET)[0]["lost"] != "0"
    assert [m for m in log_messages(instance, run_id) if m.startswith("Recorded as no longer to be had")]


def test_a_successor_closes_nothing_that_was_left_undone_before_it_has_looked(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(succession, "STAYS_S", 0.0)
    world, catalog = awkward_world(), WatchedCatalog()
    world.catalog, catalog.refused = catalog, frozenset([QUIET])
    defs = definitions(world, pacing=FOLLOW)
    assert not run_shared(defs, instance, raise_on_error=False).success
    assert catalog.open_findings([QUIET])
    catalog.was_open.clear()
    run_successor(defs, instance)
    assert catalog.was_open
    assert all(catalog.was_open)
    assert catalog.open_findings([QUIET])


def test_a_successor_whose_predecessor_dies_in_the_middle_follows_all_the_same(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = definitions(world, pacing=FOLLOW)
    tags = {FOLLOWING: "60 s"}
    dies = live_run(defs, instance, "archive_quiet_topics", tags=tags, run_config=shared_config(TOPICS))
    instance.add_dynamic_partitions(SUCCESSIONS, [f"{dies.run_id}/leaving"])
    with following(defs, instance) as (_, request):
        assert request.tags[TAKES_OVER] == dies.run_id
        wait_for(lambda: "ready" in words(instance), "the successor is ready")
        assert not is_all_archived(world), "it does nothing that is the other's still"
        instance.report_run_failed(dies)
        wait_for(lambda: is_all_archived(world), "all is archived")


def test_what_the_run_before_has_is_its_own_until_it_leaves_and_a_new_topic_is_nobodys(
    world: World, instance: dg.DagsterInstance
) -> None:
    run_shared(definitions(world), instance)
    defs = definitions(world, pacing=FOLLOW)
    run = live_run(
        defs, instance, "archive_quiet_topics", tags={FOLLOWING: "1 s"}, run_config=shared_config(TOPICS)
    )
    world.cluster.create_topic("new")
    world.cluster.append("new", b"1")
    fill(world.cluster, seed=1)
    (request,) = tick(defs, instance).run_requests
    assert topics_of(request) == ["new"]
    instance.add_dynamic_partitions(SUCCESSIONS, [f"{run.run_id}/leaving"])
    (request,) = tick(defs, instance).run_requests
    assert topics_of(request) == [BUSY, QUIET, "new"]
    assert request.tags[TAKES_OVER] == run.run_id


def topics_of(request: dg.RunRequest) -> list[str]:
    topics: list[str] = request.run_config["ops"]["archive_topics"]["config"]["topics"]
    return topics


def test_words_of_runs_that_are_over_are_forgotten(world: World, instance: dg.DagsterInstance) -> None:
    defs = definitions(world, pacing=FOLLOW)
    run = live_run(defs, instance, "archive_quiet_topics", tags={FOLLOWING: "1 s"})
    for run_id in (run.run_id, "gone"):
        instance.add_dynamic_partitions(SUCCESSIONS, [f"{run_id}/leaving", f"{run_id}/left"])
    tick(defs, instance)
    assert {*instance.get_dynamic_partitions(SUCCESSIONS)} == {f"{run.run_id}/leaving", f"{run.run_id}/left"}


def test_where_nobody_is_to_follow_any_more_a_run_ends_after_its_time(
    world: World, instance: dg.DagsterInstance
) -> None:
    with following(definitions(world, pacing=FOLLOW), instance) as (run_id, _):
        wait_for(lambda: is_leaving(instance, run_id), "its time is over")
        tick(definitions(world, pacing=NO_MORE), instance)
        wait_for(lambda: is_over(instance, run_id), "it ends")


def test_a_following_run_is_not_tried_again_by_dagster_beside_the_one_that_the_sensor_asks_for(
    world: World, instance: dg.DagsterInstance
) -> None:
    (request,) = tick(definitions(world, pacing=FOLLOW), instance).run_requests
    assert request.tags["dagster/max_retries"] == "0"
    (request,) = tick(definitions(world, pacing=NO_MORE), instance).run_requests
    assert "dagster/max_retries" not in request.tags


def test_a_run_ends_in_the_end_though_no_successor_comes(instance: dg.DagsterInstance) -> None:
    clock = iter([0.0, 9.9, 10.0, 10.1, 10.0 + STAYS_S - 1, 10.0 + STAYS_S])
    stay = Stay(instance, "a-run", 10.0, lambda: next(clock))
    assert [stay.is_over() for _ in range(5)] == [False, False, False, False, True]


class Deaf:
    """A storage that does not answer the first times."""

    def __init__(self, instance: dg.DagsterInstance, failures: int) -> None:
        self._instance, self._left = instance, failures

    def __getattr__(self, name: str) -> Any:
        self._left -= 1
        if self._left >= 0:
            raise OSError("no answer")
        return getattr(self._instance, name)


def test_a_storage_that_does_not_answer_ends_nothing_and_is_asked_again(
    instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    stay = Stay(Deaf(instance, 2), "a-run", 0.0, ticking(step=1.0))  # type: ignore[arg-type]
    assert [stay.is_over() for _ in range(3)] == [False] * 3
    assert caplog.text.count("Run a-run could not ask for its successor") == 2
    assert is_leaving(instance, "a-run")
    succession.release(instance, ["a-run"])
    assert stay.is_over()


def test_a_run_that_does_not_leave_is_waited_for_no_longer_than_a_while(
    world: World, instance: dg.DagsterInstance
) -> None:
    hangs = live_run(definitions(world), instance, "archive_quiet_topics", tags={FOLLOWING: "1 s"})
    slept: list[float] = []
    take_over(instance, [hangs.run_id], lambda: sum(slept), slept.append)
    assert sum(slept) == pytest.approx(TAKES_S, abs=1)
    instance.add_dynamic_partitions(SUCCESSIONS, [f"{hangs.run_id}/left"])
    slept.clear()
    take_over(instance, [hangs.run_id], lambda: sum(slept), slept.append)
    assert len(slept) == 1
    take_over(instance, ["a run that was deleted"], lambda: 0.0, slept.append)
    assert len(slept) == 1
