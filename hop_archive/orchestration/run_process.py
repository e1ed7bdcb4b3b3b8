"""The process that is a run's alone: noted by the run, found again by others, exactly that one, and killed.

A pid is given again. With when its process started, in which namespace of pids, since which start of the machine, it
means one process or none.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

_STATE, _STARTED = 0, 19
"""Places of ``state`` and ``starttime`` in /proc/PID/stat, counted from what follows the command in brackets (proc(5))."""


def own_mark() -> str | None:
    """What finds this process again from another one of this machine.

    None where it is not a run's alone: Dagster's default launcher starts a process for each run, other launchers a pod or a
    task, which they can end themselves, and whoever executes a run in a notebook wants to keep that. None too where the
    system does not tell (it has no /proc).
    """
    return _mark(os.getpid()) if multiprocessing.parent_process() else None


def kill(mark: str) -> bool:
    """Kill the process of that mark. Its work stops wherever it is; no signal of a gentler kind reaches one that hangs.

    Returns:
        Whether it was there. It is not where it has ended, runs on another machine or in another container, or where
        nobody may look.
    """
    try:
        pid = int(mark.partition(" ")[0])
        process = os.pidfd_open(pid)  # from here on it is this process, whoever gets the pid after it
        try:
            if _mark(pid) != mark:
                return False
            signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            os.close(process)
    except (ValueError, OSError, AttributeError):  # the last: a system without pidfd
        return False
    return True


def _mark(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None
    return None if stat[_STATE] == "Z" else f"{pid} {stat[_STARTED]} {namespace} {boot}"
