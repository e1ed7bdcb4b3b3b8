"""A source that is a mock of a Kafka cluster: it keeps the whole contract, in memory or in a directory."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from hop_archive.errors import (
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    HopArchiveError,
    UnavailableError,
)
from hop_archive.model.message import Committed, ForPartition, Message, Outgoing, Receipt, TopicPartition
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.mock.cluster import Log, MockCluster, MockState
from hop_archive.source.mock.settings import refuse_settings, settings_of
from hop_archive.source.protocol import Answers, Reader, Setting, Source, TopicInfo, changed, gone, unreadable
from hop_archive.source.refusals import (
    refuse_beyond_end,
    refuse_unknown,
    refuse_unless_writable,
    refuse_unsendable,
)

GROUP_ID = "hop_archive"
"""The group under which `MockSource.note_progress` notes."""

_WAIT_S, _LONGEST_WAIT_S = 0.005, 0.08
"""Between looks for messages: first and, once it was doubled again and again, last. A look at a mock in a directory reads
all of it; of the CPU that crash matrices took, 250 ms of looks each 5 ms were a third (2026-11-29)."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_WRITING = frozenset({"write", "create", "alter", "alter_configs", "delete"})


class MockSource(Source):
    """A mock of a Kafka cluster.

    Args:
        name: The stanza's name, for messages.
        cluster: The cluster that it stands for; several sources may share one. None makes an empty one.
        writable: Whether publishing and creating topics is allowed.
        directory: Where a cluster made here keeps its messages; None keeps them in memory.
    """

    def __init__(
        self,
        name: str = "mock-hop",
        *,
        cluster: MockCluster | None = None,
        writable: bool = True,
        directory: Path | None = None,
    ) -> None:
        self.delivered = 0
        self._name = name
        self._writable = writable
        self.cluster = cluster or MockCluster(directory=directory)

    @property
    def name(self) -> str:
        return self._name

    def cluster_id(self) -> str:
        with self.cluster.read() as state:
            return _running(self.name, state).cluster_id

    def topics(self, names: Collection[str] | None = None) -> Answers[str, TopicInfo]:
        with self.cluster.read() as state:
            _running(self.name, state)
            shown = [name for name in state.topics if state.may("describe", name)]
            asked = sorted(shown if names is None else set(names))
            untold = {n: _forbidden(self.name, "describe", n) for n in asked if not state.may("describe", n)}
            infos = {name: info for name in asked if name not in untold and (info := state.info(name))}
            return Answers(infos, untold)

    def watermarks(self, partitions: Collection[TopicPartition]) -> Answers[TopicPartition, Watermarks]:
        with self.cluster.read() as state:
            _running(self.name, state)
            there = {at: log for at in partitions if (log := state.log(at))}
            untold: dict[TopicPartition, HopArchiveError] = {}
            for at in there:
                if not state.may("describe", at.topic):
                    untold[at] = _forbidden(self.name, "describe", at.topic)
                elif at in state.leaderless:
                    untold[at] = _no_leader(self.name, at)
            marks = {at: log.watermarks for at, log in there.items() if at not in untold}
            return Answers(marks, untold, state.cluster_id if partitions else None)

    def access(self, topics: Collection[str]) -> Mapping[str, frozenset[str] | None]:
        """Everything, less what was denied, and less writing where the stanza does not allow it."""
        may = {"describe", "describe_configs", *(_WRITING if self._writable else ())}
        found = self.topics(topics)
        return Answers(
            {name: frozenset(may | {"read"} if info.readable else may) for name, info in found.items()},
            found.untold,
        )

    def group_access(self) -> frozenset[str] | None:
        """Everything: what a group has committed is noted whether or not the stanza allows writing."""
        with self.cluster.read() as state:
            _running(self.name, state)
        return frozenset({"read", "describe", "delete"})

    def reader(self, starts: Mapping[TopicPartition, int]) -> MockReader:
        return MockReader(self, starts)

    def publish(self, messages: Iterable[Outgoing]) -> Sequence[Receipt]:
        """Publish messages; when one is refused, those before it are published."""
        self._refuse_unless_writable("publish to it")
        # All first: to make them, ``messages`` may itself read this cluster, whose lock is not to be had twice.
        outgoing = list(messages)
        receipts: list[Receipt] = []
        refusal: HopArchiveError | None = None
        with self.cluster.change() as state:
            _running(self.name, state)
            for message in outgoing:
                try:
                    receipts.append(self._publish(state, message))
                except HopArchiveError as error:
                    refusal = error
                    break
        if refusal is not None:
            raise refusal
        return receipts

    def append(
        self, topic: str, messages: Iterable[ForPartition], meanwhile: Callable[[], None] = lambda: None
    ) -> Mapping[int, Sequence[int]]:
        offsets = defaultdict[int, list[int]](list)
        for receipt in self.publish([message.to(topic) for message in messages]):
            offsets[receipt.partition].append(receipt.offset)
        meanwhile()
        return offsets

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        self._refuse_unless_writable("create topics on it")
        with self.cluster.read() as state:
            _running(self.name, state)
        self.cluster.create_topic(name, partitions, config)

    def settings(self, topics: Collection[str]) -> Mapping[str, Mapping[str, Setting]]:
        with self.cluster.read() as state:
            _running(self.name, state)
            return {name: settings_of(state.topics[name].config) for name in topics if name in state.topics}

    def change_settings(self, topic: str, changes: Mapping[str, str | None]) -> None:
        self._refuse_unless_writable(f"change settings of topic {topic}")
        with self.cluster.change() as state:
            config = self.cluster.topic(_running(self.name, state), topic).config
            refuse_settings(topic, changes)
            config.update({name: value for name, value in changes.items() if value is not None})
            for name in [name for name, value in changes.items() if value is None]:
                config.pop(name, None)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        self._refuse_unless_writable("delete records on it")
        with self.cluster.change() as state:
            logs = self._logs(state, before)
            refuse_beyond_end(self.name, before, {at: log.watermarks for at, log in logs.items()})
            for at, log in logs.items():
                log.truncate(before[at])
            return {at: log.low for at, log in logs.items()}

    def groups(
        self, names: Collection[str] | None = None
    ) -> Mapping[str, Mapping[TopicPartition, Committed]]:
        with self.cluster.read() as state:
            progress = _running(self.name, state).progress
            return {group: dict(held) for group, held in progress.items() if names is None or group in names}

    def set_group_offsets(self, group: str, offsets: Mapping[TopicPartition, Committed]) -> None:
        self._refuse_unless_writable(f"set offsets of group {group}")
        with self.cluster.change() as state:
            self._logs(state, {at: committed.offset for at, committed in offsets.items()})
            if offsets:
                if group in state.live_groups:
                    raise ConflictError(
                        f"Source {self.name}: consumer group {group} has live members.",
                        remedy="Stop the group's consumers, wait until it has no members, and try again.",
                        source=self.name,
                        group=group,
                    )
                state.progress.setdefault(group, {}).update(offsets)

    def note_progress(self, positions: Mapping[TopicPartition, int]) -> None:
        """Note group offsets in the cluster's ``progress``."""
        with self.cluster.change() as state:
            if state.running:
                noted = {at: Committed(offset) for at, offset in positions.items()}
                state.progress.setdefault(GROUP_ID, {}).update(noted)

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _publish(self, state: MockState, message: Outgoing) -> Receipt:
        number = message.partition
        if number is None:
            number = self.cluster.choose_partition(state, message.topic, message.key)
        refuse_unsendable(self.name, message)
        limit = self.cluster.topic(state, message.topic).limit("max.message.bytes")
        if len(message.value or b"") + len(message.key or b"") > limit:
            raise ConfigurationError(
                f"Source {self.name}: a message is larger than topic {message.topic} takes, {limit} bytes.",
                remedy="Raise max.message.bytes of the topic.",
                topic=message.topic,
            )
        self.cluster.refuse_time(state, message)
        if TopicPartition(message.topic, number) in state.leaderless:
            raise _no_leader(self.name, TopicPartition(message.topic, number))
        content = (message.key, message.value, message.headers, message.timestamp_ms)
        return self.cluster.put(state, TopicPartition(message.topic, number), content)

    def _logs(self, state: MockState, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, Log]:
        """The partitions, once all of them are there, and all offsets are such."""
        found = {at: log for at in offsets if (log := _running(self.name, state).log(at))}
        refuse_unknown(self.name, offsets, {at: log.watermarks for at, log in found.items()})
        return found

    def _refuse_unless_writable(self, what: str) -> None:
        refuse_unless_writable(self.name, self._writable, what)


