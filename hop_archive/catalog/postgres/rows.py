"""Rows of messages in Postgres, and what else is known of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from itertools import repeat

from hop_archive.catalog.checked import LAST_KEY
from hop_archive.catalog.postgres.select import Selecting
from hop_archive.catalog.postgres.session import Session
from hop_archive.catalog.postgres.sql import (
    COLLISION,
    KNOWN_TOPICS,
    LOG_HASH,
    LOGS,
    NOTE_LOG,
    ROW_COLUMNS,
    ROW_IN_LOG,
    ROW_IN_SLICE,
    TOPICS,
    of_log,
)
from hop_archive.catalog.protocol import SELECT_TIMEOUT_S
from hop_archive.catalog.records import Collision, Duplicate, Measure, Mentions, Recorded, Row
from hop_archive.catalog.stored import Stored
from hop_archive.model.frames import object_bytes
from hop_archive.model.keys import segment_folder, slice_of, start_after
from hop_archive.model.query import Order, Query
from hop_archive.model.slices import PartitionLog, Slice

SPANS = f"""
    SELECT log.*, least.first, greatest.last + 1 FROM ({LOGS}) AS log,
        LATERAL (SELECT m."offset" AS first FROM messages AS m WHERE {of_log("m", "log")}
                 ORDER BY m."offset" LIMIT 1) AS least,
        LATERAL (SELECT m."offset" AS last FROM messages AS m WHERE {of_log("m", "log")}
                 ORDER BY m."offset" DESC LIMIT 1) AS greatest
    ORDER BY generation, partition
"""
"""Index: messages_place_idx, both ends of each log."""

STRAY_LOGS = f"""
    WITH RECURSIVE found AS (
        (SELECT topic, generation, partition, {LOG_HASH} AS hash FROM messages
         WHERE {LOG_HASH} IS NOT NULL ORDER BY {LOG_HASH}, "offset" LIMIT 1)
        UNION ALL
        SELECT following.* FROM found, LATERAL (
            SELECT topic, generation, partition, {LOG_HASH} FROM messages
            WHERE {LOG_HASH} > found.hash ORDER BY {LOG_HASH}, "offset" LIMIT 1) AS following
    )
    SELECT topic, generation, partition FROM found
    WHERE NOT EXISTS (SELECT FROM logs WHERE (logs.topic, logs.generation, logs.partition) = (found.topic, found.generation, found.partition))
"""
"""Index: messages_place_idx, one step in it a log; logs_pkey."""

FIND = f"SELECT {ROW_COLUMNS} FROM messages WHERE uuid = %s"
"""Index: messages_uuid_idx."""

ROWS = f"""SELECT {ROW_COLUMNS} FROM messages WHERE {ROW_IN_LOG} ORDER BY "offset"
"""
"""Of a log. Index: messages_place_idx, in its order."""

ROWS_WITHOUT_PLACE = f"""
    SELECT {ROW_COLUMNS} FROM messages WHERE topic = %(topic)s AND digest IS NULL AND generation IS NULL
    ORDER BY timestamp, message_crc32
"""
"""Adopted ones. Index: messages_adopted_idx, in its order."""

RECORDED_ALONE = """
    SELECT key, bucket, topic, 1, size, false, uuid FROM messages
    WHERE position IS NULL AND topic = %s AND key COLLATE "C" > %s
    ORDER BY key COLLATE "C"
"""
"""Index: messages_object_idx, in its order. One row an object: two rows of one object, which only damage makes, come one by one."""

RECORDED_IN_SEGMENTS = f"""
    SELECT key, bucket, topic, sum(rows)::bigint, max(end_bytes), max(last_frame), count(last_frame), min(first)::uuid FROM (
        SELECT key, bucket, topic, frame + frame_size AS last_frame, count(*) AS rows, max(position + size) AS end_bytes,
               min(uuid::text) AS first, min("offset") AS "offset"
        FROM messages WHERE {ROW_IN_SLICE} AND position IS NOT NULL
        GROUP BY key, bucket, topic, frame + frame_size) AS frames
    GROUP BY key, bucket, topic ORDER BY min("offset")
