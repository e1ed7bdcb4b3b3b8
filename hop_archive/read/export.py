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
from typing import Any, BinaryIO, Literal, TypeAlias
from urllib.parse import quote

from hop_archive.catalog.protocol import SELECT_TIMEOUT_S, Catalog
from hop_archive.catalog.records import Row
from hop_archive.errors import ConfigurationError, ConflictError, CorruptError
from hop_archive.model.document import Document
from hop_archive.model.progress import Progress
from hop_archive.model.query import Order, Query
from hop_archive.read.fetch import fetch_documents, was_removed
from hop_archive.read.parquet import SCHEMA, ParquetFile, cells_of, sha256
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

_EXTENSIONS = {
    "application/json": ".json",
    "application/x.voevent": ".xml",
    "application/xml": ".xml",
    "text/xml": ".xml",
    "text/html": ".html",
    "text/csv": ".csv",
    "application/x.gcn.notice": ".txt",
    "application/x.gcn.circular": ".txt",
    "application/avro": ".avro",
    "application/fits": ".fits",
    "image/fits": ".fits",
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/tiff": ".tiff",
    "image/webp": ".webp",
    "image/svg+xml": ".svg",
    "application/pdf": ".pdf",
    "application/postscript": ".ps",
    "application/zip": ".zip",
    "application/x-tar": ".tar",
    "application/x-bzip2": ".bz2",
    "application/x-xz": ".xz",
    "application/zstd": ".zst",
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
class ExportRequest:
    """What to export, and how.

    Attributes:
        form: Documents end to end, a file a topic; or payloads, a file a message.
        skip_damaged: Whether to leave out what is damaged, and record it, rather than to stop there.
        replace: Whether an earlier export in the same place, or the rest of one that was interrupted, may go.
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
    wanted: ExportRequest,
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
        notice: Called for each message; counted are ``messages``, their ``size_bytes``, and those ``damaged``.

    Returns:
        The manifest.

    Raises:
        ConfigurationError: The folder holds something, or cannot be written; or the query makes no sense.
        ConflictError: Another export to the same folder is under way.
        CorruptError: A message is damaged or missing; nothing stays of the export.
        UnavailableError: Catalog or store do not answer; nothing stays of the export.
    """
    began, progress = now(), Progress()
    try:
        with _staged(folder, replace=wanted.replace) as partial:
            files = _BsonFiles(partial) if wanted.form == "bson" else _PayloadFiles(partial)
            with contextlib.closing(files):
                _fill(partial, files, catalog, store, wanted, progress, notice)
            table = partial / TABLE
            manifest = {
                "manifest": MANIFEST_FORMAT,
                **wanted.origin,
                "format": wanted.form,
                "began_at": began.isoformat(),
                "ended_at": now().isoformat(),
                "messages": progress.counts["messages"],
                "bytes": progress.counts["size_bytes"],
                "damaged": progress.counts["damaged"],
                "topics": files.by_topic,
                "files": {TABLE: {"bytes": table.stat().st_size, "sha256": sha256(table)}},
            }
            text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
            (partial / MANIFEST).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or folder} cannot be written: {error.strerror}.", path=str(folder)
        ) from error
    return manifest


