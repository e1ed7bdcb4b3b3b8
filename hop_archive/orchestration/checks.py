"""Asset checks: what must hold of the whole archive, over all topics."""

import datetime
from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.catalog.records import LedgerEntry, Outcome
from hop_archive.ingest.survey import BEFORE_FIRST_SIGHT, survey
from hop_archive.ingest.write import UNREADABLE
from hop_archive.model.wording import counted
from hop_archive.orchestration.assets import archive as the_archive
from hop_archive.orchestration.failures import told
from hop_archive.orchestration.findings_checks import NO_OPEN_FINDINGS, OBJECTS_PRESENT
from hop_archive.read.topic_facts import holes
from hop_archive.upkeep.verify.scrub import DAYS

_MOST_SHOWN = 100


@dg.asset_check(
    asset=the_archive.key,
    description="No offset was lost to retention, with its topic, or for being unreadable, before it was archived.",
)
def nothing_lost(archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
    """Red from the first loss on: what is lost stays lost. Yellow where it was gone before the archive began."""
    with told():
        losers = [s.topic for s in archive.catalog.summaries() if s.lost or s.skipped]
        lost = [entry for entry in archive.catalog.ledger(losers) if _is_loss(entry)]
    overtaken = [entry for entry in lost if entry.reason != BEFORE_FIRST_SIGHT]
    before = sum(len(entry.slice) for entry in lost) - sum(len(entry.slice) for entry in overtaken)
    return dg.AssetCheckResult(
        passed=not lost,
        severity=dg.AssetCheckSeverity.ERROR if overtaken else dg.AssetCheckSeverity.WARN,
        description=_told(overtaken, before),
        metadata={"offsets_gone_before_the_archive_began": before, **_lost_metadata(overtaken)},
    )


@dg.asset_check(asset=the_archive.key, description="No offset between covered ones is without an outcome.")
def coverage_has_no_holes(archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
    """Yellow while there are holes: the next run fills those that Kafka still holds."""
    with told():
        found = holes(archive)
    table = [
        dg.TableRecord(
            {"topic": at.topic, "generation": at.generation, "partition": at.partition, "offsets": n}
        )
        for at, n in sorted(found.items())[:_MOST_SHOWN]
    ]
    where = {"where": dg.MetadataValue.table(table)} if table else {}
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{counted(sum(found.values()), 'offset is', 'offsets are')} without an outcome, "
        f"in {counted(len(found), 'partition')}."
        if found
        else None,
        metadata={"holes": sum(found.values()), **where},
    )


class LagBounds(dg.Config):
    """How far the archive may be behind."""

    most_messages: int = Field(default=100_000, ge=0, description="Most messages of one topic that may wait.")


@dg.asset_check(asset=the_archive.key, description="No topic has more messages waiting than it may.")
def lag_within_bounds(config: LagBounds, archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
    """Red while a topic is too far behind, or it is not known how far."""
    with told():
        seen = survey(archive)
    pending, unseen = seen.pending(), len(seen.obstacles)
    behind = {topic: count for topic, count in pending.items() if count > config.most_messages}
    table = [dg.TableRecord({"topic": t, "waiting": n}) for t, n in sorted(behind.items())[:_MOST_SHOWN]]
    where = {"behind": dg.MetadataValue.table(table)} if table else {}
    said = []
    if behind:
        said.append(
            f"{counted(len(behind), 'topic has', 'topics have')} more than "
            f"{counted(config.most_messages, 'message')} waiting."
        )
    if unseen:
        said.append(
            f"{counted(unseen, 'topic or partition', 'topics or partitions')} could not be looked at, or may not be read: "
            "how much waits there is not known to be little."
        )
    unlooked = [
        dg.TableRecord({"topic": one.topic, "kind": one.kind.value, "why": one.detail})
        for one in seen.obstacles[:_MOST_SHOWN]
    ]
    not_seen = {"in_the_way": dg.MetadataValue.table(unlooked)} if unlooked else {}
    return dg.AssetCheckResult(
        passed=not said,
        description=" ".join(said) or None,
        metadata={"waiting": sum(pending.values()), **where, **not_seen},
    )


@dg.asset_check(asset=the_archive.key, description=OBJECTS_PRESENT.description)
def objects_present(archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
    """Red while verification's findings of objects are open, by topic."""
    with told():
        return OBJECTS_PRESENT.judge(archive.catalog.open_findings())


@dg.asset_check(asset=the_archive.key, description=NO_OPEN_FINDINGS.description)
def no_open_findings(archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
    """Red while findings are open, by topic; yellow where all is archived and only something too much is there."""
    with told():
        return NO_OPEN_FINDINGS.judge(archive.catalog.open_findings())


class ScrubBounds(dg.Config):
    """How long ago a document may have been read last."""

    days: float = Field(
        default=DAYS + 5, gt=0, description="Most days since a document was compared with its row."
    )


@dg.asset_check(
    asset=the_archive.key,
    description="What was once read and compared is so again within the days that are set.",
)
def scrubbed_in_time(config: ScrubBounds, archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
    """Yellow where the job scrub does not keep up, by topic."""
    with told():
        shares = archive.catalog.verified_shares()
    before = archive.now() - datetime.timedelta(days=config.days)
    late = [one for one in shares if one.oldest is not None and one.oldest < before]
    rows = [
        dg.TableRecord({"topic": one.topic, "oldest_check": one.oldest.isoformat(timespec="minutes")})
        for one in late[:_MOST_SHOWN]
        if one.oldest is not None
    ]
    counts = {"never_read_offsets": sum(one.never for one in shares)}
    return dg.AssetCheckResult(
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"In {counted(len(late), 'topic')} the oldest check is more than {config.days:g} days ago."
        if late
        else None,
        metadata={**counts, **({"late": dg.MetadataValue.table(rows)} if rows else {})},
    )


def _is_loss(entry: LedgerEntry) -> bool:
    """Whether it says that messages could not be archived; other skipped slices were left out on purpose."""
    return entry.outcome is Outcome.LOST or entry.reason.startswith(UNREADABLE)


def _told(overtaken: Sequence[LedgerEntry], before: int) -> str | None:
    if overtaken:
        number = sum(len(entry.slice) for entry in overtaken)
        return f"{counted(number, 'offset was', 'offsets were')} lost, in {counted(len(overtaken), 'slice')}."
    return (
        f"{counted(before, 'offset was', 'offsets were')} gone before the archive began." if before else None
    )


def _lost_metadata(lost: Sequence[LedgerEntry]) -> dict[str, dg.MetadataValue]:
    offsets = dg.MetadataValue.int(sum(len(entry.slice) for entry in lost))
    rows = [
        dg.TableRecord(
            {
                "slice": str(entry.slice),
                "offsets": len(entry.slice),
                "reason": entry.reason,
                "recorded": entry.created_at.isoformat(timespec="seconds"),
            }
        )
        for entry in sorted(lost, key=lambda entry: entry.created_at)[-_MOST_SHOWN:]
    ]
    return {"lost_offsets": offsets} | ({"lost": dg.MetadataValue.table(rows)} if rows else {})
