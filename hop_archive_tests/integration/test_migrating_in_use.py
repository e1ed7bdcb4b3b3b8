"""Migrating a catalog that others read and write meanwhile; interrupted anywhere, and kept from a table."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from alembic.migration import MigrationContext
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hop_archive.catalog.postgres import migrate as migrate_module
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.postgres.migrate import migrate, pending
from hop_archive.catalog.postgres.migrations.steps import MigrationProgress
from hop_archive.errors import ConfigurationError, UnavailableError
from hop_archive_tests.cli_helpers import invoke, toml
from hop_archive_tests.contract.catalog_helpers import (
    DEADLINE_S,
    DatabaseServer,
    InThread,
    adopted_row,
    connect,
    insert_as_archive_core,
)
from hop_archive_tests.integration.archive_core_catalog import answers, make_archive_core_catalog

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

SCHEMA: tuple[LiteralString, ...] = (
    """SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
         LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0""",
    "SELECT pg_get_indexdef(indexrelid), indisvalid, indisunique FROM pg_index JOIN pg_class ON oid = indexrelid"
    " WHERE relnamespace = 'public'::regnamespace",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace AND conrelid <> 0",
    "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "SELECT proname, prosrc, proconfig FROM pg_proc WHERE proname LIKE 'hop_archive%%'",
    "SELECT objoid::regclass::text, objsubid, description FROM pg_description WHERE classoid = 'pg_class'::regclass"
    " AND objoid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)",
    "SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
)
KEPT: frozenset[str] = frozenset(
    ["messages_key_idx", "messages_timestamp_idx", "messages_topic_idx", "schema_versions", "topic_sizes"]
)
"""Of archive-core, or of somebody's service upon it: it stays, and a new catalog has none of it."""


def schema_of(url: str) -> list[list[str]]:
    """All that a catalog's tables are made of, but for what is not ours."""
    with connect(url) as connection:
        found = [[str(row) for row in connection.execute(question)] for question in SCHEMA]
    return [sorted(row for row in rows if not any(name in row for name in KEPT)) for rows in found]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def new_schema(database_server: DatabaseServer) -> Iterator[list[list[str]]]:
    """What a catalog is made of that is made new."""
    name = f"hop_archive_test_{uuid.uuid4().hex[:8]}"
    url = database_server.create(name)
    migrate(url)
    yield schema_of(url)
    database_server.drop(name)


@pytest.fixture
def url(empty_database_url: str) -> str:
    """A catalog of archive-core."""
    make_archive_core_catalog(empty_database_url)
    return empty_database_url


def use(url: str) -> None:
    """Be a reader and a writer who would rather fail than wait."""
    with connect(url) as connection, connection.transaction():
        connection.execute("LOCK TABLE messages, topics IN ROW EXCLUSIVE MODE NOWAIT")
        connection.execute("SELECT count(*) FROM messages")
    insert_as_archive_core(url, [adopted_row("lvk.alerts")])
    with connect(url) as connection:
        connection.execute(
            "DELETE FROM messages WHERE id = (SELECT min(id) FROM messages WHERE topic = 'sys.test')"
        )


def is_of_rows(told: MigrationProgress) -> bool:
    """Whether a step goes over all rows of a table: nobody may wait for it."""
    return told.what.startswith(("index", "statistics", "the summary"))


def refuse_miscounts(url: str) -> None:
    catalog = PostgresCatalog("test-db", url)
    catalog.check()
    assert [catalog.miscounts(topic) for topic in catalog.topics()] == [[]] * 3
    catalog.close()


def test_an_adopted_catalog_is_made_of_what_a_new_one_is_made_of(
    url: str, new_schema: list[list[str]]
) -> None:
    migrate(url)
    assert schema_of(url) == new_schema


def test_readers_and_writers_go_on_while_a_catalog_is_adopted_and_all_is_counted(
    url: str, new_schema: list[list[str]]
) -> None:
    steps: dict[int, MigrationProgress] = {}

    def tell(progress: MigrationProgress) -> None:
        if progress.step not in steps and is_of_rows(progress) and "message_ts" not in progress.what:
            use(url)
        steps[progress.step] = progress

    migrate(url, tell=tell)
    assert list(steps) == list(range(1, steps[1].steps + 1)), "steps are numbered as many as there are"
    assert sum(map(is_of_rows, steps.values())) > 8
    assert schema_of(url) == new_schema
    refuse_miscounts(url)


