"""Sensors: keep the partitions in step with the topics, and ask for runs where messages wait."""

import datetime
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

import dagster as dg

from hop_archive.archive import Archive
from hop_archive.ingest.garbage_collection import fewer_collections
from hop_archive.ingest.left_undone import LeftUndone
from hop_archive.ingest.plan import work
from hop_archive.ingest.survey import Survey, look
from hop_archive.model.findings import OBSTACLES, Kind, OpenCount
from hop_archive.model.topics import unmet_message
from hop_archive.model.wording import counted, listed
from hop_archive.orchestration import succession
from hop_archive.orchestration.archiving import (
    TOPICS,
    archive_quiet_topics,
    archive_topic,
    archive_topics,
    in_vain_since,
    live_runs,
    own_in_vain,
)
from hop_archive.orchestration.findings import evaluations
from hop_archive.orchestration.pacing import (
    IN_VAIN_AGAIN_S,
    OBSTRUCTED_AGAIN_S,
    Dispatch,
    Pacing,
    Waiting,
    dispatch,
    followed,
)
from hop_archive.orchestration.reports import materializations, out_of_date
from hop_archive.orchestration.resources import as_failures
from hop_archive.orchestration.runs import (
    FOLLOWING,
    Home,
    Watch,
    end_the_dead,
    live_tags,
    patience_s,
    topics_of_run,
)

_EVERY_S = 3
"""The daemon looks every 5 s which sensors are due; with 5 here too, every other look would come a moment early."""

_MOST_NAMED = 10

_QUIET_S = 300.0
"""A topic is quiet where no batch of it was committed for so long: then no run is about to report it."""
_FIRST_LOOK_S = 86_400.0
_MOST_PAGES = 100
"""Topics that a tick looks at: a page takes 16 to 30 ms (2026-11-28)."""

_FAILING = (Kind.NOT_READABLE, Kind.LEFT_UNDONE)
"""What a run meets and fails of; a partition without a leader is in no plan."""


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Gives each topic that is archived a partition of archived_messages.",
)
def topic_partitions(
    context: dg.SensorEvaluationContext, archive: dg.ResourceParam[Archive]
) -> dg.SensorResult:
    """Give each topic that is archived a partition. Topics that are gone keep theirs: they were archived."""
    with as_failures():
        there = archive.source.topics()
        archived = sorted(name for name in there if archive.topics.archived(name))
        unmet = unmet_message(archive.topics.unmet({*there, *there.untold}), archive.source.name)
    requests = _missing_partitions(context.instance, archived)
    added = ", ".join(key for request in requests for key in request.partition_keys)
    state = f"All {len(archived)} topics of {archive.source.name} have a partition{f'; added: {added}' if added else ''}."
    return dg.SensorResult(dynamic_partitions_requests=requests, skip_reason=f"{unmet} {state}".lstrip())


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Says on a topic's page what is archived of it, where nothing has come for a while since a run left that out.",
)
def topic_pages(context: dg.SensorEvaluationContext, archive: dg.ResourceParam[Archive]) -> dg.SensorResult:
    """Materialize the partitions of topics that fell quiet since the last tick, and whose pages tell of less than there is.

    Runs report a topic once in some minutes only, so the last messages before a pause may be on no page.
    """
    until_s = archive.now().timestamp() - _QUIET_S
    # Batches that are committed together share their time: where a tick stops among their topics, the next goes on by name.
    time_s, _, after = (context.cursor or "").partition(" ")
    since_s = float(time_s or until_s)
    if since_s >= until_s:  # the first look, or one after a clock that was ahead was set back
        since_s, after = until_s - _FIRST_LOOK_S, ""
    since = datetime.datetime.fromtimestamp(since_s, datetime.UTC)
    with as_failures():
        found = archive.catalog.summaries(since=since)
        last_s = {s.topic: s.last_batch_at.timestamp() for s in found if s.last_batch_at is not None}
        quiet = sorted(
            (at, topic) for topic, at in last_s.items() if (since_s, after) < (at, topic) and at <= until_s
        )
        looked_at, left = quiet[:_MOST_PAGES], quiet[_MOST_PAGES:]
        late = out_of_date(context.instance, {topic: at for at, topic in looked_at})
        # Reported here, and not by what is returned: a check is of the materialization that is there when it is said.
        for materialization in materializations(archive, late):
            context.instance.report_runless_asset_event(materialization)
        origin, name = context.code_location_origin, context.repository_name
        home = Home(origin.location_name, name) if origin is not None and name is not None else None
        for evaluation in evaluations(context.instance, archive.catalog, late, home):
            context.instance.report_runless_asset_event(evaluation)
    return dg.SensorResult(
        cursor="{} {}".format(*looked_at[-1]) if left else str(until_s),
        skip_reason=f"{counted(len(late), 'page')} written anew, of {counted(len(looked_at), 'topic')} that fell quiet.",
    )


