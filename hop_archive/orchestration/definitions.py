"""What Dagster loads. Nothing is connected and no environment is needed to load it."""

from __future__ import annotations

from typing import Any

import dagster as dg

from hop_archive.orchestration import archiving, removal, restore, runs, sensors, snapshots, upkeep
from hop_archive.orchestration.hand_over import HandOver
from hop_archive.orchestration.resources import (
    ArchiveResource,
    BackupResource,
    PacingResource,
    RemovingResource,
    StanzasResource,
    Targets,
)


def build_definitions(**resource_overrides: object) -> dg.Definitions:
    """The definitions, with resources replaced by name.

    ``stanzas``, which the others rest on, ``archive``, ``backup``, ``open_removing``, ``pacing``, ``hand_over``, ``targets``.
    """
    stanzas: Any = resource_overrides.get("stanzas") or StanzasResource.configure_at_launch()
    resources: dict[str, object] = {
        "stanzas": stanzas,
        "archive": ArchiveResource(stanzas=stanzas),
        "backup": BackupResource(stanzas=stanzas),
        "open_removing": RemovingResource(stanzas=stanzas),
        "pacing": PacingResource(),
        "hand_over": HandOver(),
        "targets": Targets(stanzas=stanzas),
    }
    subjects = [archiving, upkeep, removal, restore, snapshots]
    return dg.Definitions(
        assets=dg.load_assets_from_modules(subjects, include_specs=True),
        asset_checks=dg.load_asset_checks_from_modules(subjects),
        jobs=[
            archiving.archive_topic,
            archiving.archive_quiet_topics,
            upkeep.check_archive,
            upkeep.verify_job,
            upkeep.scrub_job,
            upkeep.repair_job,
            upkeep.report_job,
            upkeep.merge_ledger,
            removal.deduplicate,
            removal.clean_tests,
            removal.prune,
            restore.restore_job,
            restore.rebuild_catalog,
            snapshots.take_source_snapshot,
            snapshots.catalog_snapshot,
            runs.purge_old_runs,
        ],
        sensors=[sensors.topic_partitions, sensors.kafka_offsets, sensors.dead_runs],
        schedules=[
            upkeep.check_often,
            upkeep.verify_often,
            upkeep.scrub_nightly,
            upkeep.report_daily,
            upkeep.merge_daily,
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
