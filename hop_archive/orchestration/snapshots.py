"""Snapshots: of the source's topics and consumer groups, every hour; of the catalog as Parquet, every day.

What writes Parquet is imported when it is used: each run of each job imports this module, and waits for it.
"""

from pathlib import Path

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.ingest.cluster_state import take_snapshot
from hop_archive.orchestration.reports import unless_zero
from hop_archive.orchestration.resources import as_failures
from hop_archive.orchestration.runs import LONG, MOST_SHOWN, SHORT, schedule, upkeep_job


@dg.asset(
    group_name="archive",
    owners=["team:hop-archive"],
    kinds={"kafka", "postgres"},
    retry_policy=dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL),
    description=(
        "How the topics that are archived are set up on the source (partitions, settings of their own), and the "
        "offsets that consumer groups have committed of them, kept in the catalog: what a restore needs beside "
        "messages. Materializing it asks the source again; a topic or group that is gone keeps its last."
    ),
)
def source_snapshot(
    context: dg.AssetExecutionContext, archive: dg.ResourceParam[Archive]
) -> dg.MaterializeResult[None]:
    """Take a snapshot. Again: the later one stays."""
    with as_failures():
        taken = take_snapshot(archive)
    if taken.hidden:
        context.log.warning(f"Settings of {len(taken.hidden)} topics may not be looked at (DESCRIBE_CONFIGS)")
    if taken.no_groups:
        context.log.warning(f"No consumer group was taken: {taken.no_groups}")
    for topic, why in list(taken.untold.items())[:MOST_SHOWN]:
        context.log.warning(f"The snapshot of topic {topic}, if there is one, stays as it was: {why}")
    return dg.MaterializeResult(
        metadata={
            "cluster_id": taken.cluster_id,
            "topics": taken.topics,
            "groups": taken.groups,
            "topics_changed": unless_zero(len(taken.changed)),
            "changed": ", ".join(taken.changed[:MOST_SHOWN]) or "none",
            "settings_hidden": unless_zero(len(taken.hidden)),
            "topics_untold": unless_zero(len(taken.untold)),
        }
    )


take_source_snapshot = upkeep_job(
    "take_source_snapshot",
    SHORT,
    source_snapshot,
    "Keeps how the source's topics and consumer groups are set up: materializes source_snapshot.",
)
snapshot_hourly = schedule(
    "snapshot_hourly",
    take_source_snapshot,
    "23 * * * *",
    "Takes a snapshot of the source's topics and consumer groups every hour.",
)


class SnapshotConfig(dg.Config):
    """Where the catalog's snapshot goes, and how much of it is written."""

    folder: str = Field(
        default="", description="A folder that all runs see; empty: hop_archive/snapshots/ in the store."
    )
    full: bool = Field(default=False, description="Write all topics anew, not only what changed.")
    whole_after_days: float = Field(
        default=30.0, ge=0, description="Write a topic anew after so long, changed or not."
    )


@dg.asset(
    group_name="upkeep",
    kinds={"parquet", "s3"},
    owners=["team:hop-archive"],
    description="The catalog as Parquet, by topic and month, with a manifest: for DuckDB and pandas, and for "
    "rebuild_catalog. Each run writes what changed; nothing is deleted in the store.",
)
def catalog_as_parquet(
    config: SnapshotConfig, archive: dg.ResourceParam[Archive]
) -> dg.MaterializeResult[None]:
    """Write what changed since the last time. A run that was killed leaves the snapshot before it whole."""
    from hop_archive.read.catalog_snapshot import CatalogSnapshot, snapshot
    from hop_archive.read.snapshot_locations import FolderLocation, StoreLocation

    location = FolderLocation(Path(config.folder)) if config.folder else StoreLocation(archive.store)
    work = CatalogSnapshot(
        archive.catalog, location, full=config.full, whole_after_days=config.whole_after_days, now=archive.now
    )
    with as_failures():
        manifest = snapshot(work)
    return dg.MaterializeResult(
        metadata={
            "where": str(location),
            "number": manifest["number"],
            "messages": manifest["messages"],
            "rows_written": work.progress.counts["rows"],
            "files_written": work.progress.counts["files"],
        }
    )


catalog_snapshot = upkeep_job(
    "catalog_snapshot", LONG, catalog_as_parquet, "Writes what changed in the catalog as Parquet."
)
snapshot_daily = schedule(
    "snapshot_daily",
    catalog_snapshot,
    "27 12 * * *",
    "Writes what changed in the catalog as Parquet once a day, at a quiet hour (UTC).",
)
