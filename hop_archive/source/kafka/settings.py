"""Settings of a Kafka cluster's topics."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
)

from hop_archive.source.kafka.admin import Admin
from hop_archive.source.kafka.client import UNKNOWN_TOPIC, Deadline
from hop_archive.source.protocol import Setting

_TOLD_S = 2.0
_POLL_S = 0.05


def describe(admin: Admin, topics: Collection[str], deadline: Deadline) -> dict[str, dict[str, Setting]]:
    """The settings of each topic, as the brokers tell them, in one request; topics deleted meanwhile are left out."""
    if not topics:
        return {}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in sorted(topics)]
    found = admin.ask(
        lambda client, timeout_s: client.describe_configs(resources, request_timeout=timeout_s),
        "asking for settings of topics",
        deadline,
        absent=UNKNOWN_TOPIC,
        of_controller=True,
    )
    return {resource.name: _settings(entries) for resource, entries in found.items()}


def all_own(found: Mapping[str, Mapping[str, Setting]]) -> dict[str, dict[str, Setting]]:
    """The same settings, all of them the topics' own."""
    return {
        topic: {name: Setting(setting.value, own=True) for name, setting in settings.items()}
        for topic, settings in found.items()
    }


def change(admin: Admin, topic: str, changes: Mapping[str, str | None]) -> None:
    """Set the settings that have a value, and remove those that have none, in one request.

    Waits until a broker tells them, which the controller does later than it says yes; for two seconds at most,
    since a broker may tell a value in other words.
    """
    if not changes:
        return
    deadline = admin.deadline()
    entries = [_entry(name, value) for name, value in sorted(changes.items())]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    admin.ask(
        lambda client, timeout_s: client.incremental_alter_configs([resource], request_timeout=timeout_s),
        f"changing settings of topic {topic}",
        deadline,
        of_controller=True,
    )
    told_by = Deadline.after(_TOLD_S)
    while not told_by.passed and not _are_told(describe(admin, [topic], deadline).get(topic, {}), changes):
        threading.Event().wait(_POLL_S)


def _are_told(found: Mapping[str, Setting], changes: Mapping[str, str | None]) -> bool:
    for name, value in changes.items():
        setting = found.get(name)
        told = setting.value if setting and (value is not None or setting.own) else None
        if told != value:
            return False
    return True


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
