"""Rows as the columns of ``sql.MESSAGE_COLUMNS`` make them."""

from __future__ import annotations

from typing import Any

from hop_archive.annotations import Annotations
from hop_archive.catalog.records import Row
from hop_archive.message import TimestampType


def row_from(found: tuple[Any, ...]) -> Row:
    """The row of these columns."""
    topic, generation, partition, offset, timestamp_ms, clock, own, is_client_uuid, digest, *rest = found
    key, bucket, position, size_bytes, crc32, message_crc32, *described, retracted = rest
    return Row(
        topic,
        generation,
        partition,
        offset,
        timestamp_ms,
        None if clock is None else TimestampType(clock),
        own,
        is_client_uuid,
        digest,
        key,
        bucket,
        position,
        size_bytes,
        crc32,
        message_crc32,
        Annotations(*described),
        retracted,
    )
