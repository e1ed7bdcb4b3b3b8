"""A snapshot of the catalog as Parquet, by topic and month: for reading, and for making the catalog again from it.

It grows: a snapshot writes what came since the one before, and a manifest that names every file that counts, old and
new. Files are never changed, and the manifest comes last, so a snapshot that was killed leaves the one before whole.

What changed in rows that were written before is seen by the ledger's numbers and by what was taken back; a row that was
moved to another object or whose content was removed is not. Topics are therefore written anew from time to time.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Generation, LedgerEntry, Outcome, Row
from hop_archive.errors import CorruptError
from hop_archive.model.document import utc_month
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.topics import matches
from hop_archive.read.export import SCHEMA, cells_of
from hop_archive.read.snapshot_locations import SnapshotLocation
from hop_archive.read.snapshot_manifest import FORMAT, Manifest, read, sealed

log = logging.getLogger(__name__)

WHOLE_AFTER_DAYS = 30.0
"""After so long a topic is written anew, changed or not."""

MESSAGES = pa.schema([field for field in SCHEMA if field.name not in ("topic", "file", "file_position")])
"""The columns of ``messages``; topic and month are in the folders' names."""
LEDGER = pa.schema(
    [
        ("generation", pa.int32()),
        ("partition", pa.int32()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("archived", pa.int64()),
        ("duplicates", pa.int64()),
        ("absent", pa.int64()),
        ("bytes", pa.int64()),
        ("run_id", pa.string()),
        ("created_at", pa.timestamp("us", tz="UTC")),
    ]
)
DUPLICATES = pa.schema(
    [
        ("generation", pa.int32()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.int64()),
        ("uuid", pa.string()),
        ("reason", pa.string()),
    ]
)

_FILE_ROWS = 50_000
"""Rows in one file: some MB."""
_HELD_ROWS = 100_000
"""Rows held while files fill, of all months together."""


@dataclass(frozen=True, slots=True)
class CatalogSnapshot:
    """What to write, and where to.

    Attributes:
        catalog: Of what.
        location: Where to: a folder, or a store.
        topics: Names or globs; empty: all. Others stay in the manifest as they were.
        full: Whether to write all topics anew.
        whole_after_days: After how long a topic is written anew in any case.
        now: The clock on the wall.
        progress: Where to count ``topics`` looked at, topics ``written``, ``rows`` and ``files``.
        notice: Called now and then.
    """

    catalog: Catalog
    location: SnapshotLocation
    topics: tuple[str, ...] = ()
    full: bool = False
    whole_after_days: float = WHOLE_AFTER_DAYS
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)
    progress: Progress = field(default_factory=Progress)
    notice: Callable[[Progress], None] = lambda _: None


def snapshot(wanted: CatalogSnapshot) -> dict[str, Any]:
    """Write what the location lacks, and the manifest last. Again, with nothing new, it writes nothing but that.

    What is archived meanwhile is not in it: each topic is as its ledger was when its turn came.

    Returns:
        The manifest.

    Raises:
        ConfigurationError: The folder cannot be used, or a topic means nothing.
        ConflictError: Another snapshot to the same place is under way.
        UnavailableError: The database, or the store, does not answer.
    """
    with wanted.location.writing() as number, TemporaryDirectory(prefix="hop_archive-snapshot-") as scratch:
        before = _before(wanted.location)
        topics: dict[str, Any] = dict(before.topics)
        began = wanted.now()
        known = wanted.catalog.known_topics()
        chosen = {*Query(wanted.topics).chosen_topics(known), *(before.damaged.keys() & set(known))}
        for topic in sorted(chosen):
            wanted.progress.topic = topic
            writer = _TopicSnapshot(wanted, topic, number, Path(scratch))
            topics[topic] = sealed(topic, writer.run(topics.get(topic)))
            wanted.progress.counts["topics"] += 1
            wanted.notice(wanted.progress)
        if not wanted.topics:
            topics = {topic: topics[topic] for topic in known}
        content = {
            "manifest": FORMAT,
            "number": number,
            "began_at": began.isoformat(),
            "ended_at": wanted.now().isoformat(),
            "database": wanted.catalog.name,
            "messages": sum(one["messages"] for one in topics.values()),
            "topics": {topic: sealed(topic, part) for topic, part in topics.items()},
            "setups": sealed("setups", {"of": _setups(wanted.catalog)}),
        }
        manifest = sealed("", content)
        wanted.location.put_manifest(number, json.dumps(manifest, ensure_ascii=False, indent=1).encode())
        kept = {file["path"] for one in topics.values() for file in one["files"]}
        wanted.location.forget_others(kept)
    return manifest