def test_while_an_index_is_built_readers_and_writers_go_on_and_it_is_told_whom_it_waits_for(url: str) -> None:
    told: list[MigrationProgress] = []
    writing = psycopg.connect(make_conninfo(url, application_name="a slow writer"))

    def tell(progress: MigrationProgress) -> None:
        if not told and progress.what.startswith("index messages_offset_idx"):
            writing.execute("UPDATE messages SET retracted = retracted")
        if progress.what.startswith("index messages_offset_idx"):
            told.append(progress)

    migrating = InThread(partial(migrate, url, tell=tell))
    who = f"a slow writer of {writing.info.user}, pid {writing.info.backend_pid}"
    wait_until(lambda: any(who in progress.detail for progress in told))
    insert_as_archive_core(url, [adopted_row("lvk.alerts")])
    with connect(url) as connection, connection.transaction():
        connection.execute("LOCK TABLE messages, topics IN ROW EXCLUSIVE MODE NOWAIT")
    writing.rollback()
    writing.close()
    assert migrating.outcome() == [f"{number:04}" for number in range(1, 1 + len(migrating.outcome()))]  # type: ignore[arg-type]
    refuse_miscounts(url)


def test_others_who_use_a_table_are_named_and_not_kept_waiting_and_it_is_tried_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate_module, "_LOCK_S", 0.1)
    told: list[str] = []
    attempts = 0
    reader = psycopg.connect(make_conninfo(url, application_name="a long report"))
    reader.execute("SELECT count(*) FROM messages")

    def sleep(_: float) -> None:
        nonlocal attempts
        attempts += 1
        use(url)  # nobody waits between attempts
        if attempts == 3:
            reader.close()

    assert migrate(url, tell=lambda progress: told.append(progress.detail), sleep=sleep) != []
    waits = [detail for detail in told if "others use" in detail]
    assert len(waits) == attempts == 3
    assert all("a long report of" in detail for detail in waits)
    refuse_miscounts(url)


def test_after_some_time_it_gives_up_and_has_changed_nothing(url: str) -> None:
    before = schema_of(url)
    with psycopg.connect(make_conninfo(url, application_name="a long report")) as reader:
        reader.execute("SELECT count(*) FROM messages")
        with pytest.raises(UnavailableError, match=r"a long report of .*run this again"):
            migrate(url, patience_s=6, sleep=lambda _: None)
    assert schema_of(url) == before


class StopError(Exception):
    """Somebody ended the migration."""


def stop_after(most: int, seen: set[int], progress: MigrationProgress) -> None:
    seen.add(progress.step)
    if len(seen) > most:
        raise StopError


def test_interrupted_before_any_of_its_steps_it_is_completed_by_the_next(
    url: str, new_schema: list[list[str]]
) -> None:
    before = answers(url)
    runs = 0
    while pending(url):
        runs += 1
        with suppress(StopError):
            migrate(url, tell=partial(stop_after, runs, set()))
    assert runs > 3
    assert schema_of(url) == new_schema
    assert answers(url) == before
    refuse_miscounts(url)


def test_an_index_whose_build_the_server_broke_off_is_built_again(
    url: str, new_schema: list[list[str]]
) -> None:
    writing = psycopg.connect(url)

    def tell(progress: MigrationProgress) -> None:
        if progress.what.startswith("index messages_offset_idx") and not progress.detail:
            writing.execute("UPDATE messages SET retracted = retracted")

    migrating = InThread(partial(migrate, url, tell=tell))
    building = "SELECT pid FROM pg_stat_progress_create_index WHERE datname = current_database() AND phase LIKE 'waiting%'"
    with connect(url) as connection:
        wait_until(lambda: connection.execute(building).fetchall())
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM ({building}) AS building".encode())
    assert isinstance(migrating.outcome(), UnavailableError)
    writing.close()
    with connect(url) as connection:
        left = connection.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")
        assert left.fetchall() == [("messages_offset_idx",)]
    told: list[str] = []
    migrate(url, tell=lambda progress: told.append(progress.detail))
    assert any("dropped first" in detail for detail in told)
    assert schema_of(url) == new_schema
    refuse_miscounts(url)


