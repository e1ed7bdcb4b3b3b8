"""Of a process of this machine it is known whether it is gone, of any other nothing is claimed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hop_archive.ingest.process_mark import is_gone, kill_process, process_mark

MARKED = """
import time
from hop_archive.ingest.process_mark import process_mark
print(process_mark(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    """A process that prints its mark, and lives for ten minutes."""
    process = subprocess.Popen([sys.executable, "-c", MARKED], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def mark_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_one_that_lives_is_not_gone_nor_is_one_that_is_stopped(other: subprocess.Popen[str]) -> None:
    mark = mark_of(other)
    assert not is_gone(mark)
    other.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, other.pid, os.WSTOPPED | os.WNOWAIT)
    assert not is_gone(mark)


def test_one_that_was_killed_is_gone_also_before_it_was_waited_for(other: subprocess.Popen[str]) -> None:
    mark = mark_of(other)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(mark)
    other.wait()
    assert is_gone(mark)
    assert not kill_process(mark)


def test_one_whose_pid_is_another_process_by_now_is_gone_and_that_one_is_not_killed(
    other: subprocess.Popen[str],
) -> None:
    pid, started, place = mark_of(other).split(" ", 2)
    before = f"{pid} {int(started) - 1} {place}"
    assert is_gone(before)
    assert not kill_process(before)
    assert other.poll() is None


@pytest.mark.parametrize("part", ["namespace", "start of the machine", "machine"])
def test_nothing_is_said_of_a_process_elsewhere(other: subprocess.Popen[str], part: str) -> None:
    pid, started, namespace, boot, host = mark_of(other).split(" ", 4)
    elsewhere = {
        "namespace": f"{pid} {started} pid:[1] {boot} {host}",
        "start of the machine": f"{pid} {started} {namespace} {boot[::-1]} {host}",
        "machine": f"{pid} {started} {namespace} {boot} copy-of-{host}",
    }[part]
    assert not kill_process(elsewhere)
    assert other.poll() is None
    other.kill()
    other.wait()
    assert not is_gone(elsewhere)


@pytest.mark.parametrize("mark", ["", "-1", "no mark", "0 0 x", "1 2 3 4 5", f"{2**70} 1 x"])
def test_what_is_no_mark_means_no_process(mark: str) -> None:
    here = (process_mark() or "").split(" ", 2)[2]
    for text in (mark, f"{mark.partition(' ')[0]} 1 {here}"):
        assert not kill_process(text)
    assert not is_gone(mark)


def test_where_proc_knows_this_process_by_another_number_or_not_at_all_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = process_mark()
    assert mark is not None
    before = mark.replace(" ", " 0", 1)
    assert is_gone(before)
    with monkeypatch.context() as changed:
        changed.setattr(Path, "readlink", lambda path: Path("1"))
        assert process_mark() is None
        assert not is_gone(before)
    with monkeypatch.context() as changed:
        changed.setattr(Path, "readlink", lambda path: path.with_name("none").resolve(strict=True))
        assert process_mark() is None
        assert not is_gone(before)
