"""Selecting in Postgres by a condition of the user's: what it may do, how faults are told, and what it costs."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from hop_archive.catalog.postgres import select
from hop_archive.catalog.postgres import select as postgres_select
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.postgres.user_condition import RESERVED
from hop_archive.catalog.records import Batch, Duplicate
from hop_archive.errors import ConfigurationError, UnavailableError
from hop_archive.model.annotations import Annotations
from hop_archive.model.query import Order, Query
from hop_archive_tests.contract.catalog_helpers import (
    DatabaseServer,
    adopted_row,
    connect,
    everything,
    full_batch,
    insert_as_archive_core,
    row_at,
    slice_of,
)

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

MakePostgres = Callable[..., PostgresCatalog]


def offsets(catalog: PostgresCatalog, condition: str, order: Order = Order.PLACE) -> list[int | None]:
    return [row.offset for row in catalog.select(Query(condition=condition), order)]


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ('"offset" < 2', [0, 1]),
        ('"offset" % 4 = 3', [3, 7]),
        ("sender LIKE '%body' AND \"offset\" = 5 OR false", [5]),
        ('false OR "offset" = 5 -\n1', [4]),
        ("EXISTS (SELECT FROM duplicates AS d WHERE d.uuid = messages.uuid)", [2]),
        ('(SELECT true) AND ("offset") IN (0, 9)', [0, 9]),
        ('(WITH nine AS (SELECT 9 AS n) SELECT "offset" = n FROM nine)', [9]),
        ("random() >= 0 AND lower(title) = '' AND \"offset\" = 1", [1]),
        ("null", []),
    ],
)
def test_any_condition_of_sql_selects(
    postgres: PostgresCatalog, condition: str, found: list[int], order: Order
) -> None:
    batch = full_batch(0, 10)
    postgres.commit(batch)
    postgres.commit(Batch(slice_of(10, 11), duplicates=[Duplicate(10, 1, batch.rows[2].uuid, "same")]))
    wanted = found[::-1] if order is Order.NEWEST else found
    assert offsets(postgres, condition, order) == wanted


def test_a_condition_cannot_undo_the_other_bounds(postgres: PostgresCatalog) -> None:
    postgres.commit(full_batch(0, 10))
    query = Query(condition="true OR true", until_ms=1_700_000_000_002)
    assert [row.offset for row in postgres.select(query)] == [0, 1]


EVIL = (
    "1=1; DROP TABLE messages",
    "1=1; COMMIT; DROP TABLE messages",
    "1=1) OR (1=1",
    "1=1) UNION SELECT * FROM messages WHERE (true",
    "1=1) ; DROP TABLE messages; SELECT (1=1",
    "true UNION SELECT true; DELETE FROM messages",
    "1=1 --",
    "1=1 /*",
    "true] OR ARRAY[true",
    "WITH gone AS (DELETE FROM messages RETURNING 1) SELECT true FROM gone",
    "(DELETE FROM messages RETURNING true)",
    "nextval('messages_id_seq') > 0",
    "setval('messages_id_seq', 1) > 0",
    "set_config('transaction_read_only', 'off', false) = 'off'",
    "set_config('statement_timeout', '0', false) = '0'",
    "pg_catalog . \"set_config\" ('search_path', 'nowhere', false) = ''",
    "pg_terminate_backend(pg_backend_pid())",
    "PG_Terminate_Backend\n(pg_backend_pid())",
    "pg_cancel_backend(pg_backend_pid())",
    "pg_advisory_lock(1) IS NULL",
    "pg_notify('a', 'b') IS NULL",
    "lo_import('/etc/passwd') > 0",
    "lo_from_bytea(0, 'x') > 0",
    "pg_read_file('/etc/passwd') > ''",
    "query_to_xml('DELETE FROM messages', true, true, '') IS NULL",
    "dblink('', 'SELECT 1') IS NULL",
    "pg_sleep(100) IS NULL",
    "EXISTS (SELECT pg_sleep(100))",
    "EXISTS (SELECT FROM generate_series(1, 2), LATERAL pg_sleep(100))",
    "EXISTS (SELECT FROM messages FOR UPDATE)",
    "COPY messages TO '/tmp/x'",
    "meddle()",
    "meddle() = 1 OR true",
    "(messages).meddle_by_row = 1",
    "@@@ 1 = 1",
    "$1 IS NULL",
    "title = E'\\') OR true --'",
    "SELECT true",
    "SELECT true UNION SELECT true",
    "true, true",
    "count(*) > 1",
    "row_number() OVER () = 1",
    "title",
)


@pytest.fixture
def meddling(database_url: str) -> str:
    """A database with functions of somebody's own that change things."""
    with connect(database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS meddled (n integer)")
        for name, arguments, kind in (
            ("meddle", "", "VOLATILE"),
            ("meddle_by_row", "messages", "VOLATILE"),
            ("meddle_by_sign", "integer", "VOLATILE"),
        ):
            connection.execute(
                f"CREATE OR REPLACE FUNCTION {name}({arguments}) RETURNS integer LANGUAGE sql {kind}"
                " AS 'INSERT INTO meddled VALUES (1) RETURNING n'".encode()
            )
        if not connection.execute(
            "SELECT FROM pg_operator WHERE oprname = '@@@' AND oprleft = 0 AND oprright = 23"
        ).fetchall():
            connection.execute("CREATE OPERATOR @@@ (RIGHTARG = integer, FUNCTION = meddle_by_sign)")
    return database_url


@pytest.mark.timeout(90)  # and not for ever
@pytest.mark.parametrize("condition", EVIL)
def test_nothing_but_a_condition_can_be_run(
    make_postgres: MakePostgres, meddling: str, condition: str
) -> None:
    catalog = make_postgres(pool_size=1)
    catalog.commit(full_batch(0, 10))
    before = everything(catalog, "alerts")
    with pytest.raises(ConfigurationError, match="The condition cannot be used"):
        list(catalog.select(Query(condition=condition), timeout_s=5))
    assert everything(catalog, "alerts") == before
    with connect(meddling) as connection:
        assert connection.execute("SELECT count(*) FROM meddled").fetchone() == (0,)
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert connection.execute(locks).fetchone() == (0,)
    catalog.commit(full_batch(10, 20))  # the session, of which there is but one, can still write


@pytest.mark.parametrize("condition", [one for one in EVIL if "(1=1" in one or ";" in one or "]" in one])
def test_postgres_alone_keeps_a_condition_within_its_brackets(
    postgres: PostgresCatalog, monkeypatch: pytest.MonkeyPatch, condition: str
) -> None:
    monkeypatch.setattr(postgres_select, "called", lambda _: {})
    postgres.commit(full_batch(0, 10))
    with pytest.raises(ConfigurationError, match="Postgres says"):
        list(postgres.select(Query(condition=condition)))
    assert len(list(postgres.select(Query()))) == 10


def test_even_without_the_checks_a_condition_changes_nothing(
    make_postgres: MakePostgres, meddling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a function calls that is declared to be harmless is not seen; the transaction holds all the same."""
    with connect(meddling) as connection:
        connection.execute(
            """CREATE OR REPLACE FUNCTION sly(text) RETURNS text STABLE LANGUAGE plpgsql AS $do$
            BEGIN
                IF $1 LIKE 'SET %' THEN
                    PERFORM set_config(split_part($1, ' ', 2), split_part($1, ' ', 3), false);
                ELSE
                    PERFORM * FROM (SELECT meddle()) AS meddling;
                END IF;
                RETURN '';
            END $do$"""
        )
    catalog = make_postgres(pool_size=1)
    catalog.commit(full_batch(0, 10))
    for text in ("SET transaction_read_only off", "MEDDLE"):
        with pytest.raises(ConfigurationError, match=r"read-only|read-write"):
            list(catalog.select(Query(condition=f"sly('{text}') = ''")))
    assert len(offsets(catalog, "sly('SET search_path nowhere') = ''")) == 10
    assert len(offsets(catalog, "sly('SET statement_timeout 1') = ''")) == 10
    catalog.commit(full_batch(10, 20))
    with connect(meddling) as connection:
        assert connection.execute("SELECT count(*) FROM meddled").fetchone() == (0,)


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("tpoic = 'x'", "tpoic = 'x'\n  ^"),
        ("size > 1 AND\n  sizze > 2", "  sizze > 2\n    ^"),
        ("size >", "it ends too early.\n  size >\n        ^"),
        ("true UNION SELECT true", "  true UNION SELECT true\n       ^"),
        ("title ~ '('", "invalid regular expression"),
        ("size / 0 = 1", "division by zero"),
        ("topic = '%s' AND sizze > '%'", "topic = '%s' AND sizze > '%'\n                   ^"),
        ("tópic = 1 OR é < ", "  ^"),
        ("uuid = 'x'", "invalid input syntax for type uuid: \"x\".\n  uuid = 'x'\n         ^"),
        ("EXISTS (SELECT FROM nowhere)", 'relation "nowhere" does not exist'),
        ("EXISTS (SELECT FROM pg_authid)", "permission denied"),
    ],
)
def test_a_fault_is_told_as_postgres_tells_it_with_the_place_marked(
    postgres: PostgresCatalog, condition: str, told: str
) -> None:
    postgres.commit(full_batch(0, 10))
    with pytest.raises(ConfigurationError) as caught:
        list(postgres.select(Query(condition=condition)))
    assert told in str(caught.value)


def test_what_postgres_quotes_of_the_data_is_harmless_and_cut(postgres: PostgresCatalog) -> None:
    where = slice_of(0, 1)
    row = row_at(where, 0, annotations=Annotations(title="\x1b]0;owned\x07" + "x" * 100_000))
    postgres.commit(Batch(where, rows=[row]))
    with pytest.raises(ConfigurationError, match="invalid input syntax") as caught:
        list(postgres.select(Query(condition="title::int = 1")))
    told = str(caught.value)
    assert r"\x1b]0;owned\x07" in told
    assert told.replace("\n", "").isprintable()
    assert len(told) < 2_000


@pytest.mark.parametrize("condition", ["offset = 3", "size > Offset", "partition = 0 AND offset"])
def test_the_column_that_is_a_word_of_sqls_own_is_told_how_to_write(
    postgres: PostgresCatalog, condition: str
) -> None:
    with pytest.raises(ConfigurationError, match='written "offset", in double quotes'):
        list(postgres.select(Query(condition=condition)))
    for other in ('"offset" = ', "title LIKE 'offset' AND", "sizze = 1"):
        with pytest.raises(ConfigurationError) as caught:
            list(postgres.select(Query(condition=other)))
        assert "double quotes" not in str(caught.value)


def test_every_column_that_postgres_takes_only_in_quotes_is_known(
    postgres: PostgresCatalog, database_url: str
) -> None:
    query = """
        SELECT DISTINCT column_name FROM information_schema.columns
        JOIN pg_get_keywords() ON word = column_name AND catcode IN ('R', 'T')
        WHERE table_name = 'messages'
    """
    with connect(database_url) as connection:
        assert {name for (name,) in connection.execute(query)} == set(RESERVED)


def test_percent_signs_of_a_condition_are_its_own(postgres: PostgresCatalog) -> None:
    postgres.commit(full_batch(0, 10))
    assert offsets(
        postgres, "sender LIKE '%ebod%' AND '%s %(topic)s %%' LIKE '\\%s \\%(topic)s \\%\\%'"
    ) == list(range(10))


@pytest.mark.timeout(90)  # and not for ever
def test_a_query_that_takes_too_long_is_broken_off(postgres: PostgresCatalog) -> None:
    postgres.commit(full_batch(0, 10))
    endless = 'EXISTS (SELECT FROM generate_series(1, 1000000000) AS n WHERE n = messages."offset" - 5)'
    with pytest.raises(ConfigurationError, match=r"within 0\.2 s.*--timeout"):
        list(postgres.select(Query(condition=endless), timeout_s=0.2))
    assert len(list(postgres.select(Query()))) == 10


def test_a_role_that_may_only_read_selects(
    postgres: PostgresCatalog, database_url: str, database_server: DatabaseServer
) -> None:
    postgres.commit(full_batch(0, 10))
    with connect(database_server.superuser_url) as connection:
        connection.execute("DROP ROLE IF EXISTS onlooker")
        connection.execute("CREATE ROLE onlooker LOGIN PASSWORD 'looks'")
    with connect(database_url) as connection:
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO onlooker")
    reader = PostgresCatalog(
        "reader", psycopg.conninfo.make_conninfo(database_url, user="onlooker", password="looks")
    )
    try:
        assert len(list(reader.select(Query(condition="size > 0")))) == 10
    finally:
        reader.close()
        with connect(database_url) as connection:
            connection.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM onlooker")
        with connect(database_server.superuser_url) as connection:
            connection.execute("DROP ROLE onlooker")


def test_a_server_that_is_gone_is_what_is_told(make_postgres: MakePostgres) -> None:
    catalog = PostgresCatalog("gone", "postgresql://nobody@127.0.0.1:1/nothing", timeout_s=2)
    with pytest.raises(UnavailableError):
        next(catalog.select(Query(condition="true")))


ROWS = 100_000
GENERATE = f"""
    INSERT INTO messages (topic, timestamp, uuid, size, key, bucket, crc32, is_client_uuid, public, direct_upload,
                          message_crc32, generation, partition, "offset", timestamp_type, digest, position)
    SELECT 'many', n, gen_random_uuid(), 100, 'segments/many', 'archive', n, true, true, false,
           n, 1, 0, n, 0, '\\x00', n
    FROM generate_series(1, {ROWS}) AS n
"""


def test_many_rows_are_streamed_in_bounded_memory(postgres: PostgresCatalog, database_url: str) -> None:
    with connect(database_url) as connection:
        connection.execute(GENERATE)
        connection.execute("INSERT INTO topics VALUES ('many', 1, 2, %s, 0)", [ROWS])
        connection.execute("INSERT INTO logs VALUES ('many', 1, 0)")
    rows = postgres.select(Query(condition="size > 0"))
    assert next(rows).offset == 1
    began_bytes = held_bytes = resident_bytes()
    for row in rows:
        if row.timestamp_ms % 10_000 == 0:
            held_bytes = max(held_bytes, resident_bytes())
    assert row.offset == ROWS
    assert held_bytes - began_bytes < 12_000_000  # all at once are 30 MB and more


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


PLANS = {
    "by place": (select.SELECT_BY_PLACE, (), "messages_place_idx"),
    "adopted": (select.SELECT_ADOPTED, ("topic",), "messages_adopted_idx"),
    "UUIDs": (select.SELECT_UUIDS_BY_PLACE, ("uuids",), "messages_uuid_idx"),
    "by id": (select.SELECT_BY_ID, (), "messages_pkey"),
    "newest": (select.SELECT_NEWEST, (), "messages_timestamp_id_idx"),
    "newest of a topic": (select.SELECT_NEWEST, ("topic",), "messages_topic_timestamp_idx"),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_selection_relies_on_the_index_that_it_names(
    postgres: PostgresCatalog, database_url: str, name: str
) -> None:
    for partition in range(3):
        postgres.commit(full_batch(0, 300, partition=partition))
    insert_as_archive_core(database_url, [adopted_row(timestamp_ms=n) for n in range(300)])
    (head, tail), bounds, index = PLANS[name]
    statement = " AND ".join([head, *(select.SELECTED[bound] for bound in bounds)]) + f" {tail}"
    values = {
        "topic": "alerts",
        "generation": 1,
        "partition": 0,
        "uuids": [adopted_row().uuid],
        "limit": None,
    }
    with connect(database_url) as connection:
        connection.execute("ANALYZE")
        connection.execute("SET enable_seqscan = off")
        if name != "UUIDs":
            connection.execute("SET enable_sort = off")
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {statement}".encode(), values))
    assert index in plan, plan
