"""Rows of messages in Postgres, and what else is known of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from itertools import chain

from hop_archive.catalog.postgres.select import Selecting
from hop_archive.catalog.postgres.session import Session
from hop_archive.catalog.postgres.sql import COLLISION, IN_LOG, KNOWN_TOPICS, ROW_COLUMNS, TOPICS
from hop_archive.catalog.protocol import SELECT_TIMEOUT_S
from hop_archive.catalog.records import Collision, Duplicate, Measure, Mentions, Recorded, Row
from hop_archive.model.query import Order, Query
from hop_archive.model.slices import PartitionLog, Slice

PARTITION_LOGS = """
    WITH RECURSIVE found AS (
        (SELECT generation, partition FROM messages WHERE topic = %(topic)s AND generation IS NOT NULL
         ORDER BY generation, partition LIMIT 1)
        UNION ALL
        SELECT following.generation, following.partition FROM found, LATERAL (
            SELECT m.generation, m.partition FROM messages AS m
            WHERE m.topic = %(topic)s AND (m.generation, m.partition) > (found.generation, found.partition)
            ORDER BY m.generation, m.partition LIMIT 1) AS following
    ) SELECT generation, partition FROM found
"""
"""Those that have rows, whatever the ledger says. Index: messages_offset_idx, one step in it a log."""

SPAN = f"""
    SELECT min("offset"), max("offset") + 1 FROM messages WHERE {IN_LOG} AND "offset" IS NOT NULL
"""
"""Index: messages_offset_idx, both ends of it."""

FIND = f"SELECT {ROW_COLUMNS} FROM messages WHERE uuid = %s"
"""Index: messages_uuid_idx."""

ROWS = f"""
    SELECT {ROW_COLUMNS} FROM messages WHERE topic = %s ORDER BY generation, partition, "offset"
"""
"""Index: messages_offset_idx, in its order; nulls, which adopted rows have, stand last."""

RECORDED_ALONE = """
    SELECT key, bucket, topic, 1, size, false, uuid FROM messages
    WHERE position IS NULL AND topic = %s
    ORDER BY key COLLATE "C"
"""
"""Index: messages_object_idx. One row an object: two rows of one object, which only damage makes, come one by one."""

RECORDED_IN_SEGMENTS = """
    SELECT key, bucket, topic, count(*), max(position + size), min(uuid::text)::uuid FROM messages
    WHERE topic = %s AND generation = %s AND partition = %s AND position IS NOT NULL
    GROUP BY key, bucket, topic ORDER BY min("offset")
"""
"""Index: messages_offset_idx. Segments of one partition are named by their offsets: this is the order of keys. (Of
uuids there is no minimum before Postgres 18.)"""

DUPLICATES_OF = """
    SELECT generation, partition, "offset", timestamp, uuid, reason, count(*) OVER ()
    FROM duplicates WHERE topic = %s AND uuid = %s AND generation > 0 ORDER BY generation, partition, "offset" LIMIT %s
"""
"""Index: duplicates_uuid_idx."""

COLLISIONS_OF = """
    SELECT topic, generation, partition, lower(offsets), (detail ->> 'client_uuid')::uuid, uuid, count(*) OVER ()
    FROM findings WHERE kind = %(kind)s AND (uuid = %(uuid)s OR detail @> jsonb_build_object('client_uuid', %(uuid)s::uuid))
    ORDER BY topic COLLATE "C", generation, partition, offsets LIMIT %(limit)s
"""
"""Index: none; reads the collisions, which are few."""

DUPLICATES = """
    SELECT generation, partition, "offset", timestamp, uuid, reason
    FROM duplicates WHERE topic = %s AND generation > 0 ORDER BY generation, partition, "offset"
"""
"""Index: duplicates_pkey, in its order. Generation 0 is of adopted copies, which have no place."""

COLLISIONS = """
    SELECT generation, partition, lower(offsets), (detail ->> 'client_uuid')::uuid, (detail ->> 'archived_as')::uuid
    FROM findings WHERE topic = %s AND kind = %s ORDER BY generation, partition, offsets
"""
"""Index: findings_topic_idx."""


class PostgresRows(Session):
    """The part of a catalog in Postgres that is asked for rows."""

    def topics(self) -> Sequence[str]:
        return sorted(topic for (topic,) in self._fetch(TOPICS))

    def known_topics(self) -> Sequence[str]:
        return sorted(topic for (topic,) in self._fetch(KNOWN_TOPICS))

    def partition_logs(self, topic: str) -> Sequence[PartitionLog]:
        return [PartitionLog(topic, *found) for found in self._fetch(PARTITION_LOGS, {"topic": topic})]

    def spans(self, topic: str) -> Sequence[Slice]:
        found: list[Slice] = []
        for at in self.partition_logs(topic):
            ((start, stop),) = self._fetch(SPAN, at._asdict())
            found += [] if start is None else [Slice(*at, start, stop)]
        return found

    def rows(self, topic: str) -> Iterator[Row]:
        return map(Row.of_cells, self._stream(ROWS, topic))

    def find(self, message_uuid: uuid.UUID) -> Row | None:
        found = self._fetch(FIND, [message_uuid])
        return Row.of_cells(found[0]) if found else None

    def select(
        self, query: Query, order: Order = Order.PLACE, *, timeout_s: float = SELECT_TIMEOUT_S
    ) -> Iterator[Row]:
        """Holds one connection."""
        return map(Row.of_cells, Selecting(self._server, self._connections, query, timeout_s).stream(order))

    def measure(self, query: Query, *, timeout_s: float) -> Measure:
        """By one aggregate for each of its places and topics."""
        return Selecting(self._server, self._connections, query, timeout_s).measured()

    def recorded(self, topic: str, *, segments: bool) -> Iterator[Recorded]:
        if not segments:
            return map(Recorded._make, self._stream(RECORDED_ALONE, topic))
        # Keys have these numbers unpadded: byte order is not that of numbers.
        logs = sorted(self.partition_logs(topic), key=lambda at: f"{at.generation}/{at.partition}/")
        streams = (self._stream(RECORDED_IN_SEGMENTS, *at) for at in logs)
        return (
            Recorded(key, bucket, of, rows, end, True, first)
            for key, bucket, of, rows, end, first in chain.from_iterable(streams)
        )

    def duplicates(self, topic: str) -> Iterator[tuple[PartitionLog, Duplicate]]:
        found = self._stream(DUPLICATES, topic)
        return ((PartitionLog(topic, *row[:2]), Duplicate(*row[2:])) for row in found)

    def collisions(self, topic: str) -> Sequence[tuple[PartitionLog, Collision]]:
        found = self._fetch(COLLISIONS, [topic, COLLISION])
        return [(PartitionLog(topic, *row[:2]), Collision(*row[2:])) for row in found]

    def mentions(self, message_uuid: uuid.UUID, topic: str, limit: int = 10) -> Mentions:
        copies = self._fetch(DUPLICATES_OF, [topic, message_uuid, limit])
        met = self._fetch(COLLISIONS_OF, {"kind": COLLISION, "uuid": message_uuid, "limit": limit})
        return Mentions(
            tuple((PartitionLog(topic, *row[:2]), Duplicate(*row[2:6])) for row in copies),
            copies[0][-1] if copies else 0,
            tuple((PartitionLog(*row[:3]), Collision(*row[3:6])) for row in met),
            met[0][-1] if met else 0,
        )
