"""Verification, scrubbing and repair: an asset job each, to be run alone, with schedules for the first two.

What they find is in the catalog's list of findings, which the checks judge; a run that found something is no failure.
"""

import datetime
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.errors import ConfigurationError
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.query import Query
from hop_archive.orchestration.failures import told
from hop_archive.orchestration.findings_checks import evaluations
from hop_archive.orchestration.materializing import ASSET_KEY
from hop_archive.orchestration.signs_of_life import in_process
from hop_archive.orchestration.tags import ASKED, LONG, SHORT, scheduled_tags, upkeep_tags
from hop_archive.read.report import gather, markdown
from hop_archive.store.protocol import Store
from hop_archive.upkeep.repair.plan import Repair
from hop_archive.upkeep.repair.repair import RepairOutcome, repair
from hop_archive.upkeep.repair.upstream import Upstream
from hop_archive.upkeep.verify.notebook import Notebook
from hop_archive.upkeep.verify.scrub import DAYS, Scrub, scrub
from hop_archive.upkeep.verify.verification import BACKUP_GRACE_S, Verification
from hop_archive.upkeep.verify.verify import verify

_MOST_SHOWN = 100
_TOPICS = "Names, or globs such as gcn.*; empty: all topics."


@dataclass(frozen=True, slots=True)
class Backup:
    """The backup of the archive's store; ``store`` is None where there is none.

    Attributes:
        store: Where the copies are.
        grace_s: How long one may take to get there before it counts as missing.
    """

    store: Store | None = None
    grace_s: float = BACKUP_GRACE_S


class VerifyConfig(dg.Config):
    """What to verify."""

    topics: list[str] = Field(default=[], description=_TOPICS)
    deep: bool = Field(default=False, description="Fetch every document, too, and compare it with its row.")


