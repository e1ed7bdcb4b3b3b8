"""What the demo and the development set-up share: a local stack, a migrated catalog, Dagster's home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hop_archive.archive import Archive
from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.config.load import load, select
from hop_archive.config.open import open_archive
from hop_archive.devkit.local.address import External
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.errors import MissingSettingError

INSTANCE_FILE = "dagster.yaml"
WORKSPACE_FILE = "workspace.yaml"
_WITHOUT_WARNINGS = {
    # What Dagster warns itself of when it starts; nobody here can act on it.
    "PYTHONWARNINGS": "ignore:Function `dev_command` is superseded,ignore:Parameter `owners` of initializer"
}
_SELECTED = {
    "HOP_ARCHIVE_SOURCE": "hop-local",
    "HOP_ARCHIVE_DATABASE": "local-db",
    "HOP_ARCHIVE_STORE": "local-store",
}


@dataclass(frozen=True, slots=True)
class Workbench:
    """A local stack that is up and migrated, and a home for Dagster.

    Attributes:
        directory: Where all of it is.
        workspace: The file that tells Dagster which code to load.
        environ: The environment in which the local stanzas mean this stack and are selected.
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
    def running(self, log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program in this environment with its output in a file; ended with the block."""
        with log.open("ab") as output:
            process = subprocess.Popen(command, env=self.environ, stdout=output, stderr=output)
            try:
                yield process
            finally:
                process.terminate()
                process.wait(30)


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
    chosen = {**_WITHOUT_WARNINGS, **_SELECTED, "DAGSTER_HOME": str(home)}
    environ = {**os.environ, **address.environment(), **chosen}
    return Workbench(directory.resolve(), instance_file.resolve().with_name(WORKSPACE_FILE), environ)
