"""A stack's servers, found by themselves: for a directory whose ``stack.json`` does not say what runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from hop_archive.devkit.local.address import ServerName
from hop_archive.devkit.local.machine import LOOPBACK
from hop_archive.devkit.local.processes import ProcessMark
from hop_archive.devkit.local.s3 import ports_in
from hop_archive.devkit.local.state import CLUSTER_ID_PREFIX, LOCK_FILE, STATE_FILE

_PROGRAMS: Mapping[str, ServerName] = {"weed": "s3", "tansu": "kafka", "postgres": "postgres"}
_OUTPUTS = (1, 2)
_DESCRIPTORS = Path("/proc")  # Linux's; elsewhere psutil has to do


def find_strays(directory: Path) -> dict[ServerName, list[ProcessMark]]:
    """Return the stack's own servers that run, whichever `up` started them; not the processes that they started.

    A server is known by two things that only its launch by a stack gives, together: options that only a stack
    starts it with, and its place, which is that it writes to the log that is its own in `directory`, even if
    that was removed, or works on the data that are its own there, beside that log. So another's Postgres is not
    found, whatever its directory and its log are called; nor is a server's shell, or who only reads a log.
    Where there is nothing of a stack's in `directory`, no process is looked at; those that the caller may not
    look into are found by their data only.
    """
    found: defaultdict[ServerName, list[ProcessMark]] = defaultdict(list)
    left = (STATE_FILE, LOCK_FILE, *(f"{name}.log" for name in _PROGRAMS.values()))
    for process in psutil.process_iter() if any((directory / file).exists() for file in left) else ():
        try:
            command = tuple(process.cmdline())
            name = _PROGRAMS.get(Path(command[0]).name) if command else None
            if name and _is_a_stacks(name, command) and _is_in_place(process, command, directory, name):
                found[name].append(ProcessMark(process.pid, command))
        except psutil.Error:
            continue
    return dict(found)


def _is_a_stacks(name: ServerName, command: Sequence[str]) -> bool:
    """Whether a server has options that only a stack starts it with."""
    if name == "kafka":
        return command[1:3] == ("broker", "--cluster-id") and "".join(command[3:4]).startswith(
            CLUSTER_ID_PREFIX
        )
    if name == "postgres":
        # Reached on the loopback alone, without any Unix socket, all of it said on the command line.
        options = {f"listen_addresses={LOOPBACK}", "unix_socket_directories="}
        return command[1:2] == ("-D",) and options <= set(command)
    try:
        return bool(ports_in(command))
    except ValueError:  # a port that is no number
        return False


def _is_in_place(process: psutil.Process, command: Sequence[str], directory: Path, name: ServerName) -> bool:
    log, data = directory / f"{name}.log", directory / name / "data"
    if log.exists() and not {str(data), f"-dir={data}"}.isdisjoint(command):
        return True
    # Where its standard output and error go; nowhere for a process that the caller may not look into.
    outputs: list[str] = []
    if not (_DESCRIPTORS / "self" / "fd").exists():
        outputs = [file.path for file in process.open_files() if file.fd in _OUTPUTS]
    else:
        # Not by psutil, which leaves out files that were removed.
        with suppress(OSError):
            for output in _OUTPUTS:
                outputs.append(str((_DESCRIPTORS / str(process.pid) / "fd" / str(output)).readlink()))
    return not {str(log), f"{log} (deleted)"}.isdisjoint(outputs)
