"""State that mocks share: in memory, or in a directory so that several processes see one mock.

A mock in a directory behaves as a server does: what one process wrote, the next one finds. It is written
for tests and for trying things out: every access loads and saves the whole state under a lock.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from hop_archive.errors import ConfigurationError
from hop_archive.plain_files import Plain, own_folder

State = TypeVar("State")


@contextmanager
def usable(directory: Path) -> Iterator[None]:
    """Do the block's file work in a mock's directory, which is made where it is not there.

    Raises:
        ConfigurationError: It cannot be done there, or others could change what is there.
    """
    try:
        own_folder(directory)
        yield
    except OSError as error:
        where = "" if error.filename in (None, str(directory)) else f" ({error.filename})"
        raise ConfigurationError(
            f"The mock's directory {directory} cannot be used: {error.strerror}{where}.",
            remedy="Name one that you can write in: the stanza's directory, or HOP_ARCHIVE_MOCK_DIR for the shipped "
            "mocks.",
            path=str(directory),
        ) from error


class SharedState(Generic[State]):
    """One mutable value with a lock around it; within a directory it is shared with other processes.

    Args:
        kind: The type of the value, as ``Plain`` takes it; called to make the value where there is none yet.
        directory: Where it is kept; None keeps it in memory.
        name: File name within the directory.
        initial: Makes the first value instead.
    """

    def __init__(
        self,
        kind: Any,
        directory: Path | None = None,
        name: str = "state",
        initial: Callable[[], State] | None = None,
    ) -> None:
        self._initial: Callable[[], State] = initial or kind
        self._plain: Plain[State] = Plain(kind)
        self._path = directory / f"{name}.json" if directory else None
        self._lock = threading.RLock()
        self._value: State | None = None

    @contextmanager
    def read(self) -> Iterator[State]:
        """The value, not to be changed, while the lock is held.

        Raises:
            ConfigurationError: The directory cannot be used.
        """
        with self._lock, self._file_lock():
            yield self._load()

    @contextmanager
    def change(self) -> Iterator[State]:
        """The value, to be changed in place, and kept when the block ends.

        The block checks first and then changes: in memory, a change made before it raises would stay.

        Raises:
            ConfigurationError: The directory cannot be used.
        """
        with self._lock, self._file_lock():
            value = self._load()
            yield value
            self._save(value)

    def _load(self) -> State:
        if self._path is not None:
            with usable(self._path.parent):
                content = self._path.read_bytes() if self._path.exists() else None
            return self._initial() if content is None else self._read(content)
        if self._value is None:
            self._value = self._initial()
        return self._value

    def _read(self, content: bytes) -> State:
        try:
            return self._plain.loads(content)
        except ValueError as error:
            raise ConfigurationError(
                f"The mock's file {self._path} holds something else than this version keeps there.",
                remedy="Remove the directory: what a mock keeps is for trying things out.",
                path=str(self._path),
            ) from error

    def _save(self, value: State) -> None:
        if self._path is None:
            self._value = value
            return
        beside = self._path.with_suffix(".new")
        content = self._plain.dumps(value)
        with usable(self._path.parent):
            beside.write_bytes(content)
            beside.replace(self._path)

    @contextmanager
    def _file_lock(self) -> Iterator[None]:
        if self._path is None:
            yield
            return
        with usable(self._path.parent):
            opened = self._path.with_suffix(".lock").open("w")
        with opened as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
