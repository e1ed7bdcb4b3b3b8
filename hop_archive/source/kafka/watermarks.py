"""Watermarks of a Kafka cluster, asked broker by broker.

A partition without a leader, or a broker that does not answer, leaves those of the others known.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AdminClient,
    OffsetSpec,
    TopicMetadata,
)

from hop_archive.errors import HopArchiveError, UnavailableError
from hop_archive.model.message import TopicPartition
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.answers import Answers
from hop_archive.source.kafka.admin import Admin
from hop_archive.source.kafka.client import (
    UNKNOWN_TOPIC,
    Connection,
    Deadline,
    NewLoginError,
    kafka_error,
    native,
)

_DOING = "asking for watermarks"
_AGAIN_S = 0.1
_PATIENCE_S = 2.5
"""How long brokers that do not answer are waited for once others did, all of them together."""

_SPEC: Any = OffsetSpec  # its factories have no types
# In this order: what is stable stays so, and high only grows, so that stable <= high, but for a topic that is made
# anew in between.
_MARKS = {
    "low": (_SPEC.earliest(), IsolationLevel.READ_UNCOMMITTED),
    "stable": (_SPEC.latest(), IsolationLevel.READ_COMMITTED),
    "high": (_SPEC.latest(), IsolationLevel.READ_UNCOMMITTED),
}


def watermarks(
    admin: Admin, partitions: Collection[TopicPartition], deadline: Deadline
) -> Answers[TopicPartition, Watermarks]:
    """Watermarks of the partitions that exist: three requests to each broker, however many partitions there are.

    Brokers are asked side by side: one that does not answer holds up the others' answers for two and a half seconds, and
    its own partitions are untold then. That a partition has no leader is told at once.

    Raises:
        UnavailableError: No broker answers.
    """
    told: dict[TopicPartition, Watermarks] = {}
    untold: dict[TopicPartition, HopArchiveError] = {}
    left, topics = set(partitions), {at.topic for at in partitions}
    patience, pause_s, cluster_id = deadline, _AGAIN_S, None
    while left:
        # Metadata each time: after a change of leader or a restart, librdkafka 2.16 asks with leader epochs that it
        # remembers, and is refused, until something makes it ask for metadata again.
        found = admin.metadata(deadline, min(topics) if len(topics) == 1 else None)
        cluster_id = str(found.cluster_id)
        if patience is deadline:
            patience = Deadline.after(min(_PATIENCE_S, deadline.left_s / 2))
        shown = dict(found.topics)
        for name in topics - shown.keys():  # not there, or not to be seen: one that is named is told of
            shown |= admin.metadata(deadline, name).topics
        hidden = {at: shown[at.topic].error for at in left if _is_hidden(shown.get(at.topic))}
        untold |= {at: _failure(admin, at, error) for at, error in hidden.items() if error}
        leaders = {at: leader for at in left if (leader := _leader(shown, at)) is not None}
        there = {at: leader for at, leader in leaders.items() if leader in found.brokers}
        untold |= {at: _no_leader(admin.connection, at) for at in leaders.keys() - there.keys()}
        round_ = _ask_brokers(admin, there, deadline if patience.passed else patience)
        told |= round_
        lost = {at: error for at, error in round_.untold.items() if isinstance(error, UnavailableError)}
        untold |= {at: error for at, error in round_.untold.items() if at not in lost}
        is_alone = not told and {there[at] for at in lost} >= found.brokers.keys()
        if deadline.passed or (patience.passed and not is_alone):
            if lost and is_alone:
                raise next(iter(lost.values()))
            untold |= lost
            break
        left = set(lost)
        if left:
            threading.Event().wait(min(pause_s, deadline.left_s))
            pause_s *= 2
    return Answers(told, untold, cluster_id)


def _is_hidden(topic: TopicMetadata | None) -> bool:
    """Whether a topic is one of which the cluster tells nothing but an error."""
    return topic is not None and topic.error is not None and topic.error.code() not in UNKNOWN_TOPIC


def _leader(shown: Mapping[str, TopicMetadata], at: TopicPartition) -> int | None:
    """The number of the broker that leads a partition, below 0 where none does; None where there is no such partition."""
    topic = shown.get(at.topic)
    partition = topic.partitions.get(at.partition) if topic else None
    return partition.leader if partition else None


def _ask_brokers(
    admin: Admin, leaders: Mapping[TopicPartition, int], deadline: Deadline
) -> Answers[TopicPartition, Watermarks]:
    """Ask each broker for what it leads, side by side."""
    shares = defaultdict(list)
    for at, leader in leaders.items():
        shares[leader].append(at)
    if not shares:
        return Answers({})
    with ThreadPoolExecutor(len(shares)) as pool:
        answers = list(pool.map(lambda share: _ask_broker(admin, share, deadline), shares.values()))
    return Answers(
        {at: marks for answer in answers for at, marks in answer.items()},
        {at: error for answer in answers for at, error in answer.untold.items()},
    )


def _ask_broker(
    admin: Admin, partitions: Collection[TopicPartition], deadline: Deadline
) -> Answers[TopicPartition, Watermarks]:
    """Ask one broker; a partition for which one of the three is not told is untold.

    Raises:
        HopArchiveError: The login is refused.
    """
    marks: dict[str, dict[TopicPartition, int]] = {mark: {} for mark in _MARKS}
    epochs: dict[TopicPartition, int | None] = {}
    untold: dict[TopicPartition, HopArchiveError] = {}
    asked = set(partitions)
    for mark, (spec, isolation) in _MARKS.items():
        if not asked:
            break
        call = partial(_list_offsets, [native(at) for at in asked], spec, isolation)
        try:
            results, errors = admin.ask_each(call, _DOING, deadline, absent=UNKNOWN_TOPIC)
        except NewLoginError:
            raise
        except UnavailableError:  # librdkafka did not even end the call in time
            return Answers({}, {**untold, **{at: _failure(admin, at) for at in asked}})
        # Below 0 is what librdkafka 2.16 answers, as if it were an offset, where the broker did not.
        marks[mark] = {at: result.offset for at, result in results.items() if result.offset >= 0}
        epochs |= {
            at: result.leader_epoch for at, result in results.items() if (result.leader_epoch or 0) >= 0
        }
        untold |= {at: _failure(admin, at) for at in results.keys() - marks[mark].keys()}
        untold |= {at: _failure(admin, at, kafka_error(error)) for at, error in errors.items()}
        asked = set(marks[mark])
    return Answers(
        {
            # The epoch of a log's end is the leader's, also where nothing was written in it (Kafka 4.4, by trial).
            at: Watermarks(marks["low"][at], min(marks["stable"][at], high), high, epochs.get(at))
            for at, high in marks["high"].items()
        },
        untold,
    )


def _list_offsets(
    places: Collection[Any],
    spec: OffsetSpec,
    isolation: IsolationLevel,
    client: AdminClient,
    timeout_s: float,
) -> dict[TopicPartition, Any]:
    futures = client.list_offsets(
        dict.fromkeys(places, spec), isolation_level=isolation, request_timeout=timeout_s
    )
    return {TopicPartition(place.topic, place.partition): future for place, future in futures.items()}


def _failure(admin: Admin, at: TopicPartition, error: KafkaError | None = None) -> HopArchiveError:
    failure = admin.connection.failure(f"{_DOING} of {at}", error, admin.troubles)
    failure.facts |= {"topic": at.topic, "partition": at.partition}
    return failure


def _no_leader(connection: Connection, at: TopicPartition) -> UnavailableError:
    return UnavailableError(
        f"Source {connection.stanza}, Kafka at {connection.bootstrap_servers}: {at} has no leader.",
        remedy="Start the brokers that hold it; what Kafka holds of it is archived then.",
        source=connection.stanza,
        topic=at.topic,
        partition=at.partition,
        kafka_error="LEADER_NOT_AVAILABLE",
    )
