"""Asset checks: what must hold of the whole archive, over all topics."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.catalog.protocol import LedgerEntry, Outcome
from hop_archive.orchestration.assets import archived_messages
from hop_archive.orchestration.failures import told
from hop_archive.reporting import holes
from hop_archive.surveying import BEFORE_FIRST_SIGHT, survey

_MOST_SHOWN = 100


@dg.asset_check(
    asset=archived_messages, description="No offset was lost to retention before it was archived."
)
def nothing_lost(archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
    """Red while the ledger holds lost slices: a warning where they were gone before the archive began."""
    with told():
        lost = [entry for entry in archive.catalog.ledger() if entry.outcome is Outcome.LOST]
    overtaken = [entry for entry in lost if entry.reason != BEFORE_FIRST_SIGHT]
    return dg.AssetCheckResult(
        passed=not lost,
        severity=dg.AssetCheckSeverity.ERROR if overtaken else dg.AssetCheckSeverity.WARN,
        description=f"{sum(len(e.slice) for e in lost)} offsets in {len(lost)} slices were lost."
        if lost
        else None,
        metadata=_lost_metadata(lost),
    )


@dg.asset_check(asset=archived_messages, description="No offset between covered ones is without an outcome.")
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
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{sum(found.values())} offsets of {len(found)} partitions are without an outcome."
        if found
        else None,
        metadata={"holes": sum(found.values()), "where": dg.MetadataValue.table(table)}
        if table
        else {"holes": 0},
    )


class LagBounds(dg.Config):
    """How far the archive may be behind."""

    most_messages: int = Field(default=100_000, ge=0, description="Most messages of one topic that may wait.")


@dg.asset_check(asset=archived_messages, description="No topic has more messages waiting than it may.")
def lag_within_bounds(config: LagBounds, archive: dg.ResourceParam[Archive]) -> dg.AssetCheckResult:
    """Red while a topic is too far behind."""
    with told():
        pending = survey(archive).pending()
    behind = {topic: count for topic, count in pending.items() if count > config.most_messages}
    table = [dg.TableRecord({"topic": t, "waiting": n}) for t, n in sorted(behind.items())[:_MOST_SHOWN]]
    return dg.AssetCheckResult(
        passed=not behind,
        description=f"{len(behind)} topics have more than {config.most_messages} messages waiting."
        if behind
        else None,
        metadata={
            "waiting": sum(pending.values()),
            **({"behind": dg.MetadataValue.table(table)} if table else {}),
        },
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
        for entry in lost[-_MOST_SHOWN:]
    ]
    return {"lost_offsets": offsets} | ({"lost": dg.MetadataValue.table(rows)} if rows else {})
