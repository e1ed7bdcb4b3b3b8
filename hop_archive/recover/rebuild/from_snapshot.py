"""A catalog from a snapshot of it: rows, ledger, duplicates and generations, as they were when it was taken."""

from __future__ import annotations

import datetime
import itertools
import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from hop_archive.catalog.records import (
    COLUMNS,
    Batch,
    Collision,
    Duplicate,
    LedgerEntry,
    Outcome,
    Row,
    Snapshot,
)
from hop_archive.errors import ConfigurationError, CorruptError, SliceTakenError
from hop_archive.model.findings import Finding
from hop_archive.model.slices import PartitionLog
from hop_archive.model.watermarks import Watermarks
from hop_archive.model.wording import said
from hop_archive.read.catalog_snapshot import latest, meant
from hop_archive.read.parquet import DUPLICATES, LEDGER, MESSAGES, ledger_entry, sha256
from hop_archive.read.snapshot_locations import SnapshotLocation
from hop_archive.read.snapshot_manifest import Manifest
from hop_archive.recover.rebuild.commit import Committer
from hop_archive.recover.rebuild.cut import cut
from hop_archive.recover.rebuild.rebuild import Rebuild
from hop_archive.recover.rebuild.spill import usable

Made = TypeVar("Made")

_PORTION = 2_000

_SCHEMAS = {"messages": MESSAGES, "ledger": LEDGER, "duplicates": DUPLICATES}
_MAY_LACK = frozenset({"generation", "partition", "offset", "timestamp_type", "digest", "position"})
"""Columns of messages that have no value where another archiver wrote the row, or one document is an object."""

_TABLES = """
    CREATE TABLE rows (generation INTEGER, partition INTEGER, "offset" INTEGER, cells TEXT NOT NULL);
    CREATE TABLE copies (generation INTEGER, partition INTEGER, "offset" INTEGER, cells TEXT NOT NULL);
    CREATE INDEX rows_place ON rows (generation, partition, "offset");
    CREATE INDEX copies_place ON copies (generation, partition, "offset");
"""
_ANOTHER = "Take an older snapshot, or rebuild from the store alone."
_WITHIN = 'generation = ? AND partition = ? AND "offset" >= ? AND "offset" < ? ORDER BY "offset"'


def take_in(wanted: Rebuild, location: SnapshotLocation) -> Iterator[Finding]:
    """Add to the catalog what the newest snapshot in a location says and it lacks.

    When ledger rows were made, and when generations were first seen, is not kept: it is the time of this. Running it
    again, after it was killed for instance, does what is left.

    A manifest, or what it says of a topic, that is not as it was written is not believed (see ``catalog_manifest``).
    A topic that cannot be taken in does not stop the others; it is told, and is in ``Rebuild.failures``, once these are done.

    Raises:
        ConfigurationError: There is no snapshot.
        CorruptError: The manifest, or a file, is not as it was written; what came before it of its topic is in the catalog.
        UnavailableError: The database, or the store, does not answer.
    """
    manifest = latest(location)
    if manifest is None:
        raise ConfigurationError(
            f"There is no catalog snapshot in {location}.", remedy="Name another folder."
        )
    if manifest.problem and not manifest.topics:
        raise _not_believed(location, manifest.problem)
    _keep_setups(wanted, manifest)
    for topic, why in sorted(manifest.damaged.items()):
        if meant(topic, wanted.topics):
            with wanted.failures.of(topic, wanted.all_answer):
                raise _not_believed(location, why)
    for topic, told in sorted(manifest.topics.items()):
        if meant(topic, wanted.topics):
            wanted.progress.topic = topic
            if wanted.work_dir is not None:
                wanted.work_dir.mkdir(parents=True, exist_ok=True)
            folder = TemporaryDirectory(prefix="hop_archive-snapshot-", dir=wanted.work_dir)
            with wanted.failures.of(topic, wanted.all_answer), folder as scratch, usable(Path(scratch)):
                yield from _TopicFromSnapshot(wanted, topic, told, location, Path(scratch)).run()
            wanted.notice(wanted.progress)
    if manifest.problem:
        wanted.failures.besides = CorruptError(
            f"The newest manifest in {location}: {manifest.problem}. What proved itself in it was taken in.",
            remedy="Make another snapshot (hop-archive catalog-snapshot), once what the store has is in the catalog.",
        )
    wanted.failures.raise_any()


