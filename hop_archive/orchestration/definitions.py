"""What Dagster loads. Nothing is connected and no environment is needed to load it."""

from __future__ import annotations

from typing import Any

import dagster as dg

from hop_archive.orchestration import (
    alerts,
    archiving,
    compaction,
    overview,
    removal,
    report_page,
    restore,
    row_jobs,
    runs,
    sensors,
    snapshots,
    upkeep,
)
from hop_archive.orchestration.resources import (
    ArchiveResource,
    BackupResource,
    PacingResource,
    RemovingResource,
    StanzasResource,
    Targets,
)
from hop_archive.orchestration.run_files import RunFilesIOManager


def build_definitions(**resource_overrides: object) -> dg.Definitions:
    """The definitions, with resources replaced by name.

    ``stanzas``, which the others rest on, ``archive``, ``backup``, ``removals``, ``pacing``, ``run_files``,
    ``restore_targets``, ``alarms``.
    """
    stanzas: Any = resource_overrides.get("stanzas") or StanzasResource.configure_at_launch()
    resources: dict[str, object] = {
        "stanzas": stanzas,
        "archive": ArchiveResource(stanzas=stanzas),
        "backup": BackupResource(stanzas=stanzas),
        "removals": RemovingResource(stanzas=stanzas),
        "pacing": PacingResource(),
        "run_files": RunFilesIOManager(),
        "restore_targets": Targets(stanzas=stanzas),
        "alarms": alerts.AlarmsResource(stanzas=stanzas),
    }
    subjects = [archiving, overview, upkeep, report_page, compaction, row_jobs, removal, restore, snapshots]
    return dg.Definitions(
        assets=dg.load_assets_from_modules(subjects, include_specs=True),
        asset_checks=dg.load_asset_checks_from_modules(subjects),
        jobs=[
            archiving.archive_topic,
            archiving.archive_quiet_topics,
            overview.check_archive,
            upkeep.verify_job,
            upkeep.scrub_job,
            upkeep.repair_job,
            report_page.report_job,
            upkeep.merge_ledger,
            compaction.compact,
            row_jobs.index_text,
            row_jobs.correct_media_types,
            removal.deduplicate,
            removal.clean_tests,
            removal.prune,
            restore.restore_job,
            restore.rebuild_catalog,
            snapshots.take_source_snapshot,
            snapshots.catalog_snapshot,
            runs.purge_old_runs,
        ],
        sensors=[
            sensors.topic_partitions,
            sensors.topic_pages,
            sensors.kafka_offsets,
            sensors.dead_runs,
            alerts.alerts,
        ],
        schedules=[
            overview.check_often,
            upkeep.verify_often,
            upkeep.scrub_nightly,
            report_page.report_daily,
            upkeep.merge_daily,
            compaction.compact_nightly,
            row_jobs.index_text_often,
            removal.deduplicate_weekly,
            snapshots.snapshot_hourly,
            snapshots.snapshot_daily,
            runs.purge_daily,
        ],
        # Of all jobs, and of what people and backfills start: a process for each step would cost seconds each, and
        # several at once would hold several times the memory that a run may.
        executor=runs.in_process,
        resources={**resources, **resource_overrides},
    )


defs = build_definitions()
