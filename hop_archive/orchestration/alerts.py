"""The sensor that tells people what is wrong: what the archive itself shows, checks that turned red, runs that failed for good.

What it told stands in its cursor, which a restart leaves as it is. It tells nothing where ``HOP_ARCHIVE_ALERT`` names no stanza.
What has stopped altogether, this sensor with it, is what ``hop-archive watch`` is for, or the ``ping_url`` of the stanza.
"""

import base64
import datetime
import json
import logging
import os
import time
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeAlias

import dagster as dg

from hop_archive.archive import Archive
from hop_archive.config.load import select_alerts
from hop_archive.config.open import open_alert
from hop_archive.model.wording import counted, said
from hop_archive.orchestration.archiving import archive_quiet_topics, archive_topic
from hop_archive.orchestration.reports import ARCHIVED_MESSAGES
from hop_archive.orchestration.resources import StanzasResource, as_failures
from hop_archive.upkeep.monitoring.alarm import Alarm, State, look_and_tell
from hop_archive.upkeep.monitoring.telling import Problem, Seen

log = logging.getLogger(__name__)

CHECK, RUN = "asset check", "run failed"

TOLD_BY_THE_LOOK = frozenset(
    {"nothing_lost", "lag_within_bounds", "objects_present", "no_open_findings", "nothing_found"}
)
"""Checks of what every round looks at itself, by topic, and sooner than the checks are evaluated."""

_ARCHIVING = frozenset({archive_topic.name, archive_quiet_topics.name})
_OVER_S = 3_600.0
"""Archiving is tried again every ten minutes: what has not failed for so long is done, by whichever run."""
_MOST_FAILING = 300
"""Jobs and partitions whose failure is kept. Beyond, those that failed last; which of the others are over is not known then."""
_MOST_ENDED = 1_000
_MOST_SAID = 1_000
"""Characters of a check's description, at the end of which is what to do."""
_LONGEST_S = 25.0
"""After so long the other stanzas wait for the next tick: database, source, services and ping_url may take ten seconds each and not
answer. Of a tick that took longer than a minute Dagster keeps no cursor: what it told, it would tell again, and never what has to last."""
_WILL_RETRY = "dagster/will_retry"
"""Tag of a failed run that Dagster begins anew by itself (1.13)."""

Alarms: TypeAlias = Sequence[Alarm]


class AlarmsResource(dg.ConfigurableResource[Alarms]):
    """Who is told: the alert stanzas that HOP_ARCHIVE_ALERT names, with commas between; nobody where it names none."""

    stanzas: StanzasResource

    def create_resource(self, context: dg.InitResourceContext) -> Alarms:
        """The alarms. Nothing is connected, but AWS where a secret has the URLs."""
        with as_failures():
            environ = os.environ
            configuration = self.stanzas.configuration(environ)
            found = []
            for name in select_alerts(configuration, environ=environ):
                stanza = configuration.alert(name).resolved(environ)
                found.append(Alarm.of(name, stanza, *open_alert(name, stanza, environ)))
        return found


class FailedRun(NamedTuple):
    """The last run of a job, and of a partition where it is of one, that failed for good."""

    job: str
    partition: str
    run_id: str
    at_s: float
    why: str

    @property
    def place(self) -> str:
        """Job and partition."""
        return f"{self.job} {self.partition}".rstrip()

    @property
    def problem(self) -> Problem:
        """What to tell."""
        return Problem(
            RUN,
            self.place,
            f"it failed, and is not tried again by itself: {self.why}.",
            "See the run. Archiving is asked for again by its sensor; other jobs are launched again in the UI, once that is mended.",
            f"/runs/{self.run_id}",
        )


