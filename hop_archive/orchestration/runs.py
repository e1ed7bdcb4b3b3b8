"""Runs: their tags, how jobs and schedules are made, how runs show that they live, and what becomes of them.

Dagster's default launcher leaves it to the code server to notice that a run's process died. Where both died, nothing
did: the run stayed *Started* for ever and held its topics and its place in the queue. So each run changes a sign in
Dagster's storage while it works, whoever launched it, and the sensor ``dead_runs`` ends those whose sign stood still,
and what is left of their processes.

A sign is a key ``RUN_ID/NUMBER`` of a dynamic partition that no asset has: of Dagster's public storage that is what can
be added and deleted from any process, on SQLite and on Postgres, and leaves no event behind.

Old runs go, with their events and logs of events; Dagster's own retention knows ticks only. What says how far each
topic is stays: the run of the newest materialization of each partition of each asset.
"""

import datetime
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeAlias

import dagster as dg
from pydantic import Field

from hop_archive.ingest.process_mark import kill_process, process_mark
from hop_archive.orchestration import run_files
from hop_archive.orchestration.pacing import number
from hop_archive.orchestration.resources import as_failures
from hop_archive.orchestration.succession import TAKES_OVER

log = logging.getLogger(__name__)

UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
"""Statuses of runs that somebody works on, or should."""

LIVE = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, *UNDER_WAY]
"""Statuses of runs that are not over."""

FOLLOWING = "hop_archive/following"
"""Tag of a run that stays to archive what arrives; its value says for how long."""

SOURCE = "hop_archive/source"
"""Tag of each of the sensor's runs: the source stanza. The queue limits how many read from one source at once."""

UPKEEP = "hop_archive/upkeep"
"""Tag of each job that does not archive; the queue limits each of its values, so that none of them takes all slots."""

SHORT, LONG, ASKED = "short", "long", "asked"
"""Values of ``UPKEEP``: done in minutes, and wanted often; for hours, by schedule; when a person wants it."""

PATIENCE = "dagster/hop_archive.sign_of_life_s"
"""Tag that a run gives itself when it begins to show signs of life: after so many seconds without one it is dead."""

PROCESS = "dagster/hop_archive.process"
"""Tag that a run gives itself, where it has a process to itself: what finds that again (``run_mark``).

Of tags that begin like Dagster's own the list of runs shows none in a row: these are for machines. *View all tags* does."""

ARCHIVED = "messages"
"""Tag that a run that archives gives itself: how many messages of how many topics. Its row in the list of runs shows some 30 letters."""

IN_VAIN = "dagster/hop_archive.in_vain"
"""Tag that a run that archives gives itself where a server did not answer, or refused; its value is the run's own id.

Of several topics, only where nothing was archived: it is taken back, with an empty value, where a later try of the step does more."""

_PRIORITY = "dagster/priority"
_MAX_RUNTIME = "dagster/max_runtime"
_MAX_RETRIES = "dagster/max_retries"
_PRIORITIES = {SHORT: 5, LONG: -10, ASKED: 0}
"""Below those of live runs. What people and backfills start from an asset's page has 0."""

_LONGEST_S = {SHORT: 6 * 3600, LONG: 3 * 24 * 3600}
_LIVE_LONGEST_S = 12 * 3600
"""After so long a run hangs, though it shows signs of life: its slot is worth more. What a person starts may take longer."""

_PREFIX = "topic/"
_LONGEST = 63
"""Dagster takes tag names of up to 63 characters after the slash; Kafka topic names may have 249."""


def tag_key(topic: str) -> str:
    """The tag key of a topic; long names are cut and told apart by a hash."""
    if len(topic) <= _LONGEST:
        return f"{_PREFIX}{topic}"
    return f"{_PREFIX}{topic[: _LONGEST - 9]}-{hashlib.blake2b(topic.encode(), digest_size=4).hexdigest()}"


def topic_tag(topic: str) -> dict[str, str]:
    """The tag by which a run that archives one topic alone is found in the UI.

    A shared run has its topics in its configuration and its report, once: with a tag for each, 500 topics were a row of the
    list of runs that filled the screen many times.
    """
    return {tag_key(topic): "own"}


def upkeep_tags(kind: str) -> dict[str, str]:
    """The tags of a job that does not archive: ``SHORT``, ``LONG`` or ``ASKED``."""
    return {UPKEEP: kind, _PRIORITY: str(_PRIORITIES[kind])}


