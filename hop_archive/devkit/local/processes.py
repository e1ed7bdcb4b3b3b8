"""A server as a process of its own: started detached, awaited, found again, stopped; and what it must provide.

A server outlives the process that started it, so a later process has to find it again. A pid alone would not
do: it may have been given to another process since. The pid with the command line that was started does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psutil

from hop_archive.errors import ForbiddenError, UnavailableError

RUN_VARIABLE = "TEST_RUN_OF_HOP_ARCHIVE"
"""Environment variable with the mark of a test run: whoever sees that the run is over ends all that bears it. It begins
otherwise than the archive's own, of which tests rid the environment of programs that they start."""

READY_TIMEOUT_S = 60.0
KILL_TIMEOUT_S = 10.0

_POLL_S = 0.05
_ENDING_S = 2.0
_QUOTED_LINES = 15
_QUOTED_BYTES = 16_384


class NotAnswering(Exception):  # noqa: N818 - a state of affairs that passes, not yet an error
    """A server that has been asked does not (yet) answer as it should; says why."""


class ServerDiedError(UnavailableError):
    """A server ended when it should be running."""


@dataclass(frozen=True, slots=True)
class Account:
    """The system user that a server runs as, where that is not the caller."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a server.

    Attributes:
        command: Program and arguments; everyone on the machine can read them, so no secrets.
        directory: Working directory, which `account` must be able to enter.
        environment: Added to a bare environment. The caller's is not handed down: these servers take settings
            and credentials from variables (`AWS_*`, `WEED_*`, `PG*`) that are meant for others.
        account: Who it runs as; None for the caller.
    """

    command: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    account: Account | None = None


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """What finds a server's process again, from any process, as long as it runs.

    No other server has its command line: its ports are in it. The pid is None where whoever was starting it may have been
    killed before noting it.
    """

    pid: int | None
    command: tuple[str, ...]


class Server(ABC):
    """A kind of server. `ports` are always as many as `port_count`.

    Attributes:
        port_count: How many ports it listens on.
        stop_signal: What asks it to end at once, without waiting for its clients.
        grace_s: How long it is given to end by itself before it is killed.
    """

    port_count: ClassVar[int] = 1
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    grace_s: ClassVar[float]

    @abstractmethod
    def prepare(self) -> None:
        """Make the files that it needs; called while it is not running. Again: repairs what is missing."""

    @abstractmethod
    def launch(self, ports: Sequence[int]) -> Launch:
        """Say how to start it on these ports."""

    @abstractmethod
    def probe(self, ports: Sequence[int]) -> None:
        """Ask it something harmless; raise `NotAnswering` unless it answers well."""

    def settle(self, ports: Sequence[int]) -> None:
        """Create what belongs in it, and prove that it takes data; `NotAnswering` unless all is well.

        Called after a start until it succeeds, so it may be called again at any point.
        """
        self.probe(ports)

    def tidy(self, ports: Sequence[int]) -> None:  # noqa: B027 - most leave nothing behind
        """Remove what it leaves behind outside its directory; called after it ended."""


