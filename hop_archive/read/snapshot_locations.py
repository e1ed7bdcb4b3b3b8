"""Where snapshots of the catalog stand: in a folder, or in the store under ``hop_archive/snapshots/``."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Protocol

from hop_archive.errors import ConfigurationError, ConflictError
from hop_archive.model.keys import OWN_FOLDER
from hop_archive.store.protocol import Created, Extent, NewObject, Store

PREFIX = f"{OWN_FOLDER}snapshots/"
"""Where in a store they are."""

_MANIFESTS = "manifests"
_NUMBERED = re.compile(r"(?:^|/)(?:part-)?(\d{8})(?:-\d{5}\.parquet|\.json)$")


def manifest_path(number: int) -> str:
    """Where the manifest of a snapshot stands; the one of the greatest number is the newest."""
    return f"{_MANIFESTS}/{number:08}.json"


class SnapshotLocation(Protocol):
    """Files by path, never changed once they are there; and numbered manifests."""

    def writing(self) -> contextlib.AbstractContextManager[int]:
        """Be the one who writes, for the length of a block; the number of the manifest to write.

        Raises:
            ConflictError: Another one writes.
            ConfigurationError: It cannot be written.
        """

    def put(self, path: str, body: bytes) -> None:
        """Put a file there, durably, whole or not at all."""

    def newest_manifest(self) -> bytes | None:
        """The newest manifest; None where there is none."""

    def newest_was_changed(self) -> bool:
        """Whether the place itself tells that the newest manifest is not what was put there; False where it tells nothing."""

    def fetch(self, path: str, folder: Path) -> Path:
        """A file of the location as one on this machine: its own, or a copy in a folder."""

    def forget_others(self, kept: Collection[str]) -> None:
        """Remove files that no manifest needs any more, where that is allowed."""


class FolderLocation:
    """A location in a folder.

    Args:
        folder: Where; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    @contextlib.contextmanager
    def writing(self) -> Iterator[int]:
        try:
            if (
                self._folder.is_dir()
                and any(self._folder.iterdir())
                and not (self._folder / _MANIFESTS).is_dir()
            ):
                raise ConfigurationError(
                    f"{self._folder} is not empty, and no catalog snapshot.",
                    remedy="Name another folder.",
                    path=str(self._folder),
                )
            (self._folder / _MANIFESTS).mkdir(parents=True, exist_ok=True)
            handle = os.open(self._folder / _MANIFESTS, os.O_RDONLY)
            try:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise _another(str(self._folder)) from None
                yield _next(path.name for path in self._folder.rglob("*"))
            finally:
                os.close(handle)
        except OSError as error:
            raise ConfigurationError(
                f"{error.filename or self._folder} cannot be used: {error.strerror}.", path=str(self._folder)
            ) from error

    def put(self, path: str, body: bytes) -> None:
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.partial")  # readers of the folder pass over hidden files
        with beside.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)

    def newest_manifest(self) -> bytes | None:
        found = sorted((self._folder / _MANIFESTS).glob("[0-9]*.json"))
        return found[-1].read_bytes() if found else None

    def newest_was_changed(self) -> bool:
        return False  # a folder tells nothing

    def fetch(self, path: str, folder: Path) -> Path:
        return self._folder / path

    def forget_others(self, kept: Collection[str]) -> None:
        """Remove Parquet files that the newest manifest does not name, and older manifests."""
        for path in self._folder.rglob("part-*.parquet"):
            if path.relative_to(self._folder).as_posix() not in kept:
                path.unlink()
        for path in sorted((self._folder / _MANIFESTS).glob("[0-9]*.json"))[:-1]:
            path.unlink()


class StoreLocation:
    """A location in a store. Nothing is removed there: what no manifest names any more stays until somebody deletes it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __str__(self) -> str:
        return f"{PREFIX} of store {self._store.name}"

    @contextlib.contextmanager
    def writing(self) -> Iterator[int]:
        """Take the next number; who takes the same is refused when either puts what the other has put."""
        yield _next(info.key for info in self._store.listing(PREFIX))

    def put(self, path: str, body: bytes) -> None:
        (outcome,) = self._store.create([NewObject(PREFIX + path, body)])
        if outcome is Created.OTHER:
            raise _another(str(self))

    def newest_manifest(self) -> bytes | None:
        keys = [info.key for info in self._store.listing(f"{PREFIX}{_MANIFESTS}/")]
        return next(iter(self._store.fetch([Extent(keys[-1])]))) if keys else None

    def newest_was_changed(self) -> bool:
        """Whether its ETag is that of other bytes, in a store whose ETags are MD5s: that of its smallest file tells."""
        infos = list(self._store.listing(PREFIX))
        keys = [info.key for info in infos if info.key.startswith(f"{PREFIX}{_MANIFESTS}/")]
        if not keys or self._is_md5(keys[-1]):
            return False
        others = sorted((info for info in infos if info.key != keys[-1]), key=lambda info: info.size_bytes)
        return any(self._is_md5(info.key) for info in others[:1])

    def _is_md5(self, key: str) -> bool:
        body = next(iter(self._store.fetch([Extent(key)])))
        return self._store.etag(key).strip('"') == hashlib.md5(body, usedforsecurity=False).hexdigest()

    def fetch(self, path: str, folder: Path) -> Path:
        """A copy in the folder."""
        # By a hash: the parts of a path may each be as long as a file's name may be.
        copy = folder / hashlib.blake2b(path.encode(), digest_size=16).hexdigest()
        copy.write_bytes(next(iter(self._store.fetch([Extent(PREFIX + path)]))))
        return copy

    def forget_others(self, kept: Collection[str]) -> None:
        """Leave all: deleting is not for a nightly run to do."""


def _next(names: Iterator[str]) -> int:
    """The number after all that files have, those of a snapshot that was killed included."""
    found = (_NUMBERED.search(name) for name in names)
    return 1 + max((int(match[1]) for match in found if match), default=0)


def _another(where: str) -> ConflictError:
    return ConflictError(f"Another snapshot to {where} is under way.", remedy="Let it end.")
