"""The catalog in Postgres (14 or newer)."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import psycopg
from psycopg.errors import UndefinedTable, UniqueViolation
from psycopg.rows import dict_row

from hop_archive.catalog.postgres.adding import add
from hop_archive.catalog.postgres.claims import PostgresClaims
from hop_archive.catalog.postgres.compaction import PostgresCompaction
from hop_archive.catalog.postgres.errors import translating
from hop_archive.catalog.postgres.generations import PostgresGenerations
from hop_archive.catalog.postgres.ledger import PostgresLedger
from hop_archive.catalog.postgres.pool import VERSION
from hop_archive.catalog.postgres.removals import PostgresRemovals
from hop_archive.catalog.postgres.repairs import PostgresRepairs
from hop_archive.catalog.postgres.restores import PostgresRestores
from hop_archive.catalog.postgres.row_jobs import PostgresRowJobs
from hop_archive.catalog.postgres.rows import PostgresRows
from hop_archive.catalog.postgres.session import columns_of, sequences, transaction
from hop_archive.catalog.postgres.sql import ADD_BATCH, HAS_ADOPTED, REFERRING, REVISION
from hop_archive.catalog.postgres.verification import PostgresVerification
from hop_archive.catalog.records import Batch
from hop_archive.catalog.refusals import decided_too_early, proof_changed, refuse_unlike, slice_taken
from hop_archive.errors import DataError, SliceTakenError
from hop_archive.model.conditions import OLDEST, TABLES, CatalogCondition
from hop_archive.model.identity import Identity, Known
from hop_archive.model.slices import PartitionLog, Slice

CONDITION = """
    SELECT clock_timestamp(), current_setting('server_version'), current_setting('server_version_num')::int,
           pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean, current_user::text,
           current_setting('server_encoding'),
           to_regclass('messages_key_idx') IS NOT NULL OR EXISTS (SELECT FROM messages WHERE digest IS NULL)
"""
"""Index: messages_adopted_idx. The other index is one that archive-core alone makes."""

RIGHTS = """
    SELECT name, array_agg(right_) FILTER (WHERE has_table_privilege(name, right_))
    FROM unnest(%(tables)s::text[]) AS name,
         unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS right_
    GROUP BY name
"""

PROVEN = """
    SELECT topic, generation, partition, leader_epoch
    FROM observed JOIN unnest(%s::text[], %s::int[], %s::int[]) AS wanted (topic, generation, partition)
         USING (topic, generation, partition)
    ORDER BY topic, generation, partition FOR KEY SHARE OF observed
"""
"""Index: observed_pkey. First in its transaction, and in order: who waits here keeps nobody who is before it waiting. As a foreign
key would, it lets others note watermarks (``OBSERVE``) meanwhile, but not who proves (``HOLD_TO_PROVE``)."""

HOLDERS = """
    SELECT id AS batch, lower(offsets) AS start, upper(offsets) AS stop, outcome, run_id, created_at
    FROM batches
    WHERE topic = %s AND generation = %s AND partition = %s AND offsets && int8range(%s, %s)
    ORDER BY offsets LIMIT 3
"""
"""Index: batches_slice_excl."""

REFERRED = "SELECT uuid, topic, digest FROM messages WHERE uuid = ANY(%b)"
"""Index: messages_uuid_idx."""

TAKEN_UUIDS = "SELECT uuid FROM messages WHERE uuid = ANY(%b) LIMIT 10"
"""Index: messages_uuid_idx."""

KNOWN_BY_UUID = """
    SELECT uuid, topic, timestamp, message_crc32, is_client_uuid, digest
    FROM messages WHERE uuid = ANY(%b)
"""
"""Index: messages_uuid_idx."""

KNOWN_ADOPTED = """
    SELECT uuid, topic, timestamp, message_crc32, is_client_uuid, digest
    FROM messages JOIN unnest(%b::text[], %b::bigint[], %b::bigint[]) AS wanted (topic, timestamp, message_crc32)
         USING (topic, timestamp, message_crc32)
    WHERE digest IS NULL
