"""How the catalog's statements are carried out in a large catalog: what a scheduled job asks reads what it is about, and no more.

Each test lets the catalog do something, takes down the statements that it sends, and has Postgres explain each of them, with
what was read. Nothing is timed.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pytest

from hop_archive.catalog.checked import CheckedRange, CheckedScope, Look, Section
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.postgres.pool import BEGIN
from hop_archive.catalog.postgres.select import SELECT_SETTINGS
from hop_archive.catalog.postgres.sql import ROW_IN_LOG, TOPICS
from hop_archive.catalog.records import Correction, PendingDelete, Recorded, Removal, RowJob
from hop_archive.errors import ConflictError
from hop_archive.model.findings import Kind
from hop_archive.model.identity import Identity
from hop_archive.model.query import Order, Query
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive.model.topics import TopicPolicy
from hop_archive.read.catalog_snapshot import CatalogSnapshot, snapshot
from hop_archive.read.snapshot_locations import FolderLocation
from hop_archive.recover.restore.plan import plan as plan_restore
from hop_archive.recover.restore.request import Request
from hop_archive_tests.contract.catalog_helpers import connect

pytestmark = [pytest.mark.slow]
pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

MESSAGES = 300_000
TOPIC = "topic.20"
LOG = PartitionLog(TOPIC, 1, 0)
BUSY = "topic.0"
"""Every third message is of this one."""
ALONE = "topic.alone"
"""A sixth more, each in an object of its own."""
EPOCH_MS = 1_700_000_000_000
MINUTE_MS = 60_000

FILL = (
    # As messages arrive: those of many topics between one another. The busiest topic has a third of them, the others some
    # thousand; of each topic, generation and partition tell a lot of one another.
    f"""
    CREATE TEMPORARY TABLE arrived AS
    SELECT n, 'topic.' || t AS topic, 1 + (t % 3 = 1 AND n > {MESSAGES // 2})::int AS generation,
           CASE WHEN t = 0 THEN n / 3 % 8 ELSE 0 END AS partition
    FROM (SELECT n, CASE WHEN n % 3 = 0 THEN 0 ELSE 1 + n * 7919::bigint / 11 % 60 END AS t FROM generate_series(1, {MESSAGES}) AS n) AS one
    """,
    f"""
    INSERT INTO messages (topic, timestamp, uuid, size, key, bucket, crc32, is_client_uuid, public, direct_upload,
                          message_crc32, title, sender, media_type, generation, partition, "offset", timestamp_type,
                          digest, position, batch)
    SELECT topic, {EPOCH_MS} + n * 1000, md5(n::text)::uuid, 1500,
           'segments/' || topic || '/' || generation || '/' || partition || '/' || lpad((place / 100 * 100)::text, 20, '0') || '-'
           || lpad((place / 100 * 100 + 100)::text, 20, '0') || '.bson',
           'archive', n, true, true, false, n, 'GRB ' || n, 'somebody', 'application/json', generation, partition, place, 0,
           decode(md5(n::text), 'hex'), place % 100 * 1500, 1
    FROM (SELECT *, row_number() OVER (PARTITION BY topic, generation, partition ORDER BY n) - 1 AS place FROM arrived) AS placed
    ORDER BY n
    """,
    f"""
    INSERT INTO messages (topic, timestamp, uuid, size, key, bucket, crc32, is_client_uuid, public, direct_upload,
                          message_crc32, generation, partition, "offset", timestamp_type, digest, batch)
    SELECT '{ALONE}', {EPOCH_MS} + n * 1000, md5('alone' || n)::uuid, 1500, '{ALONE}/' || md5(n::text) || '.bson', 'archive',
           n, true, true, false, n, 1, 0, n, 0, decode(md5(n::text), 'hex'), 1
    FROM generate_series(1, {MESSAGES // 6}) AS n
    """,
    """
    INSERT INTO batches (topic, generation, partition, offsets, outcome, archived, bytes, first_timestamp, last_timestamp, created_at)
    SELECT topic, generation, partition, int8range(min("offset"), max("offset") + 1), 'archived', count(*), sum(size),
           min(timestamp), max(timestamp), to_timestamp(max(timestamp) / 1000)
    FROM messages GROUP BY topic, generation, partition, "offset" / 100
    """,
    # Whoever drops a database does not get past a worker that vacuums in it.
    "ALTER TABLE messages SET (autovacuum_enabled = false)",
    "ALTER TABLE batches SET (autovacuum_enabled = false)",
    "ALTER TABLE duplicates SET (autovacuum_enabled = false)",
    "INSERT INTO logs SELECT DISTINCT topic, generation, partition FROM messages",
    "INSERT INTO generations SELECT DISTINCT topic, generation, 'cluster', 'id', now(), '' FROM logs",
    """
    INSERT INTO observed (topic, generation, partition, low, stable, high)
    SELECT topic, generation, partition, 0, max("offset") + 1, max("offset") + 1 FROM messages GROUP BY 1, 2, 3
    """,
    """
    INSERT INTO topics (topic, e_timestamp, l_timestamp, n_messages, n_bytes)
    SELECT topic, min(timestamp), max(timestamp), count(*), sum(size) FROM messages GROUP BY topic
    """,
    """
    INSERT INTO verified SELECT topic, generation, partition, lower(offsets), upper(offsets), created_at FROM batches
    """,
    """
    INSERT INTO duplicates
    SELECT 'topic.' || n % 60, 1, 0, 1000000 + n, 1700000000000 + n * 1000, md5(n::text)::uuid, 'a copy', 1
    FROM generate_series(1, 12000) AS n
    """,
    """
    INSERT INTO batches (topic, generation, partition, offsets, outcome, duplicates)
    SELECT topic, 1, 0, int8range("offset", "offset" + 1), 'archived', 1 FROM duplicates WHERE "offset" % 60 = 20
    """,
    # What a night of compaction left, which waits for a day; a few are due.
    """
    INSERT INTO condemned (bucket, key, recorded_bucket, topic, command, reason, due)
    SELECT 'archive', md5(n::text), 'archive', 'topic.1', 'compact', '', now() + CASE WHEN n % 2000 = 0 THEN -1 ELSE 1 END * interval '1 day'
    FROM generate_series(1, 60000) AS n
    """,
    "VACUUM (ANALYZE) condemned, messages, batches, duplicates, verified, observed, generations, logs, topics",
)


@pytest.fixture(scope="module")
def large_url(migrated_url: str) -> str:
    """The URL of a catalog of many messages."""
    with connect(migrated_url) as connection:
        for statement in FILL:
            connection.execute(statement.encode())
    return migrated_url


@pytest.fixture
def large(large_url: str) -> Iterator[PostgresCatalog]:
    catalog = PostgresCatalog("test-db", large_url)
    catalog.check()  # what each catalog asks first is not of these tests
    yield catalog
    catalog.close()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a statement was carried out.

    Attributes:
        nodes: Kind of each node, and the table and the index that it reads; '' without one.
        pages: Pages that were read or found in memory.
        text: All of it, for people.
    """

    nodes: Sequence[tuple[str, str, str]]
    pages: int
    text: str

    @property
    def scanned(self) -> set[str]:
        """The tables that are read from end to end."""
        return {table for kind, table, _ in self.nodes if kind in ("Seq Scan", "Sample Scan")}


Sent = tuple[bytes | str, Any, bool]


@contextmanager
def taken_down(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sent]]:
    """The statements that psycopg sends meanwhile, with their values, and whether by a cursor of the server's."""
    sent: list[Sent] = []

    def noting(kind: type[Any], *, by_cursor: bool) -> Callable[..., Any]:
        execute = kind.execute

        def noted(self: Any, query: Any, params: Any = None, **options: Any) -> Any:
            sent.append((query, params, by_cursor))
            return execute(self, query, params, **options)

        return noted

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", noting(psycopg.Cursor, by_cursor=False))
        patch.setattr(psycopg.ServerCursor, "execute", noting(psycopg.ServerCursor, by_cursor=True))
        yield sent


def explained(url: str, sent: Sequence[Sent]) -> list[Plan]:
    """How the server carries these out, as their transactions are set; what they change is rolled back."""
    plans = []
    settings: list[tuple[str, Any]] = []
    for query, params, by_cursor in sent:
        text = query if isinstance(query, str) else query.decode()
        if text == BEGIN:
            settings = []
            continue
        if "set_config" in text:
            settings.append((text, params))
            continue
        if not text.strip().upper().startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE", "(")):
            continue
        declare = "DECLARE explained CURSOR FOR" if by_cursor else ""
        with psycopg.connect(url) as connection:
            for setting, bound in settings:
                connection.execute(setting.encode(), bound)
            asked = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {declare} {text}"
            ((found,),) = connection.execute(asked.encode(), params).fetchall()
            connection.rollback()
        plans.append(plan_of(found, text))
    return plans


def plan_of(found: Any, statement: str) -> Plan:
    (whole,) = found if isinstance(found, list) else json.loads(found)
    top = whole["Plan"]
    nodes: list[tuple[str, str, str]] = []

    def walk(node: Mapping[str, Any]) -> None:
        nodes.append((node["Node Type"], node.get("Relation Name", ""), node.get("Index Name", "")))
        for part in node.get("Plans", ()):
            walk(part)

    walk(top)
    pages = top["Shared Hit Blocks"] + top["Shared Read Blocks"]
    return Plan(nodes, pages, f"{statement}\n{json.dumps(whole, indent=1)}")


NOW = datetime.datetime.fromtimestamp((EPOCH_MS + MESSAGES * 1000) / 1000, datetime.UTC)
A_DAY = datetime.timedelta(hours=1)
PLACE = Slice(*LOG, 100, 300)
IDENTITIES = [Identity(uuid.UUID(int=n), False, TOPIC, EPOCH_MS, bytes(16), n) for n in range(1_000)]
SMALL = {
    "observed",
    "generations",
    "topics",
    "checked",
    "logs",
    "findings",
    "suppressions",
    "snapshots",
    "row_progress",
    "compacted",
    "pg_class",
}
"""Tables of a row a topic or so, which may be read whole."""

CHECKED = Section("archive", TOPIC, Look.SEGMENTS)

Act = Callable[[PostgresCatalog], object]


def move_some(catalog: PostgresCatalog) -> None:
    """Ask for some documents to be moved to an object that nobody noted: asked in full, and refused."""
    rows = list(catalog.select(Query((BUSY,), places=(Slice(BUSY, 1, 3, 500, 600),))))
    moves = [Correction(row, row._replace(object_key="elsewhere")) for row in rows]
    with pytest.raises(ConflictError, match="about to be deleted"):
        catalog.move_documents(moves, Removal("compact", "moved"))


def first(recorded: Iterator[Recorded]) -> list[Recorded]:
    """The first ten of them; the rest is not asked for."""
    return list(islice(recorded, 10))


OF_ONE_TOPIC: dict[str, Act] = {
    "restore: a topic's totals, and some ledger rows": lambda c: c.miscounts(TOPIC, every=20, turn=3),
    "verify: a topic's summary": lambda c: c.summary_miscounts(TOPIC),
    "verify: a log's ledger rows": lambda c: c.miscounts_in(Slice(*LOG, 0, 1_000_000)),
    "verify: rows beyond the ledger": lambda c: c.unledgered(TOPIC),
    "verify: objects in segments": lambda c: list(c.recorded(TOPIC, segments=True)),
    "verify: objects of their own": lambda c: list(c.recorded(TOPIC, segments=False)),
    "verify: the ledger": lambda c: c.ledger([TOPIC]),
    "verify: the coverage": lambda c: c.coverage([TOPIC]),
    "scrub: what was verified": lambda c: c.verified([TOPIC]),
    "scrub: another archiver's rows": lambda c: (c.adopted_span(TOPIC), list(c.adopted_rows(TOPIC, 0))),
    "scrub: its totals": lambda c: c.summaries([TOPIC]),
    "scrub: a portion": lambda c: list(c.select(Query((TOPIC,), places=(PLACE,)))),
    "snapshot: what was taken back": lambda c: list(c.select(Query((TOPIC,), retracted=True))),
    "snapshot: what came since": lambda c: list(c.select(Query((TOPIC,), places=(PLACE,)))),
    "snapshot: a topic": lambda c: list(c.select(Query((TOPIC,)))),
    "snapshot: what is known of a topic": lambda c: (
        c.generations([TOPIC]),
        c.observed([TOPIC]),
        c.collisions(TOPIC),
        c.has_adopted(TOPIC),
    ),
    "snapshot: duplicates": lambda c: list(c.duplicates(TOPIC)),
    "deduplicate: likely copies": lambda c: list(c.likely_copies(TOPIC)),
    "deduplicate: what archiving may leave twice": lambda c: list(c.likely_copies(TOPIC, by_digest=False)),
    "prune: what is old": lambda c: c.keepers(c.spans(TOPIC), EPOCH_MS + 100 * MINUTE_MS),
    "prune: what duplicates that stay refer to": lambda c: c.referred_to(TOPIC, {LOG: 10_000}),
    "prune: how much": lambda c: c.extent([PLACE]),
    "restore: a topic's lanes": lambda c: (c.partition_logs(TOPIC), c.spans(TOPIC)),
    "restore: how much a log is": lambda c: c.measure(Query(places=(Slice(*LOG, 0, 10_000),)), timeout_s=60),
    "restore: where a page is stored": lambda c: c.stored(Query(places=(Slice(*LOG, 0, 10_000),), limit=100)),
    "restore: one page": lambda c: list(c.select(Query(places=(Slice(*LOG, 0, 10_000),), limit=100))),
    "compact: how far logs are": lambda c: c.compacted([TOPIC]),
    "survey: tails": lambda c: c.tails([LOG], 5),
}
"""What is about one topic of sixty, which has a ninetieth of all messages."""

OF_SOME_ROWS: dict[str, Act] = {
    "commit: which are known": lambda c: c.known(IDENTITIES),
    "one message": lambda c: c.find(IDENTITIES[0].uuid),
    "restore: a message's topic": lambda c: list(c.select(Query(uuids=(IDENTITIES[0].uuid,)))),
    "restore: some minutes of a busy log": lambda c: c.measure(
        Query(places=(Slice(BUSY, 1, 3, 0, 100_000),), since_ms=EPOCH_MS, until_ms=EPOCH_MS + 5 * MINUTE_MS),
        timeout_s=60,
    ),
    "verify: a portion of a busy log": lambda c: list(
        c.select(Query((BUSY,), places=(Slice(BUSY, 1, 3, 500, 700),)))
    ),
    "compact: objects of a portion of a busy log": lambda c: c.objects_in(
        Slice(BUSY, 1, 3, 500, 10_000), 500
    ),
    "compact: documents that move": lambda c: move_some(c),
    "verify: some ledger rows of a busy log": lambda c: c.miscounts_in(Slice(BUSY, 1, 3, 500, 900)),
    "verify: a portion of what is new": lambda c: c.rows_for(
        RowJob.CHECK_OBJECTS, [TOPIC], 1_000, 2_000, 500
    ),
    "verify: what was looked at": lambda c: c.checked(),
    "verify: to remember it": lambda c: c.note_checked([CheckedRange(CHECKED, "a", "b", NOW)]),
    "verify: to close what is not there any more": lambda c: c.close_unseen(
        CheckedScope([Kind.MISSING_OBJECT], NOW, [TOPIC], keys=("a", "b")), "gone", NOW
    ),
    "verify: logs that nobody noted": lambda c: c.note_logs(),
    "which topics there are": lambda c: (c.topics(), c.known_topics()),
    "report: messages by day": lambda c: c.message_days(NOW - A_DAY, NOW),
    "report: the ledger by day": lambda c: c.ledger_days(NOW - A_DAY),
    "index-text: a portion": lambda c: c.rows_for(RowJob.INDEX_TEXT, [TOPIC], 1_000, 2_000, 500),
    "index-text: how far it is behind": lambda c: c.text_backlog([TOPIC], 500),
    "media types: a portion": lambda c: c.rows_for(RowJob.MEDIA_TYPES, [TOPIC], 1_000, 2_000, 500),
    "the newest messages": lambda c: list(c.select(Query(limit=20), Order.NEWEST)),
    "the newest messages of a topic": lambda c: list(c.select(Query((TOPIC,), limit=20), Order.NEWEST)),
}
"""What is about some thousand rows at most, wherever they are."""


@pytest.fixture(scope="module")
def pages(large_url: str) -> int:
    """Pages of the table of messages."""
    with connect(large_url) as connection:
        ((found,),) = connection.execute(
            "SELECT pg_relation_size('messages') / current_setting('block_size')::int"
        ).fetchall()
    assert found > 10_000
    return int(found)


def plans_of(act: Act, catalog: PostgresCatalog, url: str, monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    with taken_down(monkeypatch) as sent:
        act(catalog)
    plans = explained(url, sent)
    assert plans, "nothing was asked"
    return plans


@pytest.mark.parametrize("name", OF_ONE_TOPIC)
def test_what_is_about_one_topic_reads_that_topic(
    large: PostgresCatalog, large_url: str, pages: int, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for plan in plans_of(OF_ONE_TOPIC[name], large, large_url, monkeypatch):
        assert plan.scanned <= SMALL, plan.text
        # Each of its messages may stand in a page of its own, and is found by an index.
        assert plan.pages < pages * 0.4, plan.text


@pytest.mark.parametrize("name", OF_SOME_ROWS)
def test_what_is_about_some_rows_reads_some_pages(
    large: PostgresCatalog, large_url: str, pages: int, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for plan in plans_of(OF_SOME_ROWS[name], large, large_url, monkeypatch):
        assert plan.scanned <= SMALL, plan.text
        assert plan.pages < pages * 0.4, plan.text


def test_the_totals_of_a_busy_topic_are_counted_in_indexes_alone(
    large: PostgresCatalog, large_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (totals, *_) = plans_of(lambda c: c.miscounts(BUSY, every=1_000, turn=7), large, large_url, monkeypatch)
    read = [node for node in totals.nodes if node[1] == "messages"]
    assert {kind for kind, _, index in read if index != "messages_adopted_idx"} <= {"Index Only Scan"}, (
        totals.text
    )
    assert totals.scanned <= SMALL, totals.text


@pytest.mark.parametrize(
    "act",
    [
        lambda c: c.measure(Query(places=(Slice(BUSY, 1, 3, 0, 100_000),)), timeout_s=60),
        lambda c: list(c.recorded(BUSY, segments=True)),
    ],
    ids=["measured", "recorded"],
)
def test_a_busy_log_is_read_by_its_index(
    large: PostgresCatalog, large_url: str, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    for plan in plans_of(act, large, large_url, monkeypatch):
        assert plan.scanned <= SMALL, plan.text


def test_objects_from_a_key_on_are_read_in_the_order_of_their_index(
    large: PostgresCatalog, large_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that who reads some thousand of them need not wait until all are sorted."""
    (plan,) = plans_of(
        lambda c: first(c.recorded(ALONE, segments=False, after=f"{ALONE}/5")), large, large_url, monkeypatch
    )
    assert plan.nodes == [("Index Scan", "messages", "messages_object_idx")], plan.text


def test_segments_from_a_key_on_are_read_some_thousand_rows_at_a_time(
    large: PostgresCatalog, large_url: str, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hop_archive.catalog.postgres.rows._PAGE_OFFSETS", 1_000)
    after = f"segments/{BUSY}/1/3/00000000000000005000-"
    plans = plans_of(
        lambda c: first(c.recorded(BUSY, segments=True, after=after)), large, large_url, monkeypatch
    )
    assert len(plans) < 10
    for plan in plans:
        assert plan.scanned <= SMALL, plan.text
        assert plan.pages < 1_500, plan.text


def test_of_objects_that_wait_to_be_deleted_those_that_are_due_are_read(
    large: PostgresCatalog, large_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[PendingDelete] = []

    def look(catalog: PostgresCatalog) -> None:
        found.extend(catalog.pending_deletes("compact", "archive"))

    for plan in plans_of(look, large, large_url, monkeypatch):
        assert plan.pages < 400, plan.text  # of some 1,300
    assert len(found) == 30


def test_the_planner_knows_how_many_rows_a_log_has(large_url: str) -> None:
    """Topic, generation and partition tell of one another: taken for independent, a log would seem a fraction of what it is."""
    with connect(large_url) as connection:
        for topic, generation, partition in ((TOPIC, 1, 0), (BUSY, 1, 5), ("topic.22", 2, 0)):
            values = {"topic": topic, "generation": generation, "partition": partition}
            ((rows,),) = connection.execute(
                f"SELECT count(*) FROM messages WHERE {ROW_IN_LOG}".encode(), values
            ).fetchall()
            asked = f"EXPLAIN (FORMAT JSON) SELECT * FROM messages WHERE {ROW_IN_LOG}".encode()
            ((plan,),) = connection.execute(asked, values).fetchall()
            estimate = plan[0]["Plan"]["Plan Rows"]
            assert rows / 3 < estimate < rows * 3, (topic, rows, plan)


def test_a_restore_of_one_message_looks_into_its_topic_only(
    large: PostgresCatalog, large_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(query=Query(uuids=(uuid.UUID("c4ca4238-a0b9-2382-0dcc-509a6f75849b"),)))  # md5('1')
    with taken_down(monkeypatch) as sent:
        planned = plan_restore(large, request, TopicPolicy())
    assert planned.messages == 1
    plans = explained(large_url, sent)
    assert len(plans) < 40, "asked topic by topic"
    for explanation in plans:
        assert explanation.scanned <= SMALL, explanation.text


def test_a_snapshot_looks_for_the_topics_once_however_many_it_writes(
    large: PostgresCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with taken_down(monkeypatch) as sent:
        snapshot(CatalogSnapshot(large, FolderLocation(tmp_path), topics=("topic.5?",)))
    asked = [query if isinstance(query, str) else query.decode() for query, _, _ in sent]
    assert len([query for query in asked if query == SELECT_SETTINGS]) > 10
    assert (
        len([query for query in asked if TOPICS.strip() in query]) == 2
    )  # of rows, and of all that is known
