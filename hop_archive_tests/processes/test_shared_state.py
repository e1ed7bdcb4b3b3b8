from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hop_archive.shared_state import SharedState
from hop_archive_tests.unit.test_shared_state import state

__all__ = ["state"]


COUNT_UP = """
import sys
from pathlib import Path
from hop_archive.shared_state import SharedState
state = SharedState(dict, Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(50):
    with state.change() as value:
        value["count"] = value.get("count", 0) + 1
"""


DIE_INSIDE = """
import os, sys
from pathlib import Path
from hop_archive.shared_state import SharedState
with SharedState(dict, Path(sys.argv[1])).change() as value:
    value["half"] = "done"
    os._exit(9)
"""


def program(text: str, directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", text, str(directory)],
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_change_one_after_another(tmp_path: Path) -> None:
    some = [program(COUNT_UP, tmp_path) for _ in range(3)]
    for process in some:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in some:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in some:
        process.communicate(timeout=300)
        assert process.returncode == 0
    with SharedState[dict[str, int]](dict, tmp_path).read() as value:
        assert value == {"count": 150}


def test_a_process_that_dies_within_a_change_changes_nothing_and_holds_up_nobody(tmp_path: Path) -> None:
    state = SharedState[dict[str, int]](dict, tmp_path)
    with state.change() as value:
        value["a"] = 1
    process = program(DIE_INSIDE, tmp_path)
    process.communicate(timeout=300)
    assert process.returncode == 9
    with state.change() as value:
        assert value == {"a": 1}
