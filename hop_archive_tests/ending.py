"""A test run that has ended, however it ended, leaves no process behind: a watcher outside of it ends those that it started.

Servers are started detached, so a run that is killed cannot stop them. Each run has a mark in its environment, which all that
it starts inherits, servers too. The watcher reads a pipe that nobody but the run has open; at its end the run is over.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import psutil

from hop_archive.devkit.local.processes import RUN_VARIABLE

_GRACE_S = 5.0
_ROUNDS = 3
_watchers: list[subprocess.Popen[bytes]] = []


def pytest_configure() -> None:
    """Start the watcher; not in a worker of pytest-xdist, whose run has one.

    A shell has what it runs in the background ignore SIGINT, and all that is started by it: no program would be interrupted.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if RUN_VARIABLE in os.environ:
        return
    run = uuid.uuid4().hex
    program = [sys.executable, __file__, run]
    # A session of its own: what ends the terminal's whole group, or Ctrl-C, is not for it.
    _watchers.append(subprocess.Popen(program, stdin=subprocess.PIPE, start_new_session=True))
    os.environ[RUN_VARIABLE] = run


def pytest_unconfigure() -> None:
    """Let the watcher end what the run has left, and wait for that."""
    while _watchers:
        watcher = _watchers.pop()
        watcher.communicate()
        del os.environ[RUN_VARIABLE]


def end_all_of(run: str) -> None:
    """End the processes that bear a run's mark, by force where asking is of no use."""
    for _ in range(_ROUNDS):  # one may have started another while it was asked to end
        left = [process for process in psutil.process_iter() if _bears(process, run)]
        if not left:
            return
        homes = [home for process in left if (home := _outside_home(process))]
        commands = [command for process in left if (command := _command(process))]
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGINT if _is_postgres(process) else signal.SIGTERM)
        for process in psutil.wait_procs(left, timeout=_GRACE_S)[1]:
            with suppress(psutil.Error):
                process.kill()
        for home in homes:
            shutil.rmtree(home, ignore_errors=True)
        for command in commands:
            _remove_sockets(command)


def _bears(process: psutil.Process, run: str) -> bool:
    try:
        return process.pid != os.getpid() and bool(process.environ().get(RUN_VARIABLE) == run)
    except psutil.Error:
        return False


def _is_postgres(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.name() == "postgres")  # which SIGTERM would have wait for its clients
    return False


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return list(process.cmdline())
    return []


def _remove_sockets(command: list[str]) -> None:
    """Those of an S3 server, which are in /tmp under the names of its ports; a later server may be given these."""
    from hop_archive.devkit.local.s3 import ObjectStore, ports_in

    if ports := ports_in(command):
        ObjectStore(Path(), "", "").tidy(ports)


def _outside_home(process: psutil.Process) -> Path | None:
    """The directory that a Postgres of root's has below /var/tmp, which pytest does not clear away."""
    from hop_archive.devkit.local.postgres import OUTSIDE_PREFIX

    with suppress(psutil.Error, ValueError, IndexError):
        command = _command(process)
        home = Path(command[command.index("-D") + 1]).parent
        return home if home.name.startswith(OUTSIDE_PREFIX) else None
    return None


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_all_of(sys.argv[1])
