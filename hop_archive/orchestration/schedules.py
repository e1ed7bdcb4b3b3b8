"""Schedules: the checks often, the ledger's upkeep daily."""

from __future__ import annotations

import dagster as dg

from hop_archive.orchestration.jobs import check_archive, merge_ledger
from hop_archive.orchestration.tags import SHORT, scheduled_tags

check_often = dg.ScheduleDefinition(
    name="check_often",
    job=check_archive,
    tags=scheduled_tags(SHORT),
    cron_schedule="*/10 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Evaluates the asset checks every ten minutes.",
)

merge_daily = dg.ScheduleDefinition(
    name="merge_daily",
    job=merge_ledger,
    tags=scheduled_tags(SHORT),
    cron_schedule="17 11 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Merges old ledger rows once a day, at a quiet hour for American observatories (UTC).",
)
