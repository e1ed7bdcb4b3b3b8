"""The command line as a program: signals, terminals, outages, and the end of it all."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hop_archive.source.mock.source import MockSource
from hop_archive_tests.cli_helpers import (
    DEADLINE_S,
    M,
    archived,
    command,
    environment,
    mocks,
    place,
    program,
    wait_for,
)

__all__ = ["place"]


class Program:
    """The command line, running, its output in files."""

    def __init__(self, arguments: list[str], cwd: Path) -> None:
        self._out, self._err = cwd / "out.txt", cwd / "err.txt"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(arguments, cwd=cwd, env=environment(), stdout=out, stderr=err)

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")  # a character may be there in part

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@contextmanager
def running(arguments: list[str], cwd: Path) -> Iterator[Program]:
    started = Program(arguments, cwd)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait(DEADLINE_S)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_cleanly_with_a_summary(number: signal.Signals, place: Path) -> None:
    directory = mocks(place, rate=100)
    with running(command("run", *M), place) as run:
        wait_for(lambda: archived(directory) > 120, "more than the samples of the start are archived")
        assert run.end(number) == 0
        assert f"Ended by {number.name}; the next run goes on from here." in run.out
        assert f"Archived {archived(directory):,} messages" in run.out
        assert "Traceback" not in run.err


def test_the_next_run_goes_on_where_the_last_one_ended(place: Path) -> None:
    directory = mocks(place, rate=100)
    with running(command("run", *M), place) as run:
        wait_for(lambda: archived(directory) > 20, "some are archived")
        run.end(signal.SIGTERM)
    mocks(place, rate=0)
    assert program("run", *M, "--until-caught-up", cwd=place).returncode == 0
    second = program("run", *M, "--until-caught-up", cwd=place)
    assert "Archived 0 messages" in second.stdout


HANGING = """
import pathlib, time
from hop_archive.store import mock
def create(self, objects):
    pathlib.Path("hanging").touch()
    time.sleep(60)
mock.MockStore.create = create
from hop_archive.cli import main
main()
"""


def test_a_second_signal_ends_a_run_at_once(place: Path) -> None:
    mocks(place)
    with running([sys.executable, "-c", HANGING, "run", *M], place) as run:
        wait_for((place / "hanging").exists, "the store hangs")
        signals = 0
        while run.process.poll() is None and signals < 50:
            run.process.send_signal(signal.SIGINT)
            signals += 1
            time.sleep(0.2)  # so that two are not taken for one
        assert (run.process.returncode, signals >= 2) == (130, True)
        assert run.err.endswith("Ended at once.\n")


def test_a_run_survives_an_outage_and_tells_of_it_once(place: Path) -> None:
    directory = mocks(place, rate=0)
    cluster = MockSource("m", directory=directory).cluster
    with running(command("run", *M), place) as run:
        wait_for(lambda: archived(directory) > 20, "some are archived")
        cluster.stop()
        wait_for(lambda: "Waiting, and trying again: " in run.err, "the outage is told")
        cluster.start()
        before = archived(directory)
        cluster.append("gcn.notices", b"after the outage")
        wait_for(lambda: archived(directory) > before, "what came after it is archived")
        wait_for(lambda: "All servers answer again, after " in run.err, "its end is told")
        assert run.end(signal.SIGTERM) == 0
        assert run.err.count("Waiting, and trying again: ") == 1
        assert run.err.count("All servers answer again") == 1


def test_without_a_terminal_there_are_plain_lines_only(place: Path) -> None:
    directory = mocks(place, rate=100)
    with running(command("run", *M), place) as run:
        wait_for(lambda: "INFO hop_archive.cli.progress: Archived " in run.err, "a line of progress")
        run.end(signal.SIGINT)
        assert "\x1b" not in run.out + run.err
        first, *_, last = run.out.splitlines()
        assert (first.split()[0], last.split()[0]) == ("Archived", "Ended")
        assert re.search(r"; fetched [1-9][\d,]*, wrote [1-9][\d,]* objects?[;.]", run.err)
        assert archived(directory) > 0


@contextmanager
def terminal(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: ours, and the program's."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield ours, its
    finally:
        os.close(ours)


def read(ours: int) -> bytes:
    """What the program has written since; nothing once it is gone."""
    try:
        return os.read(ours, 65536)
    except OSError as error:
        if error.errno != errno.EIO:  # which on Linux is the end of a terminal
            raise
        return b""


def test_a_terminal_shows_a_table_that_keeps_changing(place: Path) -> None:
    mocks(place, rate=100)
    with terminal(30, 100) as (ours, its):
        run = subprocess.Popen(
            command("run", *M),
            cwd=place,
            env=environment() | {"TERM": "xterm-256color"},
            stdin=its,
            stdout=its,
            stderr=its,
        )
        os.close(its)
        shown, end = b"", time.monotonic() + DEADLINE_S
        while shown.count(b"total of 7 topics") < 4 and time.monotonic() < end:
            shown += read(ours)
        run.send_signal(signal.SIGINT)
        while more := read(ours):
            shown += more
        assert run.wait(DEADLINE_S) == 0
    assert shown.count(b"total of 7 topics") >= 4
    assert "m → m, m".encode() in shown
    assert b"Ctrl-C ends it cleanly" in shown
    assert b"\x1b[1A" in shown, "each table is drawn over the one before"
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l"), "the cursor is back"
    assert b"Ended by SIGINT" in shown


def test_a_dumb_terminal_gets_plain_lines(place: Path) -> None:
    mocks(place)
    with terminal(30, 100) as (ours, its):
        run = subprocess.Popen(
            command("run", *M, "--until-caught-up"),
            cwd=place,
            env=environment() | {"TERM": "dumb"},
            stdin=its,
            stdout=its,
            stderr=its,
        )
        os.close(its)
        shown = b""
        while more := read(ours):
            shown += more
        assert run.wait(DEADLINE_S) == 0
    assert b"\x1b" not in shown
    assert b"Caught up." in shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("words", [("list",), ("uuids", *M)])
def test_a_disk_that_is_full_is_told_in_one_message(place: Path, words: tuple[str, ...]) -> None:
    mocks(place)
    program("run", *M, "--until-caught-up", "-q", cwd=place)
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            command(*words),
            cwd=place,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "No space left on device" in ran.stderr
