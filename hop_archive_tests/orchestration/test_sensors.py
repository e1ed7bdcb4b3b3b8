"""What the sensors see, ask for and leave alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.faults import Fault, Faults, When, fail
from hop_archive.errors import ForbiddenError, HopArchiveError, UnavailableError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.slices import PartitionLog
from hop_archive.model.topics import TopicPolicy
from hop_archive.orchestration import archiving, sensors
from hop_archive.orchestration.archiving import archive_topics, live_runs
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.orchestration.pacing import Pacing, Waiting
from hop_archive.orchestration.runs import FOLLOWING, IN_VAIN, tag_key, topic_tag
from hop_archive.orchestration.sensors import kafka_offsets, topic_partitions
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Created, NewObject
from hop_archive_tests.faults.test_sick_parts import SICK, Damaged, publish
from hop_archive_tests.invariants import assert_archived
from hop_archive_tests.orchestration.helpers import (
    AT_ONCE,
    add_partitions,
    definitions,
    launch,
    live_run,
    run_shared,
    shared_config,
    tick,
)
from hop_archive_tests.worlds import BUSY, QUIET, World, exhausted, fill, stubborn_world

SHARED = Pacing(enough_messages=1, longest_wait_s=0.0, busy_messages=1_000_000, follow_s=0.0)
"""Every message is reason enough, and no topic is busy."""


def partitions(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.get_dynamic_partitions("topics"))


def asked(data: Any) -> dict[str, list[str]]:
    """The topics of each kind of run that was asked for."""
    found: dict[str, list[str]] = {"own": [], "shared": []}
    for request in data.run_requests or ():
        if request.partition_key:
            found["own"].append(request.partition_key)
        else:
            found["shared"] += request.run_config["ops"]["archive_topics"]["config"]["topics"]
    return found


# --- topic_partitions


def test_every_topic_gets_a_partition_but_those_that_are_vetoed(instance: dg.DagsterInstance) -> None:
    world = World()
    for name in ("gcn.notices", "sys.heartbeat", "lvk"):
        world.cluster.create_topic(name)
    archive = Archive(
        source=MockSource(cluster=world.cluster),
        catalog=world.catalog,
        store=world.store,
        topics=TopicPolicy(veto=("sys.*",)),
    )
    tick(build_definitions(archive=archive, pacing=AT_ONCE), instance, topic_partitions)
    assert partitions(instance) == {"gcn.notices", "lvk"}


def test_a_topic_that_vanished_keeps_its_partition(world: World, instance: dg.DagsterInstance) -> None:
    defs = definitions(world)
    add_partitions(defs, instance)
    world.cluster.delete_topic(QUIET)
    world.cluster.create_topic("new")
    add_partitions(defs, instance)
    assert partitions(instance) == {BUSY, QUIET, "new"}


def test_a_tick_names_the_partitions_that_it_adds(world: World, instance: dg.DagsterInstance) -> None:
    data = tick(definitions(world), instance, topic_partitions)
    assert data.skip_message == (
        "All 2 topics of mock-hop have a partition; added: alerts.busy, alerts.quiet."
    )


def test_when_all_have_a_partition_the_tick_says_so_and_asks_for_nothing(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = definitions(world)
    add_partitions(defs, instance)
    data = tick(defs, instance, topic_partitions)
    assert not data.dynamic_partitions_requests
    assert data.skip_message == "All 2 topics of mock-hop have a partition."


@pytest.mark.parametrize("sensor", [topic_partitions, kafka_offsets])
def test_names_in_the_stanza_that_mean_no_topic_are_told(
    world: World, instance: dg.DagsterInstance, sensor: dg.SensorDefinition
) -> None:
    @dg.resource
    def archive(_: dg.InitResourceContext) -> Archive:
        return replace(world.archive(), topics=TopicPolicy(topics=("nosuch.*",)))

    data = tick(build_definitions(archive=archive), instance, sensor)
    assert "no topic that is archived by nosuch.*" in data.skip_message


@pytest.mark.parametrize("sensor", ["topic_partitions", "kafka_offsets"])
def test_while_the_source_is_down_ticks_fail_and_say_why_and_the_next_one_works(
    world: World, instance: dg.DagsterInstance, sensor: str
) -> None:
    defs = definitions(world)
    chosen = (
        defs.resolve_sensor_def(sensor)
        if hasattr(defs, "resolve_sensor_def")
        else defs.get_sensor_def(sensor)
    )
    world.cluster.stop()
    with pytest.raises(dg.Failure, match=r"Source mock-hop: mock cluster .* does not answer"):
        tick(defs, instance, chosen)
    world.cluster.start()
    tick(defs, instance, chosen)
    assert BUSY in partitions(instance)


# --- kafka_offsets


@pytest.mark.parametrize("part", ["catalog", "source"])
def test_a_server_that_does_not_answer_once_fails_one_tick(
    world: World, instance: dg.DagsterInstance, part: str
) -> None:
    calls = Faults()
    tick(definitions(world, calls), instance)
    number = next(n for n, call in enumerate(calls.calls, start=1) if call.startswith(part))
    defs = definitions(world, Faults((Fault(number, When.BEFORE, fail),)))
    with pytest.raises(dg.Failure, match=f"told to fail at {part}") as failure:
        tick(defs, instance)
    assert failure.value.allow_retries
    assert asked(tick(defs, instance)) == {"own": [BUSY], "shared": [QUIET]}


def test_the_store_need_not_answer_for_a_tick(world: World, instance: dg.DagsterInstance) -> None:
    calls = Faults()
    tick(definitions(world, calls), instance)
    assert not [call for call in calls.calls if call.startswith("store") and call != "store.close"]


def test_what_a_tick_asks_for_archives_everything(world: World, instance: dg.DagsterInstance) -> None:
    defs = definitions(world)
    data = tick(defs, instance)
    assert asked(data) == {"own": [BUSY], "shared": [QUIET]}
    launch(defs, instance, data.run_requests)
    for topic in (BUSY, QUIET):
        assert_archived(world.archive(), world.cluster, topic)


def test_when_all_is_archived_the_tick_says_so_and_asks_for_nothing(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = definitions(world)
    run_shared(defs, instance)
    data = tick(defs, instance)
    assert not data.run_requests
    assert data.skip_message == "Everything that Kafka holds is archived."
    assert not Waiting.from_json(data.cursor).since


def test_a_log_with_another_leader_is_looked_at_by_a_run_though_nothing_seems_to_be_new(
    world: World, instance: dg.DagsterInstance
) -> None:
    exhausted(catch_up(world.archive()))
    world.cluster.append(QUIET, b"the last")
    exhausted(catch_up(world.archive()))
    with world.cluster.read() as state:
        end = state.topics[QUIET].logs[0].high
    world.cluster.lose_end(QUIET, 0, end - 1)
    world.cluster.append(QUIET, b"another")
    data = tick(definitions(world, pacing=SHARED), instance, kafka_offsets)
    assert asked(data) == {"own": [], "shared": [QUIET]}


def test_a_tick_makes_the_partition_of_a_topic_that_gets_a_run_of_its_own(
    world: World, instance: dg.DagsterInstance
) -> None:
    tick(definitions(world), instance)
    assert BUSY in partitions(instance)


def test_a_topic_waits_from_tick_to_tick_by_the_cursor(world: World, instance: dg.DagsterInstance) -> None:
    defs = definitions(world, pacing=Pacing(enough_messages=10_000, longest_wait_s=3_600, follow_s=0.0))
    lately = Waiting(shared_at=time.time())
    first = tick(defs, instance, cursor=lately.to_json())
    assert not first.run_requests
    assert "2 topics are in a run, or wait for others, 3600 s at most: alerts.busy: " in first.skip_message
    waiting = Waiting.from_json(first.cursor)
    assert waiting.since.keys() == {BUSY, QUIET}
    assert tick(defs, instance, cursor=first.cursor).cursor == first.cursor
    later = tick(defs, instance, cursor=earlier(first, QUIET, 3_600))
    assert asked(later) == {"own": [], "shared": [BUSY, QUIET]}
    assert Waiting.from_json(later.cursor).shared_at > lately.shared_at


def test_after_a_lull_nothing_waits(world: World, instance: dg.DagsterInstance) -> None:
    defs = definitions(world, pacing=Pacing(enough_messages=10_000, longest_wait_s=3_600, follow_s=0.0))
    before = Waiting(shared_at=time.time() - 7_200)
    assert asked(tick(defs, instance, cursor=before.to_json()))["shared"] == [BUSY, QUIET]


@pytest.mark.parametrize(
    ("job", "tags", "config"),
    [
        pytest.param("archive_topic", topic_tag(QUIET), None, id="a run of its own"),
        pytest.param(
            "archive_quiet_topics", {tag_key(QUIET): "shared"}, None, id="a shared run of an earlier version"
        ),
        pytest.param("archive_quiet_topics", {}, shared_config([QUIET]), id="a shared run"),
        pytest.param("__ASSET_JOB", {"dagster/partition": QUIET}, None, id="a backfill or the button"),
    ],
)
@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
def test_a_topic_with_a_live_run_is_left_alone(
    world: World,
    instance: dg.DagsterInstance,
    job: str,
    tags: dict[str, str],
    config: dict[str, Any] | None,
    status: dg.DagsterRunStatus,
) -> None:
    defs = definitions(world, pacing=SHARED)
    run = live_run(defs, instance, job, tags=tags, run_config=config, status=status)
    assert asked(tick(defs, instance)) == {"own": [], "shared": [BUSY]}
    instance.report_run_failed(run)
    assert asked(tick(defs, instance)) == {"own": [], "shared": [BUSY, QUIET]}


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING])
def test_while_a_shared_run_is_to_start_the_others_wait_for_the_next_one(
    world: World, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    world.cluster.create_topic("another")
    world.cluster.append("another", b"1")
    defs = definitions(world)
    live_run(defs, instance, "archive_quiet_topics", run_config=shared_config([QUIET]), status=status)
    data = tick(defs, instance)
    assert asked(data) == {"own": [BUSY], "shared": []}
    assert Waiting.from_json(data.cursor).since.keys() == {"another"}


def test_a_run_of_another_job_with_a_topics_name_is_no_reason_to_wait(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = definitions(world, pacing=SHARED)
    live_run(defs, instance, "check_archive", tags=topic_tag(QUIET))
    assert QUIET in asked(tick(defs, instance))["shared"]


@pytest.mark.parametrize(
    ("assets", "archives"),
    [
        pytest.param(None, True, id="all assets"),
        pytest.param(["archived_messages"], True, id="the messages"),
        pytest.param(["archived_messages", "verification"], True, id="the messages and another"),
        pytest.param(["verification"], False, id="another asset from its page"),
        pytest.param([], False, id="checks alone"),
    ],
)
def test_a_run_from_an_assets_page_archives_only_where_the_messages_are_chosen(
    world: World, instance: dg.DagsterInstance, assets: list[str] | None, archives: bool
) -> None:
    chosen = None if assets is None else [dg.AssetKey(name) for name in assets]
    run = live_run(definitions(world), instance, "__ASSET_JOB", assets=chosen)
    assert [found.run_id for found in live_runs(instance)] == ([run.run_id] if archives else [])


# --- runs in vain


class RefusingStore(MockStore):
    """A store that takes nothing of a topic, or of all, for as long as it is told so."""

    refuses = True
    topic = ""

    def create(self, objects: Sequence[NewObject]) -> Sequence[Created]:
        """Take them, or none."""
        if self.refuses and any(self.topic in new.key for new in objects):
            raise ForbiddenError("The store refuses.")
        return super().create(objects)


@pytest.mark.parametrize("follow_s", [0.0, 2.0])
def test_after_two_runs_that_archived_nothing_the_next_is_asked_for_later_and_then_as_ever(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, follow_s: float
) -> None:
    store = RefusingStore()
    world.store = store
    defs = definitions(world, pacing=replace(SHARED, follow_s=follow_s))

    def run_what_is_asked_for() -> list[bool]:
        asked_for = tick(defs, instance).run_requests
        return [run.success for run in launch(defs, instance, asked_for, raise_on_error=False)]

    assert run_what_is_asked_for() == [False]
    assert run_what_is_asked_for() == [False]
    data = tick(defs, instance, cursor="{}")
    assert not data.run_requests
    assert "failed, and archived nothing" in data.skip_message
    assert data.cursor == "{}"
    with monkeypatch.context() as later:
        later.setattr(sensors, "IN_VAIN_AGAIN_S", 0.0)
        assert run_what_is_asked_for() == [False]
        (request,) = tick(defs, instance).run_requests
    assert not tick(defs, instance).run_requests
    store.refuses = False
    if not follow_s:  # else it would stay until another one is ready
        assert [run.success for run in launch(defs, instance, [request])] == [True]
        fill(world.cluster, seed=1)
        assert tick(defs, instance).run_requests


@pytest.mark.parametrize("tags", [{}, {IN_VAIN: "the run that this one does again"}])
def test_runs_that_died_or_archived_something_are_no_reason_to_wait(
    world: World, instance: dg.DagsterInstance, tags: dict[str, str]
) -> None:
    defs = definitions(world, pacing=SHARED)
    for _ in range(3):
        (request,) = tick(defs, instance).run_requests
        run = live_run(defs, instance, "archive_quiet_topics", tags={**request.tags, **tags})
        instance.report_run_failed(run)
    assert tick(defs, instance).run_requests


class FirstRefusing(RefusingStore):
    """A store that does not answer at all before a step is tried again, and then refuses ``QUIET``."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        super().__init__()
        self._instance = instance

    def create(self, objects: Sequence[NewObject]) -> Sequence[Created]:
        """Take them, or none."""
        (run,) = self._instance.get_runs()
        if not self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY):
            raise UnavailableError("The store does not answer.")
        self.topic = QUIET
        return super().create(objects)