@dg.sensor(
    jobs=[archive_topic, archive_quiet_topics],
    minimum_interval_seconds=_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Compares what Kafka holds with what is archived; starts runs where messages wait.",
)
def kafka_offsets(
    context: dg.SensorEvaluationContext, archive: dg.ResourceParam[Archive], pacing: dg.ResourceParam[Pacing]
) -> dg.SensorResult:
    """Compare what Kafka holds with what is covered; ask for runs where enough waits, or has waited enough."""
    # Runs before the survey: one that ends in between has then been seen, and what it did is covered.
    live = live_runs(context.instance)
    # The process that ticks holds all of Dagster: to look through that once takes a third of a tick over 1,000 topics.
    with as_failures(), fewer_collections():
        seen = look(archive)
        # What was left undone, and is work no more: its topic is gone, or somebody else did it. No run would look.
        in_the_way = {obstacle.topic for obstacle in seen.obstacles} - seen.deleted
        LeftUndone(archive).plan((), pending={*seen.pending(), *in_the_way})
        opened = [count for count in archive.catalog.open_findings() if count.kind in OBSTACLES]
        obstructed = _obstructed(archive, seen, {count.topic for count in opened if count.kind in _FAILING})
    wrong = [unmet_message(seen.unmet, archive.source.name)] if seen.unmet else []
    wrong += _in_the_way(seen, opened)
    now = archive.now().timestamp()
    failed_at = in_vain_since(context.instance)
    # One that is to come is of before a clock was set back.
    if failed_at is not None and 0 <= now - failed_at < IN_VAIN_AGAIN_S:
        why = f"The last two shared runs failed, and archived nothing, as their logs say: the next one comes within {IN_VAIN_AGAIN_S:g} s."
        return dg.SensorResult(cursor=context.cursor, skip_reason=" ".join([why, *wrong]))
    # A log with another leader is looked at by a run, even where it seems to hold nothing new: it may have lost its end.
    asked = {**dict.fromkeys((at.topic for at in seen.unproven()), 1), **seen.pending()}
    pending = {topic: count for topic, count in asked.items() if topic not in seen.unreadable}
    in_flight = {topic for run in live for topic in _topics_of(run, seen)}
    again = own_in_vain(context.instance, now, IN_VAIN_AGAIN_S)
    in_vain = {topic for run in again for topic in _topics_of(run, seen)} - in_flight
    if in_vain:
        wrong += [
            f"Runs failed, and archived nothing, as their logs say; asked for again within {IN_VAIN_AGAIN_S:g} s: {listed(sorted(in_vain), _MOST_NAMED)}."
        ]
    begun = {dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING}
    decided = dispatch(
        pending,
        in_flight | in_vain,
        Waiting.from_json(context.cursor or ""),
        now,
        pacing,
        obstructed=obstructed,
        shared_is_starting=any(
            run.job_name == archive_quiet_topics.name and run.status not in begun for run in live
        ),
    )
    following = {run.run_id for run in live if FOLLOWING in run.tags}
    leaving = succession.leaving(context.instance, {run.run_id for run in live})
    followers: Sequence[str] = ()
    if pacing.follow_s <= 0:
        succession.release(context.instance, leaving)
    elif following <= leaving:
        # What those have that leave is theirs to hand over.
        others = {t for run in live if run.run_id not in following for t in _topics_of(run, seen)}
        followers = followed(decided, seen.infos, others | in_vain, obstructed)
    requests = _requests(decided, followers, following, pacing.follow_s, archive.source.name)
    if requests and wrong:  # a tick that asks for runs gives no reason
        context.log.warning(" ".join(wrong))
    why = "" if requests else " ".join([_why_idle(pending, in_flight, obstructed, pacing), *wrong])
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=_missing_partitions(context.instance, decided.own),
        cursor=decided.waiting.to_json(),
        skip_reason=why or None,
    )


