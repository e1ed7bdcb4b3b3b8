"""Rows of messages in a mock, and what else is known of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import TypeVar

from hop_archive.catalog.checked import LAST_KEY
from hop_archive.catalog.mock.session import MockSession
from hop_archive.catalog.protocol import SELECT_TIMEOUT_S
from hop_archive.catalog.records import Collision, Duplicate, Measure, Mentions, Recorded, Row
from hop_archive.catalog.stored import Stored
from hop_archive.errors import ConfigurationError
from hop_archive.model.keys import segment_folder
from hop_archive.model.message import TimestampType
from hop_archive.model.query import Order, Query
from hop_archive.model.slices import PartitionLog, Slice

Placed = TypeVar("Placed", Duplicate, Collision)


class MockRows(MockSession):
    """The part of a mock catalog that is asked for rows."""

    def topics(self) -> Sequence[str]:
        with self._state.read() as tables:
            return sorted({row.topic for row in tables.rows.values()})

    def known_topics(self) -> Sequence[str]:
        with self._state.read() as tables:
            return sorted(tables.topics())

    def partition_logs(self, topic: str) -> Sequence[PartitionLog]:
        with self._state.read() as tables:
            return sorted(tables.offsets(topic))

    def note_logs(self) -> int:
        """A mock knows each of its rows."""
        return 0

    def spans(self, topic: str) -> Sequence[Slice]:
        with self._state.read() as tables:
            found = tables.offsets(topic)
        return [Slice(*at, min(offsets), max(offsets) + 1) for at, offsets in sorted(found.items())]

    def rows(self, topic: str) -> Iterator[Row]:
        with self._state.read() as tables:
            rows = [row for row in tables.rows.values() if row.topic == topic]
        yield from sorted(rows, key=_place)

    def find(self, message_uuid: uuid.UUID) -> Row | None:
        with self._state.read() as tables:
            return tables.rows.get(message_uuid)

    def select(
        self, query: Query, order: Order = Order.PLACE, *, timeout_s: float = SELECT_TIMEOUT_S
    ) -> Iterator[Row]:
        """All are in memory at once."""
        yield from self._selected(query, order)

    def stored(self, query: Query) -> Sequence[Stored]:
        with self._state.read() as tables:
            suppressed = frozenset(tables.suppressions)
        rows = (
            row
            for row in self._selected(replace(query, limit=None), Order.PLACE)
            if row.uuid not in suppressed
        )
        return [Stored.of(row) for row in islice(rows, query.limit)]

    def measure(self, query: Query, *, timeout_s: float) -> Measure:
        rows = self._selected(replace(query, limit=None), Order.PLACE)
        times = [row.timestamp_ms for row in rows if row.timestamp_ms > 0]
        sizes = [row.size_bytes for row in rows]
        return Measure(
            len(rows),
            sum(sizes),
            max(sizes, default=0),
            min(times, default=None),
            max(times, default=None),
            sum(row.timestamp_ms == 0 for row in rows),
            sum(row.timestamp_type is TimestampType.APPEND for row in rows),
        )

    def recorded(self, topic: str, *, segments: bool, after: str = "") -> Iterator[Recorded]:
        with self._state.read() as tables:
            every = [row for row in tables.rows.values() if row.topic == topic]
        rows = [
            row
            for row in every
            if (row.position is not None) is segments
            and (row.object_key > after or (segments and _stands_elsewhere(row, after)))
        ]
        rows.sort(key=lambda row: (row.object_key, row.bucket, row.place_in_object))
        if not segments:
            yield from (Recorded.of_rows([row]) for row in rows)
            return
        for _, some in groupby(rows, key=lambda row: (row.object_key, row.bucket)):
            yield Recorded.of_rows(list(some))

    def duplicates(self, topic: str) -> Iterator[tuple[PartitionLog, Duplicate]]:
        with self._state.read() as tables:
            found = _of_topic(tables.duplicates, topic)
        yield from found

    def collisions(self, topic: str) -> Sequence[tuple[PartitionLog, Collision]]:
        with self._state.read() as tables:
            return _of_topic(tables.collisions, topic)

    def mentions(self, message_uuid: uuid.UUID, topic: str, limit: int = 10) -> Mentions:
        with self._state.read() as tables:
            copies = [pair for pair in _of_topic(tables.duplicates, topic) if pair[1].uuid == message_uuid]
            met = [
                pair
                for pair in _of_topic(tables.collisions, None)
                if message_uuid in (pair[1].client_uuid, pair[1].archived_as)
            ]
        return Mentions(tuple(copies[:limit]), len(copies), tuple(met[:limit]), len(met))

    def _selected(self, query: Query, order: Order) -> list[Row]:
        """The rows that ``query`` selects, in ``order``.

        Raises:
            ConfigurationError: A topic of the query is none here; or it has a condition, and a mock knows no SQL.
        """
        if query.condition:
            raise ConfigurationError(
                f"Database {self._name} is a mock, which cannot run a condition in SQL.",
                remedy="Use the options (topic, time, sender, media type), or a Postgres database.",
                database=self._name,
            )
        with self._state.read() as tables:
            topics = set(query.chosen_topics(tables.topics()))
            rows = [row for row in tables.rows.values() if row.topic in topics and _is_selected(query, row)]
        if order is Order.NEWEST and not query.places:
            rows.reverse()
            rows.sort(key=lambda row: -row.timestamp_ms)
        if order is Order.PLACE or query.places:
            # Stable sorting keeps adopted rows of one timestamp in the order in which they came.
            rows.sort(
                key=lambda row: (row.topic, *_place(row), row.timestamp_ms if row.offset is None else 0)
            )
        return rows[: query.limit]


def _of_topic(
    table: Mapping[PartitionLog, Sequence[Placed]], topic: str | None
) -> list[tuple[PartitionLog, Placed]]:
    """What stands in the logs of ``topic``, or of all, by place."""
    found = [(at, entry) for at, some in table.items() for entry in some if topic in (None, at.topic)]
    return sorted(found, key=lambda pair: (pair[0], pair[1].offset))


def _stands_elsewhere(row: Row, after: str) -> bool:
    """Whether the key of a row is not of the segments of its log, whose keys may come after ``after`` themselves."""
    if row.slice is None:
        return False
    folder = segment_folder(*row.slice.partition_log)
    return folder + LAST_KEY > after and not row.object_key.startswith(folder)


def _place(row: Row) -> tuple[bool, int, int, int]:
    """By generation, partition and offset; what has none comes last."""
    return (row.offset is None, row.generation or 0, row.partition or 0, row.offset or 0)


def _is_selected(query: Query, row: Row) -> bool:
    notes = row.annotations
    return (
        (query.since_ms is None or row.timestamp_ms >= query.since_ms)
        and (query.until_ms is None or row.timestamp_ms < query.until_ms)
        and (not query.senders or notes.sender in query.senders)
        and (not query.media_types or notes.media_type in query.media_types)
        and (query.uuids is None or row.uuid in query.uuids)
        and (not query.places or any(row.stands_in(place) for place in query.places))
        and query.retracted in (None, row.retracted)
        and query.adopted in (None, row.generation is None)
    )
