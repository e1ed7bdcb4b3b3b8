"""What is shown on terminals of 80, 100 and 160 columns: no line is longer, no name is cut, no room is left unused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hop_archive.source.mock.source import MockSource
from hop_archive_tests.cli_helpers import M, command, environment, mocks, place
from hop_archive_tests.processes.cli.test_program import read, terminal

__all__ = ["place"]

ALIKE = [
    f"gcn.classic.voevent.a_very_long_name_that_goes_on_and_on.of.the_{nth}" for nth in ("first", "second")
]


def seen(place: Path, columns: int, *args: str) -> list[str]:
    """The lines that a terminal of so many columns is sent."""
    with terminal(60, columns) as (ours, its):
        run = subprocess.Popen(
            command(*args), cwd=place, env=environment(), stdin=its, stdout=its, stderr=subprocess.PIPE
        )
        os.close(its)
        shown = b""
        while more := read(ours):
            shown += more
        assert run.stderr is not None
        told = run.stderr.read()
        run.stderr.close()
        assert run.wait() == 0, told
    return shown.decode().replace("\r\n", "\n").splitlines()


@pytest.fixture
def archive(place: Path) -> Path:
    cluster = MockSource("m", directory=mocks(place, archived=True)).cluster
    for topic in ALIKE:
        cluster.create_topic(topic)
        cluster.append(topic, b"not archived yet")
    return place


@pytest.mark.parametrize("columns", [80, 100, 160])
@pytest.mark.parametrize(
    "words", [("status", *M), ("topics", *M), ("list",), ("--help",), ("status", "--help")]
)
def test_no_line_is_longer_than_the_terminal_is_wide(
    archive: Path, columns: int, words: tuple[str, ...]
) -> None:
    lines = seen(archive, columns, *words)
    assert len(lines) > 5
    assert [line for line in lines if len(line) > columns] == []


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_names_that_differ_at_their_end_are_told_apart_and_whole(archive: Path, columns: int) -> None:
    for name in ("status", "topics"):
        lines = seen(archive, columns, name, *M)
        told = "".join(line.split()[0] for line in lines if line)
        assert [topic for topic in ALIKE if topic not in told] == [], "\n".join(lines)


def test_a_wider_terminal_shows_more_and_a_pipe_all(archive: Path) -> None:
    headers = {}
    for columns in (80, 100, 260):
        (headers[columns],) = [
            line for line in seen(archive, columns, "status", *M) if line.startswith("TOPIC")
        ]
    assert len(headers[80].split()) < len(headers[100].split()) < len(headers[260].split())
    assert "LAG" in headers[80]
    piped = subprocess.run(
        command("status", *M), cwd=archive, env=environment(), capture_output=True, text=True, check=True
    )
    (whole,) = [line for line in piped.stdout.splitlines() if line.startswith("TOPIC")]
    assert whole.split() == headers[260].split()
