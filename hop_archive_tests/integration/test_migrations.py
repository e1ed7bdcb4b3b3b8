"""Migrations: of an empty database, of one that is migrated, of archive-core's, and of those that cannot be."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg.conninfo import make_conninfo

import hop_archive.catalog.postgres.migrations.env
from hop_archive.catalog.postgres import migrate as migrate_module
from hop_archive.catalog.postgres import sql
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.postgres.migrate import migrate, pending
from hop_archive.catalog.records import RowJob
from hop_archive.errors import ConfigurationError, ForbiddenError, MissingSettingError, UnavailableError
from hop_archive.model.identity import Identity
from hop_archive_tests.contract.catalog_helpers import (
    DatabaseServer,
    InThread,
    adopted_row,
    connect,
    full_batch,
    insert_as_archive_core,
    password_of,
    slice_of,
)
from hop_archive_tests.integration.archive_core_catalog import (
    NEIGHBOURS,
    QUESTIONS,
    TRIGGER,
    answers,
    make_archive_core_catalog,
)

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

ALL = ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012", "0013"]
EVERY_OBJECT = """
    SELECT nspname, relname, relkind::text FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname NOT LIKE 'pg_%' AND nspname <> 'information_schema' ORDER BY 1, 2
"""


def objects(url: str) -> list[Any]:
    """Every table, index, view and sequence."""
    with connect(url) as connection:
        return connection.execute(EVERY_OBJECT).fetchall()


def ask(url: str, question: str) -> list[Any]:
    with connect(url) as connection:
        return connection.execute(question.encode()).fetchall()


def use(url: str, schema: str = "public") -> None:
    """Archive a batch into the catalog, and read it back."""
    catalog = PostgresCatalog("test-db", url, schema=schema)
    catalog.check()
    batch = full_batch(0, 3)
    catalog.commit(batch)
    assert list(catalog.rows("alerts")) == batch.rows
    catalog.close()


# Empty, and migrated


def test_an_empty_database_becomes_a_catalog(empty_database_url: str) -> None:
    assert pending(empty_database_url) == ALL
    assert migrate(empty_database_url) == ALL
    assert pending(empty_database_url) == []
    use(empty_database_url)


def test_asking_what_is_pending_changes_nothing(empty_database_url: str) -> None:
    pending(empty_database_url)
    assert objects(empty_database_url) == []


def test_migrating_again_changes_nothing(empty_database_url: str) -> None:
    migrate(empty_database_url)
    use(empty_database_url)
    before = objects(empty_database_url), ask(empty_database_url, "SELECT * FROM messages")
    assert migrate(empty_database_url) == []
    assert (objects(empty_database_url), ask(empty_database_url, "SELECT * FROM messages")) == before


def test_two_at_once_migrate_once(empty_database_url: str) -> None:
    calls = [InThread(lambda: migrate(empty_database_url)) for _ in range(4)]
    assert sorted(str(call.outcome()) for call in calls) == [str(ALL), "[]", "[]", "[]"]
    use(empty_database_url)


def test_the_catalog_asks_for_the_newest_migration() -> None:
    scripts = ScriptDirectory(str(Path(hop_archive.catalog.postgres.migrations.env.__file__).parent))
    assert scripts.get_current_head() == sql.REVISION


def test_a_catalog_can_be_in_a_schema_of_its_own_beside_others(empty_database_url: str) -> None:
    schemas = ["public", "second", 'Odd "name"']
    for schema in schemas:
        assert migrate(empty_database_url, schema=schema) == ALL
        assert pending(empty_database_url, schema=schema) == []
    for schema in schemas:
        use(empty_database_url, schema)


def test_migrating_says_nothing_and_leaves_logging_alone(
    empty_database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    loggers = [logging.getLogger(name) for name in ("", "alembic", "alembic.runtime.migration", "sqlalchemy")]
    before = [(logger.level, list(logger.handlers), logger.disabled) for logger in loggers]
    migrate(empty_database_url)
    assert [(logger.level, list(logger.handlers), logger.disabled) for logger in loggers] == before
    assert tuple(capfd.readouterr()) == ("", "")


BEFORE_0009 = """
    DROP TABLE checked;
    DELETE FROM row_progress;
    DROP TABLE compacted;
    ALTER TABLE condemned DROP COLUMN due;
    DROP TABLE claims, archivers;
    DROP INDEX messages_place_idx;
    DROP STATISTICS messages_place_stats, duplicates_place_stats, batches_place_stats;
    DROP TABLE logs;
    DROP INDEX messages_timestamp_id_idx;
    CREATE INDEX messages_timestamp_id_idx ON messages (timestamp, id) INCLUDE (topic, public);
    CREATE UNIQUE INDEX messages_offset_idx ON messages (topic, generation, partition, "offset");
    UPDATE hop_archive_alembic_version SET version_num = '0008';
