"""What is said of what was archived: of a run in one event, of a topic at a pace that people can see.

A materialization takes 16 to 30 ms (2026-11-28). Said of each topic by each run, they were half of what 1,000 topics with a
message a minute cost, and 95 MB of events an hour.
"""

import datetime
import math
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import dagster as dg

from hop_archive.archive import Archive
from hop_archive.catalog.records import TopicSummary
from hop_archive.ingest.survey import survey
from hop_archive.ingest.totals import TopicTotals
from hop_archive.model.slices import OffsetSet, PartitionLog
from hop_archive.model.wording import counted, duration, size
from hop_archive.orchestration.runs import newest_materializations, table

ARCHIVED_MESSAGES = dg.AssetKey("archived_messages")

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LONGEST_BAR = 24
_MOST_PARTITIONS = 12

_MOST_AGAIN = 10
_AGAIN_EVERY_S = 6.0
"""A run reports so many topics that have been reported before, and one more for so many seconds that it took."""


def elapsed_s(context: dg.OpExecutionContext) -> float:
    """For how long the run has been going on."""
    record = context.instance.get_run_record_by_id(context.run_id)
    return max(time.time() - record.start_time, 0.001) if record and record.start_time else 0.001


def topics_to_report(
    instance: dg.DagsterInstance, totals: Mapping[str, TopicTotals], every_s: float, took_s: float
) -> list[str]:
    """Those of the topics that had messages of which to materialize the partition now.

    All that never were; of the others those that lost messages, then those that were longest ago, none within ``every_s``,
    and no more than the run's share. So the event log grows with runs, however many topics and messages they have.
    """
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    if not totals:
        return []
    newest = instance.get_latest_storage_id_by_partition(ARCHIVED_MESSAGES, kind, {*totals})
    most = _MOST_AGAIN + int(took_s / _AGAIN_EVERY_S)
    again = sorted(newest, key=lambda topic: (not totals[topic].lost, newest[topic]))[:most]
    ids = [newest[topic] for topic in again]
    filters = dg.AssetRecordsFilter(ARCHIVED_MESSAGES, storage_ids=ids)
    records = instance.fetch_materializations(filters, limit=len(ids)).records if ids else ()
    now_s = time.time()
    recent = {record.partition_key for record in records if now_s - record.timestamp < every_s}
    due = {topic for topic in again if topic not in recent or totals[topic].lost}
    return sorted(due | (totals.keys() - newest.keys()))


def out_of_date(instance: dg.DagsterInstance, last_batches_s: Mapping[str, float]) -> list[str]:
    """Those of the topics whose page was last written before their last batch, in seconds since 1970, was committed."""
    records = newest_materializations(instance, ARCHIVED_MESSAGES, last_batches_s)
    reported_s = {record.partition_key: record.timestamp for record in records}
    return [topic for topic, at in last_batches_s.items() if reported_s.get(topic, 0.0) < at]


def materializations(archive: Archive, topics: Collection[str]) -> Iterator[dg.AssetMaterialization]:
    """What the archive has of each of these topics in total, and how far behind it is: what the UI shows and plots."""
    if not topics:
        return
    seen = survey(archive, topics)
    lags = seen.pending()
    summaries = {summary.topic: summary for summary in archive.catalog.summaries(topics)}
    coverage: dict[str, dict[PartitionLog, OffsetSet]] = {}
    for at, offsets in seen.coverage.items():
        coverage.setdefault(at.topic, {})[at] = offsets
    found = Counter[str]()
    for count in archive.catalog.open_findings(topics):
        found[count.topic] += count.number
    now = archive.now()
    for topic in topics:
        has = summaries.get(topic) or TopicSummary(topic)
        waits = lags.get(topic, 0)
        metadata: dict[str, Any] = {
            "dagster/row_count": has.messages,
            "dagster/size_bytes": has.size_bytes,
            "first_message": moment(has.first_timestamp_ms),
            "last_message": moment(has.last_timestamp_ms),
            "last_offsets": _last_offsets(coverage.get(topic, {})),
            "lag": f"{counted(waits, 'message waits', 'messages wait')}; the newest archived is "
            f"{age(now, has.last_timestamp_ms)}"
            if waits
            else "none: all that Kafka holds is archived",
            "duplicates": f"{has.duplicates:,}",
            "absent": f"{has.absent:,}",
            "lost": f"{has.lost:,}",
            "open_findings": f"{found[topic]:,}",
        }
        yield dg.AssetMaterialization(ARCHIVED_MESSAGES, partition=topic, metadata=metadata)


