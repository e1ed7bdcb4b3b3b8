"""The catalog in Postgres (14 or newer)."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import psycopg
from psycopg.errors import UndefinedTable, UniqueViolation

from hop_archive.catalog.postgres import sql
from hop_archive.catalog.postgres.copy import copy_duplicates, copy_messages
from hop_archive.catalog.postgres.errors import translating
from hop_archive.catalog.postgres.findings import PostgresFindings
from hop_archive.catalog.postgres.rebuilding import Reinstating
from hop_archive.catalog.postgres.removals import PostgresRemovals
from hop_archive.catalog.postgres.repairs import PostgresRepairs
from hop_archive.catalog.postgres.reports import PostgresReports
from hop_archive.catalog.postgres.restores import PostgresRestores
from hop_archive.catalog.postgres.rows import row_from
from hop_archive.catalog.postgres.scrubs import PostgresScrubs
from hop_archive.catalog.postgres.select import Selecting
from hop_archive.catalog.postgres.session import Tuple
from hop_archive.catalog.postgres.snapshots import PostgresSnapshots
from hop_archive.catalog.protocol import SELECT_TIMEOUT_S
from hop_archive.catalog.records import (
    Batch,
    Collision,
    Duplicate,
    Generation,
    LedgerEntry,
    Mentions,
    Miscount,
    Outcome,
    Recorded,
    Row,
    Standing,
    TopicSummary,
)
from hop_archive.errors import DataError, ProofChangedError, SliceTakenError, StaleDecisionError
from hop_archive.model.conditions import OLDEST, TABLES, CatalogCondition
from hop_archive.model.identity import Identity, Known
from hop_archive.model.query import Order, Query
from hop_archive.model.slices import OffsetRange, OffsetSet, PartitionLog, Slice
from hop_archive.model.watermarks import Watermarks


class PostgresCatalog(
    PostgresFindings,
    PostgresRemovals,
    PostgresRepairs,
    PostgresReports,
    PostgresRestores,
    PostgresScrubs,
    PostgresSnapshots,
    Reinstating,
):
    """A catalog in a Postgres database; connects when first used, and is safe to share between threads.

    After a restart of the server the next call works. A commit whose answer was lost raises
    UnavailableError; committing again tells whether it took effect.

    Args:
        name: The stanza's name, for messages.
        dsn: Connection string, ``postgresql://…`` or ``host=… port=…``; its password is in no message.
        schema: Where the catalog's tables are.
        pool_size: Most connections at once. Every open stream of rows holds one.
        timeout_s: Longest wait for a connection, and for what another transaction holds.
        renew: Asks for ``dsn`` anew where the server refuses the credentials; None: nobody can tell others.

    Raises:
        ConfigurationError: ``dsn`` is not a connection string.
    """

    def check(self) -> None:
        """Prove that the catalog can be reached and has the migrations that this version needs.

        Raises:
            UnavailableError: The database did not answer in time.
            MissingSettingError: The migrations are missing or old; the message says which command to run.
            ForbiddenError: The credentials are wrong.
        """
        try:
            found = [version for (version,) in self._fetch_raw(sql.VERSION)]
        except UndefinedTable:
            raise self._server.not_migrated("it has no tables of hop_archive") from None
        if found != [sql.REVISION]:
            raise self._server.not_migrated(f"it is at migration {found}, and {sql.REVISION} is needed")

    def condition(self) -> CatalogCondition:
        """What the database is like for the role that connects; the catalog is migrated."""
        ((at, version, number, read_only, role, encoding),) = self._fetch(sql.CONDITION)
        rights = self._fetch(sql.RIGHTS, {"tables": list(TABLES)})
        return CatalogCondition(
            at=at,
            version=version,
            is_old=number < OLDEST * 10_000,
            read_only=read_only,
            role=role,
            rights={table: frozenset(may or ()) for table, may in sorted(rights)},
            encoding=encoding,
            sequences=tuple(self._sequences()),
        )

    def generations(self, topics: Collection[str] | None) -> Mapping[str, Sequence[Generation]]:
        """The generations of ``topics`` (None: of all), by ascending number; a topic without any is not in the result."""
        found = self._fetch(sql.GENERATIONS, {"topics": None if topics is None else list(topics)})
        return {
            topic: [Generation(*row) for row in rows] for topic, rows in groupby(found, key=itemgetter(0))
        }

    def begin_generation(
        self, topic: str, number: int, cluster_id: str, topic_id: str | None, reason: str
    ) -> Generation:
        """Record generation ``number`` of ``topic``, or return the one that has this number already."""
        wanted = {
            "topic": topic,
            "generation": number,
            "cluster_id": cluster_id,
            "topic_id": topic_id,
            "reason": reason,
        }
        return self._transact(lambda connection: _begin_generation(connection, wanted))

    def observe(self, watermarks: Mapping[PartitionLog, Watermarks]) -> None:
        """Remember the watermarks last seen."""
        seen = [
            (*partition_log, marks.low, marks.stable, marks.high)
            for partition_log, marks in sorted(watermarks.items())
        ]
        if seen:
            columns = [list(column) for column in zip(*seen, strict=True)]
            self._transact(lambda connection: connection.execute(sql.OBSERVE, columns))

    def observed(self, topics: Collection[str]) -> Mapping[PartitionLog, Watermarks]:
        """The watermarks last remembered, of every generation of ``topics``."""
        found = self._fetch(sql.OBSERVED, [list(topics)])
        return {PartitionLog(*row[:3]): Watermarks(*row[3:]) for row in found}

    def note_proven(
        self,
        epochs: Mapping[PartitionLog, int | None],
        instead_of: Mapping[PartitionLog, int | None] | None = None,
    ) -> None:
        """Remember under which leader epoch each log was proven to be the one that is covered; see ``Catalog.note_proven``."""
        if epochs:
            before = instead_of or dict.fromkeys(epochs)
            proven = [
                (*partition_log, epoch, before[partition_log]) for partition_log, epoch in epochs.items()
            ]
            columns: list[Any] = [list(column) for column in zip(*proven, strict=True)]
            self._transact(partial(_note_proven, [*columns, instead_of is None]))

    def left_behind(self, topics: Collection[str], cluster_id: str) -> Mapping[PartitionLog, OffsetSet]:
        """What the lives of ``topics`` on a cluster were observed to hold, and nothing covers."""
        found = self._fetch(sql.LEFT_BEHIND, [list(topics), cluster_id])
        return {
            PartitionLog(*partition_log): OffsetSet.of(row[3:] for row in rows)
            for partition_log, rows in groupby(found, key=itemgetter(0, 1, 2))
        }

    def tails(
        self, partition_logs: Collection[PartitionLog], most: int
    ) -> Mapping[PartitionLog, Sequence[Standing]]:
        """The last ``most`` messages of each log that are archived or duplicates, by ascending offset."""
        if not partition_logs:
            return {}
        topics, generations, partitions = ([*column] for column in zip(*partition_logs, strict=True))
        wanted = {"topics": topics, "generations": generations, "partitions": partitions, "most": most}
        return {
            PartitionLog(*partition_log): [Standing(*row[3:]) for row in rows]
            for partition_log, rows in groupby(self._fetch(sql.TAILS, wanted), key=itemgetter(0, 1, 2))
        }

    def coverage(self, topics: Collection[str] | None = None) -> Mapping[PartitionLog, OffsetSet]:
        """The offsets dealt with, of every generation of ``topics`` (or of all)."""
        found = self._fetch(sql.COVERAGE, {"topics": _or_all(topics)})
        return {
            PartitionLog(*partition_log): OffsetSet(tuple(OffsetRange(*row[3:]) for row in rows))
            for partition_log, rows in groupby(found, key=itemgetter(0, 1, 2))
        }

    def has_adopted(self, topic: str) -> bool:
        """Whether another archiver wrote rows of ``topic``."""
        return bool(self._fetch(sql.HAS_ADOPTED, [[topic]]))

    def known(self, identities: Sequence[Identity]) -> Sequence[Known]:
        """Archived messages that any of ``identities`` might be a copy of."""
        if not identities:
            return []
        with translating(self._server), self._connections.lease() as connection:
            return _known(connection, identities)

    def commit(self, batch: Batch) -> None:
        """Record a batch: its rows, duplicates, collisions, ledger row and topic summary, or none of them.

        Raises:
            SliceTakenError: The ledger holds some offset of the slice already; nothing was changed.
            StaleDecisionError: A UUID of the rows is in the catalog already, or what a duplicate repeats is not;
                nothing was changed.
            ProofChangedError: The log is proven under another leader epoch than the batch's, or not; nothing was changed.
            UnavailableError: The database did not answer; it may or may not have been committed.
            DataError: An offset of the slice has a row that the ledger knows nothing of.
        """
        try:
            self._transact(lambda connection: self._record(connection, batch))
        except UniqueViolation as error:
            raise self._conflict(batch, error) from error

    def summaries(
        self, topics: Collection[str] | None = None, since: datetime.datetime | None = None
    ) -> Sequence[TopicSummary]:
        """One summary a topic, sorted by topic; a topic of which there is nothing to say is left out."""
        statement = sql.SUMMARIES if since is None else sql.SUMMARIES_SINCE
        found = self._fetch(statement, {"topics": _or_all(topics), "since": since})
        return [TopicSummary(*row) for row in found]

    def ledger(self, topics: Collection[str] | None = None) -> Sequence[LedgerEntry]:
        """The ledger's rows, sorted by slice."""
        found = self._fetch(sql.LEDGER, {"topics": _or_all(topics)})
        return [LedgerEntry(Slice(*row[:5]), Outcome(row[5]), *row[6:]) for row in found]

    def rows(self, topic: str) -> Iterator[Row]:
        """The rows of ``topic``, streamed in order of generation, partition and offset; adopted rows last."""
        return map(row_from, self._stream(sql.ROWS, topic))

    def topics(self) -> Sequence[str]:
        """The topics that have rows, whatever their summaries say; sorted by bytes."""
        return sorted(topic for (topic,) in self._fetch(sql.TOPICS))

    def known_topics(self) -> Sequence[str]:
        """The topics of which there is anything; sorted by bytes."""
        return sorted(topic for (topic,) in self._fetch(sql.KNOWN_TOPICS))

    def recorded(self, topic: str, *, segments: bool) -> Iterator[Recorded]:
        """The objects that rows of ``topic`` name, streamed in byte order of their keys; see ``Catalog.recorded``."""
        if not segments:
            return map(Recorded._make, self._stream(sql.RECORDED_ALONE, topic))
        partition_logs = self._fetch(sql.LINEAGES, {"topic": topic})
        # Keys have these numbers unpadded: byte order is not that of numbers.
        partition_logs.sort(key=lambda partition_log: f"{partition_log[0]}/{partition_log[1]}/")
        streams = (
            self._stream(sql.RECORDED_IN_SEGMENTS, topic, *partition_log) for partition_log in partition_logs
        )
        return (
            Recorded(key, bucket, of, rows, end, True, own)
            for key, bucket, of, rows, end, own in chain.from_iterable(streams)
        )

    def find(self, own: uuid.UUID) -> Row | None:
        """The row of this UUID, if there is one."""
        found = self._fetch(sql.FIND, [own])
        return row_from(found[0]) if found else None

    def select(
        self, query: Query, order: Order = Order.PLACE, *, timeout_s: float = SELECT_TIMEOUT_S
    ) -> Iterator[Row]:
        """The rows that ``query`` means, streamed in ``order``; see ``Catalog.select``. Holds one connection."""
        return map(row_from, Selecting(self._server, self._connections, query, timeout_s).stream(order))

    def mentions(self, own: uuid.UUID, topic: str, limit: int = 10) -> Mentions:
        """Where else the catalog speaks of the message of this UUID and topic; the first ``limit`` of each kind."""
        copies = self._fetch(sql.DUPLICATES_OF, [topic, own, limit])
        met = self._fetch(sql.COLLISIONS_OF, {"kind": sql.COLLISION, "uuid": own, "limit": limit})
        return Mentions(
            tuple((PartitionLog(topic, *row[:2]), Duplicate(*row[2:6])) for row in copies),
            copies[0][-1] if copies else 0,
            tuple((PartitionLog(*row[:3]), Collision(*row[3:6])) for row in met),
            met[0][-1] if met else 0,
        )

    def duplicates(self, topic: str) -> Iterator[tuple[PartitionLog, Duplicate]]:
        """The recorded duplicates of ``topic``, streamed in order of log and offset."""
        found = self._stream(sql.DUPLICATES, topic)
        return ((PartitionLog(topic, *row[:2]), Duplicate(*row[2:])) for row in found)

    def collisions(self, topic: str) -> Sequence[tuple[PartitionLog, Collision]]:
        """The recorded collisions of ``topic``, in order of log and offset."""
        found = self._fetch(sql.COLLISIONS, [topic, sql.COLLISION])
        return [(PartitionLog(topic, *row[:2]), Collision(*row[2:])) for row in found]

    def miscounts(self, topic: str) -> Sequence[Miscount]:
        """Where the ledger's numbers or the summary's are wrong; reads every row of the topic, of an index."""
        found: list[Miscount] = []
        for row in self._fetch(sql.MISCOUNTED_BATCHES, [topic]):
            where = Slice(topic, *row[:4])
            found += [
                Miscount(topic, where, "archived", *row[4:6]),
                Miscount(topic, where, "duplicates", *row[6:8]),
            ]
        ((messages, rows, size_bytes, rows_bytes),) = self._fetch(sql.MISCOUNTED_SUMMARY, {"topic": topic})
        found.append(Miscount(topic, None, "messages", messages, rows))
        found.append(Miscount(topic, None, "bytes", size_bytes, rows_bytes))
        return [one for one in found if one.said != one.found]

    def unledgered(self, topic: str) -> Sequence[Slice]:
        """For each log of ``topic`` with rows that no ledger row covers: from the first of them to the last."""
        found: list[Slice] = []
        for generation, partition, rows in self._fetch(sql.ROWS_BY_LINEAGE, [topic]):
            partition_log = (topic, generation, partition)
            if self._fetch(sql.ROWS_IN_LEDGER, partition_log) != [(rows,)]:
                (ends,) = self._fetch(sql.UNLEDGERED, partition_log)
                found += [Slice(*partition_log, *ends)] if ends[0] is not None else []
        return found

    def merge_ledger(self, before: datetime.datetime) -> int:
        """Merge neighbouring ledger rows of the same outcome and reason that were made before ``before``.

        One transaction a log; no commit waits for more than the merge of its own log. Running it
        again, or twice at once, is harmless. ``messages.batch`` and ``duplicates.batch`` keep the number of
        the batch as it was committed: the ledger row of a message is found by its offset.

        Returns:
            By how many rows the ledger became shorter.
        """
        partition_logs = [PartitionLog(*found) for found in self._fetch(sql.MERGEABLE, [before])]
        return sum(self._transact(partial(_merge, partition_log, before)) for partition_log in partition_logs)

    def _record(self, connection: psycopg.Connection, batch: Batch) -> None:
        """The ledger row before all others: whoever has an overlapping slice waits there, and is refused before any work."""
        if batch.proven_epoch is not None:
            self._hold_proof(connection, batch)
        number = connection.execute(sql.ADD_BATCH, _ledger_row(batch)).fetchone()
        if number is None:
            raise self._taken(connection, batch)
        if batch.rows:
            copy_messages(connection, batch, *number)
        if batch.duplicates:
            self._hold_referred(connection, batch)
            copy_duplicates(connection, batch, *number)
        for collision in batch.collisions:
            connection.execute(sql.ADD_COLLISION, _finding(batch.slice, collision))
        if batch.rows:
            connection.execute(
                sql.ADD_TO_TOPIC, [batch.slice.topic, *_times(batch), len(batch.rows), batch.size_bytes]
            )

    def _hold_proof(self, connection: psycopg.Connection, batch: Batch) -> None:
        """See that the log is still proven under the batch's epoch, and stays: whoever would prove it anew waits."""
        if connection.execute(sql.PROVEN, batch.slice.partition_log).fetchone() != (batch.proven_epoch,):
            raise ProofChangedError(
                f"{self._server}: {batch.slice} was read of a log that is not the one which is proven now.",
                remedy="Nothing was changed. Plan again: that proves the log first.",
                slice=str(batch.slice),
            )

    def _hold_referred(self, connection: psycopg.Connection, batch: Batch) -> None:
        """See that what the duplicates repeat is there, and stays: whoever would take it away waits, and finds them."""
        wanted = batch.referred()
        connection.execute(sql.REFERRING)
        held = {own for (own,) in connection.execute(sql.REFERRED, [list(wanted)])} if wanted else set()
        gone = sorted(map(str, wanted - held))
        if gone:
            raise StaleDecisionError(
                f"{self._server}: what messages of {batch.slice} repeat was taken away meanwhile: {', '.join(gone[:10])}.",
                remedy="Nothing was changed. Ask again which messages are known.",
                slice=str(batch.slice),
                uuids=gone[:10],
            )

    def _taken(self, connection: psycopg.Connection, batch: Batch) -> SliceTakenError:
        wanted = batch.slice
        held = connection.execute(sql.HOLDERS, [*wanted.partition_log, wanted.start, wanted.stop]).fetchall()
        holders = [
            {"batch": row[0], "start": row[1], "stop": row[2], "outcome": row[3], "run_id": row[4],
             "created_at": row[5].isoformat()}
            for row in held
        ]  # fmt: skip
        by = "; ".join(
            f"batch {h['batch']} [{h['start']}, {h['stop']}) of run {h['run_id'] or '?'}" for h in holders
        )
        return SliceTakenError(
            f"{self._server}: {wanted} is in the ledger already, all or in part: {by}.",
            remedy="Nothing was changed. Plan again from the coverage.",
            slice=str(wanted),
            holders=holders,
        )

    def _conflict(self, batch: Batch, error: UniqueViolation) -> StaleDecisionError | DataError:
        """What it means that a row, or a duplicate, was there already."""
        taken = [str(row[0]) for row in self._fetch(sql.TAKEN_UUIDS, [[row.uuid for row in batch.rows]])]
        if error.diag.constraint_name in ("messages_offset_idx", "duplicates_pkey"):
            return DataError(
                f"{self._server} holds messages of {batch.slice} that its ledger knows nothing of.",
                remedy="The ledger was changed by hand: put its rows back, or rebuild the catalog.",
                slice=str(batch.slice),
                uuids=taken,
            )
        return StaleDecisionError(
            f"{self._server}: another writer catalogued messages of {batch.slice} meanwhile: {', '.join(taken)}.",
            remedy="Nothing was changed. Ask again which messages are known.",
            slice=str(batch.slice),
            uuids=taken,
        )


