"""What stands in the way of a restore, all of it at once, before a byte is written. Pure.

Settings are those of Apache Kafka's topics (``org.apache.kafka.common.config.TopicConfig``). A broker may know the one
or the other not at all: what it does not tell counts as Kafka's own default.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hop_archive.catalog.records import Measure
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


class Problem(NamedTuple):
    """One thing that stands in the way.

    Attributes:
        where: The target topic, or the archived one.
        what: What is wanted, and what was found.
        remedy: What to do.
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
        held: How many offsets it holds, of whatever.
        settings: What is set, by the topic or by default; where it is to be created, what will be.
        own: What it is to be created with.
        resumed: Whether this restore began to write to it before.
    """

    partitions: int | None
    held: int
    settings: Mapping[str, str]
    own: Mapping[str, str] = field(default_factory=dict)
    resumed: bool = False

    def setting(self, name: str) -> str:
        """A setting, or Kafka's default."""
        return self.settings.get(name) or DEFAULTS[name]

    def number(self, name: str) -> int:
        """A setting that is a number, or Kafka's default where it is none: that is a problem of its own."""
        value = self.setting(name)
        return int(value if _is_number(name, value) else DEFAULTS[name])


def problems(target: Target, found: Condition, request: Request, now_ms: int) -> list[Problem]:
    """All that stands in the way of writing this target."""
    return [
        *_room(target, found, request),
        *_not_numbers(target, found),
        *_settings(target, found, request, now_ms),
    ]


def notes(target: Target, found: Condition, request: Request) -> list[str]:
    """What can't be kept, or is worth knowing, though nothing stands in the way."""
    said = []
    if found.setting("message.timestamp.type") == "LogAppendTime":
        said.append(
            f"{target.topic} has append times: its messages will have the time of their writing, not their own."
        )
    if appended := target.measure.by_append:
        said.append(
            f"{counted(appended, 'message')} of {target.source} had append times; in {target.topic} these are create times."
        )
    if found.partitions is None:
        said.append(
            f"{target.topic} will be created with {counted(target.partitions, 'partition')}{_told(found.own)}."
        )
    elif found.partitions > target.partitions and not request.by_key:
        said.append(
            f"{target.topic} has {counted(found.partitions, 'partition')}, and {target.source} had {target.partitions}: "
            "messages keep theirs. --by-key puts them where a producer would."
        )
    return said


def _told(settings: Mapping[str, str]) -> str:
    own = ", ".join(f"{name}={value}" for name, value in sorted(settings.items()))
    return f" and {own}" if own else ""


def _room(target: Target, found: Condition, request: Request) -> Iterator[Problem]:
    needed = target.partitions if not request.by_key else 1
    if found.partitions is not None and found.partitions < needed:
        yield Problem(
            target.topic,
            f"it has too few partitions: {found.partitions}, of {needed} that are needed",
            "Add partitions, restore to another topic, or let --by-key choose partitions anew.",
        )
    if found.held and not (request.append or found.resumed):
        yield Problem(
            target.topic,
            f"it holds {counted(found.held, 'offset')} already",
            "Restore to another topic (--to-topic), empty this one, or add to it with --append.",
        )
    if target.measure.at_zero and not request.skip_unsendable:
        yield Problem(
            target.topic,
            f"{counted(target.measure.at_zero, 'message has', 'messages have')} the timestamp 0, for which Kafka's client sends the present time",
            "Leave them out with --skip-unsendable; the report names them.",
        )


def _is_number(name: str, value: str) -> bool:
    least, most = NUMBERS[name]
    return _NUMBER.fullmatch(value.strip()) is not None and least <= int(value) <= most


def _not_numbers(target: Target, found: Condition) -> Iterator[Problem]:
    """Settings that have to be numbers and are none; of a topic that is to be created, none that Kafka takes."""
    for name, (least, most) in NUMBERS.items():
        new = found.partitions is None
        value = (found.own if new else found.settings if name in DEFAULTS else {}).get(name)
        if value is None or (not new and not value):
            continue
        if new and not _is_number(name, value):
            what = f"{name}={value} is no number that Kafka takes for it ({least} to {most})"
            yield Problem(target.topic, what, f"Say one with --topic-config {name}=NUMBER.")
        elif not new and not _NUMBER.fullmatch(value.strip()):
            yield Problem(target.topic, f"its {name} is {value}, which is no number", "Set one on it.")


