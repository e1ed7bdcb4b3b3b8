"""``hop-archive status --watch`` as a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hop_archive.source.mock.source import MockSource
from hop_archive_tests.cli_helpers import (
    DEADLINE_S,
    M,
    command,
    environment,
    invoke,
    mocks,
    place,
    wait_for,
)
from hop_archive_tests.processes.cli.test_program import read, running, terminal

__all__ = ["place"]


def test_watching_prints_block_after_block_until_it_is_asked_to_end(place: Path) -> None:
    directory = mocks(place)
    invoke("run", *M, "--until-caught-up", "-T", "snews.alerts")
    cluster = MockSource("m", directory=directory).cluster
    with running(command("status", *M, "-T", "snews.alerts", "--watch", "0.1"), place) as program:
        wait_for(lambda: program.out.count("\nAll is archived.\n") > 1, "two blocks")
        cluster.append("snews.alerts", b"one more")
        wait_for(lambda: "\n1 offset behind, in 1 topic.\n" in program.out, "what is new")
        assert program.end(signal.SIGINT) == 0
        assert program.out.startswith("--- 20")
        assert program.err == ""


def test_watching_goes_on_through_outages(place: Path) -> None:
    directory = mocks(place, archived=True)
    cluster = MockSource("m", directory=directory).cluster
    with running(command("status", *M, "--json", "--watch", "0.1"), place) as program:
        seen: Callable[[], list[dict[str, Any]]] = lambda: [  # noqa: E731
            json.loads(line) for line in program.out.splitlines(keepends=True) if line.endswith("\n")
        ]
        wait_for(seen, "the first look")
        cluster.stop()
        wait_for(lambda: seen()[-1]["source"]["error"], "the outage")
        cluster.start()
        wait_for(lambda: seen()[-1]["source"]["error"] is None, "its end")
        assert program.end(signal.SIGTERM) == 0


def test_a_terminal_shows_the_table_in_place_and_as_much_as_fits(place: Path) -> None:
    mocks(place, archived=True)
    with terminal(12, 60) as (ours, its):
        run = subprocess.Popen(
            command("status", *M, "--watch", "0.1"),
            cwd=place,
            env=environment() | {"TERM": "xterm-256color"},
            stdin=its,
            stdout=its,
            stderr=its,
        )
        os.close(its)
        shown, end = b"", time.monotonic() + DEADLINE_S
        while shown.count(b"All is archived") < 3 and time.monotonic() < end and (more := read(ours)):
            shown += more
        run.send_signal(signal.SIGINT)
        while more := read(ours):
            shown += more
        assert run.wait(DEADLINE_S) == 0
    assert shown.count(b"All is archived") >= 3
    assert b"\x1b[1A" in shown, "each is drawn over the one before"
    assert b"Looks again every 0.1 s; Ctrl-C ends it." in shown
    assert b"more lines: a taller terminal" in shown
    assert b"LAST BATCH" not in shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l"), "the cursor is back"