def latest(location: SnapshotLocation) -> Manifest | None:
    """What the newest manifest in a location says, of all that proved itself; None where there is none.

    One that carries no digest is warned of, and is damaged where the place itself tells that it is not what was put there.
    """
    text = location.newest_manifest()
    if text is None:
        return None
    found = read(text)
    if found.has_digest or found.problem:
        return found
    if location.newest_was_changed():
        return Manifest(
            problem="it carries no digest, and is not what was put there: its ETag is that of other bytes"
        )
    log.warning(
        "The newest manifest in %s carries no digest: whether it is as it was written is not known. The next snapshot has one.",
        location,
    )
    return found


def _before(location: SnapshotLocation) -> Manifest:
    """The manifest that is gone on from: what of it is damaged is written anew, so damage does not stay.

    Raises:
        CorruptError: It is of another kind, or of a later version of this program.
    """
    found = latest(location) or Manifest()
    if found.problem or found.damaged:
        log.warning(
            "The newest manifest in %s is damaged, so that what it does not prove is written anew: %s",
            location,
            "; ".join(
                filter(None, (found.problem, *(f"{topic}: {why}" for topic, why in found.damaged.items())))
            ),
        )
    if found.is_foreign:
        raise CorruptError(
            f"{location}: the newest manifest cannot be gone on from: {found.problem}.",
            remedy="Name another place for the snapshot; or update hop_archive, if a later version wrote it.",
        )
    return found


def _setups(catalog: Catalog) -> list[dict[str, Any]]:
    """How the source's topics and groups were set up: messages alone do not bring a stream back."""
    return [
        {**asdict(one), "taken_at": one.taken_at.isoformat()}
        for kind in ("topic", "group")
        for one in catalog.snapshots(kind)
    ]


