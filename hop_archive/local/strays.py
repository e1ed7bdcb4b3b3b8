"""A stack's servers, found by themselves: for a directory whose ``stack.json`` does not say what runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from hop_archive.local.address import ServerName
from hop_archive.local.processes import ProcessMark

_PROGRAMS: Mapping[str, ServerName] = {"weed": "s3", "tansu": "kafka", "postgres": "postgres"}
_OUTPUTS = (1, 2)


def find_strays(directory: Path) -> dict[ServerName, ProcessMark]:
    """Return the servers that run from a stack's directory, whoever started them; their children are left out.

    A server is known by its program and by its place: it works in the directory that is its own there, or
    writes to the log that is its own there. (As root, Postgres may work elsewhere. Not every command line names
    the directory.) Neither is so of a program that only reads the log. Processes that the caller may not look
    into are not found.
    """
    found: dict[ServerName, ProcessMark] = {}
    for process in psutil.process_iter():
        try:
            command = tuple(process.cmdline())
            name = _PROGRAMS.get(Path(command[0]).name) if command else None
            if name and _is_of(process, directory, name):
                found[name] = ProcessMark(process.pid, command)
        except psutil.Error:
            continue
    return found


def _is_of(process: psutil.Process, directory: Path, name: ServerName) -> bool:
    return Path(process.cwd()).is_relative_to(directory / name) or directory / f"{name}.log" in _written(
        process
    )


def _written(process: psutil.Process) -> Iterator[Path]:
    return (Path(file.path) for file in process.open_files() if file.fd in _OUTPUTS)
