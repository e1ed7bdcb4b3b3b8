"""Who shows no sign of life is ended, and nobody else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.errors import ConfigurationError
from hop_archive.ingest.process_mark import kill_process
from hop_archive.orchestration import run_files, runs
from hop_archive.orchestration.runs import (
    PATIENCE,
    PROCESS,
    SIGNS,
    Watch,
    end_the_dead,
    in_process,
    patience_s,
)
from hop_archive.orchestration.sensors import dead_runs
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.orchestration.helpers import definitions, live_run, log_messages, tick
from hop_archive_tests.stopping import stop_process
from hop_archive_tests.worlds import World

PATIENCE_S = 60.0
EVERY_S = 10.0

CANCELING = dg.DagsterRunStatus.CANCELING
STARTED = dg.DagsterRunStatus.STARTED
STARTING = dg.DagsterRunStatus.STARTING


def ours(run: dg.DagsterRun) -> bool:
    return True


SAYS = {PATIENCE: f"{PATIENCE_S:g}"}
"""What a run says of itself once it has begun."""


def run_of(
    world: World,
    instance: dg.DagsterInstance,
    status: dg.DagsterRunStatus = STARTED,
    job: str = "verify",
    tags: Mapping[str, str] = SAYS,
) -> dg.DagsterRun:
    return live_run(definitions(world), instance, job, status=status, tags=tags)


def looked(
    instance: Any,
    times: Sequence[float],
    *,
    between: Callable[[int], None] = lambda number: None,
    is_ours: Callable[[dg.DagsterRun], bool] = ours,
) -> list[str]:
    """The runs that are ended by looks at these times; the cursor goes from look to look as the sensor's does."""
    cursor = ""
    ended: list[str] = []
    for number, now in enumerate(times):
        watch, gone = end_the_dead(instance, Watch.from_json(cursor), now, PATIENCE_S, is_ours)
        cursor, ended = watch.to_json(), ended + gone
        between(number)
    return ended


def every_ten_seconds(looks: int, start: float = 1e9) -> list[float]:
    return [start + EVERY_S * number for number in range(looks)]


def status_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found
    return found.status


# --- who is ended


@pytest.mark.parametrize("shows", [0, 3], ids=["who never showed a sign", "whose sign stands still"])
@pytest.mark.parametrize("job", ["archive_quiet_topics", "verify", "purge_old_runs"])
def test_a_run_is_failed_that_shows_no_sign_for_a_minute_and_says_why(
    world: World, instance: dg.DagsterInstance, job: str, shows: int
) -> None:
    run = run_of(world, instance, job=job)
    if shows:
        instance.add_dynamic_partitions(SIGNS, [f"{run.run_id}/{shows}"])
    assert not looked(instance, every_ten_seconds(6))
    assert looked(instance, every_ten_seconds(7)) == [run.run_id]
    assert status_of(instance, run) is dg.DagsterRunStatus.FAILURE
    (told,) = [
        e.message for e in instance.all_logs(run.run_id) if e.dagster_event and e.dagster_event.is_failure
    ]
    assert "No sign of life for 60 s: the run's process is gone, or hangs." in told
    assert not instance.get_dynamic_partitions(SIGNS), "the sign of a dead run goes"


def test_a_run_that_was_to_end_anyway_is_canceled(world: World, instance: dg.DagsterInstance) -> None:
    run = run_of(world, instance, CANCELING)
    assert looked(instance, every_ten_seconds(7)) == [run.run_id]
    assert status_of(instance, run) is dg.DagsterRunStatus.CANCELED


def test_a_run_that_shows_signs_is_left_alone(world: World, instance: dg.DagsterInstance) -> None:
    run = run_of(world, instance)

    def beats(number: int) -> None:
        if number % 4 == 0:
            instance.add_dynamic_partitions(SIGNS, [f"{run.run_id}/{number}"])

    assert not looked(instance, every_ten_seconds(40), between=beats)


def test_a_run_that_is_to_start_has_ten_times_as_long_and_a_minute_more_once_it_has(
    world: World, instance: dg.DagsterInstance
) -> None:
    run = run_of(world, instance, STARTING)

    def starts(number: int) -> None:
        if number == 58:
            instance.report_dagster_event(
                dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name), run.run_id
            )

    assert not looked(instance, every_ten_seconds(65), between=starts)
    assert status_of(instance, run) is STARTED
    late = run_of(world, instance, STARTING)
    assert late.run_id in looked(instance, every_ten_seconds(61))


