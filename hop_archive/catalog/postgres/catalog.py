"""The catalog in Postgres (14 or newer)."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg.errors import UndefinedTable, UniqueViolation

from hop_archive.catalog.postgres.adding import add
from hop_archive.catalog.postgres.errors import translating
from hop_archive.catalog.postgres.generations import PostgresGenerations
from hop_archive.catalog.postgres.ledger import PostgresLedger
from hop_archive.catalog.postgres.rebuilding import PostgresRebuilding
from hop_archive.catalog.postgres.removals import PostgresRemovals
from hop_archive.catalog.postgres.repairs import PostgresRepairs
from hop_archive.catalog.postgres.restores import PostgresRestores
from hop_archive.catalog.postgres.rows import PostgresRows
from hop_archive.catalog.postgres.sql import ADD_BATCH, HAS_ADOPTED, REFERRING, REVISION, VERSION_TABLE
from hop_archive.catalog.postgres.verification import PostgresVerification
from hop_archive.catalog.records import Batch
from hop_archive.errors import DataError, ProofChangedError, SliceTakenError, StaleDecisionError
from hop_archive.model.conditions import OLDEST, TABLES, CatalogCondition
from hop_archive.model.identity import Identity, Known

CONDITION = """
    SELECT clock_timestamp(), current_setting('server_version'), current_setting('server_version_num')::int,
           pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean, current_user::text,
           current_setting('server_encoding')
"""

RIGHTS = """
    SELECT name, array_agg(right_) FILTER (WHERE has_table_privilege(name, right_))
    FROM unnest(%(tables)s::text[]) AS name,
         unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS right_
    GROUP BY name
"""

PROVEN = """
    SELECT leader_epoch FROM observed WHERE topic = %s AND generation = %s AND partition = %s FOR KEY SHARE
"""
"""Index: observed_pkey. First in its transaction: who waits here holds nothing. As a foreign key would, it lets others
note watermarks (``OBSERVE``) meanwhile, but not who proves (``HOLD_TO_PROVE``)."""

HOLDERS = """
    SELECT id, lower(offsets), upper(offsets), outcome, run_id, created_at
    FROM batches
    WHERE topic = %s AND generation = %s AND partition = %s AND offsets && int8range(%s, %s)
    ORDER BY offsets LIMIT 3
"""
"""Index: batches_slice_excl."""

REFERRED = "SELECT uuid FROM messages WHERE uuid = ANY(%b)"
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
    PostgresGenerations,
    PostgresLedger,
    PostgresRebuilding,
    PostgresRemovals,
    PostgresRepairs,
    PostgresRestores,
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
                    found = [
                        version
                        for (version,) in connection.execute(
                            f"SELECT version_num FROM {VERSION_TABLE}"
                        ).fetchall()
                    ]
            except UndefinedTable:
                raise self._server.not_migrated("it has no tables of hop_archive") from None
        if found != [REVISION]:
            raise self._server.not_migrated(f"it is at migration {found}, and {REVISION} is needed")

    def condition(self) -> CatalogCondition:
        ((at, version, number, read_only, role, encoding),) = self._fetch(CONDITION)
        rights = self._fetch(RIGHTS, {"tables": list(TABLES)})
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
                columns = [list(column) for column in zip(*contents, strict=True)]
                by_content = connection.execute(KNOWN_ADOPTED, columns, binary=True)
                found.update((row[0], Known(*row)) for row in by_content)
        return list(found.values())

    def commit(self, batch: Batch) -> None:
        """Besides what ``Catalog.commit`` says.

        Raises:
            DataError: An offset of the slice has a row that the ledger knows nothing of.
        """
        try:
            self._transact(lambda connection: self._record(connection, batch))
        except UniqueViolation as error:
            uuids = [row.uuid for row in batch.rows]
            taken = [str(row[0]) for row in self._fetch(TAKEN_UUIDS, [uuids])]
            if error.diag.constraint_name in ("messages_offset_idx", "duplicates_pkey"):
                raise DataError(
                    f"{self._server} holds messages of {batch.slice} that its ledger knows nothing of.",
                    remedy="The ledger was changed by hand: put its rows back, or rebuild the catalog.",
                    slice=str(batch.slice),
                    uuids=taken,
                ) from error
            raise StaleDecisionError(
                f"{self._server}: another writer catalogued messages of {batch.slice} meanwhile: {', '.join(taken)}.",
                remedy="Nothing was changed. Ask again which messages are known.",
                slice=str(batch.slice),
                uuids=taken,
            ) from error

    def _record(self, connection: psycopg.Connection, batch: Batch) -> None:
        """The ledger row before all others: whoever has an overlapping slice waits there, and is refused before any work."""
        where = batch.slice
        epoch = batch.proven_epoch
        # The log is still proven under the batch's epoch, and stays: whoever would prove it anew waits.
        if epoch is not None and connection.execute(PROVEN, where.partition_log).fetchone() != (epoch,):
            raise ProofChangedError(
                f"{self._server}: {where} was read of a log that is not the one which is proven now.",
                remedy="Nothing was changed. Plan again: that proves the log first.",
                slice=str(where),
            )
        counts = (len(batch.rows), len(batch.duplicates), batch.absent, batch.size_bytes)
        values = (*where.partition_log, where.start, where.stop, batch.outcome.value, batch.reason, *counts)
        number = connection.execute(ADD_BATCH, (*values, *batch.ends_ms, batch.run_id)).fetchone()
        if number is None:
            raise self._taken(connection, batch)
        if batch.duplicates:
            self._hold_referred(connection, batch)
        add(connection, batch, *number)

    def _hold_referred(self, connection: psycopg.Connection, batch: Batch) -> None:
        """See that what the duplicates repeat is there, and stays: whoever would take it away waits, and finds them."""
        referred = batch.referred()
        connection.execute(REFERRING)
        held = {row[0] for row in connection.execute(REFERRED, [list(referred)])} if referred else set()
        if gone := sorted(map(str, referred - held)):
            raise StaleDecisionError(
                f"{self._server}: what messages of {batch.slice} repeat was taken away meanwhile: {', '.join(gone[:10])}.",
                remedy="Nothing was changed. Ask again which messages are known.",
                slice=str(batch.slice),
                uuids=gone[:10],
            )

    def _taken(self, connection: psycopg.Connection, batch: Batch) -> SliceTakenError:
        where = batch.slice
        held = connection.execute(HOLDERS, [*where.partition_log, where.start, where.stop]).fetchall()
        holders = [
            {"batch": row[0], "start": row[1], "stop": row[2], "outcome": row[3], "run_id": row[4],
             "created_at": row[5].isoformat()}
            for row in held
        ]  # fmt: skip
        by = "; ".join(
            f"batch {h['batch']} [{h['start']}, {h['stop']}) of run {h['run_id'] or '?'}" for h in holders
        )
        return SliceTakenError(
            f"{self._server}: {where} is in the ledger already, all or in part: {by}.",
            remedy="Nothing was changed. Plan again from the coverage.",
            slice=str(where),
            holders=holders,
        )
