"""What servers need of this machine: where their programs are installed, files that others must not read, and free TCP ports."""

from __future__ import annotations

import os
import random
import socket
import stat
from importlib.util import find_spec
from pathlib import Path

from hop_archive.errors import UnavailableError, without_package

LOOPBACK = "127.0.0.1"

# Below 32768, where Linux begins to hand out ports to outgoing connections: a port from there may be in
# somebody's use at the moment when a stopped server wants it back.
_CHOICE = range(20_000, 32_000)
_ATTEMPTS = 1_000

# Not the module's generator: a test that seeds that one would send every stack to the same ports.
_random = random.SystemRandom()


def package_directory(module: str, package: str) -> Path:
    """Return where a package's files are, without importing it.

    Raises:
        MissingSettingError: It is not installed.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise without_package(package, "local")
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


def is_free(port: int) -> bool:
    """Tell whether a server could listen on `port` of the loopback address now; a moment later it may not."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # As the servers do: connections of a predecessor that linger in TIME_WAIT are no hindrance.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose_ports(count: int) -> tuple[int, ...]:
    """Return `count` different ports that are free now, chosen at random so that two stacks seldom meet.

    Raises:
        UnavailableError: Hardly a port of the range is free.
    """
    chosen: set[int] = set()
    for _ in range(_ATTEMPTS):
        if len(chosen) == count:
            return tuple(sorted(chosen))
        port = _random.choice(_CHOICE)
        if is_free(port):
            chosen.add(port)
    raise UnavailableError(
        f"Found fewer than {count} free ports between {_CHOICE.start} and {_CHOICE.stop} on {LOOPBACK}.",
        remedy="Stop what is listening there.",
    )
