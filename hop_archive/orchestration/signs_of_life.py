"""Signs of life: what a run that works shows every few seconds, and who is dead because he shows none.

Dagster's default launcher leaves it to the code server to notice that a run's process died. Where both died, nothing
did: the run stayed *Started* for ever and held its topics and its place in the queue. So each run changes a sign in
Dagster's storage while it works, whoever launched it, and the sensor ``dead_runs`` ends those whose sign stood still,
and what is left of their processes.

A sign is a key ``RUN_ID/NUMBER`` of a dynamic partition that no asset has: of Dagster's public storage that is what can
be added and deleted from any process, on SQLite and on Postgres, and leaves no event behind.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import dagster as dg

from hop_archive.orchestration import hand_over, run_process
from hop_archive.orchestration.failures import told
from hop_archive.orchestration.pacing import number
from hop_archive.orchestration.tags import PATIENCE, PROCESS

log = logging.getLogger(__name__)

SIGNS = "hop_archive/signs_of_life"
"""Name of the dynamic partitions that are no partitions but signs."""

PATIENCE_VARIABLE = "HOP_ARCHIVE_SIGN_OF_LIFE_S"
_PATIENCE_S = 60.0
_BEATS = 6
"""So many signs in the time after which a run without one is dead: some may fail, or be late on a busy machine.

The archive's own work holds up a thread for 0.03 s at most (30,000 messages of 1 kB, 20 of 5 MB; 2026-11-28, 2 busy cores)."""

_LAST_S = 10.0
"""How long a run that has ended waits for its last sign to go; dead_runs deletes it otherwise."""

_STARTING_IS_SLOWER = 10
"""So many times as long may a run take that has not begun: a pod waits for its node and its image."""

_UNTAGGED_IS_SLOWER = 10
"""So many times as long may a run take that does not say how long: it is of a version that shows no signs, or cannot say."""

_LAUNCHER_S = 10.0
"""How long a launcher may take to end what is left of all dead runs of one look. A tick of a sensor has 60 s."""


def patience_s(environ: Mapping[str, str] = os.environ) -> float:
    """How long a run may show no sign of life, in seconds.

    Raises:
        ConfigurationError: The variable ``HOP_ARCHIVE_SIGN_OF_LIFE_S`` is no number, or less than 1.
    """
    text = environ.get(PATIENCE_VARIABLE)
    return number(text, PATIENCE_VARIABLE, least=1) if text else _PATIENCE_S


_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
"""Statuses of runs that somebody works on, or should."""


@contextmanager
def signs_of_life(instance: dg.DagsterInstance, run_id: str, every_s: float) -> Iterator[None]:
    """Show signs of life from a thread while the block runs; with its end they are gone.

    A storage that does not answer stops nothing: the next sign is tried in its time.
    """
    over = threading.Event()
    thread = threading.Thread(
        target=_show, args=(instance, run_id, every_s, over), daemon=True, name="signs-of-life"
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LAST_S)


def _show(instance: dg.DagsterInstance, run_id: str, every_s: float, over: threading.Event) -> None:
    shown: list[str] = []
    for beat in itertools.count(1):
        try:
            instance.add_dynamic_partitions(SIGNS, [f"{run_id}/{beat}"])
            _delete(instance, shown)
            shown.append(f"{run_id}/{beat}")
            hand_over.keep(run_id)
        except Exception:  # whatever a storage raises; the run itself has more to say about it
            log.warning("A sign of life of run %s could not be shown", run_id, exc_info=True)
        if over.wait(every_s):
            break
    try:
        _delete(instance, shown)
    except Exception:  # dead_runs deletes what is left of runs that are over
        log.warning("The sign of life of run %s could not be deleted", run_id, exc_info=True)


def _delete(instance: dg.DagsterInstance, shown: list[str]) -> None:
    while shown:
        instance.delete_dynamic_partition(SIGNS, shown[0])
        del shown[0]