@contextmanager
def _believing(what: str, location: SnapshotLocation) -> Iterator[None]:
    """Make something of what a snapshot says.

    A file that is as it was written may still say what cannot be: written by a machine whose memory was bad, say. What
    readers of Parquet raise then is of many kinds, none of which is a fault of this program.

    Raises:
        CorruptError: It cannot be.
    """
    try:
        yield
    except (ArithmeticError, LookupError, OSError, TypeError, ValueError, pa.ArrowException) as error:
        raise CorruptError(
            f"{what} in {location} cannot be what was taken: {said(error) or type(error).__name__}.",
            remedy=_ANOTHER,
        ) from error


def _not_believed(location: SnapshotLocation, why: str) -> CorruptError:
    return CorruptError(
        f"The newest manifest in {location} is not believed: {why}.",
        remedy=_ANOTHER,
    )


def _keep_setups(wanted: Rebuild, manifest: Manifest) -> None:
    """Keep how the source's topics, of those wanted, and groups were set up; what the catalog has that is newer stays."""
    by_cluster: dict[str, list[Snapshot]] = {}
    for one in manifest.setups:
        if one["kind"] == "topic" and not meant(one["name"], wanted.topics):
            continue
        taken_at = datetime.datetime.fromisoformat(one["taken_at"])
        kept = Snapshot(one["cluster_id"], one["kind"], one["name"], one["content"], taken_at)
        by_cluster.setdefault(kept.cluster_id, []).append(kept)
    for cluster_id, snapshots in by_cluster.items():
        for first in range(0, len(snapshots), _PORTION):
            wanted.catalog.keep_snapshots(cluster_id, snapshots[first : first + _PORTION])


