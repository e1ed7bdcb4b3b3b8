"""Two processes archive the same backlog at once, on real servers: no doubles, and no error for anybody."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from hop_archive.devkit.local.address import StackAddress
from hop_archive.upkeep.verify.sent import Place, Sent
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults.real import (
    SEGMENTS,
    assert_all_archived,
    ended,
    plain,
    processes_of,
    publish,
    wait_until,
)

pytestmark = pytest.mark.local

IN_SEGMENTS, ONE_BY_ONE = 16_000, 4_000
WAITING = """
    SELECT count(DISTINCT pid) FROM pg_locks
    WHERE NOT granted AND relation = to_regclass(%s)
"""


PATIENCE_S = 7.0
"""Less than the archive waits for a lock; a laptop starts two processes in far less."""


@contextlib.contextmanager
def nobody_commits(database_url: str, schema: str, until_waiting: int) -> Iterator[None]:
    """Hold the ledger back from writers, after the block until so many wait to write: all have read it by then."""
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url, autocommit=True) as watcher:
        ledger = sql.Identifier(schema, "batches")
        holder.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(ledger))
        yield
        name = ledger.as_string(holder)
        wait_until(lambda: waiting(watcher, name), "somebody waits to write the ledger")
        end = time.monotonic() + PATIENCE_S
        while waiting(watcher, name) < until_waiting and time.monotonic() < end:
            time.sleep(0.02)


def waiting(watcher: psycopg.Connection, table: str) -> int:
    (count,) = watcher.execute(WAITING, (table,)).fetchone() or (0,)
    return int(count)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_with_the_same_backlog_archive_each_message_once_and_both_end_well(
    open_archive: OpenArchive, namespace: str, address: StackAddress, tmp_path: Path
) -> None:
    archive = open_archive()
    topics = {f"{namespace}.{SEGMENTS}": IN_SEGMENTS, f"{namespace}.message": ONE_BY_ONE}
    sent: dict[Place, Sent] = {}
    for topic, count in topics.items():
        archive.source.create_topic(topic, 2)
        sent |= publish(archive.source, plain(topic, count, partitions=2))
    processes = processes_of(tmp_path, namespace, address)
    options = ("--until-caught-up", "--batch-messages", "1000")
    with contextlib.ExitStack() as ending:
        with nobody_commits(address.database_url, namespace, until_waiting=2):
            both = [ending.enter_context(ended(processes.run(*options, "--run-id", n))) for n in "AB"]
        told = ["".join(process.communicate(timeout=240)) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert all("Caught up." in text for text in told)
    assert any("already archived by" in text for text in told)
    for text in told:
        assert "Traceback" not in text
        assert "ERROR" not in text
    assert {entry.run_id for entry in archive.catalog.ledger(list(topics))} <= {"A", "B"}
    assert_all_archived(archive, topics, sent)
