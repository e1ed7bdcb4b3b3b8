"""What Dagster loads. Nothing is connected and no environment is needed to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from hop_archive.orchestration import truth
from hop_archive.orchestration.assets import archive, archived_messages
from hop_archive.orchestration.catalog_snapshots import catalog_as_parquet, catalog_snapshot, snapshot_daily
from hop_archive.orchestration.checks import (
    coverage_has_no_holes,
    lag_within_bounds,
    no_open_findings,
    nothing_lost,
    objects_present,
    scrubbed_in_time,
)
from hop_archive.orchestration.findings_checks import topic_findings
from hop_archive.orchestration.hand_over import HandOver
from hop_archive.orchestration.jobs import archive_quiet_topics, archive_topic, check_archive, merge_ledger
from hop_archive.orchestration.rebuilding import rebuild_catalog, rebuilt_catalog
from hop_archive.orchestration.removals import (
    clean_tests,
    cleaned_tests,
    deduplicate,
    deduplicate_weekly,
    deduplicated,
    prune,
    pruned,
)
from hop_archive.orchestration.resources import (
    ArchiveResource,
    BackupResource,
    PacingResource,
    RemovingResource,
    StanzasResource,
    TargetsResource,
)
from hop_archive.orchestration.restoring import restore_job, restored_topics
from hop_archive.orchestration.retention import purge_daily, purge_old_runs
from hop_archive.orchestration.schedules import check_often, merge_daily
from hop_archive.orchestration.sensors import dead_runs, kafka_offsets, topic_partitions
from hop_archive.orchestration.signs_of_life import in_process
from hop_archive.orchestration.snapshots import snapshot_hourly, source_snapshot, take_source_snapshot


def build_definitions(**resource_overrides: object) -> dg.Definitions:
    """The definitions, with resources replaced by name.

    ``stanzas``, which the others rest on, ``archive``, ``backup``, ``open_removing``, ``pacing``, ``hand_over``, ``targets``.
    """
    stanzas: Any = resource_overrides.get("stanzas") or StanzasResource.configure_at_launch()
    resources: Mapping[str, object] = {
        "stanzas": stanzas,
        "archive": ArchiveResource(stanzas=stanzas),
        "backup": BackupResource(stanzas=stanzas),
        "open_removing": RemovingResource(stanzas=stanzas),
        "pacing": PacingResource(),
        "hand_over": HandOver(),
        "targets": TargetsResource(stanzas=stanzas),
    }
    return dg.Definitions(
        assets=[
            archived_messages,
            archive,
            source_snapshot,
            catalog_as_parquet,
            rebuilt_catalog,
            restored_topics,
            deduplicated,
            cleaned_tests,
            pruned,
            *truth.ASSETS,
        ],
        asset_checks=[
            nothing_lost,
            coverage_has_no_holes,
            lag_within_bounds,
            objects_present,
            no_open_findings,
            scrubbed_in_time,
            topic_findings,
        ],
        jobs=[
            archive_topic,
            archive_quiet_topics,
            check_archive,
            merge_ledger,
            purge_old_runs,
            take_source_snapshot,
            catalog_snapshot,
            rebuild_catalog,
            restore_job,
            deduplicate,
            clean_tests,
            prune,
            *truth.JOBS,
        ],
        sensors=[
            topic_partitions,
            kafka_offsets,
            dead_runs,
        ],
        schedules=[
            check_often,
            merge_daily,
            purge_daily,
            snapshot_hourly,
            snapshot_daily,
            deduplicate_weekly,
            *truth.SCHEDULES,
        ],
        # What people and backfills start is in one process too: a process for each step would cost seconds
        # each, and several at once would hold several times the memory that a run may.
        executor=in_process,
        resources={**resources, **resource_overrides},
    )


defs = build_definitions()
