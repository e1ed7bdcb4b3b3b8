"""``stack.json``: what a stack's directory says about its servers, and the lock under which it is changed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hop_archive.errors import ConfigurationError, ForbiddenError, UnavailableError
from hop_archive.local.address import External, ServerName
from hop_archive.local.files import write_private
from hop_archive.local.processes import ProcessMark

STATE_FILE = "stack.json"
LOCK_FILE = "lock"

_FORMAT = 1
_LOCK_TIMEOUT_S = 180.0
_POLL_S = 0.05


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
            cluster_id=f"hop-archive-local-{secrets.token_hex(4)}",
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
        ForbiddenError: It belongs to another user.
        ConfigurationError: It is not a state that this version can read.
    """
    path = directory / STATE_FILE
    try:
        return _decoded(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise ForbiddenError(
            f"{path} belongs to another user.", remedy="Use that user's account, or another directory."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is not the state of a local stack that this version can read: {error!r}.",
            remedy="Use another directory.",
        ) from error


def write_state(directory: Path, state: StackState) -> None:
    """Replace the state, readable by its owner only: it holds passwords."""
    write_private(directory / STATE_FILE, json.dumps({"format": _FORMAT, **asdict(state)}, indent=2) + "\n")


def _decoded(document: dict[str, Any]) -> StackState:
    if document.pop("format") != _FORMAT:
        raise ValueError("another format")
    servers = {name: _decoded_server(server) for name, server in document.pop("servers").items()}
    external = External(**document.pop("external"))
    return StackState(**document, servers=servers, external=external)


def _decoded_server(document: dict[str, Any]) -> ServerState:
    process = document["process"]
    mark = ProcessMark(process["pid"], tuple(process["command"])) if process else None
    return ServerState(tuple(document["ports"]), mark, document["settled"])


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, waiting for whoever has it; makes the directory where it is missing.

    It ends with the process that holds it, however that ends, and with any to which it was handed down.

    Raises:
        UnavailableError: Somebody held it for three minutes.
        ForbiddenError: The directory is not the caller's to write in.
    """
    descriptor = _acquire(directory)
    try:
        yield
    finally:
        os.close(descriptor)


def _acquire(directory: Path) -> int:
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while (descriptor := _try_lock(directory)) is None:
        if time.monotonic() >= deadline:
            problem = f"Another process has been working on {directory} for {_LOCK_TIMEOUT_S:.0f} s."
            raise UnavailableError(problem, remedy="See what it is: fuser or lsof on the file lock there.")
        time.sleep(_POLL_S)
    return descriptor


def _try_lock(directory: Path) -> int | None:
    path = directory / LOCK_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:  # removed between the two
        return None
    except (PermissionError, FileExistsError) as error:
        raise ForbiddenError(f"Cannot use {directory} for a local stack: {error}.") from error
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever removed the stack's data removed the lock with them; then this is nobody's lock any more.
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            os.set_inheritable(descriptor, True)  # for initdb, which may outlive us; servers do not get it
            return descriptor
    os.close(descriptor)
    return None
