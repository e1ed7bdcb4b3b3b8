"""The rows that a query means, of rows in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hop_archive.catalog.records import Row
from hop_archive.errors import ConfigurationError
from hop_archive.model.query import Order, Query
from hop_archive.model.slices import Slice


def selected(
    database: str, rows: Iterable[Row], query: Query, known: Collection[str], order: Order = Order.PLACE
) -> list[Row]:
    """The rows that ``query`` means, in ``order``.

    Args:
        database: Its name, for messages.
        rows: All that there are.
        query: Which.
        known: The topics of which the catalog has anything.
        order: In which order.

    Raises:
        ConfigurationError: A topic of the query means none here; or it has a condition, and a mock knows no SQL.
    """
    if query.condition:
        raise ConfigurationError(
            f"Database {database} is a mock, which cannot run a condition in SQL.",
            remedy="Use the options (topic, time, sender, media type), or a Postgres database.",
            database=database,
        )
    topics = set(query.chosen_topics(known))
    wanted = [row for row in rows if row.topic in topics and _is_selected(query, row)]
    if order is Order.PLACE or query.places:
        wanted.sort(key=_selected_place)
    return wanted[: query.limit]


def place_of(row: Row) -> tuple[bool, int, int, int]:
    """By generation, partition and offset; what has none comes last."""
    return (row.offset is None, row.generation or 0, row.partition or 0, row.offset or 0)


def _selected_place(row: Row) -> tuple[str, bool, int, int, int, int]:
    """Stable sorting keeps adopted rows of one timestamp in the order in which they came."""
    return (row.topic, *place_of(row), row.timestamp_ms if row.offset is None else 0)


def _is_selected(query: Query, row: Row) -> bool:
    notes = row.annotations
    return (
        (query.since_ms is None or row.timestamp_ms >= query.since_ms)
        and (query.until_ms is None or row.timestamp_ms < query.until_ms)
        and (not query.senders or notes.sender in query.senders)
        and (not query.media_types or notes.media_type in query.media_types)
        and (query.uuids is None or row.uuid in query.uuids)
        and (not query.places or any(stands_in(row, place) for place in query.places))
        and query.retracted in (None, row.retracted)
        and query.adopted in (None, row.generation is None)
    )


def stands_in(row: Row, place: Slice) -> bool:
    """Whether a row is of an offset of this slice."""
    partition_log = (row.topic, row.generation, row.partition)
    return (
        partition_log == place.partition_log
        and row.offset is not None
        and place.start <= row.offset < place.stop
    )
