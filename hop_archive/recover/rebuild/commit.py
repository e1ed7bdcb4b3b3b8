"""Batches into a catalog that may have some of them."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import UNKNOWN_CLUSTER, UNPROVEN, Batch, Duplicate, Row
from hop_archive.errors import ConflictError, DataError, SliceTakenError, StaleDecisionError
from hop_archive.ingest.decide import Decided
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.identity import Identity
from hop_archive.model.keys import slice_of
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.slices import OffsetSet, PartitionLog

COPY = "same UUID and digest"
"""Why a message is a duplicate: what archiving says of such."""

_MOST_GENERATIONS = 1_000
_ATTEMPTS = 5


class Committer:
    """Puts batches of one topic into a catalog, whatever it has of them; counts ``added``, ``covered`` and ``duplicates``.

    What is added may be of a topic of before that had this name, and the catalog that is rebuilt may have given its number to the
    topic of now. So each log to which anything is added is yet to be proven: the next plan compares its end with what Kafka
    holds before anything more is read, and begins another generation where that is something else.
    """

    def __init__(self, catalog: Catalog, topic: str, bucket: str, run_id: str, progress: Progress) -> None:
        self._catalog = catalog
        self._topic = topic
        self._bucket = bucket
        self._run_id = run_id
        self._counts = progress.counts
        self._added_to: set[PartitionLog] = set()

    def doubt(self, partition_log: PartitionLog) -> None:
        """Before something is added to a log: it is yet to be proven."""
        if partition_log not in self._added_to:
            self._added_to.add(partition_log)
            self._catalog.note_proven({partition_log: UNPROVEN})

    def doubt_again(self) -> None:
        """After all is added: a plan may have proven a log meanwhile, by what was there by then."""
        self._catalog.note_proven(dict.fromkeys(self._added_to, UNPROVEN))

    def know_generation(self, number: int) -> None:
        """Before any row of it: whoever archives meanwhile must not take this number for what Kafka has now."""
        known = self._catalog.generations([self._topic]).get(self._topic, ())
        if all(one.number != number for one in known):
            reason = "rebuilt from the store, which does not say where it came from"
            self._catalog.begin_generation(self._topic, number, UNKNOWN_CLUSTER, None, reason)

    def commit(self, batch: Batch) -> Iterator[Finding]:
        """At once where the catalog has nothing of it; else what it lacks."""
        self.doubt(batch.slice.partition_log)
        try:
            self._catalog.commit(batch)
        except (SliceTakenError, StaleDecisionError, DataError):  # the last one for rows whose ledger is gone
            pass
        else:
            self._counts["added"] += len(batch.rows)
            self._counts["covered"] += len(batch.slice)
            self._counts["duplicates"] += len(batch.duplicates)
            return
        for _ in range(_ATTEMPTS):
            settled, strangers = self._settled(batch)
            try:
                parts = without(settled, [offset_of(row) for row in strangers])
                refused = [row for part in parts for row in self.add(part)]
            except StaleDecisionError:
                continue
            for row in strangers:
                yield self.in_use(row)
            # Of what has no free place: what another generation of the topic is to have, and what was removed on purpose.
            for row in refused:
                assert row.generation is not None
                offset = offset_of(row)
                place = batch.slice.within(offset, offset + 1)
                if (second := self._second_object(row)) is not None:
                    yield second
                    continue
                if next(iter(self._catalog.select(Query(places=(place,)))), None) is None:
                    detail = "the ledger says that it was left out, or taken away on purpose"
                    yield self.finding(Kind.ORPHAN_OBJECT, row.object_key, detail, row.uuid)
                    continue
                for number in itertools.count(row.generation + 1):
                    assert number < _MOST_GENERATIONS
                    self.know_generation(number)
                    moved = replace(place, generation=number)
                    if not self.add(
                        Batch(moved, rows=[row._replace(generation=number)], run_id=self._run_id)
                    ):
                        break
            return
        raise ConflictError(
            f"Other writers were first with messages of {batch.slice} each time.",
            remedy="Run it again: what is done stays.",
            slice=str(batch.slice),
        )

    def add(self, batch: Batch) -> Sequence[Row]:
        """Reinstate a batch none of whose rows' UUIDs is elsewhere; the rows that found no place."""
        self.doubt(batch.slice.partition_log)
        done = self._catalog.reinstate(batch)
        self._counts["added"] += done.added
        self._counts["covered"] += done.covered
        return done.refused

    def _settled(self, batch: Batch) -> tuple[Batch, list[Row]]:
        """The batch by what the catalog has: rows that are copies of others as such; and those of a UUID in use."""
        decided = Decided()
        decided.learn(self._catalog.known([_identity(row) for row in batch.rows]))
        rows: list[Row] = []
        copies: list[Duplicate] = []
        strangers: list[Row] = []
        for row in batch.rows:
            copy = decided.copy_of(_identity(row))
            # Whether the message that holds the content is the one in the row's own place.
            held = self._catalog.find(copy.uuid) if copy is not None else None
            if copy is not None and held is not None and held[:4] != row[:4]:
                copies.append(Duplicate(offset_of(row), row.timestamp_ms, copy.uuid, COPY))
            elif copy is None and decided.holder(row.uuid) is not None:
                strangers.append(row)
            else:
                rows.append(row)
        duplicates = sorted([*batch.duplicates, *copies])
        kept = {row.uuid for row in rows}
        collisions = [collision for collision in batch.collisions if collision.archived_as in kept]
        return replace(batch, rows=rows, duplicates=duplicates, collisions=collisions), strangers

    def in_use(self, row: Row) -> Finding:
        """That a document has a UUID which is another message's; another object may have its message under one of its own."""
        if (second := self._second_object(row)) is not None:
            return second
        detail = "its UUID is in use by other content, and no document has it under one of its own"
        return self.finding(Kind.CORRUPT_OBJECT, row.object_key, detail, row.uuid)

    def _second_object(self, row: Row) -> Finding | None:
        """That the same message has a row in its place, under another UUID; None where it has not.

        Of the two one was archived where its publisher's UUID was in use, and the other where it was not: in a catalog begun anew.
        """
        assert row.slice is not None
        there = next(iter(self._catalog.select(Query(places=(row.slice,)))), None)
        if there is None or (there.digest, there.timestamp_ms) != (row.digest, row.timestamp_ms):
            return None
        detail = f"{there.object_key} holds the same message"
        return self.finding(Kind.ORPHAN_OBJECT, row.object_key, detail, row.uuid)

    def finding(self, kind: Kind, key: str, detail: str, message_uuid: uuid.UUID | None = None) -> Finding:
        """Something wrong with an object of the topic."""
        return Finding(kind, self._topic, detail, message_uuid, self._bucket, key, slice_of(key))


def without(batch: Batch, offsets: Collection[int]) -> list[Batch]:
    """The batch without some offsets: of these nothing is said."""
    if not offsets:
        return [batch]
    kept = batch.slice.offsets - OffsetSet.of((offset, offset + 1) for offset in offsets)
    return [
        replace(
            batch,
            slice=batch.slice.within(start, stop),
            rows=[row for row in batch.rows if start <= offset_of(row) < stop],
            duplicates=[copy for copy in batch.duplicates if start <= copy.offset < stop],
            collisions=[collision for collision in batch.collisions if start <= collision.offset < stop],
        )
        for start, stop in kept
    ]


def offset_of(row: Row) -> int:
    """The offset of a row that has one."""
    assert row.offset is not None
    return row.offset


def _identity(row: Row) -> Identity:
    assert row.digest is not None
    return Identity(row.uuid, row.is_client_uuid, row.topic, row.timestamp_ms, row.digest, row.message_crc32)
