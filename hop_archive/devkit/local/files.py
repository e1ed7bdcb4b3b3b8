"""Where the servers' programs are installed, and files that others must not, or must, be able to read."""

from __future__ import annotations

import os
import stat
from importlib.util import find_spec
from pathlib import Path

from hop_archive.errors import MissingSettingError

INSTALL = "Install hop_archive with its extra: pip install 'hop_archive[local]'."


def package_directory(module: str, package: str) -> Path:
    """Return where a package's files are, without importing it.

    Raises:
        MissingSettingError: It is not installed.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingSettingError(f"The package {package} is not installed.", remedy=INSTALL)
    return Path(spec.origin).parent


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole by one that only its owner can read."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    unfinished.replace(path)


def others_can_enter(directory: Path) -> bool:
    """Tell whether any user can get to what is in `directory`: it and all above it are open to everyone.

    The answer errs towards no: a way in by group or access list is not seen.
    """
    resolved = directory.resolve()
    return all(place.stat().st_mode & stat.S_IXOTH for place in (resolved, *resolved.parents))
