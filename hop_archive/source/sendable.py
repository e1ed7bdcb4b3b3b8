"""What can't be published as it is, though a Kafka topic could hold it. Pure.

Kept by every source alike, so that what a mock lets pass is not refused by a cluster later.
"""

from __future__ import annotations

from hop_archive.errors import DataError
from hop_archive.model.message import Outgoing

NOW = 0
"""librdkafka's way of saying "the present time", so a timestamp of 0 (1970-01-01) can't be sent by it."""


def refuse_unsendable(source: str, message: Outgoing) -> None:
    """Check a message before it is sent.

    Raises:
        DataError: Its timestamp is 0, for which librdkafka puts the time of sending; or a header name holds a
            NUL, at which librdkafka cuts it, or a lone surrogate, at which confluent-kafka 2.16.1 crashes.
    """
    if message.timestamp_ms == NOW:
        raise _unsendable(source, message, "its timestamp is 0, for which librdkafka sends the present time")
    for name, _ in message.headers:
        if not _is_whole(name):
            raise _unsendable(source, message, f"its header name {name!r} has a NUL or a lone surrogate")


def _is_whole(name: str) -> bool:
    try:
        return "\0" not in name and name.encode() is not None
    except UnicodeEncodeError:
        return False


def _unsendable(source: str, message: Outgoing, why: str) -> DataError:
    return DataError(
        f"Source {source}: a message for topic {message.topic} can't be published as it is: {why}.",
        remedy="Leave it out, or change it knowingly.",
        topic=message.topic,
        source=source,
    )
