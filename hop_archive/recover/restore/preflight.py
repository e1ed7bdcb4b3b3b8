"""What stands in the way of a restore, all of it at once, before a byte is written. Pure.

Settings are those of Apache Kafka's topics (``org.apache.kafka.common.config.TopicConfig``). A broker may know the one
or the other not at all: what it does not tell counts as Kafka's own default.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hop_archive.model.wording import counted
from hop_archive.recover.restore.plan import Target
from hop_archive.recover.restore.request import Request

MAX_LONG = 2**63 - 1

DEFAULTS: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": str(MAX_LONG),
    "message.timestamp.after.max.ms": str(MAX_LONG),
    "retention.bytes": "-1",
    "retention.ms": "604800000",
}
"""What Apache Kafka takes for a setting that neither topic nor broker has (its documentation, "Topic Configs"). Of
``message.timestamp.after.max.ms`` versions before 4.0 have this one, later ones an hour: they tell."""

_INT, _LONG = 2**31 - 1, MAX_LONG

NUMBERS: Mapping[str, tuple[int, int]] = {
    "delete.retention.ms": (0, _LONG),
    "file.delete.delay.ms": (0, _LONG),
    "flush.messages": (0, _LONG),
    "flush.ms": (0, _LONG),
    "index.interval.bytes": (0, _INT),
    "local.retention.bytes": (-2, _LONG),
    "local.retention.ms": (-2, _LONG),
    "max.compaction.lag.ms": (1, _LONG),
    "max.message.bytes": (0, _INT),
    "message.timestamp.after.max.ms": (0, _LONG),
    "message.timestamp.before.max.ms": (0, _LONG),
    "message.timestamp.difference.max.ms": (0, _LONG),
    "min.compaction.lag.ms": (0, _LONG),
    "min.insync.replicas": (1, _INT),
    "retention.bytes": (-_LONG - 1, _LONG),
    "retention.ms": (-1, _LONG),
    "segment.bytes": (1, _INT),
    "segment.index.bytes": (4, _INT),
    "segment.jitter.ms": (0, _LONG),
    "segment.ms": (1, _LONG),
}
"""The settings that are whole numbers, and the least and greatest that Apache Kafka takes of each (its ``LogConfig``)."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")

_DAY_MS = 86_400_000

BATCH_BYTES = 1_000_000
"""Most bytes of one batch, if it is of several messages (librdkafka's ``batch.size``)."""


class PreflightProblem(NamedTuple):
    """One thing that stands in the way.

    Attributes:
        where: The target topic, or the archived one.
        what: What is wanted, and what was found.
        setting: The setting of the target and the value that would do; None where it is about none.
    """

    where: str
    what: str
    remedy: str
    setting: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """A target topic as it is.

    Attributes:
        partitions: How many partitions it has; None where it does not exist.
        settings: What is set, by the topic or by default; where it is to be created, what will be.
        created_with: What it is to be created with.
        fitted: Of these, what is other than archived because the messages need it, and why.
        resumed: Whether this restore began to write to it before.
    """

    partitions: int | None
    held: int
    settings: Mapping[str, str]
    created_with: Mapping[str, str] = field(default_factory=dict)
    fitted: Mapping[str, str] = field(default_factory=dict)
    resumed: bool = False

    def setting(self, name: str) -> str:
        """A setting, or Kafka's default."""
        return self.settings.get(name) or DEFAULTS[name]

    def number(self, name: str) -> int:
        """A setting that is a number, or Kafka's default where it is none: that is a problem of its own."""
        value = self.setting(name)
        return int(value if _is_number(name, value) else DEFAULTS[name])

    @property
    def has_append_times(self) -> bool:
        """Whether messages get the time of their writing."""
        return self.setting("message.timestamp.type") == "LogAppendTime"


def fitted(target: Target, found: Condition, request: Request, now_ms: int) -> Condition:
    """A topic that is to be created, with the settings that its messages need; but for those that were asked for by name.

    Where settings are to be as they were afterwards (``set_topic_config``), they are left for that.
    """
    if found.partitions is not None or request.set_topic_config:
        return found
    needed = {
        name: (value, what)
        for name, value, what in _unfit_settings(target, found, now_ms)
        if name not in request.topic_settings
    }
    values = {name: value for name, (value, _) in needed.items()}
    return replace(
        found,
        settings={**found.settings, **values},
        created_with={**found.created_with, **values},
        fitted={
            name: f"{value} instead of {found.setting(name)}, with which {what}"
            for name, (value, what) in needed.items()
        },
    )


