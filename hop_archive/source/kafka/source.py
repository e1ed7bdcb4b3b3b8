"""A source that is a Kafka cluster, by confluent-kafka (librdkafka)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicCollection, Uuid
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    NewTopic,
    TopicDescription,
)
from pydantic import SecretStr

from hop_archive.errors import ForbiddenError, HopArchiveError, UnavailableError
from hop_archive.model.credentials import Login
from hop_archive.model.message import Committed, Outgoing, Receipt, TopicPartition
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.answers import Answers
from hop_archive.source.kafka import groups as kafka_groups
from hop_archive.source.kafka import records as kafka_records
from hop_archive.source.kafka import settings as kafka_settings
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
from hop_archive.source.kafka.ends import describes_itself, exact_ends
from hop_archive.source.kafka.publisher import Publisher
from hop_archive.source.kafka.reader import KafkaReader
from hop_archive.source.offsets import refuse_unknown
from hop_archive.source.protocol import Setting, TopicInfo

FETCH_BYTES = 32 * 1024 * 1024
TIMEOUT_S = 7.0
"""Who waits is answered within ten seconds: a call may end a second late, and a command has to start."""
_POLL_S = 0.1
_CREATION_S = 60.0
_PROGRESS_S = 2.0  # monitoring is not worth more of a run's time
_PROGRESS_AGAIN_S = 60.0
_NO_ID = str(Uuid(0, 0))  # what a broker without KIP-516 answers


class KafkaSource:
    """A Kafka cluster; see `hop_archive.source.protocol.Source` for what its methods promise.

    Topic names are literal everywhere: a dot is a dot. Internal topics (``__consumer_offsets``) are listed like
    any other. Thread-safe; a reader is for one thread.

    Args:
        name: The stanza's name, for messages.
        bootstrap_servers: As Kafka clients take it, ``host:port,host:port``.
        writable: Whether publishing, creating topics, and changing anything at all is allowed.
        group_id: Under which progress is committed; nothing ever joins the group.
        settings: More librdkafka settings, as ``security.protocol``. Those that the guarantees rest on can't be
            overridden.
        secrets: librdkafka settings that no log or message may show, as ``sasl.password``.
        fetch_bytes: Most bytes that a reader of one broker's partitions holds of what it has fetched, until the
            next poll. One larger message exceeds it, and each further broker adds an answer of a quarter of it.
        timeout_s: How long to wait for the cluster before it counts as unavailable; at most 10.
        renew: Asks for the login anew where the cluster refuses it; None: nobody can tell another one.
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
        renew: Callable[[], Login | None] | None = None,
    ) -> None:
        self._connection = Connection(
            name, bootstrap_servers, settings or {}, secrets or {}, timeout_s, renew
        )
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
        """The stanza's name, for messages."""
        return self._connection.stanza

    @with_a_new_login
    def cluster_id(self) -> str:
        """The cluster's id."""
        return str(self._admin.metadata(self._admin.deadline()).cluster_id)

    @with_a_new_login
    def topics(self, names: Collection[str] | None = None) -> Answers[str, TopicInfo]:
        """The topics that exist now, of ``names`` or of all: one request, or two for all."""
        found = self._described(names)
        return Answers({name: _info(topic) for name, topic in found.items()}, found.untold)

    @with_a_new_login
    def watermarks(self, partitions: Collection[TopicPartition]) -> Answers[TopicPartition, Watermarks]:
        """Watermarks of ``partitions``: three requests to each broker, however many partitions there are."""
        deadline = self._admin.deadline()
        found = kafka_watermarks.watermarks(self._admin, partitions, deadline)
        if not found or self._describes_itself(deadline):
            return found
        return Answers(self._corrected(found, deadline), found.untold, found.cluster_id)

    @with_a_new_login
    def access(self, topics: Collection[str]) -> Mapping[str, frozenset[str] | None]:
        """What the credentials may do with each topic; one request."""
        found = self._described(topics)
        return Answers({name: _operations(topic) for name, topic in found.items()}, found.untold)

    @with_a_new_login
    def group_access(self) -> frozenset[str] | None:
        """What the credentials may do with the stanza's group; one request."""
        return kafka_groups.once(self._of_groups, lambda admin: kafka_groups.access(admin, self._group_id))

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
            self._admin.ask(
                lambda client, timeout_s: client.create_topics([topic], request_timeout=timeout_s),
                f"creating topic {name}",
                deadline,
                absent={KafkaError.TOPIC_ALREADY_EXISTS},
                of_controller=True,
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
        """The settings of each topic; two requests, or three to a broker that tells no defaults.

        Such a one (Tansu) lists the topic's own settings and marks them as defaults.
        """
        deadline = self._admin.deadline()
        found = kafka_settings.describe(self._admin, self.topics(topics), deadline)
        return found if self._describes_itself(deadline) else kafka_settings.all_own(found)

    def change_settings(self, topic: str, changes: Mapping[str, str | None]) -> None:
        """Change a topic's own settings, and leave the others as they are (KIP-339)."""
        self._refuse_unless_writable(f"change settings of topic {topic}")
        if topic not in self.topics([topic]):  # Tansu takes settings for topics that do not exist
            raise self._admin.connection.missing(f"there is no topic {topic}", topic=topic)
        kafka_settings.change(self._admin, topic, changes)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """Delete what stands below these offsets (KIP-107), and look whether it is gone."""
        self._refuse_unless_writable("delete records on it")
        return kafka_records.delete(self._admin, before, self.watermarks)

    @with_a_new_login
    def groups(self) -> Mapping[str, Mapping[TopicPartition, Committed]]:
        """Committed offsets of consumer groups: a request to each broker, and one or two a group."""
        return kafka_groups.patiently(self._connection, kafka_groups.committed)

    def set_group_offsets(self, group: str, offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commit offsets for a group without members."""
        self._refuse_unless_writable(f"set offsets of group {group}")
        refuse_unknown(self.name, {at: one.offset for at, one in offsets.items()}, self.watermarks(offsets))
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
        wanted = sorted(set(names) - {""} if names is not None else self._admin.metadata(deadline).topics)
        if not wanted:
            return Answers({})
        # Again, where none answered: the request may have gone to a broker that is silent, until metadata tell of another.
        tried_by = Deadline.after(min(SILENCE_S, deadline.left_s / 2))
        while True:
            found, errors = self._admin.ask_each(
                lambda client, timeout_s: client.describe_topics(
                    TopicCollection(wanted), include_authorized_operations=True, request_timeout=timeout_s
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
            self._has_defaults = describes_itself(self._admin, deadline)
        return self._has_defaults

    def _corrected(
        self, told: Mapping[TopicPartition, Watermarks], deadline: Deadline
    ) -> dict[TopicPartition, Watermarks]:
        """Watermarks with the ends that Fetch tells; an open transaction holds readers back where it did."""
        ends = exact_ends(self._connection, {tp: m.high for tp, m in told.items() if m.high}, deadline)
        return {
            tp: Watermarks(m.low, high if m.stable == m.high else m.stable, high, m.leader_epoch)
            for tp, m in told.items()
            for high in [max(m.high, ends.get(tp, 0))]
        }

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
                raise self._admin.failure(f"waiting for leaders of topic {name}")
            threading.Event().wait(_POLL_S)

    def _is_usable(self, name: str) -> bool:
        try:
            info = self.topics([name]).get(name)
            if info is None:
                return False
            wanted = [TopicPartition(name, number) for number in range(info.partitions)]
            return len(self.watermarks(wanted)) == len(wanted)
        except UnavailableError:
            return False


def _info(description: TopicDescription) -> TopicInfo:
    topic_id = str(description.topic_id)
    operations = _operations(description)
    return TopicInfo(
        description.name,
        topic_id if topic_id != _NO_ID else None,
        len(description.partitions),
        readable=None if operations is None else "read" in operations,
    )


def _is_of_all(error: KafkaException) -> bool:
    """Whether an error says nothing of the topic: the login is refused, or no broker answered."""
    return kafka_error(error).code() in (AUTHENTICATION | NO_ANSWER)


def _operations(description: TopicDescription) -> frozenset[str] | None:
    told = description.authorized_operations
    return None if told is None else frozenset(operation.name.lower() for operation in told)