def test_what_a_killed_migration_has_the_server_build_still_is_waited_for_and_kept(url: str) -> None:
    """As when its process is killed: the server goes on, until it would answer."""
    writing, orphan = psycopg.connect(url), psycopg.connect(url, autocommit=True)
    with pytest.raises(StopError):
        migrate(url, tell=partial(stop_at, "index messages_offset_idx"))
    writing.execute("UPDATE messages SET retracted = retracted")
    create = 'CREATE UNIQUE INDEX CONCURRENTLY messages_offset_idx ON messages (topic, generation, partition, "offset")'
    building = InThread(lambda: orphan.execute(create.encode()))
    told: list[str] = []

    def tell(progress: MigrationProgress) -> None:
        told.append(progress.detail)
        if "an interrupted run" in progress.detail:
            writing.close()

    with connect(url) as connection:
        wait_until(lambda: connection.execute("SELECT FROM pg_index WHERE NOT indisvalid").fetchall())
    assert migrate(url, tell=tell) != []
    assert isinstance(building.outcome(), psycopg.Cursor)
    assert any("an interrupted run" in detail for detail in told)
    assert not any("dropped first" in detail for detail in told)
    orphan.close()


def stop_at(what: str, progress: MigrationProgress) -> None:
    if progress.what.startswith(what):
        raise StopError


def test_two_at_once_adopt_once(url: str, new_schema: list[list[str]]) -> None:
    calls = [InThread(partial(migrate, url)) for _ in range(3)]
    done = sorted((call.outcome() for call in calls), key=lambda ran: len(ran))  # type: ignore[arg-type]
    assert done[:2] == [[], []]
    assert len(done[2]) > 5  # type: ignore[arg-type]
    assert schema_of(url) == new_schema


@pytest.mark.parametrize("error", ["duplicate_table", "duplicate_object", "unique_violation"])
def test_the_other_ones_table_is_taken_however_postgres_tells_of_it(
    url: str, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """Of two at the very same moment, one is told of the other's table, of its type, or of a row in Postgres' own tables."""
    ensure = MigrationContext._ensure_version_table

    def made_by_another(context: MigrationContext) -> None:
        monkeypatch.setattr(MigrationContext, "_ensure_version_table", ensure)
        with psycopg.connect(url) as other:
            other.execute(
                "CREATE TABLE IF NOT EXISTS hop_archive_alembic_version (version_num varchar(32) PRIMARY KEY)"
            )
        assert context.connection is not None
        context.connection.exec_driver_sql(f"DO $$ BEGIN RAISE {error}; END $$")

    monkeypatch.setattr(MigrationContext, "_ensure_version_table", made_by_another)
    assert len(migrate(url)) > 5


def test_an_error_in_making_the_version_table_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(context: MigrationContext) -> None:
        assert context.connection is not None
        context.connection.exec_driver_sql("DO $$ BEGIN RAISE disk_full; END $$")

    monkeypatch.setattr(MigrationContext, "_ensure_version_table", refused)
    with pytest.raises(UnavailableError, match="disk_full"):
        migrate(url)


def test_a_refused_catalog_keeps_no_trace(url: str) -> None:
    with connect(url) as connection:
        connection.execute("CREATE TABLE findings (what text)")
    before = schema_of(url)
    with pytest.raises(ConfigurationError, match=r"findings.*another schema"):
        migrate(url)
    assert schema_of(url) == before


def test_a_new_catalog_is_made_whole_or_not_at_all(empty_database_url: str) -> None:
    with connect(empty_database_url) as connection:
        connection.execute("CREATE TABLE row_progress (what text)")  # of the last migration
    before = schema_of(empty_database_url)
    with pytest.raises(ConfigurationError, match="row_progress"):
        migrate(empty_database_url)
    assert schema_of(empty_database_url) == before


def test_the_command_tells_each_step_of_a_catalog_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    told = conninfo_to_dict(url)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", str(told["password"]))
    toml(
        tmp_path,
        f"""
        [database.x]
        type = "postgres"
        host = "{told["host"]}"
        port = {told["port"]}
        name = "{told["dbname"]}"
        user = "{told["user"]}"
        password_env = "SECRET"
        """,
    )
    result = invoke("migrate", "-D", "x")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert lines[0].startswith("Step 1 of ")
    assert "index messages_offset_idx on messages" in result.stderr
    steps = int(lines[0].split()[3].strip(":"))
    assert len({line.partition(":")[0] for line in lines}) == steps
    assert "ran 0001, 0002" in result.stdout
    again = invoke("migrate", "-D", "x")
    assert (again.exit_code, again.stderr) == (0, "")
    assert "nothing to do" in again.stdout
