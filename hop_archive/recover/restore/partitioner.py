"""Where Kafka's own clients put a message with a key. Pure.

``murmur2`` as in ``org.apache.kafka.common.utils.Utils``, and the partition as in ``BuiltInPartitioner``
(Apache Kafka 4): the hash without its sign, modulo the number of partitions.
"""

from __future__ import annotations

_SEED, _M, _R = 0x9747B28C, 0x5BD1E995, 24
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit hash that Kafka's clients take of a key, unsigned."""
    whole = len(data) - len(data) % 4
    found = _SEED ^ len(data)
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        found = (found * _M & _MASK) ^ ((k ^ (k >> _R)) * _M & _MASK)
    if rest := data[whole:]:
        found = (found ^ int.from_bytes(rest, "little")) * _M & _MASK
    found = (found ^ (found >> 13)) * _M & _MASK
    return found ^ (found >> 15)


def partition_of(key: bytes | None, archived: int, partitions: int) -> int:
    """The partition for a key; without a key, the one in which the message stood, modulo what there is."""
    return archived % partitions if key is None else (murmur2(key) & 0x7FFFFFFF) % partitions
