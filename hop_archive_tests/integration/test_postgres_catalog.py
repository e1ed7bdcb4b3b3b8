"""What only a real database does: several writers at once, lost connections, deadlocks, rights, indexes, volume."""

from __future__ import annotations

import datetime
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from hop_archive.catalog.postgres import adding, catalog, generations, ledger, rows, sql
from hop_archive.catalog.postgres import pool as postgres_pool
from hop_archive.catalog.postgres.adding import Numbered
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.records import UNPROVEN, Batch, Collision, CopyOf, Duplicate, Removal, Replaced
from hop_archive.errors import (
    ConfigurationError,
    DataError,
    ForbiddenError,
    HopArchiveError,
    MissingSettingError,
    ProofChangedError,
    SliceTakenError,
    StaleDecisionError,
    UnavailableError,
)
from hop_archive.model.slices import OffsetSet
from hop_archive.model.watermarks import Watermarks
from hop_archive_tests.contract.catalog_helpers import (
    DatabaseServer,
    InThread,
    adopted_row,
    await_condition,
    backends,
    connect,
    everything,
    full_batch,
    identity_of,
    insert_as_archive_core,
    password_of,
    row_at,
    slice_of,
    terminate,
    waiting_backends,
)
from hop_archive_tests.stopping import stop_process

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

MakePostgres = Callable[..., PostgresCatalog]


def prove_consistent(url: str) -> None:
    """What the ledger, the rows, the duplicates and the summary say of one another."""
    with connect(url) as connection:
        told = connection.execute(
            """SELECT (SELECT coalesce(sum(archived), 0) FROM batches), (SELECT count(*) FROM messages),
                      (SELECT coalesce(sum(duplicates), 0) FROM batches), (SELECT count(*) FROM duplicates),
                      (SELECT coalesce(sum(n_messages), 0) FROM topics)"""
        ).fetchone()
        strays = connection.execute(
            """SELECT count(*) FROM messages m WHERE NOT EXISTS (SELECT FROM batches b WHERE
                   (b.topic, b.generation, b.partition) = (m.topic, m.generation, m.partition)
                   AND b.offsets @> m."offset")"""
        ).fetchone()
    assert told is not None
    archived, rows, duplicates, recorded, summed = told
    assert (archived, duplicates, archived) == (rows, recorded, summed)
    assert strays == (0,)


# Several writers


@pytest.mark.parametrize("attempt", range(5))
def test_of_writers_with_overlapping_slices_one_wins_and_nothing_is_doubled(
    make_postgres: MakePostgres, database_url: str, attempt: int
) -> None:
    catalogs = [make_postgres() for _ in range(4)]
    start = threading.Barrier(len(catalogs))

    def commit(catalog: PostgresCatalog, batch: Batch) -> None:
        start.wait()
        catalog.commit(batch)

    batches = [full_batch(100 * n, 100 * n + 450) for n in range(len(catalogs))]
    calls = [InThread(partial(commit, *pair)) for pair in zip(catalogs, batches, strict=True)]
    outcomes = [call.outcome() for call in calls]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", *["SliceTakenError"] * 3]
    winner = batches[outcomes.index(None)]
    assert list(catalogs[0].rows("alerts")) == winner.rows
    assert catalogs[0].coverage() == {winner.slice.partition_log: winner.slice.offsets}
    prove_consistent(database_url)


def test_of_writers_of_the_same_uuids_one_wins(make_postgres: MakePostgres, database_url: str) -> None:
    catalogs = [make_postgres() for _ in range(3)]
    shared = [uuid.uuid4() for _ in range(200)]
    start = threading.Barrier(len(catalogs))

    def commit(partition: int) -> None:
        where = slice_of(0, 200, partition=partition)
        order = shared if partition % 2 else shared[::-1]
        batch = Batch(where, rows=[row_at(where, i, uuid=own) for i, own in enumerate(order)])
        start.wait()
        catalogs[partition].commit(batch)

    outcomes = [call.outcome() for call in [InThread(partial(commit, n)) for n in range(3)]]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", *["StaleDecisionError"] * 2]
    assert len(list(catalogs[0].rows("alerts"))) == 200
    prove_consistent(database_url)