def _or_all(topics: Collection[str] | None) -> list[str] | None:
    return None if topics is None else list(topics)


def _begin_generation(connection: psycopg.Connection, wanted: Mapping[str, object]) -> Generation:
    connection.execute(sql.BEGIN_GENERATION, wanted)
    found = connection.execute(sql.GENERATION, wanted).fetchone()
    assert found is not None
    return Generation(*found)


def _note_proven(columns: Sequence[Any], connection: psycopg.Connection) -> None:
    """In two statements: the second sees what was committed while the first waited."""
    connection.execute(sql.HOLD_TO_PROVE, columns[:3])
    connection.execute(sql.NOTE_PROVEN, columns)


def _known(connection: psycopg.Connection, identities: Sequence[Identity]) -> list[Known]:
    """By UUID; and among adopted rows, where a topic has any, which is one probe of their own small index."""
    by_uuid = connection.execute(sql.KNOWN_BY_UUID, [[i.uuid for i in identities]], binary=True)
    found = {row[0]: Known(*row) for row in by_uuid}
    topics = list({i.topic for i in identities})
    adopted = {row[0] for row in connection.execute(sql.HAS_ADOPTED, [topics])}
    wanted = [(i.topic, i.timestamp_ms, i.message_crc32) for i in identities if i.topic in adopted]
    if wanted:
        columns = [list(column) for column in zip(*wanted, strict=True)]
        by_content = connection.execute(sql.KNOWN_ADOPTED, columns, binary=True)
        found.update((row[0], Known(*row)) for row in by_content)
    return list(found.values())


def _merge(partition_log: PartitionLog, before: datetime.datetime, connection: psycopg.Connection) -> int:
    connection.execute(sql.REFERRING)
    shorter = connection.execute(sql.MERGE, {**partition_log._asdict(), "before": before}).fetchone()
    return int(shorter[0]) if shorter else 0


def _ledger_row(batch: Batch) -> Tuple:
    counts = (len(batch.rows), len(batch.duplicates), batch.absent, batch.size_bytes)
    place = (*batch.slice.partition_log, batch.slice.start, batch.slice.stop)
    return (*place, batch.outcome.value, batch.reason, *counts, *_times(batch), batch.run_id)


def _times(batch: Batch) -> tuple[int | None, int | None]:
    """Least and greatest timestamp of the archived messages."""
    times = [row.timestamp_ms for row in batch.rows]
    return min(times, default=None), max(times, default=None)


def _finding(where: Slice, collision: Collision) -> dict[str, Any]:
    return {"kind": sql.COLLISION, **where.partition_log._asdict(), **collision._asdict()}
