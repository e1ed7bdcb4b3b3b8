"""The memory of a run's process stays within what was configured, however much waits and however large it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.devkit.samples import Sample, filler
from hop_archive.source.kafka.source import FETCH_BYTES
from hop_archive_tests.conftest import Measured, OpenArchive
from hop_archive_tests.faults.real import SEGMENTS, Processes, processes_of, restartable
from hop_archive_tests.invariants import assert_ledger_is_sound

pytestmark = [pytest.mark.local, pytest.mark.slow]

MIB = 1024 * 1024
MEMORY_MIB = 160
FETCH_MIB = FETCH_BYTES // MIB
# Together well above twice the bound: what held all of them at once would be noticed.
SMALL_MESSAGES, LARGE_MESSAGES, LARGE_BYTES = 80_000, 120, 5_000_000
PROGRAM = """
import atexit, resource, sys

def peak():
    try:
        with open("/proc/self/status") as status:
            kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:  # macOS, where it is in bytes
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stderr.write(f"peak {kib // 1024}\\n")

atexit.register(peak)
from hop_archive.cli import main
main()
"""


def peak_mib(processes: Processes, *options: str) -> int:
    """Run until caught up; the most memory that the process ever had resident."""
    here = ("-H", "here", "-D", "here", "-S", "here")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "run", *here, "--until-caught-up", *options],
        cwd=processes.directory,
        env=processes.environ,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stderr.split()[-1])


@pytest.fixture
def purged(local_stack: LocalStack) -> Iterator[None]:
    """Let the broker forget most of a gigabyte afterwards: it keeps all in memory."""
    stack = restartable(local_stack, "kafka")
    yield
    stack.kill("kafka")
    stack.start("kafka")


def backlog(namespace: str) -> Iterator[Sample]:
    """Small and huge messages for both layouts."""
    small = filler(SMALL_MESSAGES, 1000, topic=f"{namespace}.{SEGMENTS}")
    large = (
        sample
        for topic in (f"{namespace}.{SEGMENTS}", f"{namespace}.message")
        for sample in filler(LARGE_MESSAGES // 2, LARGE_BYTES, topic=topic, seed=1)
    )
    return chain(small, large)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("purged")
def test_a_large_backlog_of_small_and_huge_messages_stays_within_the_configured_memory(
    open_archive: OpenArchive, address: StackAddress, namespace: str, tmp_path: Path, measured: Measured
) -> None:
    archive = open_archive()
    topics = [f"{namespace}.{SEGMENTS}", f"{namespace}.message"]
    for topic in topics:
        archive.source.create_topic(topic, 2, {"max.message.bytes": "25000000"})
    processes = processes_of(tmp_path, namespace, address)
    options = ("--memory", str(MEMORY_MIB))
    empty_mib = peak_mib(processes, *options)
    archive.source.publish(backlog(namespace))
    full_mib = peak_mib(processes, *options)
    bound_mib = empty_mib + MEMORY_MIB + FETCH_MIB
    measured(f"a run's peak: {full_mib} MiB, of {bound_mib} MiB; {empty_mib} MiB with nothing to do")
    assert full_mib < bound_mib
    assert_ledger_is_sound(archive.catalog.ledger(topics))
    assert sum(s.messages for s in archive.catalog.summaries(topics)) == SMALL_MESSAGES + LARGE_MESSAGES