def test_who_proves_a_log_anew_waits_for_who_commits_and_its_watermarks_wait_for_nobody(
    make_postgres: MakePostgres, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, prover = make_postgres(), make_postgres()
    partition_log = slice_of(0, 1).partition_log
    prover.observe({partition_log: Watermarks(0, 5, 5)})
    prover.note_proven({partition_log: 3})
    at_work, wake = threading.Event(), threading.Event()
    copy = adding.copy_messages

    def hang(connection: psycopg.Connection, *batches: Numbered) -> None:
        at_work.set()
        assert wake.wait(30)
        copy(connection, *batches)

    monkeypatch.setattr(adding, "copy_messages", hang)
    committing = InThread(lambda: writer.commit(replace(full_batch(0, 20), proven_epoch=3)))
    assert at_work.wait(30)
    prover.observe({partition_log: Watermarks(0, 20, 20)})
    proving = InThread(lambda: prover.note_proven({partition_log: UNPROVEN}, {partition_log: 3}))
    await_condition("who proves to wait", lambda: waiting_backends(database_url))
    wake.set()
    assert committing.outcome() is None
    assert proving.outcome() is None
    assert prover.coverage() == {partition_log: OffsetSet.between(0, 20)}
    with pytest.raises(ProofChangedError, match="test-db"):
        writer.commit(replace(full_batch(20, 40), proven_epoch=3))
    prove_consistent(database_url)


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_a_writer_waits_for_one_that_has_the_slice_and_may_yet_fail(
    postgres: PostgresCatalog, database_url: str, ending: str
) -> None:
    with psycopg.connect(database_url) as first:
        first.execute(
            "INSERT INTO batches (topic, generation, partition, offsets, outcome, absent)"
            " VALUES ('alerts', 1, 0, '[5,6)', 'archived', 1)"
        )
        second = InThread(lambda: postgres.commit(full_batch(0, 10)))
        await_condition("the second to wait", lambda: waiting_backends(database_url))
        first.execute(ending.encode())
        outcome = second.outcome()
    assert isinstance(outcome, SliceTakenError) if ending == "commit" else outcome is None


def test_a_writer_does_not_wait_for_ever(make_postgres: MakePostgres, database_url: str) -> None:
    hasty = make_postgres(timeout_s=0.3)
    with psycopg.connect(database_url) as first:
        first.execute(
            "INSERT INTO batches (topic, generation, partition, offsets, outcome, absent)"
            " VALUES ('alerts', 1, 0, '[5,6)', 'archived', 1)"
        )
        with pytest.raises(UnavailableError, match="test-db"):
            hasty.commit(full_batch(0, 10))
        first.rollback()
    hasty.commit(full_batch(0, 10))


def test_a_writer_that_hangs_within_its_commit_is_thrown_out_and_can_do_no_harm(
    make_postgres: MakePostgres, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_pool, "_IDLE_IN_TRANSACTION_S", 0.3)
    hung, fresh = make_postgres(), make_postgres()
    at_work, wake = threading.Event(), threading.Event()
    copy = adding.copy_messages

    def hang_once(connection: psycopg.Connection, *batches: Numbered) -> None:
        if not at_work.is_set():
            at_work.set()
            assert wake.wait(30)
        copy(connection, *batches)

    monkeypatch.setattr(adding, "copy_messages", hang_once)
    batch = full_batch(0, 20)
    hanging = InThread(lambda: hung.commit(batch))
    assert at_work.wait(30)
    fresh.commit(batch)
    wake.set()
    assert isinstance(hanging.outcome(), UnavailableError)
    assert list(fresh.rows("alerts")) == batch.rows
    prove_consistent(database_url)
    with pytest.raises(SliceTakenError):
        hung.commit(batch)


def test_a_deadlock_is_tried_again(postgres: PostgresCatalog, database_url: str) -> None:
    where = slice_of(0, 2)
    batch = Batch(where, rows=[row_at(where, 0), row_at(where, 1)])
    with psycopg.connect(database_url) as other:
        insert_uncommitted(other, batch.rows[1].uuid)
        committing = InThread(lambda: postgres.commit(batch))
        # It has the first row, and waits for the second: for the other, which now wants the first.
        await_condition("the commit to wait", lambda: waiting_backends(database_url))
        with suppress(psycopg.errors.DeadlockDetected):  # whichever of the two the server chooses
            insert_uncommitted(other, batch.rows[0].uuid)
        deadlocks = deadlock_count(database_url)
        other.rollback()
    assert committing.outcome() is None
    await_condition("a deadlock to have been", lambda: deadlock_count(database_url) >= max(1, deadlocks))
    assert list(postgres.rows("alerts")) == batch.rows
    prove_consistent(database_url)


REMOVAL = Removal("clean-duplicates", "copies")


def two_copies(catalog: PostgresCatalog) -> CopyOf:
    """Two messages of another topic, of which the later is to go."""
    batch = full_batch(0, 2, topic="other")
    catalog.commit(batch)
    return CopyOf(copy=batch.rows[1].uuid, kept=batch.rows[0].uuid, reason="same")


def test_what_a_duplicate_repeats_may_go_first_and_then_it_is_decided_anew(
    postgres: PostgresCatalog, database_url: str
) -> None:
    copied = two_copies(postgres)
    repeating = Batch(slice_of(5, 6), duplicates=[Duplicate(5, 0, copied.copy, "same")])
    with psycopg.connect(database_url) as remover:
        remover.execute(sql.TAKING_AWAY)
        remover.execute("DELETE FROM messages WHERE uuid = %s", [copied.copy])
        committing = InThread(lambda: postgres.commit(repeating))
        await_condition("the commit to wait", lambda: waiting_backends(database_url))
        remover.commit()
        assert isinstance(committing.outcome(), StaleDecisionError)
    assert postgres.coverage(["alerts"]) == {}
    postgres.commit(replace(repeating, duplicates=[Duplicate(5, 0, copied.kept, "same")]))


def test_what_a_duplicate_repeats_cannot_go_before_it_is_known_that_it_is_repeated(
    make_postgres: MakePostgres, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archiver, cleaner = make_postgres(), make_postgres()
    copied = two_copies(archiver)
    at_work, wake = threading.Event(), threading.Event()
    copy = adding.copy_duplicates

    def wait_first(connection: psycopg.Connection, *batches: Numbered) -> None:
        at_work.set()
        assert wake.wait(30)
        copy(connection, *batches)

    monkeypatch.setattr(adding, "copy_duplicates", wait_first)
    repeating = Batch(
        slice_of(5, 6, topic="other", partition=1), duplicates=[Duplicate(5, 0, copied.copy, "same")]
    )
    committing = InThread(lambda: archiver.commit(repeating))
    assert at_work.wait(30)
    cleaning = InThread(lambda: cleaner.move_to_duplicates([copied], REMOVAL))
    await_condition("the cleaner to wait", lambda: waiting_backends(database_url))
    wake.set()
    assert committing.outcome() is None
    assert not isinstance(cleaning.outcome(), Exception)
    assert {one.uuid for _, one in cleaner.duplicates("other")} == {copied.kept}
    assert cleaner.find(copied.copy) is None


CHANGES: dict[str, Callable[[PostgresCatalog, Batch], object]] = {
    "put back": lambda catalog, batch: catalog.put_back(replace(batch, rows=())),
    "record a copy": lambda catalog, batch: catalog.record_copy(
        batch.slice.partition_log, Duplicate(2, 0, batch.rows[0].uuid, "same")
    ),
    "count anew": lambda catalog, batch: catalog.recount_ledger(batch.slice),
    "count a topic anew": lambda catalog, batch: catalog.recount(batch.slice.topic),
    "remove": lambda catalog, batch: catalog.remove([batch.slice], "pruned", REMOVAL),
    "merge": lambda catalog, _: catalog.merge_ledger(
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_who_changes_the_ledger_holds_none_of_it_while_somebody_takes_messages_away(
    postgres: PostgresCatalog, database_url: str, change: str
) -> None:
    where = slice_of(0, 4)
    row = row_at(where, 0)
    batch = Batch(where, rows=[row], duplicates=[Duplicate(1, 0, row.uuid, "same")])
    postgres.commit(batch)
    postgres.commit(full_batch(4, 8))
    if change in ("put back", "count a topic anew"):
        with connect(database_url) as vandal:
            vandal.execute("DELETE FROM duplicates")
    with psycopg.connect(database_url) as remover:
        remover.execute(sql.TAKING_AWAY)
        changing = InThread(partial(CHANGES[change], postgres, batch))
        await_condition("the other to wait", lambda: waiting_backends(database_url))
        remover.execute("SELECT FROM batches FOR UPDATE NOWAIT")
    assert not isinstance(changing.outcome(), Exception)
    prove_consistent(database_url)


def test_who_replaces_documents_holds_no_message_while_somebody_removes_what_the_ledger_counts(
    postgres: PostgresCatalog, database_url: str
) -> None:
    batch = full_batch(0, 4)
    postgres.commit(batch)
    new = Replaced(batch.rows[1].uuid, "alerts/1.1.bson", None, 7, 99, is_tombstone=True)
    postgres.note_pending_deletes([("archive", new.object_key)], "alerts", REMOVAL)
    with psycopg.connect(database_url) as remover:
        remover.execute(sql.REFERRING)
        remover.execute("SELECT FROM batches FOR UPDATE")
        replacing = InThread(
            lambda: postgres.replace_documents(("archive", batch.rows[1].object_key), [new], REMOVAL)
        )
        await_condition("who replaces to wait", lambda: waiting_backends(database_url))
        remover.execute("SELECT FROM messages FOR UPDATE NOWAIT")
    assert replacing.outcome() == {new.uuid}
    assert postgres.miscounts("alerts") == []


def test_a_removal_locks_the_ledger_of_all_its_places_before_it_counts_what_it_took(
    postgres: PostgresCatalog, database_url: str
) -> None:
    for partition in (0, 1):
        postgres.commit(full_batch(0, 4, partition=partition))
    places = [slice_of(0, 4, partition=partition) for partition in (0, 1)]
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM batches WHERE partition = 1 FOR UPDATE")
        removing = InThread(lambda: postgres.remove(places, "pruned", REMOVAL))
        await_condition("the removal to wait", lambda: waiting_backends(database_url))
        other.execute("SELECT FROM topics FOR UPDATE NOWAIT")
    assert not isinstance(removing.outcome(), Exception)
    prove_consistent(database_url)


def test_merging_locks_the_ledger_in_order_of_offsets(postgres: PostgresCatalog, database_url: str) -> None:
    for start in (5, 0):
        postgres.commit(full_batch(start, start + 5))
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM batches WHERE lower(offsets) = 0 FOR UPDATE")
        merging = InThread(partial(postgres.merge_ledger, tomorrow))
        await_condition("the merge to wait", lambda: waiting_backends(database_url))
        other.execute("SELECT FROM batches WHERE lower(offsets) = 5 FOR UPDATE NOWAIT")
    assert merging.outcome() == 1


def insert_uncommitted(connection: psycopg.Connection, own: uuid.UUID) -> None:
    connection.execute(
        "INSERT INTO messages (topic, timestamp, uuid, size, key, bucket, crc32, is_client_uuid, public,"
        " direct_upload, message_crc32) VALUES ('other', 0, %s, 0, '', '', 0, false, true, false, 0)",
        [own],
    )


def deadlock_count(url: str) -> int:
    with connect(url) as connection:
        told = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert told is not None
    return int(told[0])


@pytest.mark.parametrize("failures", [4, 5])
def test_what_the_server_breaks_off_is_tried_five_times(
    postgres: PostgresCatalog, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    copy = adding.copy_messages
    left = [None] * failures

    def break_off(connection: psycopg.Connection, *batches: Numbered) -> None:
        if left:
            left.pop()
            connection.execute(
                "DO $$ BEGIN RAISE EXCEPTION 'staged' USING ERRCODE = 'serialization_failure'; END $$"
            )
        copy(connection, *batches)

    monkeypatch.setattr(adding, "copy_messages", break_off)
    batch = full_batch(0, 5)
    if failures < 5:
        postgres.commit(batch)
        assert list(postgres.rows("alerts")) == batch.rows
    else:
        with pytest.raises(UnavailableError):
            postgres.commit(batch)
        assert postgres.coverage() == {}


# Lost connections


def test_a_connection_killed_between_calls_is_not_noticed(
    postgres: PostgresCatalog, database_url: str
) -> None:
    postgres.commit(full_batch(0, 5))
    terminate(database_url, backends(database_url))
    postgres.commit(full_batch(5, 10))
    assert postgres.coverage() == {slice_of(0, 1).partition_log: OffsetSet.between(0, 10)}


def test_a_connection_killed_within_a_commit_leaves_nothing_and_the_next_commit_works(
    postgres: PostgresCatalog, database_url: str
) -> None:
    batch = full_batch(0, 50)
    with psycopg.connect(database_url) as other:
        insert_uncommitted(other, batch.rows[30].uuid)
        committing = InThread(lambda: postgres.commit(batch))
        await_condition("the commit to wait", lambda: waiting_backends(database_url))
        terminate(database_url, waiting_backends(database_url))
        other.rollback()
    assert isinstance(committing.outcome(), UnavailableError)
    assert everything(postgres, "alerts") == ({}, [], [], [([], [], [])])
    postgres.commit(batch)
    assert list(postgres.rows("alerts")) == batch.rows


def test_a_commit_whose_answer_was_lost_is_told_by_committing_again(
    postgres: PostgresCatalog, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = PostgresCatalog._attempt

    def lose_the_answer(self: PostgresCatalog, work: Callable[[psycopg.Connection], object]) -> object:
        attempt(self, work)
        raise psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly")

    batch = full_batch(0, 5)
    with monkeypatch.context() as patched:
        patched.setattr(PostgresCatalog, "_attempt", lose_the_answer)
        with pytest.raises(UnavailableError):
            postgres.commit(batch)
    with pytest.raises(SliceTakenError):
        postgres.commit(batch)
    assert list(postgres.rows("alerts")) == batch.rows


def test_a_stream_whose_connection_is_killed_says_so_and_the_next_one_works(
    postgres: PostgresCatalog, database_url: str
) -> None:
    for partition in range(2):
        postgres.commit(full_batch(0, 3000, partition=partition))
    stream = postgres.rows("alerts")
    next(stream)
    terminate(database_url, backends(database_url))
    with pytest.raises(UnavailableError, match="test-db"):
        list(stream)
    assert sum(1 for _ in postgres.rows("alerts")) == 6000


@pytest.mark.timeout(90)  # and not for ever
def test_after_a_restart_of_the_server_the_next_call_works(
    make_postgres: MakePostgres, database_server: DatabaseServer
) -> None:
    if database_server.own is None:
        pytest.skip("the server is not ours to restart")
    catalog = make_postgres(timeout_s=1.0)
    catalog.commit(full_batch(0, 5))
    database_server.own.stop()
    try:
        with pytest.raises(UnavailableError, match=r"test-db.*127\.0\.0\.1"):
            catalog.commit(full_batch(5, 10))
    finally:
        database_server.own.start()
    catalog.commit(full_batch(5, 10))
    assert len(list(catalog.rows("alerts"))) == 10


@pytest.fixture
def frozen(database_server: DatabaseServer) -> Iterator[Callable[[Iterable[int]], None]]:
    """Stops server processes, which then neither answer nor hang up; they go on when the test ends."""
    if database_server.own is None:
        pytest.skip("the server is not ours to stop")
    stopped: list[int] = []

    def freeze(pids: Iterable[int]) -> None:
        for pid in pids:
            stopped.append(pid)
            stop_process(pid)

    yield freeze
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.timeout(90)  # and not for ever
def test_a_connection_that_went_silent_is_replaced(
    make_postgres: MakePostgres, database_url: str, frozen: Callable[[Iterable[int]], None]
) -> None:
    catalog = make_postgres(timeout_s=2.0)
    catalog.commit(full_batch(0, 5))
    frozen(backends(database_url))
    catalog.commit(full_batch(5, 10))


@pytest.mark.timeout(90)  # and not for ever
def test_a_server_that_hangs_is_unavailable(
    make_postgres: MakePostgres,
    database_url: str,
    database_server: DatabaseServer,
    frozen: Callable[[Iterable[int]], None],
) -> None:
    catalog = make_postgres(timeout_s=1.0)
    catalog.check()
    assert database_server.own is not None
    assert database_server.own.mark is not None
    pid = database_server.own.mark.pid
    assert pid is not None
    frozen([*backends(database_url), pid])
    with pytest.raises(UnavailableError, match="test-db"):
        catalog.check()


def test_a_server_that_stops_within_a_commit_is_not_waited_for_for_ever(
    make_postgres: MakePostgres,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    frozen: Callable[[Iterable[int]], None],
) -> None:
    monkeypatch.setattr(postgres_pool._Connection, "patience_s", 0.5)
    catalog = make_postgres()
    copy = adding.copy_messages

    def freeze(connection: psycopg.Connection, *batches: Numbered) -> None:
        frozen([connection.info.backend_pid])
        copy(connection, *batches)

    with monkeypatch.context() as patched:
        patched.setattr(adding, "copy_messages", freeze)
        with pytest.raises(UnavailableError, match="said nothing"):
            catalog.commit(full_batch(0, 5))


def test_a_stream_may_rest_between_two_rows(
    make_postgres: MakePostgres, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setattr(postgres_pool, "_IDLE_IN_TRANSACTION_S", 0.2)
    catalog = make_postgres()
    catalog.commit(full_batch(0, 3000))
    stream = catalog.rows("alerts")
    next(stream)
    with psycopg.connect(
        database_url, autocommit=True
    ) as other:  # proof that the limit is in force elsewhere
        other.execute("SET idle_in_transaction_session_timeout = '200ms'")
        other.execute("BEGIN")
        await_condition("an idle session to be thrown out", lambda: is_lost(other))
    assert sum(1 for _ in stream) == 2999


def is_lost(connection: psycopg.Connection) -> bool:
    time.sleep(0.3)
    try:
        connection.execute("SELECT 1")
    except psycopg.Error:
        return True
    return False


def test_a_closed_catalog_lets_go_of_its_connections(postgres: PostgresCatalog, database_url: str) -> None:
    postgres.commit(full_batch(0, 5))
    assert backends(database_url)
    postgres.close()
    postgres.close()
    await_condition("connections to be gone", lambda: not backends(database_url))
    assert len(list(postgres.rows("alerts"))) == 5  # and connects anew


def test_more_streams_than_connections_are_refused_with_what_to_do(make_postgres: MakePostgres) -> None:
    catalog = make_postgres(pool_size=2, timeout_s=0.3)
    catalog.commit(full_batch(0, 5))
    streams = [catalog.rows("alerts") for _ in range(3)]
    for stream in streams[:2]:
        next(stream)
    with pytest.raises(UnavailableError, match="pool_size"):
        next(streams[2])
    del streams[0], stream
    assert len(list(catalog.rows("alerts"))) == 5


# One transaction


FULL = slice_of(0, 10)
KEPT = uuid.uuid4()
EVERYTHING = Batch(
    FULL,
    rows=[row_at(FULL, 0, uuid=KEPT), row_at(FULL, 1)],
    duplicates=[Duplicate(2, 0, KEPT, "same")],
    collisions=[Collision(1, KEPT, KEPT)],
)


@pytest.mark.parametrize("table", ["batches", "messages", "duplicates", "findings", "topics"])
def test_a_batch_of_which_any_part_fails_leaves_nothing(
    postgres: PostgresCatalog, database_url: str, table: str
) -> None:
    with connect(database_url) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = 'disk_full'; END $$"
        )
        connection.execute(
            f"CREATE TRIGGER refuse AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()".encode()
        )
        try:
            with pytest.raises(UnavailableError, match="disk full"):
                postgres.commit(EVERYTHING)
        finally:
            connection.execute(f"DROP TRIGGER refuse ON {table}".encode())
    assert everything(postgres, "alerts") == ({}, [], [], [([], [], [])])
    postgres.commit(EVERYTHING)
    assert postgres.summaries()[0].messages == 2


def test_a_batch_that_does_not_add_up_is_refused_by_the_database_too(database_url: str) -> None:
    with connect(database_url) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "INSERT INTO batches (topic, generation, partition, offsets, outcome, archived)"
            " VALUES ('alerts', 1, 0, '[0,10)', 'archived', 9)"
        )


def test_rows_that_the_ledger_knows_nothing_of_are_for_a_person_to_decide(
    postgres: PostgresCatalog, database_url: str
) -> None:
    postgres.commit(full_batch(0, 5))
    with connect(database_url) as connection:
        connection.execute("DELETE FROM batches")
    with pytest.raises(DataError, match="ledger"):
        postgres.commit(full_batch(0, 5))
    assert postgres.coverage() == {}


def test_a_uuid_of_an_adopted_row_refuses_a_batch(postgres: PostgresCatalog, database_url: str) -> None:
    adopted = adopted_row()
    insert_as_archive_core(database_url, [adopted])
    where = slice_of(0, 1)
    with pytest.raises(StaleDecisionError):
        postgres.commit(Batch(where, rows=[row_at(where, 0, uuid=adopted.uuid)]))


def test_a_collision_is_a_finding_that_is_resolved(postgres: PostgresCatalog, database_url: str) -> None:
    postgres.commit(EVERYTHING)
    with connect(database_url) as connection:
        found = connection.execute(
            "SELECT kind, topic, uuid, detail ->> 'client_uuid', resolved_at IS NOT NULL, resolution <> ''"
            " FROM findings"
        ).fetchall()
    assert found == [("uuid_collision", "alerts", KEPT, str(KEPT), True, True)]


def test_merging_while_others_commit_loses_nothing(make_postgres: MakePostgres, database_url: str) -> None:
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    catalogs = [make_postgres() for _ in range(4)]
    done = threading.Event()

    def merge(catalog: PostgresCatalog) -> None:
        while not done.is_set():
            catalog.merge_ledger(tomorrow)

    def commit(catalog: PostgresCatalog, first: int) -> None:
        for start in range(first, 240, 8):
            catalog.commit(full_batch(start, start + 4))

    merging = [InThread(partial(merge, catalog)) for catalog in catalogs[:2]]
    committing = [InThread(partial(commit, catalogs[2], 0)), InThread(partial(commit, catalogs[3], 4))]
    outcomes = [call.outcome() for call in committing]
    done.set()
    assert [*outcomes, *(call.outcome() for call in merging)] == [None] * 4
    catalogs[0].merge_ledger(tomorrow)
    (entry,) = catalogs[0].ledger()
    assert (entry.slice, entry.archived) == (slice_of(0, 240), 240)
    prove_consistent(database_url)


def test_merging_waits_for_who_is_counting_and_adds_up_what_he_leaves(
    postgres: PostgresCatalog, database_url: str
) -> None:
    batches = [full_batch(0, 5), full_batch(5, 10)]
    for batch in batches:
        postgres.commit(batch)
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    with psycopg.connect(database_url) as other:
        kept, copy = batches[0].rows[:2]
        other.execute("DELETE FROM messages WHERE uuid = %s", [copy.uuid])
        other.execute(
            'INSERT INTO duplicates (topic, generation, partition, "offset", timestamp, uuid, reason, batch)'
            " VALUES ('alerts', 1, 0, 1, 0, %s, 'same', 1)",
            [kept.uuid],
        )
        other.execute(
            "UPDATE batches SET archived = 4, duplicates = 1, bytes = bytes - %s WHERE lower(offsets) = 0",
            [copy.size_bytes],
        )
        merging = InThread(partial(postgres.merge_ledger, tomorrow))
        await_condition("the merge to wait", lambda: waiting_backends(database_url))
    assert merging.outcome() == 1
    (entry,) = postgres.ledger()
    assert (entry.archived, entry.duplicates) == (9, 1)
    assert postgres.miscounts("alerts") == []


# Errors


@pytest.mark.timeout(90)  # and not for ever
def test_what_is_wrong_with_a_server_is_told_without_its_password(database_url: str) -> None:
    secret = password_of(database_url)
    for url, expected, told in (
        (make_conninfo(database_url, password=f"{secret}-wrong"), ForbiddenError, "password"),
        (make_conninfo(database_url, user="nobody_at_all"), ForbiddenError, "nobody_at_all"),
        (make_conninfo(database_url, port="1"), UnavailableError, ":1/"),
        (make_conninfo(database_url, dbname="no_such_database"), MissingSettingError, "no_such_database"),
        (without_password(database_url), ForbiddenError, "none is given"),
    ):
        catalog = PostgresCatalog("aws-dev-db", url)
        for call in (catalog.check, partial(catalog.commit, full_batch(0, 2))):
            with pytest.raises(expected) as refusal:
                call()
            said = f"{refusal.value} {refusal.value.facts} {refusal.value.__cause__} {catalog!r} {catalog._server!r}"
            assert secret not in said
            assert "aws-dev-db" in str(refusal.value)
            assert told in str(refusal.value)
        catalog.close()


def without_password(url: str) -> str:
    told = psycopg.conninfo.conninfo_to_dict(url)
    del told["password"]
    return make_conninfo("", **told)


def test_a_connection_string_that_is_none_is_not_quoted() -> None:
    with pytest.raises(ConfigurationError, match="local-db") as refusal:
        PostgresCatalog("local-db", "postgresql//user:hidden@host/db")
    assert "hidden" not in f"{refusal.value} {refusal.value.facts} {refusal.value.__cause__}"
    assert refusal.value.__suppress_context__


def test_making_a_catalog_connects_to_nothing() -> None:
    catalog = PostgresCatalog("local-db", "postgresql://user@127.0.0.1:1/db")
    assert catalog.name == "local-db"
    catalog.close()


def test_a_database_without_catalog_says_which_command_makes_it(empty_database_url: str) -> None:
    catalog = PostgresCatalog("aws-dev-db", empty_database_url)
    calls: Sequence[Callable[[], object]] = (
        catalog.check,
        catalog.coverage,
        partial(catalog.commit, full_batch(0, 2)),
        partial(list, catalog.rows("alerts")),
    )
    for call in calls:
        with pytest.raises(MissingSettingError, match="hop-archive migrate -D aws-dev-db"):
            call()
    catalog.close()


def test_a_server_that_takes_no_more_connections_is_unavailable(
    database_server: DatabaseServer, database_url: str
) -> None:
    role = psycopg.conninfo.conninfo_to_dict(database_url)["user"]
    with connect(database_server.superuser_url) as admin:
        admin.execute(f'ALTER ROLE "{role}" CONNECTION LIMIT 0'.encode())
        try:
            catalog = PostgresCatalog("local-db", database_url)
            with pytest.raises(UnavailableError):
                catalog.check()
        finally:
            admin.execute(f'ALTER ROLE "{role}" CONNECTION LIMIT -1'.encode())
    catalog.check()
    catalog.close()


def test_a_user_whose_transactions_only_read_is_told_so(
    database_server: DatabaseServer, database_url: str
) -> None:
    options = "-c default_transaction_read_only=on"
    catalog = PostgresCatalog("local-db", make_conninfo(database_url, options=options))
    assert catalog.coverage() == {}
    with pytest.raises(UnavailableError, match=r"local-db.*default_transaction_read_only"):
        catalog.commit(full_batch(0, 2))
    catalog.close()


def test_an_error_that_is_a_bug_keeps_its_own_type(postgres: PostgresCatalog) -> None:
    where = slice_of(0, 1)
    with pytest.raises(psycopg.Error) as bug:
        postgres.commit(Batch(where, rows=[row_at(where, 0, object_key="a\0b")]))
    assert not isinstance(bug.value, HopArchiveError)
    assert postgres.coverage() == {}


# Logs


def test_rows_that_came_by_another_way_are_known_by_their_log_once_it_was_looked_for(
    postgres: PostgresCatalog, database_url: str
) -> None:
    batches = [full_batch(0, 3, partition=partition) for partition in range(3)]
    for batch in batches:
        postgres.commit(batch)
    with connect(database_url) as connection:
        connection.execute("DELETE FROM logs WHERE partition > 0")
        connection.execute("DELETE FROM batches WHERE partition = 1")
    known = [batch.slice.partition_log for batch in (batches[0], batches[2])]
    assert postgres.partition_logs("alerts") == known
    assert postgres.note_logs() == 2
    assert postgres.note_logs() == 0
    assert postgres.partition_logs("alerts") == [batch.slice.partition_log for batch in batches]
    assert postgres.unledgered("alerts") == [batches[1].slice]
    assert list(postgres.rows("alerts")) == [row for batch in batches for row in batch.rows]


def test_a_ledger_row_that_is_wrong_where_the_totals_are_right_is_found_when_its_turn_comes(
    postgres: PostgresCatalog, database_url: str
) -> None:
    for start in range(0, 40, 4):
        postgres.commit(full_batch(start, start + 4))
    assert [postgres.miscounts("alerts", every=10, turn=turn) for turn in range(10)] == [[]] * 10
    with connect(database_url) as connection:
        for offset, change in ((5, "- 1"), (9, "+ 1")):  # one too few, one too many
            connection.execute(
                f"ALTER TABLE batches DROP CONSTRAINT IF EXISTS batches_accounted_for;"
                f"UPDATE batches SET archived = archived {change} WHERE offsets @> {offset}::bigint".encode()
            )
        connection.execute(ACCOUNTED_FOR)
    both = [("archived", 3, 4), ("archived", 5, 4)]
    found = [
        [(m.what, m.said, m.found) for m in postgres.miscounts("alerts", every=10, turn=turn)]
        for turn in range(20, 30)
    ]
    assert [found_then for found_then in found if found_then] in ([both], [both, both])
    assert [(m.what, m.said, m.found) for m in postgres.miscounts("alerts")] == both


@pytest.mark.parametrize(
    "damage",
    [
        'DELETE FROM messages WHERE "offset" = 5',
        "UPDATE topics SET n_messages = n_messages + 1",
        "UPDATE topics SET n_bytes = n_bytes + 1",
        "UPDATE batches SET bytes = bytes + 1 WHERE offsets @> 5::bigint",
    ],
)
def test_a_wrong_total_is_found_with_the_next_look(
    postgres: PostgresCatalog, database_url: str, damage: str
) -> None:
    for start in range(0, 40, 4):
        postgres.commit(full_batch(start, start + 4))
    with connect(database_url) as connection:
        connection.execute(damage.encode())
    found = [postgres.miscounts("alerts", every=1_000, turn=turn) for turn in (17, 18)]
    assert found == [postgres.miscounts("alerts")] * 2
    assert bool(found[0]) is not damage.startswith("UPDATE batches"), (
        "the bytes of a ledger row are no finding of their own"
    )


# Indexes and volume

ACCOUNTED_FOR = """
    ALTER TABLE batches ADD CONSTRAINT batches_accounted_for CHECK (archived + duplicates + absent
        = CASE outcome WHEN 'archived' THEN upper(offsets) - lower(offsets) ELSE 0 END) NOT VALID
"""
PLACE: dict[str, object] = {"topic": "alerts", "generation": 1, "partition": 0}
PLANS: dict[str, tuple[str, Sequence[object] | dict[str, object], str]] = {
    "GENERATIONS": (generations.GENERATIONS, {"topics": ["alerts"]}, "generations_pkey"),
    "OBSERVED": (generations.OBSERVED, [["alerts"]], "observed_pkey"),
    "LEFT_BEHIND": (generations.LEFT_BEHIND, [["alerts"], "cluster"], "observed_pkey"),
    "TAILS": (
        generations.TAILS,
        {"topics": ["alerts"], "generations": [1], "partitions": [0], "most": 5},
        "messages_place_idx",
    ),
    "HOLDERS": (catalog.HOLDERS, ["alerts", 1, 0, 5, 6], "batches_slice_excl"),
    "SUMMARIES_SINCE": (
        ledger.SUMMARIES_SINCE,
        {"topics": None, "since": "2999-01-01"},
        "batches_created_idx",
    ),
    "TAKEN_UUIDS": (catalog.TAKEN_UUIDS, [[KEPT]], "messages_uuid_idx"),
    "REFERRED": (catalog.REFERRED, [[KEPT]], "messages_uuid_idx"),
    "KNOWN_BY_UUID": (catalog.KNOWN_BY_UUID, [[KEPT]], "messages_uuid_idx"),
    "FIND": (rows.FIND, [KEPT], "messages_uuid_idx"),
    "HAS_ADOPTED": (sql.HAS_ADOPTED, [["alerts"]], "messages_adopted_idx"),
    "KNOWN_ADOPTED": (catalog.KNOWN_ADOPTED, [["alerts"], [1], [2]], "messages_adopted_idx"),
    "ROWS": (rows.ROWS, PLACE, "messages_place_idx"),
    "DUPLICATES": (rows.DUPLICATES, ["alerts"], "duplicates_pkey"),
    "COLLISIONS": (rows.COLLISIONS, ["alerts", sql.COLLISION], "findings_topic_idx"),
    "by topic and time": (
        "SELECT uuid FROM messages WHERE topic = %s AND timestamp > 5 ORDER BY timestamp",
        ["alerts"],
        "messages_topic_timestamp_idx",
    ),
    "all topics by time": (
        "SELECT uuid FROM messages WHERE (timestamp, id) > (%s, 3) ORDER BY timestamp, id LIMIT 10",
        [5],
        "messages_timestamp_id_idx",
    ),
}
SORTED = ("SUMMARIES_SINCE", "SUMMARIES")
"""What has to sort: these come in an order that no index has."""


@pytest.mark.parametrize("name", PLANS)
def test_a_statement_relies_on_the_index_that_it_names(
    postgres: PostgresCatalog, database_url: str, name: str
) -> None:
    for partition in range(3):
        postgres.commit(full_batch(0, 500, partition=partition))
        postgres.commit(full_batch(0, 500, topic=f"other-{partition}"))
    statement, values, index = PLANS[name]
    with connect(database_url) as connection:
        connection.execute("ANALYZE")
        connection.execute("SET enable_seqscan = off")  # the tables are small
        connection.execute(f"SET enable_sort = {'on' if name in SORTED else 'off'}".encode())
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {statement}".encode(), values))
    assert index in plan, plan


def test_the_coverage_of_a_thousand_topics_takes_well_under_half_a_second(
    postgres: PostgresCatalog, database_url: str
) -> None:
    with connect(database_url) as connection:
        connection.execute(
            """INSERT INTO batches (topic, generation, partition, offsets, outcome, absent)
               SELECT 'topic-' || t, 1, p, int8range(b * 10, b * 10 + 10), 'archived', 10
               FROM generate_series(1, 1000) AS t, generate_series(0, 1) AS p, generate_series(0, 9) AS b"""
        )
        connection.execute("ANALYZE batches")
    postgres.coverage()
    started = time.perf_counter()
    covered = postgres.coverage()
    elapsed_s = time.perf_counter() - started
    assert len(covered) == 2000
    assert set(covered.values()) == {OffsetSet.between(0, 100)}
    assert elapsed_s < 0.5


def test_a_large_batch_goes_in_and_is_known_and_streamed_whole(postgres: PostgresCatalog) -> None:
    batch = full_batch(0, 10_000)
    postgres.commit(batch)
    identities = [identity_of(row) for row in batch.rows]
    assert {known.uuid for known in postgres.known(identities)} == {row.uuid for row in batch.rows}
    assert list(postgres.rows("alerts")) == batch.rows


def test_ten_thousand_duplicates_go_in(postgres: PostgresCatalog) -> None:
    where = slice_of(0, 10_001)
    duplicates = [Duplicate(offset, -1, KEPT, "same UUID") for offset in range(10_000)]
    postgres.commit(Batch(where, rows=[row_at(where, 10_000, uuid=KEPT)], duplicates=duplicates))
    assert [one for _, one in postgres.duplicates("alerts")] == duplicates