@pytest.mark.parametrize(
    "tags",
    [{}, {PATIENCE: "600"}, {PATIENCE: "as long as it takes"}],
    ids=["of an earlier version", "that says so", "whose tag was edited"],
)
def test_a_run_that_does_not_say_for_how_long_it_may_be_silent_or_says_ten_minutes_has_those(
    world: World, instance: dg.DagsterInstance, tags: Mapping[str, str]
) -> None:
    run = run_of(world, instance, tags=tags)
    assert not looked(instance, every_ten_seconds(60))
    assert looked(instance, every_ten_seconds(61)) == [run.run_id]


def test_no_run_is_ended_sooner_than_the_sensor_would_whatever_it_says(
    world: World, instance: dg.DagsterInstance
) -> None:
    run_of(world, instance, tags={PATIENCE: "1"})
    assert not looked(instance, every_ten_seconds(6))


def test_runs_of_other_code_locations_and_runs_that_wait_are_left_alone(
    world: World, instance: dg.DagsterInstance
) -> None:
    run_of(world, instance)
    assert not looked(instance, every_ten_seconds(20), is_ours=lambda run: False)
    waits = run_of(world, instance, dg.DagsterRunStatus.NOT_STARTED)
    assert waits.run_id not in looked(instance, every_ten_seconds(70))


def test_signs_of_runs_that_are_over_or_forgotten_are_deleted(
    world: World, instance: dg.DagsterInstance
) -> None:
    over, lives = run_of(world, instance), run_of(world, instance)
    instance.add_dynamic_partitions(SIGNS, [f"{over.run_id}/7", f"{lives.run_id}/3", "forgotten/1"])
    instance.report_run_failed(over)
    looked(instance, [1e9])
    assert instance.get_dynamic_partitions(SIGNS) == [f"{lives.run_id}/3"]


def test_the_sensor_looks_with_its_own_clock_and_says_what_it_saw(
    world: World, instance: dg.DagsterInstance
) -> None:
    defs = definitions(world)
    run = run_of(world, instance)
    instance.add_dynamic_partitions(SIGNS, [f"{run.run_id}/1"])
    first = tick(defs, instance, dead_runs)
    assert first.skip_message == "1 run is under way; none is dead."
    seen = Watch.from_json(first.cursor)
    since = {run_id: (what, PATIENCE_S) for run_id, (what, _) in seen.still.items()}
    second = tick(defs, instance, dead_runs, cursor=Watch(seen.at, since).to_json())
    assert second.skip_message == f"Ended for showing no sign of life: {run.run_id}."


# --- what is left of their processes


def hang(marks: Any) -> None:
    marks.put(runs.run_mark())
    threading.Event().wait()


@pytest.fixture
def stopped() -> Iterator[tuple[Any, str]]:
    """A process that was started for a run, as the default launcher does, and is stopped; and what finds it."""
    spawn = multiprocessing.get_context("spawn")
    marks = spawn.Queue()
    process = spawn.Process(target=hang, args=(marks,))
    process.start()
    mark = marks.get(timeout=300)
    assert process.pid
    stop_process(process.pid)
    yield process, mark
    process.kill()
    process.join()


