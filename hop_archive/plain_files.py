"""Values that processes of ours leave for each other in files: as JSON, in folders that nobody else can write to.

Never as pickles: to read one is to run what it says, and the folders stand where others can put things, in /tmp.
"""

from __future__ import annotations

import errno
import os
import stat
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from hop_archive.errors import ConfigurationError

Value = TypeVar("Value")

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
        return self._adapter.dump_json((value,))

    def loads(self, data: bytes) -> Value:
        """The value that ``dumps`` made this of; fields that came since have their defaults.

        Raises:
            ValueError: It is not of the type.
        """
        return self._adapter.validate_json(data)[0]

    @cached_property
    def _adapter(self) -> TypeAdapter[tuple[Value]]:
        # Not before it is needed: it takes tens of milliseconds, and mocks in memory need none.
        # Within a tuple, because a dataclass by itself would not take the settings.
        return TypeAdapter(tuple[self._kind], config=_BYTES_AS_TEXT)  # type: ignore[name-defined]


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
