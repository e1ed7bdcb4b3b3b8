"""Files as messages: the bytes of each are the value, and headers say what it is, as Hopskotch's publishers would.

Nothing is altered, whatever a file holds. Headers describe; nothing depends on them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

from hop_archive.devkit.samples import Sample
from hop_archive.errors import ConfigurationError, MissingSettingError
from hop_archive.model.annotations import MEDIA_TYPES, sniffed_media_type
from hop_archive.model.identity import UUID_NAMESPACE, digest

LARGEST_BYTES = 1_040_000
"""The largest file unless told otherwise: a broker's own default of 1,048,588 bytes for a record batch
(``message.max.bytes``), less room for headers."""

_FORMATS = {media_type: name for name, media_type in MEDIA_TYPES.items()}
_PARSED_BYTES = 4_000_000
_NAMED = 5
_SENDER = b"hop-archive publish"


def files(paths: Collection[Path]) -> list[Path]:
    """The files among ``paths`` and, sorted by name, all those in folders among them, however deep.

    What begins with a dot in a folder is left out, as is what is no regular file.

    Raises:
        MissingSettingError: A path leads nowhere, or there is no file at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise MissingSettingError(f"There is no file or folder {path}.", path=str(path))
        if not path.is_dir():
            found.append(path)
            continue
        inside = (file for file in path.rglob("*") if file.is_file())
        found += sorted(
            file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
    if not found:
        raise MissingSettingError(f"There is no file in {', '.join(map(str, paths))}.")
    return found


def without_large(found: Collection[Path], largest_bytes: int) -> tuple[list[Path], list[Path]]:
    """Those of at most ``largest_bytes``, and those above. Sizes are asked for; nothing is read.

    Raises:
        ConfigurationError: A file cannot be looked at.
    """
    sizes = {path: _size_bytes(path) for path in found}
    return [p for p in found if sizes[p] <= largest_bytes], [p for p in found if sizes[p] > largest_bytes]


def refuse_large(too_large: Collection[Path], largest_bytes: int) -> None:
    """Say which files are too large, if there are any.

    Raises:
        ConfigurationError: There are.
    """
    if not too_large:
        return
    some = sorted(too_large)[:_NAMED]
    named = ", ".join(f"{path} ({_size_bytes(path):,} bytes)" for path in some)
    more = f" and {len(too_large) - len(some):,} more" if len(too_large) > len(some) else ""
    raise ConfigurationError(
        f"Too large for a message of at most {largest_bytes:,} bytes: {named}{more}. Nothing was sent.",
        remedy="--skip-too-large leaves them out; --largest says what the topic takes, where that is more.",
        files=[str(path) for path in too_large],
    )


def messages(found: Collection[Path], topic: str, *, seed: int) -> Iterator[Sample]:
    """Yield the ``message`` of each file, read when its turn comes."""
    return (message(path, topic, seed=seed) for path in found)


def message(path: Path, topic: str, *, seed: int) -> Sample:
    """The message of one file, ``Sample.kind`` being its path; it leaves time and partition to the producer.

    The same file under the same path has the same ``_id`` for the same seed, and another one for another.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        value = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    name = str(path).encode(errors="backslashreplace").decode()  # Linux allows names that are not UTF-8
    message_id = uuid.uuid5(UUID_NAMESPACE, f"{seed}/{name}/{digest(None, (), value).hex()}")
    headers = (
        ("title", path.stem.encode(errors="replace")),
        ("file_name", path.name.encode(errors="replace")),
        ("_id", message_id.bytes),
        ("_sender", _SENDER),
        ("_format", guessed_format(value)),
    )
    return Sample(topic, None, value, headers, None, None, str(path))


def guessed_format(value: bytes) -> bytes:
    """The ``_format`` that hop-client would give to such content; ``blob`` where none fits.

    Told by content, for the names of alert files say little. ``json`` is what Python's parser takes, as
    hop-client's does.
    """
    head = value[:2000]
    # GCN's text notices are ``NAME: text`` lines, of which the first is the title (GCN, "notices" documentation).
    if head.lstrip().startswith(b"TITLE:") and b"NOTICE_" in head:
        return b"gcntextnotice"
    guessed = _FORMATS.get(sniffed_media_type(value), b"blob")
    if guessed != b"json" or len(value) > _PARSED_BYTES:
        return guessed
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return b"blob"
    names = set(document) if isinstance(document, dict) else set()
    if names == {"header", "body"}:
        return b"circular"
    return b"external" if names == {"url"} else b"json"


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{path} cannot be read: {error.strerror}.", path=str(path))