def problems(target: Target, found: Condition, request: Request, now_ms: int) -> Iterator[PreflightProblem]:
    """All that stands in the way of writing this target."""
    topic, is_new = target.topic, found.partitions is None
    needed = target.partitions if not request.by_key else 1
    if found.partitions is not None and found.partitions < needed:
        what = f"it has too few partitions: {found.partitions}, of {needed} that are needed"
        remedy = "Add partitions, restore to another topic, or let --by-key choose partitions anew."
        yield PreflightProblem(topic, what, remedy)
    if found.held and not (request.append or found.resumed):
        remedy = "Restore to another topic (--to-topic), empty this one, or add to it with --append."
        yield PreflightProblem(topic, f"it holds {counted(found.held, 'offset')} already", remedy)
    if target.measure.at_zero and not request.skip_unsendable:
        those = counted(target.measure.at_zero, "message has", "messages have")
        what = f"{those} the timestamp 0, for which Kafka's client sends the present time"
        yield PreflightProblem(topic, what, "Leave them out with --skip-unsendable; the report names them.")
    for name, (least, most) in NUMBERS.items():
        if is_new:
            value = found.created_with.get(name)
            if value is not None and not _is_number(name, value):
                what = f"{name}={value} is no number that Kafka takes for it ({least} to {most})"
                yield PreflightProblem(topic, what, f"Say one with --topic-config {name}=NUMBER.")
        elif (
            name in DEFAULTS and (value := found.settings.get(name)) and not _NUMBER.fullmatch(value.strip())
        ):
            yield PreflightProblem(topic, f"its {name} is {value}, which is no number", "Set one on it.")
    for name, value, what in _unfit_settings(target, found, now_ms):
        remedy = f"Have it created with --topic-config {name}={value}."
        if not is_new:
            remedy = f"Set {name}={value} on {topic}, or have it set for the time of the restore: --set-topic-config."
        yield PreflightProblem(topic, what, remedy, (name, value))


def notes(target: Target, found: Condition, request: Request) -> list[str]:
    """What can't be kept, or is worth knowing, though nothing stands in the way."""
    said = []
    if found.has_append_times:
        said.append(
            f"{target.topic} has append times: its messages will have the time of their writing, not their own."
        )
    if appended := target.measure.by_append:
        said.append(
            f"{counted(appended, 'message')} of {target.source} had append times; in {target.topic} these are create times."
        )
    if found.partitions is None:
        settings = ", ".join(f"{name}={value}" for name, value in sorted(found.created_with.items()))
        said.append(
            f"{target.topic} will be created with {counted(target.partitions, 'partition')}"
            f"{f' and {settings}' if settings else ''}."
        )
        said += fitted_notes(target, found)
    elif found.partitions > target.partitions and not request.by_key:
        said.append(
            f"{target.topic} has {counted(found.partitions, 'partition')}, and {target.source} had {target.partitions}: "
            "messages keep theirs. --by-key puts them where a producer would."
        )
    return said


def fitted_notes(target: Target, found: Condition) -> list[str]:
    """What a topic that is created gets other than archived, because its messages need it."""
    return [f"{target.topic} gets {name}={why}." for name, why in sorted(found.fitted.items())]


def _is_number(name: str, value: str) -> bool:
    least, most = NUMBERS[name]
    return _NUMBER.fullmatch(value.strip()) is not None and least <= int(value) <= most


def _unfit_settings(target: Target, found: Condition, now_ms: int) -> Iterator[tuple[str, str, str]]:
    """Settings by which the topic would refuse messages, or delete them at once: name, the value that would do, and why."""
    measure = target.measure
    first, last = measure.first_timestamp_ms, measure.last_timestamp_ms
    # By the size of the document, which is some hundred bytes more than the message: rather once too often. The limit
    # is on a batch as it is sent, and the producer makes batches of up to BATCH_BYTES.
    name, largest = "max.message.bytes", measure.largest_bytes
    batch = max(largest, min(measure.size_bytes, BATCH_BYTES))
    if batch > found.number(name):
        what = f"it takes messages of {found.setting(name)} bytes, and the largest may have {largest}"
        if batch > largest:
            what = f"it takes batches of {found.setting(name)} bytes, and the producer makes some of {batch}"
        yield name, str(batch + 1024), what
    if "compact" in found.setting("cleanup.policy") and target.messages:
        what = "compaction would remove all but the last message of each key, and refuse those without"
        yield "cleanup.policy", "delete", what
    if not found.has_append_times:
        name = "message.timestamp.before.max.ms"
        if first is not None and now_ms - first > found.number(name):
            what = f"it refuses messages as old as those of {_day(first)} ({name}={found.setting(name)})"
            yield name, str(MAX_LONG), what
        name = "message.timestamp.after.max.ms"
        if last is not None and last - now_ms > found.number(name):
            what = f"it refuses messages of as late as {_day(last)} ({name}={found.setting(name)})"
            yield name, str(MAX_LONG), what
        kept_ms = found.number("retention.ms")
        if first is not None and 0 <= kept_ms < now_ms - first:
            what = f"it deletes what is older than {kept_ms / _DAY_MS:.1f} days, so messages of {_day(first)} would be deleted at once"
            yield "retention.ms", "-1", what
    kept_bytes = found.number("retention.bytes")
    by_partition = Counter[int]()
    for lane in target.lanes:
        by_partition[lane.partition] += lane.measure.size_bytes
    most = max(by_partition.values(), default=0)
    if 0 <= kept_bytes < most:
        what = f"it keeps {kept_bytes} bytes a partition, and up to {most} are to be restored to one"
        yield "retention.bytes", "-1", what


def _day(timestamp_ms: int) -> str:
    """A timestamp as a date; as a number where no calendar reaches."""
    try:
        at = datetime.datetime.fromtimestamp(timestamp_ms / 1000, tz=datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return f"{timestamp_ms} ms"
    return at.strftime("%Y-%m-%d")
