"""Readers of archive-core find by text what we archive: by its own way of asking, on a real Postgres."""

from __future__ import annotations

import datetime
import json
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

import hop_archive
from hop_archive.archive import Archive
from hop_archive.catalog.postgres import row_jobs
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.catalog.records import Batch, CopyOf, Correction, Removal, Row, RowJob, TextEntry
from hop_archive.ingest.follow import catch_up
from hop_archive.model.message import Header
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.slices import Slice
from hop_archive.model.topics import TopicPolicy
from hop_archive.read.browse import OpenArchive
from hop_archive.store.mock import MockStore
from hop_archive.upkeep.remove.clean_tests import TEST_HEADER, clean_marked, clean_topics
from hop_archive.upkeep.remove.duplicates import deduplicate
from hop_archive.upkeep.remove.prune import Policy, prune
from hop_archive.upkeep.remove.suppress import suppress
from hop_archive.upkeep.text_index import backlog, index_text
from hop_archive_tests.contract.catalog_helpers import (
    InThread,
    adopted_row,
    await_condition,
    connect,
    full_batch,
    insert_as_archive_core,
    waiting_backends,
)
from hop_archive_tests.integration.archive_core_catalog import make_archive_core_catalog
from hop_archive_tests.removals import Backed, double
from hop_archive_tests.worlds import NOW_MS, exhausted

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

INDEX = RowJob.INDEX_TEXT
ALL = ("*",)

# As archive-core's search_message_text and count_text_search_results ask; the order and the restrictions are theirs.
JOINED = "FROM messages JOIN message_ts ON messages.uuid = message_ts.uuid"
FOUND = "message_ts.text_data @@ websearch_to_tsquery(%(words)s)"
SEARCH = f"SELECT messages.uuid {JOINED} WHERE {FOUND} AND {{}} ORDER BY messages.timestamp, messages.id LIMIT 1024"
COUNT = f"SELECT count(*) {JOINED} WHERE {FOUND} AND {{}}"


def searched(url: str, words: str, restriction: str = "public", **values: object) -> list[uuid.UUID]:
    """The messages that archive-core finds by these words."""
    with connect(url) as connection:
        given = {"words": words, **values}
        found = [own for (own,) in connection.execute(SEARCH.format(restriction).encode(), given)]
        (number,) = connection.execute(COUNT.format(restriction).encode(), given).fetchone() or (None,)
    assert number == len(found)
    return found


def hop_client(message_uuid: uuid.UUID, sender: str, format_name: str, *more: Header) -> tuple[Header, ...]:
    """Headers as hop-client makes them."""
    return (
        ("_id", message_uuid.bytes),
        ("_sender", sender.encode()),
        ("_format", format_name.encode()),
        *more,
    )


CIRCULAR, NOTICE, BLOB, LATER, OTHER = (uuid.UUID(int=n) for n in range(1, 6))


@pytest.fixture
def world(postgres: PostgresCatalog) -> Backed:
    """What hop-client published, archived."""
    world = Backed("segment", store=MockStore(deleting_allowed=True))
    world.backup = MockStore("backup", bucket="backup", deleting_allowed=True)
    world.catalog = postgres  # type: ignore[assignment] # a real one
    for topic in ("gcn.circulars", "lvk.alerts"):
        world.cluster.create_topic(topic)
    circular = {
        "header": {"title": "GCN CIRCULAR", "subject": "GRB 980329: afterglow"},
        "body": "We report radio emission.",
    }
    published: Sequence[tuple[str, bytes, tuple[Header, ...]]] = (
        ("gcn.circulars", json.dumps(circular).encode(), hop_client(CIRCULAR, "egorey-917a2d4c", "circular")),
        (
            "lvk.alerts",
            b"TITLE: GCN/LVC NOTICE\nTRIGGER: S190425z\n",
            hop_client(NOTICE, "gracedb", "gcntextnotice", (TEST_HEADER, b"true")),
        ),
        (
            "lvk.alerts",
            b"SIMPLE  =                    T" + bytes(3_000),
            hop_client(BLOB, "gracedb", "blob", ("title", b"bayestar sky map")),
        ),
        (
            "lvk.alerts",
            b'{"event": "S190425z", "far": 4.5e-13}',
            hop_client(LATER, "gracedb", "json", (TEST_HEADER, b"true")),
        ),
        ("gcn.circulars", b'{"note": "nothing of interest"}', hop_client(OTHER, "somebody", "json")),
    )
    for number, (topic, value, headers) in enumerate(published):
        world.cluster.append(topic, value, headers=headers, timestamp_ms=NOW_MS + number)
    exhausted(catch_up(world.archive()))
    return world


