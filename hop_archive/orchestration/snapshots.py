"""Snapshots of the source, every hour: how its topics are set up, and how far its consumer groups have read."""

import dagster as dg

from hop_archive.archive import Archive
from hop_archive.ingest.cluster_state import take_snapshot
from hop_archive.orchestration.failures import told
from hop_archive.orchestration.signs_of_life import in_process
from hop_archive.orchestration.tags import SHORT, scheduled_tags, upkeep_tags

_MOST_SHOWN = 100


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
    with told():
        taken = take_snapshot(archive)
    if taken.hidden:
        context.log.warning(f"Settings of {len(taken.hidden)} topics may not be looked at (DESCRIBE_CONFIGS)")
    if taken.no_groups:
        context.log.warning(f"No consumer group was taken: {taken.no_groups}")
    for topic, why in list(taken.untold.items())[:_MOST_SHOWN]:
        context.log.warning(f"The snapshot of topic {topic}, if there is one, stays as it was: {why}")
    return dg.MaterializeResult(
        metadata={
            "cluster_id": taken.cluster_id,
            "topics": taken.topics,
            "groups": taken.groups,
            "topics_changed": len(taken.changed),
            "changed": ", ".join(taken.changed[:_MOST_SHOWN]),
            "settings_hidden": len(taken.hidden),
            "topics_untold": len(taken.untold),
        }
    )


take_source_snapshot = dg.define_asset_job(
    "take_source_snapshot",
    tags=upkeep_tags(SHORT),
    selection=dg.AssetSelection.assets(source_snapshot),
    executor_def=in_process,
    description="Keeps how the source's topics and consumer groups are set up: materializes source_snapshot.",
)

snapshot_hourly = dg.ScheduleDefinition(
    name="snapshot_hourly",
    job=take_source_snapshot,
    tags=scheduled_tags(SHORT),
    cron_schedule="23 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Takes a snapshot of the source's topics and consumer groups every hour.",
)