def _settings(target: Target, found: Condition, request: Request, now_ms: int) -> Iterator[Problem]:
    measure = target.measure
    checks = (_size(found, measure), _policy(found, target), *_times(found, measure, now_ms))
    for check in (*checks, _retained(found, measure, now_ms), _kept_bytes(found, target)):
        if check is not None:
            name, value, what = check
            yield Problem(target.topic, what, _remedy(target, found, name, value), (name, value))


_Check = tuple[str, str, str]
"""The setting, the value that would do, and what is the matter."""


def _remedy(target: Target, found: Condition, name: str, value: str) -> str:
    if found.partitions is None:
        return f"Have it created with --topic-config {name}={value}."
    return f"Set {name}={value} on {target.topic}, or have it set for the time of the restore: --set-topic-config."


def _size(found: Condition, measure: Measure) -> _Check | None:
    """By the size of the document, which is some hundred bytes more than the message: rather once too often.

    The limit is on a batch as it is sent, and the producer makes batches of up to ``BATCH_BYTES``.
    """
    name = "max.message.bytes"
    wanted = max(measure.largest_bytes, min(measure.size_bytes, BATCH_BYTES))
    if wanted <= found.number(name):
        return None
    if wanted > measure.largest_bytes:
        what = f"it takes batches of {found.setting(name)} bytes, and the producer makes some of {wanted}"
        return name, str(wanted + 1024), what
    return name, str(measure.largest_bytes + 1024), (
        f"it takes messages of {found.setting(name)} bytes, and the largest may have {measure.largest_bytes}"
    )  # fmt: skip


def _policy(found: Condition, target: Target) -> _Check | None:
    name = "cleanup.policy"
    if "compact" not in found.setting(name) or not target.messages:
        return None
    return (
        name,
        "delete",
        "compaction would remove all but the last message of each key, and refuse those without",
    )


def _times(found: Condition, measure: Measure, now_ms: int) -> Iterator[_Check | None]:
    if found.setting("message.timestamp.type") == "LogAppendTime":
        return
    first, last = measure.first_timestamp_ms, measure.last_timestamp_ms
    name = "message.timestamp.before.max.ms"
    if first is not None and now_ms - first > found.number(name):
        yield (
            name,
            str(MAX_LONG),
            f"it refuses messages as old as those of {_day(first)} ({name}={found.setting(name)})",
        )
    name = "message.timestamp.after.max.ms"
    if last is not None and last - now_ms > found.number(name):
        yield (
            name,
            str(MAX_LONG),
            f"it refuses messages of as late as {_day(last)} ({name}={found.setting(name)})",
        )


def _retained(found: Condition, measure: Measure, now_ms: int) -> _Check | None:
    name = "retention.ms"
    kept_ms = found.number(name)
    appended = found.setting("message.timestamp.type") == "LogAppendTime"
    first = measure.first_timestamp_ms
    if kept_ms < 0 or first is None or appended or now_ms - first <= kept_ms:
        return None
    return name, "-1", (
        f"it deletes what is older than {kept_ms / _DAY_MS:.1f} days, so messages of {_day(first)} would be deleted at once"
    )  # fmt: skip


def _kept_bytes(found: Condition, target: Target) -> _Check | None:
    name = "retention.bytes"
    kept = found.number(name)
    by_partition: dict[int, int] = {}
    for lane in target.lanes:
        by_partition[lane.partition] = by_partition.get(lane.partition, 0) + lane.measure.size_bytes
    most = max(by_partition.values(), default=0)
    if kept < 0 or most <= kept:
        return None
    return name, "-1", f"it keeps {kept} bytes a partition, and up to {most} are to be restored to one"


def _day(timestamp_ms: int) -> str:
    """A timestamp as a date; as a number where no calendar reaches."""
    try:
        at = datetime.datetime.fromtimestamp(timestamp_ms / 1000, tz=datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return f"{timestamp_ms} ms"
    return at.strftime("%Y-%m-%d")
