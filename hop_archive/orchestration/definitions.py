"""What Dagster loads. Nothing is connected and no environment is needed to load it."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from hop_archive.orchestration.assets import archive, archived_messages
from hop_archive.orchestration.checks import coverage_has_no_holes, lag_within_bounds, nothing_lost
from hop_archive.orchestration.hand_over import HandOver
from hop_archive.orchestration.jobs import archive_quiet_topics, archive_topic, check_archive, merge_ledger
from hop_archive.orchestration.removals import (
    clean_tests,
    cleaned_tests,
    deduplicate,
    deduplicate_weekly,
    deduplicated,
    prune,
    pruned,
)
from hop_archive.orchestration.resources import ArchiveResource, PacingResource, RemovingResource
from hop_archive.orchestration.retention import purge_daily, purge_old_runs
from hop_archive.orchestration.schedules import check_often, merge_daily
from hop_archive.orchestration.sensors import kafka_offsets, topic_partitions


def build_definitions(**resource_overrides: object) -> dg.Definitions:
    """The definitions, with resources replaced by name: ``archive``, ``pacing``, ``hand_over``, ``open_removing``."""
    resources: Mapping[str, object] = {
        "archive": ArchiveResource(),
        "pacing": PacingResource(),
        "hand_over": HandOver(),
        "open_removing": RemovingResource(),
    }
    return dg.Definitions(
        assets=[archived_messages, archive, deduplicated, cleaned_tests, pruned],
        asset_checks=[nothing_lost, coverage_has_no_holes, lag_within_bounds],
        jobs=[
            *(archive_topic, archive_quiet_topics, check_archive, merge_ledger, purge_old_runs),
            *(deduplicate, clean_tests, prune),
        ],
        sensors=[topic_partitions, kafka_offsets],
        schedules=[check_often, merge_daily, purge_daily, deduplicate_weekly],
        # What people and backfills start is in one process too: a process for each step would cost seconds
        # each, and several at once would hold several times the memory that a run may.
        executor=dg.in_process_executor,
        resources={**resources, **resource_overrides},
    )


defs = build_definitions()