def index(archive: Archive, patterns: Sequence[str] = ALL, **options: object) -> int:
    progress = Progress()
    index_text(archive.catalog, archive.store, patterns, progress, **options)  # type: ignore[arg-type] # as given
    return progress.counts["indexed"]


def test_what_hop_client_published_is_found_by_uuid_time_topic_and_text(
    world: Backed, database_url: str
) -> None:
    assert searched(database_url, "afterglow") == []
    assert index(world.archive()) == 5
    # By UUID, by time and topic, as archive-core's fetch and get_message_records ask.
    with connect(database_url) as connection:
        (row,) = connection.execute("SELECT * FROM messages WHERE uuid = %s", [CIRCULAR]).fetchall()
        assert CIRCULAR in row
        paged = connection.execute(
            "SELECT uuid, media_type FROM messages WHERE public AND topic = 'lvk.alerts' AND timestamp >= %s AND timestamp < %s"
            " ORDER BY timestamp + 0, id",
            [NOW_MS + 1, NOW_MS + 3],
        ).fetchall()
    assert paged == [(NOTICE, "application/x.gcn.notice"), (BLOB, "image/fits")]
    assert searched(database_url, "afterglow") == [CIRCULAR]
    assert searched(database_url, "radio emission") == [CIRCULAR]
    assert searched(database_url, "egorey-917a2d4c") == [CIRCULAR]
    assert searched(database_url, '"sky map"') == [BLOB]
    assert searched(database_url, "S190425z") == [NOTICE, LATER]
    assert searched(database_url, "S190425z -notice") == [LATER]
    assert searched(database_url, "gracedb or somebody") == [NOTICE, BLOB, LATER, OTHER]
    within = "public AND messages.timestamp >= %(since)s AND messages.timestamp < %(until)s"
    assert searched(database_url, "gracedb", within, since=NOW_MS + 2, until=NOW_MS + 3) == [BLOB]
    of_topic = "(public AND topic = %(topic)s OR topic IN ('elsewhere', 'another'))"
    assert searched(database_url, "gracedb or somebody", of_topic, topic="gcn.circulars") == [OTHER]
    assert searched(database_url, "gracedb", "public AND NOT retracted") == [NOTICE, BLOB, LATER]
    with connect(database_url) as connection:
        full = connection.execute("SELECT uuid FROM message_ts WHERE NOT text_fully_indexed").fetchall()
    assert full == [(BLOB,)]


def test_a_condition_finds_by_words_from_python_as_docs_say(world: Backed) -> None:
    index(world.archive())
    text = (Path(hop_archive.__file__).parents[1] / "docs" / "python.md").read_text()
    (condition,) = re.findall(r'^words = "(.*)"$', text, re.MULTILINE)
    words = condition.replace('\\"gamma burst\\" -swift', '"sky map" -circular')
    assert words != condition
    archive = OpenArchive(world.catalog, world.store)
    assert [found.uuid for found in archive.messages("lvk.*", where=words)] == [BLOB]
    assert archive.count("gcn.*", where=words) == 0


def test_nothing_of_a_suppressed_message_is_found(world: Backed, database_url: str) -> None:
    index(world.archive())
    suppress(world.removing(), [NOTICE], "by order")
    assert searched(database_url, "S190425z") == [LATER]
    assert index(world.archive(), everything=True) == 0
    assert searched(database_url, "S190425z") == [LATER]


def take_away(world: Backed, way: str) -> None:
    """All that tells of S190425z, or its copies."""
    archive, removing, topic = world.archive(), world.removing(), "lvk.alerts"
    match way:
        case "prune":
            prune(removing, Policy((topic,), datetime.timedelta(days=1)), quiet_s=0)
        case "clean-tests":
            tests = TopicPolicy(test_topics=(topic,))
            clean_topics(replace(archive, topics=tests), removing, [topic])
        case "clean-tests by header":
            clean_marked(removing, Query(topics=(topic,)))
        case "suppress":
            suppress(removing, [NOTICE, LATER], "by order")
        case "retract":
            world.catalog.retract([NOTICE, LATER], retracted=True)
        case _:
            raise AssertionError(way)


@pytest.mark.parametrize("way", ["prune", "clean-tests", "clean-tests by header", "suppress", "retract"])
def test_what_is_taken_away_is_found_no_more_and_the_rest_is(
    world: Backed, database_url: str, way: str
) -> None:
    index(world.archive())
    assert searched(database_url, "S190425z", "public AND NOT retracted") == [NOTICE, LATER]
    take_away(world, way)
    assert searched(database_url, "S190425z", "public AND NOT retracted") == []
    assert searched(database_url, "afterglow", "public AND NOT retracted") == [CIRCULAR]
    assert index(world.archive(), everything=True) == 0
    with connect(database_url) as connection:
        orphans = "SELECT count(*) FROM message_ts WHERE uuid NOT IN (SELECT uuid FROM messages)"
        assert connection.execute(orphans.encode()).fetchone() == (0,)


