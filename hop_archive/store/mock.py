"""A store without a server: in memory, or in a directory that several processes share."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from hop_archive.errors import ForbiddenError, ObjectMissingError
from hop_archive.model.conditions import StoreCondition
from hop_archive.shared_state import usable
from hop_archive.store.coalesce import cut, spans
from hop_archive.store.protocol import Created, Extent, NewObject, ObjectInfo, legal


class MockStore:
    """Keeps the whole contract of a store, in memory or in a directory.

    In a directory it behaves as a server does: what one process created, the next one finds, and of two
    processes that create one key, one is first. Thread-safe.

    Args:
        name: The stanza's name.
        directory: Where objects are kept, a file each; made when it is not there. None keeps them in memory.
        bucket: What catalog rows are to call it.
        deleting_allowed: Whether ``delete`` deletes.
        clock: The present in milliseconds, for the times of objects in memory.
    """

    def __init__(
        self,
        name: str = "mock-store",
        directory: Path | None = None,
        bucket: str = "mock",
        *,
        deleting_allowed: bool = False,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.created = 0
        self._name = name
        self._bucket = bucket
        self._deleting_allowed = deleting_allowed
        self._clock = clock
        self._shelf: _Memory | _Directory = _Memory(clock) if directory is None else _Directory(directory)

    @property
    def name(self) -> str:
        return self._name

    @property
    def bucket(self) -> str:
        return self._bucket

    def check(self) -> None:
        """Do nothing: a mock is always there."""

    def condition(self) -> StoreCondition:
        """This process's clock, and neither versions nor copies."""
        at = datetime.datetime.fromtimestamp(self._clock() / 1000, datetime.UTC)
        return StoreCondition(at, versioning=False, replication=False)

    def create(self, objects: Sequence[NewObject]) -> Sequence[Created]:
        for new in objects:
            legal(new.key)
        created: list[Created] = []
        for key, body in ((new.key, bytes(new.body)) for new in objects):
            if self._shelf.add(key, body):
                created.append(Created.NEW)
            else:
                created.append(Created.SAME if self._shelf.get(key) == body else Created.OTHER)
            self.created += 1
        return created

    def fetch(self, extents: Iterable[Extent]) -> Iterator[bytes]:
        for span in spans(extents):
            if (body := self._shelf.get(legal(span.key))) is None:
                raise self._missing(span.key)
            data = memoryview(body)[span.start : span.stop]
            yield from cut(span, data, f"Store {self._name}", self._bucket)

    def etag(self, key: str) -> str:
        """The MD5 of what was put there."""
        found = self._shelf.etag(legal(key))
        if found is None:
            raise self._missing(key)
        return f'"{found}"'

    def listing(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        for info in sorted(self._shelf.items(), key=itemgetter(0)):
            if info.key.startswith(prefix) and info.key > start_after:
                yield info

    def delete(self, keys: Collection[str]) -> None:
        if not self._deleting_allowed:
            raise ForbiddenError(
                f"Store {self._name} does not allow deleting; {len(keys)} objects were to be deleted.",
                remedy="Set deleting_allowed in its stanza if that is really wanted.",
                bucket=self._bucket,
            )
        for key in [legal(key) for key in keys]:
            self._shelf.remove(key)

    def close(self) -> None:
        """Do nothing; a closed mock goes on working."""

    def damage(self, key: str, body: bytes) -> None:
        """Let other bytes stand under a key of a mock in memory, as decay does: its ETag stays."""
        assert isinstance(self._shelf, _Memory)
        self._shelf.damage(key, body)

    def _missing(self, key: str) -> ObjectMissingError:
        return ObjectMissingError(
            f"Store {self._name}: there is no object {key}.", object_key=key, bucket=self._bucket
        )


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


class _Memory:
    """Bodies in memory. ``add`` tells whether the key was free; ``etag`` is of what was added, in hexadecimal."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._objects: dict[str, tuple[bytes, int, str]] = {}
        """Body, when it was made (milliseconds), and ETag."""
        self._lock = threading.Lock()

    def add(self, key: str, body: bytes) -> bool:
        new = (body, self._clock(), _md5(body))
        with self._lock:
            return self._objects.setdefault(key, new) is new

    def get(self, key: str) -> bytes | None:
        found = self._objects.get(key)
        return found[0] if found else None

    def etag(self, key: str) -> str | None:
        found = self._objects.get(key)
        return found[2] if found else None

    def damage(self, key: str, body: bytes) -> None:
        with self._lock:
            self._objects[key] = (body, *self._objects[key][1:])

    def remove(self, key: str) -> None:
        with self._lock:
            self._objects.pop(key, None)

    def items(self) -> list[ObjectInfo]:
        with self._lock:
            return [ObjectInfo(key, len(body), at_ms) for key, (body, at_ms, _) in self._objects.items()]


class _Directory:
    """A file an object, in folders named after the parts of its key.

    Folders end in ``+``, which ``quote`` leaves in no name: in S3, ``a`` and ``a/b`` may both be objects.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, key: str, body: bytes) -> bool:
        with usable(self._root):
            path = self._path(key)
            _make(path.parent)
            handle, name = tempfile.mkstemp(prefix="+", dir=self._root)
            beside = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            # A link appears whole or not at all, and never over another file: a rename would overwrite.
            try:
                os.link(beside, path)
            except FileExistsError:
                return False
            finally:
                beside.unlink()
            _sync(path.parent)
            return True

    def get(self, key: str) -> bytes | None:
        with usable(self._root):
            try:
                return self._path(key).read_bytes()
            except FileNotFoundError:
                return None

    def etag(self, key: str) -> str | None:
        body = self.get(key)  # what was added is not remembered: a file that was changed has another
        return None if body is None else _md5(body)

    def remove(self, key: str) -> None:
        with usable(self._root):
            self._path(key).unlink(missing_ok=True)

    def items(self) -> list[ObjectInfo]:
        with usable(self._root):
            found: list[ObjectInfo] = []
            for folder, _, names in os.walk(self._root):
                for path in (Path(folder, name) for name in names if not name.startswith("+")):
                    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                        stat = path.stat()
                        *folders, name = path.relative_to(self._root).parts
                        key = "/".join(map(urllib.parse.unquote, (*(part[:-1] for part in folders), name)))
                        found.append(ObjectInfo(key, stat.st_size, stat.st_mtime_ns // 1_000_000))
            return found

    def _path(self, key: str) -> Path:
        *folders, name = (urllib.parse.quote(part, safe="") for part in key.split("/"))
        return self._root.joinpath(*(f"{folder}+" for folder in folders), name)


def _make(folder: Path) -> None:
    """Make a folder, durably, and those above it."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
