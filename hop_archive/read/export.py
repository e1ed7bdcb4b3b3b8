"""Messages of the archive in a folder: a Parquet table of their rows, and their documents or payloads as files.

A folder appears whole or not at all: it is filled beside its place, as ``NAME.partial``, and renamed at the end. So a
folder that is there is complete, and one that was interrupted can be told by its name, and by a file in it that says
who made it: nothing else that may have that name is ever deleted.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from hop_archive.catalog.protocol import SELECT_TIMEOUT_S, Catalog
from hop_archive.catalog.records import COLUMNS, Row
from hop_archive.errors import ConfigurationError, ConflictError, CorruptError
from hop_archive.model.document import Document
from hop_archive.model.progress import Progress
from hop_archive.model.query import Order, Query
from hop_archive.read.fetch import Fetched, fetch_documents
from hop_archive.store.protocol import Store

log = logging.getLogger(__name__)

Form: TypeAlias = Literal["bson", "payloads"]

MANIFEST = "manifest.json"
TABLE = "catalog.parquet"
DAMAGED = "damaged.jsonl"
MANIFEST_FORMAT = "hop_archive export 1"
"""What the manifest says of its own form."""

MARK = ".hop_archive-export"
"""File in a folder that is being filled: by it, what an interrupted export left is told from a folder of somebody's."""

_ROW_GROUP = 10_000
"""Rows that are held before they are written: a few MB."""

_KINDS = {
    "text": pa.string(),
    "uuid": pa.string(),
    "bytea": pa.binary(),
    "bool": pa.bool_(),
    "int2": pa.int8(),
    "int4": pa.int32(),
    "int8": pa.int64(),
}
SCHEMA = pa.schema(
    [
        *((name, _KINDS[kind]) for name, kind in COLUMNS.items()),
        ("file", pa.string()),
        ("file_position", pa.int64()),
    ]
)
"""The columns of ``messages``, and where in the folder the document or payload is; ``file`` is null for a payload that
is null. ``timestamp`` stays a number of milliseconds: Kafka takes any, calendars do not."""

_EXTENSIONS = {
    "application/json": ".json",
    "application/x.voevent": ".xml",
    "application/xml": ".xml",
    "application/x.gcn.notice": ".txt",
    "application/x.gcn.circular": ".txt",
    "application/avro": ".avro",
    "application/fits": ".fits",
    "application/x-hdf5": ".h5",
    "application/gzip": ".gz",
    "message/x.hop.external+json": ".json",
    "text/plain": ".txt",
}
"""By media type; ``.bin`` for all others."""

_LONGEST_NAME = 240
"""Characters of a topic in a file's name; file systems allow 255 bytes, extension included."""

_OLD_NAME = 60
"""Characters, of four bytes at most, of a folder's name that it keeps when it is moved away."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to export, and how.

    Attributes:
        query: Which messages.
        form: Documents end to end, a file a topic; or payloads, a file a message.
        skip_damaged: Whether to leave out what is damaged, and record it, rather than to stop there.
        replace: Whether an earlier export in the same place, or the rest of one that was interrupted, may go.
        timeout_s: Longest that the database may look for the next rows.
        origin: What the manifest is to say of where this comes from; JSON-able, free of secrets.
    """

    query: Query
    form: Form = "bson"
    skip_damaged: bool = False
    replace: bool = False
    timeout_s: float = SELECT_TIMEOUT_S
    origin: Mapping[str, Any] = field(default_factory=dict)


