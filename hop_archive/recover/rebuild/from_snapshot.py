"""A catalog from a snapshot of it: rows, ledger, duplicates and generations, as they were when it was taken."""

from __future__ import annotations

import datetime
import itertools
import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from hop_archive.catalog.records import (
    COLUMNS,
    LATER_COLUMNS,
    UNKNOWN_CLUSTER,
    Batch,
    Collision,
    Duplicate,
    LedgerEntry,
    Outcome,
    Row,
    Snapshot,
)
from hop_archive.errors import ConfigurationError, ConflictError, CorruptError, SliceTakenError
from hop_archive.model.findings import Finding
from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive.model.watermarks import Watermarks
from hop_archive.model.wording import said
from hop_archive.read.catalog_snapshot import latest, meant
from hop_archive.read.parquet import DUPLICATES, LEDGER, MESSAGES, ledger_entry, sha256
from hop_archive.read.snapshot_locations import SnapshotLocation
from hop_archive.recover.rebuild.commit import Committer
from hop_archive.recover.rebuild.cut import cut
from hop_archive.recover.rebuild.rebuild import Rebuild
from hop_archive.recover.rebuild.spill import usable

Made = TypeVar("Made")

_PORTION = 2_000

_SCHEMAS = {"messages": MESSAGES, "ledger": LEDGER, "duplicates": DUPLICATES}
_MAY_LACK = LATER_COLUMNS | {"generation", "partition", "offset", "timestamp_type", "digest", "position"}
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

    A manifest, or what it says of a topic, that is not as it was written is not believed (see ``snapshot_manifest``).
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
    # How topics, of those wanted, and groups were set up; what the catalog has that is newer stays.
    setups: dict[str, list[Snapshot]] = {}
    for setup in manifest.setups:
        if setup["kind"] == "group" or meant(setup["name"], wanted.topics):
            taken_at = datetime.datetime.fromisoformat(setup["taken_at"])
            kept = Snapshot(setup["cluster_id"], setup["kind"], setup["name"], setup["content"], taken_at)
            setups.setdefault(kept.cluster_id, []).append(kept)
    for cluster_id, snapshots in setups.items():
        for first in range(0, len(snapshots), _PORTION):
            wanted.catalog.keep_snapshots(cluster_id, snapshots[first : first + _PORTION])
    for topic, why in sorted(manifest.damaged.items()):
        if meant(topic, wanted.topics):
            with wanted.failures.of(topic, wanted.all_answer):
                raise _not_believed(location, why)
    is_begun = bool(wanted.catalog.topics())
    for topic, told in sorted(manifest.topics.items()):
        if meant(topic, wanted.topics):
            wanted.progress.topic = topic
            if wanted.work_dir is not None:
                wanted.work_dir.mkdir(parents=True, exist_ok=True)
            folder = TemporaryDirectory(prefix="hop_archive-snapshot-", dir=wanted.work_dir)
            with wanted.failures.of(topic, wanted.all_answer), folder as scratch, usable(Path(scratch)):
                coming = _TopicFromSnapshot(wanted, topic, told, location, Path(scratch), is_begun=is_begun)
                yield from coming.run()
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
    return CorruptError(f"The newest manifest in {location} is not believed: {why}.", remedy=_ANOTHER)


