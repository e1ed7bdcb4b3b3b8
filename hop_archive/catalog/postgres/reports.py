"""Numbers for reports, in Postgres."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence

from hop_archive.catalog.postgres import sql_reports
from hop_archive.catalog.postgres.session import Session
from hop_archive.catalog.records import LedgerDay, MessageDay


class PostgresReports(Session):
    """The part of a catalog in Postgres that counts by topic and day."""

    def message_days(
        self, since: datetime.datetime, until: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[MessageDay]:
        """Messages and bytes by topic and day of their timestamps, sorted."""
        bounds = {"since_ms": int(since.timestamp() * 1000), "until_ms": int(until.timestamp() * 1000)}
        found = self._fetch(
            sql_reports.MESSAGE_DAYS, {**bounds, "topics": None if topics is None else list(topics)}
        )
        return [MessageDay(*row) for row in found]

    def ledger_days(
        self, since: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[LedgerDay]:
        """Duplicates, losses and lag by topic and day of commit, sorted."""
        values = {"since": since, "topics": None if topics is None else list(topics)}
        return [LedgerDay(*row) for row in self._fetch(sql_reports.LEDGER_DAYS, values)]