def test_a_retraction_that_is_undone_lets_the_message_be_found_again(
    world: Backed, database_url: str
) -> None:
    index(world.archive())
    for retracted in (True, False):
        world.catalog.retract([NOTICE, LATER], retracted=retracted)
    assert searched(database_url, "S190425z", "public AND NOT retracted") == [NOTICE, LATER]


def test_a_copy_is_found_no_more_once_it_is_told_to_be_one(world: Backed, database_url: str) -> None:
    (row,) = (row for row in world.rows() if row.uuid == CIRCULAR)
    where = Slice(row.topic, 1, 1, 0, 1)
    world.catalog.commit(Batch(where, rows=[double(world, row, 0)]))
    assert index(world.archive()) == 6
    assert len(searched(database_url, "afterglow")) == 2
    deduplicate(world.removing())
    assert searched(database_url, "afterglow") == [CIRCULAR]


def test_what_archive_core_would_still_index_is_nothing_of_ours(world: Backed, database_url: str) -> None:
    # As its get_messages_not_text_indexed and get_messages_not_fully_text_indexed ask, page by page.
    order = "ORDER BY messages.timestamp, messages.id LIMIT 3"
    unindexed = (
        "SELECT messages.uuid FROM messages LEFT OUTER JOIN message_ts ON messages.uuid = message_ts.uuid"
        f" WHERE message_ts.uuid IS NULL {order}"
    )
    in_part = f"SELECT messages.uuid {JOINED} WHERE message_ts.text_fully_indexed = false {order}"
    with connect(database_url) as connection:
        assert len(connection.execute(unindexed.encode()).fetchall()) == 3
        index(world.archive())
        assert connection.execute(unindexed.encode()).fetchall() == []
        assert connection.execute(in_part.encode()).fetchall() == [(BLOB,)]


def test_what_is_found_is_paged_through_in_either_direction(world: Backed, database_url: str) -> None:
    """By the last row's time and number, as sqlakeyset does for archive-core."""
    index(world.archive())
    page = f"SELECT messages.uuid, messages.timestamp, messages.id {JOINED} WHERE {FOUND} AND public"
    directions = (
        ("> ", "messages.timestamp, messages.id"),
        ("< ", "messages.timestamp DESC, messages.id DESC"),
    )
    for sign, order in directions:
        found: list[uuid.UUID] = []
        last = ""
        values: dict[str, object] = {"words": "gracedb or somebody"}
        with connect(database_url) as connection:
            while rows := connection.execute(
                f"{page} {last} ORDER BY {order} LIMIT 3".encode(), values
            ).fetchall():
                found += [row[0] for row in rows]
                values |= {"time": rows[-1][1], "id": rows[-1][2]}
                last = f"AND (messages.timestamp, messages.id) {sign} (%(time)s, %(id)s)"
        assert found == ([NOTICE, BLOB, LATER, OTHER] if sign == "> " else [OTHER, LATER, BLOB, NOTICE])


@pytest.fixture(params=["messages", "message_ts", "suppressions"])
def refused_at_the_end(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    """No transaction that takes away of this table, or adds to the last one, can be committed."""
    table, deed = request.param, "INSERT" if request.param == "suppressions" else "DELETE"
    with connect(database_url) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $do$ BEGIN RAISE 'refused'; END $do$"
        )
        connection.execute(
            f"CREATE CONSTRAINT TRIGGER refuse AFTER {deed} ON {table}"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()".encode()
        )
    yield table
    with connect(database_url) as connection:
        connection.execute("DROP FUNCTION refuse CASCADE")


def test_a_text_goes_in_the_transaction_of_its_message_or_of_the_suppression(
    postgres: PostgresCatalog, database_url: str, refused_at_the_end: str
) -> None:
    batch = full_batch(0, 2)
    postgres.commit(batch)
    postgres.add_texts(entries(batch.rows))
    first, second = batch.rows
    removal = Removal("some command", "a reason")
    ways: dict[str, Callable[[], object]] = {
        "remove": lambda: postgres.remove([batch.slice], "pruned", removal),
        "remove_messages": lambda: postgres.remove_messages([first.uuid], "skipped", removal),
        "move_to_duplicates": lambda: postgres.move_to_duplicates(
            [CopyOf(second.uuid, first.uuid, "same")], removal
        ),
        "suppress": lambda: postgres.suppress({first.uuid: first.topic}, "by order"),
    }
    tables = {"messages": [*ways][:3], "message_ts": [*ways], "suppressions": ["suppress"]}
    for way in tables[refused_at_the_end]:
        with pytest.raises(psycopg.errors.RaiseException, match="refused"):
            ways[way]()
        assert [*postgres.rows(first.topic)] == [first, second], way
        assert len(searched(database_url, "words")) == 2, way
        assert not postgres.suppressed([first.uuid]), way


