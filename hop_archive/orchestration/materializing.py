"""What a run says on the asset page: numbers that the UI plots, by topic."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from hop_archive.archive import Archive
from hop_archive.ingest.survey import survey
from hop_archive.ingest.tally import TopicTally
from hop_archive.orchestration.tags import topic_tags

ASSET_KEY = dg.AssetKey("archived_messages")


def report_topics(
    context: dg.OpExecutionContext, archive: Archive, total: Mapping[str, TopicTally]
) -> dict[str, dg.MetadataValue]:
    """Log a materialization of every topic that had messages, unless the run is an asset's own; tag the run.

    Returns:
        The metadata of the run's output: its topic's numbers, or the sums over all.
    """
    shared = not context.has_partition_key
    lags = survey(archive, list(total)).pending() if total else {}
    elapsed_s = _elapsed_s(context, archive)
    if shared:
        for topic, one in sorted(total.items()):
            metadata = _metadata(archive, one, lags.get(topic, 0), elapsed_s)
            context.log_event(dg.AssetMaterialization(ASSET_KEY, partition=topic, metadata=metadata))
    # Followed topics are known now only, and runs that people start have no tags of the sensor's.
    tags = topic_tags(total if shared else [context.partition_key], shared=shared)
    context.instance.add_run_tags(
        context.run_id, {k: v for k, v in tags.items() if k not in context.run_tags}
    )
    whole = sum(total.values(), start=TopicTally("all"))
    return _metadata(archive, whole, sum(lags.values()), elapsed_s)


def _metadata(archive: Archive, one: TopicTally, lag: int, elapsed_s: float) -> dict[str, dg.MetadataValue]:
    return {
        "messages": dg.MetadataValue.int(one.messages),
        "bytes": dg.MetadataValue.int(one.size_bytes),
        "duplicates": dg.MetadataValue.int(one.duplicates),
        "absent": dg.MetadataValue.int(one.absent),
        "lost": dg.MetadataValue.int(one.lost),
        "collisions": dg.MetadataValue.int(one.collisions),
        "lag_messages": dg.MetadataValue.int(lag),
        "lag_s": dg.MetadataValue.float(_lag_s(archive, one)),
        "messages_per_s": dg.MetadataValue.float(round(one.messages / elapsed_s, 1)),
    }


def _elapsed_s(context: dg.OpExecutionContext, archive: Archive) -> float:
    """How long the run has taken so far."""
    now = archive.now().timestamp()
    record = context.instance.get_run_record_by_id(context.run_id)
    started = record.start_time if record and record.start_time else now
    return max(now - started, 0.001)


def _lag_s(archive: Archive, one: TopicTally) -> float:
    """How old the newest archived message was when this was said; 0 where there is none to judge by."""
    if one.last_timestamp_ms is None or one.last_timestamp_ms < 0:
        return 0.0
    return round(max(0.0, archive.now().timestamp() - one.last_timestamp_ms / 1000), 1)