class _TopicFromSnapshot:
    """One topic on its way back."""

    def __init__(
        self,
        wanted: Rebuild,
        topic: str,
        told: Mapping[str, Any],
        location: SnapshotLocation,
        scratch: Path,
        *,
        is_begun: bool,
    ) -> None:
        self._wanted = wanted
        self._topic = topic
        self._told = told
        self._location = location
        self._scratch = scratch
        self._is_begun = is_begun  # whether the catalog had rows before the snapshot was taken in, of this topic or another
        self._to = Committer(wanted.catalog, topic, wanted.store.bucket, wanted.run_id, wanted.progress)

    def run(self) -> Iterator[Finding]:
        catalog, topic = self._wanted.catalog, self._topic
        with closing(sqlite3.connect(self._scratch / "rows", isolation_level=None)) as self._connection:
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.executescript(_TABLES)
            self._refuse_another_topic()
            # Sort rows and copies by place, in the file; rows of other archivers, which have none, go at once.
            self._connection.execute("BEGIN")
            found = self._read("messages", lambda cells: (self._row(cells), cells))
            while some := list(itertools.islice(found, _PORTION)):
                if self._is_begun:
                    self._refuse_contradiction([row for row, _ in some])
                for row, cells in some:
                    if row.offset is not None:
                        values = (
                            row.generation,
                            row.partition,
                            row.offset,
                            json.dumps(cells, default=_as_text),
                        )
                        self._connection.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", values)
            for known in self._told["generations"]:
                origin = (known["cluster_id"], known["topic_id"], known["reason"])
                catalog.begin_generation(topic, known["number"], *origin)
            observed = catalog.observed([topic])
            then = {
                PartitionLog(topic, generation, partition): Watermarks(*marks)
                for generation, partition, *marks in self._told.get("observed", ())
            }
            catalog.observe({at: marks for at, marks in then.items() if at not in observed})
            adopted = (row for row in self._read("messages", self._row) if row.offset is None)
            while rows := list(itertools.islice(adopted, _PORTION)):
                self._wanted.progress.counts["added"] += catalog.adopt(rows)
            for copy, cells in self._read("duplicates", lambda cells: (_copy(cells["offset"], cells), cells)):
                values = (
                    cells["generation"],
                    cells["partition"],
                    copy.offset,
                    json.dumps(cells, default=_as_text),
                )
                self._connection.execute("INSERT INTO copies VALUES (?, ?, ?, ?)", values)
            self._connection.execute("COMMIT")
            for entry in self._read("ledger", lambda cells: ledger_entry(topic, cells)):
                if entry.outcome is Outcome.ARCHIVED:
                    yield from self._commit(entry)
                    continue
                # What was lost, skipped or pruned, unless the catalog knows more of it by now.
                self._to.doubt(entry.slice.partition_log)
                with suppress(SliceTakenError):
                    catalog.commit(Batch(entry.slice, entry.outcome, entry.reason, run_id=entry.run_id))
        self._to.doubt_again()
        catalog.recount(topic)

    def _refuse_another_topic(self) -> None:
        """Raise where the catalog has given a generation's number to another topic of this name than the snapshot.

        Raises:
            ConflictError: It has: what the snapshot says would be said of that one.
        """
        there = {g.number: g for g in self._wanted.catalog.generations([self._topic]).get(self._topic, ())}
        for told in self._told["generations"]:
            number, origin = told["number"], (told["cluster_id"], told["topic_id"])
            known = there.get(number)
            if (
                known is not None
                and UNKNOWN_CLUSTER not in (known.cluster_id, told["cluster_id"])
                and (known.cluster_id, known.topic_id) != origin
            ):
                raise self._began_before(
                    f"Generation {number} of {self._topic} is topic {origin[1]} of cluster {origin[0]} in the snapshot in "
                    f"{self._location}, and topic {known.topic_id} of cluster {known.cluster_id} in database "
                    f"{self._wanted.catalog.name}",
                    "; or rebuild this topic from the store alone",
                )

    def _refuse_contradiction(self, rows: Sequence[Row]) -> None:
        """Raise where the catalog says other things of the messages of these UUIDs than the snapshot.

        Raises:
            ConflictError: Other content has one of the UUIDs: the message would get no row, and that content perhaps a second
                one. Or a message is in another generation of the same topic: the log would be said to hold what is of another.
        """
        catalog, topic = self._wanted.catalog, self._topic
        held = {row.uuid: row for row in catalog.select(Query(uuids=tuple(row.uuid for row in rows)))}
        renumbered = {
            (told["number"], known.number)
            for told in self._told["generations"]
            for known in catalog.generations([topic]).get(topic, ())
            if (told["cluster_id"], told["topic_id"]) == (known.cluster_id, known.topic_id)
            and known.cluster_id != UNKNOWN_CLUSTER
            and told["number"] != known.number
        }
        for row, there in ((row, held[row.uuid]) for row in rows if row.uuid in held):
            if not _is_same(row, there):
                raise self._began_before(
                    f"UUID {row.uuid} is that of {_place(row)} in the snapshot in {self._location}, and of other content, "
                    f"{_place(there)}, in database {catalog.name}"
                )
            if (row.generation, there.generation) in renumbered:
                raise self._began_before(
                    f"What is generation {row.generation} of {topic} in the snapshot in {self._location} is generation "
                    f"{there.generation} in database {catalog.name}"
                )

    def _began_before(self, what: str, otherwise: str = "") -> ConflictError:
        return ConflictError(
            f"{what}: archiving began before the snapshot was taken in. The topic was left as it is.",
            remedy=f"Stop archiving, and take the snapshot into an empty database{otherwise}.",
            topic=self._topic,
        )

    def _commit(self, entry: LedgerEntry) -> Iterator[Finding]:
        whole = entry.slice
        claims, items = [(whole.start, whole.stop)], self._sorted("rows", whole)
        for start, stop, rows in cut(claims, items, self._wanted.most_rows):
            where = whole.within(start, stop)
            copies = [_copy(offset, cells) for offset, cells in self._sorted("copies", where)]
            taken = {offset for offset, _ in rows}
            with _believing(f"What is told of {where}", self._location):
                batch = Batch(
                    where,
                    rows=[
                        self._row({**cells, "digest": None if digest is None else bytes.fromhex(digest)})
                        for _, cells in rows
                        for digest in [cells["digest"]]
                    ],
                    duplicates=[copy for copy in copies if copy.offset not in taken],
                    collisions=[
                        Collision(offset, uuid.UUID(client), uuid.UUID(archived_as))
                        for generation, partition, offset, client, archived_as in self._told["collisions"]
                        if (generation, partition) == (where.generation, where.partition)
                        and start <= offset < stop
                    ],
                    run_id=entry.run_id,
                )
            yield from self._to.commit(batch)

    def _sorted(self, table: str, place: Slice) -> Iterator[tuple[int, Any]]:
        """Offset and cells of what stands in a slice, by offset."""
        found = self._connection.cursor().execute(
            f'SELECT "offset", cells FROM {table} WHERE {_WITHIN}',  # noqa: S608 (a name of ours)
            (place.generation, place.partition, place.start, place.stop),
        )
        return ((offset, json.loads(cells)) for offset, cells in found)

    def _row(self, cells: Mapping[str, Any]) -> Row:
        if len({cells[name] is None for name in ("generation", "partition", "offset")}) > 1:
            raise ValueError(f"the row of {cells['uuid']} has half a place")
        named = {
            **dict.fromkeys(LATER_COLUMNS),
            **cells,
            "topic": self._topic,
            "uuid": uuid.UUID(str(cells["uuid"])),
        }
        return Row.of_cells([named[name] for name in COLUMNS])

    def _read(self, kind: str, made: Callable[[dict[str, Any]], Made]) -> Iterator[Made]:
        """What is made of the rows of every file of a kind, some thousand at a time, once each file is known to be whole."""
        schema, may_lack = _SCHEMAS[kind], _MAY_LACK if kind == "messages" else frozenset()
        for told in self._told["files"]:
            if told["kind"] != kind:
                continue
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
                found = file.schema_arrow
                # Of time, which says nothing that timestamp does not, nothing is read; UUIDs were text until 2026-11.
                names = [name for name in schema.names if name != "time"]
                names = [name for name in names if name in found.names or name not in LATER_COLUMNS]
                for name in names:
                    column_type = schema.field(name).type
                    taken = {column_type, pa.string()} if name == "uuid" else {column_type}
                    if name not in found.names or found.field(name).type not in taken:
                        raise ValueError(f"it has no column {name} of type {column_type}")
                for batch in file.iter_batches(_PORTION, columns=names):
                    for name in names:
                        if name not in may_lack and batch.column(name).null_count:
                            raise ValueError(f"a row has no {name}")
                    yield from map(made, batch.to_pylist())


def _is_same(row: Row, there: Row) -> bool:
    """Whether two rows of one UUID are of the same message; those of another archiver have no digest."""
    if row.digest is None or there.digest is None:
        one, other = ((r.topic, r.timestamp_ms, r.message_crc32) for r in (row, there))
        return one == other
    return (row.topic, row.digest) == (there.topic, there.digest)


def _place(row: Row) -> str:
    return str(row.slice) if row.slice is not None else f"a message of {row.topic} of another archiver's"


def _as_text(value: bytes | uuid.UUID) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _copy(offset: int, cells: Mapping[str, Any]) -> Duplicate:
    return Duplicate(offset, cells["timestamp"], uuid.UUID(str(cells["uuid"])), cells["reason"])
