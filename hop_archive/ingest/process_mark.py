"""Marks of processes: by one a process is found again, or known to be gone, from another one of the same machine.

A pid is given again. With when its process started, in which namespace of pids, since which start of which machine, it means
one process or none. So what an archiver that died had taken on is taken over at once (``ingest/sharing.py``), and what is left
of a run that hung is killed (``orchestration/runs.py``). From another machine or container nothing can be said of it.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

_STATE, _STARTED = 0, 19
"""Places of ``state`` and ``starttime`` in /proc/PID/stat, counted from what follows the command in brackets (proc(5))."""
_OVER = {"Z", "X"}
"""States of a process that has ended and was not yet waited for. One that is stopped (T) lives."""


def process_mark() -> str | None:
    """The mark of this process; None where the system does not tell (no /proc, or that of another container)."""
    try:
        return f"{os.getpid()} {_started(os.getpid())} {_place()}"
    except OSError:
        return None


def is_gone(mark: str) -> bool:
    """Whether the process of that mark has ended for certain; one that is stopped or hangs has not.

    False wherever that cannot be seen: it ran on another machine or in another container, or the text is no mark.
    """
    try:
        pid, started, place = mark.split(" ", 2)
        if place != _place():
            return False
        os.kill(int(pid), 0)  # asked first: /proc may hide processes of other users
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    except (ValueError, OverflowError, OSError):
        return False
    try:
        return _started(int(pid)) != started
    except OSError:
        return False


def kill_process(mark: str) -> bool:
    """Kill the process of that mark, and say whether it was there; no signal of a gentler kind reaches one that hangs.

    It is not there where it has ended, runs on another machine or in another container, or where nobody may look.
    """
    try:
        pid, started, place = mark.split(" ", 2)
        process = os.pidfd_open(int(pid))  # from here on it is this process, whoever gets the pid after it
        try:
            if place != _place() or _started(int(pid)) != started:
                return False
            signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            os.close(process)
    except (ValueError, OverflowError, OSError, AttributeError):  # the last: a system without pidfd
        return False
    return True


def _started(pid: int) -> str | None:
    """When a process started, by the machine's clock of ticks; None where it has ended."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return None if stat[_STATE] in _OVER else stat[_STARTED]


def _place() -> str:
    """Where pids mean what they mean here. A machine that was copied while it ran has its start in common with the copy, not its name."""
    if str(Path("/proc/self").readlink()) != str(os.getpid()):
        raise FileNotFoundError("/proc is that of another namespace of pids")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{Path('/proc/self/ns/pid').readlink()} {boot} {socket.gethostname()}"
