"""A Kafka cluster in memory, or in a directory for several processes, that does what tests tell it to do.

It holds what a broker's log holds: transactions with their markers, holes, retention, and the
generations of topics. `hop_archive.source.mock.source.MockSource` is how programs see it.
"""

from __future__ import annotations

import base64
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from zlib import crc32

from hop_archive.errors import ConfigurationError, MissingSettingError
from hop_archive.model.message import (
    NO_TIMESTAMP_MS,
    Committed,
    Header,
    Message,
    Outgoing,
    Receipt,
    TimestampType,
    TopicPartition,
)
from hop_archive.model.watermarks import Watermarks
from hop_archive.shared_state import Pairs, SharedState
from hop_archive.source.mock.settings import DEFAULTS, refuse_settings
from hop_archive.source.protocol import TopicInfo


def now_ms() -> int:
    """The present, in milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """A random id in the form that Kafka gives clusters and topics."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


@dataclass(slots=True)
class Log:
    """One partition.

    Attributes:
        low: First offset that is still held.
        high: The next offset to be given.
        messages: In order of offset; those of open transactions too, those of aborted ones no more.
        open: The open transactions, with the first offset of each.
        leader_epoch: How often it was given a leader, but for the first time.
    """

    low: int = 0
    high: int = 0
    messages: list[Message] = field(default_factory=list)
    open: dict[int, int] = field(default_factory=dict)
    leader_epoch: int = 0

    @property
    def stable(self) -> int:
        """The last stable offset: readers of committed messages get no further."""
        return min(self.open.values(), default=self.high)

    @property
    def watermarks(self) -> Watermarks:
        """All three at once."""
        return Watermarks(self.low, max(self.stable, 0), self.high, self.leader_epoch)

    def read(self, start: int, count: int) -> tuple[list[Message], int]:
        """Up to ``count`` committed messages from ``start`` on, and the offset to go on from."""
        first, last = self._index(start), self._index(self.stable)
        messages = self.messages[first : min(last, first + count)]
        exhausted = first + count >= last
        return messages, max(start, self.stable) if exhausted else messages[-1].offset + 1

    def end(self, transaction: int, aborted: Collection[int]) -> None:
        """Write the marker that ends a transaction, which takes an offset; drop its ``aborted`` offsets."""
        self.drop(aborted)
        del self.open[transaction]
        self.high += 1

    def drop(self, offsets: Collection[int]) -> None:
        """Leave holes at these offsets."""
        if offsets:
            gone = frozenset(offsets)
            self.messages = [message for message in self.messages if message.offset not in gone]

    def truncate(self, before: int) -> None:
        """Drop what is below ``before``."""
        self.low = max(self.low, before)
        self.messages = self.messages[self._index(self.low) :]

    def lose_end(self, stop: int) -> None:
        """Drop what is at ``stop`` and beyond; the next message stands there."""
        self.messages = self.messages[: self._index(stop)]
        self.high, self.low = stop, min(self.low, stop)

    def first_since(self, time_ms: int) -> int:
        """The offset of the first message that is of that time or later, or has none; the end where none is."""
        kept = (
            m.offset for m in self.messages if m.timestamp_ms >= time_ms or m.timestamp_ms == NO_TIMESTAMP_MS
        )
        return min(next(kept, self.high), self.stable)

    def _index(self, offset: int) -> int:
        return bisect_left(self.messages, offset, key=lambda message: message.offset)


@dataclass(slots=True)
class Topic:
    """One generation of a topic."""

    topic_id: str
    logs: list[Log]
    config: dict[str, str]

    @property
    def timestamp_type(self) -> TimestampType:
        """Whose clock its messages bear."""
        append = self.setting("message.timestamp.type") == "LogAppendTime"
        return TimestampType.APPEND if append else TimestampType.CREATE

    def setting(self, name: str) -> str:
        """The value in force: its own, or the default."""
        return self.config.get(name, DEFAULTS[name])

    def limit(self, name: str) -> int:
        """A setting that is a number."""
        return int(self.setting(name))


