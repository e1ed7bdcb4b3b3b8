"""A database that is not set up as ours: other settings, another encoding, sequences that stand behind, tables in use."""

from __future__ import annotations

import datetime
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hop_archive.catalog.postgres import migrate as migrate_module
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.postgres.migrate import migrate, pending
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Batch, Collision
from hop_archive.errors import (
    ConfigurationError,
    ConflictError,
    SequenceBehindError,
    StaleDecisionError,
)
from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import Finding, Kind
from hop_archive.upkeep.doctor import Verdict, examine_catalog
from hop_archive_tests.contract.catalog_helpers import (
    DatabaseServer,
    adopted_row,
    connect,
    everything,
    full_batch,
    row_at,
    slice_of,
)
from hop_archive_tests.worlds import awkward_world, exhausted

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)


def database_of(url: str) -> sql.Identifier:
    return sql.Identifier(str(conninfo_to_dict(url)["dbname"]))


# Settings

NOW = datetime.datetime(2026, 11, 28, 12, 30, 0, 123456, tzinfo=datetime.UTC)
ODD = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Pacific/Chatham",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "search_path": "nowhere",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "extra_float_digits": "-15",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "200ms",
    "lock_timeout": "200ms",
    "idle_in_transaction_session_timeout": "200ms",
    "synchronous_commit": "off",
}


def archived(catalog: Catalog) -> tuple[object, ...]:
    """An awkward world in a catalog, and all that the catalog says of it, but for its own clock."""
    archive = replace(awkward_world().archive(), catalog=catalog)
    exhausted(catch_up(archive))
    catalog.note_findings([Finding(Kind.LOST, "a topic", "naïve – 漢字", uuid.UUID(int=7))], NOW)
    topics = sorted(catalog.topics())
    summaries = [replace(one, last_batch_at=None) for one in catalog.summaries()]
    entries = [replace(one, created_at=NOW) for one in catalog.ledger()]
    found = [(one.finding, one.first_seen == NOW) for one in catalog.findings()]
    rows = everything(catalog, *topics)[3]
    return summaries, entries, rows, found, catalog.coverage(), list(catalog.observed(topics).items())


def test_settings_of_a_role_or_database_change_nothing_of_what_is_archived_and_read(
    empty_database_url: str, postgres: PostgresCatalog
) -> None:
    with connect(empty_database_url) as connection:
        for name, value in ODD.items():
            alter = sql.SQL("ALTER DATABASE {} SET {} = {}")
            connection.execute(
                alter.format(database_of(empty_database_url), sql.Identifier(name), sql.Literal(value))
            )
        if connection.info.server_version >= 170000:
            alter = sql.SQL("ALTER DATABASE {} SET transaction_timeout = '200ms'")
            connection.execute(alter.format(database_of(empty_database_url)))
    migrate(empty_database_url)
    with closing(PostgresCatalog("test-db", empty_database_url)) as catalog:
        assert archived(catalog) == archived(postgres)
        assert {one.verdict for one in examine_catalog(catalog, deleting_allowed=True)} == {Verdict.OK}
        with catalog.hold("a name"):
            time.sleep(0.5)  # no limit of theirs ends it
            with pytest.raises(ConflictError), catalog.hold("a name"):
                pass


# Encoding


@pytest.fixture
def ascii_url(database_server: DatabaseServer) -> Iterator[str]:
    name = f"hop_archive_test_{uuid.uuid4().hex[:8]}"
    create = "CREATE DATABASE {} ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    database_server.run(sql.SQL(create).format(sql.Identifier(name)))
    yield make_conninfo(database_server.url, dbname=name)
    database_server.drop(name)


def test_a_database_of_another_encoding_is_refused_with_what_to_do(ascii_url: str) -> None:
    for call in (migrate, pending):
        with pytest.raises(ConfigurationError, match=r"local-db.*SQL_ASCII.*ENCODING 'UTF8'"):
            call(ascii_url, name="local-db")


def test_a_catalog_that_is_in_such_a_database_fails_the_doctors_look(
    ascii_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate_module, "ENCODING", "SQL_ASCII")
    migrate(ascii_url)
    with closing(PostgresCatalog("test-db", ascii_url)) as catalog:
        found = {one.what: one for one in examine_catalog(catalog, deleting_allowed=True)}
    assert found["encoding"].verdict is Verdict.FAILED
    assert "SQL_ASCII" in found["encoding"].detail


# Sequences


NUMBERED = ("messages", "batches", "findings", "restores")


def put_back(url: str, *tables: str) -> None:
    """What a dump that was restored without its setval leaves, and logical replication."""
    with connect(url) as connection:
        for table in tables:
            connection.execute(f"ALTER SEQUENCE {table}_id_seq RESTART WITH 1".encode())


