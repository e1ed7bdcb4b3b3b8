"""The archive's process is killed at random moments, on real servers: nothing is lost, nothing is doubled."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import psycopg
import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.prove import prove
from hop_archive.ingest.survey import survey
from hop_archive.upkeep.row_jobs import PORTION_ROWS
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults.real import (
    SEGMENTS,
    Processes,
    Trickle,
    assert_all_archived,
    create_sample_topics,
    ended,
    plain,
    processes_of,
    publish,
    sample_alerts,
)

pytestmark = pytest.mark.local

KILLS = 12
BACKLOG = 2_000
SMALL_BATCHES = ("--batch-messages", "10", "--quiet")
LONGEST_S = 1.0
"""Time for some dozen batches on an idle laptop."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_a_dozen_times_while_messages_arrive_archives_each_once(
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
            wait_for(
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


def test_an_index_of_text_that_is_killed_goes_on_where_it_was_and_no_text_comes_twice(
    open_archive: OpenArchive, namespace: str, address: StackAddress, tmp_path: Path
) -> None:
    archive, topic = open_archive(), f"{namespace}.{SEGMENTS}"
    archive.source.create_topic(topic)
    number = 2 * PORTION_ROWS + 1
    publish(archive.source, plain(topic, number))
    processes = processes_of(tmp_path, namespace, address)
    stanzas = tmp_path / "hop_archive.toml"
    stanzas.write_text(stanzas.read_text().replace("schema =", 'index_text = ["*"]\nschema ='))
    processes.to_the_end("--quiet")
    index_text = ("index-text", "-D", "here", "-S", "here", "--json")
    with psycopg.connect(address.database_url, autocommit=True) as other:
        other.execute(f'SET search_path = "{namespace}"'.encode())
        # Whoever writes text of the second portion waits for us, in the middle of it.
        other.execute("SELECT pg_advisory_lock(1)")
        other.execute(f"CREATE SEQUENCE written; {WAITING}".encode())

        def texts() -> int:
            ((found,),) = other.execute("SELECT count(*) FROM message_ts").fetchall()
            return int(found)

        with ended(processes.start(*index_text)) as process:
            wait_for(lambda: other.execute(HANGING).fetchall(), "it is in its second portion")
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert texts() == PORTION_ROWS
        assert archive.catalog.text_backlog([topic], number).messages == number - PORTION_ROWS
        other.execute("SELECT pg_advisory_unlock(1)")
        wait_for(lambda: not other.execute(HOLDING).fetchall(), "the server notices that it is gone")
        other.execute("DROP FUNCTION waiting CASCADE")
        assert texts() == PORTION_ROWS
        told, _ = processes.start(*index_text).communicate(timeout=300)
        assert json.loads(told)["indexed"] == number - PORTION_ROWS
        assert json.loads(told)["waiting"] == 0
        assert texts() == number
        assert other.execute("SELECT uuid FROM message_ts GROUP BY uuid HAVING count(*) > 1").fetchall() == []


WAITING = f"""
    CREATE FUNCTION waiting() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $do$
    BEGIN
        IF nextval('written') = {PORTION_ROWS + 100} THEN
            PERFORM pg_advisory_xact_lock(1);
        END IF;
        RETURN NEW;
    END $do$;
    CREATE TRIGGER waiting BEFORE INSERT ON message_ts FOR EACH ROW EXECUTE FUNCTION waiting()
"""
HANGING = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND NOT granted"
HOLDING = "SELECT FROM pg_locks WHERE relation = 'held'::regclass AND mode = 'RowExclusiveLock'"
