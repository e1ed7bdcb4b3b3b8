"""The archive as a whole: its totals as an asset, every ten minutes, and its checks, which are red when something is.

One run of the job ``check_archive`` materializes the totals and evaluates the checks after them: so Dagster shows each of them as
of the newest totals. Other runs that change what a check says evaluate it again.
"""

import datetime
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.catalog.records import Outcome
from hop_archive.ingest.survey import BEFORE_FIRST_SIGHT, survey
from hop_archive.ingest.write import UNREADABLE
from hop_archive.model.wording import counted, size
from hop_archive.orchestration.findings import NO_OPEN_FINDINGS, OBJECTS_PRESENT
from hop_archive.orchestration.pacing import Waiting
from hop_archive.orchestration.reports import ARCHIVED_MESSAGES, age, bars, moment, unless_zero
from hop_archive.orchestration.resources import Backup, as_failures
from hop_archive.orchestration.runs import (
    MOST_SHOWN,
    SHORT,
    Home,
    job_link,
    schedule,
    table,
    upkeep_job,
)
from hop_archive.read.topic_facts import Facts, TopicFacts, holes, status
from hop_archive.upkeep.verify.scrub import DAYS
from hop_archive.upkeep.verify.share import DAYS as EVERYTHING_DAYS
from hop_archive.upkeep.verify.share import freshness
from hop_archive.upkeep.verify.verification import Verification

_HOURS = 24
_LOOKS = 200
"""Materializations that may be of the last day: one each ten minutes, and some by hand."""


@dg.asset(
    name="archive",
    deps=[ARCHIVED_MESSAGES],
    group_name="archive",
    owners=["team:hop-archive"],
    kinds={"s3", "postgres"},
    description="The archive as a whole: what is archived, how far behind it is, and what is wrong. Looked at every ten minutes; "
    "looking costs a few queries, and changes nothing. Its checks are red for as long as something is.",
)
def whole_archive(
    context: dg.AssetExecutionContext, archive: dg.ResourceParam[Archive]
) -> dg.MaterializeResult[None]:
    """Ask catalog and source for the totals. Again: as of then."""
    with as_failures():
        facts = status(archive)
    waiting_s = _waiting_s(context.instance, facts)
    earlier = _earlier(context.instance, context.asset_key)
    return dg.MaterializeResult(metadata=_totals(facts, waiting_s, earlier))


