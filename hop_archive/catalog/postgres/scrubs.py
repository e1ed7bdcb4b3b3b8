"""What was verified and when, in Postgres."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import psycopg

from hop_archive.catalog.postgres.session import Session, listed
from hop_archive.catalog.postgres.sql import ROW_COLUMNS
from hop_archive.catalog.records import Row, VerifiedRange, VerifiedShare
from hop_archive.catalog.rules import with_verified

VERIFIED = """
    SELECT topic, generation, partition, start, stop, verified_at FROM verified
    WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
    ORDER BY topic COLLATE "C", generation, partition, start
"""
"""Index: verified_pkey, for some topics."""

ALONE = "LOCK TABLE verified IN SHARE ROW EXCLUSIVE MODE"
"""Two who note what they verified come after one another; reading goes on."""

TOUCHING = """
    DELETE FROM verified
    WHERE topic = %(topic)s AND generation = %(generation)s AND partition = %(partition)s
          AND start <= %(stop)s AND stop >= %(start)s
    RETURNING topic, generation, partition, start, stop, verified_at
"""
"""Index: verified_pkey."""

ADD_VERIFIED = """
    INSERT INTO verified (topic, generation, partition, start, stop, verified_at) VALUES (%s, %s, %s, %s, %s, %s)
"""
"""Index: verified_pkey."""

SHARES = """
    WITH ledger AS (
        SELECT topic, generation, partition, range_agg(offsets) AS covered FROM batches
        WHERE outcome = 'archived' AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
        GROUP BY topic, generation, partition
    ), seen AS (
        SELECT topic, generation, partition, range_agg(int8range(start, stop)) AS done, min(verified_at) AS oldest
        FROM verified WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
        GROUP BY topic, generation, partition
    )
    SELECT topic, sum(every.size)::bigint, sum(never.size)::bigint, min(oldest)
    FROM ledger LEFT JOIN seen USING (topic, generation, partition),
         LATERAL (SELECT coalesce(sum(upper(r) - lower(r)), 0) AS size FROM unnest(covered) AS r) AS every,
         LATERAL (SELECT coalesce(sum(upper(r) - lower(r)), 0) AS size
                  FROM unnest(covered - coalesce(done, '{}'::int8multirange)) AS r) AS never
    GROUP BY topic ORDER BY topic COLLATE "C"
"""
"""Index: batches_lineage_idx and verified_pkey, for some topics."""

ADOPTED_SPAN = "SELECT min(timestamp), max(timestamp) FROM messages WHERE topic = %s AND digest IS NULL"
"""Index: messages_adopted_idx, a step at each of its ends."""

ADOPTED_ROWS = f"""
    SELECT {ROW_COLUMNS} FROM messages
    WHERE topic = %s AND digest IS NULL AND timestamp >= %s ORDER BY timestamp
"""
"""Index: messages_adopted_idx, in its order."""


class PostgresScrubs(Session):
    """The part of a catalog in Postgres that knows when what was verified."""

    def verified(self, topics: Collection[str] | None = None) -> Sequence[VerifiedRange]:
        return [VerifiedRange(*row) for row in self._fetch(VERIFIED, {"topics": listed(topics)})]

    def note_verified(self, new: VerifiedRange) -> None:
        def note(connection: psycopg.Connection) -> None:
            connection.execute(ALONE)
            known = connection.execute(TOUCHING, new._asdict()).fetchall()
            with connection.cursor() as cursor:
                cursor.executemany(ADD_VERIFIED, with_verified((VerifiedRange(*row) for row in known), new))

        self._transact(note)

    def verified_shares(self, topics: Collection[str] | None = None) -> Sequence[VerifiedShare]:
        return [VerifiedShare(*row) for row in self._fetch(SHARES, {"topics": listed(topics)})]

    def adopted_span(self, topic: str) -> tuple[int, int] | None:
        ((first, last),) = self._fetch(ADOPTED_SPAN, [topic])
        return None if first is None else (first, last)

    def adopted_rows(self, topic: str, since_ms: int) -> Iterator[Row]:
        return map(Row.of_cells, self._stream(ADOPTED_ROWS, topic, since_ms))
