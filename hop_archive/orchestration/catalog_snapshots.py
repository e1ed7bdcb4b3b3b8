"""The daily snapshot of the catalog as Parquet, into the store or a folder."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from hop_archive.archive import Archive
from hop_archive.orchestration.failures import told
from hop_archive.orchestration.signs_of_life import in_process
from hop_archive.orchestration.tags import LONG, scheduled_tags, upkeep_tags
from hop_archive.read.catalog_snapshot import CatalogSnapshot, snapshot
from hop_archive.read.snapshot_locations import FolderLocation, StoreLocation


class SnapshotConfig(dg.Config):
    """Where the snapshot goes, and how much of it is written."""

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
    context: dg.AssetExecutionContext, config: SnapshotConfig, archive: dg.ResourceParam[Archive]
) -> dg.MaterializeResult[None]:
    """Write what changed since the last time. A run that was killed leaves the snapshot before it whole."""
    location = FolderLocation(Path(config.folder)) if config.folder else StoreLocation(archive.store)
    wanted = CatalogSnapshot(
        archive.catalog,
        location,
        full=config.full,
        whole_after_days=config.whole_after_days,
        now=archive.now,
    )
    with told():
        manifest = snapshot(wanted)
    written = {
        "rows_written": wanted.progress.counts["rows"],
        "files_written": wanted.progress.counts["files"],
    }
    return dg.MaterializeResult(
        metadata={
            "where": str(location),
            "number": manifest["number"],
            "messages": manifest["messages"],
            **written,
        }
    )


catalog_snapshot = dg.define_asset_job(
    "catalog_snapshot",
    tags=upkeep_tags(LONG),
    selection=dg.AssetSelection.assets(catalog_as_parquet),
    executor_def=in_process,
    description="Writes what changed in the catalog as Parquet.",
)

snapshot_daily = dg.ScheduleDefinition(
    name="snapshot_daily",
    job=catalog_snapshot,
    tags=scheduled_tags(LONG),
    cron_schedule="27 12 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Writes what changed in the catalog as Parquet once a day, at a quiet hour (UTC).",
)
