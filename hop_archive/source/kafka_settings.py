"""Settings of a Kafka cluster's topics."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
)

from hop_archive.source.kafka_admin import Admin
from hop_archive.source.kafka_client import UNKNOWN_TOPIC, Deadline
from hop_archive.source.protocol import Setting


def describe(admin: Admin, topics: Collection[str], deadline: Deadline) -> dict[str, dict[str, Setting]]:
    """The settings of each topic, as the brokers tell them, in one request; topics deleted meanwhile are left out."""
    if not topics:
        return {}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in sorted(topics)]
    futures = admin.client().describe_configs(resources, request_timeout=deadline.left_s)
    found = admin.settle(futures, "asking for settings of topics", deadline, absent=UNKNOWN_TOPIC)
    return {resource.name: _settings(entries) for resource, entries in found.items()}


def all_own(found: Mapping[str, Mapping[str, Setting]]) -> dict[str, dict[str, Setting]]:
    """The same settings, all of them the topics' own."""
    return {
        topic: {name: Setting(setting.value, own=True) for name, setting in settings.items()}
        for topic, settings in found.items()
    }


def change(admin: Admin, topic: str, changes: Mapping[str, str | None]) -> None:
    """Set the settings that have a value, and remove those that have none, in one request."""
    if not changes:
        return
    deadline = admin.deadline()
    entries = [_entry(name, value) for name, value in sorted(changes.items())]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    futures = admin.client().incremental_alter_configs([resource], request_timeout=deadline.left_s)
    admin.settle(futures, f"changing settings of topic {topic}", deadline)


def _settings(entries: Mapping[str, ConfigEntry]) -> dict[str, Setting]:
    """Those that have a value: one that is secret is shown without."""
    return {
        name: Setting(entry.value, own=_is_own(entry.source))
        for name, entry in entries.items()
        if entry.value is not None
    }


def _is_own(source: Any) -> bool:
    """Whether a setting was made on the topic; its source is a number, whatever the client's types say."""
    return source in (ConfigSource.DYNAMIC_TOPIC_CONFIG, ConfigSource.DYNAMIC_TOPIC_CONFIG.value)


def _entry(name: str, value: str | None) -> ConfigEntry:
    operation = AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
    return ConfigEntry(name, value, incremental_operation=operation)
