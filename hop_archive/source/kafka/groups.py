"""Consumer groups of a Kafka cluster, and the offsets that they have committed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from typing import TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException

from hop_archive.errors import ForbiddenError, HopArchiveError, UnavailableError, UnsupportedError
from hop_archive.model.message import Committed, TopicPartition
from hop_archive.source.kafka.admin import Admin
from hop_archive.source.kafka.client import Connection, Deadline, kafka_error, native

Result = TypeVar("Result")

_REFUSED = "GROUP_AUTHORIZATION_FAILED"
_AT_ONCE = 200  # each is a request of its own, or two
_WAIT_S = 0.1
_MOVING = ("COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR")
_UNTOLD = frozenset(
    {
        KafkaError.GROUP_ID_NOT_FOUND,  # from Kafka 4.0 on (KIP-1043); before, it is called dead
        KafkaError.COORDINATOR_NOT_AVAILABLE,  # like the next two, of a cluster that has just begun to have groups
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
    }
)
_NOT_SHOWN = frozenset({KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.GROUP_ID_NOT_FOUND})


def once(admin: Admin, work: Callable[[Admin], Result]) -> Result:
    """``work``, after whose failure the client is closed.

    librdkafka 2.16 asks a coordinator that is gone, again and again; and where its answer comes after the call was given
    up, the process dies ("eonce->refcnt > 0", confluentinc/librdkafka#4605, docs/decisions/0006). So no client lives on that
    has given up a call about groups.
    """
    try:
        return work(admin)
    except (HopArchiveError, KafkaException):
        admin.close()
        raise


def patiently(connection: Connection, work: Callable[[Admin], Result]) -> Result:
    """``work`` with a client of its own, and with another one as long as the group's coordinator is moving.

    librdkafka 2.16 asks the coordinator that it knows, which may be gone, again and again. And a cluster on which
    no group has committed yet, or a broker that has just started, answers for a moment that it has none.
    """
    deadline = Deadline.after(connection.timeout_s)
    while True:
        try:
            with closing(Admin(connection)) as admin:
                return work(admin)
        except UnavailableError as error:
            if deadline.passed or error.facts.get("kafka_error") not in _MOVING:
                raise
        threading.Event().wait(_WAIT_S)


def committed(
    admin: Admin, names: Collection[str] | None = None
) -> dict[str, dict[TopicPartition, Committed]]:
    """What these groups have committed, or all that are shown; see `Source.groups`."""
    if names is None:
        doing = "listing consumer groups"
        listing = admin.ask(
            lambda client, timeout_s: {"": client.list_consumer_groups(request_timeout=timeout_s)},
            doing,
            admin.deadline(),
        )[""]
        for error in listing.errors:  # of one broker, whose groups are missing then
            cause = kafka_error(error) if isinstance(error, KafkaException) else error
            raise admin.connection.failure(doing, cause, admin.client_errors)
        names = [group.group_id for group in listing.valid]
    asked = sorted(names)
    found: dict[str, dict[TopicPartition, Committed]] = {}
    for first in range(0, len(asked), _AT_ONCE):
        found |= _offsets(admin, asked[first : first + _AT_ONCE])
    return found


def access(admin: Admin, group: str) -> frozenset[str] | None:
    """What may be done with a group (KIP-430); see `Source.group_access`."""
    try:
        found = admin.ask(
            lambda client, timeout_s: client.describe_consumer_groups(
                [group], include_authorized_operations=True, request_timeout=timeout_s
            ),
            f"asking what may be done with group {group}",
            admin.deadline(),
            absent=_UNTOLD,
        )
    except UnsupportedError:
        return None
    except ForbiddenError as error:
        if error.facts.get("kafka_error") != _REFUSED:
            raise  # a login that is refused says nothing of rights
        return frozenset()
    operations = found[group].authorized_operations if group in found else None
    return None if operations is None else frozenset(operation.name.lower() for operation in operations)


def commit(admin: Admin, group: str, offsets: Mapping[TopicPartition, Committed], deadline: Deadline) -> None:
    """Commit offsets, with their metadata, for a group without joining it; see `Source.set_group_offsets`."""
    places = [native(at, *offset) for at, offset in sorted(offsets.items())]
    request = [ConsumerGroupTopicPartitions(group, places)]
    doing = f"committing offsets of group {group}"
    answers = admin.ask(
        lambda client, timeout_s: client.alter_consumer_group_offsets(request, request_timeout=timeout_s),
        doing,
        deadline,
    )
    for answer in answers.values():
        _raise_first_error(admin, doing, answer)


def _offsets(admin: Admin, groups: Sequence[str]) -> dict[str, dict[TopicPartition, Committed]]:
    doing = "asking for offsets of consumer groups"
    answers = admin.ask(
        lambda client, timeout_s: {
            group: future
            for group in groups  # the client takes one group a call
            for future in client.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group)], request_timeout=timeout_s
            ).values()
        },
        doing,
        admin.deadline(),
        absent=_NOT_SHOWN,
    )
    for answer in answers.values():
        _raise_first_error(admin, doing, answer)
    return {
        group: {
            TopicPartition(place.topic, place.partition): Committed(place.offset, place.metadata or "")
            for place in answer.topic_partitions or []
            if place.offset >= 0  # below that, nothing is committed there
        }
        for group, answer in answers.items()
    }


def _raise_first_error(admin: Admin, doing: str, answer: ConsumerGroupTopicPartitions) -> None:
    for place in answer.topic_partitions or []:
        if place.error is not None:
            raise admin.connection.failure(doing, place.error, admin.client_errors)