def test_a_run_that_archived_something_at_a_later_try_was_not_in_vain(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_topics, "_retry_policy", dg.RetryPolicy(max_retries=1))
    world.store = FirstRefusing(instance)
    run = run_shared(definitions(world), instance, raise_on_error=False)
    assert not run.success
    assert world.catalog.coverage([BUSY])
    (kept,) = instance.get_runs()
    assert not kept.tags[IN_VAIN]


def test_where_dagsters_storage_takes_no_tag_a_run_still_says_why_it_failed(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run_id: str, new_tags: dict[str, str]) -> None:
        raise OSError("Dagster's storage refuses.")

    world.store = RefusingStore()
    monkeypatch.setattr(instance, "add_run_tags", refuse)
    run = run_shared(definitions(world), instance, raise_on_error=False)
    (failure,) = (event for event in run.all_events if event.is_step_failure)
    assert "The store refuses." in str(failure.event_specific_data)
    assert "Dagster's storage" not in str(failure.event_specific_data)


def test_what_is_in_the_way_is_told_also_while_runs_are_in_vain(
    world: World, instance: dg.DagsterInstance
) -> None:
    world.store = RefusingStore()
    world.cluster.create_topic("shut")
    world.cluster.deny("shut")
    defs = definitions(world, pacing=SHARED)
    for _ in range(2):
        run_shared(defs, instance, raise_on_error=False)
    said = tick(defs, instance).skip_message
    assert "failed, and archived nothing" in said
    assert "In the way, some since 20" in said
    assert said.endswith("shut (not_readable).")


