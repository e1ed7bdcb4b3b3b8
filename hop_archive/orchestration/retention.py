"""Old runs go, with their events and logs of events; Dagster's own retention knows ticks only.

What says how far each topic is stays: the run of the newest materialization of each partition of each asset.
"""

import datetime

import dagster as dg
from pydantic import Field

from hop_archive.orchestration.signs_of_life import in_process
from hop_archive.orchestration.tags import SHORT, scheduled_tags, upkeep_tags

_OVER = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_PORTION = 500


class PurgeConfig(dg.Config):
    """Which runs to delete."""

    older_than_days: float = Field(
        default=90.0, ge=0, description="Only runs that were created longer ago than this and are over."
    )
    at_most: int = Field(default=50_000, ge=1, description="So many in one run, the oldest first.")


@dg.op(retry_policy=dg.RetryPolicy(max_retries=2, delay=30))
def delete_old_runs(context: dg.OpExecutionContext, config: PurgeConfig) -> None:
    """Delete old runs from Dagster's storage; the archive's own records are not touched. Again: goes on."""
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=config.older_than_days)
    filters = dg.RunsFilter(statuses=_OVER, created_before=before)
    kept = _telling_runs(context.instance)
    old = [run_id for run_id in context.instance.get_run_ids(filters) if run_id not in kept]
    chosen = old[::-1][: config.at_most]
    for run_id in chosen:
        context.instance.delete_run(run_id)
    context.log.info(f"Deleted {len(chosen)} of {len(old)} runs from before {before:%Y-%m-%d %H:%M} UTC")
    context.add_output_metadata({"deleted": len(chosen), "left_for_the_next_time": len(old) - len(chosen)})


def _telling_runs(instance: dg.DagsterInstance) -> set[str]:
    """The runs that the newest materialization of any partition, or of an asset that has none, is from."""
    found: set[str] = set()
    for key in instance.all_asset_keys():
        newest = instance.get_latest_materialization_event(key)
        found |= {newest.run_id} if newest else set()
        by_partition = instance.get_latest_storage_id_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        ids = sorted(by_partition.values())
        for start in range(0, len(ids), _PORTION):
            filters = dg.AssetRecordsFilter(key, storage_ids=ids[start : start + _PORTION])
            records = instance.fetch_materializations(filters, limit=_PORTION).records
            found |= {record.run_id for record in records}
    return found


@dg.job(
    executor_def=in_process,
    tags=upkeep_tags(SHORT),
    description="Deletes old runs from Dagster's storage, so that it does not grow for ever.",
)
def purge_old_runs() -> None:
    """One step."""
    delete_old_runs()


purge_daily = dg.ScheduleDefinition(
    name="purge_daily",
    job=purge_old_runs,
    tags=scheduled_tags(SHORT),
    cron_schedule="47 11 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Deletes old runs once a day, at a quiet hour for American observatories (UTC).",
)
