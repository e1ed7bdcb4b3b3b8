"""The local stack: Kafka, Postgres and S3 in one directory, started once and used by any number of processes.

What runs is written in the directory's ``stack.json``, before it is waited for; so whatever is killed when,
`up` and `down` find every server again.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from hop_archive.devkit.local import processes
from hop_archive.devkit.local.address import VARIABLE_OF, External, ServerName, StackAddress
from hop_archive.devkit.local.kafka import Kafka, ask_kafka
from hop_archive.devkit.local.machine import LOOPBACK, choose_ports, is_free
from hop_archive.devkit.local.postgres import OUTSIDE_PREFIX, Postgres, ask_postgres, choose_home
from hop_archive.devkit.local.processes import NotAnswering, ProcessMark, Server, ServerDiedError
from hop_archive.devkit.local.s3 import PRIMARY_BUCKET, ObjectStore, S3Address, ports_in
from hop_archive.devkit.local.state import (
    CLUSTER_ID_PREFIX,
    LOCK_FILE,
    STATE_FILE,
    DamagedStateError,
    ServerState,
    StackState,
    locked,
    read_state,
    write_state,
)
from hop_archive.errors import ConfigurationError, ForbiddenError, MissingSettingError, UnavailableError

# In the order of their start: the slowest to become ready first, so that the others start meanwhile.
SERVER_NAMES: tuple[ServerName, ...] = ("s3", "kafka", "postgres")

_PORT_ATTEMPTS = 3

_PROGRAMS: Mapping[str, ServerName] = {"weed": "s3", "tansu": "kafka", "postgres": "postgres"}
_OUTPUTS = (1, 2)
_DESCRIPTORS = Path("/proc")  # Linux's; elsewhere psutil has to do


class LocalStack:
    """The stack in one directory. Any number of these, in any processes, may work on the same one at once.

    Attributes:
        directory: Where its data, logs and ``stack.json`` are; made by `up`.
    """

    def __init__(self, directory: Path, *, external: External | None = None) -> None:
        self.directory = directory.resolve()
        self._external = external or External()

    def up(self) -> StackAddress:
        """Start what does not run, and return when every server does its work; what runs is left alone.

        Postgres and S3 have the data that they had before, Kafka has none. Ports are those of the last time
        if they are free. When it fails, or is interrupted, what it started is stopped again.

        Raises:
            UnavailableError: A server did not come up (the message quotes its log), or a given one did
                not answer.
            ConfigurationError: The directory cannot be used, or a package is missing.
        """
        with locked(self.directory):
            state = read_state(self.directory)
            occupied = [name for name in SERVER_NAMES if (self.directory / name).exists()]
            if state is None and occupied:
                raise ConfigurationError(
                    f"{self.directory} is not a local stack's ({STATE_FILE} is missing), but it has {occupied[0]} in it.",
                    remedy="Use another directory.",
                )
            if state is None and "," in str(self.directory):
                raise ConfigurationError(
                    f"{self.directory} has a comma in its path, where the S3 server would see two directories.",
                    remedy="Use another directory.",
                )
            state = replace(state or StackState.new(), external=self._external)
            if not (state.postgres_home or self._external.gives("postgres")):
                state = replace(state, postgres_home=str(choose_home(self.directory / "postgres")))
            write_state(self.directory, state)
            names = [name for name in SERVER_NAMES if not self._external.gives(name)]
            with contextlib.ExitStack() as undo:
                for name in names:
                    if not self.runs(name):
                        self._stop(name)  # what is left of it
                        undo.callback(self._stop, name)
                        ports = self._known().server(name).ports
                        if not (ports and all(map(is_free, ports))):
                            ports = choose_ports(self._server(name).port_count)
                        self._launch(name, ports)
                for name in names:
                    self._await(name)
                _check_given(self._external)
                undo.pop_all()
        return self.address()

    def address(self) -> StackAddress:
        """Return where the servers are. Some may have ended since they were started: see `not_running`.

        Raises:
            MissingSettingError: The stack is not up.
        """
        state = read_state(self.directory)
        if state is not None and _has_ports(state):
            started = [state.server(name).process for name in _own(state)]
            if not started or any(map(processes.is_running, started)):
                return _address(self.directory, state)
        raise MissingSettingError(
            f"No local stack is up in {self.directory}.",
            remedy=f"Start it: hop-archive local up --dir {self.directory}",
        )

    def last_address(self) -> StackAddress:
        """Return where the servers are, or were when they last ran.

        Raises:
            MissingSettingError: The stack was never up.
        """
        state = read_state(self.directory)
        if state is None or not _has_ports(state):
            raise self._never_up()
        return _address(self.directory, state)

    def damage(self) -> str:
        """Say what is wrong with the stack's state file; '' where it can be read, or is not there."""
        try:
            read_state(self.directory)
        except DamagedStateError as error:
            return str(error)
        return ""

    def runs(self, name: ServerName) -> bool:
        """Tell whether the stack's own server of that name runs.

        Raises:
            MissingSettingError: The stack was never up.
        """
        return processes.is_running(self._known().server(name).process)

    def not_running(self) -> tuple[ServerName, ...]:
        """Return the servers that the stack has started and not stopped, and that ended all the same."""
        state = read_state(self.directory)
        started = [(name, state.server(name).process) for name in SERVER_NAMES] if state else []
        return tuple(name for name, mark in started if mark and not processes.is_running(mark))

    def down(self, *, purge: bool = False) -> tuple[ServerName, ...]:
        """Stop all that runs, and return which that was; with `purge` remove the data, the logs and the state.

        Again, or where no stack was ever up: does nothing. Only what a stack made is removed: its state
        file must be there to say so. Where that is damaged, or was removed by hand, the servers are found by
        themselves (see `find_strays`: nobody else's is stopped); where it is damaged, data that look like a stack's are removed all the same.

        Raises:
            ForbiddenError: The stack is another user's, or nothing but its state file's name says that it is one.
            UnavailableError: A server would not end.
        """
        try:
            known = read_state(self.directory) is not None
        except DamagedStateError:
            return self._down_by_sight(purge=purge)
        if not known:
            self._stop_strays(found := find_strays(self.directory))
            return tuple(found)
        with locked(self.directory):
            running = tuple(name for name in SERVER_NAMES if self.runs(name))
            with contextlib.ExitStack() as stopping:  # which goes on to the others where one won't end
                for name in SERVER_NAMES:
                    stopping.callback(self._stop, name)
            if purge:
                self._remove(Path(self._known().postgres_home))
        return running

    def _down_by_sight(self, *, purge: bool) -> tuple[ServerName, ...]:
        """Do as `down` where the state file is no help."""
        found = find_strays(self.directory)
        # The servers' directories as a stack leaves them: each with its log beside it.
        left = [name for name in SERVER_NAMES if (self.directory / name).exists()]
        if purge and not (found or (left and all(self.log(name).exists() for name in left))):
            raise ForbiddenError(
                f"Nothing is removed from {self.directory}: nothing there but {STATE_FILE} is a local stack's.",
                remedy="Remove by hand what you know to be of no use.",
            )
        if not (found or purge):
            return ()
        with locked(self.directory):
            found = find_strays(self.directory)
            self._stop_strays(found)
            if purge:
                # The directory of a Postgres, which may be outside of the stack's own.
                commands = [mark.command for mark in found.get("postgres", ())]
                self._remove(*(Path(command[command.index("-D") + 1]).parent for command in commands))
        return tuple(found)

    def _stop_strays(self, found: Mapping[ServerName, Sequence[ProcessMark]]) -> None:
        with contextlib.ExitStack() as stopping:
            for name, mark in ((name, mark) for name, marks in found.items() for mark in marks):
                stopping.callback(self._stop_stray, name, mark)

    def _stop_stray(self, name: ServerName, mark: ProcessMark) -> None:
        server = _server(self.directory, StackState.new(), name)
        processes.stop(mark, server.stop_signal, server.grace_s)
        server.tidy(ports_in(mark.command))

    def start(self, name: ServerName) -> None:
        """Start a server that was stopped or killed, on the ports that it had, and wait until it works.

        Raises:
            UnavailableError: It did not come up, or somebody else has its port now.
        """
        with locked(self.directory):
            if not self.runs(name):
                self._stop(name)  # what is left of it
                ports = self._known().server(name).ports
                taken = [port for port in ports if not is_free(port)]
                if taken or not ports:
                    problem = (
                        f"port {taken[0]} is in use by another process" if taken else "it was never started"
                    )
                    raise UnavailableError(
                        f"Cannot start {name} of {self.directory} where it was: {problem}."
                    )
                self._launch(name, ports)
            self._settle(name)

    def stop(self, name: ServerName) -> None:
        """Stop a server in good order; one that does not run is left at that."""
        with locked(self.directory):
            self._stop(name)

    def kill(self, name: ServerName) -> None:
        """End a server with SIGKILL, as a crash would, and return when it is gone."""
        with locked(self.directory):
            if mark := self._known().server(name).process:
                processes.stop(mark, signal.SIGKILL, processes.KILL_TIMEOUT_S)

    def pid(self, name: ServerName) -> int:
        """Return the process id of a server.

        Raises:
            UnavailableError: It does not run.
        """
        pid = processes.pid_of(self._known().server(name).process)
        if pid is None:
            raise UnavailableError(f"{name} of the local stack in {self.directory} is not running.")
        return pid

    def log(self, name: ServerName) -> Path:
        """Return the file with a server's output since its last start; ``….1`` beside it has the run before."""
        return self.directory / f"{name}.log"

    def _known(self) -> StackState:
        state = read_state(self.directory)
        if state is None:
            raise self._never_up()
        return state

    def _never_up(self) -> MissingSettingError:
        return MissingSettingError(
            f"No local stack was ever up in {self.directory}.",
            remedy=f"Start it: hop-archive local up --dir {self.directory}",
        )

    def _server(self, name: ServerName) -> Server:
        return _server(self.directory, self._known(), name)

    def _record(self, name: ServerName, server: ServerState) -> None:
        write_state(self.directory, self._known().with_server(name, server))

    def _launch(self, name: ServerName, ports: tuple[int, ...]) -> None:
        server = self._server(name)
        (self.directory / name).mkdir(exist_ok=True)
        server.prepare()
        launch = server.launch(ports)
        # Noted before and after: if we are killed in between, its command line still finds it.
        self._record(name, ServerState(ports, ProcessMark(None, launch.command)))
        with processes.uninterrupted():
            self._record(name, ServerState(ports, processes.start(launch, self.log(name))))

    def _await(self, name: ServerName) -> None:
        """Wait until a server works; one that ended because somebody took its port gets others."""
        for _ in range(_PORT_ATTEMPTS - 1):
            try:
                return self._settle(name)
            except ServerDiedError:
                self._stop(name)
                ports = self._known().server(name).ports
                if all(map(is_free, ports)):
                    raise
                self._launch(name, choose_ports(len(ports)))
        return self._settle(name)

    def _settle(self, name: ServerName) -> None:
        known, server = self._known().server(name), self._server(name)
        if known.process is None:
            raise UnavailableError(f"{name} of the local stack in {self.directory} is not running.")
        question = server.probe if known.settled else server.settle
        processes.await_answer(name, partial(question, known.ports), known.process, self.log(name))
        self._record(name, replace(known, settled=True))

    def _stop(self, name: ServerName) -> None:
        known = self._known().server(name)
        if known.process is None:
            return
        server = self._server(name)
        processes.stop(known.process, server.stop_signal, server.grace_s)
        server.tidy(known.ports)
        self._record(name, ServerState(known.ports))

    def _remove(self, *homes: Path) -> None:
        for home in homes:
            if home.name.startswith(OUTSIDE_PREFIX) and home.exists():
                shutil.rmtree(home)
        for name in SERVER_NAMES:
            if (self.directory / name).exists():
                shutil.rmtree(self.directory / name)
            for log in self.directory.glob(f"{name}.log*"):
                log.unlink()
        (self.directory / STATE_FILE).unlink()
        (self.directory / LOCK_FILE).unlink()
        if not any(self.directory.iterdir()):
            self.directory.rmdir()


