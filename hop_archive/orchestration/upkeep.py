"""Upkeep: verifying, scrubbing, repairing and reporting the archive, its checks as a whole, and its ledger kept small.

What verification and scrubbing find is in the catalog's list of findings, which the checks judge; a run that found
something is no failure.
"""

import datetime
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.catalog.records import Outcome
from hop_archive.ingest.survey import BEFORE_FIRST_SIGHT, survey
from hop_archive.ingest.write import UNREADABLE
from hop_archive.model.findings import Finding, Kind, kinds_of
from hop_archive.model.query import Query
from hop_archive.model.wording import counted
from hop_archive.orchestration.archiving import (
    ARCHIVED_MESSAGES,
    NO_OPEN_FINDINGS,
    OBJECTS_PRESENT,
    evaluations,
)
from hop_archive.orchestration.resources import Backup, as_failures
from hop_archive.orchestration.runs import (
    ASKED,
    LONG,
    MOST_SHOWN,
    SHORT,
    schedule,
    table,
    upkeep_job,
    upkeep_tags,
)
from hop_archive.read.report import gather, markdown
from hop_archive.read.topic_facts import holes
from hop_archive.upkeep.repair.plan import Repair
from hop_archive.upkeep.repair.repair import RepairOutcome, repair
from hop_archive.upkeep.repair.upstream import Upstream
from hop_archive.upkeep.verify.notebook import Notebook
from hop_archive.upkeep.verify.scrub import DAYS, Scrub, scrub
from hop_archive.upkeep.verify.verification import Verification
from hop_archive.upkeep.verify.verify import verify

_WHICH_TOPICS = "Names, or globs such as gcn.*; empty: all topics."

whole_archive = dg.AssetSpec(
    "archive",
    deps=[ARCHIVED_MESSAGES],
    group_name="archive",
    owners=["team:hop-archive"],
    kinds={"s3", "postgres"},
    description=(
        "The archive as a whole, which archived_messages adds to. Nothing materializes it: it is here for its "
        "checks. (Dagster shows a check as not evaluated once its asset was materialized after it, and "
        "archived_messages is, every few seconds: what is red of the whole would soon be seen no more.)"
    ),
)


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
    description = None
    if overtaken:
        description = (
            f"{counted(number, 'offset was', 'offsets were')} lost, in {counted(len(overtaken), 'slice')}."
        )
    elif before:
        description = f"{counted(before, 'offset was', 'offsets were')} gone before the archive began."
    rows = (
        {
            "slice": str(e.slice),
            "offsets": len(e.slice),
            "reason": e.reason,
            "recorded": e.created_at.isoformat(timespec="seconds"),
        }
        for e in sorted(overtaken, key=lambda e: e.created_at)[-MOST_SHOWN:]
    )
    return dg.AssetCheckResult(
        passed=not lost,
        severity=dg.AssetCheckSeverity.ERROR if overtaken else dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={
            "offsets_gone_before_the_archive_began": before,
            "lost_offsets": number,
            **table("lost", rows),
        },
    )


@dg.asset_check(asset=whole_archive.key, description="No offset between covered ones is without an outcome.")
def coverage_has_no_holes(archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
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
        description=f"{counted(number, 'offset is', 'offsets are')} without an outcome, "
        f"in {counted(len(found), 'partition')}."
        if found
        else None,
        metadata={"holes": number, **table("where", rows)},
    )


class LagBounds(dg.Config):
    """How far the archive may be behind."""

    most_messages: int = Field(default=100_000, ge=0, description="Most messages of one topic that may wait.")


