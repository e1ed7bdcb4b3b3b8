"""Upkeep: verifying, scrubbing and repairing the archive, and its ledger kept small.

What verification and scrubbing find is in the catalog's list of findings, which the checks judge; a run that found
something is no failure. Verifying and scrubbing are assets: what they make is the last look. Repairing is a deed, and a job.
"""

import datetime
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.errors import HopArchiveError
from hop_archive.model.findings import Finding, Kind, kinds_of
from hop_archive.model.query import Query
from hop_archive.model.wording import counted, duration
from hop_archive.orchestration.findings import (
    NOTHING_FOUND,
    OF_TOPICS,
    FindingsCheck,
    evaluations,
    whole_evaluations,
    with_news,
)
from hop_archive.orchestration.overview import whole_archive
from hop_archive.orchestration.reports import ARCHIVED_MESSAGES, materializations, unless_zero
from hop_archive.orchestration.resources import Backup, as_failures
from hop_archive.orchestration.runs import (
    ASKED,
    LONG,
    MOST_SHOWN,
    SHORT,
    Home,
    only_fields,
    schedule,
    table,
    upkeep_job,
    upkeep_tags,
)
from hop_archive.upkeep.repair.plan import Repair, Upstream, topics_meant
from hop_archive.upkeep.repair.repair import RepairOutcome, repair
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.scrub import DAYS, scrub
from hop_archive.upkeep.verify.share import DAYS as EVERYTHING_DAYS
from hop_archive.upkeep.verify.share import freshness, verify_share
from hop_archive.upkeep.verify.verification import NEW_NOT_DUE, NOT_DUE, Verification
from hop_archive.upkeep.verify.verify import verify

_WHICH_TOPICS = "Names, or globs such as gcn.*; empty: all topics."


VERIFICATION, SCRUBBING = dg.AssetKey("verification"), dg.AssetKey("scrubbing")


class VerifyConfig(dg.Config):
    """What to verify."""

    topics: list[str] = Field(default=[], description=_WHICH_TOPICS)
    deep: bool = Field(default=False, description="Fetch every document, too, and compare it with its row.")
    days: float = Field(
        default=EVERYTHING_DAYS,
        ge=0,
        description="Look at what is new, and at such a share of the rest that all is looked at within so many days. "
        "0: at everything now, as where topics are named, or with deep.",
    )


