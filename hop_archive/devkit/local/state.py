"""``stack.json``: what a stack's directory says about its servers, and the lock under which it is changed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import secrets
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from hop_archive.devkit.local.address import External, ServerName
from hop_archive.devkit.local.machine import write_private
from hop_archive.devkit.local.processes import ProcessMark
from hop_archive.errors import ConfigurationError, ForbiddenError, UnavailableError

STATE_FILE = "stack.json"
LOCK_FILE = "lock"
CLUSTER_ID_PREFIX = "hop-archive-local-"

_FORMAT = 1
_LOCK_TIMEOUT_S = 180.0
_POLL_S = 0.05


class DamagedStateError(ConfigurationError):
    """``stack.json`` is there but is not what a stack wrote; its servers may run all the same."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """What is known of one server.

    Attributes:
        ports: Those it had last, in use or not; empty before its first start.
        process: None once it was stopped on purpose; it may have ended otherwise.
        settled: Whether since its start it was given what belongs in it.
    """

    ports: tuple[int, ...] = ()
    process: ProcessMark | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class StackState:
    """What is known of a stack: credentials, which never change, and servers, which come and go.

    Attributes:
        postgres_home: The directory of Postgres, chosen before its first start; empty until then.
        external: The servers that were given at the last `up`, instead of started ones.
    """

    cluster_id: str
    postgres_password: str = field(repr=False)
    superuser_password: str = field(repr=False)
    s3_access_key: str
    s3_secret_key: str = field(repr=False)
    postgres_home: str = ""
    servers: Mapping[str, ServerState] = field(default_factory=dict)
    external: External = field(default_factory=External)

    @classmethod
    def new(cls) -> StackState:
        """Return the state of a stack that was never started, with credentials of its own."""
        return cls(
            cluster_id=f"{CLUSTER_ID_PREFIX}{secrets.token_hex(4)}",
            postgres_password=secrets.token_hex(16),
            superuser_password=secrets.token_hex(16),
            s3_access_key=secrets.token_hex(10),
            s3_secret_key=secrets.token_hex(20),
        )

    def server(self, name: ServerName) -> ServerState:
        """Return what is known of one server."""
        return self.servers.get(name, ServerState())

    def with_server(self, name: ServerName, server: ServerState) -> StackState:
        """Return the state with this known of one server."""
        return replace(self, servers={**self.servers, name: server})


def read_state(directory: Path) -> StackState | None:
    """Return the state of the stack in `directory`; None where there is none.

    Raises:
        ForbiddenError: The caller may not read it: it is another user's, or its permissions are in the way.
        DamagedStateError: It is not a state that this version can read.
    """
    path = directory / STATE_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("format") != _FORMAT:
            raise ValueError("another format")
        servers: dict[str, ServerState] = {}
        for name, server in document.pop("servers").items():
            process = server["process"]
            mark = ProcessMark(process["pid"], tuple(process["command"])) if process else None
            servers[name] = ServerState(tuple(server["ports"]), mark, server["settled"])
        external = External(**document.pop("external"))
        return StackState(**document, servers=servers, external=external)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise _unreadable(path) from error
    except (ValueError, KeyError, TypeError, AttributeError, IsADirectoryError) as error:
        down = f"hop-archive local down --dir {shlex.quote(str(path.parent))}"
        raise DamagedStateError(
            f"{path} is not the state of a local stack that this version can read.",
            remedy=f"Stop what runs there: {down} (with --purge it removes the data too, and local up begins anew).",
            path=str(path),
        ) from error


def _unreadable(path: Path) -> ForbiddenError:
    """Why it cannot be read: whose it is, as far as that can be seen, else whose the nearest directory is."""
    for place in (path, *path.parents):
        try:
            owner = place.stat().st_uid
        except PermissionError:
            continue
        break
    if owner == os.geteuid():
        kind = "X" if place.is_dir() else ""
        return ForbiddenError(
            f"{place} is yours, but its permissions do not let you read it.",
            remedy=f"Give them back: chmod u+rw{kind} {shlex.quote(str(place))}",
        )
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"number {owner}"
    return ForbiddenError(
        f"{place} belongs to another user ({name}).", remedy="Use that user's account, or another directory."
    )


def write_state(directory: Path, state: StackState) -> None:
    """Replace the state, readable by its owner only: it holds passwords.

    Raises:
        ForbiddenError: It cannot be written.
    """
    text = json.dumps({"format": _FORMAT, **asdict(state)}, indent=2) + "\n"
    try:
        write_private(directory / STATE_FILE, text)
    except OSError as error:
        raise _unusable(directory, f"{STATE_FILE} cannot be written there: {error.strerror}") from error


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, waiting for whoever has it; makes the directory where it is missing.

    It ends with the process that holds it, however that ends, and with any to which it was handed down.

    Raises:
        UnavailableError: Somebody held it for three minutes.
        ForbiddenError: The directory cannot be made, or is not the caller's to write in. Said at once.
    """
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while (descriptor := _try_lock(directory)) is None:
        if time.monotonic() >= deadline:
            problem = f"Another process has been working on {directory} for {_LOCK_TIMEOUT_S:.0f} s."
            raise UnavailableError(problem, remedy="See what it is: fuser or lsof on the file lock there.")
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        os.close(descriptor)


def _try_lock(directory: Path) -> int | None:
    path = directory / LOCK_FILE
    if not _made(directory):
        return None
    before = _identity(directory)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError as error:
        if before is None or before != _identity(directory):  # it was removed meanwhile
            return None
        raise _unusable(directory, "no file can be made there") from error
    except OSError as error:
        raise _unusable(directory, f"its file {LOCK_FILE} cannot be opened: {error.strerror}") from error
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever removed the stack's data removed the lock with them; then this is nobody's lock any more.
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            os.set_inheritable(descriptor, True)  # for initdb, which may outlive us; servers do not get it
            return descriptor
    os.close(descriptor)
    return None


def _made(directory: Path) -> bool:
    """Make the directory where it is missing; tell whether it is there, which another process may undo."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        if directory.exists():
            raise _unusable(directory, "it is no directory") from error
        return False
    except FileNotFoundError as error:  # its parent is there by now: /proc, for instance, answers so
        raise _unusable(directory, f"no directory can be made in {directory.parent}") from error
    except OSError as error:
        raise _unusable(directory, f"it cannot be made: {error.strerror}") from error
    return True


def _identity(directory: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = directory.stat()
        return found.st_dev, found.st_ino
    return None


def _unusable(directory: Path, why: str) -> ForbiddenError:
    return ForbiddenError(
        f"Cannot use {directory} for a local stack: {why}.",
        remedy="Name a directory that you can write in, with --dir.",
        path=str(directory),
    )
