"""``hop-archive publish`` as a program: how it ends, what a terminal shows, and that a refusal comes before any connection."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from hop_archive.upkeep.verify.sent import read_sent
from hop_archive_tests.cli_helpers import (
    DEADLINE_S,
    M,
    command,
    environment,
    invoke,
    place,
    toml,
    wait_for,
)
from hop_archive_tests.processes.cli.test_program import Program, read, running, terminal

__all__ = ["directory", "place"]
from hop_archive_tests.unit.cli.test_publish import directory, messages


def test_publishing_without_end_ends_when_it_is_asked_to_and_says_what_was_sent(
    directory: Path, place: Path
) -> None:
    run = command("publish", *M, "--create", "--count", "0", "--rate", "200", "--record", "s")
    with running(run, place) as program:
        wait_for(lambda: len(messages(directory)) > 100, "some are published")
        assert program.end(signal.SIGINT) == 0
        number = len(messages(directory))
        assert f"Published {number} messages" in program.out
        assert "Ended by SIGINT; the rest was not sent." in program.out
        assert len(read_sent(place / "s")) == number
        assert program.err == ""


def test_a_terminal_shows_how_far_it_is(directory: Path, place: Path) -> None:
    with terminal(30, 100) as (ours, its):
        program = Shown(place, its, "--create", "--count", "0", "--rate", "200")
        shown = b""
        end = time.monotonic() + DEADLINE_S
        while shown.count(b"publishing") < 3 and time.monotonic() < end and (more := read(ours)):
            shown += more
        os.write(ours, b"\x03")
        while more := read(ours):
            shown += more
        assert program.process.wait(30) == 0
    assert b"Ctrl-C ends it cleanly" in shown
    assert b"Ended by SIGINT" in shown


class Shown(Program):
    """``publish`` on a terminal."""

    def __init__(self, place: Path, terminal: int, *args: str) -> None:
        import subprocess

        self.process = subprocess.Popen(
            command("publish", *M, *args),
            cwd=place,
            env=environment() | {"TERM": "xterm-256color"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: _control(terminal),
        )
        os.close(terminal)


def _control(terminal: int) -> None:
    """Make a terminal the one whose Ctrl-C the process gets."""
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_a_read_only_source_refuses_before_it_is_connected_or_has_its_variables(place: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        servers = f"127.0.0.1:{nobody.getsockname()[1]}"
        toml(
            place,
            f'[source.k]\ntype = "kafka"\nbootstrap_servers = "{servers}"\nsecurity = "sasl-scram-sha-512"\n'
            'username_env = "NOT_SET"\npassword_env = "NOT_SET"\ntest_topics = ["${NOT_SET}"]',
        )
        for args in ((), ("-T", "x", "--not-a-test-topic", "x", "--production"), ("--dry-run",)):
            result = invoke("publish", "-H", "k", *args)
            assert result.exit_code == 2
            assert result.stderr.startswith("Error: Source k is read-only: refused to publish to it.")