@dg.sensor(
    minimum_interval_seconds=_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process is gone, or hangs: those that show no sign of life. Others go on with their work.",
)
def dead_runs(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """End each run of this code location that has shown no sign of life for a minute of this sensor's looking."""

    def is_ours(run: dg.DagsterRun) -> bool:
        origin, here = run.remote_job_origin, context.code_location_origin
        return (
            origin is not None
            and here is not None
            and (origin.location_name, origin.repository_origin.repository_name)
            == (here.location_name, context.repository_name)
        )

    with as_failures():
        patience = patience_s()
    watch, ended = end_the_dead(
        context.instance, Watch.from_json(context.cursor or ""), time.time(), patience, is_ours
    )
    counts = counted(len(watch.still), "run is", "runs are")
    return dg.SensorResult(
        cursor=watch.to_json(),
        skip_reason=f"Ended for showing no sign of life: {', '.join(ended)}."
        if ended
        else f"{counts} under way; none is dead.",
    )


def _obstructed(archive: Archive, seen: Survey, topics: Collection[str]) -> dict[str, int]:
    """Of topics in which something was tried and not archived: how many messages wait in their other partitions."""
    found = [record.finding for record in archive.catalog.findings(topics, _FAILING)] if topics else []
    stuck = {(f.topic, f.slice.partition if f.slice else f.partition) for f in found}
    counts = dict.fromkeys(topics, 0)
    for at, known in seen.knowledge.items():
        if at.topic in counts and stuck.isdisjoint([(at.topic, None), (at.topic, at.partition)]):
            counts[at.topic] += work(known).size
    return counts


def _in_the_way(seen: Survey, opened: Sequence[OpenCount]) -> list[str]:
    """What could not be looked at, or read, or was left undone, and since when: nothing of it is archived meanwhile."""
    looked_at = {(obstacle.topic, obstacle.kind) for obstacle in seen.obstacles}
    named = [
        f"{o.topic}{'' if o.partition is None else f'[{o.partition}]'} ({o.kind.value})"
        for o in seen.obstacles
    ] + [
        f"{count.topic} ({count.kind.value})"
        for count in opened
        if (count.topic, count.kind) not in looked_at
    ]
    if not named:
        return []
    since = min((count.since for count in opened), default=None)
    when = f", some since {since:%Y-%m-%d %H:%M} UTC" if since else ""
    return [f"In the way{when}: {listed(named, _MOST_NAMED)}."]


def _topics_of(run: dg.DagsterRun, seen: Survey) -> frozenset[str]:
    return topics_of_run(run.tags, run.run_config, seen.infos)


def _requests(
    decided: Dispatch, followers: Sequence[str], following: Collection[str], follow_s: float, source: str
) -> list[dg.RunRequest]:
    requests = [
        dg.RunRequest(job_name=archive_topic.name, partition_key=topic, tags=live_tags(source, topic=topic))
        for topic in decided.own
    ]
    if followers:
        tags = live_tags(source, follow_s=follow_s, takes_over=following)
        requests.append(_shared_run(followers, tags, follow_s))
    if others := sorted({*decided.shared} - {*followers}):
        requests.append(_shared_run(others, live_tags(source)))
    return requests


def _shared_run(names: Sequence[str], tags: Mapping[str, str], follow_s: float = 0.0) -> dg.RunRequest:
    config = {"topics": list(names), **({"follow_s": follow_s} if follow_s else {})}
    ops = {archive_topics.name: {"config": config}}
    return dg.RunRequest(job_name=archive_quiet_topics.name, run_config={"ops": ops}, tags=dict(tags))


def _missing_partitions(
    instance: dg.DagsterInstance, names: Iterable[str]
) -> list[dg.AddDynamicPartitionsRequest]:
    known = set(instance.get_dynamic_partitions("topics"))
    new = [topic for topic in names if topic not in known]
    return [TOPICS.build_add_request(new)] if new else []


def _why_idle(
    pending: Mapping[str, int], in_flight: Collection[str], obstructed: Collection[str], pacing: Pacing
) -> str:
    if not pending:
        return "Everything that Kafka holds is archived."
    held = {t: n for t, n in pending.items() if t in obstructed and t not in in_flight}
    others = {t: n for t, n in pending.items() if t not in held}
    why = []
    if others:
        why.append(
            f"{sum(others.values())} messages of {len(others)} topics are in a run, or wait for others, "
            f"{pacing.longest_wait_s:g} s at most: {_busiest(others, in_flight)}"
        )
    if held:
        why.append(
            f"Tried again every {OBSTRUCTED_AGAIN_S / 60:g} minutes, for what is in the way: {_busiest(held, ())}."
        )
    return " ".join(why)


def _busiest(pending: Mapping[str, int], in_flight: Collection[str]) -> str:
    chosen = sorted(pending, key=lambda topic: (-pending[topic], topic))[:_MOST_NAMED]
    named = ", ".join(f"{t}: {pending[t]}{' (in a run)' if t in in_flight else ''}" for t in chosen)
    return f"{named}{', …' if len(pending) > len(chosen) else ''}"
