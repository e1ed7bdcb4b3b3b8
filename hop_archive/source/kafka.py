"""A source that is a Kafka cluster, by confluent-kafka (librdkafka)."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import confluent_kafka
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    Uuid,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AdminClient,
    NewTopic,
    OffsetSpec,
    TopicDescription,
)
from pydantic import SecretStr

from hop_archive.errors import ForbiddenError, HopArchiveError, UnavailableError
from hop_archive.message import Outgoing, Receipt, TopicPartition
from hop_archive.planning import Watermarks
from hop_archive.source.kafka_client import (
    LOGGER,
    UNKNOWN_TOPIC,
    Connection,
    Deadline,
    Troubles,
    kafka_error,
)
from hop_archive.source.kafka_ends import exact_ends, tells_exact_ends
from hop_archive.source.kafka_publisher import Publisher
from hop_archive.source.kafka_reader import KafkaReader
from hop_archive.source.protocol import TopicInfo

Key = TypeVar("Key")
Value = TypeVar("Value")

FETCH_BYTES = 32 * 1024 * 1024
TIMEOUT_S = 8.0
_POLL_S = 0.1
_CREATION_S = 60.0
_PROGRESS_S = 2.0  # monitoring is not worth more of a run's time
_PROGRESS_AGAIN_S = 60.0
_LOGIN_S = 2.0  # long enough to see a login refused, where a call blocks and can't be told to stop
_NO_ID = str(Uuid(0, 0))  # what a broker without KIP-516 answers
_SPEC: Any = OffsetSpec  # its factories have no types


class KafkaSource:
    """A Kafka cluster; see `hop_archive.source.protocol.Source` for what its methods promise.

    Topic names are literal everywhere: a dot is a dot. Internal topics (``__consumer_offsets``) are listed like
    any other. Thread-safe; a reader is for one thread.

    Args:
        name: The stanza's name, for messages.
        bootstrap_servers: As Kafka clients take it, ``host:port,host:port``.
        writable: Whether publishing and creating topics is allowed.
        group_id: Under which progress is committed; nothing ever joins the group.
        settings: More librdkafka settings, as ``security.protocol``. Those that the guarantees rest on can't be
            overridden.
        secrets: librdkafka settings that no log or message may show, as ``sasl.password``.
        fetch_bytes: Most bytes that a reader of one broker's partitions holds of what it has fetched, until the
            next poll. One larger message exceeds it, and each further broker adds an answer of a quarter of it.
        timeout_s: How long to wait for the cluster before it counts as unavailable; at most 10.
    """

    def __init__(
        self,
        name: str,
        *,
        bootstrap_servers: str,
        writable: bool = False,
        group_id: str = "hop_archive",
        settings: Mapping[str, str] | None = None,
        secrets: Mapping[str, SecretStr] | None = None,
        fetch_bytes: int = FETCH_BYTES,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._connection = Connection(name, bootstrap_servers, settings or {}, secrets or {}, timeout_s)
        self._writable = writable
        self._group_id = group_id
        self._fetch_bytes = fetch_bytes
        self._lock = threading.Lock()
        self._client: AdminClient | None = None
        self._exact_ends: bool | None = None
        self._progress_not_before_s = 0.0  # of time.monotonic()
        self._troubles = Troubles()
        self._publisher = Publisher(self._connection, self.topics)

    @property
    def name(self) -> str:
        """The stanza's name, for messages."""
        return self._connection.stanza

    def cluster_id(self) -> str:
        """The cluster's id."""
        deadline = self._deadline()
        future = self._admin().describe_cluster(request_timeout=deadline.left_s)
        answer = self._settle({"": future}, "describing the cluster", deadline)[""]
        return str(answer.cluster_id)

    def topics(self, names: Collection[str] | None = None) -> Mapping[str, TopicInfo]:
        """The topics that exist now, of ``names`` or of all: one request, or two for all."""
        deadline = self._deadline()
        wanted = sorted(set(names) - {""}) if names is not None else self._all_names(deadline)
        if not wanted:
            return {}
        futures = self._admin().describe_topics(TopicCollection(wanted), request_timeout=deadline.left_s)
        found = self._settle(futures, "describing topics", deadline, absent=UNKNOWN_TOPIC)
        return {name: _info(description) for name, description in found.items()}

    def watermarks(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Watermarks]:
        """Watermarks of ``partitions``: three requests to each broker, however many partitions there are."""
        deadline = self._deadline()
        while partitions:
            try:
                return self._watermarks(partitions, deadline)
            except UnavailableError:
                if deadline.passed:
                    raise
            # After a change of leader or a restart, librdkafka 2.16 asks with leader epochs that it remembers,
            # and is refused, until something makes it ask for all metadata again.
            self._all_names(deadline)
            threading.Event().wait(_POLL_S)
        return {}

    def access(self, topics: Collection[str]) -> Mapping[str, frozenset[str] | None]:
        """What the credentials may do with each topic; one request."""
        deadline = self._deadline()
        wanted = sorted(set(topics) - {""})
        if not wanted:
            return {}
        futures = self._admin().describe_topics(
            TopicCollection(wanted), include_authorized_operations=True, request_timeout=deadline.left_s
        )
        found = self._settle(futures, "asking what may be done with topics", deadline, absent=UNKNOWN_TOPIC)
        return {name: _operations(description) for name, description in found.items()}

    def reader(self, starts: Mapping[TopicPartition, int]) -> KafkaReader:
        """A reader of these partitions, each from its offset."""
        return KafkaReader(
            self, self._connection, starts, group_id=self._group_id, fetch_bytes=self._fetch_bytes
        )

    def publish(self, messages: Iterable[Outgoing]) -> Sequence[Receipt]:
        """Publish messages and wait for all acknowledgements; see `Publisher.publish` for what is refused."""
        self._refuse_unless_writable("publish to it")
        return self._publisher.publish(messages)

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic with the cluster's default replication, and wait until its partitions have leaders.

        That may take a minute where there are very many partitions.

        Raises:
            ConfigurationError: The cluster does not take such a name, setting or number of partitions.
        """
        self._refuse_unless_writable("create topics on it")
        if not self.topics([name]):
            deadline = Deadline.after(_CREATION_S)
            topic = NewTopic(name, partitions, config=dict(config or {}))
            futures = self._admin().create_topics([topic], request_timeout=deadline.left_s)
            self._settle(
                futures, f"creating topic {name}", deadline, absent={KafkaError.TOPIC_ALREADY_EXISTS}
            )
            self._wait_until_usable(name, deadline)

    def note_progress(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit group offsets for outside monitoring.

        Takes two seconds at most. A failure is logged, and nothing is committed in the minute after it: what
        monitors the group sees the next offsets then, and a cluster that comes back is not kept waiting for.
        """
        if not positions or time.monotonic() < self._progress_not_before_s:
            return
        try:
            self._commit([_native(tp, offset) for tp, offset in sorted(positions.items())])
        except (HopArchiveError, KafkaException) as error:
            logging.getLogger(__name__).warning("Offsets were not committed for monitoring: %s", error)
            self._progress_not_before_s = time.monotonic() + _PROGRESS_AGAIN_S
            self._forget_client()

    def close(self) -> None:
        """Let go of connections and their threads; a later call connects anew."""
        self._publisher.close()
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.__exit__(None, None, None)

    def _admin(self) -> AdminClient:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _forget_client(self) -> None:
        """Connect anew from the next call on: librdkafka 2.16 asks a coordinator that is gone, again and again.

        Not closed: another thread may be using it; it goes with the last reference.
        """
        with self._lock:
            self._client = None

    def _connect(self) -> AdminClient:
        configuration = self._connection.configuration(self._troubles, {"allow.auto.create.topics": False})
        try:
            return AdminClient(configuration, logger=LOGGER)
        except KafkaException as error:
            raise self._connection.failure(
                "configuring a client", kafka_error(error), self._troubles
            ) from error

    def _deadline(self) -> Deadline:
        return Deadline.after(self._connection.timeout_s)

    def _settle(
        self,
        futures: Mapping[Key, Future[Value]],
        doing: str,
        deadline: Deadline,
        absent: Collection[int] = (),
    ) -> dict[Key, Value]:
        """The results of ``futures``, less those that failed with a code in ``absent``."""
        self._wait(futures.values(), doing, deadline)
        results: dict[Key, Value] = {}
        for key, future in futures.items():
            try:
                results[key] = future.result()
            except KafkaException as error:
                cause = kafka_error(error)
                if cause.code() not in absent:
                    raise self._connection.failure(doing, cause, self._troubles) from error
        self._troubles.forget()
        return results

    def _wait(self, futures: Collection[Future[Any]], doing: str, deadline: Deadline) -> None:
        """Wait for all; a refused login ends that at once, for librdkafka would try it until the timeout."""
        client = self._admin()
        while concurrent.futures.wait(futures, timeout=_POLL_S).not_done:
            client.poll(0)
            if self._troubles.refused or (deadline.passed and self._is_late(futures)):
                raise self._connection.failure(doing, None, self._troubles)
        client.poll(0)  # takes in what error_cb is to be told, and the log

    @staticmethod
    def _is_late(futures: Collection[Future[Any]]) -> bool:
        """Whether librdkafka, given a second to time out by itself, with a better reason, did not."""
        return bool(concurrent.futures.wait(futures, timeout=1.0).not_done)

    def _all_names(self, deadline: Deadline) -> list[str]:
        client, timeout_s = self._admin(), min(_LOGIN_S, deadline.left_s)
        while True:
            try:
                names = sorted(client.list_topics(timeout=timeout_s).topics)
            except KafkaException as error:
                client.poll(0)
                if self._troubles.refused or deadline.passed:
                    raise self._connection.failure(
                        "listing topics", kafka_error(error), self._troubles
                    ) from error
                timeout_s = deadline.left_s
            else:
                self._troubles.forget()
                return names

    def _watermarks(
        self, partitions: Collection[TopicPartition], deadline: Deadline
    ) -> dict[TopicPartition, Watermarks]:
        # In this order: what is stable stays so, and high only grows, so that stable <= high, but for a topic
        # that is made anew in between.
        low = self._offsets(partitions, _SPEC.earliest(), IsolationLevel.READ_UNCOMMITTED, deadline)
        stable = self._offsets(low, _SPEC.latest(), IsolationLevel.READ_COMMITTED, deadline)
        high = self._offsets(stable, _SPEC.latest(), IsolationLevel.READ_UNCOMMITTED, deadline)
        told = {tp: Watermarks(low[tp], min(stable[tp], high[tp]), high[tp]) for tp in high}
        return told if self._tells_exact_ends(deadline) else self._corrected(told, deadline)

    def _tells_exact_ends(self, deadline: Deadline) -> bool:
        if self._exact_ends is None:
            self._exact_ends = tells_exact_ends(self._admin(), deadline)
        return self._exact_ends

    def _corrected(
        self, told: Mapping[TopicPartition, Watermarks], deadline: Deadline
    ) -> dict[TopicPartition, Watermarks]:
        """Watermarks with the ends that Fetch tells; an open transaction holds readers back where it did."""
        ends = exact_ends(self._connection, {tp: m.high for tp, m in told.items() if m.high}, deadline)
        return {
            tp: Watermarks(m.low, high if m.stable == m.high else m.stable, high)
            for tp, m in told.items()
            for high in [max(m.high, ends.get(tp, 0))]
        }

    def _offsets(
        self,
        partitions: Collection[TopicPartition],
        spec: OffsetSpec,
        isolation: IsolationLevel,
        deadline: Deadline,
    ) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        futures = self._admin().list_offsets(
            {_native(tp): spec for tp in partitions},
            isolation_level=isolation,
            request_timeout=deadline.left_s,
        )
        found = self._settle(futures, "asking for watermarks", deadline, absent=UNKNOWN_TOPIC)
        return {TopicPartition(tp.topic, tp.partition): result.offset for tp, result in found.items()}

    def _refuse_unless_writable(self, what: str) -> None:
        if not self._writable:
            raise ForbiddenError(
                f"Source {self.name} is not writable: refused to {what}.",
                remedy="Choose a source whose stanza says writable = true.",
                source=self.name,
            )

    def _wait_until_usable(self, name: str, deadline: Deadline) -> None:
        while not self._is_usable(name):
            if deadline.passed:
                raise self._connection.failure(f"waiting for leaders of topic {name}", None, self._troubles)
            threading.Event().wait(_POLL_S)

    def _is_usable(self, name: str) -> bool:
        info = self.topics([name]).get(name)
        if info is None:
            return False
        wanted = [TopicPartition(name, number) for number in range(info.partitions)]
        try:
            return len(self.watermarks(wanted)) == len(wanted)
        except UnavailableError:
            return False

    def _commit(self, offsets: list[confluent_kafka.TopicPartition]) -> None:
        deadline = Deadline.after(min(_PROGRESS_S, self._connection.timeout_s))
        request = [ConsumerGroupTopicPartitions(self._group_id, offsets)]
        futures = self._admin().alter_consumer_group_offsets(request, request_timeout=deadline.left_s)
        for answer in self._settle(futures, "committing offsets", deadline).values():
            for partition in answer.topic_partitions or []:
                if partition.error is not None:
                    raise self._connection.failure("committing offsets", partition.error, self._troubles)


def _native(
    tp: TopicPartition, offset: int = confluent_kafka.OFFSET_INVALID
) -> confluent_kafka.TopicPartition:
    return confluent_kafka.TopicPartition(tp.topic, tp.partition, offset)


def _info(description: TopicDescription) -> TopicInfo:
    topic_id = str(description.topic_id)
    return TopicInfo(description.name, topic_id if topic_id != _NO_ID else None, len(description.partitions))


def _operations(description: TopicDescription) -> frozenset[str] | None:
    told = description.authorized_operations
    return None if told is None else frozenset(operation.name.lower() for operation in told)
