"""What the demo and the development set-up share: a local stack, a migrated catalog, Dagster's home."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from hop_archive.archive import Archive
from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.config.load import load, select
from hop_archive.config.open import open_archive
from hop_archive.devkit.local.address import External, ServerName
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.errors import HopArchiveError, MissingSettingError

INSTANCE_FILE = "dagster.yaml"
WORKSPACE_FILE = "workspace.yaml"
ENDING_S = 45.0
"""For how long a program of Dagster's may end its own children before it is killed; on a busy machine that takes 20 s."""

_TITLES: Mapping[ServerName, str] = {"kafka": "Kafka", "postgres": "Postgres", "s3": "S3"}
_CHOSEN = {
    # What Dagster warns itself of when it starts; nobody here can act on it.
    "PYTHONWARNINGS": "ignore:Function `dev_command` is superseded,ignore:Parameter `owners` of initializer",
    "HOP_ARCHIVE_SOURCE": "hop-local",
    "HOP_ARCHIVE_DATABASE": "local-db",
    "HOP_ARCHIVE_STORE": "local-store",
}


@dataclass(frozen=True, slots=True)
class Workbench:
    """A local stack that is up and migrated, and a home for Dagster, all in one directory.

    In its environment the local stanzas mean this stack and are selected; its workspace tells Dagster which code to load.
    """

    directory: Path
    workspace: Path
    environ: Mapping[str, str]

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance directory."""
        return Path(self.environ["DAGSTER_HOME"])

    @property
    def code(self) -> tuple[str, ...]:
        """The arguments by which Dagster's programs find the code."""
        return ("-w", str(self.workspace))

    def archive(self) -> Archive:
        """The archive on this stack, for the caller to close."""
        configuration = load(environ=self.environ)
        return open_archive(configuration, select(configuration, environ=self.environ), self.environ)

    def command(self, program: str, *arguments: str) -> list[str]:
        """A program of this Python's environment with its arguments."""
        return [str(Path(sys.executable).with_name(program)), *arguments]

    @contextmanager
    def running(self, *command: str, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program in this environment, its output in a file where one is named; ended with the block, with all it started.

        It leads a session of its own: a Ctrl-C is for the caller alone, who ends the program by leaving the block. What has not
        ended `ENDING_S` seconds after it was asked to is killed, and so it is at once where the caller is asked a second time.
        """
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open("ab")) if log else None
            process = subprocess.Popen(
                command,
                env=self.environ,
                cwd=self.dagster_home,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                yield process
            finally:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and all of its session's group: asked first, then killed."""
    try:
        process.terminate()
        process.wait(ENDING_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        click.echo(f"{Path(str(process.args[0])).name} does not end; it is killed.", err=True)  # type: ignore[index]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what it left behind
        process.wait()


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the block, whatever was done with them before.

    A shell starts what a script runs in the background with SIGINT ignored, and then Python does not listen for it.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def still_up(directory: Path) -> str:
    """What of the stack in a directory is up, and how to stop it; '' where nothing is."""
    stack = LocalStack(directory)
    try:
        up = [title for name, title in _TITLES.items() if stack.runs(name)]
    except HopArchiveError:
        return ""
    if not up:
        return ""
    names = f"{', '.join(up[:-1])} and {up[-1]} are" if len(up) > 1 else f"{up[0]} is"
    down = f"hop-archive local down --dir {shlex.quote(str(directory))}"
    return f"{names} still up. Stop {'them' if len(up) > 1 else 'it'}: make down (or: {down})"


def set_up(directory: Path, instance_file: Path) -> Workbench:
    """Start the stack, bring the catalog up to date, and make Dagster's home; harmless when all is there.

    Raises:
        UnavailableError: A server did not come up.
        MissingSettingError: ``instance_file`` is not there.
    """
    if not instance_file.exists():
        raise MissingSettingError(
            f"{instance_file.resolve()} is not there.", remedy="Run this in a checkout of hop_archive."
        )
    address = LocalStack(directory, external=External.from_environment(os.environ)).up()
    migrate(address.database_url, name="local-db")
    home = directory.resolve() / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(instance_file, home / INSTANCE_FILE)
    environ = {**os.environ, **address.environment(), **_CHOSEN, "DAGSTER_HOME": str(home)}
    return Workbench(directory.resolve(), instance_file.resolve().with_name(WORKSPACE_FILE), environ)