def told_failure(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    logs = instance.all_logs(run.run_id)
    return "".join(e.message for e in logs if e.dagster_event and e.dagster_event.is_failure)


def test_a_process_that_hangs_is_killed_and_those_of_other_machines_and_later_ones_are_not(
    world: World, instance: dg.DagsterInstance, stopped: tuple[Any, str]
) -> None:
    process, mark = stopped
    pid, _, rest = mark.partition(" ")
    started, _, here = rest.partition(" ")
    others = [f"{pid} {started} elsewhere", f"{pid} {int(started) - 1} {here}", f"0 {rest}", f"{pid} {rest} "]
    for other in [*others, "", "-1", "not a pid"]:
        assert not kill_process(other)
    run = run_of(world, instance, tags={**SAYS, PROCESS: mark})
    assert looked(instance, every_ten_seconds(7)) == [run.run_id]
    process.join(timeout=300)
    assert process.exitcode == -signal.SIGKILL
    assert "the run's process hung, and was ended" in told_failure(instance, run)


def test_a_process_that_is_not_a_runs_alone_is_never_noted() -> None:
    assert runs.run_mark() is None


class Launched:
    """An instance whose runs have a launcher that does ``act`` when it is to end one."""

    def __init__(self, instance: dg.DagsterInstance, act: Callable[[dg.DagsterInstance, str], bool]) -> None:
        self._instance = instance
        self._act = act

    @property
    def run_launcher(self) -> Any:
        return self

    def terminate(self, run_id: str) -> bool:
        return self._act(self._instance, run_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)


def cancel(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    assert run
    instance.report_run_canceling(run)
    instance.report_run_canceled(run)
    return True


def cannot(instance: dg.DagsterInstance, run_id: str) -> bool:
    raise PermissionError("jobs.batch is forbidden")


def never_answers(instance: dg.DagsterInstance, run_id: str) -> bool:
    threading.Event().wait()
    return False


@pytest.mark.parametrize("act", [cancel, cannot, never_answers, lambda *_: False])
def test_a_launcher_ends_what_is_left_and_what_it_cannot_do_is_no_error(
    world: World,
    instance: dg.DagsterInstance,
    act: Callable[[dg.DagsterInstance, str], bool],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(runs, "_LAUNCHER_S", 5.0 if act is cancel else 0.1)
    dead = [run_of(world, instance) for _ in range(2)]
    assert set(looked(Launched(instance, act), every_ten_seconds(7))) == {run.run_id for run in dead}
    for run in dead:
        assert status_of(instance, run) is dg.DagsterRunStatus.FAILURE
        assert ("hung, and was ended" in told_failure(instance, run)) is (act is cancel)
    assert ("jobs.batch is forbidden" in caplog.text) is (act is cannot)


def test_a_run_that_ends_by_itself_while_it_is_being_ended_is_as_it_ended(
    world: World, instance: dg.DagsterInstance
) -> None:
    def succeeds(instance: dg.DagsterInstance, run_id: str) -> bool:
        instance.report_dagster_event(
            dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, run.job_name), run_id
        )
        return False

    run = run_of(world, instance)
    assert not looked(Launched(instance, succeeds), every_ten_seconds(7))
    assert status_of(instance, run) is dg.DagsterRunStatus.SUCCESS


def test_the_default_launcher_is_not_asked_for_its_code_server_would_wait_for_a_stopped_process_for_ever(
    world: World, instance: dg.DagsterInstance
) -> None:
    run = run_of(world, instance)
    assert isinstance(instance.run_launcher, dg.DefaultRunLauncher)
    assert looked(instance, every_ten_seconds(7)) == [run.run_id]
    events = [e.dagster_event.event_type for e in instance.all_logs(run.run_id) if e.dagster_event]
    assert dg.DagsterEventType.RUN_CANCELING not in events


# --- whatever the clocks do


@given(st.lists(st.integers(-1_000_000, 1_000_000), min_size=2, max_size=30))
def test_no_leap_of_the_clock_counts_for_more_than_half_of_the_patience(leaps: list[int]) -> None:
    watch, now, counted = Watch(), 1e9, 0.0
    for number, leap in enumerate(leaps):
        now += leap
        watch = Watch.from_json(watch.look({"run": "STARTED 1"}, now, PATIENCE_S).to_json())
        counted += min(max(leap, 0.0), PATIENCE_S / 2) if number else 0.0
        assert watch.still["run"][1] == pytest.approx(counted)


def test_a_daemon_that_was_away_for_an_hour_ends_nothing_at_its_first_look(
    world: World, instance: dg.DagsterInstance
) -> None:
    run = run_of(world, instance)
    before = every_ten_seconds(2)
    assert not looked(instance, [*before, before[-1] + 3600, before[-1] + 3610])
    assert looked(instance, [*before, *every_ten_seconds(7, start=before[-1] + 3600)]) == [run.run_id]


# --- signs


def test_signs_are_shown_while_a_run_works_and_gone_afterwards(instance: dg.DagsterInstance) -> None:
    seen: set[str] = set()

    def has_changed() -> bool:
        seen.update(instance.get_dynamic_partitions(SIGNS))
        return len(seen) > 2

    with runs.signs_of_life(instance, "a-run", every_s=0.01):
        wait_for(has_changed, "the sign changes")
    assert not instance.get_dynamic_partitions(SIGNS)


class Deaf:
    """A storage that does not answer the first times."""

    def __init__(self, instance: dg.DagsterInstance, failures: int) -> None:
        self._instance = instance
        self._left = failures

    def add_dynamic_partitions(self, name: str, keys: list[str]) -> None:
        self._left -= 1
        if self._left >= 0:
            raise OSError("no answer")
        self._instance.add_dynamic_partitions(name, keys)

    def delete_dynamic_partition(self, name: str, key: str) -> None:
        self._instance.delete_dynamic_partition(name, key)


def test_a_storage_that_does_not_answer_for_a_while_stops_nothing(
    instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    with runs.signs_of_life(Deaf(instance, 2), "a-run", every_s=0.01):  # type: ignore[arg-type]
        wait_for(lambda: instance.get_dynamic_partitions(SIGNS), "a sign is shown in the end")
    assert "A sign of life of run a-run could not be shown" in caplog.text
    assert not instance.get_dynamic_partitions(SIGNS)


def test_how_long_to_wait_is_said_by_the_environment() -> None:
    assert patience_s({}) == 60
    assert patience_s({"HOP_ARCHIVE_SIGN_OF_LIFE_S": "300"}) == 300
    for text in ("soon", "0", "-60", "nan", "inf", "0.5"):
        with pytest.raises(ConfigurationError, match="HOP_ARCHIVE_SIGN_OF_LIFE_S has to be a number, 1 or"):
            patience_s({"HOP_ARCHIVE_SIGN_OF_LIFE_S": text})


@dg.op
def looks_at_itself() -> None:
    context = dg.OpExecutionContext.get()
    run = context.instance.get_run_by_id(context.run_id)
    assert run
    context.log.info(f"says {run.tags.get(PATIENCE)}")


@dg.job(executor_def=in_process)
def one_step() -> None:
    looks_at_itself()


def executed(instance: dg.DagsterInstance) -> dg.JobExecutionResult:
    return dg.execute_job(dg.reconstructable(one_step), instance, raise_on_error=False)


def test_a_run_says_for_how_long_it_may_be_silent_before_its_first_step(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOP_ARCHIVE_SIGN_OF_LIFE_S", "90")
    with executed(instance) as result:
        assert result.success
        assert "says 90" in log_messages(instance, result.run_id)


def test_a_misspelt_time_is_told_by_the_run_and_by_the_sensor(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOP_ARCHIVE_SIGN_OF_LIFE_S", "a minute")
    said = "HOP_ARCHIVE_SIGN_OF_LIFE_S has to be a number, 1 or greater; found 'a minute'. Set it to one"
    with executed(instance) as result:
        (failed,) = [e for e in result.all_events if e.is_job_failure and e.job_failure_data.error]
        error = failed.job_failure_data.error
        assert error
        assert error.cls_name == "Failure"
        assert said in error.message
    with pytest.raises(dg.Failure, match=said):
        tick(definitions(world), instance, dead_runs)


# --- what runs hand over


def test_files_of_a_run_that_is_not_over_are_never_swept_and_those_of_others_are(
    world: World, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_files, "root", lambda: tmp_path / "runs")
    own, follows, killed = (run_of(world, instance, job="archive_quiet_topics") for _ in range(3))
    instance.report_run_failed(killed)
    days_ago = time.time() - 3 * 24 * 3600
    for name in (
        own.run_id,
        follows.run_id,
        killed.run_id,
        "of another instance",
        "a working one of another",
    ):
        (tmp_path / "runs" / name).mkdir(parents=True)
        os.utime(tmp_path / "runs" / name, (days_ago, days_ago))
    run_files.keep("a working one of another")
    run_files.discard(instance, own.run_id, [follows.run_id])
    left = {path.name for path in (tmp_path / "runs").iterdir()}
    assert left == {follows.run_id, "a working one of another"}
