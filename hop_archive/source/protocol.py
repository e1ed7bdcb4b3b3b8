"""The contract of a source. The same contract tests run over every implementation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar, cast

from hop_archive.errors import (
    GenerationChangedError,
    HopArchiveError,
    OffsetsGoneError,
    UnreadableMessageError,
)
from hop_archive.model.message import Committed, ForPartition, Message, Outgoing, Receipt, TopicPartition
from hop_archive.model.watermarks import Watermarks

Key = TypeVar("Key")
Value = TypeVar("Value", covariant=True)


class Answers(Mapping[Key, Value]):
    """A mapping of what was told; what does not exist is not in it.

    To look up what was not told raises the reason, so that it is never taken for what does not exist. Iterating passes over
    it: who does, and draws a conclusion from what is missing, asks ``untold`` first.

    Args:
        found: What was told.
        untold: What was asked for and not told, and why: `UnavailableError` where asking again later may help.
        cluster_id: The cluster that told it; None where that was not told in passing.
    """

    def __init__(
        self,
        found: Mapping[Key, Value],
        untold: Mapping[Key, HopArchiveError] | None = None,
        cluster_id: str | None = None,
    ) -> None:
        self._found = found
        self.untold: Mapping[Key, HopArchiveError] = untold or {}
        self.cluster_id = cluster_id

    def whole(self) -> Mapping[Key, Value]:
        """The same, for who can do nothing with a part.

        Raises:
            HopArchiveError: Why something was not told; the first reason.
        """
        for why in self.untold.values():
            raise why
        return self._found

    def __getitem__(self, key: Key) -> Value:
        if key in self.untold:
            raise self.untold[key]
        return self._found[key]

    def __contains__(self, key: object) -> bool:
        if key in self.untold:
            raise self.untold[cast("Key", key)]
        return key in self._found

    def __iter__(self) -> Iterator[Key]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return f"Answers({dict(self._found)!r}, untold={dict(self.untold)!r})"


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as the cluster describes it.

    Attributes:
        topic_id: The id of this generation of the topic (KIP-516); None where the broker gives none.
        partitions: How many partitions it has.
        readable: Whether the credentials may read it; None where the cluster does not tell (KIP-430).
    """

    name: str
    topic_id: str | None
    partitions: int
    readable: bool | None = field(default=None, compare=False)


class Setting(NamedTuple):
    """One setting of a topic.

    Attributes:
        value: As the cluster tells it, which is always text.
        own: Whether it was set on this topic, and is not a default of the broker or the cluster.
    """

    value: str
    own: bool


class Reader(AbstractContextManager["Reader"], Protocol):
    """Reads committed messages of assigned partitions, each from the offset asked for.

    Guarantees: per partition, messages come in offset order, none twice, none left out; never past the last
    stable offset; an offset that is gone is an error, never a silent jump. Use as a context manager.
    """

    def add(self, starts: Mapping[TopicPartition, int]) -> None:
        """Begin to read more partitions, each at its start offset; one already there starts anew from it.

        A topic of which something is being read stays the one that it was when that was added, and not what it is by now.

        Raises:
            UnavailableError: The cluster does not answer; nothing was added.
        """

    def release(self, partitions: Collection[TopicPartition]) -> None:
        """Stop reading these; what was fetched of them but not polled is dropped. Unknown ones are ignored.

        Their positions stay known.
        """

    def poll(self, max_messages: int, timeout_s: float) -> Sequence[Message]:
        """The next messages of any assigned partitions, waiting up to ``timeout_s`` for the first.

        An empty result means that nothing came in time, which is not the end: ask ``position``.

        Raises:
            OffsetsGoneError: An offset asked for is below the low watermark. That partition is released;
                the others go on. ``facts`` tell topic, partition and offset.
            GenerationChangedError: A topic that is read was deleted, or made anew. Its partitions are released;
                ``facts`` tell topic, partitions and offsets.
            UnreadableMessageError: The client cannot represent the message at an offset (``facts``), ever. Its
                partition is released, with all before that offset polled; add it again from the next one.
            DataError: A message is damaged. Its partition is released (``facts``).
            ForbiddenError: A topic may not be read. Its partition is released (``facts``: ``topic``, ``partition``).
            UnavailableError: The cluster does not answer.
        """

    def position(self, partition: TopicPartition) -> int:
        """The offset that will be read next: each one below it was polled, or is absent.

        Passes over transaction markers, aborted messages and compacted offsets once they are known to be
        absent, so it reaches the last stable offset even where no message stands before that.

        Raises:
            KeyError: The reader was never given this partition.
        """