class MockReader(Reader):
    """Reads a mock cluster. Nothing is fetched ahead: what happens to the cluster between two polls, the second sees."""

    def __init__(self, source: MockSource, starts: Mapping[TopicPartition, int]) -> None:
        self._of = source
        self._source = source.name
        self._cluster = source.cluster
        self._next: dict[TopicPartition, int] = {}
        self._topic_ids: dict[str, str | None] = {}
        self._queue: deque[TopicPartition] = deque()
        self._errors: deque[HopArchiveError] = deque()
        self.add(starts)

    def __exit__(self, *_: object) -> None:
        """Nothing to let go of."""

    def add(self, starts: Mapping[TopicPartition, int]) -> None:
        read = {at.topic for at in self._queue}
        self.release(starts)
        with self._cluster.read() as state:
            _running(self._source, state)
            for topic in {at.topic for at in starts} - read:
                info = state.info(topic)
                self._topic_ids[topic] = info.topic_id if info else None
        self._next.update(starts)
        self._queue.extend(sorted(starts))

    def release(self, partitions: Collection[TopicPartition]) -> None:
        leaving = frozenset(partitions)
        self._queue = deque(at for at in self._queue if at not in leaving)

    def poll(self, max_messages: int, timeout_s: float) -> Sequence[Message]:
        left_s, wait_s = timeout_s, _WAIT_S
        while True:
            if self._errors:
                raise self._errors.popleft()
            messages: list[Message] = []
            with self._cluster.read() as state:
                _running(self._source, state)
                for at in list(self._queue):
                    if len(messages) < max_messages:
                        messages += self._read_one(state, at, max_messages - len(messages))
            self._queue.rotate(-1)  # another partition is the first each time
            if messages or (left_s <= 0 and not self._errors):
                self._of.delivered += len(messages)
                return messages
            if not self._errors:
                self._cluster.sleep(wait_s)
                left_s -= wait_s
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def position(self, partition: TopicPartition) -> int:
        return self._next[partition]

    def _read_one(self, state: MockState, at: TopicPartition, count: int) -> list[Message]:
        if not state.may("read", at.topic):
            self._drop(at, _forbidden(self._source, "read", at.topic, partition=at.partition))
            return []
        if at in state.leaderless:
            return []
        start, log, info = self._next[at], state.log(at), state.info(at.topic)
        if not info or info.topic_id != self._topic_ids[at.topic] or log is None or start > log.high:
            read = sorted(other for other in self._queue if other.topic == at.topic)
            if read:  # else it was dropped with another of its partitions, just now
                self.release(read)
                self._errors.append(changed(self._source, {other: self._next[other] for other in read}))
            return []
        if start < log.low:
            self._drop(at, gone(self._source, at, start, log.low))
            return []
        messages, following = log.read(start, count)
        # A lone surrogate in a header's name stands for bytes that are not UTF-8.
        fault = next((m for m in messages if any(_SURROGATE.search(name) for name, _ in m.headers)), None)
        if fault is not None:
            self._drop(at, unreadable(self._source, at, fault.offset, "a header name is not UTF-8"))
            messages, following = [m for m in messages if m.offset < fault.offset], fault.offset
        self._next[at] = following
        return messages

    def _drop(self, at: TopicPartition, error: HopArchiveError) -> None:
        self.release([at])
        self._errors.append(error)


def _running(source: str, state: MockState) -> MockState:
    if not state.running:
        raise UnavailableError(
            f"Source {source}: mock cluster {state.cluster_id} does not answer.",
            remedy="Start it (MockCluster.start).",
            source=source,
        )
    return state


def _forbidden(source: str, operation: str, topic: str, **facts: object) -> ForbiddenError:
    return ForbiddenError(
        f"Source {source}: the credentials do not allow to {operation} topic {topic}.",
        remedy="Give them the right, or leave the topic out.",
        source=source,
        topic=topic,
        **facts,
    )


def _no_leader(source: str, at: TopicPartition) -> UnavailableError:
    return UnavailableError(
        f"Source {source}: {at} has no leader.",
        remedy="Start the brokers that hold it.",
        source=source,
        **at._asdict(),
    )
