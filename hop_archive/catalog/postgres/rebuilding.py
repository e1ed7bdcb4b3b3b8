"""What rebuilding asks of a catalog in Postgres: to add what is missing, and leave what is there."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial

import psycopg

from hop_archive.catalog.postgres import sql, sql_rebuilding
from hop_archive.catalog.postgres.copy import copy_to_stage
from hop_archive.catalog.postgres.session import Session
from hop_archive.catalog.records import UNKNOWN_CLUSTER, UNTOLD, Batch, Reinstated, Row
from hop_archive.errors import StaleDecisionError


class Reinstating(Session):
    """The part of the catalog in Postgres that rebuilding needs; see ``Catalog`` for what its methods promise."""

    def reinstate(self, batch: Batch) -> Reinstated:
        """Add what a batch says and the catalog lacks; what is there stays as it is. One transaction.

        Raises:
            StaleDecisionError: A UUID was catalogued elsewhere meanwhile; nothing was changed.
            UnavailableError: The database did not answer.
        """
        return self._transact(partial(self._reinstate, batch))

    def adopt(self, rows: Iterable[Row]) -> int:
        """Add rows as another archiver leaves them; those whose UUID is there are left out."""
        held = list(rows)
        return self._transact(partial(self._adopt, held)) if held else 0

    def recount(self, topic: str) -> int:
        """Set the numbers of the topic's archived ledger rows, and its summary, to those of their rows."""
        return self._transact(partial(_recount, topic))

    def claim_generation(
        self, topic: str, number: int, cluster_id: str, topic_id: str | None, reason: str
    ) -> bool:
        """Say of a rebuilt generation, if it is the newest, which topic it is of, on which cluster."""
        said = {
            "topic": topic,
            "generation": number,
            "cluster_id": cluster_id,
            "topic_id": topic_id,
            "reason": reason,
            "unknown": UNKNOWN_CLUSTER,
            "untold": UNTOLD,
        }
        return self._transact(partial(_claim_generation, said))

    def _reinstate(self, batch: Batch, connection: psycopg.Connection) -> Reinstated:
        where = {**asdict(batch.slice), "run_id": batch.run_id, "untold": UNTOLD}
        # Two that reinstate in one topic come one after another: what one has added the other sees.
        self._set_all_right(connection)
        connection.execute(sql.HOLD, [f"reinstating {batch.slice.topic}"])
        for part in connection.execute(sql_rebuilding.STILL_LOST, where).fetchall():
            connection.execute(sql_rebuilding.LOST_AGAIN, part)
        covered = connection.execute(sql_rebuilding.COVER, where).fetchall()
        copy_to_stage(connection, batch.rows)
        added = connection.execute(sql_rebuilding.ADD_STAGED).fetchall()
        refused = self._refused(connection, batch)
        _add_duplicates(connection, batch)
        connection.execute(sql_rebuilding.COUNT_COVERED, [[number for number, _ in covered]])
        _add_to_topic(connection, batch.slice.topic, added)
        return Reinstated(len(added), sum(length for _, length in covered), refused)

    def _adopt(self, rows: Sequence[Row], connection: psycopg.Connection) -> int:
        self._set_all_right(connection)
        copy_to_stage(connection, rows)
        return connection.execute(sql_rebuilding.ADOPT_STAGED).rowcount

    def _refused(self, connection: psycopg.Connection, batch: Batch) -> tuple[Row, ...]:
        found: dict[uuid.UUID, bool] = dict(connection.execute(sql_rebuilding.REFUSED).fetchall())
        if elsewhere := [str(own) for own, has_row in found.items() if has_row]:
            raise StaleDecisionError(
                f"{self._server}: messages of {batch.slice} have rows elsewhere: {', '.join(elsewhere[:10])}.",
                remedy="Nothing was changed. Ask again which messages are known.",
                slice=str(batch.slice),
                uuids=elsewhere[:10],
            )
        return tuple(row for row in batch.rows if row.uuid in found)


def _add_duplicates(connection: psycopg.Connection, batch: Batch) -> None:
    partition_log = batch.slice.partition_log._asdict()
    with connection.cursor() as cursor:
        if batch.duplicates:
            cursor.executemany(
                sql_rebuilding.ADD_DUPLICATE, [{**partition_log, **d._asdict()} for d in batch.duplicates]
            )
        for collision in batch.collisions:
            cursor.execute(
                sql_rebuilding.ADD_MISSING_COLLISION,
                {"kind": sql.COLLISION, **partition_log, **collision._asdict()},
            )


def _add_to_topic(connection: psycopg.Connection, topic: str, added: Sequence[tuple[int, int]]) -> None:
    if added:
        times, sizes = zip(*added, strict=True)
        connection.execute(sql.ADD_TO_TOPIC, [topic, min(times), max(times), len(added), sum(sizes)])


def _recount(topic: str, connection: psycopg.Connection) -> int:
    connection.execute(sql.REFERRING)
    numbers = [number for (number,) in connection.execute(sql_rebuilding.MISCOUNTED, [topic])]
    connection.execute(sql_rebuilding.COUNT_COVERED, [numbers])
    connection.execute(sql_rebuilding.HOLD_SUMMARY, {"topic": topic})
    connection.execute(sql_rebuilding.RECOUNT_SUMMARY, {"topic": topic})
    return len(numbers)


def _claim_generation(said: Mapping[str, object], connection: psycopg.Connection) -> bool:
    if not connection.execute(sql_rebuilding.CLAIM_GENERATION, said).rowcount:
        return False
    connection.execute(sql_rebuilding.TELL_AGAIN, said)
    return True
