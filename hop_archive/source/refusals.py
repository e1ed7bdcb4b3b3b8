"""What no source takes. Pure.

Kept by every source alike, so that what a mock lets pass is not refused by a cluster later. To Kafka's clients negative
offsets mean something else: −1 is "the end", and deletes all.
"""

from __future__ import annotations

from collections.abc import Mapping

from hop_archive.errors import ConfigurationError, DataError, ForbiddenError, MissingSettingError
from hop_archive.model.message import Outgoing, TopicPartition
from hop_archive.model.watermarks import Watermarks

NOW = 0
"""librdkafka's way of saying "the present time", so a timestamp of 0 (1970-01-01) can't be sent by it."""


def refuse_unless_writable(source: str, writable: bool, what: str) -> None:
    """Raise ForbiddenError unless a stanza allows to change anything."""
    if not writable:
        raise ForbiddenError(
            f"Source {source} is not writable: refused to {what}.",
            remedy="Choose a source whose stanza says writable = true.",
            source=source,
        )


def refuse_unsendable(source: str, message: Outgoing) -> None:
    """Raise DataError where librdkafka cannot send a message as it is.

    Its timestamp is 0, for which librdkafka puts the time of sending; or a header name holds a NUL, at which librdkafka cuts
    it, or a lone surrogate, at which confluent-kafka 2.16.1 crashes.
    """
    why = ""
    if message.timestamp_ms == NOW:
        why = "its timestamp is 0, for which librdkafka sends the present time"
    for name, _ in message.headers:
        if name.isascii() and "\0" not in name:
            continue  # as nearly every name
        try:
            name.encode()
            is_whole = "\0" not in name
        except UnicodeEncodeError:
            is_whole = False
        if not is_whole:
            why = why or f"its header name {name!r} has a NUL or a lone surrogate"
    if why:
        raise DataError(
            f"Source {source}: a message for topic {message.topic} can't be published as it is: {why}.",
            remedy="Leave it out, or change it knowingly.",
            topic=message.topic,
            source=source,
        )


def refuse_unknown(
    source: str, offsets: Mapping[TopicPartition, int], marks: Mapping[TopicPartition, Watermarks]
) -> None:
    """Check that every partition exists, and that every offset is one, before records are deleted or offsets committed.

    Raises:
        MissingSettingError: A topic or partition does not exist.
        ConfigurationError: An offset is negative.
    """
    for at, offset in sorted(offsets.items()):
        if at not in marks:
            raise MissingSettingError(
                f"Source {source}: there is no {at}.",
                remedy="Create the topic with as many partitions as needed, or correct its name.",
                source=source,
                **at._asdict(),
            )
        if offset < 0:
            raise _refused(source, at, offset, f"{offset} is no offset", "Name one from 0 on.")


def refuse_beyond_end(
    source: str, before: Mapping[TopicPartition, int], marks: Mapping[TopicPartition, Watermarks]
) -> None:
    """Raise ConfigurationError where an offset is above the high watermark of its partition."""
    for at, offset in sorted(before.items()):
        if offset > marks[at].high:
            why = f"{at} ends at {marks[at].high}, before {offset}"
            raise _refused(
                source, at, offset, why, "Name an offset that is there: the topic may have been made anew."
            )


def _refused(source: str, at: TopicPartition, offset: int, why: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(
        f"Source {source}: {why}.",
        remedy=remedy,
        source=source,
        **at._asdict(),
        offset=offset,
    )