@dataclass(slots=True)
class MockState:
    """All that a cluster holds.

    Attributes:
        topic_ids: Whether topics show their ids (KIP-516).
        running: Whether it answers.
        transactions: The open ones: the offsets that each has written, by partition.
        begun: How many transactions there were.
        progress: Group offsets that were committed, by group.
        live_groups: The groups that have members.
        leaderless: The partitions that no broker leads.
        denied: What may not be done with a topic: ``read``, or ``describe``, without which nothing else may be done.
    """

    cluster_id: str
    topic_ids: bool = True
    running: bool = True
    topics: dict[str, Topic] = field(default_factory=dict)
    transactions: dict[int, Annotated[dict[TopicPartition, list[int]], Pairs()]] = field(default_factory=dict)
    begun: int = 0
    progress: dict[str, Annotated[dict[TopicPartition, Committed], Pairs()]] = field(default_factory=dict)
    live_groups: set[str] = field(default_factory=set)
    leaderless: set[TopicPartition] = field(default_factory=set)
    denied: set[tuple[str, str]] = field(default_factory=set)

    def may(self, operation: str, topic: str) -> bool:
        """Whether the credentials allow something with a topic."""
        return not {(topic, operation), (topic, "describe")} & self.denied

    def log(self, at: TopicPartition) -> Log | None:
        """A partition, if it exists."""
        topic = self.topics.get(at.topic)
        return topic.logs[at.partition] if topic and at.partition < len(topic.logs) else None

    def info(self, name: str) -> TopicInfo | None:
        """A topic as clients see it, if it exists."""
        topic = self.topics.get(name)
        topic_id = topic.topic_id if topic and self.topic_ids else None
        return TopicInfo(name, topic_id, len(topic.logs), self.may("read", name)) if topic else None


