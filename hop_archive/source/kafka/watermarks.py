"""Watermarks of a Kafka cluster, asked broker by broker.

A partition without a leader, or a broker that does not answer, leaves those of the others known.

Tansu 0.6 answers "latest" with the offset after the *first* record of the last batch (seen by trial), so the
rest of that batch would count as not there yet until the next batch comes. Its Fetch answers do tell. Apache
Kafka's two answers agree, and it is asked only the cheaper one.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AdminClient,
    ConfigResource,
    OffsetSpec,
)

from hop_archive.errors import HopArchiveError, UnavailableError
from hop_archive.model.message import TopicPartition
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.kafka.admin import Admin
from hop_archive.source.kafka.client import (
    NO_ANSWER,
    UNKNOWN_TOPIC,
    ClientErrors,
    Connection,
    Deadline,
    NewLoginError,
    kafka_error,
    let_go,
    native,
)
from hop_archive.source.protocol import Answers

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


_READ_END: Mapping[str, str | int | bool] = {
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


def watermarks(
    admin: Admin, partitions: Collection[TopicPartition], deadline: Deadline
) -> Answers[TopicPartition, Watermarks]:
    """Watermarks of the partitions that exist: three requests to each broker, however many partitions there are.

    Brokers are asked side by side: one that does not answer holds up the others' answers for two and a half seconds, and
    its own partitions are untold then. That a partition has no leader is told at once.

    Raises:
        UnavailableError: No broker answers.
    """
    marks: dict[TopicPartition, Watermarks] = {}
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
        there: dict[TopicPartition, int] = {}  # and the brokers that lead them
        for at in left:
            topic = shown.get(at.topic)
            if topic and topic.error is not None and topic.error.code() not in UNKNOWN_TOPIC:
                untold[at] = _failure(admin, at, topic.error)
            partition = topic.partitions.get(at.partition) if topic else None
            if partition and partition.leader in found.brokers:
                there[at] = partition.leader
            elif partition:
                untold[at] = UnavailableError(
                    f"{admin.connection}: {at} has no leader.",
                    remedy="Start the brokers that hold it; what Kafka holds of it is archived then.",
                    source=admin.connection.stanza,
                    **at._asdict(),
                    kafka_error="LEADER_NOT_AVAILABLE",
                )
        round_ = _ask_brokers(admin, there, deadline if patience.passed else patience)
        marks |= round_
        lost = {at: error for at, error in round_.untold.items() if isinstance(error, UnavailableError)}
        untold |= {at: error for at, error in round_.untold.items() if at not in lost}
        is_alone = not marks and {there[at] for at in lost} >= found.brokers.keys()
        if deadline.passed or (patience.passed and not is_alone):
            if lost and is_alone:
                raise next(iter(lost.values()))
            untold |= lost
            break
        left = set(lost)
        if left:
            threading.Event().wait(min(pause_s, deadline.left_s))
            pause_s *= 2
    return Answers(marks, untold, cluster_id)


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
    """Ask one broker; a partition for which one of the three is not told is untold."""
    marks: dict[str, dict[TopicPartition, int]] = {mark: {} for mark in _MARKS}
    epochs: dict[TopicPartition, int | None] = {}
    untold: dict[TopicPartition, HopArchiveError] = {}
    asked = {at: native(at) for at in partitions}
    for mark, (spec, isolation) in _MARKS.items():
        if not asked:
            break
        call = partial(_list_offsets, asked, spec, isolation)
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
        asked = {at: asked[at] for at in marks[mark]}
    return Answers(
        {
            # The epoch of a log's end is the leader's, also where nothing was written in it (Kafka 4.4, by trial).
            at: Watermarks(marks["low"][at], min(marks["stable"][at], high), high, epochs.get(at))
            for at, high in marks["high"].items()
        },
        untold,
    )


def _list_offsets(
    places: Mapping[TopicPartition, Any],
    spec: OffsetSpec,
    isolation: IsolationLevel,
    client: AdminClient,
    timeout_s: float,
) -> dict[TopicPartition, Any]:
    futures = client.list_offsets(
        dict.fromkeys(places.values(), spec), isolation_level=isolation, request_timeout=timeout_s
    )
    return {at: futures[place] for at, place in places.items()}


def _failure(admin: Admin, at: TopicPartition, error: KafkaError | None = None) -> HopArchiveError:
    failure = admin.connection.failure(f"{_DOING} of {at}", error, admin.client_errors)
    failure.facts |= at._asdict()
    return failure


def describes_itself(admin: Admin, deadline: Deadline) -> bool:
    """Whether the brokers' ListOffsets can be believed, and a topic's settings are told with their defaults.

    Those of Apache Kafka and its kin can be, and are. Told by whether a broker describes its configuration, of
    which Apache Kafka's has hundreds of entries and Tansu's none. Who may not see it talks to
    a broker that has access rights, which Tansu has not.

    Raises:
        UnavailableError: The cluster does not answer, which says nothing of what it is.
    """
    doing = "describing a broker"
    silence = None
    for broker in sorted(admin.metadata(deadline).brokers):
        configs, errors = admin.ask_each(
            partial(_describe_broker, broker), doing, Deadline.after(min(deadline.left_s, _SLOW_S))
        )
        silence = next((e for e in errors.values() if kafka_error(e).code() in NO_ANSWER), None)
        if silence is None:
            return bool(errors) or any(configs.values())
    raise admin.failure(doing, silence) from silence


def exact_ends(
    connection: Connection, latest: Mapping[TopicPartition, int], deadline: Deadline
) -> dict[TopicPartition, int]:
    """The high watermark of each partition, from Fetch answers; ``latest`` is what ListOffsets said: not above it, and not 0.

    Raises:
        UnavailableError: Not every partition answered in time.
    """
    if not latest:
        return {}
    errors = ClientErrors()
    consumer = connection.client(Consumer, "consumer", errors, _READ_END)
    ends: dict[TopicPartition, int] = {}
    silent = set(latest)
    try:
        consumer.assign([native(at, offset) for at, offset in latest.items()])
        while silent:
            if deadline.passed:
                raise connection.failure(f"asking where {len(silent)} partitions end", None, errors)
            # consume(500, 0.1) would wait out its tenth of a second each time, however much has come.
            events = [*consumer.consume(1, _WAIT_S), *consumer.consume(_HEARD_AT_ONCE, 0)]
            # A message or an end of a partition: a Fetch answer is known of it.
            heard = silent & {
                TopicPartition(str(e.topic()), int(e.partition() or 0))
                for e in events
                if e.topic() is not None
            }
            for at in heard:
                ends[at] = int(consumer.get_watermark_offsets(native(at), cached=True)[1])
            consumer.incremental_unassign([native(at) for at in heard])
            silent -= heard
        return ends
    except KafkaException as error:
        raise connection.failure("asking where partitions end", kafka_error(error), errors) from error
    finally:
        let_go(consumer.close)


def _describe_broker(broker: int, client: AdminClient, timeout_s: float) -> Mapping[Any, Future[Any]]:
    resource = ConfigResource(ConfigResource.Type.BROKER, str(broker))
    return client.describe_configs([resource], request_timeout=timeout_s)
