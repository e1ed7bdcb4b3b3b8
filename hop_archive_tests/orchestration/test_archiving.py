"""Runs: everything archived, whatever started them and whatever happens meanwhile."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.faults import CrashError, Fault, Faults, When, crash, fail
from hop_archive.errors import CorruptError, UnavailableError
from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.survey import plan_work
from hop_archive.model.findings import Kind
from hop_archive.orchestration import archiving, run_files
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.orchestration.reports import moment
from hop_archive.source.mock.source import MockSource
from hop_archive.source.protocol import Answers, TopicInfo
from hop_archive_tests.invariants import assert_archived, assert_ledger_is_sound
from hop_archive_tests.orchestration.helpers import (
    AT_ONCE,
    add_partitions,
    definitions,
    launch,
    log_messages,
    materializations,
    materialize_by_hand,
    run_shared,
    shared_config,
    striking,
    tick,
    trace,
)
from hop_archive_tests.worlds import BUSY, QUIET, World, awkward_world, exhausted, fill

TOPICS = (BUSY, QUIET)
OF_RUN = {
    "topics",
    "messages_per_s",
    *(f"new_{name}" for name in ("messages", "bytes", "duplicates", "absent", "lost")),
}


def assert_all_archived(world: World) -> None:
    for topic in TOPICS:
        assert_archived(world.archive(), world.cluster, topic)


@pytest.mark.parametrize("layout", ["message", "segment"])
def test_a_shared_run_archives_all_of_its_topics(layout: Any, instance: dg.DagsterInstance) -> None:
    world = awkward_world(layout)
    assert run_shared(definitions(world), instance).success
    assert_all_archived(world)


def test_a_shared_run_says_of_each_topic_what_it_did(world: World, instance: dg.DagsterInstance) -> None:
    run_shared(definitions(world), instance)
    for summary in world.catalog.summaries():
        (metadata,) = materializations(instance, summary.topic)
        assert metadata["dagster/row_count"] == summary.messages
        assert metadata["dagster/size_bytes"] == summary.size_bytes
        assert metadata["first_message"] == moment(summary.first_timestamp_ms).value
        assert metadata["last_message"] == moment(summary.last_timestamp_ms).value
        assert (metadata["duplicates"], metadata["absent"]) == (f"{summary.duplicates}", f"{summary.absent}")
        assert metadata["lag"] == "none: all that Kafka holds is archived"
        assert metadata["lost"] == metadata["open_findings"] == "0"
        covered = world.catalog.coverage([summary.topic])
        last = [f"partition {at.partition}: {covered[at].stop - 1}" for at in sorted(covered)]
        assert metadata["last_offsets"].split(", ") == last


def test_of_a_topic_no_number_is_plotted_but_messages_and_bytes(
    world: World, instance: dg.DagsterInstance
) -> None:
    # Dagster plots a number of all partitions along one line, from one topic to the next.
    defs = definitions(world)
    run_shared(defs, instance)
    launch(defs, instance, [r for r in tick(defs, instance).run_requests if r.partition_key])
    numbers = {
        name
        for topic in TOPICS
        for metadata in materializations(instance, topic)
        for name, value in metadata.items()
        if isinstance(value, int) or (isinstance(value, float) and not name.endswith("_message"))
    }
    assert numbers == {"dagster/row_count", "dagster/size_bytes"}


def test_a_run_says_how_many_messages_of_how_many_topics_in_its_row_and_its_first_line(
    world: World, instance: dg.DagsterInstance
) -> None:
    run = run_shared(definitions(world), instance)
    tags = instance.get_run_by_id(run.run_id)
    assert tags is not None
    archived = sum(summary.messages for summary in world.catalog.summaries())
    assert tags.tags["messages"] == f"{archived} of 2 topics"
    assert [key for key in tags.tags if key.startswith("topic/")] == []
    (first,) = [m for m in log_messages(instance, run.run_id) if " to archive" in m]
    assert f"of 2 topics to archive: {BUSY}, {QUIET}" in first


def test_a_shared_run_says_in_one_event_what_it_did(world: World, instance: dg.DagsterInstance) -> None:
    run = run_shared(definitions(world), instance)
    (metadata,) = [e.step_output_data.metadata for e in run.all_events if e.is_successful_output]
    said: dict[str, Any] = {name: value.value for name, value in metadata.items()}
    assert said.keys() >= OF_RUN
    summaries = world.catalog.summaries()
    assert said["topics"] == len(summaries)
    assert said["new_messages"] == sum(summary.messages for summary in summaries)
    assert said["new_bytes"] == sum(summary.size_bytes for summary in summaries)
    assert said["new_duplicates"] == sum(summary.duplicates for summary in summaries)
    assert said["new_absent"] == sum(summary.absent for summary in summaries)
    assert said["new_collisions"] == len(world.catalog.collisions(BUSY)) + len(
        world.catalog.collisions(QUIET)
    )
    assert said["messages_per_s"] > 0
    table = metadata["by_topic"]
    assert isinstance(table, dg.TableMetadataValue)
    by_topic = {str(row.data["topic"]): row.data["messages"] for row in table.records}
    assert by_topic == {summary.topic: summary.messages for summary in summaries}


@pytest.mark.parametrize("follow_s", [0.0, 0.3])
def test_a_shared_run_leaves_no_more_events_behind_however_many_messages_there_are(
    instance: dg.DagsterInstance, follow_s: float
) -> None:
    def events(messages: int) -> int:
        world = World()
        world.cluster.create_topic(BUSY, 2)
        for number in range(messages):
            world.cluster.append(BUSY, b"%d" % number, partition=number % 2)
        run = run_shared(definitions(world), instance, [BUSY], follow_s=follow_s)
        return len(instance.all_logs(run.run_id))

    few = events(10)
    assert events(200) == few <= 20


def test_a_run_of_its_own_says_the_same_of_its_topic(world: World, instance: dg.DagsterInstance) -> None:
    defs = definitions(world)
    launch(defs, instance, [r for r in tick(defs, instance).run_requests if r.partition_key])
    assert_archived(world.archive(), world.cluster, BUSY)
    (metadata,) = materializations(instance, BUSY)
    (summary,) = world.catalog.summaries([BUSY])
    assert (metadata["dagster/row_count"], metadata["dagster/size_bytes"]) == (
        summary.messages,
        summary.size_bytes,
    )
    assert (metadata["duplicates"], metadata["absent"]) == (f"{summary.duplicates}", f"{summary.absent}")
    assert metadata["this_run"].startswith(f"{summary.messages} messages of 1 topic, ")
    assert not materializations(instance, QUIET)


def test_a_quiet_topic_without_messages_leaves_no_event(world: World, instance: dg.DagsterInstance) -> None:
    world.cluster.create_topic("silent")
    run_shared(definitions(world), instance, [*TOPICS, "silent"])
    assert not materializations(instance, "silent")


def test_what_waits_when_a_run_reports_is_its_lag(world: World, instance: dg.DagsterInstance) -> None:
    commits = trace(awkward_world()).count("catalog.commit")
    late = striking("catalog.commit", lambda _: world.cluster.append(QUIET, b"late"), When.AFTER, commits)
    run_shared(definitions(world, late), instance)
    (metadata,) = materializations(instance, QUIET)
    assert metadata["lag"].startswith("1 message waits; the newest archived is ")


def test_offsets_that_a_plan_finds_lost_are_said_too(world: World, instance: dg.DagsterInstance) -> None:
    defs = definitions(world)
    run_shared(defs, instance)
    fill(world.cluster, seed=1)
    with world.cluster.read() as state:
        gone = state.topics[QUIET].logs[0].stable
    kept = world.catalog.summaries([QUIET])[0]
    covered = kept.messages + kept.duplicates + kept.absent
    world.cluster.delete_records(QUIET, 0, gone)
    run = run_shared(defs, instance, [QUIET])
    assert run.success
    assert gone > covered
    assert materializations(instance, QUIET)[0]["lost"] == f"{gone - covered}"
    assert [m for m in log_messages(instance, run.run_id) if m.startswith("Recorded as no longer to be had")]


@pytest.mark.parametrize("topic", TOPICS)
def test_materializing_a_partition_with_no_configuration_plans_its_own_slices(
    world: World, instance: dg.DagsterInstance, topic: str
) -> None:
    defs = definitions(world)
    add_partitions(defs, instance)
    assert materialize_by_hand(defs, instance, topic).success
    assert_archived(world.archive(), world.cluster, topic)
    (metadata,) = materializations(instance, topic)
    assert metadata["dagster/row_count"] == world.catalog.summaries([topic])[0].messages
    assert [summary.topic for summary in world.catalog.summaries()] == [topic]


def test_a_shared_run_with_no_configuration_archives_all_topics(
    world: World, instance: dg.DagsterInstance
) -> None:
    job = definitions(world).resolve_job_def("archive_quiet_topics")
    assert job.execute_in_process(instance=instance).success
    assert_all_archived(world)


def test_materializing_it_again_archives_nothing_twice(world: World, instance: dg.DagsterInstance) -> None:
    defs = definitions(world)
    add_partitions(defs, instance)
    for _ in range(2):
        assert materialize_by_hand(defs, instance, BUSY).success
    assert_archived(world.archive(), world.cluster, BUSY)
    again, first = materializations(instance, BUSY)
    assert again["this_run"].startswith("no messages waited; ")
    assert again["dagster/row_count"] == first["dagster/row_count"] > 0


def test_a_partition_whose_topic_is_gone_is_materialized_with_nothing(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = definitions(world)
    add_partitions(defs, instance)
    world.cluster.delete_topic(QUIET)
    assert materialize_by_hand(defs, instance, QUIET).success


def test_the_slices_of_the_run_configuration_are_archived_and_no_others(
    world: World, instance: dg.DagsterInstance
) -> None:
    plan_work(world.archive())  # so that the generations are in the catalog
    wanted = [
        {"topic": BUSY, "generation": 1, "partition": 0, "start": 4, "stop": 9},
        {"topic": BUSY, "generation": 1, "partition": 1, "start": 0, "stop": 3},
    ]
    assert run_shared(definitions(world), instance, slices=wanted).success
    entries = world.catalog.ledger()
    assert_ledger_is_sound(entries)
    covered = {
        (partition_log.partition, tuple(offsets))
        for partition_log, offsets in world.catalog.coverage().items()
        if offsets
    }
    assert covered == {(0, ((4, 9),)), (1, ((0, 3),))}


def test_an_unsound_slice_is_refused_before_anything_is_archived(
    world: World, instance: dg.DagsterInstance
) -> None:
    wrong = [{"topic": BUSY, "generation": 1, "partition": 0, "start": 9, "stop": 4}]
    run = run_shared(definitions(world), instance, slices=wrong, raise_on_error=False)
    assert not run.success
    assert not world.catalog.ledger()


# --- what goes wrong


@pytest.mark.parametrize(
    ("call", "retried"),
    [("catalog.commit", []), ("store.create", []), ("source.watermarks", ["archive_topics"])],
)
def test_a_server_that_does_not_answer_once_is_asked_again(
    call: str, retried: list[str], instance: dg.DagsterInstance
) -> None:
    world = awkward_world()
    faults = striking(call, fail)
    run = run_shared(definitions(world, faults), instance)
    assert run.success
    assert [e.step_key for e in run.all_events if e.is_step_up_for_retry] == retried
    assert_all_archived(world)


@pytest.mark.parametrize("call", ["catalog.commit", "store.create"])
def test_a_server_that_does_not_answer_is_asked_again_after_a_pause_where_nothing_was_archived(
    call: str, instance: dg.DagsterInstance
) -> None:
    world = awkward_world()
    # While what was planned is archived, and while what is left of it is tried again at once.
    run = run_shared(definitions(world, at_first(call, 2, fail)), instance)
    assert run.success
    assert [e.step_key for e in run.all_events if e.is_step_up_for_retry] == ["archive_topics"]
    assert_all_archived(world)


def at_first(call: str, times: int, act: Callable[[str], object]) -> Faults:
    """Faults that strike at so many calls of a name, the first ones."""
    return Faults(tuple(Fault(number, When.BEFORE, act, name=call) for number in range(1, times + 1)))


def test_a_step_of_a_run_of_one_topic_is_tried_again_by_itself(instance: dg.DagsterInstance) -> None:
    world = awkward_world()
    run = by_hand(world, instance, striking("catalog.commit", fail))
    assert run.success
    retried = [e.step_key for e in run.all_events if e.is_step_up_for_retry]
    assert retried == ["archiving.catalog[unit_00000]"]
    assert_archived(world.archive(), world.cluster, BUSY)


def by_hand(
    world: World, instance: dg.DagsterInstance, faults: Faults | None = None, **options: Any
) -> dg.ExecuteInProcessResult:
    """A run of one topic, which hands what it has from step to step."""
    defs = definitions(world, faults)
    instance.add_dynamic_partitions("topics", [BUSY])
    return materialize_by_hand(defs, instance, BUSY, **options)


def test_an_answer_that_is_lost_on_the_way_doubles_nothing(instance: dg.DagsterInstance) -> None:
    world = awkward_world()
    faults = striking("catalog.commit", fail, When.AFTER)
    assert run_shared(definitions(world, faults), instance).success
    assert_all_archived(world)


def test_a_data_error_is_not_tried_again_and_says_what_it_knows(instance: dg.DagsterInstance) -> None:
    def broken(call: str) -> None:
        raise CorruptError("These bytes are not those.", object_key="a/b.bson")

    run = run_shared(
        definitions(awkward_world(), at_first("store.create", 2, broken)), instance, raise_on_error=False
    )
    assert not run.success
    (failed,) = [e.step_failure_data for e in run.all_events if e.is_step_failure]
    assert failed.user_failure_data is not None
    assert failed.user_failure_data.description == "These bytes are not those."
    assert failed.user_failure_data.metadata["object_key"].value == "a/b.bson"
    assert not [e for e in run.all_events if e.is_step_up_for_retry]


CALLS_AT_WHICH_TO_DIE = ["store.create", "catalog.commit", "catalog.observe"]


@pytest.mark.parametrize("when", list(When))
@pytest.mark.parametrize("call", CALLS_AT_WHICH_TO_DIE)
@pytest.mark.parametrize("again", ["all steps", "from the failure", "the sensor"])
def test_a_run_that_was_killed_is_completed_by_the_next(
    call: str, when: When, again: str, instance: dg.DagsterInstance
) -> None:
    world = awkward_world()
    faults = striking(call, crash, when)
    with pytest.raises(CrashError):
        run_shared(definitions(world, faults), instance)
    (dead,) = instance.get_runs()
    instance.report_run_failed(dead)  # as run monitoring does
    complete(world, instance, dead, again)
    assert_all_archived(world)
    for run in instance.get_runs():
        assert not (run_files.root() / run.run_id).exists() or run.run_id == dead.run_id
    if again != "the sensor":
        assert not (run_files.root() / dead.run_id).exists()


_worlds: list[World] = []


def retried_job() -> dg.JobDefinition:
    """For Dagster to find by its name, once, and to keep: whose world it is, it learns when it runs."""

    @dg.resource
    def archive(context: dg.InitResourceContext) -> Archive:
        return _worlds[-1].archive(run_id=context.run.run_id if context.run else "")

    return build_definitions(archive=archive, pacing=AT_ONCE).resolve_job_def("archive_quiet_topics")


def reexecute(
    world: World, instance: dg.DagsterInstance, options: dg.ReexecutionOptions
) -> dg.JobExecutionResult:
    _worlds.append(world)
    job = dg.reconstructable(retried_job)
    with dg.execute_job(
        job, instance, run_config=shared_config(TOPICS), reexecution_options=options
    ) as result:
        return result


def complete(world: World, instance: dg.DagsterInstance, dead: dg.DagsterRun, again: str) -> None:
    defs = definitions(world)
    if again == "the sensor":
        launch(defs, instance, tick(defs, instance).run_requests)
    elif again == "all steps":
        assert reexecute(world, instance, dg.ReexecutionOptions(parent_run_id=dead.run_id)).success
    else:
        assert reexecute(world, instance, dg.ReexecutionOptions.from_failure(dead.run_id, instance)).success


def test_dagster_does_a_dead_run_again_whole(world: World, instance: dg.DagsterInstance) -> None:
    defs = definitions(world)
    runs = launch(defs, instance, tick(defs, instance).run_requests)
    assert [run.dagster_run.tags["dagster/retry_strategy"] for run in runs] == ["ALL_STEPS"] * 2


def test_a_run_whose_files_are_gone_says_so() -> None:
    before = dg.build_output_context(run_id="a-run", step_key="plan", name="slices")
    context = dg.build_input_context(upstream_output=before)
    with pytest.raises(dg.Failure, match="What the step before handed over is gone"):
        run_files.RunFilesIOManager().load_input(context)


def test_where_another_archiver_was_first_the_run_ends_well_and_says_so(instance: dg.DagsterInstance) -> None:
    world = awkward_world()
    faults = striking(
        "catalog.commit",
        lambda _: exhausted(catch_up(world.archive(run_id="the other run"), TOPICS)),
    )
    run = run_shared(definitions(world, faults), instance)
    assert run.success
    notes = [m for m in log_messages(instance, run.run_id) if m.startswith("Left for the next plan: ")]
    assert notes
    assert all("already archived by the other run" in note for note in notes)
    assert_all_archived(world)


def test_where_a_topic_was_made_anew_the_run_ends_well_and_the_next_archives_it(
    instance: dg.DagsterInstance,
) -> None:
    world = awkward_world()

    def anew(_: str) -> None:
        world.cluster.recreate_topic(QUIET)
        world.cluster.append(QUIET, b"of the second life")

    faults = striking("catalog.commit", anew)
    assert run_shared(definitions(world, faults), instance).success
    run_shared(definitions(world), instance)
    assert [row.offset for row in world.catalog.rows(QUIET) if row.generation == 2] == [0]
    assert_archived(world.archive(), world.cluster, BUSY)


# --- staying


def test_a_run_that_stays_archives_what_arrives(instance: dg.DagsterInstance) -> None:
    world = awkward_world()
    done = len(trace(awkward_world()))
    arrives = Faults((Fault(done + 20, When.BEFORE, lambda _: fill(world.cluster, seed=1)),))
    run = run_shared(definitions(world, arrives), instance, follow_s=2.0)
    assert run.success
    assert_all_archived(world)
    for summary in world.catalog.summaries():
        assert materializations(instance, summary.topic)[0]["dagster/row_count"] == summary.messages


def test_a_run_that_stays_writes_pages_before_it_ends(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "_PAGES_EVERY_S", 0.0)
    world = awkward_world()
    to_come = [1]

    def arrive_once_a_page_is_there(_: str) -> None:
        if to_come and materializations(instance, BUSY):
            fill(world.cluster, seed=to_come.pop())

    arrives = Faults(tuple(Fault(n, When.BEFORE, arrive_once_a_page_is_there) for n in range(1, 2_000)))
    assert run_shared(definitions(world, arrives), instance, follow_s=8.0).success
    messages = [page["dagster/row_count"] for page in materializations(instance, BUSY)]
    (summary,) = world.catalog.summaries([BUSY])
    assert messages[0] == summary.messages > messages[-1] > 0


def test_a_run_that_does_not_stay_leaves_what_arrives_to_the_next(instance: dg.DagsterInstance) -> None:
    world = awkward_world()
    done = len(trace(awkward_world()))
    arrives = Faults((Fault(done - 8, When.BEFORE, lambda _: fill(world.cluster, seed=1)),))
    run_shared(definitions(world, arrives), instance)
    assert tick(definitions(world), instance).run_requests


# --- what is handed on


def test_what_is_handed_from_step_to_step_is_gone_afterwards(
    world: World, instance: dg.DagsterInstance
) -> None:
    seen: list[int] = []

    def look(_: str) -> None:
        (run,) = instance.get_runs()
        seen.append(len([p for p in (run_files.root() / run.run_id).rglob("*") if p.is_file()]))

    run = by_hand(world, instance, striking("catalog.commit", look))
    assert seen[0] > 0
    assert not (run_files.root() / run.run_id).exists()


def test_what_is_handed_on_is_for_this_user_only(world: World, instance: dg.DagsterInstance) -> None:
    by_hand(world, instance)
    assert run_files.root().stat().st_mode & 0o077 == 0


def test_nothing_is_handed_on_through_a_folder_that_somebody_else_prepared(
    world: World, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "theirs" / "own").mkdir(parents=True)
    os.utime(tmp_path / "theirs" / "own", (0, 0))
    run_files.root().symlink_to(tmp_path / "theirs")
    with pytest.raises(dg.Failure, match="not this user's alone"):
        by_hand(world, instance)
    with pytest.raises(dg.Failure, match="not this user's alone"):
        run_files.discard(instance, "over")
    assert list((tmp_path / "theirs").iterdir()) == [tmp_path / "theirs" / "own"]


class Undescribing(MockSource):
    """A cluster that lists a topic, and does not describe it."""

    def topics(self, names: Collection[str] | None = None) -> Answers[str, TopicInfo]:
        found = super().topics(names)
        why = UnavailableError("the broker does not describe it", topic=QUIET)
        told = {name: info for name, info in found.items() if name != QUIET}
        return Answers(told, {QUIET: why} if QUIET in found else {})


def test_a_run_that_is_given_no_topics_tells_of_those_that_could_not_be_described(
    instance: dg.DagsterInstance,
) -> None:
    world = awkward_world("segment")
    archive = replace(world.archive(), source=Undescribing(cluster=world.cluster))
    defs = build_definitions(archive=archive, pacing=AT_ONCE)
    run_shared(defs, instance, [], raise_on_error=False)
    noted = [one.finding for one in world.catalog.findings()]
    assert [(one.kind, one.topic) for one in noted if one.topic == QUIET] == [(Kind.NOT_READABLE, QUIET)]
    assert_archived(world.archive(), world.cluster, BUSY)


def test_a_file_in_the_place_of_what_is_handed_on_is_one_message(
    world: World, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run_files.root().write_text("")
    for call in (
        lambda: by_hand(world, instance),
        lambda: run_files.discard(instance, "over"),
    ):
        with pytest.raises(dg.Failure, match=r"stands where a folder is wanted.*TMPDIR"):
            call()


def test_no_row_is_in_dagsters_own_storage(instance: dg.DagsterInstance, world: World) -> None:
    by_hand(world, instance)
    uuids = [str(row.uuid) for topic in TOPICS for row in world.catalog.rows(topic)]
    stored = b"".join(p.read_bytes() for p in Path(instance.root_directory).rglob("*") if p.is_file())
    assert not [own for own in uuids if own.encode() in stored]


@pytest.mark.parametrize("sick", ["lose_leader", "deny"])
def test_one_sick_topic_leaves_the_others_archived_and_the_run_well(
    world: World, instance: dg.DagsterInstance, sick: str
) -> None:
    getattr(world.cluster, sick)(QUIET)
    run_shared(definitions(world), instance)
    assert {one.topic for one in world.catalog.summaries() if one.messages} == {BUSY}
    assert [finding.finding.topic for finding in world.catalog.findings()] == [QUIET]