@dg.asset(
    deps=[ARCHIVED_MESSAGES],
    group_name="upkeep",
    owners=["team:hop-archive"],
    kinds={"s3", "postgres"},
    check_specs=[
        dg.AssetCheckSpec(NOTHING_FOUND.name, asset="verification", description=NOTHING_FOUND.description)
    ],
    description="Whether every object is there with its size, and the ledger adds up: of what is new each time, of all within "
    f"{EVERYTHING_DAYS:g} days. Deep: whether every document is as its row says. Changes nothing but the list of findings.",
)
def verification(
    context: dg.AssetExecutionContext,
    config: VerifyConfig,
    archive: dg.ResourceParam[Archive],
    backup: dg.ResourceParam[Backup],
) -> dg.MaterializeResult:  # type: ignore[type-arg] # Dagster knows the bare class only
    """Look in every direction that needs no source, and note what is found. Again: goes on where it was, and notes the same once."""
    work, began_s = _verification(archive, config.topics, backup), archive.monotonic()
    recorder = FindingsRecorder(archive.catalog)
    is_share = config.days > 0 and not (config.topics or config.deep)
    with as_failures():
        looks = (
            verify_share(work, recorder, config.days)
            if is_share
            else verify(work, recorder, deep=config.deep)
        )
        try:
            found, shown = _counted(looks)
        except HopArchiveError:
            # What was found until then is noted: the checks are to say so, that of this asset, too, which no result will.
            _judge(context, archive, work.topics(), {VERIFICATION: [NOTHING_FOUND]})
            raise
        _judge(context, archive, work.topics())
        check = NOTHING_FOUND.look(archive.catalog, Home.of(context.run))
        fresh = freshness(_verification(archive, (), backup))
    counts = work.checked.counts
    young = max(counts[NOT_DUE], counts[NEW_NOT_DUE])
    age: dict[str, float | str] = {}  # nothing where something was never looked at
    if fresh.whole_since is not None:
        age = {
            "oldest_look_days": round((archive.now() - fresh.whole_since) / datetime.timedelta(days=1), 2),
            "all_looked_at_since": fresh.whole_since.isoformat(timespec="minutes"),
        }
    return dg.MaterializeResult(
        metadata={
            **_looked(work, archive.monotonic() - began_s),
            **{what: unless_zero(counts[what]) for what in ("objects", "rows", "offsets")},
            "deep": config.deep,
            **({"all_within_days": config.days} if is_share else {}),
            "new_messages": unless_zero(counts["new messages"]),
            "sections_never_looked_at": unless_zero(fresh.never),
            **age,
            **({"copies_not_due_yet": young} if young else {}),
            **_found(found),
            **shown,
        },
        check_results=[check],
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
    kinds={"s3", "postgres"},
    check_specs=[
        dg.AssetCheckSpec(NOTHING_FOUND.name, asset="scrubbing", description=NOTHING_FOUND.description)
    ],
    description="Every document read again and compared with its row, a share a day, the longest unread first.",
)
def scrubbing(
    context: dg.AssetExecutionContext, config: ScrubConfig, archive: dg.ResourceParam[Archive]
) -> dg.MaterializeResult:  # type: ignore[type-arg] # Dagster knows the bare class only
    """Read what is due, and note it. Again, or after a kill: goes on where it was."""
    due = Verification(archive.catalog, archive.store, Query(tuple(config.topics)), now=archive.now)
    began_s = archive.monotonic()
    with as_failures():
        recorder = FindingsRecorder(archive.catalog, now=archive.now)
        before = archive.catalog.verified_shares()
        try:
            found, shown = _counted(scrub(due, recorder, config.days))
        except HopArchiveError:
            _judge(context, archive, due.topics(), {SCRUBBING: [NOTHING_FOUND]})
            raise
        shares = archive.catalog.verified_shares()
        _judge(context, archive, due.topics(), anew={share.topic for share in {*shares}.difference(before)})
        check = NOTHING_FOUND.look(archive.catalog, Home.of(context.run))
    age = {}  # nothing where nothing was ever read, which is not a check of just now
    if oldest := min((share.oldest for share in shares if share.oldest), default=None):
        age = {"oldest_check_days": round((archive.now() - oldest) / datetime.timedelta(days=1), 2)}
    return dg.MaterializeResult(
        metadata={
            **_looked(due, archive.monotonic() - began_s),
            "documents": unless_zero(due.checked.counts["messages"]),
            "never_read_offsets": unless_zero(sum(share.never for share in shares)),
            **age,
            **_found(found),
            **shown,
        },
        check_results=[check],
    )


class RepairConfig(dg.Config):
    """What to mend, and whether to."""

    dry_run: bool = Field(default=True, description="Only say what would be done; change nothing.")
    topics: list[str] = Field(
        default=[], description="Findings of these topics only, by name or glob; empty: of all."
    )
    kinds: list[str] = Field(default=[], description="Findings of these kinds only; empty: of all.")
    verify: bool = Field(default=False, description="Verify first, as the job verify does.")


