"""What the tests of the command line share: calling it in this process, and as a program."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner, Result

import hop_archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.cli import cli
from hop_archive.config import logs
from hop_archive.store.mock import MockStore

DEADLINE_S = 300.0
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


def mocks(
    place: Path, *, samples: int = 100, rate: float = 0.0, source: str = "", archived: bool = False
) -> Path:
    """Stanzas ``m`` of mocks that share a directory, chosen with ``M``; returns that directory.

    Args:
        place: The working directory.
        samples: Sample alerts that the source begins with.
        rate: More of them a second.
        source: More lines of the source's stanza.
        archived: Whether all samples are archived already, as by one ``run`` with no more said than ``M``.
    """
    if archived:
        shutil.copytree(_with_all_archived(samples).name, place / "mocks")
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


@cache
def _with_all_archived(samples: int) -> TemporaryDirectory[str]:
    """What such mocks have in their directory once a run has archived all: made once, copied for each test."""
    kept = TemporaryDirectory()
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        mocks(Path(place), samples=samples)
        patch.setenv("HOP_ARCHIVE_TOML", f"{place}/hop_archive.toml")
        ran = invoke("run", *M, "--until-caught-up", "-q")
        assert ran.exit_code == 0, ran.output
        shutil.copytree(f"{place}/mocks", kept.name, dirs_exist_ok=True)
    return kept


@pytest.fixture
def directory(place: Path) -> Path:
    """Mocks with an archive of sample alerts."""
    return mocks(place, source="writable = true", archived=True)


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
    """Wait until something is so.

    It is asked about again after three times as long as asking took: some conditions are a survey of the archive, and what
    is waited for wants the processor too. Of 55 s of CPU of ``test_real_dagster_pairs``, questions took 17 (2026-11-29).
    """
    end = time.monotonic() + deadline_s
    asked = time.monotonic()
    while not condition():
        now = time.monotonic()
        assert now < end, f"in vain: {what}"
        time.sleep(min(max(0.01, 3 * (now - asked)), 0.25))
        asked = time.monotonic()
