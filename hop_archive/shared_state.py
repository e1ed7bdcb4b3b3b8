"""State that mocks share: in memory, or in a directory so that several processes see one mock.

A mock in a directory behaves as a server does: what one process wrote, the next one finds. It is written
for tests and for trying things out: every access loads and saves the whole state under a lock.
"""

from __future__ import annotations

import fcntl
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

State = TypeVar("State")


class SharedState(Generic[State]):
    """One mutable value with a lock around it; within a directory it is shared with other processes.

    Args:
        initial: Makes the value where there is none yet.
        directory: Where it is kept; None keeps it in memory.
        name: File name within the directory.
    """

    def __init__(
        self, initial: Callable[[], State], directory: Path | None = None, name: str = "state"
    ) -> None:
        self._initial = initial
        self._path = directory / f"{name}.pickle" if directory else None
        self._lock = threading.RLock()
        self._value: State | None = None

    @contextmanager
    def read(self) -> Iterator[State]:
        """The value, not to be changed, while the lock is held."""
        with self._lock, self._file_lock():
            yield self._load()

    @contextmanager
    def change(self) -> Iterator[State]:
        """The value, to be changed in place, and kept when the block ends.

        The block checks first and then changes: in memory, a change made before it raises would stay.
        """
        with self._lock, self._file_lock():
            value = self._load()
            yield value
            self._save(value)

    def _load(self) -> State:
        if self._path is not None:
            if self._path.exists():
                return pickle.loads(self._path.read_bytes())  # type: ignore[no-any-return]  # noqa: S301 (our own file)
            return self._initial()
        if self._value is None:
            self._value = self._initial()
        return self._value

    def _save(self, value: State) -> None:
        if self._path is None:
            self._value = value
            return
        beside = self._path.with_suffix(".new")
        beside.write_bytes(pickle.dumps(value))
        beside.replace(self._path)

    @contextmanager
    def _file_lock(self) -> Iterator[None]:
        if self._path is None:
            yield
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