"""
"""Index: messages_place_idx. Segments of one partition are named by their offsets: this is the order of keys. (Of
uuids there is no minimum before Postgres 18.)"""

FROM_OFFSET = f"""
    SELECT "offset", key FROM messages WHERE {ROW_IN_LOG} AND "offset" >= %(start)s ORDER BY "offset" LIMIT 1
"""
"""Index: messages_place_idx, in its order."""

_PAGE_OFFSETS = 20_000
"""Offsets whose rows are grouped into segments by one statement, but for the end of the last segment."""
_LAST_OFFSET = 2**63 - 1
_NO_UUID = uuid.UUID(int=0)

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
        return [span.partition_log for span in self.spans(topic)]

    def spans(self, topic: str) -> Sequence[Slice]:
        return self._fetch_as(Slice, SPANS, {"topic": topic})

    def note_logs(self) -> int:
        strays = self._fetch(STRAY_LOGS)
        for stray in strays:
            self._execute(NOTE_LOG, stray)
        return len(strays)

    def rows(self, topic: str) -> Iterator[Row]:
        for at in self.partition_logs(topic):
            yield from map(Row.of_cells, self._stream(ROWS, at._asdict()))
        yield from map(Row.of_cells, self._stream(ROWS_WITHOUT_PLACE, {"topic": topic}))

    def find(self, message_uuid: uuid.UUID) -> Row | None:
        found = self._fetch(FIND, [message_uuid])
        return Row.of_cells(found[0]) if found else None

    def select(
        self, query: Query, order: Order = Order.PLACE, *, timeout_s: float = SELECT_TIMEOUT_S
    ) -> Iterator[Row]:
        """Holds one connection."""
        return map(Row.of_cells, Selecting(self._server, self._connections, query, timeout_s).stream(order))

    def stored(self, query: Query) -> Sequence[Stored]:
        found = Selecting(self._server, self._connections, query, SELECT_TIMEOUT_S).stored()
        return list(
            map(tuple.__new__, repeat(Stored), found)
        )  # as ``Stored._make`` does it, in half of the time

    def measure(self, query: Query, *, timeout_s: float) -> Measure:
        """By one aggregate for each of its places and topics."""
        return Selecting(self._server, self._connections, query, timeout_s).measured()

    def recorded(self, topic: str, *, segments: bool, after: str = "") -> Iterator[Recorded]:
        if not segments:
            return map(Recorded._make, self._stream(RECORDED_ALONE, [topic, after], by_index=True))
        # Keys have these numbers unpadded: byte order is not that of numbers.
        folders = sorted((segment_folder(*at), at) for at in self.partition_logs(topic))
        return (
            record
            for folder, at in folders
            if folder + LAST_KEY > after
            for record in self._recorded_in(at, folder, start_after(folder, after))
            # A key that stands elsewhere, which only damage makes, comes with its offsets, wherever that is.
            if record.key > after or not record.key.startswith(folder)
        )

    def _recorded_in(self, at: PartitionLog, folder: str, start: int) -> Iterator[Recorded]:
        """The segments of a log, by offset, page by page; none is divided by the end of a page."""
        while found := self._fetch(FROM_OFFSET, {**at._asdict(), "start": start}):
            ((start, _),) = found
            stop = _LAST_OFFSET
            beyond = self._fetch(FROM_OFFSET, {**at._asdict(), "start": start + _PAGE_OFFSETS})
            for offset, key in beyond:
                whole = slice_of(key)
                if whole is None or whole.partition_log != at or offset not in whole.offsets:
                    stop = offset
                else:
                    stop = whole.start if whole.start > start else whole.stop
            values = {**at._asdict(), "start": start, "stop": stop}
            page = self._fetch(RECORDED_IN_SEGMENTS, values, by_index=True)
            for key, bucket, topic, rows, end, last, frames, first in page:
                end_bytes = end if last is None else object_bytes(last, frames)
                yield Recorded(key, bucket, topic, rows, end_bytes, True, first)
            if not beyond:
                return
            if not page:
                yield Recorded(f"{folder}{stop:020}", "", at.topic, 0, 0, True, _NO_UUID)
            start = stop

    def duplicates(self, topic: str) -> Iterator[tuple[PartitionLog, Duplicate]]:
        found = self._stream(DUPLICATES, [topic])
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
