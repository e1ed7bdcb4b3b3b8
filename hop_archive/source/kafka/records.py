"""Deleting records of a Kafka cluster, with a look afterwards whether they are gone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

from confluent_kafka import KafkaError, KafkaException

from hop_archive.errors import UnavailableError, UnsupportedError
from hop_archive.model.message import TopicPartition
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.kafka.admin import Admin
from hop_archive.source.kafka.client import kafka_error, native
from hop_archive.source.offsets import refuse_beyond_end, refuse_unknown

Look: TypeAlias = Callable[[Collection[TopicPartition]], Mapping[TopicPartition, Watermarks]]

# One connection that breaks is an accident, or a broker that restarts. Tansu 0.6 breaks it each time.
_TRIES = 2
# The second is what librdkafka 2.16 says of the leader that it lost so.
_BROKEN_OFF = frozenset({KafkaError._TRANSPORT, KafkaError._NOENT})  # noqa: SLF001 (librdkafka's local codes)


def delete(admin: Admin, before: Mapping[TopicPartition, int], watermarks: Look) -> dict[TopicPartition, int]:
    """Delete what is below these offsets; the watermarks decide whether that was done, whatever was answered.

    Args:
        admin: The cluster.
        before: An offset of each partition.
        watermarks: Looks them up, as ``Source.watermarks`` does.

    Returns:
        The low watermarks afterwards.

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
        broken = _ask(admin, left)
        marks = watermarks(before)
        refuse_unknown(admin.connection.stanza, before, marks)
        if not broken:
            break
    _refuse_unless_gone(admin, before, marks)
    return {at: marks[at].low for at in before}


def _ask(admin: Admin, before: Mapping[TopicPartition, int]) -> bool:
    """Ask for it once; whether the broker broke off, rather than answer.

    Raises:
        HopArchiveError: It refused, or cannot now.
    """
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


def _refuse_unless_gone(
    admin: Admin, before: Mapping[TopicPartition, int], marks: Mapping[TopicPartition, Watermarks]
) -> None:
    for at, offset in sorted(before.items()):
        if marks[at].low < offset:
            raise UnsupportedError(
                f"Source {admin.connection.stanza}, Kafka at {admin.connection.bootstrap_servers}: records of {at} "
                f"below offset {offset} were not deleted: asked for it, the broker either said yes or broke off, and "
                f"it still holds them from {marks[at].low} on.",
                remedy="Use a broker that has DeleteRecords (Apache Kafka), or shorten retention.ms for a while.",
                source=admin.connection.stanza,
                topic=at.topic,
                partition=at.partition,
                offset=offset,
                low=marks[at].low,
            )
