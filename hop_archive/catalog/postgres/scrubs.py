"""What was verified and when, in Postgres."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import psycopg

from hop_archive.catalog.postgres import sql_scrubs
from hop_archive.catalog.postgres.rows import row_from
from hop_archive.catalog.postgres.session import Session
from hop_archive.catalog.records import Row, VerifiedRange, VerifiedShare
from hop_archive.catalog.rules import with_verified


class PostgresScrubs(Session):
    """The part of a catalog in Postgres that knows when what was verified."""

    def verified(self, topics: Collection[str] | None = None) -> Sequence[VerifiedRange]:
        """The ranges that were verified, sorted by place."""
        found = self._fetch(sql_scrubs.VERIFIED, {"topics": None if topics is None else list(topics)})
        return [VerifiedRange(*row) for row in found]

    def note_verified(self, new: VerifiedRange) -> None:
        """Remember that a range was verified; see ``Catalog.note_verified``."""
        self._transact(lambda connection: _note(connection, new))

    def verified_shares(self, topics: Collection[str] | None = None) -> Sequence[VerifiedShare]:
        """How much of each topic was verified, sorted by topic."""
        found = self._fetch(sql_scrubs.SHARES, {"topics": None if topics is None else list(topics)})
        return [VerifiedShare(*row) for row in found]

    def adopted_span(self, topic: str) -> tuple[int, int] | None:
        """Least and greatest timestamp of a topic's rows that another archiver wrote; None without any."""
        ((first, last),) = self._fetch(sql_scrubs.ADOPTED_SPAN, [topic])
        return None if first is None else (first, last)

    def adopted_rows(self, topic: str, since_ms: int) -> Iterator[Row]:
        """Those rows, from a timestamp on, streamed by timestamp."""
        return map(row_from, self._stream(sql_scrubs.ADOPTED_ROWS, topic, since_ms))


def _note(connection: psycopg.Connection, new: VerifiedRange) -> None:
    connection.execute(sql_scrubs.ALONE)
    known = connection.execute(sql_scrubs.TOUCHING, new._asdict()).fetchall()
    with connection.cursor() as cursor:
        cursor.executemany(
            sql_scrubs.ADD_VERIFIED, with_verified((VerifiedRange(*row) for row in known), new)
        )