def _last_offsets(coverage: Mapping[PartitionLog, OffsetSet]) -> str:
    """The last offset that was dealt with of each partition of the newest generation, the first partitions of many."""
    newest = max((at.generation for at in coverage), default=0)
    last = sorted(
        (at.partition, done.stop - 1) for at, done in coverage.items() if at.generation == newest and done
    )
    named = ", ".join(f"partition {partition}: {offset:,}" for partition, offset in last[:_MOST_PARTITIONS])
    more = len(last) - _MOST_PARTITIONS
    return (named or "none") + (f" and {more} partitions more" if more > 0 else "")


def unless_zero(number: int) -> int | str:
    """The number; none as a word, which is no point of a plot: lines along zero hide those that tell something."""
    return number or "none"


def moment(timestamp_ms: int | None) -> dg.MetadataValue:
    """A message's timestamp. Kafka takes any int64: what no calendar of ours reaches is the number that it is."""
    if timestamp_ms is None:
        return dg.MetadataValue.text("none")
    try:
        return dg.MetadataValue.timestamp(_EPOCH + datetime.timedelta(milliseconds=timestamp_ms))
    except OverflowError:
        return dg.MetadataValue.text(f"{timestamp_ms} ms since 1970")


def age(now: datetime.datetime, timestamp_ms: int | None) -> str:
    """How long ago a message's timestamp is, in words."""
    if timestamp_ms is None:
        return "none"
    return f"{duration(max(0.0, now.timestamp() - timestamp_ms / 1000))} ago"


def bars(counts: Mapping[str, int]) -> str:
    """Numbers drawn as Markdown, a bar each, the longest for the greatest."""
    most = max(counts.values(), default=0)
    lines = [
        f"{name}  {'█' * math.ceil(_LONGEST_BAR * count / most) if most else '':{_LONGEST_BAR}}  {count:,}"
        for name, count in counts.items()
    ]
    return "\n".join(["```", *lines, "```"])


def in_a_row(totals: Mapping[str, TopicTotals]) -> str:
    """What a run did, for a tag called ``messages`` in a narrow column: ``1,200 of 7 topics``, ``none waited``."""
    if not totals:
        return "none waited"
    return f"{sum(one.messages for one in totals.values()):,} of {counted(len(totals), 'topic')}"


def in_a_line(totals: Mapping[str, TopicTotals]) -> str:
    """What a run did, as short as it can be said: ``1,200 messages of 7 topics, 3.4 MB``."""
    if not totals:
        return "no messages waited"
    whole = sum(totals.values(), start=TopicTotals("all"))
    said = (
        f"{counted(whole.messages, 'message')} of {counted(len(totals), 'topic')}, {size(whole.size_bytes)}"
    )
    others = ((whole.duplicates, "duplicate"), (whole.lost, "lost offset"), (whole.collisions, "collision"))
    return ", ".join([said, *(counted(number, what) for number, what in others if number)])


def of_run(totals: Mapping[str, TopicTotals], took_s: float) -> dict[str, Any]:
    """What a run did in all, and by topic those that had most."""
    whole = sum(totals.values(), start=TopicTotals("all"))
    most = sorted(totals.values(), key=lambda one: (-one.messages, one.topic))
    rows = (
        {"topic": one.topic, "messages": one.messages, "bytes": one.size_bytes, "lost": one.lost}
        for one in most
    )
    return {
        "topics": len(totals),
        "new_messages": whole.messages,
        "new_bytes": whole.size_bytes,
        "new_duplicates": whole.duplicates,
        "new_absent": whole.absent,
        "new_lost": whole.lost,
        "new_collisions": whole.collisions,
        "messages_per_s": round(whole.messages / took_s, 1),
        **table("by_topic", rows),
    }