"""
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"


def test_rows_from_before_there_were_hashes_of_logs_are_found_by_them(empty_database_url: str) -> None:
    migrate(empty_database_url)
    as_new = objects(empty_database_url), ask(empty_database_url, INDEXES)
    catalog = PostgresCatalog("test-db", empty_database_url)
    batches = [
        full_batch(0, 3, topic=topic, partition=partition)
        for topic, partition in (("a", 0), ("a", 2), ("a", 10), ("b", 0))
    ]
    for batch in batches:
        catalog.commit(batch)
    insert_as_archive_core(empty_database_url, [adopted_row(topic="a"), adopted_row(topic="z")])
    ask_all = [list(catalog.rows(topic)) for topic in ("a", "b", "z")]
    with connect(empty_database_url) as connection:
        connection.execute(
            "DELETE FROM batches WHERE partition = 2"
        )  # what the ledger lost is found all the same
        connection.execute(BEFORE_0009)
    assert migrate(empty_database_url) == ["0009", "0010", "0011", "0012", "0013"]
    assert (objects(empty_database_url), ask(empty_database_url, INDEXES)) == as_new
    assert [list(catalog.rows(topic)) for topic in ("a", "b", "z")] == ask_all
    assert catalog.partition_logs("a") == [batch.slice.partition_log for batch in batches[:3]]
    assert catalog.unledgered("a") == [batches[1].slice]
    # What is there already is no news to a look at what is new: it comes share by share.
    span = catalog.begin_row_job(RowJob.CHECK_OBJECTS)
    assert span.done_to == span.last > 0
    catalog.close()


# Adopting a catalog of archive-core


@pytest.fixture
def adopted_url(empty_database_url: str) -> str:
    """A catalog that archive-core made, and that was adopted."""
    make_archive_core_catalog(empty_database_url)
    assert migrate(empty_database_url) == ALL
    return empty_database_url


@pytest.fixture
def catalog(adopted_url: str) -> Any:
    catalog = PostgresCatalog("test-db", adopted_url)
    yield catalog
    catalog.close()


def test_readers_of_an_adopted_catalog_get_what_they_got_before(empty_database_url: str) -> None:
    make_archive_core_catalog(empty_database_url)
    before = answers(empty_database_url)
    migrate(empty_database_url)
    assert answers(empty_database_url) == before
    assert all(before[what] for what in QUESTIONS if what != "alike by content"), "a question without answer"


def test_an_adopted_catalog_keeps_its_objects_and_columns(empty_database_url: str) -> None:
    columns = "SELECT attname, atttypid::regtype::text, attnotnull FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
    make_archive_core_catalog(empty_database_url)
    had = set(objects(empty_database_url))
    tables = ("'messages'", "'topics'", "'message_ts'")
    had_columns = {table: set(ask(empty_database_url, columns % table)) for table in tables}
    migrate(empty_database_url)
    assert had <= set(objects(empty_database_url))
    for table in tables:
        assert had_columns[table] <= set(ask(empty_database_url, columns % table))


def test_adopted_rows_are_known_by_topic_timestamp_and_checksum(catalog: PostgresCatalog) -> None:
    asked = Identity(uuid.uuid4(), False, "lvk.alerts", 1_650_000_007_000, bytes(16), 4_000_000_007)
    (found,) = catalog.known([asked])
    assert found.digest is None
    (row,) = [row for row in catalog.rows("lvk.alerts") if row.uuid == found.uuid]
    assert (row.timestamp_ms, row.message_crc32) == (asked.timestamp_ms, asked.message_crc32)
    assert (row.generation, row.partition, row.offset, row.timestamp_type) == (None, None, None, None)
    assert catalog.has_adopted("lvk.alerts")


def test_both_archives_count_in_the_summary_that_readers_use(
    catalog: PostgresCatalog, adopted_url: str
) -> None:
    batch = full_batch(0, 25, topic="lvk.alerts")
    catalog.commit(batch)
    (summary,) = catalog.summaries(["lvk.alerts"])
    assert summary.messages == 40 + 25
    assert summary.size_bytes == sum(200 + n for n in range(1, 41)) + batch.size_bytes
    assert summary.first_timestamp_ms == 1_650_000_001_000
    assert summary.last_timestamp_ms == batch.rows[-1].timestamp_ms
    told = ask(adopted_url, "SELECT n_messages, l_timestamp FROM topics WHERE topic = 'lvk.alerts'")
    assert told == [(65, summary.last_timestamp_ms)]


def test_an_archive_core_that_goes_on_writing_is_counted_too(
    catalog: PostgresCatalog, adopted_url: str
) -> None:
    insert_as_archive_core(
        adopted_url, [adopted_row("lvk.alerts", timestamp_ms=5), adopted_row("a new topic")]
    )
    lvk, new = catalog.summaries(["lvk.alerts", "a new topic"])[::-1]
    assert (lvk.messages, lvk.first_timestamp_ms, new.messages) == (41, 5, 1)


def test_migrations_of_archive_core_may_run_again_and_nothing_is_counted_twice(
    catalog: PostgresCatalog, adopted_url: str
) -> None:
    with connect(adopted_url) as connection:
        for statement in TRIGGER:
            connection.execute(statement)
    catalog.commit(full_batch(0, 10, topic="lvk.alerts"))
    insert_as_archive_core(adopted_url, [adopted_row("lvk.alerts")])
    assert catalog.summaries(["lvk.alerts"])[0].messages == 40 + 10 + 1


def test_rows_that_are_deleted_are_counted_off(catalog: PostgresCatalog, adopted_url: str) -> None:
    catalog.commit(full_batch(0, 10, topic="lvk.alerts"))
    with connect(adopted_url) as connection:
        connection.execute(
            "DELETE FROM messages WHERE topic = 'sys.test' OR topic = 'lvk.alerts' AND digest IS NULL"
        )
    lvk, test = catalog.summaries(["lvk.alerts", "sys.test"])
    assert (lvk.messages, lvk.size_bytes) == (10, full_batch(0, 10).size_bytes)
    assert (test.messages, test.size_bytes, test.first_timestamp_ms) == (0, 0, None)


def test_a_retraction_by_its_readers_is_seen(catalog: PostgresCatalog, adopted_url: str) -> None:
    with connect(adopted_url) as connection:
        connection.execute("UPDATE messages SET retracted = true WHERE topic = 'lvk.alerts' AND id % 2 = 0")
    assert any(row.retracted for row in catalog.rows("lvk.alerts"))


def test_topics_that_its_summary_lacks_are_completed(empty_database_url: str) -> None:
    make_archive_core_catalog(empty_database_url)
    complete = answers(empty_database_url)["the summary"]
    with connect(empty_database_url) as connection:
        connection.execute("DELETE FROM topics WHERE topic = 'lvk.alerts'")
        connection.execute("UPDATE topics SET n_messages = 1, l_timestamp = 0 WHERE topic = 'sys.test'")
    migrate(empty_database_url)
    assert answers(empty_database_url)["the summary"] == complete


def test_its_readers_and_writers_work_on_a_catalog_that_is_new(empty_database_url: str) -> None:
    migrate(empty_database_url)
    insert_as_archive_core(empty_database_url, [adopted_row("lvk.alerts")])
    use(empty_database_url)
    with connect(empty_database_url) as connection:
        for statement in TRIGGER + NEIGHBOURS:  # its migrations find names of theirs, and leave it alone
            connection.execute(statement)
    told = ask(empty_database_url, QUESTIONS["the summary"])
    assert [(row[0], row[3]) for row in told] == [("alerts", 3), ("lvk.alerts", 1)]
    for what in set(QUESTIONS) - {"the text index", "a text search", "what is not indexed"}:
        ask(empty_database_url, QUESTIONS[what])


# What cannot be


def test_an_archive_core_catalog_of_an_older_version_is_refused_and_left_as_it_was(
    empty_database_url: str,
) -> None:
    with connect(empty_database_url) as connection:
        connection.execute("CREATE TABLE messages (id bigserial PRIMARY KEY, topic text, uuid uuid)")
    before = objects(empty_database_url)
    with pytest.raises(ConfigurationError, match=r"has no bucket, crc32.*newest migrations first"):
        migrate(empty_database_url)
    assert objects(empty_database_url) == before


def test_rows_whose_uuids_are_not_unique_are_refused(empty_database_url: str) -> None:
    make_archive_core_catalog(empty_database_url)
    with connect(empty_database_url) as connection:
        connection.execute("ALTER TABLE messages DROP CONSTRAINT messages_uuid_idx CASCADE")
    with pytest.raises(ConfigurationError, match="no unique index on uuid"):
        migrate(empty_database_url)


def test_somebody_elses_table_under_one_of_our_names_is_left_alone(empty_database_url: str) -> None:
    with connect(empty_database_url) as connection:
        connection.execute("CREATE TABLE findings (what text)")
    before = objects(empty_database_url)
    with pytest.raises(ConfigurationError, match=r"findings.*another schema"):
        migrate(empty_database_url, name="local-db")
    assert objects(empty_database_url) == before


def test_a_newer_catalog_is_refused(empty_database_url: str) -> None:
    migrate(empty_database_url)
    with connect(empty_database_url) as connection:
        connection.execute(f"UPDATE {sql.VERSION_TABLE} SET version_num = '9999'".encode())
    for call in (migrate, pending):
        with pytest.raises(ConfigurationError, match=r"9999.*newer"):
            call(empty_database_url)
    catalog = PostgresCatalog("local-db", empty_database_url)
    for ask in (catalog.check, catalog.topics):
        with pytest.raises(ConfigurationError, match=r"9999.*newer"):
            ask()
    catalog.close()


def test_a_server_that_is_too_old_is_refused_and_left_as_it_was(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate_module, "OLDEST", 99)
    for call in (migrate, pending):
        with pytest.raises(ConfigurationError, match=r"is Postgres \d+.*needs 99 or newer"):
            call(empty_database_url)
    assert objects(empty_database_url) == []


@pytest.fixture
def restricted_url(database_server: DatabaseServer, empty_database_url: str) -> str:
    """A database in whose schema the user may make tables, but no extensions."""
    user = psycopg.conninfo.conninfo_to_dict(database_server.url)["user"]
    admin = make_conninfo(database_server.superuser_url, dbname=_database(empty_database_url))
    with connect(admin) as connection:
        connection.execute(f'ALTER DATABASE "{_database(empty_database_url)}" OWNER TO postgres'.encode())
        connection.execute(f'GRANT CREATE ON SCHEMA public TO "{user}"'.encode())
    return empty_database_url


def _database(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


@pytest.fixture
def _give_back(database_server: DatabaseServer, empty_database_url: str) -> Any:
    """So that the database can be dropped by who made it."""
    yield
    user = psycopg.conninfo.conninfo_to_dict(database_server.url)["user"]
    with connect(database_server.superuser_url) as connection:
        connection.execute(f'ALTER DATABASE "{_database(empty_database_url)}" OWNER TO "{user}"'.encode())


@pytest.mark.usefixtures("_give_back")
def test_a_user_who_may_not_make_the_extension_is_told_what_to_ask_for(restricted_url: str) -> None:
    with pytest.raises(ForbiddenError, match=r"extension btree_gist.*administrator") as refusal:
        migrate(restricted_url, name="aws-dev-db")
    assert "aws-dev-db" in str(refusal.value)
    assert objects(restricted_url) == []


@pytest.mark.usefixtures("_give_back")
def test_where_the_extension_is_there_no_right_to_make_it_is_needed(
    database_server: DatabaseServer, restricted_url: str
) -> None:
    admin = make_conninfo(database_server.superuser_url, dbname=_database(restricted_url))
    with connect(admin) as connection:
        connection.execute("CREATE EXTENSION btree_gist")
    assert migrate(restricted_url) == ALL
    use(restricted_url)


def test_no_password_is_in_what_is_said_of_a_server_that_cannot_be_used(empty_database_url: str) -> None:
    secret = password_of(empty_database_url)
    for url, expected in (
        (make_conninfo(empty_database_url, password=f"{secret}-wrong"), ForbiddenError),
        (make_conninfo(empty_database_url, port="1"), UnavailableError),
        (make_conninfo(empty_database_url, dbname="no_such_database"), MissingSettingError),
        (f"postgresql//user:{secret}@host/database", ConfigurationError),
    ):
        for call in (migrate, pending):
            with pytest.raises(expected) as refusal:
                call(url, name="local-db")
            assert secret not in "".join(
                map(str, [refusal.value, refusal.value.facts, refusal.value.__cause__])
            )
            assert "local-db" in str(refusal.value)


def test_a_slice_is_free_where_only_adopted_rows_are(catalog: PostgresCatalog) -> None:
    assert catalog.coverage() == {}
    catalog.commit(full_batch(0, 5, topic="lvk.alerts"))
    assert list(catalog.coverage()) == [slice_of(0, 5, "lvk.alerts").partition_log]