def test_a_busy_topic_whose_run_failed_in_vain_gets_the_next_one_later_and_the_others_do_not_wait(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RefusingStore()
    store.topic = BUSY
    world.store = store
    defs = definitions(world, pacing=replace(AT_ONCE, busy_messages=1))
    data = tick(defs, instance)
    assert asked(data) == {"own": [BUSY, QUIET], "shared": []}
    runs = launch(defs, instance, data.run_requests, raise_on_error=False)
    assert [run.success for run in runs] == [False, True]
    data = tick(defs, instance)
    assert not data.run_requests
    assert "asked for again within 60 s: alerts.busy." in data.skip_message
    assert "alerts.busy: 60" not in data.skip_message
    world.cluster.append(QUIET, b"new")
    assert asked(tick(defs, instance)) == {"own": [QUIET], "shared": []}
    follow = definitions(world, pacing=replace(FOLLOW, busy_messages=1))
    assert asked(tick(follow, instance)) == {"own": [QUIET], "shared": []}
    monkeypatch.setattr(sensors, "IN_VAIN_AGAIN_S", 0.0)
    assert BUSY in asked(tick(defs, instance))["own"]


def test_a_busy_topics_run_that_committed_a_unit_and_then_failed_is_no_reason_to_wait(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "UNIT_MESSAGES", 10)
    world.store = store = RefusingStore()
    store.refuses = False
    create = store.create

    def create_some(objects: Sequence[NewObject]) -> Sequence[Created]:
        store.refuses = bool(world.catalog.coverage())
        return create(objects)

    monkeypatch.setattr(store, "create", create_some)
    defs = definitions(world, pacing=replace(AT_ONCE, busy_messages=1))
    own = next(r for r in tick(defs, instance).run_requests if r.partition_key == BUSY)
    (run,) = launch(defs, instance, [own], raise_on_error=False)
    assert not run.success
    (kept,) = instance.get_runs()
    assert kept.tags[IN_VAIN] == run.run_id
    assert BUSY in asked(tick(defs, instance))["own"]


# --- following

FOLLOW = Pacing(enough_messages=1, longest_wait_s=0.0, busy_messages=50, follow_s=2.0)


def test_a_follower_has_all_topics_but_the_busy_one_that_gets_a_run(
    world: World, instance: dg.DagsterInstance
) -> None:
    world.cluster.create_topic("idle")
    data = tick(definitions(world, pacing=FOLLOW), instance)
    assert asked(data) == {"own": [BUSY], "shared": [QUIET, "idle"]}
    (follower,) = (r for r in data.run_requests if not r.partition_key)
    assert follower.run_config["ops"]["archive_topics"]["config"] == {
        "topics": [QUIET, "idle"],
        "follow_s": 2.0,
    }
    assert follower.tags[FOLLOWING] == "2 s"


def test_a_follower_is_asked_for_when_nothing_waits(world: World, instance: dg.DagsterInstance) -> None:
    run_shared(definitions(world), instance)
    assert asked(tick(definitions(world, pacing=FOLLOW), instance)) == {"own": [], "shared": [BUSY, QUIET]}


def test_there_is_one_follower_at_a_time_and_new_topics_get_ordinary_runs_meanwhile(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = definitions(world, pacing=FOLLOW)
    tags = {FOLLOWING: "2 s"}
    live_run(defs, instance, "archive_quiet_topics", tags=tags, run_config=shared_config([BUSY, QUIET]))
    assert not tick(defs, instance).run_requests
    world.cluster.create_topic("new")
    world.cluster.append("new", b"1")
    (request,) = tick(defs, instance).run_requests
    assert request.run_config == shared_config_of(["new"])
    assert FOLLOWING not in request.tags


def shared_config_of(topics: list[str]) -> dict[str, Any]:
    return {"ops": {"archive_topics": {"config": {"topics": topics}}}}


# --- one sick topic


@pytest.mark.parametrize("sick", ["lose_leader", "deny"])
def test_a_sick_topic_is_named_with_since_when_and_the_others_are_asked_for(
    world: World, instance: dg.DagsterInstance, sick: str
) -> None:
    getattr(world.cluster, sick)(QUIET)
    defs = definitions(world)
    assert asked(tick(defs, instance, kafka_offsets))["own"] == [BUSY]
    with pytest.raises(HopArchiveError, match="All else is archived"):
        exhausted(catch_up(world.archive()))
    said = tick(defs, instance, kafka_offsets).skip_message
    assert "In the way, some since 20" in said
    assert QUIET in said


def test_what_is_in_the_way_is_told_in_the_log_of_a_tick_that_asks_for_runs(
    world: World, instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    defs = definitions(world)
    assert tick(defs, instance).run_requests
    assert "In the way" not in capsys.readouterr().err
    for number in range(12):
        world.cluster.create_topic(f"shut.{number}")
        world.cluster.deny(f"shut.{number}")
    assert tick(defs, instance).run_requests
    told = capsys.readouterr().err
    assert "In the way, some since 20" in told
    assert "shut.0 (not_readable), shut.1 (not_readable)" in told
    assert "and 2 more" in told


def earlier(data: Any, topic: str, seconds: float) -> str:
    """The cursor of a tick, with a topic that has waited for longer than it had."""
    waiting = Waiting.from_json(data.cursor)
    return replace(waiting, since={**waiting.since, topic: waiting.since[topic] - seconds}).to_json()


def test_what_is_left_undone_is_asked_for_again_after_ten_minutes_and_at_once_when_that_is_settled(
    instance: dg.DagsterInstance,
) -> None:
    world, _ = stubborn_world(QUIET)
    defs = definitions(world, pacing=SHARED)
    assert not run_shared(defs, instance, raise_on_error=False).success
    fill(world.cluster, seed=1)
    data = tick(defs, instance)
    assert asked(data)["shared"] == [BUSY], "the others are not delayed"
    assert asked(tick(defs, instance, cursor=earlier(data, QUIET, 590.0)))["shared"] == [BUSY]
    assert asked(tick(defs, instance, cursor=earlier(data, QUIET, 600.0)))["shared"] == [BUSY, QUIET]
    exhausted(catch_up(world.archive(), [BUSY]))
    said = tick(defs, instance, cursor=data.cursor).skip_message
    assert "Tried again every 10 minutes, for what is in the way: alerts.quiet: " in said
    assert f"{QUIET} (left_undone)" in said
    numbers = [one.number for one in world.catalog.findings()]
    world.catalog.resolve_findings(numbers, "mended", world.archive().now())
    assert asked(tick(defs, instance, cursor=data.cursor))["shared"] == [QUIET]


def test_a_follower_leaves_it_to_the_runs_of_every_ten_minutes(instance: dg.DagsterInstance) -> None:
    world, _ = stubborn_world(QUIET)
    defs = definitions(world, pacing=replace(FOLLOW, busy_messages=1_000_000))
    assert not run_shared(defs, instance, raise_on_error=False).success
    data = tick(defs, instance)
    assert asked(data)["shared"] == [BUSY]
    (follower, other) = tick(defs, instance, cursor=earlier(data, QUIET, 600.0)).run_requests
    assert follower.run_config["ops"]["archive_topics"]["config"] == {"topics": [BUSY], "follow_s": 2.0}
    assert other.run_config == shared_config_of([QUIET])


def test_beside_a_damaged_message_the_other_partitions_are_archived_every_ten_minutes_or_once_they_are_busy(
    instance: dg.DagsterInstance,
) -> None:
    world = World()
    world.cluster.create_topic(SICK, 2)
    publish(world.cluster, SICK)

    @dg.resource
    def archive(_: dg.InitResourceContext) -> Archive:
        return replace(world.archive(), source=Damaged(cluster=world.cluster))

    defs = build_definitions(archive=archive, pacing=replace(AT_ONCE, busy_messages=5))
    assert not run_shared(defs, instance, [SICK], raise_on_error=False).success
    world.cluster.append(SICK, b"new", partition=1)
    data = tick(defs, instance)
    assert asked(data) == {"own": [], "shared": []}
    assert "In the way, some since 20" in data.skip_message
    data = tick(defs, instance, cursor=earlier(data, SICK, 600.0))
    assert asked(data) == {"own": [], "shared": [SICK]}
    launch(defs, instance, data.run_requests, raise_on_error=False)
    assert world.catalog.coverage()[PartitionLog(SICK, 1, 1)].size == 4
    for number in range(5):
        world.cluster.append(SICK, b"many %d" % number, partition=int(number > 0))
    assert asked(tick(defs, instance)) == {"own": [], "shared": []}
    world.cluster.append(SICK, b"enough", partition=1)
    assert asked(tick(defs, instance)) == {"own": [SICK], "shared": []}
