"""Publishing alerts to a writable source: sample alerts for demonstrations, development and tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hop_archive.comparing import record_sent
from hop_archive.message import Outgoing, Receipt
from hop_archive.source.protocol import Source

_AT_ONCE = 500


def publish(
    source: Source,
    messages: Iterable[Outgoing],
    *,
    rate: float = 0.0,
    sleep: Callable[[float], None],
    record: Path | None = None,
) -> Iterator[Sequence[Receipt]]:
    """Publish messages, some at a time, each portion acknowledged before the next.

    Args:
        source: A writable one; its topics exist.
        messages: What to publish, in order; may be endless.
        rate: Messages a second, about; 0 for as fast as it goes.
        sleep: How to wait.
        record: File to append to what was sent and where it stands, for ``comparing``; None for no record.

    Yields:
        Where each message of a portion stands.

    Raises:
        ForbiddenError: The source is not writable.
        UnavailableError: Not all of a portion were acknowledged; those before it were.
    """
    portion = _AT_ONCE if rate <= 0 else max(1, min(_AT_ONCE, round(rate / 5)))
    remaining = iter(messages)
    while batch := list(itertools.islice(remaining, portion)):
        receipts = source.publish(batch)
        if record is not None:
            record_sent(record, batch, receipts)
        yield receipts
        if rate > 0:
            sleep(len(batch) / rate)