def live_tags(
    source: str, *, topic: str | None = None, follow_s: float = 0.0, takes_over: Collection[str] = ()
) -> dict[str, str]:
    """The tags of a run by which the sensor archives of ``source``: it comes before all others.

    One of several topics, that is without ``topic``, comes first: it is small, or stays for as long as it follows, and a
    queue of busy topics is not to hold up the quiet ones. One that follows is not tried again by Dagster: the sensor asks
    for another one within seconds, and two would be in each other's way.
    """
    follows = {FOLLOWING: f"{follow_s:g} s", _MAX_RETRIES: "0"} if follow_s else {}
    return {
        SOURCE: source,
        _PRIORITY: "10" if topic is not None else "20",
        _MAX_RUNTIME: str(int(follow_s) + _LIVE_LONGEST_S),
        **follows,
        **({TAKES_OVER: ",".join(sorted(takes_over))} if takes_over else {}),
        **(topic_tag(topic) if topic is not None else {}),
    }


def topics_of_run(
    tags: Mapping[str, str], run_config: Mapping[str, Any], known: Collection[str]
) -> frozenset[str]:
    """Those of the ``known`` topics that a run archives, whoever started it.

    A run of one topic names it by its partition, one of several by its configuration; by a tag each, too, where an earlier
    version asked for it.
    """
    configured = ((op or {}).get("config") or {} for op in (run_config.get("ops") or {}).values())
    named = {
        tags.get("dagster/partition"),
        *(topic for config in configured for topic in config.get("topics") or ()),
    }
    return frozenset(topic for topic in known if topic in named or tag_key(topic) in tags)


_Job: TypeAlias = Any  # what define_asset_job returns has no public name (1.13)


def upkeep_job(
    name: str,
    kind: str,
    selection: dg.AssetsDefinition | dg.AssetSelection,
    description: str,
    config: dg.ConfigMapping | None = None,
) -> _Job:
    """A job that does not archive, with the tags of its ``kind``; its executor is that of the definitions."""
    if isinstance(selection, dg.AssetsDefinition):
        selection = dg.AssetSelection.assets(selection)
    return dg.define_asset_job(
        name, selection=selection, tags=upkeep_tags(kind), description=description, config=config
    )


def only_fields(node: str, config: type[dg.Config]) -> dg.ConfigMapping:
    """The whole run configuration of a job of one node: its launchpad shows these fields, and requires those without a default.

    Which stanzas it works on is then the environment's alone.
    """
    return dg.ConfigMapping(
        config_fn=lambda given: {"ops": {node: {"config": given}}}, config_schema=config.to_fields_dict()
    )


def schedule(name: str, job: _Job, cron: str, description: str) -> dg.ScheduleDefinition:
    """A schedule that is on, in UTC. Its runs are ended after hours or days, by the job's kind; a person's take as long as they do."""
    return dg.ScheduleDefinition(
        name=name,
        job=job,
        tags=scheduled_tags(job),
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )


def scheduled_tags(job: _Job) -> dict[str, str]:
    """The tags of a run that a schedule starts."""
    return {_MAX_RUNTIME: str(_LONGEST_S[job.tags[UPKEEP]])}


MOST_SHOWN = 100
"""Rows of a table in a run's metadata."""


def table(name: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, dg.MetadataValue]:
    """Metadata with the first rows as a table of that name; without any, nothing: Dagster takes no empty table."""
    records = [dg.TableRecord({**row}) for row in itertools.islice(rows, MOST_SHOWN)]
    return {name: dg.MetadataValue.table(records)} if records else {}


class Home(NamedTuple):
    """Where the jobs are that links lead to: in which code location, and repository of it."""

    location: str
    repository: str

    @classmethod
    def of(cls, run: dg.DagsterRun) -> Self | None:
        """That of a run's job; None where it has none, as in tests."""
        origin = run.remote_job_origin
        return cls(origin.location_name, origin.repository_origin.repository_name) if origin else None


def job_link(home: Home | None, job: str, label: str = "mended_by") -> dict[str, dg.MetadataValue]:
    """Metadata that links to a job; none where it is not known where that is."""
    if home is None:
        return {}
    return {label: dg.MetadataValue.job(job, home.location, repository_name=home.repository)}


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