class MockCluster:
    """A broker for tests and for trying things out; it does at once what it is told.

    Thread-safe; with ``directory``, processes share it. Each access to a directory loads and saves
    everything, so use that for hundreds of messages, and memory for tens of thousands; and it is JSON, in which a header
    name that is not UTF-8, as no client of ours could send it, cannot stand.

    Args:
        directory: Where it is kept; None keeps it in memory.
        clock: The present in milliseconds, for timestamps.
        make_id: Makes the ids of the cluster and of topics.
        topic_ids: Whether it shows topic ids; False is a broker from before KIP-516.
        sleep: How readers wait, in seconds.
    """

    def __init__(
        self,
        *,
        directory: Path | None = None,
        clock: Callable[[], int] = now_ms,
        make_id: Callable[[], str] = new_id,
        topic_ids: bool = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._make_id = make_id
        self.sleep = sleep
        self._state: SharedState[MockState] = SharedState(
            MockState, directory, "cluster", lambda: MockState(make_id(), topic_ids)
        )
        with self._state.change():
            pass  # so that a directory keeps the cluster id from now on

    def read(self) -> AbstractContextManager[MockState]:
        """Its state, not to be changed, for as long as the block lasts."""
        return self._state.read()

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic; one that exists is left as it is.

        Those of ``config`` that ``DEFAULTS`` lists have an effect.

        Raises:
            ConfigurationError: A setting is none of Kafka's, or its value is no number where it has to be one.
        """
        with self._state.change() as state:
            if name not in state.topics:
                refuse_settings(name, config or {})
                logs = [Log() for _ in range(partitions)]
                state.topics[name] = Topic(self._make_id(), logs, dict(config or {}))

    def delete_topic(self, name: str) -> None:
        """Delete a topic and what it holds."""
        with self._state.change() as state:
            self.topic(state, name)
            del state.topics[name]

    def recreate_topic(self, name: str, partitions: int | None = None) -> None:
        """Delete a topic and make it anew: another topic id, and offsets from 0 on; the same settings."""
        with self._state.change() as state:
            old = self.topic(state, name)
            logs = [Log() for _ in range(partitions or len(old.logs))]
            state.topics[name] = Topic(self._make_id(), logs, old.config)

    def append(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Iterable[Header] = (),
        timestamp_ms: int | None = None,
        partition: int = 0,
        transaction: int | None = None,
    ) -> Receipt:
        """Append a message, whatever it is: what no client would send too. It may belong to an open ``transaction``.

        With no ``timestamp_ms``, and in a topic with append times, it gets the clock's time.

        Raises:
            MissingSettingError: There is no such topic or partition.
        """
        with self._state.change() as state:
            at = TopicPartition(topic, partition)
            return self.put(state, at, (key, value, tuple(headers), timestamp_ms), transaction)

    def put(
        self,
        state: MockState,
        at: TopicPartition,
        content: tuple[bytes | None, bytes | None, tuple[Header, ...], int | None],
        transaction: int | None = None,
    ) -> Receipt:
        """Append key, value, headers and timestamp within a block of `change`."""
        log, kind = self._log(state, at), state.topics[at.topic].timestamp_type
        key, value, headers, timestamp_ms = content
        if timestamp_ms is None or kind is TimestampType.APPEND:
            timestamp_ms = self._clock()
        if transaction is not None:
            state.transactions[transaction].setdefault(at, []).append(log.high)
            log.open.setdefault(transaction, log.high)
        message = Message(*at, log.high, timestamp_ms, kind, key, value, headers, log.leader_epoch)
        log.messages.append(message)
        log.high += 1
        return Receipt(*at, message.offset)

    def change(self) -> AbstractContextManager[MockState]:
        """Its state, to be changed in place."""
        return self._state.change()

    def begin(self) -> int:
        """Begin a transaction, for `append`; as long as it is open it holds readers back."""
        with self._state.change() as state:
            state.begun += 1
            state.transactions[state.begun] = {}
            return state.begun

    def commit(self, transaction: int) -> None:
        """Commit a transaction: its markers take an offset in each partition that it wrote to."""
        with self._state.change() as state:
            for at in state.transactions.pop(transaction):
                self._log(state, at).end(transaction, ())

    def abort(self, transaction: int) -> None:
        """Abort a transaction: its messages are never seen, and its markers take an offset in each partition."""
        with self._state.change() as state:
            for at, offsets in state.transactions.pop(transaction).items():
                self._log(state, at).end(transaction, offsets)

    def compact(self, topic: str, partition: int, offsets: Collection[int]) -> None:
        """Leave holes at ``offsets``, as compaction does."""
        with self._state.change() as state:
            self._log(state, TopicPartition(topic, partition)).drop(offsets)

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Raise the low watermark to ``before``, as retention does.

        Raises:
            ValueError: That is above the high watermark.
        """
        with self._state.change() as state:
            log = self._log(state, TopicPartition(topic, partition))
            if before > log.high:
                raise ValueError(f"{topic}[{partition}] ends at {log.high}, before {before}")
            log.truncate(before)

    def move_leader(self, topic: str, partition: int) -> None:
        """Give a partition another leader, which holds all that the one before it held."""
        with self._state.change() as state:
            self._log(state, TopicPartition(topic, partition)).leader_epoch += 1

    def lose_end(self, topic: str, partition: int, stop: int) -> None:
        """Give a partition another leader, which does not hold what is at ``stop`` and beyond: it is gone for good.

        That is what power loss, or the election of a replica that lagged behind, does to a log.

        Raises:
            ValueError: The partition ends before ``stop``, or a transaction is open in it.
        """
        with self._state.change() as state:
            log = self._log(state, TopicPartition(topic, partition))
            if stop > log.high or log.open:
                raise ValueError(f"{topic}[{partition}] cannot be cut at {stop}")
            log.lose_end(stop)
            log.leader_epoch += 1

    def apply_retention(self) -> None:
        """Do at once what a broker does every few minutes: drop what is older than ``retention.ms``.

        It takes each message for a segment: from the beginning of a partition on, all go up to the first one
        that is young enough, or has no timestamp. A topic whose ``cleanup.policy`` does not say delete keeps all.
        """
        now = self._clock()
        with self._state.change() as state:
            for topic in state.topics.values():
                age = topic.limit("retention.ms")
                if age >= 0 and "delete" in topic.setting("cleanup.policy"):
                    for log in topic.logs:
                        log.truncate(log.first_since(now - age))

    def lose_leader(self, topic: str, partition: int = 0) -> None:
        """Leave a partition without a leader, as when all brokers that hold it are down."""
        with self._state.change() as state:
            state.leaderless.add(TopicPartition(topic, partition))

    def elect_leader(self, topic: str, partition: int = 0) -> None:
        """Give a partition a leader again; it holds what it held."""
        with self._state.change() as state:
            state.leaderless.discard(TopicPartition(topic, partition))

    def deny(self, topic: str, operation: str = "read") -> None:
        """Take away the right to read a topic, or even to describe it."""
        with self._state.change() as state:
            state.denied.add((topic, operation))

    def allow(self, topic: str) -> None:
        """Give all rights to a topic back."""
        with self._state.change() as state:
            state.denied = {right for right in state.denied if right[0] != topic}

    def join_group(self, group: str) -> None:
        """Give a group a member, which a consumer that subscribes is."""
        with self._state.change() as state:
            state.live_groups.add(group)
            state.progress.setdefault(group, {})

    def leave_group(self, group: str) -> None:
        """Let all members leave a group; its offsets stay."""
        with self._state.change() as state:
            state.live_groups.discard(group)

    def refuse_time(self, state: MockState, message: Outgoing) -> None:
        """Check that a message is not older, or further in the future, than its topic takes.

        Raises:
            MissingSettingError: There is no such topic.
            ConfigurationError: It is. As in Kafka, topics with append times take any, and all take none (−1).
        """
        topic, now, at_ms = self.topic(state, message.topic), self._clock(), message.timestamp_ms
        if at_ms is None or at_ms == NO_TIMESTAMP_MS or topic.timestamp_type is TimestampType.APPEND:
            return
        before, after = "message.timestamp.before.max.ms", "message.timestamp.after.max.ms"
        for name, distance in ((before, now - at_ms), (after, at_ms - now)):
            if distance > topic.limit(name):
                raise ConfigurationError(
                    f"A message of time {at_ms} is further from the present ({now}) than topic {message.topic} takes.",
                    remedy=f"Raise {name} of the topic, which is {topic.limit(name)}.",
                    topic=message.topic,
                )

    def restart_empty(self) -> None:
        """Restart as a broker does that keeps all in memory: no topics; the cluster id stays."""
        with self._state.change() as state:
            state.topics.clear()
            state.transactions.clear()
            state.progress.clear()
            state.live_groups.clear()
            state.running = True

    def stop(self) -> None:
        """Answer nobody any more, until `start`."""
        with self._state.change() as state:
            state.running = False

    def start(self) -> None:
        """Answer again; everything is as it was."""
        with self._state.change() as state:
            state.running = True

    def choose_partition(self, state: MockState, topic: str, key: bytes | None) -> int:
        """Where a message goes that names no partition: by its key, or where the least was written."""
        logs = self.topic(state, topic).logs
        if key is not None:
            return crc32(key) % len(logs)
        return min(range(len(logs)), key=lambda number: logs[number].high)

    def topic(self, state: MockState, name: str) -> Topic:
        """A topic within a block of `read` or `change`; MissingSettingError where there is none."""
        if name not in state.topics:
            raise MissingSettingError(
                f"There is no topic {name} in mock cluster {state.cluster_id}.",
                remedy="Create the topic, or correct its name.",
                topic=name,
            )
        return state.topics[name]

    def _log(self, state: MockState, at: TopicPartition) -> Log:
        logs = self.topic(state, at.topic).logs
        if not 0 <= at.partition < len(logs):
            raise MissingSettingError(
                f"Topic {at.topic} in mock cluster {state.cluster_id} has {len(logs)} partitions, and no {at.partition}.",
                remedy="Create the topic with as many partitions as needed.",
                topic=at.topic,
            )
        return logs[at.partition]
