"""How much one plan, one batch and one process may hold. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_OBJECTS_BYTES = 4096
"""More than what the objects of one message in the making weigh beyond its content: about 3.5 KB with three
headers, message, decision, document and row together."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one plan, one batch and one process may hold.

    Attributes:
        batch_messages: Most messages in one batch (one segment, one catalog transaction).
        batch_bytes: A batch is closed before its messages weigh more. One message alone may.
        buffer_bytes: Most bytes of messages held while batches fill, over all partitions.
        poll_messages: Most messages asked of the source at once.
    """

    run_messages: int = 200_000
    batch_messages: int = 10_000
    batch_bytes: int = 64 * 1024 * 1024
    buffer_bytes: int = 128 * 1024 * 1024
    poll_messages: int = 5_000

    @classmethod
    def within(cls, memory_bytes: int, overlap: int = 1) -> Limits:
        """Limits under which the messages and documents that one process holds stay below ``memory_bytes``.

        On top come the interpreter itself, what the source's client has fetched (its stanza says how much), and
        whatever one message alone is larger than a share.

        Args:
            memory_bytes: The bound.
            overlap: Groups that are being stored while the next is read and encoded.
        """
        # In shares of one batch: 2 buffered while batches fill; messages and documents of each group in the making; 1 of
        # documents joined to a segment; 3 of what objects weigh beyond their content; 2 of what the allocator keeps.
        share = max(1, memory_bytes // (2 + 2 * (overlap + 1) + 1 + 3 + 2))
        messages = max(1, min(cls().batch_messages, share // _OBJECTS_BYTES))
        polled = max(1, min(cls().poll_messages, messages // 4))
        return cls(batch_messages=messages, batch_bytes=share, buffer_bytes=2 * share, poll_messages=polled)
