"""Sensors: keep the partitions in step with the topics, and ask for runs where messages wait."""

import json
from collections.abc import Collection

import dagster as dg

from hop_archive.archive import Archive
from hop_archive.orchestration.failures import told
from hop_archive.orchestration.jobs import archive_quiet_topics, archive_topic
from hop_archive.orchestration.pacing import Dispatch, Eagerness, dispatch
from hop_archive.orchestration.partitions import topics
from hop_archive.orchestration.resources import Pacing
from hop_archive.orchestration.tags import has_topic, topic_tags
from hop_archive.surveying import survey

LIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""Statuses of runs that are not over."""


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def topic_partitions(
    context: dg.SensorEvaluationContext, archive: dg.ResourceParam[Archive]
) -> dg.SensorResult:
    """Give each topic that is archived a partition. Topics that are gone keep theirs: they were archived."""
    with told():
        wanted = sorted(name for name in archive.source.topics() if archive.topics.archived(name))
    known = set(context.instance.get_dynamic_partitions("topics"))
    new = [name for name in wanted if name not in known]
    return dg.SensorResult(
        dynamic_partitions_requests=[topics.build_add_request(new)] if new else [],
        skip_reason=None if new else f"All {len(wanted)} topics have a partition.",
    )


@dg.sensor(
    jobs=[archive_topic, archive_quiet_topics],
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def kafka_offsets(
    context: dg.SensorEvaluationContext, archive: dg.ResourceParam[Archive], pacing: Pacing
) -> dg.SensorResult:
    """Compare what Kafka holds with what is covered; ask for runs where enough waits, or has waited enough."""
    with told():
        pending = survey(archive).pending()
    decided = dispatch(
        pending,
        _in_flight(context.instance, pending),
        json.loads(context.cursor or "{}"),
        archive.now().timestamp(),
        Eagerness(pacing.enough_messages, pacing.longest_wait_s, pacing.busy_messages, pacing.most_own_runs),
    )
    requests = _requests(decided, pacing.follow_s)
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=_missing_partitions(context.instance, decided),
        cursor=json.dumps(decided.waiting_since),
        skip_reason=None if requests else _why_idle(pending),
    )


def _in_flight(instance: dg.DagsterInstance, pending: Collection[str]) -> list[str]:
    if not pending:
        return []
    jobs = (archive_topic.name, archive_quiet_topics.name, "__ASSET_JOB")
    live = [
        run.tags for name in jobs for run in instance.get_runs(dg.RunsFilter(job_name=name, statuses=LIVE))
    ]
    # Runs started by hand or by a backfill name their topic by the partition alone.
    by_partition = {tags.get("dagster/partition") for tags in live}
    return [t for t in pending if t in by_partition or any(has_topic(tags, t) for tags in live)]


def _requests(decided: Dispatch, follow_s: float) -> list[dg.RunRequest]:
    own = [
        dg.RunRequest(
            job_name=archive_topic.name, partition_key=topic, tags=topic_tags([topic], shared=False)
        )
        for topic in decided.own
    ]
    if not decided.shared:
        return own
    names = list(decided.shared)
    config = {
        "ops": {
            "plan": {"config": {"topics": names}},
            "follow": {"config": {"topics": names, "follow_s": follow_s}},
        }
    }
    tags = topic_tags(names, shared=True)
    return [*own, dg.RunRequest(job_name=archive_quiet_topics.name, run_config=config, tags=tags)]


def _missing_partitions(
    instance: dg.DagsterInstance, decided: Dispatch
) -> list[dg.AddDynamicPartitionsRequest]:
    known = set(instance.get_dynamic_partitions("topics"))
    new = [topic for topic in (*decided.own, *decided.shared) if topic not in known]
    return [topics.build_add_request(new)] if new else []


def _why_idle(pending: dict[str, int]) -> str:
    if not pending:
        return "Everything that Kafka holds is archived."
    waiting = ", ".join(f"{topic}: {count}" for topic, count in sorted(pending.items())[:10])
    return f"{sum(pending.values())} messages of {len(pending)} topics wait, or are in a run: {waiting}"