def start(launch: Launch, log: Path) -> ProcessMark:
    """Start a server that survives the caller and its terminal, all its output going to `log`.

    The log of the run before is kept as ``….1``, so `log` always tells of this run alone.

    Raises:
        UnavailableError: The program cannot be run.
    """
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    with log.open("xb") as output:
        try:
            process = subprocess.Popen(
                launch.command,
                cwd=launch.directory,
                env=bare_environment(launch.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                umask=0o077,
                **as_account(launch.account),
            )
        except OSError as error:
            raise UnavailableError(f"Cannot run {launch.command[0]}: {error}.") from error
    # Should it end while this process lives, somebody has to collect it. As a zombie it would keep its pid,
    # and Postgres refuses to start while its former pid is there.
    threading.Thread(target=process.wait, daemon=True).start()
    return ProcessMark(process.pid, launch.command)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back while the block runs, and let it strike at its end.

    A process that is being started when it strikes would be no one's: its pid is not known yet, and for a moment its
    command line is still that of this process. What is started does not inherit this.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal strikes here
        return
    struck: list[int] = []
    former = signal.signal(signal.SIGINT, lambda number, _: struck.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
    if struck:
        signal.raise_signal(signal.SIGINT)


def bare_environment(added: Mapping[str, str]) -> dict[str, str]:
    """Return the little of the caller's environment that programs need to run at all, and `added`."""
    names = ("PATH", "LD_LIBRARY_PATH", RUN_VARIABLE)
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "LC_ALL": "C", **added}


def as_account(account: Account | None) -> dict[str, Any]:
    """Return the arguments with which `subprocess` runs a program as `account`."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def pid_of(mark: ProcessMark | None) -> int | None:
    """Return the pid of the marked process; None if it does not run, is ending or was not yet collected."""
    if mark is None:
        return None
    candidates = psutil.pids() if mark.pid is None else [mark.pid]
    return next((pid for pid in candidates if _command_of(pid) == mark.command), None)


def is_running(mark: ProcessMark | None) -> bool:
    """Tell whether `pid_of` the marked process is known."""
    return pid_of(mark) is not None


def _command_of(pid: int) -> tuple[str, ...] | None:
    """Return a process's command line: empty once it is ending, or of the kernel; None if there is none."""
    try:
        return tuple(psutil.Process(pid).cmdline())
    except psutil.ZombieProcess:
        return ()
    except psutil.NoSuchProcess:
        return None


def stop(mark: ProcessMark, stop_signal: signal.Signals, grace_s: float) -> None:
    """End a server and its children, by asking first and by force after `grace_s` seconds.

    Returns when none of them is left, and so their ports are free. One that is not running is left at that.

    Raises:
        ForbiddenError: It belongs to another user.
        UnavailableError: It outlived even the force, for instance in a hanging disk.
    """
    pid = pid_of(mark) if mark.pid is None else mark.pid
    if pid is None:
        return
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    # One that is ending is waited for, until it is gone, with its ports. One that stays like that belongs to the kernel,
    # which after a restart of the machine may use the pid.
    deadline = time.monotonic() + _ENDING_S
    while (command := _command_of(pid)) == () and not _has_ended(process) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if command != mark.command:
        return
    try:
        family = [process, *process.children(recursive=True)]
        process.send_signal(stop_signal)
        for remaining in _remaining(family, grace_s):
            with contextlib.suppress(psutil.NoSuchProcess):
                remaining.kill()
        if left := _remaining(family, KILL_TIMEOUT_S):
            pids = ", ".join(str(remaining.pid) for remaining in left)
            raise UnavailableError(f"Killed, yet still there after {KILL_TIMEOUT_S:.0f} s: processes {pids}.")
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        owner = "another user"
        with contextlib.suppress(psutil.Error):
            owner = f"user {process.username()}"
        raise ForbiddenError(
            f"Process {process.pid} ({mark.command[0]}) belongs to {owner}.",
            remedy="Stop the stack as that user, or as root.",
        ) from error


def _remaining(family: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    deadline = time.monotonic() + timeout_s
    while (
        left := [process for process in family if not _has_ended(process)]
    ) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return left


def _has_ended(process: psutil.Process) -> bool:
    try:
        # A zombie whose other threads are still ending has its ports yet.
        if process.is_running() and not (
            process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
        ):
            return False
    except psutil.NoSuchProcess:
        return True
    # If it is this process's child; the thread that waits for it may not have had its turn yet.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return True


def await_answer(
    name: str, ask: Callable[[], None], mark: ProcessMark, log: Path, timeout_s: float = READY_TIMEOUT_S
) -> None:
    """Wait until `ask` no longer raises `NotAnswering`, while the server's process runs.

    Raises:
        ServerDiedError: The process ended; the message quotes the end of its log.
        UnavailableError: It still ran, but did not answer well within `timeout_s` seconds; likewise.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            ask()
            break
        except NotAnswering as error:
            reason = str(error)
        if not is_running(mark):
            raise ServerDiedError(
                _with_log(f"{name} ended instead of serving", log), server=name, log=str(log)
            )
        if time.monotonic() >= deadline:
            problem = f"{name} did not answer well within {timeout_s:.0f} s ({reason})"
            raise UnavailableError(_with_log(problem, log), server=name, log=str(log))
        time.sleep(_POLL_S)
    # Somebody else's server on that port may have answered.
    if not is_running(mark):
        raise ServerDiedError(
            _with_log(f"{name} ended after it had answered", log), server=name, log=str(log)
        )


def _with_log(problem: str, log: Path) -> str:
    lines = end_of(log)
    quoted = "\n".join(f"    {line}" for line in lines) if lines else "    (it wrote nothing)"
    return f"{problem}. The end of its log, {log}:\n{quoted}"


def end_of(log: Path) -> list[str]:
    """Return the last lines of a log, at most 15 of its last 16 KiB; none where there is no log."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _QUOTED_BYTES))
        text = file.read().decode(errors="replace")
    return text.splitlines()[-_QUOTED_LINES:]