def export(
    catalog: Catalog,
    store: Store,
    folder: Path,
    wanted: Wanted,
    *,
    now: Callable[[], datetime.datetime],
    notice: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the selected messages to a folder; each is checked as it is fetched. Memory is bounded.

    Args:
        catalog: Where rows come from.
        store: Where documents come from.
        folder: Where to; not there, or empty.
        wanted: What, and how.
        now: Tells the time for the manifest.
        notice: Called for each message, with the counts ``messages``, ``size_bytes``, and ``damaged``, which are left out.

    Returns:
        The manifest.

    Raises:
        ConfigurationError: The folder holds something, or cannot be written; or the query makes no sense.
        ConflictError: Another export to the same folder is under way.
        CorruptError: A message is damaged or missing; nothing stays of the export.
        UnavailableError: Catalog or store do not answer; nothing stays of the export.
    """
    began = now()
    try:
        with _staged(folder, replace=wanted.replace) as partial:
            return _Export(partial, wanted, notice).run(catalog, store, began, now)
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or folder} cannot be written: {error.strerror}.", path=str(folder)
        ) from error


# The folder


@contextlib.contextmanager
def _staged(folder: Path, *, replace: bool) -> Iterator[Path]:
    """A new folder beside the wanted one, which takes its place at the end; nothing stays of it when that fails.

    What kills the process leaves it: as ``NAME.partial``, to be looked at or deleted.
    """
    folder = folder.resolve()
    partial = folder.with_name(f"{folder.name}.partial")
    refuse_other_content(folder, replace=replace)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(partial, replace=replace):
        try:
            yield partial
            _take_place(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextlib.contextmanager
def _locked(partial: Path, *, replace: bool) -> Iterator[None]:
    """The new, empty folder ``partial``, locked: that is how one under way is told from the rest of a dead one."""
    if os.path.lexists(partial):
        _clear_rest(partial, replace=replace)
    partial.mkdir()
    handle = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (partial / MARK).touch()
        yield
    finally:
        os.close(handle)


def _clear_rest(partial: Path, *, replace: bool) -> None:
    _refuse_busy(partial)
    if not _is_rest(partial):
        raise ConfigurationError(
            f"{partial} is there, and no rest of an export: it is left as it is.",
            remedy="Move it away, or name another folder.",
            path=str(partial),
        )
    if not replace:
        raise ConfigurationError(
            f"{partial} is there: the rest of an export that was interrupted.",
            remedy="Delete it, or let --force replace it.",
            path=str(partial),
        )
    shutil.rmtree(partial)


def _is_rest(partial: Path) -> bool:
    """Tell whether an export left it: just made, half filled, or whole and not yet in its place."""
    if partial.is_symlink() or not partial.is_dir():
        return False
    return not any(partial.iterdir()) or (partial / MARK).is_file() or is_export(partial)


def _refuse_busy(partial: Path) -> None:
    if not partial.is_dir():
        return
    handle = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConflictError(
            f"Another export to {partial} is under way.", remedy="Let it end, or take another folder."
        ) from None
    finally:
        os.close(handle)


def refuse_other_content(folder: Path, *, replace: bool) -> None:
    """Let pass only a folder that may be made, filled, or, as the export that it is, replaced.

    Raises:
        ConfigurationError: It is none of these. What no export wrote is never deleted.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is there, and is no folder.", path=str(folder))
    if not any(folder.iterdir()):
        return
    if not is_export(folder):
        raise ConfigurationError(
            f"{folder} is not empty, and no export.", remedy="Name another folder.", path=str(folder)
        )
    if not replace:
        raise ConfigurationError(
            f"{folder} holds an export already.",
            remedy="Name another folder, or let --force replace it.",
            path=str(folder),
        )


def is_export(folder: Path) -> bool:
    """Tell whether the folder is one that `export` wrote whole."""
    try:
        return bool(json.loads((folder / MANIFEST).read_bytes())["manifest"] == MANIFEST_FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _take_place(partial: Path, folder: Path) -> None:
    """Rename; an earlier export stays until the new one stands in its place."""
    (partial / MARK).unlink()
    if not is_export(folder):
        partial.replace(folder)
        return
    with _moved_away(folder) as old:
        partial.replace(folder)
    _delete_old(old)


@contextlib.contextmanager
def _moved_away(folder: Path) -> Iterator[Path]:
    """The folder under a name beside its own that nobody had; it comes back where what is done meanwhile fails."""
    old = Path(tempfile.mkdtemp(prefix=f"{folder.name[:_OLD_NAME]}.old-", dir=folder.parent))
    try:
        folder.replace(old)  # which an empty folder lets happen
    except OSError:
        old.rmdir()
        raise
    try:
        yield old
    except BaseException:
        old.replace(folder)
        raise


def _delete_old(old: Path) -> None:
    """The new export is whole and in its place, so that this fails is no failure of it."""
    try:
        shutil.rmtree(old)
    except OSError as error:
        log.warning("The export that was replaced could not be deleted whole: %s (%s)", old, error.strerror)


class FileNames:
    """Names for topics in a folder: legal and different on any file system, and the topic's own where possible.

    Args:
        taken: Names that are in use for something else.
    """

    def __init__(self, taken: Collection[str] = (MANIFEST, TABLE, DAMAGED, MARK)) -> None:
        self._topics: dict[str, str] = {}
        self._taken = {name.casefold() for name in taken}

    def of(self, topic: str, extension: str = "") -> str:
        """The name; the same for the same topic each time."""
        if topic not in self._topics:
            self._topics[topic] = self._new(_legal(topic), extension)
        return self._topics[topic]

    def _new(self, stem: str, extension: str) -> str:
        number = 1
        while (name := f"{stem}{f'~{number}' if number > 1 else ''}{extension}").casefold() in self._taken:
            number += 1  # some file systems take upper and lower case for the same
        self._taken.add(name.casefold())
        return name


def _legal(topic: str) -> str:
    quoted = quote(topic, safe="")[:_LONGEST_NAME]
    return quoted.replace(".", "%2E") if set(quoted) <= {"."} else quoted


# What is in it


class _Files(Protocol):
    """Takes messages, and says where it put each."""

    def add(self, row: Row, body: bytes, document: Document) -> tuple[str | None, int | None, int]:
        """Write a message; the file's name within the folder, where in it, and how many bytes."""

    def told(self) -> dict[str, Any]:
        """What the manifest is to say, by topic; after ``close``."""

    def close(self) -> None:
        """Let go of what is open; closing twice is harmless."""


class _Export:
    """One export into a folder of its own."""

    def __init__(self, folder: Path, wanted: Wanted, notice: Callable[[Progress], None]) -> None:
        self._folder = folder
        self._wanted = wanted
        self._notice = notice
        self._progress = Progress()
        self._files: _Files = _BsonFiles(folder) if wanted.form == "bson" else _PayloadFiles(folder)

    def run(
        self,
        catalog: Catalog,
        store: Store,
        began: datetime.datetime,
        now: Callable[[], datetime.datetime],
    ) -> dict[str, Any]:
        """Write all; the manifest last."""
        wanted = self._wanted
        rows = catalog.select(wanted.query, Order.PLACE, timeout_s=wanted.timeout_s)
        with contextlib.closing(self._files), _Table(self._folder / TABLE) as table:
            for fetched in fetch_documents(store, rows):
                self._take(fetched, table)
        manifest = {
            "manifest": MANIFEST_FORMAT,
            **wanted.origin,
            "format": wanted.form,
            "began_at": began.isoformat(),
            "ended_at": now().isoformat(),
            "messages": self._progress.counts["messages"],
            "bytes": self._progress.counts["size_bytes"],
            "damaged": self._progress.counts["damaged"],
            "topics": self._files.told(),
            "files": {TABLE: {"bytes": (self._folder / TABLE).stat().st_size, "sha256": _sha256(self._folder / TABLE)}},
        }  # fmt: skip
        (self._folder / MANIFEST).write_text(
            json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        return manifest

    def _take(self, fetched: Fetched, table: _Table) -> None:
        row, progress = fetched.row, self._progress
        if fetched.problems or fetched.document is None:
            self._leave_out(fetched)
            return
        file, position, size_bytes = self._files.add(row, fetched.body, fetched.document)
        table.add(row, file, position)
        progress.topic = row.topic
        progress.counts["messages"] += 1
        progress.counts["size_bytes"] += size_bytes
        self._notice(progress)

    def _leave_out(self, fetched: Fetched) -> None:
        row = fetched.row
        told = {"uuid": str(row.uuid), "topic": row.topic, "object_key": row.object_key, "bucket": row.bucket}
        if not self._wanted.skip_damaged:
            raise CorruptError(
                f"Message {row.uuid} of {row.topic} is damaged: {'; '.join(fetched.problems)}.",
                remedy="--skip-damaged leaves such messages out, and records them.",
                **told,
            )
        with (self._folder / DAMAGED).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**told, "problems": fetched.problems}, ensure_ascii=False) + "\n")
        self._progress.counts["damaged"] += 1