class _Alive(dg.Executor):
    """Another executor, showing signs of life while it executes."""

    def __init__(self, executor: dg.Executor) -> None:
        self._executor = executor

    @property
    def retries(self) -> Any:
        return self._executor.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._executor.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        with told():
            patience = patience_s()
        _say_who(plan_context.instance, plan_context.run_id, patience)
        with signs_of_life(plan_context.instance, plan_context.run_id, patience / _BEATS):
            yield from self._executor.execute(plan_context, execution_plan)


def _say_who(instance: dg.DagsterInstance, run_id: str, patience_s: float) -> None:
    # Not from the thread that shows signs: a tag that is added while Dagster notes a status may be lost.
    mark = run_process.own_mark()
    try:
        instance.add_run_tags(run_id, {PATIENCE: f"{patience_s:g}", **({PROCESS: mark} if mark else {})})
    except Exception:  # as with signs
        log.warning("Run %s could not say how long it may show no sign of life", run_id, exc_info=True)


def _alive(context: dg.InitExecutorContext) -> dg.Executor:
    create = dg.in_process_executor.executor_creation_fn
    assert create is not None
    return _Alive(create(context))


in_process = dg.ExecutorDefinition(
    name="in_process",
    config_schema=dg.in_process_executor.config_schema,  # type: ignore[arg-type]  # it takes its own kind (1.13)
    executor_creation_fn=_alive,
    description="All steps of a run in one process, which shows signs of life.",
)
"""The executor of every job. A process for each step would cost seconds each, and several times the memory."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What was seen of runs that are not over, from look to look. Pure.

    Only the time between looks counts, by the looker's own clock, and of a longer pause only so much as could
    have been missed between two: neither a clock that is set nor a daemon that was away makes a living run look dead.

    Attributes:
        at: When the last look was, in seconds since 1970.
        still: By run: what it showed, and for how many seconds it has shown just that.
    """

    at: float = 0.0
    still: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What ``to_json`` wrote; a first look where that is empty."""
        kept = json.loads(text or "{}")
        return cls(kept.get("at", 0.0), {run: (what, s) for run, (what, s) in kept.get("still", {}).items()})

    def to_json(self) -> str:
        """For the next look."""
        return json.dumps({"at": self.at, "still": {run: list(seen) for run, seen in self.still.items()}})

    def look(self, runs: Mapping[str, str], now: float, patience_s: float) -> Watch:
        """Look again.

        Args:
            runs: What each run shows that is not over.
            now: Seconds since 1970.
            patience_s: What counts of the time since the last look is half of this at most.
        """
        passed = min(max(now - self.at, 0.0), patience_s / 2)
        before = {run: self.still.get(run) or (None, 0.0) for run in runs}
        return Watch(
            now,
            {
                run: (what, before[run][1] + passed if what == before[run][0] else 0.0)
                for run, what in runs.items()
            },
        )


def end_the_dead(
    instance: dg.DagsterInstance,
    watch: Watch,
    now: float,
    patience_s: float,
    is_ours: Callable[[dg.DagsterRun], bool],
) -> tuple[Watch, list[str]]:
    """Look once at the runs that are under way; end those that have shown the same for too long, and their processes.

    A process that is on this machine is killed; others are left to the launcher, for ten seconds, and whatever it cannot
    do is logged. One that goes on all the same can do no harm: the ledger refuses what others did meanwhile.

    Args:
        instance: Where the runs and their signs are.
        watch: What was seen up to now.
        now: Seconds since 1970.
        patience_s: How long a run may show the same, or longer, where it says so itself; ten times that before it
            has begun, and where it says nothing.
        is_ours: Whether a run that has shown no sign so far ought to have.

    Returns:
        What is seen now, and the ids of the runs that were ended.
    """
    signs = _newest_signs(instance)  # before the runs: one that has a sign, and is not among them, is over
    runs = {
        run.run_id: run
        for run in instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY))
        if run.run_id in signs or is_ours(run)
    }
    showing = {run_id: f"{run.status.value} {signs.get(run_id, 0)}" for run_id, run in runs.items()}
    seen = watch.look(showing, now, patience_s)
    dead = [
        run
        for run_id, run in runs.items()
        if seen.still[run_id][1] >= _patience_with(run, patience_s) and _is_still(instance, run)
    ]
    stopped = _stop(instance, dead)
    ended = [
        run.run_id
        for run in dead
        if _report(instance, run, seen.still[run.run_id][1], hung=run.run_id in stopped)
    ]
    _forget(instance, {*signs} - {*runs} | {*ended})
    return seen, ended


def _patience_with(run: dg.DagsterRun, patience_s: float) -> float:
    if run.status is dg.DagsterRunStatus.STARTING:
        return patience_s * _STARTING_IS_SLOWER
    try:
        return max(patience_s, float(run.tags[PATIENCE]))
    except (KeyError, ValueError):  # people can edit tags
        return patience_s * (_UNTAGGED_IS_SLOWER if run.status is dg.DagsterRunStatus.STARTED else 1)


def _is_still(instance: dg.DagsterInstance, seen: dg.DagsterRun) -> bool:
    """Whether nothing became of a run since it was seen."""
    run = instance.get_run_by_id(seen.run_id)
    return run is not None and run.status is seen.status


def _stop(instance: dg.DagsterInstance, dead: Sequence[dg.DagsterRun]) -> set[str]:
    """End what is left of the runs' processes, as far as that can be done from here.

    Returns:
        The runs of which something was left.
    """
    stopped = {run.run_id for run in dead if run_process.kill(run.tags.get(PROCESS, ""))}
    threads = [
        threading.Thread(target=_ask_launcher, args=(instance, run.run_id, stopped), daemon=True)
        for run in dead
        if run.run_id not in stopped
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _LAUNCHER_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return {*stopped}


def _ask_launcher(instance: dg.DagsterInstance, run_id: str, stopped: set[str]) -> None:
    try:
        # The default launcher asks the code server, which waits for the process to answer, holding the lock without which it
        # starts no run. One that is stopped or dead never does (multiprocessing.Event.set; seen with Dagster 1.13).
        launcher = instance.run_launcher
        if not isinstance(launcher, dg.DefaultRunLauncher) and launcher.terminate(run_id):
            stopped.add(run_id)
    except Exception:  # whatever a launcher raises: it may have nothing to end, or no right to
        log.warning("What is left of run %s could not be ended", run_id, exc_info=True)


def _report(instance: dg.DagsterInstance, seen: dg.DagsterRun, still_s: float, *, hung: bool) -> bool:
    """Report a run as over, unless it ended by itself meanwhile."""
    run = instance.get_run_by_id(seen.run_id)
    canceled, asked = dg.DagsterRunStatus.CANCELED, seen.status is dg.DagsterRunStatus.CANCELING
    # A process that its launcher ends may call itself canceled. Nobody had wanted that: it is a failure, to be tried again.
    by_us = hung and run is not None and run.status is canceled and not asked
    if run is None or (run.is_finished and not by_us):
        return False
    message = (
        f"No sign of life for {still_s:.0f} s: the run's process {'hung, and was ended' if hung else 'is gone, or hangs'}. "
        f"What it committed stays; the rest is done by a later run.{'' if hung else ' Should it wake up, it can do no harm.'}"
    )
    if asked:
        instance.report_run_canceled(run, message)
    else:
        instance.report_run_failed(run, message)
    return True


def _newest_signs(instance: dg.DagsterInstance) -> dict[str, int]:
    newest: dict[str, int] = {}
    for key in instance.get_dynamic_partitions(SIGNS):
        run_id, _, beat = key.rpartition("/")
        newest[run_id] = max(newest.get(run_id, 0), int(beat))
    return newest


def _forget(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> None:
    gone = set(run_ids)
    for key in instance.get_dynamic_partitions(SIGNS) if gone else ():
        if key.rpartition("/")[0] in gone:
            instance.delete_dynamic_partition(SIGNS, key)