def _totals(facts: Facts, waiting_s: float | None, earlier: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """What is in the archive, how fresh it is, and what is wrong. A number that is zero is no number: it would be a flat plot."""
    topics, now = facts.topics, facts.at
    messages = sum(topic.total.messages for topic in topics)
    size_bytes = sum(topic.total.size_bytes for topic in topics)
    last_hour = [topic.windows["last_hour"] for topic in topics]
    lags = [topic.lag for topic in topics if topic.lag is not None]
    oldest = min(
        (t.total.first_timestamp_ms for t in topics if t.total.first_timestamp_ms is not None), default=None
    )
    newest = max(
        (t.total.last_timestamp_ms for t in topics if t.total.last_timestamp_ms is not None), default=None
    )
    last_batch = max(
        (t.total.last_batch_at for t in topics if t.total.last_batch_at is not None), default=None
    )
    offsets = sum(share.offsets for share in facts.shares)
    never = sum(share.never for share in facts.shares)
    found = sum(count.number for count in facts.findings)
    return {
        "dagster/row_count": messages,
        "dagster/size_bytes": size_bytes,
        "topics": sum(bool(topic.total.messages) for topic in topics),
        "messages_last_hour": unless_zero(sum(topic.messages for topic in last_hour)),
        "bytes_last_hour": unless_zero(sum(topic.size_bytes for topic in last_hour)),
        "lag_messages": facts.source_error or unless_zero(sum(lags)),
        **({} if waiting_s is None else {"lag_s": round(waiting_s, 1)}),
        **(
            {}
            if last_batch is None
            else {"last_batch_age_s": max(0.0, round((now - last_batch).total_seconds(), 1))}
        ),
        "oldest_message": moment(oldest),
        "newest_message": moment(newest),
        "lost": unless_zero(sum(t.total.lost + (t.unrecorded or 0) for t in topics)),
        "duplicates": unless_zero(sum(topic.total.duplicates for topic in topics)),
        "open_findings": unless_zero(found),
        **({"verified_percent": round(100 * (1 - never / offsets), 2) or "none"} if offsets else {}),
        **_by_hour([*earlier, (now.timestamp(), messages)]),
        **table("by_topic", _topic_rows(topics, now)),
    }


def _waiting_s(instance: dg.DagsterInstance, facts: Facts) -> float | None:
    """For how long the messages wait that wait longest, as the sensor kafka_offsets remembers; None where none does."""
    waiting = {topic.topic for topic in facts.topics if topic.lag}
    now_s = facts.at.timestamp()
    since: list[float] = []
    for state in instance.all_instigator_state() if waiting else ():
        if state.instigator_name == "kafka_offsets":
            try:
                kept = Waiting.from_json(getattr(state.instigator_data, "cursor", None) or "")
            except (ValueError, TypeError):  # of another version, or set by hand
                continue
            since += [at for topic, at in kept.since.items() if topic in waiting]
    return max(0.0, now_s - min(since)) if since else None


def _earlier(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[tuple[float, int]]:
    """When the totals were looked at before, and how many messages there were, the earliest first."""
    looks = []
    for record in instance.fetch_materializations(key, limit=_LOOKS).records:
        count = record.asset_materialization and record.asset_materialization.metadata.get(
            "dagster/row_count"
        )
        if isinstance(count, dg.IntMetadataValue) and count.value is not None:
            looks.append((record.timestamp, count.value))
    return sorted(looks)


def _by_hour(looks: Sequence[tuple[float, int]]) -> dict[str, dg.MetadataValue]:
    """How many messages came in each of the last hours, drawn; of those before the first look nothing is known."""
    end_s = looks[-1][0]
    this_hour = int(end_s // 3600)
    counts: dict[str, int] = {}
    for hour in range(this_hour - _HOURS + 1, this_hour + 1):
        before = [count for at, count in looks if at < hour * 3600]
        until = [count for at, count in looks if at < (hour + 1) * 3600]
        if before and until:
            at = datetime.datetime.fromtimestamp(hour * 3600, datetime.UTC)
            counts[f"{at:%d %b %H:00}"] = max(0, until[-1] - before[-1])
    if not any(counts.values()):
        return {}
    return {"messages_by_hour": dg.MetadataValue.md(bars(counts))}


def _topic_rows(topics: Sequence[TopicFacts], now: datetime.datetime) -> Sequence[Mapping[str, Any]]:
    """Topics that wait first, then those that had most in the last day; what matters least comes last, where a window cuts it off."""
    chosen = sorted(
        topics,
        key=lambda t: (-(t.lag or 0), -t.windows["last_24_hours"].messages, -t.total.messages, t.topic),
    )
    return [
        {
            "topic": topic.topic,
            "waiting": "?" if topic.lag is None else topic.lag,
            "newest": age(now, topic.total.last_timestamp_ms).replace(" ", "\N{NO-BREAK SPACE}"),
            "messages": topic.total.messages,
            "bytes": size(topic.total.size_bytes).replace(" ", "\N{NO-BREAK SPACE}"),
            "last_hour": topic.windows["last_hour"].messages,
            "last_24_hours": topic.windows["last_24_hours"].messages,
        }
        for topic in chosen[:MOST_SHOWN]
    ]


@dg.asset_check(
    asset=whole_archive.key,
    description="No offset was lost to retention, with its topic, or for being unreadable, before it was archived.",
)
def nothing_lost(archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
    """Red from the first loss on: what is lost stays lost. Yellow where it was gone before the archive began."""
    with as_failures():
        losers = [s.topic for s in archive.catalog.summaries() if s.lost or s.skipped]
        # Slices that were skipped for other reasons were left out on purpose.
        lost = [
            e
            for e in archive.catalog.ledger(losers)
            if e.outcome is Outcome.LOST or e.reason.startswith(UNREADABLE)
        ]
    overtaken = [e for e in lost if e.reason != BEFORE_FIRST_SIGHT]
    number = sum(len(e.slice) for e in overtaken)
    before = sum(len(e.slice) for e in lost) - number
    overtaken.sort(key=lambda e: e.created_at)
    description = None
    if overtaken:
        last = overtaken[-1]
        description = (
            f"{counted(number, 'offset was', 'offsets were')} lost, in {counted(len(overtaken), 'slice')}. The latest: "
            f"{last.slice}: {last.reason}. Look why it was late (lag_within_bounds, failed ticks of kafka_offsets), or raise the "
            "topic's retention. What is lost can only come from elsewhere, such as a mirror: this stays red."
        )
    elif before:
        description = f"{counted(before, 'offset was', 'offsets were')} gone before the archive began. There is nothing to do."
    rows = (
        {
            "slice": str(e.slice),
            "offsets": len(e.slice),
            "reason": e.reason,
            "recorded": e.created_at.isoformat(timespec="seconds"),
        }
        for e in overtaken[-MOST_SHOWN:]
    )
    return dg.AssetCheckResult(
        passed=not lost,
        severity=dg.AssetCheckSeverity.ERROR if overtaken else dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={
            "offsets_gone_before_the_archive_began": unless_zero(before),
            "lost_offsets": unless_zero(number),
            **table("lost", rows),
        },
    )


@dg.asset_check(asset=whole_archive.key, description="No offset between covered ones is without an outcome.")
def coverage_has_no_holes(
    context: dg.AssetCheckExecutionContext, archive: dg.ResourceParam[Archive]
) -> dg.AssetCheckResult:
    """Yellow while there are holes: the next run fills those that Kafka still holds."""
    with as_failures():
        found = holes(archive)
    number = sum(found.values())
    rows = (
        {"topic": at.topic, "generation": at.generation, "partition": at.partition, "offsets": n}
        for at, n in sorted(found.items())
    )
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{counted(number, 'offset is', 'offsets are')} without an outcome, in {counted(len(found), 'partition')}; "
        f"the first is of {min(found)}. The next run fills what Kafka still holds, and records what it does not as lost: look at "
        "kafka_offsets if this stays, or launch archive_quiet_topics as it stands."
        if found
        else None,
        metadata={
            "holes": unless_zero(number),
            **(job_link(Home.of(context.run), "archive_quiet_topics") if found else {}),
            **table("where", rows),
        },
    )


class LagBounds(dg.Config):
    """How far the archive may be behind."""

    most_messages: int = Field(default=100_000, ge=0, description="Most messages of one topic that may wait.")


@dg.asset_check(asset=whole_archive.key, description="No topic has more messages waiting than it may.")
def lag_within_bounds(
    context: dg.AssetCheckExecutionContext, config: LagBounds, archive: dg.ResourceParam[Archive]
) -> dg.AssetCheckResult:
    """Red while a topic is too far behind, or it is not known how far."""
    with as_failures():
        seen = survey(archive)
    pending, obstacles = seen.pending(), seen.obstacles
    behind = {topic: count for topic, count in pending.items() if count > config.most_messages}
    why = []
    if behind:
        why.append(
            f"{counted(len(behind), 'topic has', 'topics have')} more than "
            f"{counted(config.most_messages, 'message')} waiting, most of all {max(behind, key=behind.__getitem__)}. See that runs "
            "start and succeed: the ticks of kafka_offsets say why one does not; max_concurrent_runs lets more run at once."
        )
    if obstacles:
        why.append(
            f"{counted(len(obstacles), 'topic or partition', 'topics or partitions')} could not be looked at, or may not be "
            f"read: how much waits there is not known to be little. The first: {obstacles[0].topic}: "
            f"{obstacles[0].detail.rstrip('.')}. Mend what that names."
        )
    return dg.AssetCheckResult(
        passed=not why,
        description=" ".join(why) or None,
        metadata={
            "waiting": unless_zero(sum(pending.values())),
            **(job_link(Home.of(context.run), "archive_quiet_topics") if behind else {}),
            **table("behind", ({"topic": t, "waiting": n} for t, n in sorted(behind.items()))),
            **table(
                "in_the_way", ({"topic": o.topic, "kind": o.kind.value, "why": o.detail} for o in obstacles)
            ),
        },
    )


@dg.asset_check(asset=whole_archive.key, description=OBJECTS_PRESENT.description)
def objects_present(
    context: dg.AssetCheckExecutionContext, archive: dg.ResourceParam[Archive]
) -> dg.AssetCheckResult:
    """Red while verification's findings of objects are open, by topic."""
    with as_failures():
        return OBJECTS_PRESENT.look(archive.catalog, Home.of(context.run))


@dg.asset_check(asset=whole_archive.key, description=NO_OPEN_FINDINGS.description)
def no_open_findings(
    context: dg.AssetCheckExecutionContext, archive: dg.ResourceParam[Archive]
) -> dg.AssetCheckResult:
    """Red while findings are open, by topic; yellow where all is archived and only something too much is there."""
    with as_failures():
        return NO_OPEN_FINDINGS.look(archive.catalog, Home.of(context.run))


def _lateness(
    oldest: datetime.datetime | None, now: datetime.datetime, allowed: datetime.timedelta
) -> dg.AssetCheckSeverity:
    """Yellow for what is late. What has stood still for twice what is allowed has stopped, and people are to hear of it."""
    has_stopped = oldest is not None and now - oldest > 2 * allowed
    return dg.AssetCheckSeverity.ERROR if has_stopped else dg.AssetCheckSeverity.WARN


class LookBounds(dg.Config):
    """How long ago an object may have been looked at last."""

    days: float = Field(
        default=EVERYTHING_DAYS + 1,
        gt=0,
        description="Most days since objects, and the ledger's numbers, were compared with the rows.",
    )


@dg.asset_check(
    asset=whole_archive.key,
    description="What was once compared with the rows, of objects and the ledger, is so again within the days that are set.",
)
def looked_at_in_time(
    context: dg.AssetCheckExecutionContext,
    config: LookBounds,
    archive: dg.ResourceParam[Archive],
    backup: dg.ResourceParam[Backup],
) -> dg.AssetCheckResult:
    """Yellow where the job verify does not keep up; red, which tells people, where it is as late again."""
    with as_failures():
        fresh = freshness(Verification(archive.catalog, archive.store, backup=backup.store))
    now, allowed = archive.now(), datetime.timedelta(days=config.days)
    # What is there longer than that, and was never looked at in the least, nobody looks at.
    oldest = fresh.oldest
    if oldest is None and fresh.never:
        generations = chain.from_iterable(archive.catalog.generations(None).values())
        oldest = min((generation.detected_at for generation in generations), default=None)
    is_late = oldest is not None and oldest < now - allowed
    return dg.AssetCheckResult(
        passed=not is_late,
        severity=_lateness(oldest, now, allowed),
        description=f"{'Something was last looked at' if fresh.oldest else 'Nothing was ever looked at, of what is there since'} "
        f"more than {config.days:g} days ago. See that verify_often runs and ends, or "
        "launch the job verify."
        if is_late
        else None,
        metadata={
            "sections": fresh.sections,
            "sections_never_looked_at": fresh.never,
            **({"oldest_look": fresh.oldest.isoformat(timespec="minutes")} if fresh.oldest else {}),
            **(job_link(Home.of(context.run), "verify") if is_late else {}),
        },
    )


class ScrubBounds(dg.Config):
    """How long ago a document may have been read last."""

    days: float = Field(
        default=DAYS + 5, gt=0, description="Most days since a document was compared with its row."
    )


@dg.asset_check(
    asset=whole_archive.key,
    description="What was once read and compared is so again within the days that are set.",
)
def scrubbed_in_time(
    context: dg.AssetCheckExecutionContext, config: ScrubBounds, archive: dg.ResourceParam[Archive]
) -> dg.AssetCheckResult:
    """Yellow where the job scrub does not keep up, by topic; red, which tells people, where it is as late again."""
    with as_failures():
        shares = archive.catalog.verified_shares()
    now, allowed = archive.now(), datetime.timedelta(days=config.days)
    late = [(share.topic, share.oldest) for share in shares if share.oldest and share.oldest < now - allowed]
    rows = ({"topic": topic, "oldest_check": at.isoformat(timespec="minutes")} for topic, at in late)
    return dg.AssetCheckResult(
        passed=not late,
        severity=_lateness(min((at for _, at in late), default=None), now, allowed),
        description=f"In {counted(len(late), 'topic')} the oldest check is more than {config.days:g} days ago; the first is "
        f"{late[0][0]}. See that scrub_nightly runs and ends, or launch the job scrub."
        if late
        else None,
        metadata={
            "never_read_offsets": unless_zero(sum(share.never for share in shares)),
            **(job_link(Home.of(context.run), "scrub") if late else {}),
            **table("late", rows),
        },
    )


check_archive = upkeep_job(
    "check_archive",
    SHORT,
    whole_archive,
    "Looks at the archive as a whole: its totals, and its checks over all topics.",
)
check_often = schedule(
    "check_often", check_archive, "*/10 * * * *", "Looks at totals and checks every ten minutes."
)