def run_mark() -> str | None:
    """The mark of this process, where it is a run's alone; None where it is not, or the system does not tell.

    Dagster's default launcher starts a process for each run. Other launchers start a pod or a task, which they can end
    themselves, and whoever executes a run in a notebook wants to keep that.
    """
    return process_mark() if multiprocessing.parent_process() else None


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
            run_files.keep(run_id)
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
        instance, run_id = plan_context.instance, plan_context.run_id
        with as_failures():
            patience = patience_s()
        # Not from the thread that shows signs: a tag that is added while Dagster notes a status may be lost.
        mark = run_mark()
        try:
            instance.add_run_tags(run_id, {PATIENCE: f"{patience:g}", **({PROCESS: mark} if mark else {})})
        except Exception:  # as with signs
            log.warning("Run %s could not say how long it may show no sign of life", run_id, exc_info=True)
        with signs_of_life(instance, run_id, patience / _BEATS):
            yield from self._executor.execute(plan_context, execution_plan)


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

    def look(self, runs: Mapping[str, str], now: float, patience_s: float) -> "Watch":
        """Look again at what each run shows that is not over; of the time since the last look half of ``patience_s`` counts."""
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

    A run may show the same for ``patience_s``, or longer, where it says so itself; ten times that before it has begun, and
    where it says nothing. ``is_ours`` tells whether a run that has shown no sign so far ought to have.

    Returns:
        What is seen now, and the ids of the runs that were ended.
    """
    signs: dict[str, int] = {}
    # Before the runs: one that has a sign, and is not among them, is over.
    for key in instance.get_dynamic_partitions(SIGNS):
        run_id, _, beat = key.rpartition("/")
        signs[run_id] = max(signs.get(run_id, 0), int(beat))
    runs = {
        run.run_id: run
        for run in instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY))
        if run.run_id in signs or is_ours(run)
    }
    showing = {run_id: f"{run.status.value} {signs.get(run_id, 0)}" for run_id, run in runs.items()}
    seen = watch.look(showing, now, patience_s)
    dead = []
    for run_id, run in runs.items():
        if seen.still[run_id][1] >= _patience_with(run, patience_s):
            again = instance.get_run_by_id(run_id)
            if again is not None and again.status is run.status:  # nothing became of it since
                dead.append(run)
    stopped = _stop(instance, dead)
    ended = [
        run.run_id
        for run in dead
        if _report(instance, run, seen.still[run.run_id][1], hung=run.run_id in stopped)
    ]
    gone = {*signs} - {*runs} | {*ended}
    for key in instance.get_dynamic_partitions(SIGNS) if gone else ():
        if key.rpartition("/")[0] in gone:
            instance.delete_dynamic_partition(SIGNS, key)
    return seen, ended


def _patience_with(run: dg.DagsterRun, patience_s: float) -> float:
    if run.status is dg.DagsterRunStatus.STARTING:
        return patience_s * _STARTING_IS_SLOWER
    try:
        return max(patience_s, float(run.tags[PATIENCE]))
    except (KeyError, ValueError):  # people can edit tags
        return patience_s * (_UNTAGGED_IS_SLOWER if run.status is dg.DagsterRunStatus.STARTED else 1)


def _stop(instance: dg.DagsterInstance, dead: Sequence[dg.DagsterRun]) -> set[str]:
    """End what is left of the runs' processes, as far as that can be done from here; of which runs something was left."""
    stopped = {run.run_id for run in dead if kill_process(run.tags.get(PROCESS, ""))}
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


OVER = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_AT_ONCE = 500


def newest_materializations(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Collection[str] | None = None
) -> Iterator[dg.EventLogRecord]:
    """The newest materialization of each partition, of these or of all, that has one."""
    if partitions is not None and not partitions:
        return
    ids = sorted(
        instance.get_latest_storage_id_by_partition(
            asset, dg.DagsterEventType.ASSET_MATERIALIZATION, None if partitions is None else {*partitions}
        ).values()
    )
    for start in range(0, len(ids), _AT_ONCE):
        filters = dg.AssetRecordsFilter(asset, storage_ids=ids[start : start + _AT_ONCE])
        yield from instance.fetch_materializations(filters, limit=_AT_ONCE).records


class PurgeConfig(dg.Config):
    """Which runs to delete."""

    older_than_days: float = Field(
        default=90.0, ge=0, description="Only runs that were created longer ago than this and are over."
    )
    at_most: int = Field(default=50_000, ge=1, description="So many in one run, the oldest first.")


@dg.op(retry_policy=dg.RetryPolicy(max_retries=2, delay=30))
def delete_old_runs(context: dg.OpExecutionContext, config: PurgeConfig) -> None:
    """Delete old runs from Dagster's storage; the archive's own records are not touched. Again: goes on."""
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=config.older_than_days)
    kept: set[str] = set()
    for key in context.instance.all_asset_keys():
        newest = context.instance.get_latest_materialization_event(
            key
        )  # of an asset that has no partitions, too
        kept |= {newest.run_id} if newest else set()
        kept |= {record.run_id for record in newest_materializations(context.instance, key)}
    filters = dg.RunsFilter(statuses=OVER, created_before=before)
    old = [run_id for run_id in context.instance.get_run_ids(filters) if run_id not in kept]
    chosen = old[::-1][: config.at_most]
    for run_id in chosen:
        context.instance.delete_run(run_id)
    context.log.info(f"Deleted {len(chosen)} of {len(old)} runs from before {before:%Y-%m-%d %H:%M} UTC")
    context.add_output_metadata({"deleted": len(chosen), "left_for_the_next_time": len(old) - len(chosen)})


@dg.job(
    tags=upkeep_tags(SHORT),
    description="Deletes old runs from Dagster's storage, so that it does not grow for ever.",
)
def purge_old_runs() -> None:
    """One step."""
    delete_old_runs()


purge_daily = schedule(
    "purge_daily",
    purge_old_runs,
    "47 11 * * *",
    "Deletes old runs once a day, at a quiet hour for American observatories (UTC).",
)
