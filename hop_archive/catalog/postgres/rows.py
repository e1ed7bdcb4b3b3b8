"""Rows as the columns of ``sql.MESSAGE_COLUMNS`` make them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from hop_archive.catalog.records import Row
from hop_archive.model.annotations import Annotations
from hop_archive.model.message import CLOCKS

_STREAMED_ROWS = 2_000
"""Rows that a stream fetches at once: about 1 MB."""


def streamed(cursor: psycopg.ServerCursor) -> Iterator[tuple[Any, ...]]:
    """All rows of a server-side cursor, fetched some at a time.

    Made by the page: one by one, as psycopg's own iteration makes them, they cost twice as much.
    """
    while rows := cursor.fetchmany(_STREAMED_ROWS):
        yield from rows


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
        None if clock is None else CLOCKS[clock],
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
