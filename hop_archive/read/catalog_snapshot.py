"""A snapshot of the catalog as Parquet, by topic and month: for reading, and for making the catalog again from it.

It grows: a snapshot writes what came since the one before, and a manifest that names every file that counts, old and
new. Files are never changed, and the manifest comes last, so a snapshot that was killed leaves the one before whole.

What changed in rows that were written before is seen by the ledger's numbers, by what was taken back, and by how often documents
were put together in larger objects; a row that repair moved or whose content was removed is not. Topics are therefore written anew from time to time.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Generation, LedgerEntry, Outcome, Row
from hop_archive.errors import CorruptError
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, offsets_by_log
from hop_archive.model.times import utc_month
from hop_archive.model.topics import matches
from hop_archive.read.parquet import (
    DUPLICATES,
    LEDGER,
    MESSAGES,
    cells_of,
    ledger_cells,
    table_of,
    time_cell,
)
from hop_archive.read.snapshot_locations import SnapshotLocation, manifest_path
from hop_archive.read.snapshot_manifest import FORMAT, Manifest, read, sealed

log = logging.getLogger(__name__)

WHOLE_AFTER_DAYS = 30.0
"""After so long a topic is written anew, changed or not."""

_FORM = 3
"""Of the files. Those of a topic are of one form: where they are of another (1: ``uuid`` was text, and there was no ``time``; 2: no ``frame``), it is written anew."""
_FILE_ROWS = 50_000
"""Rows in one file: some MB."""
_HELD_ROWS = 100_000
"""Rows held while files fill, of all months together."""


@dataclass(frozen=True, slots=True)
class CatalogSnapshot:
    """What to write, and where to.

    Attributes:
        topics: Names or globs; empty: all. Others stay in the manifest as they were.
        full: Whether to write all topics anew.
        progress: Where to count ``topics`` looked at, topics ``written``, ``rows`` and ``files``.
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

    What is archived meanwhile is not in it: each topic is as its ledger was when its turn came. What is damaged of the
    manifest before is written anew, so damage does not stay.

    Returns:
        The manifest.

    Raises:
        ConfigurationError: The folder cannot be used, or a topic means nothing.
        ConflictError: Another snapshot to the same place is under way.
        CorruptError: The newest manifest is of another kind, or of a later version of this program.
        UnavailableError: The database, or the store, does not answer.
    """
    catalog, location, progress = wanted.catalog, wanted.location, wanted.progress
    with location.writing() as number:
        before = latest(location) or Manifest()
        if faults := [*filter(None, [before.problem]), *(f"{t}: {why}" for t, why in before.damaged.items())]:
            log.warning(
                "The newest manifest in %s is damaged, so that what it does not prove is written anew: %s",
                location,
                "; ".join(faults),
            )
        if before.is_foreign:
            raise CorruptError(
                f"{location}: the newest manifest cannot be gone on from: {before.problem}.",
                remedy="Name another place for the snapshot; or update hop_archive, if a later version wrote it.",
            )
        topics: dict[str, Any] = dict(before.topics)
        began = wanted.now()
        known = catalog.known_topics()
        chosen = {*Query(wanted.topics).chosen_topics(known), *(before.damaged.keys() & set(known))}
        with_rows = set(catalog.topics())
        for topic in sorted(chosen):
            progress.topic = topic
            part = _TopicSnapshot(wanted, topic, number, has_rows=topic in with_rows).run(topics.get(topic))
            topics[topic] = sealed(topic, part)
            progress.counts["topics"] += 1
            wanted.notice(progress)
        if not wanted.topics:
            topics = {topic: topics[topic] for topic in known}
        # How the source's topics and groups were set up, too: messages alone do not bring a stream back.
        setups = [
            {**asdict(setup), "taken_at": setup.taken_at.isoformat()}
            for kind in ("topic", "group")
            for setup in catalog.snapshots(kind)
        ]
        content = {
            "manifest": FORMAT,
            "number": number,
            "began_at": began.isoformat(),
            "ended_at": wanted.now().isoformat(),
            "database": catalog.name,
            "messages": sum(part["messages"] for part in topics.values()),
            "topics": {topic: sealed(topic, part) for topic, part in topics.items()},
            "setups": sealed("setups", {"of": setups}),
        }
        manifest = sealed("", content)
        location.put(manifest_path(number), json.dumps(manifest, ensure_ascii=False, indent=1).encode())
        location.forget_others({file["path"] for part in topics.values() for file in part["files"]})
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


class _TopicSnapshot:
    """One topic on its way into a snapshot."""

    def __init__(self, wanted: CatalogSnapshot, topic: str, number: int, *, has_rows: bool) -> None:
        self._wanted = wanted
        self._has_rows = has_rows
        self._catalog = wanted.catalog
        self._topic = topic
        self._number = number
        self._files: list[dict[str, Any]] = []
        self._numbers = (
            itertools.count()
        )  # no file has the name of another, also where all are written after some

    def run(self, before: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Write what is new of the topic, or all; what the manifest is to say of it."""
        entries = self._catalog.ledger([self._topic])
        archived = offsets_by_log(e.slice for e in entries if e.outcome is Outcome.ARCHIVED)
        generations = self._catalog.generations([self._topic]).get(self._topic, ())
        state = self._state(entries, archived, generations)
        observed = sorted(
            [at.generation, at.partition, marks.low, marks.stable, marks.high]
            for at, marks in self._catalog.observed([self._topic]).items()
        )
        if before is not None:
            age = self._wanted.now() - datetime.datetime.fromisoformat(before["whole_at"])
            if self._wanted.full or age > datetime.timedelta(days=self._wanted.whole_after_days):
                before = None
        if before is not None and before["state"] == state:
            return {**before, "observed": observed}
        self._wanted.progress.counts["written"] += 1
        added = None if before is None else self._added(before, state, archived)
        if added is not None and before is not None:
            kept = [file for file in before["files"] if file["kind"] == "messages"]
            self._files[:0] = kept
            whole_at = before["whole_at"]
        else:
            self._files = []
            ends: dict[tuple[int | None, ...], int] = {
                at[1:]: offsets.stop for at, offsets in offsets_by_log(e.slice for e in entries).items()
            }
            added = self._write_messages(
                row  # but for those that came after the ledger was read
                for row in self._selected()
                if row.offset is None or row.offset < ends.get((row.generation, row.partition), 0)
            )
            kept, whole_at = [], self._wanted.now().isoformat()
        self._write("ledger", [ledger_cells(entry) for entry in entries], LEDGER)
        duplicates = (
            (
                at.generation,
                at.partition,
                copy.offset,
                copy.timestamp_ms,
                time_cell(copy.timestamp_ms),
                copy.uuid.bytes,
                copy.reason,
            )
            for at, copy in self._catalog.duplicates(self._topic)
            if copy.offset in archived.get(at, EMPTY)
        )
        while some := list(itertools.islice(duplicates, _FILE_ROWS)):
            self._write("duplicates", some, DUPLICATES)
        return {
            "messages": added + sum(file["rows"] for file in kept),
            "whole_at": whole_at,
            "state": state,
            "generations": [{**asdict(g), "detected_at": g.detected_at.isoformat()} for g in generations],
            "collisions": [
                [*at[1:], collision.offset, str(collision.client_uuid), str(collision.archived_as)]
                for at, collision in self._catalog.collisions(self._topic)
            ],
            "files": self._files,
            "observed": observed,
        }

    def _state(
        self,
        entries: Sequence[LedgerEntry],
        archived: Mapping[PartitionLog, OffsetSet],
        generations: Sequence[Generation],
    ) -> dict[str, Any]:
        """What tells whether anything changed: equal to the last time, nothing that can be seen did."""
        retracted = hashlib.sha256()
        for row in self._selected(retracted=True):
            retracted.update(row.uuid.bytes)
        counted = sum(e.archived for e in entries)
        adopted = 0  # rows that no ledger row accounts for, because another archiver wrote them
        if self._catalog.has_adopted(self._topic):
            adopted = sum(total.messages for total in self._catalog.summaries([self._topic])) - counted
        moves = sum(known.moves for known in self._catalog.compacted([self._topic]).values())
        return {
            "archived": [[*at[1:], [list(part) for part in found]] for at, found in archived.items()],
            "counts": [counted, sum(e.duplicates for e in entries)],
            "others": [
                [str(e.slice), e.outcome.value, e.reason]
                for e in entries
                if e.outcome is not Outcome.ARCHIVED
            ],
            "generations": [[g.number, g.cluster_id, g.topic_id] for g in generations],
            "form": _FORM,
            "retracted": retracted.hexdigest(),
            "adopted": adopted,
            **(
                {"moves": moves} if moves else {}
            ),  # of documents to other objects; what was written before lacks it
        }

    def _added(
        self, before: Mapping[str, Any], state: Mapping[str, Any], now: Mapping[PartitionLog, OffsetSet]
    ) -> int | None:
        """Write the rows that came since; None where old ones changed, and all is to be written."""
        then = {
            PartitionLog(self._topic, generation, partition): OffsetSet.of(tuple(part) for part in parts)
            for generation, partition, parts in before["state"]["archived"]
        }
        if any(found - now.get(at, EMPTY) for at, found in then.items()):
            return None
        if any(
            before["state"].get(name) != state.get(name) for name in ("form", "retracted", "adopted", "moves")
        ):
            return None
        new = [part for at, found in now.items() for part in at.slices(found - then.get(at, EMPTY))]
        added = self._write_messages(self._selected(places=tuple(new))) if new else 0
        kept = sum(file["rows"] for file in before["files"] if file["kind"] == "messages")
        return added if kept + added == state["counts"][0] + state["adopted"] else None

    def _selected(self, **bounds: Any) -> Iterator[Row]:
        if self._has_rows:
            yield from self._catalog.select(Query((self._topic,), **bounds))

    def _write_messages(self, rows: Iterable[Row]) -> int:
        """Write rows into files, some thousand each, one month a file."""
        held: dict[str, list[tuple[object, ...]]] = {}
        written = total = 0
        for row in rows:
            some = held.setdefault(utc_month(row.timestamp_ms), [])
            some.append(cells_of(row)[1:])
            total += 1
            if len(some) >= _FILE_ROWS or total >= _HELD_ROWS:
                fullest = max(held, key=lambda month: len(held[month]))
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

    def _write(
        self, kind: str, rows: Sequence[tuple[object, ...]], schema: pa.Schema, folder: str = ""
    ) -> None:
        if not rows:
            return
        name = f"part-{self._number:08}-{next(self._numbers):05}.parquet"
        sink = pa.BufferOutputStream()
        pq.write_table(table_of(rows, schema), sink, compression="zstd")
        body = sink.getvalue().to_pybytes()
        path = "/".join(filter(None, (kind, f"topic={quote(self._topic, safe='')}", folder, name)))
        described = {
            "path": path,
            "kind": kind,
            "rows": len(rows),
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        self._wanted.location.put(path, body)
        self._files.append(described)
        self._wanted.progress.counts["files"] += 1


def meant(topic: str, patterns: Sequence[str]) -> bool:
    """Whether a topic is one of those, or all are meant."""
    return not patterns or matches(topic, patterns)
