"""The topic settings of a mock cluster: Kafka's names, and the defaults of the mock."""

from __future__ import annotations

from collections.abc import Mapping

from hop_archive.errors import ConfigurationError
from hop_archive.source.protocol import Setting

_INT64_MAX = str(2**63 - 1)

DEFAULTS: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "max.message.bytes": str(2**31 - 1),
    "message.timestamp.after.max.ms": _INT64_MAX,
    "message.timestamp.before.max.ms": _INT64_MAX,
    "message.timestamp.type": "CreateTime",
    "retention.ms": "-1",
}
"""What is in force where a topic does not say: the mock takes everything, and keeps it. Only these have an effect."""

_CHOICES: Mapping[str, frozenset[str]] = {
    "cleanup.policy": frozenset({"delete", "compact", "compact,delete", "delete,compact"}),
    "message.timestamp.type": frozenset({"CreateTime", "LogAppendTime"}),
}
_NUMBERS = frozenset(
    {
        "delete.retention.ms",
        "file.delete.delay.ms",
        "flush.messages",
        "flush.ms",
        "index.interval.bytes",
        "local.retention.bytes",
        "local.retention.ms",
        "max.compaction.lag.ms",
        "max.message.bytes",
        "message.timestamp.after.max.ms",
        "message.timestamp.before.max.ms",
        "min.compaction.lag.ms",
        "min.insync.replicas",
        "retention.bytes",
        "retention.ms",
        "segment.bytes",
        "segment.index.bytes",
        "segment.jitter.ms",
        "segment.ms",
    }
)
_OTHERS = frozenset(
    {
        "compression.gzip.level",
        "compression.lz4.level",
        "compression.type",
        "compression.zstd.level",
        "follower.replication.throttled.replicas",
        "leader.replication.throttled.replicas",
        "message.downconversion.enable",
        "message.format.version",
        "message.timestamp.difference.max.ms",
        "min.cleanable.dirty.ratio",
        "preallocate",
        "remote.copy.disable",
        "remote.log.delete.on.disable",
        "remote.storage.enable",
        "unclean.leader.election.enable",
    }
)
_NAMES = _NUMBERS | _OTHERS | _CHOICES.keys()


def settings_of(config: Mapping[str, str]) -> dict[str, Setting]:
    """All settings of a topic, given its own."""
    own = {name: Setting(value, own=True) for name, value in config.items()}
    return {name: Setting(value, own=False) for name, value in DEFAULTS.items()} | own


def refuse_settings(topic: str, changes: Mapping[str, str | None]) -> None:
    """Raise ConfigurationError, as Kafka does, where there is no such setting, or a value is not of its type."""
    for name, value in sorted(changes.items()):
        if name not in _NAMES:
            raise _refused(topic, name, f"there is no topic setting {name}")
        is_fit = value is None or (
            value in _CHOICES[name]
            if name in _CHOICES
            else name not in _NUMBERS or value.removeprefix("-").isdecimal()
        )
        if not is_fit:
            raise _refused(topic, name, f"{name} can't be {value!r}")


def _refused(topic: str, name: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"Settings of topic {topic} were refused: {why}.",
        remedy="Change the settings that it names.",
        topic=topic,
        setting=name,
    )
