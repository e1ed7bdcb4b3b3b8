"""The ledger stays small by itself: the same in both catalogs, and what others are at work on is left alone."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hop_archive.catalog.ledger import period
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.postgres.ledger import COVERAGE, PERIOD
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Batch, LedgerEntry, Outcome
from hop_archive.errors import SliceTakenError
from hop_archive.model.slices import OffsetSet, PartitionLog
from hop_archive_tests.contract.catalog_helpers import TABLES, connect, full_batch, slice_of
from hop_archive_tests.roles import url_of

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

NOW = datetime.datetime(2026, 5, 20, 14, 33, 20, tzinfo=datetime.UTC)
ALERTS = PartitionLog("alerts", 1, 0)
HOUR_S = 3_600
Put = Callable[[Sequence[LedgerEntry]], None]

ADD = """
    INSERT INTO batches (topic, generation, partition, offsets, outcome, reason, archived, duplicates, absent, bytes,
                         run_id, created_at, first_timestamp, last_timestamp)
    VALUES (%s, %s, %s, int8range(%s, %s), %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


def put_in_postgres(url: str, entries: Sequence[LedgerEntry]) -> None:
    with connect(url) as connection:
        for e in entries:
            at = (*e.slice.partition_log, e.slice.start, e.slice.stop, e.outcome.value, e.reason)
            rest = (e.size_bytes, e.run_id, e.created_at, e.first_timestamp_ms, e.last_timestamp_ms)
            connection.execute(ADD, (*at, e.archived, e.duplicates, e.absent, *rest))


def put_in_mock(mock: MockCatalog, entries: Sequence[LedgerEntry]) -> None:
    with mock._state.change() as tables:
        for entry in entries:
            tables.put(entry)


@pytest.fixture
def put(request: pytest.FixtureRequest, catalog: Catalog) -> Put:
    """Puts rows into the ledger that were made in other times."""
    if isinstance(catalog, MockCatalog):
        return lambda entries: put_in_mock(catalog, entries)
    url = request.getfixturevalue("database_url")
    return lambda entries: put_in_postgres(url, entries)


def absent(start: int, stop: int, at: datetime.datetime, run_id: str = "run", **changes: Any) -> LedgerEntry:
    """A row of absent offsets."""
    entry = LedgerEntry(slice_of(start, stop), Outcome.ARCHIVED, "", 0, 0, stop - start, 0, run_id, at)
    return replace(entry, **changes)


def ago(catalog: Catalog, **age: float) -> datetime.datetime:
    """A moment so long ago by the catalog's clock, at the middle of a period of two hours."""
    at = catalog.condition().at - datetime.timedelta(**age)
    return at.replace(hour=at.hour // 2 * 2 + 1, minute=5, second=0, microsecond=0)


def spans(catalog: Catalog) -> list[tuple[int, int]]:
    return [(entry.slice.start, entry.slice.stop) for entry in catalog.ledger()]


# By commits


def test_a_commit_that_comes_later_merges_what_is_older_of_its_log(catalog: Catalog, put: Put) -> None:
    old, older = ago(catalog, hours=5), ago(catalog, days=20)
    put([absent(n * 10, n * 10 + 10, older) for n in range(4)])
    put([absent(40 + n, 41 + n, old + datetime.timedelta(seconds=n), run_id=f"run {n}") for n in range(10)])
    others = [replace(absent(n, n + 1, old), slice=slice_of(n, n + 1, "others")) for n in range(3)]
    put(others)
    batch = full_batch(50, 53)
    catalog.commit(batch)
    assert [e.slice.topic for e in catalog.ledger()] == ["alerts"] * 3 + ["others"] * 3
    assert spans(catalog)[:3] == [(0, 40), (40, 50), (50, 53)]
    first, second, _ = catalog.ledger(["alerts"])
    assert (first.run_id, first.created_at) == ("run", older)
    assert (second.run_id, second.created_at) == ("", old + datetime.timedelta(seconds=9))
    assert catalog.coverage(["alerts"]) == {ALERTS: OffsetSet.between(0, 53)}
    assert list(catalog.rows("alerts")) == batch.rows
    with pytest.raises(SliceTakenError):
        catalog.commit(Batch(slice_of(45, 55)))


def test_a_commit_that_follows_soon_merges_nothing_and_rows_of_the_last_minutes_stay(
    catalog: Catalog,
) -> None:
    for start in range(5):
        catalog.commit(Batch(slice_of(start, start + 1), run_id="run"))
    assert len(catalog.ledger()) == 5
    catalog.tidy(ALERTS, catalog.condition().at)  # type: ignore[attr-defined]
    assert len(catalog.ledger()) == 5


def test_what_a_day_was_told_of_and_how_late_it_was_stays(catalog: Catalog, put: Put) -> None:
    at = ago(catalog, hours=5)
    ends = [at - datetime.timedelta(seconds=seconds) for seconds in (HOUR_S, 2, 1)]
    times = [round(end.timestamp() * 1000) for end in ends]
    put([absent(n, n + 1, at, first_timestamp_ms=t, last_timestamp_ms=t) for n, t in enumerate(times)])
    put([absent(3, 4, at)])
    since = at - datetime.timedelta(days=1)
    before = catalog.ledger_days(since)
    assert [day.lag_s for day in before] == [HOUR_S]
    summaries = catalog.summaries(since=since)
    catalog.commit(full_batch(10, 11, topic="another"))
    catalog.tidy(ALERTS, catalog.condition().at)  # type: ignore[attr-defined]
    assert spans(catalog)[0] == (0, 4)
    assert catalog.ledger_days(since, ["alerts"]) == before
    assert catalog.summaries(["alerts"], since=since) == summaries
    assert catalog.merge_ledger(catalog.condition().at) == 0


def test_logs_that_fell_silent_are_merged_by_when_their_rows_were_made(catalog: Catalog, put: Put) -> None:
    for topic, days in (("young", 3), ("old", 9), ("older", 30)):
        at = ago(catalog, days=days)
        put([replace(absent(n, n + 1, at), slice=slice_of(n, n + 1, topic)) for n in range(5)])
    now = catalog.condition().at
    week = now - datetime.timedelta(days=7)
    assert catalog.merge_ledger(week, since=week - datetime.timedelta(days=7)) == 4
    assert [len(catalog.ledger([topic])) for topic in ("young", "old", "older")] == [5, 1, 5]
    assert catalog.merge_ledger(week) == 4


@pytest.mark.parametrize(
    "failing",
    [
        "SELECT 1 / 0",
        "SELECT no_such_column FROM batches",
        "UPDATE batches SET archived = archived + 1",
        "SELECT pg_terminate_backend(pg_backend_pid())",
        "SELECT * FROM no_such_table",
    ],
)
def test_a_commit_is_done_whatever_its_merging_meets(
    database_url: str, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    catalog = PostgresCatalog("test-db", url_of("archiver", database_url))
    old = ago(catalog, hours=5)
    put_in_postgres(database_url, [absent(n, n + 1, old) for n in range(3)])
    monkeypatch.setattr("hop_archive.catalog.postgres.ledger.TIDY", failing)
    batch = full_batch(3, 5)
    catalog.commit(batch)
    assert spans(catalog) == [(0, 1), (1, 2), (2, 3), (3, 5)]
    assert list(catalog.rows("alerts")) == batch.rows
    catalog.close()


# The same in both

entries = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.integers(0, 20 * 24 * 60),
        st.sampled_from([(Outcome.ARCHIVED, ""), (Outcome.LOST, "a"), (Outcome.LOST, "b")]),
        st.sampled_from(["r1", "r2", ""]),
        st.booleans(),
    ),
    max_size=25,
)


@given(entries, st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mock_and_postgres_tidy_alike(
    postgres: PostgresCatalog, migrated_url: str, drawn: list[Any], in_order: bool
) -> None:
    with connect(migrated_url) as connection:
        connection.execute(f"TRUNCATE {TABLES}".encode())
    ages = sorted((minutes for _, minutes, *_ in drawn), reverse=True) if in_order else [d[1] for d in drawn]
    made: list[LedgerEntry] = []
    start = 0
    for (length, _, (outcome, reason), run_id, has_hole), minutes in zip(drawn, ages, strict=True):
        start += has_hole
        at = NOW - datetime.timedelta(minutes=minutes)
        count = length if outcome is Outcome.ARCHIVED else 0
        entry = absent(start, start + length, at, run_id, outcome=outcome, reason=reason, absent=count)
        last_ms = round(at.timestamp() * 1000) - 7 * minutes
        made.append(replace(entry, first_timestamp_ms=last_ms - 5, last_timestamp_ms=last_ms))
        start += length
    mock = MockCatalog()
    put_in_mock(mock, made)
    put_in_postgres(migrated_url, made)
    for catalog in (mock, postgres):
        before = catalog.coverage()
        catalog.tidy(ALERTS, NOW)
        assert catalog.coverage() == before
    assert mock.ledger() == postgres.ledger()
    assert [lags(e) for e in mock.ledger()] == [lags(e) for e in postgres.ledger()]
    since = NOW - datetime.timedelta(days=30)
    assert mock.ledger_days(since) == postgres.ledger_days(since)


def lags(entry: LedgerEntry) -> tuple[int | None, ...]:
    return entry.first_timestamp_ms, entry.last_timestamp_ms, entry.lag_ms


@given(
    st.lists(st.integers(0, 10 * 24 * 3_600), min_size=1, max_size=50),
    st.datetimes(
        datetime.datetime(2020, 1, 1), datetime.datetime(2040, 1, 1), timezones=st.just(datetime.UTC)
    ),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_periods_are_the_same_in_sql(migrated_url: str, seconds: list[int], now: datetime.datetime) -> None:
    moments = [now - datetime.timedelta(seconds=n) for n in seconds]
    with connect(migrated_url) as connection:
        ask = f"SELECT {PERIOD} FROM unnest(%(moments)s::timestamptz[]) AS created_at"
        found = connection.execute(ask.encode(), {"moments": moments, "now": now}).fetchall()
    assert [at for (at,) in found] == [period(at, now) for at in moments]


# Others at work, in Postgres


def test_who_commits_waits_for_nobody_who_is_at_work_on_older_rows(
    postgres: PostgresCatalog, database_url: str
) -> None:
    old = ago(postgres, hours=5)
    put_in_postgres(database_url, [absent(n, n + 1, old) for n in range(6)])
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM batches WHERE offsets @> 2::bigint FOR UPDATE")
        postgres.commit(full_batch(6, 8))
        assert spans(postgres) == [(0, 2), (2, 3), (3, 6), (6, 8)]
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE duplicates IN SHARE ROW EXCLUSIVE MODE")  # who takes messages away
        with connect(database_url) as connection:
            connection.execute("UPDATE batches SET created_at = created_at - interval '1 hour'")
        postgres.commit(full_batch(8, 9))
        assert len(spans(postgres)) == 5
    with connect(database_url) as connection:
        connection.execute("UPDATE batches SET created_at = %s WHERE lower(offsets) < 9", [old])
    postgres.commit(full_batch(9, 10))
    assert [(e.slice.start, e.slice.stop, e.archived) for e in postgres.ledger()] == [(0, 9, 3), (9, 10, 1)]


def test_the_coverage_of_many_topics_reads_the_ledger_once_and_sorts_none_of_it(
    postgres: PostgresCatalog, database_url: str
) -> None:
    """As of a year with a message a minute: some thirty rows a topic (unit/catalog/test_small_ledger.py)."""
    with connect(database_url) as connection:
        connection.execute(
            """
            INSERT INTO batches (topic, generation, partition, offsets, outcome, absent)
            SELECT 'topic ' || topic, 1, 0, int8range(part * 10, part * 10 + 10), 'archived', 10
            FROM generate_series(1, 300) AS topic, generate_series(0, 30) AS part
            """
        )
        connection.execute("ANALYZE batches")
        for topics in (None, [f"topic {n}" for n in range(1, 301)]):
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {COVERAGE}"
            ((((plan,),),),) = [connection.execute(explain.encode(), {"topics": topics}).fetchall()]
            nodes = list(every_node(plan["Plan"]))
            pages = connection.execute("SELECT pg_relation_size('batches') / 8192").fetchall()[0][0]
            assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] <= 2 * pages + 50
            assert [node for node in nodes if "Sort" in node["Node Type"]] == []
    assert postgres.coverage()[PartitionLog("topic 7", 1, 0)] == OffsetSet.between(0, 310)


def every_node(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in every_node(part))]
