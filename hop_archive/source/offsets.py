"""Which offsets a source takes when records are to be deleted, or offsets committed. Pure.

Kept by every source alike. To Kafka's clients negative offsets mean something else: −1 is "the end", and
deletes all.
"""

from __future__ import annotations

from collections.abc import Mapping

from hop_archive.errors import ConfigurationError, MissingSettingError
from hop_archive.model.message import TopicPartition
from hop_archive.model.watermarks import Watermarks


def refuse_unknown(
    source: str, offsets: Mapping[TopicPartition, int], marks: Mapping[TopicPartition, Watermarks]
) -> None:
    """Check that every partition exists, and that every offset is one.

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
                topic=at.topic,
                partition=at.partition,
            )
        if offset < 0:
            raise _refused(source, at, offset, f"{offset} is no offset", "Name one from 0 on.")


def refuse_beyond_end(
    source: str, before: Mapping[TopicPartition, int], marks: Mapping[TopicPartition, Watermarks]
) -> None:
    """Check that every offset is within its partition, or at its end.

    Raises:
        ConfigurationError: One is above the high watermark.
    """
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
        topic=at.topic,
        partition=at.partition,
        offset=offset,
    )