def test_an_adopted_text_index_stays_and_is_completed(empty_database_url: str) -> None:
    make_archive_core_catalog(empty_database_url)
    with connect(empty_database_url) as connection:  # its own updates may leave a message twice
        connection.execute("INSERT INTO message_ts SELECT * FROM message_ts LIMIT 1")
        before = connection.execute("SELECT * FROM message_ts ORDER BY uuid").fetchall()
    migrate(empty_database_url)
    catalog = PostgresCatalog("test-db", empty_database_url)
    topics = catalog.topics()
    last = catalog.begin_row_job(INDEX).last
    rows, reached = catalog.rows_for(INDEX, topics, 0, last, 1_000)
    assert (len(rows), reached) == (80, last), "the circulars are indexed"
    assert catalog.add_texts([TextEntry(row.uuid, f"found {row.topic}", True) for row in rows]) == 80
    with connect(empty_database_url) as connection:
        kept = connection.execute(
            "SELECT message_ts.* FROM message_ts JOIN messages USING (uuid) WHERE topic = 'gcn.circulars' ORDER BY uuid"
        ).fetchall()
    assert kept == before
    assert len(searched(empty_database_url, "lvk.alerts", "true")) == 40
    catalog.close()


# Others at the same time


@pytest.fixture
def other(database_url: str) -> Iterator[psycopg.Connection]:
    """A session of somebody else, with a transaction of its own."""
    with psycopg.connect(database_url) as connection:
        yield connection


def entries(rows: Sequence[Row]) -> list[TextEntry]:
    return [TextEntry(row.uuid, "words", True) for row in rows]


def insert(connection: psycopg.Connection, row: Row) -> None:
    connection.execute(
        "INSERT INTO messages (topic, timestamp, uuid, size, key, bucket, crc32, is_client_uuid, public, direct_upload,"
        " message_crc32) VALUES (%s, %s, %s, 1, 'k', 'b', 1, false, true, false, 1)",
        [row.topic, row.timestamp_ms, row.uuid],
    )


@pytest.mark.parametrize("began_first", ["the one that is late", "the one that is first"])
def test_a_row_that_comes_later_under_a_smaller_number_is_not_passed_over(
    postgres: PostgresCatalog, other: psycopg.Connection, database_url: str, began_first: str
) -> None:
    late, first = adopted_row("late"), adopted_row("first")
    with psycopg.connect(database_url) as quick:
        if began_first == "the one that is first":
            quick.execute("SELECT pg_current_xact_id()")
        insert(other, late)
        insert(quick, first)
    topics = ["late", "first"]
    for _ in range(3):  # run after run
        span = postgres.begin_row_job(INDEX)
        assert span.done_to == span.settled_to == 0 < span.last
        rows, reached = postgres.rows_for(INDEX, topics, 0, span.last, 100)
        postgres.add_texts(entries(rows))
        postgres.note_row_job(INDEX, min(reached, span.settled_to))
    other.commit()
    span = postgres.begin_row_job(INDEX)
    assert (span.done_to, span.settled_to) == (0, span.last)
    rows, _ = postgres.rows_for(INDEX, topics, span.done_to, span.last, 100)
    assert [row.uuid for row in rows] == [late.uuid]


def test_a_catalog_out_of_a_dump_whose_transactions_are_counted_anew_goes_on(
    postgres: PostgresCatalog, database_url: str
) -> None:
    postgres.commit(full_batch(0, 5))
    span = postgres.begin_row_job(INDEX)
    with connect(database_url) as connection:
        connection.execute("UPDATE row_progress SET next_to = 3, next_xid = '9000000000000'::xid8")
    assert postgres.begin_row_job(INDEX).settled_to == span.last


