"""``make dev``, with a program in the place of ``dagster dev`` that presses Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from hop_archive.devkit import dev
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.devkit.workbench import Workbench

PRESSES_CTRL_C = f"import os, signal; os.kill({os.getpid()}, signal.SIGINT)"


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of signals, as they were."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.local
def test_whoever_ends_it_is_told_that_the_servers_are_up_and_how_to_stop_them(
    local_stack: LocalStack, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_stack.up()
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr(Workbench, "command", lambda *_: [sys.executable, "-c", PRESSES_CTRL_C])
    monkeypatch.setattr(dev, "_trickle", lambda *_: None)
    result = CliRunner().invoke(dev.main, ["--dir", str(local_stack.directory)])
    assert result.exit_code == 0, result.output
    last = result.stdout.splitlines()[-1]
    assert last.startswith("Kafka, Postgres and S3 are still up. Stop them: make down ")
    assert last.endswith(f"hop-archive local down --dir {local_stack.directory})")


def test_where_nothing_was_started_nothing_is_told_of_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(dev.main, ["--dir", "stack"])
    assert result.exit_code == 2
    assert "still up" not in result.output