class _TopicFromSnapshot:
    """One topic on its way back."""

    def __init__(
        self, wanted: Rebuild, topic: str, told: Mapping[str, Any], location: SnapshotLocation, scratch: Path
    ) -> None:
        self._wanted = wanted
        self._topic = topic
        self._told = told
        self._location = location
        self._scratch = scratch
        self._to = Committer(wanted.catalog, topic, wanted.store.bucket, wanted.run_id, wanted.progress)

    def run(self) -> Iterator[Finding]:
        self._connection = sqlite3.connect(self._scratch / "rows", isolation_level=None)
        try:
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.executescript(_TABLES)
            self._generations()
            self._connection.execute("BEGIN")
            self._gather()
            self._connection.execute("COMMIT")
            for entry in self._entries():
                yield from self._commit(entry)
        finally:
            self._connection.close()
        self._wanted.catalog.recount(self._topic)

    def _generations(self) -> None:
        for one in self._told["generations"]:
            self._wanted.catalog.begin_generation(
                self._topic, one["number"], one["cluster_id"], one["topic_id"], one["reason"]
            )
        known = self._wanted.catalog.observed([self._topic])
        then = {
            PartitionLog(self._topic, generation, partition): Watermarks(*marks)
            for generation, partition, *marks in self._told.get("observed", ())
        }
        self._wanted.catalog.observe({at: marks for at, marks in then.items() if at not in known})

    def _gather(self) -> None:
        """Sort rows and copies by place, in a file; rows of other archivers, which have none, go at once."""
        for row, cells in self._read("messages", lambda cells: (self._row(cells), cells)):
            if row.offset is None:
                continue
            values = (row.generation, row.partition, row.offset, json.dumps(_plain(cells)))
            self._connection.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", values)
        adopted = (row for row in self._read("messages", self._row) if row.offset is None)
        while some := list(itertools.islice(adopted, _PORTION)):
            self._wanted.progress.counts["added"] += self._wanted.catalog.adopt(some)
        for copy, cells in self._read("duplicates", lambda cells: (_copy(cells["offset"], cells), cells)):
            place = (cells["generation"], cells["partition"], copy.offset)
            self._connection.execute("INSERT INTO copies VALUES (?, ?, ?, ?)", (*place, json.dumps(cells)))

    def _entries(self) -> Iterator[LedgerEntry]:
        return self._read("ledger", lambda cells: ledger_entry(self._topic, cells))

    def _commit(self, entry: LedgerEntry) -> Iterator[Finding]:
        if entry.outcome is not Outcome.ARCHIVED:
            yield from self._commit_other(entry)
            return
        s = entry.slice
        items = self._within("rows", entry)
        for start, stop, rows in cut([(s.start, s.stop)], items, self._wanted.most_rows):
            where = s.within(start, stop)
            found = self._between("copies", (s.generation, s.partition, start, stop))
            copies = [_copy(offset, cells) for offset, cells in found]
            taken = {offset for offset, _ in rows}
            with _believing(f"What is told of {where}", self._location):
                batch = Batch(
                    where,
                    rows=[self._row(_unplain(cells)) for _, cells in rows],
                    duplicates=[one for one in copies if one.offset not in taken],
                    collisions=self._collisions(entry, start, stop),
                    run_id=entry.run_id,
                )
            yield from self._to.commit(batch)

    def _commit_other(self, entry: LedgerEntry) -> Iterator[Finding]:
        """What was lost, skipped or pruned, unless the catalog knows more of it by now."""
        try:
            self._wanted.catalog.commit(Batch(entry.slice, entry.outcome, entry.reason, run_id=entry.run_id))
        except SliceTakenError:
            return
        yield from ()

    def _collisions(self, entry: LedgerEntry, start: int, stop: int) -> list[Collision]:
        at = (entry.slice.generation, entry.slice.partition)
        return [
            Collision(offset, uuid.UUID(client), uuid.UUID(own))
            for generation, partition, offset, client, own in self._told["collisions"]
            if (generation, partition) == at and start <= offset < stop
        ]

    def _within(self, table: str, entry: LedgerEntry) -> Iterator[tuple[int, Any]]:
        s = entry.slice
        return self._between(table, (s.generation, s.partition, s.start, s.stop))

    def _between(self, table: str, bounds: Sequence[int]) -> Iterator[tuple[int, Any]]:
        found = self._connection.cursor().execute(
            f'SELECT "offset", cells FROM {table} WHERE {_WITHIN}',  # noqa: S608 (a name of ours)
            bounds,
        )
        return ((offset, json.loads(cells)) for offset, cells in found)

    def _row(self, cells: Mapping[str, Any]) -> Row:
        return _row(self._topic, cells)

    def _read(self, kind: str, made: Callable[[dict[str, Any]], Made]) -> Iterator[Made]:
        """What is made of the rows of every file of a kind, some thousand at a time, once each file is known to be whole."""
        for told in self._told["files"]:
            if told["kind"] == kind:
                path = self._location.fetch(told["path"], self._scratch)
                if not path.is_file() or sha256(path) != told["sha256"]:
                    raise CorruptError(
                        f"{told['path']} in {self._location} is not there, or not as it was written.",
                        remedy=_ANOTHER,
                        path=told["path"],
                    )
                with (
                    _believing(told["path"], self._location),
                    path.open("rb") as opened,
                    pq.ParquetFile(opened) as file,
                ):
                    _refuse_other_columns(file.schema_arrow, _SCHEMAS[kind])
                    for batch in file.iter_batches(_PORTION):
                        _refuse_gaps(batch, kind)
                        yield from map(made, batch.to_pylist())


def _refuse_other_columns(found: pa.Schema, wanted: pa.Schema) -> None:
    for column in wanted:
        if column.name not in found.names or found.field(column.name).type != column.type:
            raise ValueError(f"it has no column {column.name} of type {column.type}")


def _refuse_gaps(batch: pa.RecordBatch, kind: str) -> None:
    may_lack = _MAY_LACK if kind == "messages" else frozenset()
    for name in _SCHEMAS[kind].names:
        if name not in may_lack and batch.column(name).null_count:
            raise ValueError(f"a row has no {name}")


def _copy(offset: int, cells: Mapping[str, Any]) -> Duplicate:
    return Duplicate(offset, cells["timestamp"], uuid.UUID(cells["uuid"]), cells["reason"])


def _plain(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Cells as JSON can hold them."""
    return {**cells, "digest": None if cells["digest"] is None else cells["digest"].hex()}


def _unplain(cells: Mapping[str, Any]) -> dict[str, Any]:
    return {**cells, "digest": None if cells["digest"] is None else bytes.fromhex(cells["digest"])}


def _row(topic: str, cells: Mapping[str, Any]) -> Row:
    if len({cells[name] is None for name in ("generation", "partition", "offset")}) > 1:
        raise ValueError(f"the row of {cells['uuid']} has half a place")
    named = {**cells, "topic": topic, "uuid": uuid.UUID(cells["uuid"])}
    return Row.of_cells([named[name] for name in COLUMNS])
