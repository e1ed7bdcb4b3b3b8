"""Behind PgBouncer in transaction mode, where each transaction may get a session that others have used."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from hop_archive.catalog.checked import VerifiedRange
from hop_archive.catalog.postgres import adding
from hop_archive.catalog.postgres.adding import Numbered
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.postgres.migrate import migrate, pending
from hop_archive.catalog.records import Batch, Duplicate
from hop_archive.errors import ConflictError, UnavailableError
from hop_archive.model.query import Query
from hop_archive.upkeep.doctor import Verdict, examine_catalog
from hop_archive_tests.contract.catalog_helpers import InThread, connect, full_batch, identity_of, slice_of
from hop_archive_tests.integration.archive_core_catalog import answers, make_archive_core_catalog
from hop_archive_tests.pooler import pooled

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

SCHEMAS = ("first", "second")


@pytest.fixture
def pooler(empty_database_url: str, tmp_path: Path) -> Iterator[str]:
    """A pooler with a single session of the server, in which two archives were migrated."""
    with pooled(empty_database_url, tmp_path) as address:
        for schema in SCHEMAS:
            assert migrate(address, schema=schema) != []
            assert pending(address, schema=schema) == []
        yield address


@pytest.fixture
def archives(pooler: str) -> Iterator[dict[str, PostgresCatalog]]:
    made = {schema: PostgresCatalog(schema, pooler, schema=schema) for schema in SCHEMAS}
    yield made
    for catalog in made.values():
        catalog.close()


def counted(url: str, table: str) -> dict[str, int]:
    """Rows of a table in each schema, looked at past the pooler."""
    with connect(url) as connection:
        found = {
            schema: connection.execute(f"SELECT count(*) FROM {schema}.{table}".encode()).fetchone()
            for schema in SCHEMAS
        }
    return {schema: row[0] for schema, row in found.items() if row is not None}


def test_what_two_archives_commit_by_turns_lands_where_it_belongs(
    archives: dict[str, PostgresCatalog], empty_database_url: str
) -> None:
    together = threading.Barrier(len(SCHEMAS))

    def archive(schema: str, catalog: PostgresCatalog) -> None:
        catalog.check()
        for start in range(0, 200, 10):
            together.wait()
            batch = full_batch(start, start + 10, topic=schema)
            catalog.commit(batch)
            assert {one.uuid for one in catalog.known([identity_of(row) for row in batch.rows])} == {
                row.uuid for row in batch.rows
            }
            copy = Duplicate(1_000 + start, 0, batch.rows[0].uuid, "same")
            where = slice_of(1_000 + start, 1_001 + start, topic=schema)
            catalog.commit(Batch(where, duplicates=[copy]))
            assert set(catalog.topics()) == {schema}

    calls = [InThread(partial(archive, *item)) for item in archives.items()]
    assert [call.outcome() for call in calls] == [None, None]
    assert counted(empty_database_url, "messages") == dict.fromkeys(SCHEMAS, 200)
    assert counted(empty_database_url, "batches") == dict.fromkeys(SCHEMAS, 40)
    for schema, catalog in archives.items():
        assert [one.topic for one in catalog.summaries()] == [schema]
        assert catalog.miscounts(schema) == []


def test_all_that_needs_more_than_one_statement_works(archives: dict[str, PostgresCatalog]) -> None:
    catalog = archives["first"]
    batch = full_batch(0, 5_000)
    catalog.commit(batch)
    assert list(catalog.rows("alerts")) == batch.rows
    assert len(list(catalog.select(Query(condition='"offset" % 2 = 0')))) == 2_500
    now = datetime.datetime.now(datetime.UTC)
    for start in range(0, 100, 10):
        catalog.note_verified(VerifiedRange("alerts", 1, 0, start, start + 10, now))
    assert [(one.start, one.stop) for one in catalog.verified()] == [(0, 100)]
    assert catalog.reinstate(full_batch(5_000, 5_010)).added == 10
    checks = list(examine_catalog(catalog, deleting_allowed=True))
    assert {check.verdict for check in checks} == {Verdict.OK}


def test_a_name_that_is_held_is_held_until_it_is_let_go_of(empty_database_url: str, tmp_path: Path) -> None:
    with pooled(empty_database_url, tmp_path, sessions=3) as address:
        migrate(address)
        holder, other = (PostgresCatalog("local-db", address) for _ in range(2))
        for _ in range(3):
            with holder.hold("the restore"), other.hold("another restore"):
                with pytest.raises(ConflictError), other.hold("the restore"):
                    pass
                holder.commit(full_batch(0, 1, topic=f"topic-{_}"))
            with other.hold("the restore"):
                pass
        holder.close()
        other.close()


def test_what_others_leave_in_a_session_does_not_reach_us_nor_ours_them(
    archives: dict[str, PostgresCatalog], pooler: str, empty_database_url: str
) -> None:
    with psycopg.connect(pooler, autocommit=True, prepare_threshold=None) as other:
        for statement in (
            "CREATE TEMPORARY TABLE messages (id int)",
            "CREATE TEMPORARY TABLE batches (id int)",
            "SET search_path = second",
            "SET statement_timeout = 1",
            "SET default_transaction_isolation = 'serializable'",
            "SET extra_float_digits = -15",
            "SET bytea_output = 'escape'",
            "SET array_nulls = off",
            "SET synchronous_commit = off",
        ):
            other.execute(statement.encode())
        settings = other.execute("SHOW search_path").fetchone(), other.execute("SHOW lock_timeout").fetchone()
        batch = full_batch(0, 100)
        archives["first"].commit(batch)
        assert list(archives["first"].rows("alerts")) == batch.rows
        assert settings == (
            other.execute("SHOW search_path").fetchone(),
            other.execute("SHOW lock_timeout").fetchone(),
        )
    assert counted(empty_database_url, "messages") == {"first": 100, "second": 0}
    assert archives["second"].coverage() == {}


def test_statements_that_are_often_asked_are_not_prepared(archives: dict[str, PostgresCatalog]) -> None:
    for _ in range(20):
        for catalog in archives.values():
            catalog.coverage(["alerts"])
            catalog.observed(["alerts"])


def cut(url: str) -> None:
    """End the pooler's session of the server."""
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with connect(url) as connection:
        connection.execute(end)


