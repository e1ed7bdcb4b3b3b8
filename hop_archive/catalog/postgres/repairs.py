"""Mending in Postgres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import psycopg
from psycopg.errors import UniqueViolation

from hop_archive.catalog.postgres import sql, sql_repairs
from hop_archive.catalog.postgres.copy import copy_duplicates, copy_messages, message_columns
from hop_archive.catalog.postgres.session import Session
from hop_archive.catalog.records import Batch, Correction, Duplicate, Outcome
from hop_archive.errors import DataError, SliceTakenError, StaleDecisionError
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice


class PostgresRepairs(Session):
    """The part of a catalog in Postgres that is corrected."""

    def correct_rows(self, corrections: Sequence[Correction]) -> None:
        """Put rows in the place of rows, all or none; see ``Catalog.correct_rows``."""
        if corrections:
            about = f"{len(corrections)} rows of topic {corrections[0].was.topic}"
            self._unless_taken(lambda connection: _correct(connection, corrections, about), about)

    def put_back(self, batch: Batch) -> None:
        """Add rows and duplicates that the ledger counts; see ``Catalog.put_back``."""
        self._unless_taken(lambda connection: _put_back(connection, batch), str(batch.slice))

    def record_copy(self, at: PartitionLog, copy: Duplicate) -> None:
        """Record a copy where the ledger says that nothing is; see ``Catalog.record_copy``."""
        self._unless_taken(lambda connection: _record_copy(connection, at, copy), str(at))

    def account(self, batch: Batch) -> None:
        """Cover a slice by what stands there, and by what is added; see ``Catalog.account``."""
        self._unless_taken(lambda connection: _account(connection, batch), str(batch.slice))

    def recount_ledger(self, where: Slice) -> None:
        """Make a ledger row say what the rows are; see ``Catalog.recount_ledger``."""
        self._transact(lambda connection: _recount(connection, where))

    def recount_summary(self, topic: str) -> None:
        """Make a topic's summary say what the rows are; see ``Catalog.recount_summary``."""
        self._transact(lambda connection: _recount_summary(connection, topic))

    def duplicates_in(self, place: Slice, limit: int) -> Sequence[Duplicate]:
        """The first ``limit`` of the recorded duplicates in a slice, by offset."""
        values = [*place.partition_log, place.start, place.stop, limit]
        return [Duplicate(*row) for row in self._fetch(sql_repairs.DUPLICATES_IN, values)]

    def _unless_taken(self, work: Callable[[psycopg.Connection], None], about: str) -> None:
        try:
            self._transact(work)
        except UniqueViolation as error:
            raise _stale(about, "a UUID or an offset of them has a row already") from error


def _stale(about: str, why: str) -> StaleDecisionError:
    return StaleDecisionError(f"{about}: {why}.", remedy="Nothing was changed. Look again.", about=about)


def _correct(connection: psycopg.Connection, corrections: Sequence[Correction], about: str) -> None:
    values = [(*message_columns(one.now), one.was.uuid, *message_columns(one.was)) for one in corrections]
    with connection.cursor() as cursor:
        cursor.executemany(sql_repairs.CORRECT, values)
        if cursor.rowcount != len(corrections):
            raise _stale(about, "not all of them stand as they were seen")


def _put_back(connection: psycopg.Connection, batch: Batch) -> None:
    where = batch.slice
    connection.execute(sql.REFERRING)
    ledger = [
        row
        for row in connection.execute(
            sql_repairs.LOCK_LEDGER, [*where.partition_log, where.start, where.stop]
        ).fetchall()
        if row[3] == Outcome.ARCHIVED.value
    ]
    covered = OffsetSet.of((row[1], row[2]) for row in ledger)
    if not all(offset in covered for offset in batch.offsets):
        raise _stale(str(where), "the ledger does not cover all of it as archived")
    _add(connection, batch, ledger[0][0])
    for _, start, stop, _, archived, duplicates in ledger:
        rows, _, _, _, copies = _standing(connection, where.within(start, stop))
        if rows > archived or copies > duplicates:
            raise _stale(str(where), "the ledger counts no more than is there")