@dataclass(frozen=True, slots=True)
class Cursor:
    """What the sensor keeps between ticks.

    Attributes:
        since_s: Up to when failed runs were looked for; 0: never, and those of before are not told.
        failing: The jobs whose last run failed for good.
        states: What each alert stanza was told.
    """

    since_s: float = 0.0
    failing: tuple[FailedRun, ...] = ()
    states: Mapping[str, State] = field(default_factory=dict)

    def to_text(self) -> str:
        """For the next tick. Compressed: Dagster keeps it with each tick, and with 1,000 topics that are red it is 580 kB."""
        states = {name: state.to_json() for name, state in self.states.items()}
        text = json.dumps({"since": self.since_s, "failing": self.failing, "states": states})
        return base64.b64encode(zlib.compress(text.encode())).decode()

    @classmethod
    def from_text(cls, text: str | None) -> Self:
        """What ``to_text`` wrote; nothing for an empty one.

        What is something else, set by hand or cut, counts as nothing, with a warning: a tick that failed of it would fail for
        ever, and nobody be told of anything.
        """
        if not text:
            return cls()
        try:
            kept = json.loads(zlib.decompress(base64.b64decode(text)))
            states = {name: State.from_json(state) for name, state in kept["states"].items()}
            return cls(float(kept["since"]), tuple(FailedRun(*run) for run in kept["failing"]), states)
        except (ValueError, TypeError, KeyError, AttributeError, zlib.error):
            log.warning("The cursor of the sensor alerts cannot be read: all that is wrong is told anew.")
            return cls()


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells people what turned red or green again, by the stanzas [alert.NAME] that HOP_ARCHIVE_ALERT names.",
)
def alerts(
    context: dg.SensorEvaluationContext, archive: dg.ResourceParam[Archive], alarms: dg.ResourceParam[Alarms]
) -> dg.SensorResult:
    """Look, and tell what is new. A service that is down is told at a later tick, and delays no other sensor."""
    if not alarms:
        return dg.SensorResult(skip_reason="Nobody is told: HOP_ARCHIVE_ALERT names no alert stanza.")
    before, now_s = Cursor.from_text(context.cursor), time.time()
    assert context.repository_def is not None
    failing = _failing(context.instance, before, set(context.repository_def.job_names))
    checks = _checks(context.instance, context.repository_def.asset_graph.asset_check_keys)
    # Where not all can be kept, those that are not are no more over than before.
    sorts = frozenset({RUN}) if len(failing) < _MOST_FAILING else frozenset[str]()
    runs = Seen(tuple(run.problem for run in failing), sorts)
    by_name, began_s = {alarm.name: alarm for alarm in alarms}, time.monotonic()
    states = {name: state for name, state in before.states.items() if name in by_name}
    # Those that waited longest first: who is looked for now stands last.
    for name in sorted(by_name, key=lambda name: [*states].index(name) if name in states else -1):
        states[name] = look_and_tell(archive, by_name[name], states.pop(name, State()), [checks, runs])
        if time.monotonic() - began_s > _LONGEST_S:
            break
    red = {known.problem.key for state in states.values() for known in state.told.red()}
    waiting = sum(len(state.told.news) for state in states.values())
    left = f" {counted(waiting, 'message')} not taken yet: see the code server's log." if waiting else ""
    return dg.SensorResult(
        cursor=Cursor(now_s, failing, states).to_text(),
        skip_reason=f"{counted(len(red), 'problem')}{': ' if red else ''}{', '.join(sorted(red)[:10])}.{left}",
    )


def _checks(instance: dg.DagsterInstance, keys: Collection[dg.AssetCheckKey]) -> Seen:
    """The checks whose last evaluation is red; yellow ones wake nobody.

    Of one that a run is about to evaluate, or died over, it is not known how it is: it is not over.
    """
    problems: list[Problem] = []
    unknown: set[str] = set()
    for key in sorted(keys, key=lambda key: (key.asset_key.to_user_string(), key.name)):
        if key.asset_key == ARCHIVED_MESSAGES or key.name in TOLD_BY_THE_LOOK:
            continue
        record = instance.get_latest_asset_check_evaluation_record(key)
        if record is None:
            continue
        asset = key.asset_key.to_user_string()
        problem = Problem(CHECK, f"{asset} {key.name}", "it is red.", "", f"/assets/{asset}?view=checks")
        event = record.event.dagster_event if record.event is not None else None
        if event is None or event.event_type is not dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            unknown.add(problem.key)
            continue
        found = event.asset_check_evaluation_data
        if found.passed or found.severity is not dg.AssetCheckSeverity.ERROR:
            continue
        # The descriptions of our checks say what to do.
        problems.append(
            problem._replace(what=f"{said(found.description, _MOST_SAID)}.")
            if found.description
            else problem._replace(remedy="See the check's page.")
        )
    return Seen(tuple(problems), frozenset({CHECK}), frozenset(unknown))


def _failing(instance: dg.DagsterInstance, before: Cursor, jobs: Collection[str]) -> tuple[FailedRun, ...]:
    """The jobs whose last run failed and is not begun anew, by what was known and what ended since."""
    if not before.since_s:
        return ()
    found = {run.place: run for run in before.failing}
    # A little of what was seen is seen again: clocks of several machines write these times.
    since = datetime.datetime.fromtimestamp(before.since_s - 60, datetime.UTC)
    over = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    for record in reversed(instance.get_run_records(over, limit=_MOST_ENDED)):
        run = record.dagster_run
        if run.job_name not in jobs or run.tags.get(_WILL_RETRY) == "true":
            continue
        at_s = record.end_time or record.update_timestamp.timestamp()
        partition = run.tags.get("dagster/partition", "")
        failed = FailedRun(run.job_name, partition, run.run_id, at_s, _why(instance, run.run_id))
        found.pop(failed.place, None)  # which is the last that failed now
        found[failed.place] = failed
    return tuple(run for run in list(found.values())[-_MOST_FAILING:] if not _is_over(instance, run))


def _is_over(instance: dg.DagsterInstance, failed: FailedRun) -> bool:
    """Whether the same was done since; archiving may have been done by another run."""
    if failed.job in _ARCHIVING and time.time() - failed.at_s > _OVER_S:
        return True
    tags = {"dagster/partition": failed.partition} if failed.partition else {}
    since = datetime.datetime.fromtimestamp(failed.at_s, datetime.UTC)
    done = dg.RunsFilter(
        job_name=failed.job, statuses=[dg.DagsterRunStatus.SUCCESS], tags=tags, updated_after=since
    )
    return bool(instance.get_runs(done, limit=1))


def _why(instance: dg.DagsterInstance, run_id: str) -> str:
    """What the first step that failed said; else that the run did."""
    found = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=1).records
    event: Any = found[0].event_log_entry.dagster_event if found else None
    if event is None:
        return "its process is gone, or it could not be started"
    failure = event.step_failure_data
    stated = failure.user_failure_data.description if failure.user_failure_data else None
    return said(stated or (failure.error.message if failure.error else "") or "no reason given")
