"""A source that is a Kafka cluster, by confluent-kafka (librdkafka)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from confluent_kafka import KafkaError, KafkaException, TopicCollection, Uuid
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    NewTopic,
    TopicDescription,
)

from hop_archive.errors import HopArchiveError, UnavailableError
from hop_archive.model.credentials import KafkaAccess
from hop_archive.model.message import Committed, ForPartition, Outgoing, Receipt, TopicPartition
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.kafka import groups as kafka_groups
from hop_archive.source.kafka import topics as kafka_topics
from hop_archive.source.kafka import watermarks as kafka_watermarks
from hop_archive.source.kafka.admin import SILENCE_S, Admin
from hop_archive.source.kafka.client import (
    AUTHENTICATION,
    NO_ANSWER,
    UNKNOWN_TOPIC,
    Connection,
    Deadline,
    kafka_error,
    with_a_new_login,
)
from hop_archive.source.kafka.publisher import Publisher
from hop_archive.source.kafka.reader import KafkaReader
from hop_archive.source.protocol import Answers, Setting, Source, TopicInfo
from hop_archive.source.refusals import refuse_unknown, refuse_unless_writable

FETCH_BYTES = 32 * 1024 * 1024
TIMEOUT_S = 7.0
"""Who waits is answered within ten seconds: a call may end a second late, and a command has to start."""
_POLL_S = 0.1
_CREATION_S = 60.0
_PROGRESS_S = 2.0  # monitoring is not worth more of a run's time
_PROGRESS_AGAIN_S = 60.0
_NO_ID = str(Uuid(0, 0))  # what a broker without KIP-516 answers


class KafkaSource(Source):
    """A Kafka cluster.

    Topic names are literal everywhere: a dot is a dot. Internal topics (``__consumer_offsets``) are listed like
    any other. Thread-safe; a reader is for one thread.

    Args:
        name: The stanza's name, for messages.
        bootstrap_servers: As Kafka clients take it, ``host:port,host:port``.
        writable: Whether publishing, creating topics, and changing anything at all is allowed.
        group_id: Under which progress is committed; nothing ever joins the group.
        access: How to get in, and other settings of librdkafka's. Those that the guarantees rest on can't be overridden.
        fetch_bytes: Most bytes that a reader of one broker's partitions holds of what it has fetched, until the
            next poll. One larger message exceeds it, and each further broker adds an answer of a quarter of it.
        timeout_s: How long to wait for the cluster before it counts as unavailable; at most 10.
        renew: Asks for the access anew where the cluster refuses it; None: nobody can tell another one.
    """

    def __init__(
        self,
        name: str,
        *,
        bootstrap_servers: str,
        writable: bool = False,
        group_id: str = "hop_archive",
        access: KafkaAccess | None = None,
        fetch_bytes: int = FETCH_BYTES,
        timeout_s: float = TIMEOUT_S,
        renew: Callable[[], KafkaAccess] | None = None,
    ) -> None:
        self.delivered = 0
        self._connection = Connection(name, bootstrap_servers, access or KafkaAccess(), timeout_s, renew)
        self._writable = writable
        self._group_id = group_id
        self._fetch_bytes = fetch_bytes
        self._admin = Admin(self._connection)
        self._of_groups = Admin(self._connection)  # apart: see `kafka_groups` on what becomes of its client
        self._has_defaults: bool | None = None
        self._progress_not_before_s = 0.0  # of time.monotonic()
        self._publisher = Publisher(self._connection, self.topics)

    @property
    def name(self) -> str:
        return self._connection.stanza

    @with_a_new_login
    def cluster_id(self) -> str:
        return str(self._admin.metadata(self._admin.deadline()).cluster_id)

    @with_a_new_login
    def topics(self, names: Collection[str] | None = None) -> Answers[str, TopicInfo]:
        """One request, or two for all."""
        found = self._described(names)
        infos = {}
        for name, topic in found.items():
            topic_id, operations = str(topic.topic_id), _operations(topic)
            infos[name] = TopicInfo(
                name,
                topic_id if topic_id != _NO_ID else None,
                len(topic.partitions),
                readable=None if operations is None else "read" in operations,
            )
        return Answers(infos, found.untold)

    @with_a_new_login
    def watermarks(self, partitions: Collection[TopicPartition]) -> Answers[TopicPartition, Watermarks]:
        """Three requests to each broker, however many partitions there are."""
        deadline = self._admin.deadline()
        found = kafka_watermarks.watermarks(self._admin, partitions, deadline)
        if not found or self._describes_itself(deadline):
            return found
        # The ends that Fetch tells; an open transaction holds readers back where it did.
        ends = kafka_watermarks.exact_ends(
            self._connection, {at: marks.high for at, marks in found.items() if marks.high}, deadline
        )
        exact = {}
        for at, marks in found.items():
            high = max(marks.high, ends.get(at, 0))
            exact[at] = Watermarks(
                marks.low, high if marks.stable == marks.high else marks.stable, high, marks.leader_epoch
            )
        return Answers(exact, found.untold, found.cluster_id)

    @with_a_new_login
    def access(self, topics: Collection[str]) -> Mapping[str, frozenset[str] | None]:
        found = self._described(topics)
        return Answers({name: _operations(topic) for name, topic in found.items()}, found.untold)

    @with_a_new_login
    def group_access(self) -> frozenset[str] | None:
        return kafka_groups.once(self._of_groups, lambda admin: kafka_groups.access(admin, self._group_id))

    def reader(self, starts: Mapping[TopicPartition, int]) -> KafkaReader:
        return KafkaReader(
            self, self._connection, starts, group_id=self._group_id, fetch_bytes=self._fetch_bytes
        )

    def publish(self, messages: Iterable[Outgoing]) -> Sequence[Receipt]:
        self._refuse_unless_writable("publish to it")
        return self._publisher.publish(messages)

    def append(
        self, topic: str, messages: Iterable[ForPartition], meanwhile: Callable[[], None] = lambda: None
    ) -> Mapping[int, Sequence[int]]:
        self._refuse_unless_writable("publish to it")
        return self._publisher.append(topic, messages, meanwhile)

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """With the cluster's default replication; waits until the partitions have leaders, a minute where there are very many.

        Raises:
            ConfigurationError: The cluster does not take such a name, setting or number of partitions.
        """
        self._refuse_unless_writable("create topics on it")
        if not self.topics([name]):
            deadline = Deadline.after(_CREATION_S)
            topic = NewTopic(name, partitions, config=dict(config or {}))
            self._admin.ask(
                lambda client, timeout_s: client.create_topics([topic], request_timeout=timeout_s),
                f"creating topic {name}",
                deadline,
                absent={KafkaError.TOPIC_ALREADY_EXISTS},
                of_controller=True,
            )
            is_usable = False
            while not is_usable:
                with suppress(UnavailableError):
                    info = self.topics([name]).get(name)
                    numbers = range(info.partitions) if info else ()
                    led = self.watermarks([TopicPartition(name, number) for number in numbers])
                    is_usable = info is not None and len(led) == len(numbers)
                if not is_usable:
                    if deadline.passed:
                        raise self._admin.failure(f"waiting for leaders of topic {name}")
                    threading.Event().wait(_POLL_S)

    def note_progress(self, positions: Mapping[TopicPartition, int]) -> None:
        """Takes two seconds at most.

        A failure is logged, and nothing is committed in the minute after it: what
        monitors the group sees the next offsets then, and a cluster that comes back is not kept waiting for.
        """
        if not positions or time.monotonic() < self._progress_not_before_s:
            return
        try:
            deadline = Deadline.after(min(_PROGRESS_S, self._connection.timeout_s))
            noted = {at: Committed(offset) for at, offset in positions.items()}
            kafka_groups.once(
                self._of_groups, lambda admin: kafka_groups.commit(admin, self._group_id, noted, deadline)
            )
        except (HopArchiveError, KafkaException) as error:
            logging.getLogger(__name__).warning("Offsets were not committed for monitoring: %s", error)
            self._progress_not_before_s = time.monotonic() + _PROGRESS_AGAIN_S

    @with_a_new_login
    def settings(self, topics: Collection[str]) -> Mapping[str, Mapping[str, Setting]]:
        """Two requests, or three to a broker that tells no defaults.

        Such a one (Tansu) lists the topic's own settings and marks them as defaults.
        """
        deadline = self._admin.deadline()
        all_own = not self._describes_itself(deadline)
        return kafka_topics.describe_settings(self._admin, self.topics(topics), deadline, all_own=all_own)

    def change_settings(self, topic: str, changes: Mapping[str, str | None]) -> None:
        self._refuse_unless_writable(f"change settings of topic {topic}")
        if topic not in self.topics([topic]):  # Tansu takes settings for topics that do not exist
            raise self._admin.connection.missing(f"there is no topic {topic}", topic=topic)
        kafka_topics.change_settings(self._admin, topic, changes)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """Looks whether what was to be deleted (KIP-107) is gone."""
        self._refuse_unless_writable("delete records on it")
        return kafka_topics.delete_records(self._admin, before, self.watermarks)

    @with_a_new_login
    def groups(
        self, names: Collection[str] | None = None
    ) -> Mapping[str, Mapping[TopicPartition, Committed]]:
        return kafka_groups.patiently(self._connection, lambda admin: kafka_groups.committed(admin, names))

    def set_group_offsets(self, group: str, offsets: Mapping[TopicPartition, Committed]) -> None:
        self._refuse_unless_writable(f"set offsets of group {group}")
        numbers = {at: committed.offset for at, committed in offsets.items()}
        refuse_unknown(self.name, numbers, self.watermarks(offsets))
        if offsets:
            kafka_groups.patiently(
                self._connection, lambda admin: kafka_groups.commit(admin, group, offsets, admin.deadline())
            )

    def close(self) -> None:
        """Let go of connections and their threads; a later call connects anew."""
        self._publisher.close()
        self._admin.close()
        self._of_groups.close()

    def _described(self, names: Collection[str] | None) -> Answers[str, TopicDescription]:
        deadline, doing = self._admin.deadline(), "describing topics"
        asked = sorted(set(names) - {""} if names is not None else self._admin.metadata(deadline).topics)
        if not asked:
            return Answers({})
        # Again, where none answered: the request may have gone to a broker that is silent, until metadata tell of another.
        tried_by = Deadline.after(min(SILENCE_S, deadline.left_s / 2))
        while True:
            found, errors = self._admin.ask_each(
                lambda client, timeout_s: client.describe_topics(
                    TopicCollection(asked), include_authorized_operations=True, request_timeout=timeout_s
                ),
                doing,
                tried_by,
                absent=UNKNOWN_TOPIC,
                of_controller=True,
            )
            if deadline.passed or not errors or not all(_is_of_all(error) for error in errors.values()):
                break
            threading.Event().wait(_POLL_S)
            self._admin.metadata(deadline)
            tried_by = deadline
        if errors and not found and all(_is_of_all(error) for error in errors.values()):
            raise self._admin.failure(doing, next(iter(errors.values())))
        failures = {name: self._admin.failure(f"{doing}, {name},", error) for name, error in errors.items()}
        return Answers(found, failures)

    def _describes_itself(self, deadline: Deadline) -> bool:
        if self._has_defaults is None:
            self._has_defaults = kafka_watermarks.describes_itself(self._admin, deadline)
        return self._has_defaults

    def _refuse_unless_writable(self, what: str) -> None:
        refuse_unless_writable(self.name, self._writable, what)


def _is_of_all(error: KafkaException) -> bool:
    """Whether an error says nothing of the topic: the login is refused, or no broker answered."""
    return kafka_error(error).code() in (AUTHENTICATION | NO_ANSWER)


def _operations(description: TopicDescription) -> frozenset[str] | None:
    operations = description.authorized_operations
    return None if operations is None else frozenset(operation.name.lower() for operation in operations)
