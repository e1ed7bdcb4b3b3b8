"""A run of tests that is killed leaves no server and no program behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hop_archive.devkit.local.processes import READY_TIMEOUT_S, RUN_VARIABLE
from hop_archive.devkit.local.s3 import ports_in
from hop_archive_tests.cli_helpers import wait_for

pytestmark = pytest.mark.local

TEST = """
import json, subprocess, sys, threading
from pathlib import Path
from hop_archive.devkit.local.stack import SERVER_NAMES, LocalStack
from hop_archive_tests.cli_helpers import environment

def test_that_is_killed(tmp_path):
    stack = LocalStack(tmp_path)
    stack.up()
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment())
    pids = [program.pid, *(stack.pid(name) for name in SERVER_NAMES)]
    unfinished = Path("pids.new")
    unfinished.write_text(json.dumps(pids))
    unfinished.replace("pids")
    threading.Event().wait()
"""


def test_servers_and_programs_of_a_run_that_was_killed_end_with_it(tmp_path: Path) -> None:
    (tmp_path / "test_killed.py").write_text(TEST)
    environ = {name: value for name, value in os.environ.items() if name != RUN_VARIABLE}
    environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    program = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "hop_archive_tests.ending",
    ]
    with (tmp_path / "output").open("wb") as output:
        run = subprocess.Popen(
            [*program, f"--basetemp={tmp_path / 'base'}", "test_killed.py"],
            cwd=tmp_path,
            env=environ,
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(
            lambda: (tmp_path / "pids").exists() or run.poll() is not None, "servers", READY_TIMEOUT_S * 3
        )
        servers = [psutil.Process(pid) for pid in json.loads((tmp_path / "pids").read_text())]
        marks = {server.environ()[RUN_VARIABLE] for server in servers}
        ports = [port for server in servers for port in ports_in(server.cmdline())]
        sockets = [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]
    finally:
        run.kill()
        run.wait()
    assert len(marks) == 1
    assert sockets
    wait_for(lambda: not any(map(psutil.Process.is_running, servers)), "the servers end")
    wait_for(lambda: not any(map(Path.exists, sockets)), "their sockets are removed")
