"""``make dev``, with a program in the place of ``dagster dev``: however it is ended, nothing but the servers stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest
from click.testing import CliRunner

from hop_archive.devkit import dev
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.devkit.samples import SAMPLE_TOPICS
from hop_archive.devkit.workbench import Workbench
from hop_archive.errors import UnavailableError
from hop_archive.source.protocol import Source
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.worlds import World

PRESSES_CTRL_C = f"import os, signal, time; os.kill({os.getpid()}, signal.SIGINT); time.sleep(60)"

STANDS_IN = """
import signal, subprocess, sys, time
if "{stubborn}":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("CHILD", child.pid, flush=True)
time.sleep(600)
"""

PROGRAM = """
import sys
from hop_archive.devkit import dev, workbench
_, directory, program = sys.argv
workbench.Workbench.command = lambda *_: [sys.executable, "-c", program]
workbench.ENDING_S = 1.0
dev.trickle = lambda *_: None
sys.argv = ["dev", "--dir", directory]
dev.main()
"""


@pytest.mark.local
def test_whoever_ends_it_is_told_that_the_servers_are_up_and_how_to_stop_them(
    local_stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_stack.up()
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr(Workbench, "command", lambda *_: [sys.executable, "-c", PRESSES_CTRL_C])
    monkeypatch.setattr(dev, "trickle", lambda *_: None)
    result = CliRunner().invoke(dev.main, ["--dir", str(local_stack.directory)])
    assert result.exit_code == 0, result.output
    last = result.stdout.splitlines()[-1]
    assert last.startswith("Kafka, Postgres and S3 are still up. Stop them: make down ")
    assert last.endswith(f"hop-archive local down --dir {local_stack.directory})")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.local
@pytest.mark.parametrize(
    ("number", "stubborn"), [(signal.SIGINT, ""), (signal.SIGTERM, "stubborn"), (signal.SIGHUP, "")]
)
def test_started_by_a_script_that_ignores_interrupts_it_ends_by_any_signal_and_leaves_no_process(
    local_stack: LocalStack, number: signal.Signals, stubborn: str
) -> None:
    local_stack.up()
    # As a shell does for what a script starts in the background.
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(local_stack.directory), STANDS_IN.format(stubborn=stubborn)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert started.stdout is not None
    pid = 0
    while not pid:
        line = started.stdout.readline()
        assert line, "it ended before it was asked to"
        pid = int(line.split()[1]) if line.startswith("CHILD") else 0
    started.send_signal(number)
    told, _ = started.communicate(timeout=300)
    assert started.returncode == 0, told
    assert "Kafka, Postgres and S3 are still up" in told
    assert ("does not end; it is killed" in told) is bool(stubborn)
    wait_for(lambda: not psutil.pid_exists(pid), "what the program started is gone, too")


class Stopped(BaseException):
    """What ends a stream that has no end of its own."""


def test_the_alerts_go_on_after_kafka_was_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = World().archive()
    tries: list[Source] = []

    def publish(source: Source, *_: object, **__: object) -> Iterator[object]:
        tries.append(source)
        if len(tries) == 4:
            raise Stopped
        raise UnavailableError("Kafka does not answer.")

    monkeypatch.setattr(dev, "publish", publish)
    monkeypatch.setattr(dev, "_PAUSE_S", 0.0)
    bench = cast("Workbench", SimpleNamespace(archive=lambda: archive))
    with pytest.raises(Stopped):
        dev.trickle(bench, 5.0)
    assert capsys.readouterr().err == "No sample alerts meanwhile: Kafka does not answer.\n", "said once"
    assert {topic.name for topic in SAMPLE_TOPICS} <= archive.source.topics().keys()


def test_where_nothing_was_started_nothing_is_told_of_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(dev.main, ["--dir", "stack"])
    assert result.exit_code == 2
    assert "still up" not in result.output
