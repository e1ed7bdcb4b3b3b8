"""Jobs that go over all rows once, and the text index, over every catalog."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import (
    Batch,
    CopyOf,
    Correction,
    Removal,
    Row,
    RowJob,
    TextBacklog,
    TextEntry,
)
from hop_archive.model.annotations import REFINED, Annotations
from hop_archive_tests.contract.catalog_helpers import (
    Adopt,
    adopted_row,
    connect,
    full_batch,
    row_at,
    slice_of,
)

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

INDEX, MEDIA = RowJob.INDEX_TEXT, RowJob.MEDIA_TYPES
TOPICS = ["alerts", "others"]
Texts = Callable[[], list[uuid.UUID]]


@pytest.fixture
def texts(request: pytest.FixtureRequest, catalog: Catalog) -> Texts:
    """Whose texts there are, one entry each."""
    if isinstance(catalog, MockCatalog):

        def of_mock() -> list[uuid.UUID]:
            with catalog._state.read() as tables:
                return list(tables.texts)

        return of_mock
    url = request.getfixturevalue("database_url")

    def of_postgres() -> list[uuid.UUID]:
        with connect(url) as connection:
            return [own for (own,) in connection.execute("SELECT uuid FROM message_ts")]

    return of_postgres


def committed(catalog: Catalog, start: int = 0, stop: int = 5, topic: str = "alerts") -> list[Row]:
    batch = full_batch(start, stop, topic)
    catalog.commit(batch)
    return [*batch.rows]


def found(catalog: Catalog, job: RowJob = INDEX, *, most: int = 3, after: int = 0) -> list[Row]:
    """All rows that a job has to deal with, portion by portion."""
    last = catalog.begin_row_job(job).last
    rows: list[Row] = []
    while after < last:
        portion = catalog.rows_for(job, TOPICS, after, last, most)
        assert len(portion.rows) <= most
        assert portion.reached > after
        rows += portion.rows
        after = portion.reached
    return rows


def entry(row: Row, text: str = "some words") -> TextEntry:
    return TextEntry(row.uuid, text, True)


def test_an_empty_catalog_has_nothing_to_do(catalog: Catalog) -> None:
    assert catalog.begin_row_job(INDEX) == (0, 0, 0)
    assert catalog.text_backlog(TOPICS, 10) == TextBacklog(0, False, None)


def test_rows_come_in_the_order_in_which_they_were_added_whatever_their_place(
    catalog: Catalog, adopt: Adopt
) -> None:
    rows = [*committed(catalog, 5, 9, "others"), *committed(catalog, 0, 3)]
    adopted = adopted_row("alerts")
    adopt([adopted])
    committed(catalog, 0, 2, "not asked for")
    for most in (1, 3, 100):
        assert found(catalog, most=most) == [*rows, adopted]


def test_what_has_a_text_comes_no_more_and_gets_no_other(catalog: Catalog, texts: Texts) -> None:
    rows = committed(catalog)
    assert catalog.add_texts(list(map(entry, rows[1:3]))) == 2
    assert found(catalog) == [rows[0], *rows[3:]]
    assert catalog.add_texts(list(map(entry, rows))) == 3
    assert found(catalog) == []
    assert sorted(texts()) == sorted(row.uuid for row in rows)
    assert catalog.add_texts([]) == 0


def test_a_message_that_is_gone_by_now_is_left_out(catalog: Catalog, texts: Texts) -> None:
    rows = committed(catalog)
    catalog.remove_messages([rows[0].uuid], "skipped", Removal("clean", "a test"))
    assert catalog.add_texts(list(map(entry, rows))) == len(rows) - 1
    assert rows[0].uuid not in texts()


REMOVAL = Removal("some command", "a reason")
TAKING_AWAY: dict[str, Callable[[Catalog, Row, Row], object]] = {
    "a place": lambda catalog, row, _: catalog.remove([slice_of(0, 1)], "pruned", REMOVAL),
    "a message": lambda catalog, row, _: catalog.remove_messages([row.uuid], "skipped", REMOVAL),
    "a copy": lambda catalog, row, kept: catalog.move_to_duplicates(
        [CopyOf(row.uuid, kept.uuid, "same")], REMOVAL
    ),
}


@pytest.mark.parametrize("taken", TAKING_AWAY)
def test_a_text_goes_with_its_message(catalog: Catalog, texts: Texts, taken: str) -> None:
    rows = committed(catalog)
    catalog.add_texts(list(map(entry, rows)))
    TAKING_AWAY[taken](catalog, rows[0], rows[1])
    assert list(catalog.rows("alerts")) == rows[1:]
    assert sorted(texts()) == sorted(row.uuid for row in rows[1:])


def test_a_text_goes_with_an_adopted_message(catalog: Catalog, adopt: Adopt, texts: Texts) -> None:
    adopted, kept = adopted_row("alerts"), committed(catalog, 0, 1)
    adopt([adopted])
    catalog.add_texts(list(map(entry, [adopted, *kept])))
    catalog.remove_adopted("alerts", REMOVAL)
    assert texts() == [kept[0].uuid]


def test_suppressing_takes_the_text_away_and_none_comes_back(catalog: Catalog, texts: Texts) -> None:
    rows = committed(catalog)
    catalog.add_texts(list(map(entry, rows[:2])))
    catalog.suppress({rows[0].uuid: "alerts", rows[2].uuid: "alerts"}, "by order")
    assert texts() == [rows[1].uuid]
    assert found(catalog) == rows[3:]
    assert catalog.add_texts([entry(rows[0]), entry(rows[2])]) == 0
    assert texts() == [rows[1].uuid]


def test_what_is_suppressed_between_fetching_and_indexing_is_not_indexed(
    catalog: Catalog, texts: Texts
) -> None:
    rows = committed(catalog)
    coming = found(catalog)
    catalog.suppress({rows[0].uuid: "alerts"}, "by order")
    assert catalog.add_texts(list(map(entry, coming))) == len(rows) - 1
    assert rows[0].uuid not in texts()


def test_a_row_that_turns_out_to_have_another_uuid_loses_the_text_of_the_wrong_one(
    catalog: Catalog, texts: Texts
) -> None:
    rows = committed(catalog)
    catalog.add_texts([entry(rows[0])])
    right = rows[0]._replace(uuid=uuid.uuid4())
    catalog.correct_rows([Correction(rows[0], right)])
    assert texts() == []
    assert right in found(catalog)
    catalog.add_texts([entry(right)])
    catalog.correct_rows([Correction(right, right._replace(size_bytes=1))])
    assert texts() == [right.uuid]


def test_what_is_done_is_remembered_never_less_and_each_job_by_itself(catalog: Catalog) -> None:
    committed(catalog)
    span = catalog.begin_row_job(INDEX)
    assert span.done_to == 0 <= span.settled_to <= span.last
    assert catalog.begin_row_job(INDEX).settled_to == span.last, "nobody else writes"
    catalog.note_row_job(INDEX, span.last)
    catalog.note_row_job(INDEX, 1)
    assert catalog.begin_row_job(INDEX).done_to == span.last
    assert catalog.begin_row_job(MEDIA).done_to == 0
    more = committed(catalog, 5, 7)
    for _ in range(2):
        again = catalog.begin_row_job(INDEX)
    assert again.done_to == span.last < again.settled_to == again.last
    assert found(catalog, after=again.done_to) == more


def test_how_far_the_index_is_behind_is_told_from_where_it_was_left(catalog: Catalog) -> None:
    rows = committed(catalog)
    committed(catalog, 0, 5, "not asked for")
    (first,) = catalog.ledger(["alerts"])
    assert catalog.text_backlog(TOPICS, 100) == TextBacklog(5, False, first.created_at)
    assert catalog.text_backlog(TOPICS, 3) == TextBacklog(3, True, first.created_at)
    catalog.add_texts(list(map(entry, rows[:2])))
    catalog.suppress({rows[2].uuid: "alerts"}, "by order")
    assert catalog.text_backlog(TOPICS, 100).messages == 2
    catalog.note_row_job(INDEX, catalog.begin_row_job(INDEX).last)
    assert catalog.text_backlog(TOPICS, 100) == TextBacklog(0, False, None)


@pytest.mark.parametrize("timestamp_ms", [1_600_000_000_000, -(2**63), 2**63 - 1])
def test_the_age_of_an_adopted_row_is_that_of_its_message_if_it_has_any(
    catalog: Catalog, adopt: Adopt, timestamp_ms: int
) -> None:
    adopt([adopted_row("alerts", timestamp_ms=timestamp_ms)])
    messages, _, since = catalog.text_backlog(TOPICS, 10)
    assert messages == 1
    assert (since is not None and since.year == 2020) == (timestamp_ms > 0 and timestamp_ms < 2**62)


def test_media_types_are_looked_at_of_our_own_rows_that_may_have_a_better_one(
    catalog: Catalog, adopt: Adopt
) -> None:
    types = [*sorted(REFINED), "application/json", "image/fits", "application/avro"]
    where = slice_of(0, len(types))
    rows = [
        row_at(where, offset, annotations=Annotations(media_type=media_type))
        for offset, media_type in enumerate(types)
    ]
    catalog.commit(Batch(where, rows=rows))
    adopt([adopted_row("alerts", annotations=Annotations(media_type="text/plain"))])
    assert found(catalog, MEDIA) == rows[: len(REFINED)]
    catalog.suppress({rows[0].uuid: "alerts"}, "by order")
    assert found(catalog, MEDIA) == rows[1 : len(REFINED)]