class Source(Protocol):
    """A Kafka cluster, or a mock of one. Opening it does nothing; calls connect.

    Each call but ``note_progress`` and ``close`` raises UnavailableError where no broker answers within the timeout (10 s
    at most). Each one that changes anything raises ForbiddenError where the stanza is not writable, before it connects, or
    where the credentials do not allow it.
    """

    delivered: int
    """Messages that its readers have delivered, in all: for who shows how far reading is."""

    @property
    def name(self) -> str:
        """The stanza's name, for messages."""

    def cluster_id(self) -> str:
        """The cluster's id."""

    def topics(self, names: Collection[str] | None = None) -> Answers[str, TopicInfo]:
        """The topics that exist now, of ``names`` or of all; one that does not exist is not in the result.

        One that cannot be described is ``untold``: `ForbiddenError` where the credentials do not allow it. Of all, those
        that may not even be listed are left out.
        """

    def watermarks(self, partitions: Collection[TopicPartition]) -> Answers[TopicPartition, Watermarks]:
        """Watermarks of ``partitions``, in a few requests however many there are; unknown ones are left out.

        A partition without a leader, or whose broker does not answer, is ``untold`` (`UnavailableError`). Where anything was
        asked for, the ``cluster_id`` is told in passing.
        """

    def access(self, topics: Collection[str]) -> Mapping[str, frozenset[str] | None]:
        """What the credentials may do with each topic: ``read``, ``write``, ``delete``, ``alter`` and so on.

        None where the cluster does not tell (Kafka's names of ACL operations, in lower case; KIP-430); topics
        that do not exist are left out.
        """

    def group_access(self) -> frozenset[str] | None:
        """What the credentials may do with the group of ``note_progress``: ``read`` is what that takes.

        Empty where they may not even see it; None where the cluster does not tell, as of a group that is not there
        or whose coordinator is not ready.
        """

    def reader(self, starts: Mapping[TopicPartition, int]) -> Reader:
        """A reader of these partitions, each from its offset. Several may be open at once."""

    def publish(self, messages: Iterable[Outgoing]) -> Sequence[Receipt]:
        """Publish messages and wait until all are acknowledged by all in-sync replicas, in the order given.

        Returns:
            Where each message stands, in the order given.

        Raises:
            MissingSettingError: A topic does not exist.
            DataError: A message cannot be sent as it is (timestamp 0, a NUL in a header name); none was sent.
            ConfigurationError: A message is larger than the topic takes, or its timestamp is refused.
            UnavailableError: Not all were acknowledged; which ones is not known.
        """

    def append(
        self, topic: str, messages: Iterable[ForPartition], meanwhile: Callable[[], None] = lambda: None
    ) -> Mapping[int, Sequence[int]]:
        """Publish to the partitions of one topic as ``publish`` does, in bulk: some tens of thousands at a time.

        Also where an error is raised, what stands in a partition are the first of the messages for it, without a gap.

        Args:
            topic: Which topic.
            messages: May be a generator, and end early.
            meanwhile: Called once, when all are on their way and not yet all acknowledged: for what is to be done next.

        Returns:
            The offsets at which they stand, by partition, in the order given.
        """

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic, and wait until it can be used. One that exists is left as it is."""

    def settings(self, topics: Collection[str]) -> Mapping[str, Mapping[str, Setting]]:
        """The settings of each topic: its own, and the defaults in force where the cluster tells them.

        Topics that do not exist are left out; of one without settings the mapping is empty.

        Raises:
            ForbiddenError: The credentials do not allow to look (Kafka: DescribeConfigs on the topics).
        """

    def change_settings(self, topic: str, changes: Mapping[str, str | None]) -> None:
        """Set settings of a topic, and remove its own where the value is None, so that the default is in force.

        All of them or none, and no others; doing it again changes nothing. What is not set is removed already.
        Brokers take a moment, longer than this call waits perhaps: a message that goes by the new settings may be
        refused by the old ones until then.

        Raises:
            MissingSettingError: There is no such topic.
            ConfigurationError: The cluster does not take a setting, or its value; nothing was changed.
            UnavailableError: Whether it was changed is not known.
        """

    def delete_records(self, before: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """Delete the records below an offset of each partition, for good; doing it again deletes no more.

        Returns:
            The low watermarks as they are then: each at its offset, or above where it was so before.

        Raises:
            MissingSettingError: A topic or partition does not exist; nothing was deleted.
            ConfigurationError: An offset is above the high watermark, or negative (nothing was deleted); or the
                topic is one whose records can't be deleted (Kafka: cleanup.policy without ``delete``).
            UnsupportedError: The cluster can't do it; told by what it answers, or by watermarks that stayed.
            UnavailableError: It may have been done, in part or whole.
        """

    def groups(
        self, names: Collection[str] | None = None
    ) -> Mapping[str, Mapping[TopicPartition, Committed]]:
        """What consumer groups that the credentials may see have committed, with what they wrote beside it.

        A group that has committed nothing is there, with nothing. All of them or an error, never a part.

        Args:
            names: Only these, which are not listed first; one that there is not is left out, or has nothing.

        Raises:
            ForbiddenError: The credentials do not allow to list groups.
        """

    def set_group_offsets(self, group: str, offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commit offsets for a group, which need not exist; its offsets of other partitions stay.

        Any offset from 0 on is taken, beyond the end of the partition too, as Kafka takes it. Of the partitions that
        are set the metadata is set as well, where there is none: to none.

        Raises:
            MissingSettingError: A topic or partition does not exist; nothing was committed.
            ConfigurationError: An offset is negative (nothing was committed), the group's name is none, or metadata
                are longer than the cluster takes (Kafka: ``offset.metadata.max.bytes``).
            ConflictError: The group has live members, whose own commits would overwrite these; nothing was committed.
            UnavailableError: Some may have been committed.
        """

    def note_progress(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit group offsets for outside monitoring. Never read back; a failure is logged, not raised."""

    def close(self) -> None:
        """Let go of connections; closing twice is harmless."""


def unreadable(source: str, place: TopicPartition, offset: int, why: str) -> UnreadableMessageError:
    """The error of a reader that met a message which its client cannot represent."""
    return UnreadableMessageError(
        f"Source {source}: the message at {place} offset {offset} cannot be represented: {why}.",
        remedy="Its offset is recorded as skipped, with this reason.",
        **place._asdict(),
        offset=offset,
        why=why,
    )


def changed(source: str, offsets: Mapping[TopicPartition, int]) -> GenerationChangedError:
    """The error of a reader whose topic is gone, or another one; ``offsets`` are those that it would have read next."""
    topic, numbers = next(iter(offsets)).topic, [at.partition for at in offsets]
    return GenerationChangedError(
        f"Source {source}: topic {topic} was deleted, or deleted and made anew, while partitions {numbers} were read.",
        remedy="What was read is of the old topic; plan again for the new one.",
        topic=topic,
        partitions=numbers,
        offsets=[*offsets.values()],
    )


def gone(source: str, place: TopicPartition, offset: int, low: int) -> OffsetsGoneError:
    """The error of a reader that was to read what stands below the low watermark."""
    return OffsetsGoneError(
        f"Source {source}: {place} was to be read from offset {offset}, and Kafka holds it from {low} on: retention was "
        "faster.",
        remedy="Plan again; the offsets are recorded as lost.",
        **place._asdict(),
        offset=offset,
        low=low,
    )


def place_of(error: HopArchiveError) -> TopicPartition | None:
    """The partition that an error is about, by its ``facts``; None where it is about no single one."""
    topic, partition = error.facts.get("topic"), error.facts.get("partition")
    return TopicPartition(str(topic), int(str(partition))) if topic and partition is not None else None
