"""The command line where its output is closed, full, gone, or in a language without our characters; and what it may print."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from hop_archive_tests.cli_helpers import (
    DEADLINE_S,
    M,
    archived,
    command,
    environment,
    mocks,
    place,
    wait_for,
)

__all__ = ["place"]


FULL = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="this system has no disk that is always full"
)


def redirected(place: Path, how: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the redirections of a shell."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {how}', "sh", *command(*words)],
        cwd=place,
        env=environment() | more,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=DEADLINE_S,
        check=False,
    )


SHOWN = [
    ("list",),
    ("status", *M),
    ("uuids", *M),
    ("findings", "-D", "m"),
    ("--help",),
]


@pytest.mark.parametrize("words", SHOWN, ids=lambda words: words[0])
def test_what_is_to_be_shown_and_cannot_be_is_one_message(place: Path, words: tuple[str, ...]) -> None:
    mocks(place, archived=True)
    ran = redirected(place, ">&-", *words)
    assert ran.returncode == 2
    assert ran.stderr == (
        "Error: What the output goes to cannot be used: Bad file descriptor. See whether it is there, may be used by this "
        "user, and has room.\n"
    )


@pytest.mark.parametrize(
    "words", [("run", *M, "--until-caught-up"), ("verify", *M)], ids=lambda words: words[0]
)
@pytest.mark.parametrize("how", [">&-", ">&- 2>&- <&-", pytest.param(">/dev/full 2>/dev/full", marks=FULL)])
def test_work_goes_on_where_nothing_can_be_printed(place: Path, words: tuple[str, ...], how: str) -> None:
    directory = mocks(place)
    ran = redirected(place, how, *words)
    assert ran.returncode == 0
    assert (
        ran.stderr in ("", "What was printed could not be written: Bad file descriptor.\n")
        or words[0] == "run"
    )
    assert "Traceback" not in ran.stderr
    if words[0] == "run":
        assert archived(directory) > 0
        assert redirected(place, "", "verify", *M, "--deep").returncode == 0


def test_what_was_asked_for_as_json_and_could_not_be_written_is_no_success(place: Path) -> None:
    directory = mocks(place)
    ran = redirected(place, ">&-", "run", *M, "--until-caught-up", "--json", "-q")
    assert (ran.returncode, ran.stderr) == (
        2,
        "What was printed could not be written: Bad file descriptor.\n",
    )
    assert archived(directory) > 0


def test_messages_that_nobody_can_read_stop_no_command(place: Path) -> None:
    assert redirected(place, "2>&-", "list").returncode == 0
    assert redirected(place, "2>&-", "no-such-command").returncode == 2


def test_a_reader_that_goes_away_does_not_end_a_run(place: Path) -> None:
    directory = mocks(place)
    ours, its = os.pipe()
    os.close(ours)
    ran = subprocess.run(
        command("run", *M, "--until-caught-up"),
        cwd=place,
        env=environment(),
        stdout=its,
        stderr=its,
        timeout=DEADLINE_S,
        check=False,
    )
    os.close(its)
    assert ran.returncode == 0
    assert archived(directory) > 0


@pytest.mark.parametrize("ignored", [False, True], ids=["a terminal that goes", "nohup"])
def test_a_terminal_that_goes_ends_a_run_cleanly_unless_that_is_ignored(place: Path, ignored: bool) -> None:
    directory = mocks(place, rate=20)
    trap = "trap '' HUP; " if ignored else ""
    with subprocess.Popen(
        ["sh", "-c", f'{trap}exec "$@"', "sh", *command("run", *M)],
        cwd=place,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGHUP, signal.SIG_DFL
        ),  # also where the tests run under nohup
    ) as run:
        try:
            wait_for(lambda: directory.exists() and archived(directory), "something is archived")
            run.send_signal(signal.SIGHUP)
            if ignored:
                before = archived(directory)
                wait_for(lambda: archived(directory) > before, "it goes on")
                run.send_signal(signal.SIGTERM)
            told, _ = run.communicate(timeout=DEADLINE_S)
        finally:
            run.kill()
    assert run.returncode == 0
    assert f"Ended by {'SIGTERM' if ignored else 'SIGHUP'}" in told


def test_nobody_to_ask_is_an_answer(place: Path) -> None:
    mocks(place, archived=True)
    ran = redirected(place, "<&-", "prune", *M[2:], "-T", "snews.alerts", "--older-than", "1d")
    assert "Traceback" not in ran.stderr
    assert ran.returncode == 0


@pytest.fixture
def odd_name() -> str:
    return os.fsdecode(b"caf\xe9")


def test_files_and_folders_may_have_any_name(place: Path, odd_name: str) -> None:
    mocks(place, source='writable = true\ntest_topics = ["t"]\n')
    folder = place / odd_name
    folder.mkdir()
    (folder / f"{odd_name}.txt").write_bytes(b"hello")
    (folder / os.fsdecode(b"caf\xe8.txt")).write_bytes(b"hello")
    for words in (
        ("publish", "-H", "m", "-T", "t", "--create", "--seed", "1", str(folder)),
        ("run", *M, "--until-caught-up", "-q"),
        ("export", *M, "-T", "t", "--json", str(place / odd_name / "exported")),
        ("catalog-snapshot", *M[2:], str(place / odd_name / "snapshot")),
        ("report", *M, str(place / odd_name / "report.html")),
    ):
        ran = redirected(place, "", *words)
        assert (ran.returncode, ran.stderr.count("Traceback")) == (0, 0), f"{words}: {ran.stderr}"
    assert (folder / "exported" / "catalog.parquet").stat().st_size
    counted = redirected(place, "", "uuids", *M, "-T", "t").stdout.split()
    assert len(counted) == 2, "two files are two messages, though their names look alike"
    missing = redirected(place, "", "publish", "-H", "m", "-T", "t", str(place / f"no-{odd_name}"))
    assert missing.returncode == 2
    assert missing.stderr.endswith("no-caf\\udce9.\n")