"""
"""Index: messages_adopted_idx."""


class PostgresCatalog(
    PostgresClaims,
    PostgresCompaction,
    PostgresGenerations,
    PostgresLedger,
    PostgresRemovals,
    PostgresRepairs,
    PostgresRestores,
    PostgresRowJobs,
    PostgresRows,
    PostgresVerification,
):
    """A catalog in a Postgres database; connects when first used, and is safe to share between threads.

    After a restart of the server the next call works. A commit whose answer was lost raises
    UnavailableError; committing again shows whether it took effect. Arguments and errors are those of ``Session``.
    """

    def check(self) -> None:
        with translating(self._server):
            try:
                with self._connections.lease() as connection:
                    found = connection.execute(VERSION).fetchall()
            except UndefinedTable:
                raise self._server.not_migrated("it has no tables of hop_archive") from None
        if found != [(REVISION,)]:
            versions = [version for (version,) in found]
            raise self._server.not_migrated(f"it is at migration {versions}, and {REVISION} is needed")

    def condition(self) -> CatalogCondition:
        ((at, version, number, read_only, role, encoding, was_adopted),) = self._fetch(CONDITION)
        rights = self._fetch(RIGHTS, {"tables": list(TABLES)})
        with translating(self._server), self._connections.lease() as connection:
            standing = tuple(sequences(connection))
        return CatalogCondition(
            at=at,
            version=version,
            is_old=number < OLDEST * 10_000,
            read_only=read_only,
            role=role,
            rights={table: frozenset(may or ()) for table, may in sorted(rights)},
            encoding=encoding,
            sequences=standing,
            was_adopted=was_adopted,
        )

    def has_adopted(self, topic: str) -> bool:
        return bool(self._fetch(HAS_ADOPTED, [[topic]]))

    def known(self, identities: Sequence[Identity]) -> Sequence[Known]:
        """By UUID; and among adopted rows, where a topic has any, which is one probe of their own small index."""
        if not identities:
            return []
        with translating(self._server), self._connections.lease() as connection:
            by_uuid = connection.execute(KNOWN_BY_UUID, [[i.uuid for i in identities]], binary=True)
            found = {row[0]: Known(*row) for row in by_uuid}
            topics = list({i.topic for i in identities})
            adopted = {row[0] for row in connection.execute(HAS_ADOPTED, [topics])}
            contents = [(i.topic, i.timestamp_ms, i.message_crc32) for i in identities if i.topic in adopted]
            if contents:
                columns = columns_of(contents)
                by_content = connection.execute(KNOWN_ADOPTED, columns, binary=True)
                found.update((row[0], Known(*row)) for row in by_content)
        return list(found.values())

    def commit(self, *batches: Batch) -> None:
        """Besides what ``Catalog.commit`` says.

        Raises:
            DataError: An offset of the slice has a row that the ledger knows nothing of; told of one batch alone.
        """
        try:
            tidied = self._record(sorted(batches, key=lambda batch: batch.slice))
        except UniqueViolation as error:
            uuids = [row.uuid for batch in batches for row in batch.rows]
            taken = [found for (found,) in self._fetch(TAKEN_UUIDS, [uuids])]
            first, *others = (batch.slice for batch in batches)
            if not others and error.diag.constraint_name in ("messages_place_idx", "duplicates_pkey"):
                raise DataError(
                    f"{self._server} holds messages of {first} that its ledger knows nothing of.",
                    remedy="The ledger was changed by hand: put its rows back, or rebuild the catalog.",
                    slice=str(first),
                    uuids=[*map(str, taken)],
                ) from error
            what = f"another writer catalogued messages of {first}{' or others' if others else ''} meanwhile"
            raise decided_too_early(self._server, first, what, taken) from error
        for partition_log, begun_at in tidied.items():
            self.tidy(partition_log, begun_at)

    @transaction
    def _record(
        self, connection: psycopg.Connection, batches: Sequence[Batch]
    ) -> dict[PartitionLog, datetime.datetime]:
        """The logs whose ledger is to be tidied, and when it was committed.

        The ledger rows before all others: whoever has an overlapping slice waits there, and is refused before any work.
        """
        # The logs are still proven under the batches' epochs, and stay: whoever would prove one anew waits.
        if proven := [batch for batch in batches if batch.proven_epoch is not None]:
            asked = connection.execute(PROVEN, columns_of(batch.slice.partition_log for batch in proven))
            epochs = {PartitionLog(*row[:3]): row[3] for row in asked}
            for batch in proven:
                if epochs.get(batch.slice.partition_log) != batch.proven_epoch:
                    raise proof_changed(self._server, batch.slice)
        rows = [
            (*batch.slice.partition_log, batch.slice.start, batch.slice.stop, batch.outcome.value, batch.reason,
             len(batch.rows), len(batch.duplicates), batch.absent, batch.size_bytes, *batch.ends_ms, batch.run_id)
            for batch in batches
        ]  # fmt: skip
        added = {
            (PartitionLog(*log), start): (number, at, is_later)
            for number, *log, start, at, is_later in connection.execute(ADD_BATCH, columns_of(rows))
        }
        numbered = []
        for batch in batches:
            new = added.get((batch.slice.partition_log, batch.slice.start))
            if new is None:
                raise self._taken(connection, batch.slice)
            numbered.append((batch, new[0]))
        if any(batch.duplicates for batch in batches):
            connection.execute(REFERRING)
        add(connection, *numbered)
        for batch in batches:
            # See that what they repeat is there, and stays: whoever would take it away waits, and finds them.
            if referred := batch.referred():
                found = connection.execute(REFERRED, [list(referred)])
                refuse_unlike(self._server, batch, {own: (topic, digest) for own, topic, digest in found})
        return {log: at for (log, _), (_, at, is_later) in added.items() if is_later}

    def _taken(self, connection: psycopg.Connection, where: Slice) -> SliceTakenError:
        place = (*where.partition_log, where.start, where.stop)
        asked = connection.cursor(row_factory=dict_row).execute(HOLDERS, place)
        found = [{**row, "created_at": row["created_at"].isoformat()} for row in asked]
        by = (f"batch {h['batch']} [{h['start']}, {h['stop']}) of run {h['run_id'] or '?'}" for h in found)
        return slice_taken(self._server, where, found, f": {'; '.join(by)}")
