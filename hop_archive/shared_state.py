"""Values that processes of ours leave for each other in files, and the state of mocks, which lies in such a file or in memory.

Files hold JSON, in folders that nobody else can write to. Never pickles: to read one is to run what it says, and the
folders stand where others can put things, in /tmp. A mock in a directory behaves as a server does: what one process wrote,
the next one finds. It is for tests and for trying things out: each access loads and saves the whole state under a lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from hop_archive.errors import ConfigurationError

Value = TypeVar("Value")
State = TypeVar("State")

_BYTES_AS_TEXT = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Plain(Generic[Value]):
    """How values of one type are written as JSON and read again; what is read is of that type, or refused.

    Args:
        kind: The type: a dataclass, a named tuple, or a container of such. A dict whose keys are no text is annotated with
            ``Pairs``.
    """

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def dumps(self, value: Value) -> bytes:
        """The value as JSON.

        Raises:
            ValueError: A text in it is no Unicode.
        """
        return _adapter(self._kind).dump_json((value,))

    def loads(self, data: bytes) -> Value:
        """The value that ``dumps`` made this of; fields that came since have their defaults.

        Raises:
            ValueError: It is not of the type.
        """
        value: Value = _adapter(self._kind).validate_json(data)[0]
        return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    # Once a type, and not before it is needed: it takes tens of milliseconds, and mocks in memory need none.
    # Within a tuple, because a dataclass by itself would not take the settings.
    return TypeAdapter(tuple[kind], config=_BYTES_AS_TEXT)


class Pairs:
    """Annotates a dict whose keys are no text, which JSON's objects cannot have: it is written as a list of pairs."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A list of pairs outside, a dict inside."""
        key, value = get_args(source)
        pairs = handler.generate_schema(list[tuple[key, value]])  # type: ignore[valid-type]  # (known when it runs)
        written = core_schema.plain_serializer_function_ser_schema(
            lambda found: list(found.items()), return_schema=pairs
        )
        return core_schema.no_info_after_validator_function(dict, pairs, serialization=written)


def own_folder(path: Path) -> Path:
    """A folder that only this user can write to: made, with its parents, where it is not there.

    Raises:
        ConfigurationError: It is somebody else's, others can write to it, or it is a link.
        OSError: It can be neither made nor looked at; its ``strerror`` says why, for people.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError as error:
        in_its_place = "a file, or a link that leads to no folder, stands where a folder is wanted"
        raise FileExistsError(errno.EEXIST, in_its_place, error.filename) from error
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigurationError(
            f"The folder {path} is not this user's alone: it is a link, somebody else's, or others can write to it.",
            remedy="Look at what is in it, and remove it; or make it yours: chown, chmod 700.",
            path=str(path),
        )
    return path


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
            if self._path is None:
                self._value = value
                return
            beside = self._path.with_suffix(".new")
            content = self._plain.dumps(value)
            with usable(self._path.parent):
                beside.write_bytes(content)
                beside.replace(self._path)

    def _load(self) -> State:
        if self._path is None:
            if self._value is None:
                self._value = self._initial()
            return self._value
        with usable(self._path.parent):
            content = self._path.read_bytes() if self._path.exists() else None
        if content is None:
            return self._initial()
        try:
            return self._plain.loads(content)
        except ValueError as error:
            raise ConfigurationError(
                f"The mock's file {self._path} holds something else than this version keeps there.",
                remedy="Remove the directory: what a mock keeps is for trying things out.",
                path=str(self._path),
            ) from error

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
