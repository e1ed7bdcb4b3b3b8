"""The archive's process is killed at random moments, on real servers: nothing is lost, nothing is doubled."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.prove import prove
from hop_archive.ingest.survey import survey
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults.real import (
    Processes,
    Trickle,
    assert_all_archived,
    create_sample_topics,
    ended,
    processes_of,
    publish,
    sample_alerts,
    wait_until,
)

pytestmark = pytest.mark.local

KILLS = 20
BACKLOG = 3_000
SMALL_BATCHES = ("--batch-messages", "10", "--quiet")
LONGEST_S = 1.0
"""Time for some dozen batches on an idle laptop."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_twenty_times_while_messages_arrive_archives_each_once(
    open_archive: OpenArchive, namespace: str, address: StackAddress, tmp_path: Path
) -> None:
    archive = open_archive()
    topics = create_sample_topics(archive.source, namespace)
    processes = processes_of(tmp_path, namespace, address)
    sent = publish(archive.source, sample_alerts(namespace, BACKLOG))
    killed_at_work = 0
    with Trickle(open_archive().source, namespace) as arriving:
        for number in range(KILLS):
            kill_at_random(processes, archive, topics, number)
            killed_at_work += bool(survey(archive, topics).pending())
    assert killed_at_work > KILLS // 2
    processes.to_the_end("--quiet")
    sent |= arriving.sent
    committed_by = {entry.run_id for entry in archive.catalog.ledger(topics)}
    assert len(committed_by) > KILLS // 2, "most were killed before they had done anything"
    assert_all_archived(archive, topics, sent)
    for proof in prove(archive, topics, sent):
        assert proof.holds, proof


def kill_at_random(processes: Processes, archive: Archive, topics: list[str], number: int) -> None:
    """Kill a process, most often some time after its first batch, sometimes before that."""
    chance, run_id = random.Random(number), f"run {number}"
    with ended(processes.run(*SMALL_BATCHES, "--run-id", run_id)) as process:
        if chance.random() < 0.8:
            wait_until(
                lambda: (
                    process.poll() is not None
                    or any(entry.run_id == run_id for entry in archive.catalog.ledger(topics))
                ),
                "the process commits a batch",
            )
        time.sleep(chance.uniform(0, LONGEST_S))
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
