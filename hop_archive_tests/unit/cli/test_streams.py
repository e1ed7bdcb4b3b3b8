"""What the command line may print, and in which encoding; `processes` has it with real streams and terminals."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hop_archive import cli as package
from hop_archive.cli import A_BUG, MOST_TOLD, main
from hop_archive.cli.streams import Outlet, text
from hop_archive.errors import HopArchiveError
from hop_archive_tests.cli_helpers import (
    invoke,
    place,
)

__all__ = ["place"]

ESCAPES = "\x1b]0;owned\x07"


def test_an_outlet_that_is_work_fails_once_and_any_other_never() -> None:
    read_only = os.open(os.devnull, os.O_RDONLY)
    try:
        work, other = Outlet(read_only, is_work=True), Outlet(read_only, is_work=False)
        with pytest.raises(OSError, match="Bad file descriptor"):
            work.write(b"abc")
        assert work.write(b"abc") == other.write(b"abc") == 3
        assert work.failure is not None
        assert other.failure is not None
    finally:
        os.close(read_only)


def test_what_the_encoding_has_no_character_for_is_written_out() -> None:
    ours, its = os.pipe()
    with open(ours, "rb") as reader, open(os.devnull, encoding="ascii") as like:  # noqa: PTH123 - a descriptor
        stream = text(Outlet(its, is_work=True), like)
        stream.write("caf\udce9 →")
        stream.flush()
        os.close(its)
        assert reader.read() == rb"caf\udce9 \u2192"


# --- names of files that are not UTF-8


# --- what is printed


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("hop_archive.config.load.load", fail)


def test_an_error_is_made_harmless_and_cut_where_it_is_printed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, HopArchiveError(f"{ESCAPES}\nsecond line " + "x" * 100_000))
    for words in (("list",), ("list", "--debug")):
        told = invoke(*words).stderr
        assert r"Error: \x1b]0;owned\x07" in told
        assert told.replace("\n", "").isprintable()
        assert len(told.rpartition("Error: ")[2]) < MOST_TOLD + 100


def test_what_is_wrong_with_the_command_line_is_made_harmless_too(place: Path) -> None:
    told = invoke("list", f"--{ESCAPES}").stderr
    assert r"\x1b]0;owned\x07" in told
    assert told.replace("\n", "").isprintable()


class Panic(BaseException):
    """As pyo3 raises it for a panic in Rust: no Exception."""


def test_a_panic_of_a_library_is_a_bug_told_in_words(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, Panic(f"called unwrap on {ESCAPES}"))
    monkeypatch.setattr(sys, "argv", ["hop-archive", "list"])
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == A_BUG
    told = capfd.readouterr().err
    assert "This is a bug in hop-archive, or in a library that it uses" in told
    assert told.endswith("Panic: called unwrap on \\x1b]0;owned\\x07\n")
    assert "\x1b" not in told


def test_every_command_says_whether_its_output_is_its_work() -> None:
    assert package.COMMANDS.keys() > package.SHOWING