@pytest.fixture
def counting_url(database_url: str) -> str:
    """A catalog without rows whose sequences are at their beginnings, as its tables are."""
    put_back(database_url, *NUMBERED)
    return database_url


def fill(catalog: PostgresCatalog, start: int = 0) -> Batch:
    where = slice_of(start, start + 10)
    own = uuid.uuid4()
    batch = Batch(
        where,
        rows=[row_at(where, o) for o in range(start, start + 10)],
        collisions=[Collision(start, own, own)],
    )
    catalog.commit(batch)
    catalog.begin_restore(f"restore {start}", "target", {})
    return batch


def verdict_of_sequences(catalog: PostgresCatalog) -> Verdict:
    (found,) = [one for one in examine_catalog(catalog, deleting_allowed=True) if one.what == "sequences"]
    return found.verdict


def test_sequences_that_stand_behind_are_set_right_by_whoever_meets_them(
    postgres: PostgresCatalog, counting_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(postgres)
    put_back(counting_url, *NUMBERED)
    assert verdict_of_sequences(postgres) is Verdict.FAILED
    with caplog.at_level(logging.WARNING):
        batch = fill(postgres, 10)
    assert "messages_id_seq" in caplog.text
    assert verdict_of_sequences(postgres) is Verdict.OK
    assert list(postgres.rows("alerts"))[10:] == batch.rows
    assert [len(postgres.ledger()), len(postgres.restores()), len(postgres.collisions("alerts"))] == [2, 2, 2]


@pytest.mark.parametrize("table", NUMBERED)
def test_the_doctor_compares_every_sequence_with_its_table(
    postgres: PostgresCatalog, counting_url: str, table: str
) -> None:
    fill(postgres)
    assert verdict_of_sequences(postgres) is Verdict.OK
    put_back(counting_url, table)
    (check,) = [one for one in examine_catalog(postgres, deleting_allowed=True) if one.what == "sequences"]
    assert check.verdict is Verdict.FAILED
    assert f"{table}_id_seq is at 0" in check.detail
    with connect(counting_url) as connection:
        connection.execute(check.remedy.partition("or: ")[2].encode())  # as the remedy has it
    assert verdict_of_sequences(postgres) is Verdict.OK


def test_rebuilding_leaves_no_row_out_for_its_number(postgres: PostgresCatalog, counting_url: str) -> None:
    fill(postgres)
    put_back(counting_url, *NUMBERED)
    added = postgres.reinstate(full_batch(10, 20))
    assert (added.added, added.refused) == (10, ())
    put_back(counting_url, *NUMBERED)
    assert postgres.adopt([adopted_row() for _ in range(3)]) == 3
    assert len(list(postgres.rows("alerts"))) == 23


def test_migrating_sets_sequences_right(postgres: PostgresCatalog, counting_url: str) -> None:
    fill(postgres)
    put_back(counting_url, *NUMBERED)
    assert migrate(counting_url) == []
    assert verdict_of_sequences(postgres) is Verdict.OK
    fill(postgres, 10)


def test_a_sequence_that_the_role_cannot_set_right_is_named_with_what_to_do(
    database_server: DatabaseServer, migrated_url: str, counting_url: str
) -> None:
    role = sql.Identifier(f"adder_{uuid.uuid4().hex[:8]}")
    admin = make_conninfo(database_server.superuser_url, dbname=str(conninfo_to_dict(migrated_url)["dbname"]))
    with connect(admin) as connection:
        for statement in (
            "CREATE ROLE {} LOGIN PASSWORD 'secret'",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO {}",
            "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {}",
        ):
            connection.execute(sql.SQL(statement).format(role))
    user = role.as_string(None).strip('"')
    url = make_conninfo(counting_url, user=user, password="secret")
    try:
        with closing(PostgresCatalog("local-db", url)) as catalog:
            catalog.commit(full_batch(0, 10))
            assert verdict_of_sequences(catalog) is Verdict.UNKNOWN
            put_back(counting_url, "messages")
            with pytest.raises(
                SequenceBehindError, match=r"messages_id_seq.*migrate -D local-db.*setval"
            ) as told:
                catalog.commit(full_batch(10, 20))
            assert told.value.facts["sequence"] == "public.messages_id_seq"
            assert catalog.coverage() != {}
            assert len(list(catalog.rows("alerts"))) == 10
    finally:
        with connect(admin) as connection:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


def test_another_writer_of_the_same_messages_is_still_told_from_it(
    postgres: PostgresCatalog, counting_url: str
) -> None:
    batch = full_batch(0, 10)
    postgres.commit(batch)
    put_back(counting_url, "messages")
    again = Batch(
        slice_of(10, 20), rows=[replaced._replace(offset=o) for o, replaced in enumerate(batch.rows, 10)]
    )
    with pytest.raises(StaleDecisionError, match="another writer"):
        postgres.commit(again)
