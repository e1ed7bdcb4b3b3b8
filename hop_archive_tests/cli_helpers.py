"""What the tests of the command line share: calling it in this process, and as a program."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import hop_archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.cli import cli
from hop_archive.config import logs
from hop_archive.store.mock import MockStore

DEADLINE_S = 120.0
"""How long a condition is waited for: only a failure waits so long, and a busy machine takes its time to start programs."""
CHATTY = (logs.LIBRDKAFKA, "psycopg.pool")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, and an environment that says nothing of hop_archive."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HOP_ARCHIVE_")]:
        monkeypatch.delenv(name)
    yield tmp_path
    logs.remove_former()
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.NOTSET)


def invoke(*args: str) -> Result:
    """Call the command line in this process; what it does not translate is raised here."""
    return CliRunner().invoke(cli, args, catch_exceptions=False, prog_name="hop-archive")


def toml(place: Path, text: str) -> Path:
    """A configuration file in the working directory, where it is found unasked."""
    path = place / "hop_archive.toml"
    path.write_text(text)
    return path


def mocks(place: Path, *, samples: int = 100, rate: float = 0.0, source: str = "") -> Path:
    """Stanzas ``m`` of mocks that share a directory, chosen with ``M``; returns that directory."""
    toml(
        place,
        f"""
        [source.m]
        type = "mock"
        directory = "{place}/mocks"
        samples = {samples}
        rate = {rate}
        {source}
        [database.m]
        type = "mock"
        directory = "{place}/mocks"
        [store.m]
        type = "mock"
        directory = "{place}/mocks/objects"
        """,
    )
    return place / "mocks"


M = ("-H", "m", "-D", "m", "-S", "m")


@pytest.fixture
def directory(place: Path) -> Path:
    """Mocks with an archive of sample alerts."""
    found = mocks(place, source="writable = true")
    ran = invoke("run", *M, "--until-caught-up", "-q")
    assert ran.exit_code == 0, ran.output
    return found


def store(directory: Path) -> MockStore:
    """The store of such mocks, to damage it."""
    return MockStore("m", directory / "objects", deleting_allowed=True)


def archived(directory: Path) -> int:
    """Messages that a mock catalog has."""
    return sum(one.messages for one in MockCatalog("m", directory=directory).summaries())


def command(*args: str) -> list[str]:
    """The command line as a program."""
    return [sys.executable, "-m", "hop_archive.cli", *args]


def environment() -> dict[str, str]:
    """An environment in which `command` finds the package, and nothing is chosen."""
    # LINES and COLUMNS, which tests in several processes are given, would beat the size of a terminal.
    left = ("HOP_ARCHIVE_", "LINES", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left)}
    return {**kept, "PYTHONPATH": str(Path(hop_archive.__file__).parents[1])}


def program(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a program, to its end."""
    return subprocess.run(
        command(*args),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def wait_for(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait until something is so."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.02)
