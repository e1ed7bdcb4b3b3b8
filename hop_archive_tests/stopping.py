"""Stops processes in their tracks, as a machine does that hangs: they neither answer nor hang up."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from hop_archive_tests.cli_helpers import wait_for


def stop_process(pid: int) -> None:
    """Stop it, and wait until all its threads stand still: on a busy machine, those that the kernel has not come to go on answering."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: _states(pid) == {"T"}, f"every thread of process {pid} stands still")


def _states(pid: int) -> set[str]:
    states = set()
    for file in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError):  # a thread that ended meanwhile
            states.add(file.read_text().rpartition(")")[2].split()[0])
    return states
