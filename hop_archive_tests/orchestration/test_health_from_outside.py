"""What ``hop-archive watch --dagster`` asks a web page, and what it makes of the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import graphql
from dagster._core.scheduler.instigation import InstigatorType, TickData, TickStatus
from dagster_graphql.schema import create_schema
from dagster_graphql.test.utils import define_out_of_process_context, execute_dagster_graphql
from dagster_shared.error import SerializableErrorInfo

from hop_archive.upkeep.monitoring.dagster_health import _QUERY, judged

NOW_S = 1_000_000.0


def daemon(
    name: str = "SENSOR", *, healthy: bool = True, required: bool = True, beat: float | None = NOW_S - 7_200
) -> dict[str, Any]:
    return {"daemonType": name, "required": required, "healthy": healthy, "lastHeartbeatTime": beat}


def sensor(name: str, switch: str = "RUNNING", **tick: Any) -> dict[str, Any]:
    state = {
        "status": switch,
        "ticks": [{"timestamp": NOW_S - 10, "status": "SKIPPED", "error": None, **tick}]
        if tick != {"no": 1}
        else [],
    }
    return {"name": name, "minIntervalSeconds": 30, "sensorState": state}


def answer(
    *daemons: dict[str, Any], sensors: tuple[dict[str, Any], ...] = (), error: str = ""
) -> dict[str, Any]:
    loaded = {"message": error} if error else {"repositories": [{"sensors": list(sensors)}]}
    entries = [{"name": "hop_archive", "loadStatus": "LOADED", "locationOrLoadError": loaded}]
    return {
        "instance": {"daemonHealth": {"allDaemonStatuses": list(daemons)}},
        "workspaceOrError": {"locationEntries": entries},
    }


def told(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(problem.place, problem.what) for problem in judged(found, NOW_S)]


def test_dagsters_page_knows_all_that_is_asked() -> None:
    schema = create_schema().graphql_schema
    assert graphql.validate(schema, graphql.parse(_QUERY)) == []


def test_what_is_well_is_no_problem_nor_is_what_nobody_needs_or_turned_off() -> None:
    off = sensor("off", "STOPPED", timestamp=0)
    assert (
        told(answer(daemon(), daemon("ASSET", healthy=False, required=False), sensors=(sensor("on"), off)))
        == []
    )


def test_a_daemon_that_does_not_beat_is_named_with_since_when() -> None:
    assert told(answer(daemon(healthy=False), daemon("SCHEDULER", healthy=False, beat=None))) == [
        ("daemon SENSOR", "it does not run, or only fails: its last sign of life was 2 h 0 min ago."),
        ("daemon SCHEDULER", "it does not run, or only fails: it never gave a sign of life."),
    ]


def test_a_sensor_that_ticks_no_more_or_only_fails_is_named() -> None:
    failed: dict[str, Any] = {
        "status": "FAILURE",
        "error": {"message": "hop-prod does not answer.\nTraceback …", "causes": []},
    }
    sensors = (sensor("late", timestamp=NOW_S - 601), sensor("never", no=1), sensor("failing", **failed))
    problems = {problem.place: problem for problem in judged(answer(daemon(), sensors=sensors), NOW_S)}
    assert problems["sensor late"].what == "it ticked last 10 min ago."
    assert problems["sensor late"].patience_s == 0
    assert problems["sensor never"].what == "it has never ticked."
    assert problems["sensor failing"].what == "its last tick failed: hop-prod does not answer."
    assert problems["sensor failing"].patience_s > 0  # one that fails once is no news


def test_what_ticked_before_the_clock_was_set_back_is_named_for_it_stands_still() -> None:
    """Dagster waits until the clock shows again what it showed: a look that asks how long ago that was would call it well."""
    sensors = (sensor("ahead", timestamp=NOW_S + 7_000), sensor("on", timestamp=NOW_S + 30))
    found = answer(daemon(beat=NOW_S + 7_000), daemon("ASSET", beat=NOW_S + 30), sensors=sensors)
    problems = {problem.place: problem for problem in judged(found, NOW_S)}
    assert {place: problem.what for place, problem in problems.items()} == {
        "daemon SENSOR": "its last sign of life is 1 h 56 min ahead: the clock was set back, and it may stand still until then.",
        "sensor ahead": "its last tick is 1 h 56 min ahead: the clock was set back, and it does not tick until then.",
    }
    assert all("dagster schedule wipe" in problem.remedy for problem in problems.values())


def test_code_that_cannot_be_loaded_is_named() -> None:
    assert told(answer(daemon(), error="ModuleNotFoundError: confluent_kafka\n  File …")) == [
        ("code location hop_archive", "it cannot be loaded: ModuleNotFoundError: confluent_kafka.")
    ]


@dg.sensor(default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=30)
def beating() -> dg.SkipReason:
    return dg.SkipReason("nothing to do")


@dg.repository
def beaten() -> list[Any]:
    return [beating]


@contextmanager
def web_page(instance: dg.DagsterInstance) -> Iterator[Any]:
    """What answers GraphQL, with the code in a process of its own, which is gone at the end."""
    with define_out_of_process_context(__file__, "beaten", instance) as context:
        yield context
    page: Any = context.process_context
    page._grpc_server_registry.wait_for_processes()


def test_dagster_itself_tells_the_last_ticks_of_a_sensor_that_is_on_by_default(
    instance: dg.DagsterInstance,
) -> None:
    with web_page(instance) as context:
        note_tick(context, instance, TickStatus.SKIPPED)
        found = dict(execute_dagster_graphql(context, _QUERY).data)
    assert [place for place, _ in told(found) if place.startswith("sensor")] == []
    late = [problem.what for problem in judged(found, NOW_S + 3_600) if problem.place == "sensor beating"]
    assert late == ["it ticked last 1 h 0 min ago."]


def test_of_a_tick_that_failed_dagster_itself_tells_the_reason_and_not_that_there_was_one(
    instance: dg.DagsterInstance,
) -> None:
    reason = SerializableErrorInfo(
        f"{dg.Failure.__module__}.Failure: Source here refuses the login. Check the password.\n",
        [],
        "Failure",
    )
    around = SerializableErrorInfo("Error occurred during the execution of beating\n", [], "Error", reason)
    with web_page(instance) as context:
        note_tick(context, instance, TickStatus.FAILURE, around)
        found = dict(execute_dagster_graphql(context, _QUERY).data)
    (failed,) = [what for place, what in told(found) if place == "sensor beating"]
    assert failed == "its last tick failed: Source here refuses the login. Check the password."


def note_tick(
    context: Any, instance: dg.DagsterInstance, status: TickStatus, error: SerializableErrorInfo | None = None
) -> None:
    """Have the sensor ``beating`` ticked a moment ago."""
    (name,) = context.code_location_names
    remote = context.get_code_location(name).get_repository("beaten").get_sensor("beating")
    instance.create_tick(
        TickData(
            remote.get_remote_origin_id(),
            "beating",
            InstigatorType.SENSOR,
            status,
            NOW_S - 20,
            error=error,
            selector_id=remote.selector_id,
        )
    )
