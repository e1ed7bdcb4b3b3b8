"""What a message is: one Kafka record as it was delivered, with where it stood. No I/O, no parsing."""

from __future__ import annotations

import enum
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka record, exactly as delivered.

    Attributes:
        topic: Kafka topic name.
        partition: Kafka partition, from 0.
        offset: Position in the partition, from 0.
        timestamp_ms: Milliseconds since 1970 UTC; −1 where Kafka has none. Any int64 is legal.
        timestamp_type: Whose clock ``timestamp_ms`` is.
        key: Message key; None (no key) differs from b"" (an empty key).
        value: Payload; None (a tombstone) differs from b"".
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

    @property
    def topic_partition(self) -> TopicPartition:
        """The partition that it stands in."""
        return TopicPartition(self.topic, self.partition)

    @property
    def size_bytes(self) -> int:
        """Bytes of key, value and headers together: what it weighs in memory and on the wire."""
        size = len(self.key or b"") + len(self.value or b"")
        for name, value in self.headers:
            # isascii is a flag of the string: encoding every name would cost more than all the rest.
            size += (len(name) if name.isascii() else len(name.encode(errors="surrogatepass"))) + len(
                value or b""
            )
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
