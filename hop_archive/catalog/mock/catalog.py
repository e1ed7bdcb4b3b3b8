"""A catalog without a database: in memory, or in a directory that processes share. It keeps the whole contract."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence

from hop_archive.catalog.ledger import TEN_MINUTES, begin
from hop_archive.catalog.mock.claims import MockClaims
from hop_archive.catalog.mock.compaction import MockCompaction
from hop_archive.catalog.mock.generations import MockGenerations
from hop_archive.catalog.mock.ledger import MockLedger
from hop_archive.catalog.mock.repairs import MockRepairs
from hop_archive.catalog.mock.restores import MockRestores
from hop_archive.catalog.mock.row_jobs import MockRowJobs
from hop_archive.catalog.mock.rows import MockRows
from hop_archive.catalog.mock.session import Tables
from hop_archive.catalog.mock.verification import MockVerification
from hop_archive.catalog.records import Batch, LedgerEntry, Row
from hop_archive.catalog.refusals import decided_too_early, proof_changed, refuse_unlike, slice_taken
from hop_archive.model.conditions import TABLES, CatalogCondition
from hop_archive.model.identity import Identity, Known


class MockCatalog(
    MockClaims,
    MockCompaction,
    MockGenerations,
    MockLedger,
    MockRepairs,
    MockRestores,
    MockRowJobs,
    MockRows,
    MockVerification,
):
    """A catalog as good as the real one to everything that uses it, but for speed and for size.

    Args:
        name: The stanza's name, for messages.
        directory: Where it is kept, for other processes to share; None keeps it in memory.
        clock: Tells the time of commits (UTC).
    """

    def check(self) -> None:
        """Nothing can be wrong with it."""

    def close(self) -> None:
        """Nothing to let go of."""

    def condition(self) -> CatalogCondition:
        """This process's clock, and every right."""
        with self._state.read() as tables:
            was_adopted = bool(tables.adopted)
        every = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
        return CatalogCondition(
            at=datetime.datetime.now(datetime.UTC),
            version="",
            is_old=False,
            read_only=False,
            role="",
            rights=dict.fromkeys(TABLES, every),
            was_adopted=was_adopted,
        )

    def has_adopted(self, topic: str) -> bool:
        with self._state.read() as tables:
            return any(key[0] == topic for key in tables.adopted)

    def known(self, identities: Sequence[Identity]) -> Sequence[Known]:
        with self._state.read() as tables:
            found: dict[uuid.UUID, Known] = {}
            for identity in identities:
                key = (identity.topic, identity.timestamp_ms, identity.message_crc32)
                for candidate in (identity.uuid, *tables.adopted.get(key, ())):
                    if (row := tables.rows.get(candidate)) is not None:
                        content = (row.timestamp_ms, row.message_crc32, row.is_client_uuid, row.digest)
                        found[candidate] = Known(row.uuid, row.topic, *content)
            return list(found.values())

    def commit(self, *batches: Batch) -> None:
        batches = tuple(sorted(batches, key=lambda batch: batch.slice))
        with self._state.change() as tables:
            for batch in batches:
                self._refuse_untimely(
                    tables, batch, {row.uuid: row for other in batches for row in other.rows}
                )
            uuids = [row.uuid for batch in batches for row in batch.rows]
            taken = {found for found in uuids if found in tables.rows}
            if taken or len({*uuids}) < len(uuids):
                what = f"another writer catalogued messages of {batches[0].slice} meanwhile"
                raise decided_too_early(self._named, batches[0].slice, what, taken)
            now = self._clock()
            before = [
                entry
                for where in (batch.slice for batch in batches if batch.slice.start)
                for entry in tables.entries_in(where.within(where.start - 1, where.start))
            ]
            for batch in batches:
                counts = (len(batch.rows), len(batch.duplicates), batch.absent, batch.size_bytes)
                rest = (batch.run_id, now, *batch.ends_ms)
                tables.put(LedgerEntry(batch.slice, batch.outcome, batch.reason, *counts, *rest))
                tables.add(batch)
        for entry in before:
            if entry.created_at < begin(now, TEN_MINUTES):
                self.tidy(entry.slice.partition_log, now)

    def _refuse_untimely(self, tables: Tables, batch: Batch, new: Mapping[uuid.UUID, Row]) -> None:
        """Raise where something changed since a batch was made; ``new``: the rows that are committed with it."""
        where = batch.slice
        known = tables.observed.get(where.partition_log)
        if batch.proven_epoch not in (None, known.leader_epoch if known else None):
            raise proof_changed(self._named, where)
        holders = [
            {"start": e.slice.start, "stop": e.slice.stop, "outcome": e.outcome.value, "run_id": e.run_id,
             "created_at": e.created_at.isoformat()}
            for e in tables.entries_in(where)
        ]  # fmt: skip
        if holders:
            raise slice_taken(self._named, where, holders)
        referred = {own: row for own in batch.referred() if (row := tables.rows.get(own) or new.get(own))}
        refuse_unlike(self._named, batch, {own: (row.topic, row.digest) for own, row in referred.items()})
