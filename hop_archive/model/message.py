"""What a message is: one Kafka record as it was delivered, with where it stood. No I/O, no parsing."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeAlias

Header: TypeAlias = tuple[str, bytes | None]
"""A header's name and value. Names repeat and order counts, so headers are a sequence, never a dict."""

NO_TIMESTAMP_MS = -1
"""What Kafka stores for a record without a timestamp (Kafka protocol, ``NO_TIMESTAMP``)."""


class TimestampType(enum.IntEnum):
    """Whose clock a timestamp is, numbered as in the Kafka protocol (``TimestampType`` in the Java client)."""

    NONE = -1
    CREATE = 0
    APPEND = 1


CLOCKS = {int(clock): clock for clock in TimestampType}
"""By number: an enum's own look-up takes five times as long."""


class TopicPartition(NamedTuple):
    """One partition of a topic. Sorts by topic, then by partition number."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Message(NamedTuple):
    """One Kafka record, exactly as delivered. A tuple for the reason that ``Row`` is one.

    Attributes:
        partition: Kafka partition, from 0.
        offset: Position in the partition, from 0.
        timestamp_ms: Milliseconds since 1970 UTC; −1 where Kafka has none. Any int64 is legal.
        key: Message key; None (no key) differs from b"" (an empty key).
        value: Payload; None (a tombstone) differs from b"". Not in its ``repr``: it may be of many MB.
        headers: Pairs in the order sent, repeats kept; a value of None differs from b"".
        leader_epoch: Epoch of the leader that appended it; None where the broker did not tell.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    timestamp_type: TimestampType
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    leader_epoch: int | None = None

    def __repr__(self) -> str:
        shown = {**self._asdict(), "value": None if self.value is None else f"{len(self.value)} bytes"}
        return f"Message({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def topic_partition(self) -> TopicPartition:
        """The partition that it stands in."""
        return TopicPartition(self.topic, self.partition)

    @property
    def size_bytes(self) -> int:
        """Bytes of key, value and headers together: what it weighs in memory and on the wire."""
        _, _, _, _, _, key, value, headers, _ = self
        return content_bytes(key, value, headers)


def content_bytes(key: bytes | None, value: bytes | None, headers: Iterable[Header]) -> int:
    """Bytes of key, value and headers together."""
    size = (len(key) if key else 0) + (len(value) if value else 0)
    for name, content in headers:
        # isascii is a flag of the string: encoding every name would cost more than all the rest.
        size += len(name) if name.isascii() else len(name.encode(errors="surrogatepass"))
        if content:
            size += len(content)
    return size


class Outgoing(Protocol):
    """A message to publish: what a producer can choose of a record.

    Attributes:
        topic: Kafka topic name; it must exist.
        key: Message key; None differs from b"".
        value: Payload; None (a tombstone) differs from b"".
        headers: Pairs in order.
        timestamp_ms: Create time; None lets the producer take the time of sending.
        partition: Kafka partition; None lets the partitioner choose.
    """

    @property
    def topic(self) -> str: ...  # noqa: D102 (described above, as for the rest)
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> tuple[Header, ...]: ...  # noqa: D102
    @property
    def timestamp_ms(self) -> int | None: ...  # noqa: D102
    @property
    def partition(self) -> int | None: ...  # noqa: D102


class ForPartition(NamedTuple):
    """A message for one partition of a topic, with all that it carries.

    Attributes:
        headers: Pairs in order, which nobody changes: many messages may share them.
        timestamp_ms: Create time.
    """

    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[Header]
    timestamp_ms: int

    def to(self, topic: str) -> ToTopic:
        """The same, as whoever publishes one by one takes it."""
        return ToTopic(topic, self.key, self.value, tuple(self.headers), self.timestamp_ms, self.partition)


class ToTopic(NamedTuple):
    """A message to publish, see ``Outgoing``."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    timestamp_ms: int | None
    partition: int | None


class Committed(NamedTuple):
    """What a consumer group has committed of one partition.

    Attributes:
        offset: The offset that it is to read next.
        metadata: What its members wrote beside it: Kafka Streams keeps the time there that it has got to. '' for none.
    """

    offset: int
    metadata: str = ""


class Receipt(NamedTuple):
    """Where a published message came to stand."""

    topic: str
    partition: int
    offset: int