class _Table:
    """The rows as Parquet, written in groups."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[tuple[object, ...]] = []

    def __enter__(self) -> _Table:
        # Opened here: pyarrow takes no path that is not UTF-8.
        self._file = self._path.open("wb")
        self._writer = pq.ParquetWriter(self._file, SCHEMA, compression="zstd")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        self._file.close()

    def add(self, row: Row, file: str | None, position: int | None) -> None:
        self._rows.append((*cells_of(row), file, position))
        if len(self._rows) >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(column, one.type) for column, one in zip(columns, SCHEMA, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
            self._rows = []


def cells_of(row: Row) -> tuple[object, ...]:
    """A row as Parquet has it, by the columns of ``SCHEMA`` but the last two."""
    cells = row.cells()
    return (*cells[:6], str(row.uuid), *cells[7:])


class _BsonFiles:
    """A file a topic, documents end to end, as ``mongodump`` writes them. Topics come one after another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = FileNames()
        self._told: dict[str, dict[str, Any]] = {}
        self._file: BinaryIO | None = None
        self._sum = hashlib.sha256()
        self._topic: str | None = None

    def add(self, row: Row, body: bytes, document: Document) -> tuple[str, int, int]:
        if row.topic != self._topic:
            self._begin(row.topic)
        assert self._file is not None
        told = self._told[row.topic]
        position = told["bytes"]
        self._file.write(body)
        self._sum.update(body)
        told["messages"] += 1
        told["bytes"] += len(body)
        return told["file"], position, len(body)

    def told(self) -> dict[str, Any]:
        return self._told

    def close(self) -> None:
        if self._file is not None and self._topic is not None:
            self._file.close()
            self._told[self._topic]["sha256"] = self._sum.hexdigest()

    def _begin(self, topic: str) -> None:
        self.close()
        name = self._names.of(topic, ".bson")
        self._file = (self._folder / name).open("xb")
        self._sum = hashlib.sha256()
        self._topic = topic
        self._told[topic] = {"file": name, "messages": 0, "bytes": 0}


class _PayloadFiles:
    """A folder a topic, and in it a file a payload; none for a payload that is null."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = FileNames()
        self._told: dict[str, dict[str, Any]] = {}

    def add(self, row: Row, body: bytes, document: Document) -> tuple[str | None, None, int]:
        told = self._told.get(row.topic) or self._begin(row.topic)
        value = document.message.value
        told["messages"] += 1
        if value is None:
            return None, None, 0
        name = f"{told['folder']}/{row.uuid}{_EXTENSIONS.get(row.annotations.media_type, '.bin')}"
        (self._folder / name).write_bytes(value)
        told["bytes"] += len(value)
        return name, None, len(value)

    def told(self) -> dict[str, Any]:
        return self._told

    def close(self) -> None:
        """Nothing is open."""

    def _begin(self, topic: str) -> dict[str, Any]:
        name = self._names.of(topic)
        (self._folder / name).mkdir()
        told: dict[str, Any] = {"folder": name, "messages": 0, "bytes": 0}
        self._told[topic] = told
        return told


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
