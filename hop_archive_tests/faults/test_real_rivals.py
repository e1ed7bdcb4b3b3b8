"""Two processes archive the same backlog at once, on real servers: shared or not, no doubles, and no error for anybody."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from hop_archive.archive import Archive
from hop_archive.devkit.local.address import StackAddress
from hop_archive.upkeep.verify.sent import Place, Sent
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.contract.store_fixtures import SlowProxy
from hop_archive_tests.faults.real import (
    SEGMENTS,
    assert_all_archived,
    ended,
    plain,
    processes_of,
    publish,
)

pytestmark = pytest.mark.local

IN_SEGMENTS, ONE_BY_ONE = 16_000, 4_000
MANY, EACH, BATCH = 16, 600, 150
"""Partitions, messages in each, and in a batch: 64 puts."""
WAITING = """
    SELECT count(DISTINCT pid) FROM pg_locks
    WHERE NOT granted AND relation = to_regclass(%s)
"""


PATIENCE_S = 7.0
"""Less than the archive waits for a lock; a laptop starts two processes in far less."""


@contextlib.contextmanager
def nobody_writes(table: str, database_url: str, schema: str, until_waiting: int) -> Iterator[None]:
    """Hold a table back from writers, after the block until so many wait to write: so far all have come by then."""
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url, autocommit=True) as watcher:
        held = sql.Identifier(schema, table)
        holder.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(held))
        yield
        name = held.as_string(holder)
        wait_for(lambda: waiting(watcher, name), f"somebody waits to write {table}")
        end = time.monotonic() + PATIENCE_S
        while waiting(watcher, name) < until_waiting and time.monotonic() < end:
            time.sleep(0.02)


def refuse_claims(database_url: str, schema: str) -> None:
    """Let nobody write a claim, as where the role has no right to it."""
    with psycopg.connect(database_url, options=f"-c search_path={schema}") as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE 'not yours' USING ERRCODE = 'insufficient_privilege'; END $$"
        )
        connection.execute("CREATE TRIGGER refusing BEFORE INSERT ON archivers EXECUTE FUNCTION refuse()")


def waiting(watcher: psycopg.Connection, table: str) -> int:
    (count,) = watcher.execute(WAITING, (table,)).fetchone() or (0,)
    return int(count)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_that_cannot_share_archive_each_message_once_and_both_end_well(
    open_archive: OpenArchive, namespace: str, address: StackAddress, tmp_path: Path
) -> None:
    archive = open_archive()
    refuse_claims(address.database_url, namespace)
    topics = {f"{namespace}.{SEGMENTS}": IN_SEGMENTS, f"{namespace}.message": ONE_BY_ONE}
    sent: dict[Place, Sent] = {}
    for topic, count in topics.items():
        archive.source.create_topic(topic, 2)
        sent |= publish(archive.source, plain(topic, count, partitions=2))
    processes = processes_of(tmp_path, namespace, address)
    options = ("--until-caught-up", "--batch-messages", "1000")
    with contextlib.ExitStack() as ending:
        with nobody_writes("batches", address.database_url, namespace, until_waiting=2):
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


@contextlib.contextmanager
def two_that_share(
    archive: Archive, topic: str, address: StackAddress, directory: Path
) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that begin with a topic at one time, in front of a slow store; once both have committed."""
    schema = topic.partition(".")[0]
    with contextlib.ExitStack() as ending:
        slow = ending.enter_context(SlowProxy(address.s3_endpoint, delay_s=0.4).run())
        processes = processes_of(directory, schema, replace(address, s3_endpoint=slow))
        options = ("--until-caught-up", "--json", "--batch-messages", str(BATCH))
        with nobody_writes("archivers", address.database_url, schema, until_waiting=2):
            both = [ending.enter_context(ended(processes.run(*options, "--run-id", n))) for n in "AB"]

        def have_committed() -> bool:
            return {"A", "B"} <= {entry.run_id for entry in archive.catalog.ledger([topic])}

        wait_for(have_committed, "both have committed something")
        yield both


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_share_a_topic_of_sixteen_partitions_and_neither_does_what_the_other_does(
    open_archive: OpenArchive, namespace: str, address: StackAddress, tmp_path: Path
) -> None:
    archive, topic = open_archive(), f"{namespace}.{SEGMENTS}"
    archive.source.create_topic(topic, MANY)
    sent = publish(archive.source, plain(topic, MANY * EACH, partitions=MANY))
    with two_that_share(archive, topic, address, tmp_path) as both:
        told = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    said = [json.loads(output) for output, _ in told]
    assert [one["left_to_others"] for one in said] == [0, 0]
    assert [one["shared_with"] for one in said] == [["B"], ["A"]]
    assert sum(one["total"]["messages"] for one in said) == MANY * EACH
    assert min(one["total"]["messages"] for one in said) >= MANY * EACH // 4
    for _, errors in told:
        assert "Shared with" in errors
        assert "already archived" not in errors
    assert list(archive.catalog.findings(open_only=False)) == []
    assert_all_archived(archive, [topic], sent)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_one_of_two_had_taken_on_when_it_was_killed_is_done_by_the_other(
    open_archive: OpenArchive, namespace: str, address: StackAddress, tmp_path: Path
) -> None:
    archive, topic = open_archive(), f"{namespace}.{SEGMENTS}"
    archive.source.create_topic(topic, MANY)
    sent = publish(archive.source, plain(topic, MANY * EACH, partitions=MANY))
    with two_that_share(archive, topic, address, tmp_path) as (killed, other):
        killed.kill()
        output, errors = other.communicate(timeout=240)
    assert other.returncode == 0, errors
    assert json.loads(output)["caught_up"]
    assert "left_undone" not in {row.finding.kind.value for row in archive.catalog.findings(open_only=False)}
    assert_all_archived(archive, [topic], sent)
