"""What a Kafka cluster changes of its topics: their settings, and records that are deleted; with a look whether it was done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
)

from hop_archive.errors import UnavailableError, UnsupportedError
from hop_archive.model.message import TopicPartition
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.kafka.admin import Admin
from hop_archive.source.kafka.client import UNKNOWN_TOPIC, Deadline, kafka_error, native
from hop_archive.source.protocol import Setting
from hop_archive.source.refusals import refuse_beyond_end, refuse_unknown

_TOLD_S = 2.0
_POLL_S = 0.05


Look: TypeAlias = Callable[[Collection[TopicPartition]], Mapping[TopicPartition, Watermarks]]

# One connection that breaks is an accident, or a broker that restarts. Tansu 0.6 breaks it each time.
_TRIES = 2
# The second is what librdkafka 2.16 says of the leader that it lost so.
_BROKEN_OFF = frozenset({KafkaError._TRANSPORT, KafkaError._NOENT})  # noqa: SLF001 (librdkafka's local codes)


def describe_settings(
    admin: Admin, topics: Collection[str], deadline: Deadline, *, all_own: bool = False
) -> dict[str, dict[str, Setting]]:
    """The settings of each topic, in one request; topics deleted meanwhile are left out.

    Which are its own the brokers tell, or all are (``all_own``).
    """
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
    # Its source is a number, whatever the client's types say; one that is secret is shown without a value.
    on_topic = (ConfigSource.DYNAMIC_TOPIC_CONFIG, ConfigSource.DYNAMIC_TOPIC_CONFIG.value)
    return {
        resource.name: {
            name: Setting(entry.value, own=all_own or entry.source in on_topic)
            for name, entry in entries.items()
            if entry.value is not None
        }
        for resource, entries in found.items()
    }


def change_settings(admin: Admin, topic: str, changes: Mapping[str, str | None]) -> None:
    """Set the settings that have a value, and remove those that have none, in one request.

    Waits until a broker tells them, which the controller does later than it says yes; for two seconds at most,
    since a broker may tell a value in other words.
    """
    if not changes:
        return
    deadline = admin.deadline()
    entries = [
        ConfigEntry(
            name,
            value,
            incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
        )
        for name, value in sorted(changes.items())
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    admin.ask(
        lambda client, timeout_s: client.incremental_alter_configs([resource], request_timeout=timeout_s),
        f"changing settings of topic {topic}",
        deadline,
        of_controller=True,
    )
    told_by = Deadline.after(_TOLD_S)
    while not told_by.passed and not _are_told(
        describe_settings(admin, [topic], deadline).get(topic, {}), changes
    ):
        threading.Event().wait(_POLL_S)


def _are_told(found: Mapping[str, Setting], changes: Mapping[str, str | None]) -> bool:
    for name, value in changes.items():
        setting = found.get(name)
        now = setting.value if setting and (value is not None or setting.own) else None
        if now != value:
            return False
    return True


def delete_records(
    admin: Admin, before: Mapping[TopicPartition, int], watermarks: Look
) -> dict[TopicPartition, int]:
    """Delete what is below these offsets; the low watermarks afterwards, which decide whether that was done.

    Raises:
        UnsupportedError: Some are as they were, while the cluster answers everything else.
    """
    marks = watermarks(before)
    refuse_unknown(admin.connection.stanza, before, marks)
    refuse_beyond_end(admin.connection.stanza, before, marks)
    for _ in range(_TRIES):
        left = {at: offset for at, offset in before.items() if marks[at].low < offset}
        if not left:
            break
        broken = _ask_to_delete(admin, left)
        marks = watermarks(before)
        refuse_unknown(admin.connection.stanza, before, marks)
        if not broken:
            break
    for at, offset in sorted(before.items()):
        if marks[at].low < offset:
            raise UnsupportedError(
                f"{admin.connection}: records of {at} below offset {offset} were not deleted: asked for it, the broker either "
                f"said yes or broke off, and it still holds them from {marks[at].low} on.",
                remedy="Use a broker that has DeleteRecords (Apache Kafka), or shorten retention.ms for a while.",
                source=admin.connection.stanza,
                **at._asdict(),
                offset=offset,
                low=marks[at].low,
            )
    return {at: marks[at].low for at in before}


def _ask_to_delete(admin: Admin, before: Mapping[TopicPartition, int]) -> bool:
    """Ask for it once; whether the broker broke off, rather than answer."""
    places = [native(at, offset) for at, offset in sorted(before.items())]
    try:
        admin.ask(
            lambda client, timeout_s: client.delete_records(places, request_timeout=timeout_s),
            "deleting records",
            admin.deadline(),
        )
    except UnavailableError as error:
        cause = error.__cause__
        if isinstance(cause, KafkaException) and kafka_error(cause).code() in _BROKEN_OFF:
            return True
        raise
    return False