class ScrubConfig(dg.Config):
    """How much to read again."""

    topics: list[str] = Field(default=[], description=_TOPICS)
    days: float = Field(
        default=DAYS,
        ge=1,
        description="Everything is read again within so many days, if this runs once a day.",
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
    deps=[ASSET_KEY],
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
    wanted = _verification(archive, config.topics, backup)
    with told():
        found, shown = _counted(verify(wanted, Notebook(archive.catalog), deep=config.deep))
        _judge(context, archive, wanted.topics())
    counts = wanted.checked.counts
    young = {"copies_not_due_yet": counts["copies not due yet"]} if backup.store is not None else {}
    return dg.MaterializeResult(
        metadata={"found": sum(found.values()), **_by_kind(found), **young, **_table(shown)}
    )


@dg.asset(
    deps=[ASSET_KEY],
    group_name="upkeep",
    owners=["team:hop-archive"],
    description="Every document read again and compared with its row, a share a day, the longest unread first.",
)
def scrubbing(
    context: dg.AssetExecutionContext, config: ScrubConfig, archive: dg.ResourceParam[Archive]
) -> dg.MaterializeResult[None]:
    """Read what is due, and note it. Again, or after a kill: goes on where it was."""
    wanted = Verification(archive.catalog, archive.store, Query(tuple(config.topics)))
    asked = Scrub(wanted, config.days, now=archive.now)
    with told():
        notebook = Notebook(archive.catalog, now=archive.now)
        found, shown = _counted(scrub(asked, notebook))
        _judge(context, archive, wanted.topics())
        shares = archive.catalog.verified_shares()
    oldest = min((one.oldest for one in shares if one.oldest), default=None)
    return dg.MaterializeResult(
        metadata={
            "found": sum(found.values()),
            "documents": wanted.checked.counts["messages"],
            "never_read_offsets": sum(one.never for one in shares),
            **_age(oldest, archive.now()),
            **_table(shown),
        }
    )


@dg.asset(
    deps=[ASSET_KEY],
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
    rows: list[dg.TableRecord] = []
    topics: set[str] = set()
    with told():
        if config.verify:
            _counted(verify(_verification(archive, (), backup), Notebook(archive.catalog)))
        asked = Repair(
            archive.catalog,
            archive.store,
            backup.store,
            Upstream(archive),
            config.topics or None,
            _kinds(config.kinds),
            now=archive.now,
            backup_grace_s=backup.grace_s,
        )
        for one in repair(asked, dry_run=config.dry_run):
            outcomes[one.outcome.value] += 1
            finding = one.record.finding
            topics.add(finding.topic)
            context.log.info(f"{one.outcome.value}: {finding.kind.value} {_where(finding)}: {one.how}")
            if len(rows) < _MOST_SHOWN:
                rows.append(_record(finding, fate=one.outcome.value, how=one.how))
        _judge(context, archive, topics)
    return dg.MaterializeResult(
        metadata={
            "dry_run": dg.MetadataValue.bool(config.dry_run),
            **{outcome.value: outcomes[outcome.value] for outcome in RepairOutcome},
            **({"what": dg.MetadataValue.table(rows)} if rows else {}),
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
    for one in evaluations(context.instance, archive.catalog, topics):
        context.log_event(one)


def _kinds(names: Sequence[str]) -> list[Kind] | None:
    known = {kind.value: kind for kind in Kind}
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"There is no kind of finding called {name}.", remedy=f"There are: {', '.join(known)}."
            )
    return [known[name] for name in names] or None


def _counted(findings: Iterable[tuple[Finding, bool]]) -> tuple[Counter[str], list[Finding]]:
    """The open ones by kind, and the first of them."""
    counts: Counter[str] = Counter()
    shown: list[Finding] = []
    for finding, is_open in findings:
        counts[finding.kind.value] += is_open
        if is_open and len(shown) < _MOST_SHOWN:
            shown.append(finding)
    return counts, shown


def _by_kind(found: Counter[str]) -> dict[str, int]:
    return {kind.value: found[kind.value] for kind in Kind}


def _table(shown: Sequence[Finding]) -> dict[str, dg.MetadataValue]:
    return {"what": dg.MetadataValue.table([_record(one) for one in shown])} if shown else {}


def _record(one: Finding, **more: str) -> dg.TableRecord:
    """A row of the table; what is long comes last, where a narrow window cuts it off."""
    named = {"kind": one.kind.value, "topic": one.topic}
    return dg.TableRecord({**named, **more, "where": _where(one), "detail": one.detail})


def _where(one: Finding) -> str:
    return one.object_key or str(one.slice or "")


def _age(oldest: datetime.datetime | None, now: datetime.datetime) -> dict[str, float]:
    """How long ago the oldest check is; nothing where nothing was ever read, which is not a check of just now."""
    return (
        {} if oldest is None else {"oldest_check_days": round((now - oldest) / datetime.timedelta(days=1), 2)}
    )


class ReportConfig(dg.Config):
    """What to report."""

    days: int = Field(default=30, ge=1, description="The last so many days.")


@dg.asset(
    deps=[ASSET_KEY],
    group_name="upkeep",
    owners=["team:hop-archive"],
    description="The archive by topic, in the last days: messages, bytes, lag, lost, duplicates, verified share. "
    "hop-archive report writes the same with plots.",
)
def archive_report(config: ReportConfig, archive: dg.ResourceParam[Archive]) -> dg.MaterializeResult[None]:
    """Ask the catalog, and write a table. Again: the same, as of then."""
    with told():
        found = gather(archive.catalog, archive.now(), config.days)
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.md(markdown(found)),
            "topics": len(found.topics),
            "messages": sum(sum(one.messages.values()) for one in found.topics),
            "bytes": sum(sum(one.size_bytes.values()) for one in found.topics),
            "lost": sum(sum(one.lost.values()) for one in found.topics),
            "duplicates": sum(sum(one.duplicates.values()) for one in found.topics),
            "open_findings": sum(one.open_findings for one in found.topics),
        }
    )


verify_job = dg.define_asset_job(
    "verify",
    tags=upkeep_tags(LONG),
    selection=dg.AssetSelection.assets(verification),
    executor_def=in_process,
    description="Verifies objects and ledger, and the backup where there is one.",
)
scrub_job = dg.define_asset_job(
    "scrub",
    tags=upkeep_tags(LONG),
    selection=dg.AssetSelection.assets(scrubbing),
    executor_def=in_process,
    description="Reads a share of all documents again; run it once a day.",
)
repair_job = dg.define_asset_job(
    "repair",
    tags=upkeep_tags(ASKED),
    selection=dg.AssetSelection.assets(repairs),
    executor_def=in_process,
    description="Shows how open findings would be mended; with dry_run: false, mends them.",
)

report_job = dg.define_asset_job(
    "report_archive",
    tags=upkeep_tags(SHORT),
    selection=dg.AssetSelection.assets(archive_report),
    executor_def=in_process,
    description="Reports the archive by topic, in the last days.",
)

report_daily = dg.ScheduleDefinition(
    name="report_daily",
    job=report_job,
    tags=scheduled_tags(SHORT),
    cron_schedule="7 13 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Reports once a day, after the scrub (UTC).",
)

verify_often = dg.ScheduleDefinition(
    name="verify_often",
    job=verify_job,
    tags=scheduled_tags(LONG),
    cron_schedule="23 */6 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Verifies every six hours, by listing: nothing is fetched.",
)

scrub_nightly = dg.ScheduleDefinition(
    name="scrub_nightly",
    job=scrub_job,
    tags=scheduled_tags(LONG),
    cron_schedule="37 12 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Reads a thirtieth of all documents once a day, at a quiet hour for American observatories (UTC).",
)

ASSETS = (verification, scrubbing, repairs, archive_report)
JOBS = (verify_job, scrub_job, repair_job, report_job)
SCHEDULES = (verify_often, scrub_nightly, report_daily)