def _own(state: StackState) -> list[ServerName]:
    """The servers that are the stack's and not given."""
    return [name for name in SERVER_NAMES if not state.external.gives(name)]


def _has_ports(state: StackState) -> bool:
    return all(state.server(name).ports for name in _own(state))


def _server(directory: Path, state: StackState, name: ServerName) -> Server:
    if name == "kafka":
        return Kafka(directory / name, state.cluster_id)
    return _postgres(state) if name == "postgres" else _object_store(directory / name, state)


def _postgres(state: StackState) -> Postgres:
    return Postgres(Path(state.postgres_home), state.postgres_password, state.superuser_password)


def _object_store(home: Path, state: StackState) -> ObjectStore:
    return ObjectStore(home, state.s3_access_key, state.s3_secret_key)


def _address(directory: Path, state: StackState) -> StackAddress:
    given = state.external
    s3 = _given_s3(given) or _object_store(directory / "s3", state).address(state.server("s3").ports)
    return StackAddress(
        bootstrap_servers=given.bootstrap_servers or f"{LOOPBACK}:{state.server('kafka').ports[0]}",
        database_url=given.database_url or _postgres(state).url(state.server("postgres").ports),
        s3_endpoint=s3.endpoint,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
        bucket=given.bucket if given.gives("s3") else PRIMARY_BUCKET,
    )


def _given_s3(given: External) -> S3Address | None:
    if given.s3_endpoint is None:
        return None
    return S3Address(given.s3_endpoint, given.s3_access_key, given.s3_secret_key)


def _check_given(given: External) -> None:
    s3 = _given_s3(given)
    asks: dict[ServerName, Callable[[], object]] = {}
    if given.bootstrap_servers:
        asks["kafka"] = partial(ask_kafka, given.bootstrap_servers)
    if given.database_url:
        asks["postgres"] = partial(ask_postgres, given.database_url)
    if s3:
        asks["s3"] = partial(s3.write_and_read, given.bucket)
    for name, ask in asks.items():
        try:
            ask()
        except NotAnswering as reason:
            raise UnavailableError(
                f"The {name} server given by {VARIABLE_OF[name]} does not do its work: {reason}.",
                remedy=f"Correct {VARIABLE_OF[name]}, or unset it to have a server started.",
            ) from reason


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
        with contextlib.suppress(OSError):
            for output in _OUTPUTS:
                outputs.append(str((_DESCRIPTORS / str(process.pid) / "fd" / str(output)).readlink()))
    return not {str(log), f"{log} (deleted)"}.isdisjoint(outputs)