@dg.asset_check(asset=whole_archive.key, description="No topic has more messages waiting than it may.")
def lag_within_bounds(config: LagBounds, archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
    """Red while a topic is too far behind, or it is not known how far."""
    with as_failures():
        seen = survey(archive)
    pending, obstacles = seen.pending(), seen.obstacles
    behind = {topic: count for topic, count in pending.items() if count > config.most_messages}
    why = []
    if behind:
        why.append(
            f"{counted(len(behind), 'topic has', 'topics have')} more than "
            f"{counted(config.most_messages, 'message')} waiting."
        )
    if obstacles:
        why.append(
            f"{counted(len(obstacles), 'topic or partition', 'topics or partitions')} could not be looked at, or may not be "
            "read: how much waits there is not known to be little."
        )
    return dg.AssetCheckResult(
        passed=not why,
        description=" ".join(why) or None,
        metadata={
            "waiting": sum(pending.values()),
            **table("behind", ({"topic": t, "waiting": n} for t, n in sorted(behind.items()))),
            **table(
                "in_the_way",
                ({"topic": o.topic, "kind": o.kind.value, "why": o.detail} for o in obstacles),
            ),
        },
    )


@dg.asset_check(asset=whole_archive.key, description=OBJECTS_PRESENT.description)
def objects_present(archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
    """Red while verification's findings of objects are open, by topic."""
    with as_failures():
        return OBJECTS_PRESENT.judge(archive.catalog.open_findings())


@dg.asset_check(asset=whole_archive.key, description=NO_OPEN_FINDINGS.description)
def no_open_findings(archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
    """Red while findings are open, by topic; yellow where all is archived and only something too much is there."""
    with as_failures():
        return NO_OPEN_FINDINGS.judge(archive.catalog.open_findings())


class ScrubBounds(dg.Config):
    """How long ago a document may have been read last."""

    days: float = Field(
        default=DAYS + 5, gt=0, description="Most days since a document was compared with its row."
    )


@dg.asset_check(
    asset=whole_archive.key,
    description="What was once read and compared is so again within the days that are set.",
)
def scrubbed_in_time(config: ScrubBounds, archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
    """Yellow where the job scrub does not keep up, by topic."""
    with as_failures():
        shares = archive.catalog.verified_shares()
    before = archive.now() - datetime.timedelta(days=config.days)
    late = [(share.topic, share.oldest) for share in shares if share.oldest and share.oldest < before]
    rows = ({"topic": topic, "oldest_check": at.isoformat(timespec="minutes")} for topic, at in late)
    return dg.AssetCheckResult(
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"In {counted(len(late), 'topic')} the oldest check is more than {config.days:g} days ago."
        if late
        else None,
        metadata={"never_read_offsets": sum(share.never for share in shares), **table("late", rows)},
    )


check_archive = upkeep_job(
    "check_archive",
    SHORT,
    dg.AssetSelection.checks_for_assets(whole_archive.key),
    "Evaluates the checks of the archive, over all topics.",
)
check_often = schedule(
    "check_often", check_archive, "*/10 * * * *", "Evaluates the asset checks every ten minutes."
)


class VerifyConfig(dg.Config):
    """What to verify."""

    topics: list[str] = Field(default=[], description=_WHICH_TOPICS)
    deep: bool = Field(default=False, description="Fetch every document, too, and compare it with its row.")


@dg.asset(
    deps=[ARCHIVED_MESSAGES],
    group_name="upkeep",
    owners=["team:hop-archive"],
    description="Whether every object is there with its size, and the ledger adds up; deep: whether every document is as "
    "its row says. Changes nothing but the list of findings.",
)
def verification(
    context: dg.AssetExecutionContext,
    config: VerifyConfig,
    archive: dg.ResourceParam[Archive],
    backup: dg.ResourceParam[Backup],
) -> dg.MaterializeResult[None]:
    """Look in every direction that needs no source, and note what is found. Again: notes the same once."""
    work = _verification(archive, config.topics, backup)
    with as_failures():
        found, shown = _counted(verify(work, Notebook(archive.catalog), deep=config.deep))
        _judge(context, archive, work.topics())
    counts = work.checked.counts
    young = {"copies_not_due_yet": counts["copies not due yet"]} if backup.store is not None else {}
    return dg.MaterializeResult(
        metadata={
            "found": sum(found.values()),
            **{kind.value: found[kind.value] for kind in Kind},
            **young,
            **shown,
        }
    )


class ScrubConfig(dg.Config):
    """How much to read again."""

    topics: list[str] = Field(default=[], description=_WHICH_TOPICS)
    days: float = Field(
        default=DAYS,
        ge=1,
        description="Everything is read again within so many days, if this runs once a day.",
    )


@dg.asset(
    deps=[ARCHIVED_MESSAGES],
    group_name="upkeep",
    owners=["team:hop-archive"],
    description="Every document read again and compared with its row, a share a day, the longest unread first.",
)
def scrubbing(
    context: dg.AssetExecutionContext, config: ScrubConfig, archive: dg.ResourceParam[Archive]
) -> dg.MaterializeResult[None]:
    """Read what is due, and note it. Again, or after a kill: goes on where it was."""
    due = Verification(archive.catalog, archive.store, Query(tuple(config.topics)))
    with as_failures():
        notebook = Notebook(archive.catalog, now=archive.now)
        found, shown = _counted(scrub(Scrub(due, config.days, now=archive.now), notebook))
        _judge(context, archive, due.topics())
        shares = archive.catalog.verified_shares()
    age = {}  # nothing where nothing was ever read, which is not a check of just now
    if oldest := min((share.oldest for share in shares if share.oldest), default=None):
        age = {"oldest_check_days": round((archive.now() - oldest) / datetime.timedelta(days=1), 2)}
    return dg.MaterializeResult(
        metadata={
            "found": sum(found.values()),
            "documents": due.checked.counts["messages"],
            "never_read_offsets": sum(share.never for share in shares),
            **age,
            **shown,
        }
    )


class RepairConfig(dg.Config):
    """What to mend, and whether to."""

    dry_run: bool = Field(default=True, description="Only say what would be done; change nothing.")
    topics: list[str] = Field(
        default=[], description="Findings of these topics only, by name; empty: of all."
    )
    kinds: list[str] = Field(default=[], description="Findings of these kinds only; empty: of all.")
    verify: bool = Field(default=False, description="Verify first, as the job verify does.")


@dg.asset(
    deps=[ARCHIVED_MESSAGES],
    group_name="upkeep",
    owners=["team:hop-archive"],
    description="What verification found, mended as far as it can be: from the store itself, the backup, or Kafka. "
    "Says what it would do, unless dry_run is false.",
)
def repairs(
    context: dg.AssetExecutionContext,
    config: RepairConfig,
    archive: dg.ResourceParam[Archive],
    backup: dg.ResourceParam[Backup],
) -> dg.MaterializeResult[None]:
    """Plan, or do, what mends each open finding. Again: goes on with what is open."""
    outcomes: Counter[str] = Counter()
    rows: list[Mapping[str, str]] = []
    topics: set[str] = set()
    with as_failures():
        if config.verify:
            _counted(verify(_verification(archive, (), backup), Notebook(archive.catalog)))
        work = Repair(
            archive.catalog,
            archive.store,
            backup.store,
            Upstream(archive),
            config.topics or None,
            kinds_of(config.kinds),
            now=archive.now,
            backup_grace_s=backup.grace_s,
        )
        for result in repair(work, dry_run=config.dry_run):
            finding, outcome = result.record.finding, result.outcome.value
            outcomes[outcome] += 1
            topics.add(finding.topic)
            context.log.info(f"{outcome}: {finding.kind.value} {_where(finding)}: {result.how}")
            if len(rows) < MOST_SHOWN:
                rows.append(_row(finding, fate=outcome, how=result.how))
        _judge(context, archive, topics)
    return dg.MaterializeResult(
        metadata={
            "dry_run": config.dry_run,
            **{outcome.value: outcomes[outcome.value] for outcome in RepairOutcome},
            **table("what", rows),
        }
    )


def _verification(archive: Archive, topics: Sequence[str], backup: Backup) -> Verification:
    return Verification(
        archive.catalog,
        archive.store,
        Query(tuple(topics)),
        backup=backup.store,
        backup_grace_s=backup.grace_s,
    )


def _judge(context: dg.AssetExecutionContext, archive: Archive, topics: Collection[str]) -> None:
    """Evaluate the checks of these topics' partitions by what is open of them now."""
    for evaluation in evaluations(context.instance, archive.catalog, topics):
        context.log_event(evaluation)


def _counted(findings: Iterable[tuple[Finding, bool]]) -> tuple[Counter[str], dict[str, dg.MetadataValue]]:
    """How many open ones there are of each kind, and the first of them in a table."""
    counts: Counter[str] = Counter()
    rows: list[Mapping[str, str]] = []
    for finding, is_open in findings:
        counts[finding.kind.value] += is_open
        if is_open and len(rows) < MOST_SHOWN:
            rows.append(_row(finding))
    return counts, table("what", rows)


def _row(finding: Finding, **more: str) -> Mapping[str, str]:
    """A row of the table; what is long comes last, where a narrow window cuts it off."""
    named = {"kind": finding.kind.value, "topic": finding.topic}
    return {**named, **more, "where": _where(finding), "detail": finding.detail}


def _where(finding: Finding) -> str:
    return finding.object_key or str(finding.slice or "")


class ReportConfig(dg.Config):
    """What to report."""

    days: int = Field(default=30, ge=1, description="The last so many days.")


@dg.asset(
    deps=[ARCHIVED_MESSAGES],
    group_name="upkeep",
    owners=["team:hop-archive"],
    description="The archive by topic, in the last days: messages, bytes, lag, lost, duplicates, verified share. "
    "hop-archive report writes the same with plots.",
)
def archive_report(config: ReportConfig, archive: dg.ResourceParam[Archive]) -> dg.MaterializeResult[None]:
    """Ask the catalog, and write a table. Again: the same, as of then."""
    with as_failures():
        found = gather(archive.catalog, archive.now(), config.days)
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.md(markdown(found)),
            "topics": len(found.topics),
            "messages": sum(sum(topic.messages.values()) for topic in found.topics),
            "bytes": sum(sum(topic.size_bytes.values()) for topic in found.topics),
            "lost": sum(sum(topic.lost.values()) for topic in found.topics),
            "duplicates": sum(sum(topic.duplicates.values()) for topic in found.topics),
            "open_findings": sum(topic.open_findings for topic in found.topics),
        }
    )


verify_job = upkeep_job(
    "verify", LONG, verification, "Verifies objects and ledger, and the backup where there is one."
)
verify_often = schedule(
    "verify_often", verify_job, "23 */6 * * *", "Verifies every six hours, by listing: nothing is fetched."
)
scrub_job = upkeep_job("scrub", LONG, scrubbing, "Reads a share of all documents again; run it once a day.")
scrub_nightly = schedule(
    "scrub_nightly",
    scrub_job,
    "37 12 * * *",
    "Reads a thirtieth of all documents once a day, at a quiet hour for American observatories (UTC).",
)
repair_job = upkeep_job(
    "repair", ASKED, repairs, "Shows how open findings would be mended; with dry_run: false, mends them."
)
report_job = upkeep_job(
    "report_archive", SHORT, archive_report, "Reports the archive by topic, in the last days."
)
report_daily = schedule(
    "report_daily", report_job, "7 13 * * *", "Reports once a day, after the scrub (UTC)."
)


class MergeConfig(dg.Config):
    """Which ledger rows to merge."""

    older_than_days: float = Field(
        default=7.0, ge=0, description="Only rows that were made longer ago than this."
    )


@dg.op
def merge_ledger_rows(
    context: dg.OpExecutionContext, config: MergeConfig, archive: dg.ResourceParam[Archive]
) -> None:
    """Merge neighbouring old rows of the ledger, so that it stays small; what it says stays the same."""
    with as_failures():
        merged = archive.catalog.merge_ledger(archive.now() - datetime.timedelta(days=config.older_than_days))
    context.log.info(f"The ledger is shorter by {merged} rows")


@dg.job(tags=upkeep_tags(SHORT), description="Keeps the ledger small.")
def merge_ledger() -> None:
    """One step."""
    merge_ledger_rows()


merge_daily = schedule(
    "merge_daily",
    merge_ledger,
    "17 11 * * *",
    "Merges old ledger rows once a day, at a quiet hour for American observatories (UTC).",
)
