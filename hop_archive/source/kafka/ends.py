"""Where a partition really ends, on brokers whose ListOffsets answer does not tell.

Tansu 0.6 answers "latest" with the offset after the *first* record of the last batch (seen by trial), so the
rest of that batch would count as not there yet until the next batch comes. Its Fetch answers do tell. Apache
Kafka's two answers agree, and it is asked only the cheaper one.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from hop_archive.model.message import TopicPartition
from hop_archive.source.kafka.admin import Admin
from hop_archive.source.kafka.client import LOGGER, NO_ANSWER, Connection, Deadline, Troubles, kafka_error

_SETTINGS: Mapping[str, str | int | bool] = {
    "group.id": "hop_archive.ends",  # librdkafka wants one; nothing joins it
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "isolation.level": "read_uncommitted",
    "fetch.wait.max.ms": 20,
    "fetch.message.max.bytes": 64 * 1024,  # a record at the least, and no more than that is of use
}
_HEARD_AT_ONCE = 500
_WAIT_S = 0.1
_SLOW_S = 2.0  # after that the next broker is asked


def describes_itself(admin: Admin, deadline: Deadline) -> bool:
    """Whether the brokers' ListOffsets can be believed, and a topic's settings are told with their defaults.

    Those of Apache Kafka and its kin can be, and are. Told by whether a broker describes its configuration, of
    which Apache Kafka's has hundreds of entries and Tansu's none. Who may not see it talks to a broker that has access rights, which Tansu has not.

    Raises:
        UnavailableError: The cluster does not answer, which says nothing of what it is.
    """
    doing = "describing a broker"
    silence = None
    for broker in sorted(admin.metadata(deadline).brokers):
        told, errors = admin.ask_each(
            partial(_describe_broker, broker), doing, Deadline.after(min(deadline.left_s, _SLOW_S))
        )
        silence = next((e for e in errors.values() if kafka_error(e).code() in NO_ANSWER), None)
        if silence is None:
            return bool(errors) or any(told.values())
    raise admin.failure(doing, silence) from silence


def _describe_broker(broker: int, client: AdminClient, timeout_s: float) -> Mapping[Any, Future[Any]]:
    resource = ConfigResource(ConfigResource.Type.BROKER, str(broker))
    return client.describe_configs([resource], request_timeout=timeout_s)


def exact_ends(
    connection: Connection, told: Mapping[TopicPartition, int], deadline: Deadline
) -> dict[TopicPartition, int]:
    """The high watermark of each partition, from Fetch answers.

    Args:
        connection: The cluster.
        told: What ListOffsets said: at or below the end, and not 0.
        deadline: By when.

    Raises:
        UnavailableError: Not every partition answered in time.
    """
    if not told:
        return {}
    troubles = Troubles()
    consumer = Consumer(connection.configuration(troubles, _SETTINGS), logger=LOGGER)
    try:
        consumer.assign([confluent_kafka.TopicPartition(*at, offset) for at, offset in told.items()])
        return _listen(connection, consumer, set(told), troubles, deadline)
    except KafkaException as error:
        raise connection.failure("asking where partitions end", kafka_error(error), troubles) from error
    finally:
        consumer.close()


def _listen(
    connection: Connection,
    consumer: Consumer,
    silent: set[TopicPartition],
    troubles: Troubles,
    deadline: Deadline,
) -> dict[TopicPartition, int]:
    ends: dict[TopicPartition, int] = {}
    while silent:
        if deadline.passed:
            raise connection.failure(f"asking where {len(silent)} partitions end", None, troubles)
        heard = _heard(consumer) & silent
        ends |= {at: _cached_high(consumer, at) for at in heard}
        consumer.incremental_unassign([confluent_kafka.TopicPartition(*at) for at in heard])
        silent -= heard
    return ends


def _heard(consumer: Consumer) -> set[TopicPartition]:
    """The partitions that a message or an end-of-partition event came from: a Fetch answer is known of each."""
    # consume(500, 0.1) would wait out its tenth of a second each time, however much has come.
    events = [*consumer.consume(1, _WAIT_S), *consumer.consume(_HEARD_AT_ONCE, 0)]
    return {TopicPartition(str(e.topic()), int(e.partition() or 0)) for e in events if e.topic() is not None}


def _cached_high(consumer: Consumer, at: TopicPartition) -> int:
    return int(consumer.get_watermark_offsets(confluent_kafka.TopicPartition(*at), cached=True)[1])
