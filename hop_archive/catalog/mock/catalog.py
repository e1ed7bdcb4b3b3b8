"""A catalog without a database: in memory, or in a directory that processes share. It keeps the whole contract."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence

from hop_archive.catalog.mock.generations import MockGenerations
from hop_archive.catalog.mock.ledger import MockLedger
from hop_archive.catalog.mock.rebuilding import MockRebuilding
from hop_archive.catalog.mock.removals import MockRemovals
from hop_archive.catalog.mock.repairs import MockRepairs
from hop_archive.catalog.mock.restores import MockRestores
from hop_archive.catalog.mock.rows import MockRows
from hop_archive.catalog.mock.session import Dealt, Tables
from hop_archive.catalog.mock.verification import MockVerification
from hop_archive.catalog.records import Batch, LedgerEntry
from hop_archive.errors import ProofChangedError, SliceTakenError, StaleDecisionError
from hop_archive.model.conditions import TABLES, CatalogCondition
from hop_archive.model.identity import Identity, Known


class MockCatalog(
    MockGenerations,
    MockLedger,
    MockRebuilding,
    MockRemovals,
    MockRepairs,
    MockRestores,
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
        every = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
        return CatalogCondition(
            at=datetime.datetime.now(datetime.UTC),
            version="",
            is_old=False,
            read_only=False,
            role="",
            rights=dict.fromkeys(TABLES, every),
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

    def commit(self, batch: Batch) -> None:
        where, at = batch.slice, batch.slice.partition_log
        with self._state.change() as tables:
            known = tables.observed.get(at)
            if batch.proven_epoch not in (None, known.leader_epoch if known else None):
                raise ProofChangedError(
                    f"{self._named}: {where} was read of a log that is not the one which is proven now.",
                    remedy="Nothing was changed. Plan again: that proves the log first.",
                    slice=str(where),
                )
            holders = [
                {"start": e.slice.start, "stop": e.slice.stop, "outcome": e.outcome.value, "run_id": e.run_id,
                 "created_at": e.created_at.isoformat()}
                for e in tables.entries_in(where)
            ]  # fmt: skip
            if holders:
                raise SliceTakenError(
                    f"{self._named}: {where} is in the ledger already, all or in part.",
                    remedy="Nothing was changed. Plan again from the coverage.",
                    slice=str(where),
                    holders=holders,
                )
            self._refuse_stale(tables, batch)
            counts = (len(batch.rows), len(batch.duplicates), batch.absent, batch.size_bytes)
            entry = LedgerEntry(where, batch.outcome, batch.reason, *counts, batch.run_id, self._clock())
            tables.ledger.setdefault(at, []).append(Dealt(entry, *batch.ends_ms))
            tables.rows.update((row.uuid, row) for row in batch.rows)
            tables.duplicates.setdefault(at, []).extend(batch.duplicates)
            tables.collisions.setdefault(at, []).extend(batch.collisions)

    def _refuse_stale(self, tables: Tables, batch: Batch) -> None:
        uuids = [row.uuid for row in batch.rows]
        taken = sorted({str(found) for found in uuids if found in tables.rows})
        if taken or len(set(uuids)) < len(uuids):
            raise StaleDecisionError(
                f"{self._named}: another writer catalogued messages of {batch.slice} meanwhile: {', '.join(taken)}.",
                remedy="Nothing was changed. Ask again which messages are known.",
                slice=str(batch.slice),
                uuids=taken,
            )
        gone = sorted(str(referred) for referred in batch.referred() if referred not in tables.rows)
        if gone:
            raise StaleDecisionError(
                f"{self._named}: what messages of {batch.slice} repeat was taken away meanwhile: {', '.join(gone)}.",
                remedy="Nothing was changed. Ask again which messages are known.",
                slice=str(batch.slice),
                uuids=gone,
            )
