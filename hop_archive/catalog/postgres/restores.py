"""What the catalog in Postgres knows of restores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable
from psycopg.types.json import Jsonb

from hop_archive.catalog.postgres import sql, sql_restores
from hop_archive.catalog.postgres.errors import translating
from hop_archive.catalog.postgres.select import Selecting
from hop_archive.catalog.postgres.session import Session
from hop_archive.catalog.records import Measure, Restore
from hop_archive.errors import ConflictError
from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog


class PostgresRestores(Session):
    """The part of the catalog that restoring needs; see ``Catalog`` for what its methods promise."""

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold a name for the length of a block; takes one connection, and a transaction, for as long.

        It is free again when the process dies. Vacuum takes away nothing that is younger than the transaction.

        Raises:
            ConflictError: Somebody else holds it.
        """
        with translating(self._server), self._connections.lease(commits=False) as connection:
            connection.execute(sql.NO_IDLE_LIMIT)
            connection.execute(sql_restores.AT_ONCE)
            try:
                connection.execute(sql.HOLD, [name])
            except LockNotAvailable as error:
                raise ConflictError(
                    f"{self._server}: another process is at work on {name}.",
                    remedy="Wait until it is done, or end it; nothing was changed.",
                    held=name,
                ) from error
            yield

    def partition_logs(self, topic: str) -> Sequence[PartitionLog]:
        """The logs of which ``topic`` has rows, in order."""
        return [PartitionLog(topic, *found) for found in self._fetch(sql.LINEAGES, {"topic": topic})]

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