def test_a_server_that_the_pooler_loses_is_an_outage_that_is_over_at_the_next_call(
    archives: dict[str, PostgresCatalog], empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = archives["first"]
    catalog.commit(full_batch(0, 5_000))
    stream = catalog.rows("alerts")
    next(stream)
    cut(empty_database_url)
    with pytest.raises(UnavailableError, match="first"):
        list(stream)
    copy = adding.copy_messages

    def cut_first(connection: psycopg.Connection, *batches: Numbered) -> None:
        cut(empty_database_url)
        copy(connection, *batches)

    with monkeypatch.context() as patched:
        patched.setattr(adding, "copy_messages", cut_first)
        with pytest.raises(UnavailableError, match="first"):
            catalog.commit(full_batch(5_000, 5_010))
    catalog.commit(full_batch(5_000, 5_010))
    assert len(list(catalog.rows("alerts"))) == 5_010


def test_a_catalog_that_is_in_use_is_adopted_through_it_and_leaves_no_setting_behind(
    empty_database_url: str, tmp_path: Path
) -> None:
    make_archive_core_catalog(empty_database_url)
    with connect(empty_database_url) as connection:
        alter = sql.SQL("ALTER DATABASE {} SET statement_timeout = '77s'")
        name = str(conninfo_to_dict(empty_database_url)["dbname"])
        connection.execute(alter.format(sql.Identifier(name)))
    before = answers(empty_database_url)
    with pooled(empty_database_url, tmp_path, sessions=3) as address:
        assert migrate(address) != []
        assert migrate(address) == []
        others = [psycopg.connect(address, prepare_threshold=None) for _ in range(3)]
        shown = [other.execute("SHOW statement_timeout").fetchone() for other in others]
        for other in others:
            other.close()
    assert shown == [("77s",)] * 3
    assert answers(empty_database_url) == before
