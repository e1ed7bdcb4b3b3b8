"""What the catalog in Postgres knows of restores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable
from psycopg.types.json import Jsonb

from hop_archive.catalog.postgres.errors import translating
from hop_archive.catalog.postgres.session import Session, only, transaction
from hop_archive.catalog.postgres.sql import HOLD, NO_IDLE_LIMIT
from hop_archive.catalog.records import Restore
from hop_archive.catalog.refusals import held_by_another

_COLUMNS = "id, fingerprint, target, request, progress, outcome, report, started_at, updated_at"

BEGIN = """
    INSERT INTO restores (fingerprint, target, request) VALUES (%s, %s, %s)
    ON CONFLICT (fingerprint) WHERE outcome = 'running' DO NOTHING
"""
"""Index: restores_running_idx."""

RUNNING = f"SELECT {_COLUMNS} FROM restores WHERE fingerprint = %s AND outcome = 'running'"
"""Index: restores_running_idx."""

NOTE = """
    UPDATE restores
    SET progress = progress || coalesce(%(progress)s::jsonb, '{}'), report = coalesce(%(report)s::jsonb, report),
        outcome = coalesce(%(outcome)s::text, outcome), updated_at = now(),
        ended_at = CASE WHEN coalesce(%(outcome)s::text, outcome) <> 'running' THEN now() END
    WHERE id = %(number)s
"""
"""Index: restores_pkey."""

LATEST = f"""
    SELECT {_COLUMNS} FROM restores
    WHERE (NOT %(running_only)s OR outcome = 'running') AND %(fingerprint)s IN ('', fingerprint)
    ORDER BY id DESC LIMIT %(limit)s
"""
"""Index: restores_pkey, in its order."""


class PostgresRestores(Session):
    """The part of a catalog in Postgres that restoring needs."""

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Takes one connection, and a transaction, for as long. Vacuum takes away nothing that is younger than that."""
        with translating(self._server), self._connections.lease(commits=False) as connection:
            connection.execute(NO_IDLE_LIMIT)
            # For what is to be refused rather than waited for; a name that is just being let go of is.
            connection.execute("SET LOCAL lock_timeout = '100ms'")
            try:
                connection.execute(HOLD, [name])
            except LockNotAvailable as error:
                raise held_by_another(self._server, name) from error
            yield

    @transaction
    def begin_restore(
        self, connection: psycopg.Connection, fingerprint: str, target: str, request: Mapping[str, Any]
    ) -> Restore:
        connection.execute(BEGIN, [fingerprint, target, Jsonb(request)])
        return Restore(*only(connection.execute(RUNNING, [fingerprint]).fetchone()))

    def note_restore(
        self,
        number: int,
        *,
        progress: Mapping[str, Any] | None = None,
        outcome: str | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        values = {
            "number": number,
            "progress": None if progress is None else Jsonb(progress),
            "report": None if report is None else Jsonb(report),
            "outcome": outcome,
        }
        self._execute(NOTE, values)

    def restores(
        self, *, fingerprint: str = "", running_only: bool = False, limit: int = 100
    ) -> Sequence[Restore]:
        values = {"fingerprint": fingerprint, "running_only": running_only, "limit": limit}
        return self._fetch_as(Restore, LATEST, values)