def test_who_suppresses_while_another_indexes_is_waited_for_or_finds_the_text(
    make_postgres: Callable[..., PostgresCatalog], database_url: str, other: psycopg.Connection
) -> None:
    indexer, remover = make_postgres(), make_postgres()
    batch = full_batch(0, 2)
    indexer.commit(batch)
    first, second = batch.rows
    # The indexer is first: whoever suppresses waits, and finds what it wrote.
    other.execute(row_jobs.INDEXING.encode())
    other.execute(row_jobs.ADD_TEXTS.encode(), [[first.uuid], ["secret"], [True]])
    removing = InThread(lambda: remover.suppress({first.uuid: first.topic}, "by order"))
    await_condition("the suppression waits", lambda: waiting_backends(database_url))
    other.commit()
    assert removing.outcome() is None
    # Whoever suppresses is first: the indexer waits, and sees it.
    other.execute(row_jobs.FORGETTING.encode())
    other.execute(
        "INSERT INTO suppressions (uuid, topic, reason) VALUES (%s, %s, 'x')", [second.uuid, second.topic]
    )
    indexing = InThread(lambda: indexer.add_texts(entries([second])))
    await_condition("the indexer waits", lambda: waiting_backends(database_url))
    other.commit()
    assert indexing.outcome() == 0
    with connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM message_ts").fetchone() == (0,)


def test_a_message_that_is_deleted_at_the_very_moment_is_left_out(
    make_postgres: Callable[..., PostgresCatalog], database_url: str, other: psycopg.Connection
) -> None:
    indexer = make_postgres()
    batch = full_batch(0, 3)
    indexer.commit(batch)
    other.execute("DELETE FROM messages WHERE uuid = %s", [batch.rows[0].uuid])
    indexing = InThread(lambda: indexer.add_texts(entries(batch.rows)))
    await_condition("the indexer waits", lambda: waiting_backends(database_url))
    other.commit()
    assert indexing.outcome() == 2


def test_a_row_that_is_corrected_while_another_indexes_it_under_the_wrong_uuid_loses_that_text(
    make_postgres: Callable[..., PostgresCatalog], database_url: str, other: psycopg.Connection
) -> None:
    repairer = make_postgres()
    batch = full_batch(0, 1)
    repairer.commit(batch)
    (wrong,) = batch.rows
    right = wrong._replace(uuid=uuid.uuid4())
    other.execute(row_jobs.INDEXING.encode())
    other.execute(row_jobs.ADD_TEXTS.encode(), [[wrong.uuid], ["words"], [True]])
    correcting = InThread(lambda: repairer.correct_rows([Correction(wrong, right)]))
    await_condition("the repairer waits", lambda: waiting_backends(database_url))
    other.commit()
    assert correcting.outcome() is None
    assert searched(database_url, "words") == []
    assert repairer.add_texts(entries([right])) == 1
    assert searched(database_url, "words") == [right.uuid]


def test_rows_are_looked_through_some_at_a_time(
    postgres: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_jobs, "_MOST_IDS", 3)
    postgres.commit(full_batch(0, 10, topic="others"))
    postgres.commit(full_batch(0, 2))
    span = postgres.begin_row_job(INDEX)
    first = postgres.rows_for(INDEX, ["alerts"], span.last - 12, span.last, 100)
    assert (list(first.rows), first.reached) == ([], span.last - 9)
    progress = Progress()
    index_text(postgres, MockStore(), ("alerts",), progress)
    assert progress.counts["unreadable"] == 2
    assert backlog(postgres, ("alerts",)).messages == 0, "what cannot be read is told, and not waited for"


def test_the_statements_look_rows_up_by_their_indexes(postgres: PostgresCatalog, database_url: str) -> None:
    for number in range(4):
        postgres.commit(full_batch(number * 1_000, (number + 1) * 1_000))
    insert_as_archive_core(database_url, [adopted_row("alerts")])
    last = postgres.begin_row_job(INDEX).last
    rows, _ = postgres.rows_for(INDEX, ["alerts"], 0, last, 2_000)
    postgres.add_texts(entries(rows))
    values = {"after": last - 500, "last": last, "topics": ["alerts"], "most": 100, "refined": ["text/plain"]}
    with connect(database_url) as connection:
        connection.execute("ANALYZE")
        for statement in row_jobs.WANTED.values():
            plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {statement}".encode(), values))
            assert "messages_pkey" in plan
            assert "Seq Scan on message_ts" not in plan


def test_texts_of_any_characters_are_taken(postgres: PostgresCatalog, database_url: str) -> None:
    batch = full_batch(0, 4)
    postgres.commit(batch)
    odd = ["\ufffe\U0010ffff \u202e", "w" * 16_384, "' \\ & | ! ( ) : * <-> %s %(x)s", "größe \U0001f52d"]
    assert (
        postgres.add_texts(
            [TextEntry(row.uuid, text, True) for row, text in zip(batch.rows, odd, strict=True)]
        )
        == 4
    )
    assert searched(database_url, "größe") == [batch.rows[3].uuid]