def _record_copy(connection: psycopg.Connection, at: PartitionLog, copy: Duplicate) -> None:
    where = Slice(*at, copy.offset, copy.offset + 1)
    connection.execute(sql.REFERRING)
    counted = connection.execute(sql_repairs.COUNT_A_COPY, {**at._asdict(), "offset": copy.offset}).fetchone()
    if counted is None:
        raise _stale(str(where), "the ledger does not call it absent")
    if _standing(connection, where)[0]:
        raise _stale(str(where), "a row stands there")
    copy_duplicates(connection, Batch(where, duplicates=[copy]), *counted)


def _add(connection: psycopg.Connection, batch: Batch, number: int) -> None:
    if batch.rows:
        copy_messages(connection, batch, number)
    if batch.duplicates:
        copy_duplicates(connection, batch, number)
    for collision in batch.collisions:
        finding = {"kind": sql.COLLISION, **batch.slice.partition_log._asdict(), **collision._asdict()}
        connection.execute(sql.ADD_COLLISION, finding)
    if batch.rows:
        times = [row.timestamp_ms for row in batch.rows]
        summary = [batch.slice.topic, min(times), max(times), len(batch.rows), batch.size_bytes]
        connection.execute(sql.ADD_TO_TOPIC, summary)


def _account(connection: psycopg.Connection, batch: Batch) -> None:
    where = batch.slice
    connection.execute(sql_repairs.DROP_SELF_COPIES, asdict(where))
    rows, size_bytes, first, last, copies = _standing(connection, where)
    archived, duplicates = rows + len(batch.rows), copies + len(batch.duplicates)
    absent = len(where) - archived - duplicates
    if absent < 0:
        raise _stale(str(where), "an offset of it stands there twice")
    times = [t for t in (first, last, *(row.timestamp_ms for row in batch.rows)) if t is not None]
    place = (*where.partition_log, where.start, where.stop, Outcome.ARCHIVED.value, "")
    counts = (archived, duplicates, absent, size_bytes + batch.size_bytes)
    ends = (min(times, default=None), max(times, default=None), batch.run_id)
    number = connection.execute(sql.ADD_BATCH, (*place, *counts, *ends)).fetchone()
    if number is None:
        raise SliceTakenError(
            f"{where} is in the ledger by now, all or in part.",
            remedy="Nothing was changed.",
            slice=str(where),
        )
    _add(connection, batch, *number)


def _recount(connection: psycopg.Connection, where: Slice) -> None:
    connection.execute(sql.REFERRING)
    found = connection.execute(
        sql_repairs.LOCK_LEDGER, [*where.partition_log, where.start, where.stop]
    ).fetchall()
    if [row[1:3] for row in found] != [(where.start, where.stop)]:
        raise _stale(str(where), "no ledger row is of just this slice")
    ((number, _, _, outcome, archived, duplicates),) = found
    connection.execute(sql_repairs.DROP_SELF_COPIES, asdict(where))
    rows, size_bytes, first, last, copies = _standing(connection, where)
    refuse_to_hide(where, Outcome(outcome), archived + duplicates, rows + copies)
    values = {"id": number, "archived": rows, "duplicates": copies, "absent": len(where) - rows - copies}
    connection.execute(
        sql_repairs.RECOUNT_LEDGER, {**values, "bytes": size_bytes, "first": first, "last": last}
    )


def refuse_to_hide(where: Slice, outcome: Outcome, said: int, found: int) -> None:
    """Raise where counting anew would hide something.

    Raises:
        DataError: Less is there than the ledger row says, or more than its slice is long, or it was never archived.
    """
    if outcome is not Outcome.ARCHIVED:
        raise DataError(f"{where} is recorded as {outcome.value}, and {found} messages stand there.")
    if found < said:
        raise DataError(f"{where}: {said - found} messages that the ledger counts are not there.")
    if found > len(where):
        raise DataError(f"{where}: an offset of it stands there twice.")


def _recount_summary(connection: psycopg.Connection, topic: str) -> None:
    connection.execute(sql_repairs.LOCK_SUMMARY, {"topic": topic})
    connection.execute(sql_repairs.RECOUNT_SUMMARY, {"topic": topic})


def _standing(connection: psycopg.Connection, where: Slice) -> tuple[Any, ...]:
    """Rows, their bytes, least and greatest timestamp, and duplicates in a slice."""
    found = connection.execute(sql_repairs.STANDING, asdict(where)).fetchone()
    assert found is not None
    return found