def _fill(
    folder: Path,
    files: _BsonFiles | _PayloadFiles,
    catalog: Catalog,
    store: Store,
    wanted: ExportRequest,
    progress: Progress,
    notice: Callable[[Progress], None],
) -> None:
    """Write all but the manifest."""
    rows = catalog.select(wanted.query, Order.PLACE, timeout_s=wanted.timeout_s)
    with ParquetFile(folder / TABLE, SCHEMA) as table:
        for fetched in fetch_documents(store, rows, catalog.find):
            row = fetched.row
            if not fetched.problems and fetched.document is not None:
                file, position, size_bytes = files.add(row, fetched.body, fetched.document)
                table.add((*cells_of(row), file, position))
                progress.topic = row.topic
                progress.counts["messages"] += 1
                progress.counts["size_bytes"] += size_bytes
                notice(progress)
                continue
            facts = {
                "uuid": str(row.uuid),
                "topic": row.topic,
                "object_key": row.object_key,
                "bucket": row.bucket,
            }
            if was_removed(fetched, catalog.find):
                continue
            if not wanted.skip_damaged:
                raise CorruptError(
                    f"Message {row.uuid} of {row.topic} is damaged: {'; '.join(fetched.problems)}.",
                    remedy="--skip-damaged leaves such messages out, and records them.",
                    **facts,
                )
            with (folder / DAMAGED).open("a", encoding="utf-8") as damaged:
                damaged.write(json.dumps({**facts, "problems": fetched.problems}, ensure_ascii=False) + "\n")
            progress.counts["damaged"] += 1


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
    if os.path.lexists(partial):
        _clear_rest(partial, replace=replace)
    partial.mkdir()
    handle = os.open(partial, os.O_RDONLY)
    try:
        # By the lock, one under way is told from the rest of a dead one.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (partial / MARK).touch()
        try:
            yield partial
            _take_place(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def _clear_rest(partial: Path, *, replace: bool) -> None:
    if partial.is_dir():
        handle = os.open(partial, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"Another export to {partial} is under way.", remedy="Let it end, or take another folder."
            ) from None
        finally:
            os.close(handle)
    # Just made, half filled, or whole and not yet in its place.
    is_rest = (
        partial.is_dir()
        and not partial.is_symlink()
        and (not any(partial.iterdir()) or (partial / MARK).is_file() or is_export(partial))
    )
    if not is_rest:
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


def _take_place(partial: Path, folder: Path) -> None:
    """Rename; an earlier export stays, under a name beside its own that nobody had, until the new one stands there."""
    (partial / MARK).unlink()
    if not is_export(folder):
        partial.replace(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f"{folder.name[:_OLD_NAME]}.old-", dir=folder.parent))
    try:
        folder.replace(old)  # which an empty folder lets happen
    except OSError:
        old.rmdir()
        raise
    try:
        partial.replace(folder)
    except BaseException:
        old.replace(folder)
        raise
    try:
        shutil.rmtree(old)
    except OSError as error:  # which is no failure of the new export
        log.warning("The export that was replaced could not be deleted whole: %s (%s)", old, error.strerror)


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
            stem = quote(topic, safe="")[:_LONGEST_NAME]
            if set(stem) <= {"."}:
                stem = stem.replace(".", "%2E")
            number, name = 1, f"{stem}{extension}"
            while name.casefold() in self._taken:  # some file systems take upper and lower case for the same
                number += 1
                name = f"{stem}~{number}{extension}"
            self._taken.add(name.casefold())
            self._topics[topic] = name
        return self._topics[topic]


# What is in it


class _BsonFiles:
    """A file a topic, documents end to end, as ``mongodump`` writes them. Topics come one after another.

    ``by_topic`` is what the manifest is to say, once this is closed.
    """

    def __init__(self, folder: Path) -> None:
        self.by_topic: dict[str, dict[str, Any]] = {}
        self._folder = folder
        self._names = FileNames()
        self._file: BinaryIO | None = None
        self._sum = hashlib.sha256()
        self._topic: str | None = None

    def add(self, row: Row, body: bytes, document: Document) -> tuple[str, int, int]:
        """Write a message; the file's name within the folder, where in it, and how many bytes."""
        if row.topic != self._topic or self._file is None:
            self.close()
            name = self._names.of(row.topic, ".bson")
            self._file = (self._folder / name).open("xb")
            self._sum = hashlib.sha256()
            self._topic = row.topic
            self.by_topic[row.topic] = {"file": name, "messages": 0, "bytes": 0}
        topic = self.by_topic[row.topic]
        position = topic["bytes"]
        self._file.write(body)
        self._sum.update(body)
        topic["messages"] += 1
        topic["bytes"] += len(body)
        return topic["file"], position, len(body)

    def close(self) -> None:
        """Let go of what is open; closing twice is harmless."""
        if self._file is not None and self._topic is not None:
            self._file.close()
            self.by_topic[self._topic]["sha256"] = self._sum.hexdigest()


class _PayloadFiles:
    """A folder a topic, and in it a file a payload; none for a payload that is null. Otherwise as ``_BsonFiles``."""

    def __init__(self, folder: Path) -> None:
        self.by_topic: dict[str, dict[str, Any]] = {}
        self._folder = folder
        self._names = FileNames()

    def add(self, row: Row, body: bytes, document: Document) -> tuple[str | None, None, int]:
        if row.topic not in self.by_topic:
            folder = self._names.of(row.topic)
            (self._folder / folder).mkdir()
            self.by_topic[row.topic] = {"folder": folder, "messages": 0, "bytes": 0}
        topic = self.by_topic[row.topic]
        value = document.message.value
        topic["messages"] += 1
        if value is None:
            return None, None, 0
        name = f"{topic['folder']}/{row.uuid}{_EXTENSIONS.get(row.annotations.media_type, '.bin')}"
        (self._folder / name).write_bytes(value)
        topic["bytes"] += len(value)
        return name, None, len(value)

    def close(self) -> None:
        """Nothing is open."""
