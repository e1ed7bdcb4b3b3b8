"""What a run says on the asset page: numbers that the UI plots, by topic."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from hop_archive.archive import Archive
from hop_archive.reporting import Tally
from hop_archive.surveying import survey

ASSET_KEY = dg.AssetKey("archived_messages")


def report_topics(
    context: dg.OpExecutionContext, archive: Archive, total: Mapping[str, Tally]
) -> dict[str, dg.MetadataValue]:
    """Log a materialization of every topic that had messages, unless the run is an asset's own.

    Returns:
        The metadata of the run's output: its topic's numbers, or the sums over all.
    """
    lags = survey(archive, list(total)).pending() if total else {}
    if not context.has_partition_key:
        for topic, one in sorted(total.items()):
            context.log_event(
                dg.AssetMaterialization(
                    ASSET_KEY, partition=topic, metadata=_metadata(context, archive, one, lags.get(topic, 0))
                )
            )
    whole = sum(total.values(), start=Tally("all"))
    return _metadata(context, archive, whole, sum(lags.values()))


def _metadata(
    context: dg.OpExecutionContext, archive: Archive, one: Tally, lag: int
) -> dict[str, dg.MetadataValue]:
    started = context.instance.get_run_stats(context.run_id).start_time or archive.now().timestamp()
    elapsed_s = max(archive.now().timestamp() - started, 0.001)
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


def _lag_s(archive: Archive, one: Tally) -> float:
    """How old the newest archived message was when this was said; 0 where there is none to judge by."""
    if one.last_timestamp_ms is None or one.last_timestamp_ms < 0:
        return 0.0
    return round(max(0.0, archive.now().timestamp() - one.last_timestamp_ms / 1000), 1)