@dg.op(out=dg.Out(dg.Nothing))
def mend_findings(
    context: dg.OpExecutionContext,
    config: RepairConfig,
    archive: dg.ResourceParam[Archive],
    backup: dg.ResourceParam[Backup],
) -> Iterator[dg.Output[None]]:
    """Plan, or do, what mends each open finding. Again: goes on with what is open."""
    outcomes: Counter[str] = Counter()
    rows: list[Mapping[str, str]] = []
    topics: set[str] = set()
    with as_failures():
        meant = topics_meant(archive.catalog, config.topics)
        if config.verify:
            recorder = FindingsRecorder(archive.catalog)
            found = sum(is_open for _, is_open in verify(_verification(archive, (), backup), recorder))
            recorder.refuse_to_forget(found)
        work = Repair(
            archive.catalog,
            archive.store,
            backup.store,
            Upstream(archive),
            meant,
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
        _judge(context, archive, topics, {VERIFICATION: [NOTHING_FOUND], SCRUBBING: [NOTHING_FOUND]})
    said = ", ".join(f"{outcomes[outcome.value]:,} {outcome.value}" for outcome in RepairOutcome)
    context.log.info(
        f"{said}{'. A dry run: nothing is changed. Set dry_run to false to mend.' if config.dry_run else '.'}"
    )
    yield dg.Output(
        None,
        metadata={
            "dry_run": config.dry_run,
            **{outcome.value: outcomes[outcome.value] for outcome in RepairOutcome},
            **table("what", rows),
        },
    )


@dg.job(
    name="repair",
    config=only_fields("mend_findings", RepairConfig),
    tags=upkeep_tags(ASKED),
    description="Shows how open findings would be mended: from the store itself, the backup, or Kafka. With dry_run: false, "
    "mends them as far as it can be done.",
)
def repair_job() -> None:
    """One step."""
    mend_findings()


def _verification(archive: Archive, topics: Sequence[str], backup: Backup) -> Verification:
    return Verification(
        archive.catalog,
        archive.store,
        Query(tuple(topics)),
        backup=backup.store,
        backup_grace_s=backup.grace_s,
    )


def _judge(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    archive: Archive,
    topics: Collection[str],
    others: Mapping[dg.AssetKey, Sequence[FindingsCheck]] | None = None,
    anew: Collection[str] = (),
) -> None:
    """Evaluate the checks of these topics where there is news, or of those ``anew``, of the archive and of ``others``, by what is open.

    Where there is news, the topic's page is written first: it says how many findings are open, too.
    """
    home = Home.of(context.run)
    news = with_news(context.instance, archive.catalog, topics)
    try:
        for materialization in materializations(archive, sorted(news)):
            context.log_event(materialization)
    except HopArchiveError as error:  # of the source, which none of this needs
        context.log.warning(f"Pages of topics are written later: {error}")
    for evaluation in evaluations(context.instance, archive.catalog, news.union(anew), home):
        context.log_event(evaluation)  # type: ignore[arg-type]  # as in archiving
    checks = {whole_archive.key: OF_TOPICS, **(others or {})}
    for evaluation in whole_evaluations(context.instance, archive.catalog, home, checks):
        context.log_event(evaluation)  # type: ignore[arg-type]


def _looked(work: Verification, took_s: float) -> dict[str, Any]:
    """What was looked at, and how long it took."""
    topics = len({*work.topics()})
    looked = ", ".join(f"{number:,} {what}" for what, number in work.checked.counts.items() if number)
    return {
        "looked_at": f"{looked or 'nothing'}; {counted(topics, 'topic')}, in {duration(took_s)}",
        "took_s": round(took_s, 2),
    }


def _found(found: Counter[str]) -> dict[str, Any]:
    """How many that are open, and of which kinds."""
    return {
        "found": unless_zero(sum(found.values())),
        **{kind.value: found[kind.value] for kind in Kind if found[kind.value]},
    }


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


verify_job = upkeep_job(
    "verify", LONG, verification, "Verifies objects and ledger, and the backup where there is one, by shares."
)
verify_often = schedule(
    "verify_often",
    verify_job,
    "23 */6 * * *",
    "Verifies what is new and a share of the rest every six hours, by listing: nothing is fetched.",
)
scrub_job = upkeep_job("scrub", LONG, scrubbing, "Reads a share of all documents again; run it once a day.")
scrub_nightly = schedule(
    "scrub_nightly",
    scrub_job,
    "37 12 * * *",
    "Reads a thirtieth of all documents once a day, at a quiet hour for American observatories (UTC).",
)


class MergeConfig(dg.Config):
    """Which ledger rows to merge."""

    older_than_days: float = Field(
        default=7.0, ge=0, description="Only rows that were made longer ago than this."
    )
    within_days: float = Field(
        default=7.0,
        ge=0,
        description="Only logs with rows that became that old within these days; 0: all logs.",
    )


@dg.op
def merge_ledger_rows(
    context: dg.OpExecutionContext, config: MergeConfig, archive: dg.ResourceParam[Archive]
) -> None:
    """Merge neighbouring old rows of the ledger, also of logs that fell silent; what it says stays the same."""
    before = archive.now() - datetime.timedelta(days=config.older_than_days)
    since = before - datetime.timedelta(days=config.within_days) if config.within_days else None
    with as_failures():
        merged = archive.catalog.merge_ledger(before, since)
    context.log.info(f"The ledger is shorter by {merged} rows")


@dg.job(tags=upkeep_tags(SHORT), description="Keeps the ledger small.")
def merge_ledger() -> None:
    """One step."""
    merge_ledger_rows()


merge_daily = schedule(
    "merge_daily",
    merge_ledger,
    "17 11 * * *",
    "Merges old ledger rows of logs that fell silent once a day, at a quiet hour for American observatories (UTC).",
)
