"""What the catalog in Postgres knows of restores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from hop_archive.catalog import sql, sql_restores
from hop_archive.catalog.postgres_errors import translating
from hop_archive.catalog.postgres_select import Selecting
from hop_archive.catalog.postgres_session import Session
from hop_archive.catalog.restores_protocol import Measure, Restore
from hop_archive.errors import ConflictError
from hop_archive.selecting import Query
from hop_archive.slices import Lineage


class PostgresRestores(Session):
    """The part of the catalog that restoring needs; see ``RestoreCatalog`` for what its methods promise."""

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold a name for the length of a block; takes one connection for as long.

        Raises:
            ConflictError: Somebody else holds it.
        """
        with translating(self._server), self._connections.lease() as connection:
            ((held,),) = connection.execute(sql_restores.HOLD, [name]).fetchall()
            if not held:
                raise ConflictError(
                    f"{self._server}: another process is at work on {name}.",
                    remedy="Wait until it is done, or end it; nothing was changed.",
                    held=name,
                )
            try:
                yield
            finally:
                with suppress(psycopg.Error):  # a connection that is gone holds nothing any more
                    connection.execute(sql_restores.LET_GO, [name])

    def lineages(self, topic: str) -> Sequence[Lineage]:
        """The lineages of which ``topic`` has rows, in order."""
        return [Lineage(topic, *found) for found in self._fetch(sql.LINEAGES, {"topic": topic})]

    def measure(self, query: Query, *, timeout_s: float) -> Measure:
        """How much ``query`` means, by one aggregate for each of its places and topics."""
        return Selecting(self._server, self._connections, query, timeout_s).measured()

    def begin_restore(self, fingerprint: str, target: str, request: Mapping[str, Any]) -> Restore:
        """The running restore of this fingerprint, or a new one."""
        wanted = {"fingerprint": fingerprint, "target": target, "request": Jsonb(request)}

        def begin(connection: psycopg.Connection) -> Restore:
            connection.execute(sql_restores.BEGIN, wanted)
            found = connection.execute(sql_restores.RUNNING, {"fingerprint": fingerprint}).fetchone()
            assert found is not None
            return Restore(*found)

        return self._transact(begin)

    def note_restore(
        self,
        number: int,
        *,
        progress: Mapping[str, Any] | None = None,
        outcome: str | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        """Note what is known by now of a restore; None leaves a part as it is."""
        values = {
            "number": number,
            "progress": None if progress is None else Jsonb(progress),
            "report": None if report is None else Jsonb(report),
            "outcome": outcome,
        }
        self._transact(lambda connection: connection.execute(sql_restores.NOTE, values))

    def restores(
        self, *, fingerprint: str = "", running_only: bool = False, limit: int = 100
    ) -> Sequence[Restore]:
        """The latest restores, newest first."""
        values = {"fingerprint": fingerprint, "running_only": running_only, "limit": limit}
        return [Restore(*found) for found in self._fetch(sql_restores.LATEST, values)]