class _TopicSnapshot:
    """One topic on its way into a snapshot."""

    def __init__(self, wanted: CatalogSnapshot, topic: str, number: int, scratch: Path) -> None:
        self._wanted = wanted
        self._catalog = wanted.catalog
        self._topic = topic
        self._number = number
        self._scratch = scratch
        self._files: list[dict[str, Any]] = []

    def run(self, before: Mapping[str, Any] | None) -> Mapping[str, Any]:
        entries = self._catalog.ledger([self._topic])
        state = self._state(entries)
        is_old = before is None or self._wanted.full or self._is_overdue(before)
        observed = sorted(
            [at.generation, at.partition, marks.low, marks.stable, marks.high]
            for at, marks in self._catalog.observed([self._topic]).items()
        )
        if not is_old and before is not None and before["state"] == state:
            return {**before, "observed": observed}
        self._wanted.progress.counts["written"] += 1
        added = None if is_old or before is None else self._added(before, state, entries)
        if added is not None and before is not None:
            kept = [file for file in before["files"] if file["kind"] == "messages"]
            self._files[:0] = kept
            whole_at = before["whole_at"]
        else:
            self._files = []
            added = self._rows(self._every_row(entries))
            kept, whole_at = [], self._wanted.now().isoformat()
        messages = added + sum(file["rows"] for file in kept)
        self._ledger(entries)
        self._duplicates(entries)
        return {
            "messages": messages,
            "whole_at": whole_at,
            "state": state,
            "generations": [_generation(one) for one in self._generations()],
            "collisions": [
                [*at[1:], one.offset, str(one.client_uuid), str(one.archived_as)]
                for at, one in self._catalog.collisions(self._topic)
            ],
            "files": self._files,
            "observed": observed,
        }

    def _is_overdue(self, before: Mapping[str, Any]) -> bool:
        age = self._wanted.now() - datetime.datetime.fromisoformat(before["whole_at"])
        return age > datetime.timedelta(days=self._wanted.whole_after_days)

    def _state(self, entries: Sequence[LedgerEntry]) -> dict[str, Any]:
        """What tells whether anything changed: equal to the last time, nothing that can be seen did."""
        retracted = hashlib.sha256()
        for row in self._selected(retracted=True):
            retracted.update(row.uuid.bytes)
        counted = sum(e.archived for e in entries)
        return {
            "archived": [
                [*at[1:], [list(part) for part in found]] for at, found in _archived(entries).items()
            ],
            "counts": [counted, sum(e.duplicates for e in entries)],
            "others": [
                [str(e.slice), e.outcome.value, e.reason]
                for e in entries
                if e.outcome is not Outcome.ARCHIVED
            ],
            "generations": [[g.number, g.cluster_id, g.topic_id] for g in self._generations()],
            "retracted": retracted.hexdigest(),
            "adopted": self._adopted(counted),
        }

    def _added(
        self, before: Mapping[str, Any], state: Mapping[str, Any], entries: Sequence[LedgerEntry]
    ) -> int | None:
        """Write the rows that came since; None where old ones changed, and all is to be written."""
        then, now = _sets(self._topic, before["state"]["archived"]), _archived(entries)
        if any(found - now.get(at, EMPTY) for at, found in then.items()):
            return None
        if any(before["state"][one] != state[one] for one in ("retracted", "adopted")):
            return None
        new = [part for at, found in now.items() for part in at.slices(found - then.get(at, EMPTY))]
        added = self._rows(self._selected(places=tuple(new))) if new else 0
        kept = sum(file["rows"] for file in before["files"] if file["kind"] == "messages")
        return added if kept + added == state["counts"][0] + state["adopted"] else None

    def _generations(self) -> Sequence[Generation]:
        return self._catalog.generations([self._topic]).get(self._topic, ())

    def _selected(self, **bounds: Any) -> Iterator[Row]:
        if self._topic in set(self._catalog.topics()):
            yield from self._catalog.select(Query((self._topic,), **bounds))

    def _adopted(self, archived: int) -> int:
        """How many rows no ledger row accounts for, because another archiver wrote them."""
        if not self._catalog.has_adopted(self._topic):
            return 0
        return sum(one.messages for one in self._catalog.summaries([self._topic])) - archived

    def _every_row(self, entries: Sequence[LedgerEntry]) -> Iterator[Row]:
        """All but those that came after the ledger was read."""
        ends: dict[tuple[int, int], int] = {}
        for e in entries:
            at = (e.slice.generation, e.slice.partition)
            ends[at] = max(ends.get(at, 0), e.slice.stop)
        for row in self._selected():
            at = (row.generation or 0, row.partition or 0)
            if row.offset is None or row.offset < ends.get(at, 0):
                yield row

    def _rows(self, rows: Iterable[Row]) -> int:
        """Write rows into files, some thousand each, one month a file."""
        held: dict[str, list[tuple[object, ...]]] = {}
        written = total = 0
        for row in rows:
            month = utc_month(row.timestamp_ms)
            some = held.setdefault(month, [])
            some.append(cells_of(row)[1:])
            total += 1
            if len(some) >= _FILE_ROWS or total >= _HELD_ROWS:
                fullest = max(held, key=lambda one: len(held[one]))
                total -= len(held[fullest])
                written += self._write_month(fullest, held.pop(fullest))
        for month, some in sorted(held.items()):
            written += self._write_month(month, some)
        return written

    def _write_month(self, month: str, rows: list[tuple[object, ...]]) -> int:
        self._write("messages", rows, MESSAGES, f"month={month}")
        self._wanted.progress.counts["rows"] += len(rows)
        self._wanted.notice(self._wanted.progress)
        return len(rows)

    def _ledger(self, entries: Sequence[LedgerEntry]) -> None:
        rows = [
            (*s[1:], e.outcome.value, e.reason, e.archived, e.duplicates, e.absent, e.size_bytes, e.run_id, e.created_at)
            for e in entries
            for s in [(e.slice.topic, e.slice.generation, e.slice.partition, e.slice.start, e.slice.stop)]
        ]  # fmt: skip
        self._write("ledger", rows, LEDGER)

    def _duplicates(self, entries: Sequence[LedgerEntry]) -> None:
        covered = _archived(entries)
        found = (
            (at.generation, at.partition, one.offset, one.timestamp_ms, str(one.uuid), one.reason)
            for at, one in self._catalog.duplicates(self._topic)
            if one.offset in covered.get(at, EMPTY)
        )
        while some := list(itertools.islice(found, _FILE_ROWS)):
            self._write("duplicates", some, DUPLICATES)

    def _write(
        self, kind: str, rows: Sequence[tuple[object, ...]], schema: pa.Schema, folder: str = ""
    ) -> None:
        if not rows:
            return
        columns = zip(*rows, strict=True)
        arrays = [pa.array(column, one.type) for column, one in zip(columns, schema, strict=True)]
        name = f"part-{self._number:08}-{len(self._files):05}.parquet"
        beside = self._scratch / name
        with beside.open("wb") as file:  # opened here: pyarrow takes no path that is not UTF-8
            pq.write_table(pa.Table.from_arrays(arrays, schema=schema), file, compression="zstd")
        path = "/".join(filter(None, (kind, f"topic={quote(self._topic, safe='')}", folder, name)))
        told = {
            "path": path,
            "kind": kind,
            "rows": len(rows),
            "bytes": beside.stat().st_size,
            "sha256": sha256(beside),
        }
        self._wanted.location.put(path, beside)
        beside.unlink()
        self._files.append(told)
        self._wanted.progress.counts["files"] += 1


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def meant(topic: str, patterns: Sequence[str]) -> bool:
    """Whether a topic is one of those, or all are meant."""
    return not patterns or matches(topic, patterns)


def _generation(one: Generation) -> dict[str, Any]:
    return {**asdict(one), "detected_at": one.detected_at.isoformat()}


def _archived(entries: Sequence[LedgerEntry]) -> dict[PartitionLog, OffsetSet]:
    found: dict[PartitionLog, list[tuple[int, int]]] = {}
    for e in entries:
        if e.outcome is Outcome.ARCHIVED:
            found.setdefault(e.slice.partition_log, []).append((e.slice.start, e.slice.stop))
    return {at: OffsetSet.of(parts) for at, parts in sorted(found.items())}


def _sets(topic: str, archived: Sequence[Any]) -> dict[PartitionLog, OffsetSet]:
    return {
        PartitionLog(topic, generation, partition): OffsetSet.of((start, stop) for start, stop in parts)
        for generation, partition, parts in archived
    }


def ledger_entry(topic: str, row: Mapping[str, Any]) -> LedgerEntry:
    """A ledger row as a snapshot has it."""
    return LedgerEntry(
        Slice(topic, row["generation"], row["partition"], row["start"], row["stop"]),
        Outcome(row["outcome"]),
        row["reason"],
        row["archived"],
        row["duplicates"],
        row["absent"],
        row["bytes"],
        row["run_id"],
        row["created_at"],
    )
