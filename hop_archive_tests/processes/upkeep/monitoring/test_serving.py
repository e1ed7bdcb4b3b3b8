"""Metrics as Prometheus and node-exporter take them."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from hop_archive.errors import ConfigurationError
from hop_archive.upkeep.monitoring.metrics import registry_of, serve
from hop_archive_tests.cli_helpers import DEADLINE_S, M, command, environment, invoke, mocks, place

__all__ = ["place"]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def got(port: int, accept: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def waited_for(port: int, wanted: str, process: subprocess.Popen[str]) -> str:
    end = time.monotonic() + DEADLINE_S
    found = ""
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        try:
            found = got(port)
        except OSError:
            found = ""
        if re.search(wanted, found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{wanted} is not in:\n{found}")


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (("metrics", "--listen"), 'hop_archive_topic_messages{topic="gcn.notices"} '),
        (("run", "-q", "--metrics"), 'hop_archive_stage_duration_seconds_count{stage="commit"} '),
    ],
    ids=["metrics", "run"],
)
def test_metrics_are_served_until_the_command_is_ended(
    place: Path, args: tuple[str, ...], wanted: str
) -> None:
    mocks(place, archived=args[0] == "metrics")
    port = free_port()
    with subprocess.Popen(
        command(args[0], *M, *args[1:], str(port)),
        cwd=place,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            text = waited_for(port, r'hop_archive_up{part="database"} 1\.0', process)
            if args[0] == "run":
                text = waited_for(port, "hop_archive_run_messages_total [1-9]", process)
            assert wanted in text
            assert got(port, "application/openmetrics-text").endswith("# EOF\n")
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0


def test_a_textfile_is_written_as_a_whole(place: Path) -> None:
    mocks(place, archived=True)
    path = place / "hop_archive.prom"
    assert invoke("metrics", *M, "--textfile", str(path)).exit_code == 0
    assert 'hop_archive_topic_lag_messages{topic="gcn.notices"} 0.0' in path.read_text()
    assert [p.name for p in place.iterdir() if p.name.startswith("hop_archive.prom")] == ["hop_archive.prom"]
    refused = invoke("metrics", *M, "--textfile", str(place / "no-such" / "x.prom"))
    assert (refused.exit_code, "x.prom cannot be written" in refused.output) == (2, True)


def test_a_port_that_is_taken_is_named() -> None:
    end = serve(registry_of(lambda: None), str(port := free_port()))
    try:
        with pytest.raises(
            ConfigurationError, match=f"Metrics cannot be served at {port}: Address already in use"
        ):
            serve(CollectorRegistry(), str(port))
        assert 'hop_archive_up{part="database"} 0.0' in got(port)
    finally:
        end()
