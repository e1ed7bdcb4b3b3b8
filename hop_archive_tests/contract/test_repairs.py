"""How catalogs are corrected: the same over a mock, a mock in a directory, and Postgres."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Batch, Correction, Duplicate, Outcome, Row
from hop_archive.errors import DataError, SliceTakenError, StaleDecisionError
from hop_archive_tests.contract.catalog_helpers import connect, everything, full_batch, row_at, slice_of

pytestmark = pytest.mark.role("repairer")
pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

T = "alerts"


class Damaged:
    """A catalog, and ways to damage it that no part of ours has."""

    def __init__(self, catalog: Catalog, request: pytest.FixtureRequest) -> None:
        self.catalog = catalog
        self.request = request

    def sql(self, statement: str) -> None:
        with connect(self.request.getfixturevalue("database_url")) as connection:
            connection.execute(statement.encode())

    def drop_row(self, row: Row) -> None:
        if not isinstance(self.catalog, MockCatalog):
            self.sql(f"DELETE FROM messages WHERE uuid = '{row.uuid}'")
            return
        with self.catalog._state.change() as tables:
            del tables.rows[row.uuid]

    def drop_ledger(self) -> None:
        if not isinstance(self.catalog, MockCatalog):
            self.sql("DELETE FROM batches")
            return
        with self.catalog._state.change() as tables:
            tables.ledger.clear()

    def drop_duplicates(self) -> None:
        if not isinstance(self.catalog, MockCatalog):
            self.sql("DELETE FROM duplicates")
            return
        with self.catalog._state.change() as tables:
            tables.duplicates.clear()

    def miscount(self) -> None:
        """The ledger says one archived message less, and one absent more."""
        if not isinstance(self.catalog, MockCatalog):
            self.sql("UPDATE batches SET archived = archived - 1, absent = absent + 1")
            self.sql("UPDATE topics SET n_messages = 77, n_bytes = 1, e_timestamp = 0")
            return
        with self.catalog._state.change() as tables:
            for ledger in tables.ledger.values():
                one = ledger[0]
                ledger[0] = replace(one, archived=one.archived - 1, absent=one.absent + 1)


@pytest.fixture
def damaged(catalog: Catalog, request: pytest.FixtureRequest) -> Damaged:
    return Damaged(catalog, request)


def test_rows_are_corrected_whatever_of_them_is_wrong(catalog: Catalog) -> None:
    batch = full_batch(0, 5)
    catalog.commit(batch)
    now = [row_at(batch.slice, row.offset or 0, object_key="elsewhere") for row in batch.rows[:2]]
    now.append(batch.rows[2]._replace(position=None, digest=None, retracted=True))
    catalog.correct_rows([Correction(*pair) for pair in zip(batch.rows, now, strict=False)])
    assert list(catalog.rows(T)) == [*now, *batch.rows[3:]]
    catalog.correct_rows([])


@pytest.mark.parametrize(
    "change", [{"object_key": "x"}, {"retracted": True}, {"position": None}, {"crc32": 5}]
)
def test_a_row_that_is_not_as_it_was_seen_lets_none_be_corrected(
    catalog: Catalog, change: dict[str, object]
) -> None:
    batch = full_batch(0, 5)
    catalog.commit(batch)
    before = everything(catalog, T)
    seen = [batch.rows[0], batch.rows[1]._replace(**change)]  # type: ignore[arg-type] # as given
    with pytest.raises(StaleDecisionError):
        catalog.correct_rows([Correction(row, row._replace(object_key="new")) for row in seen])
    assert everything(catalog, T) == before


def test_a_correction_cannot_take_the_uuid_or_offset_of_another_row(catalog: Catalog) -> None:
    batch = full_batch(0, 3)
    catalog.commit(batch)
    before = everything(catalog, T)
    first, second, _ = batch.rows
    for now in (first._replace(uuid=second.uuid), first._replace(offset=second.offset)):
        with pytest.raises(StaleDecisionError):
            catalog.correct_rows([Correction(first, now)])
    assert everything(catalog, T) == before


def test_a_row_that_the_ledger_counts_is_put_back_once(damaged: Damaged) -> None:
    catalog, batch = damaged.catalog, full_batch(0, 5)
    catalog.commit(batch)
    before = everything(catalog, T)
    damaged.drop_row(batch.rows[2])
    assert catalog.miscounts(T)
    lost = Batch(batch.slice, rows=batch.rows[2:3])
    catalog.put_back(lost)
    assert everything(catalog, T) == before
    assert catalog.miscounts(T) == []
    with pytest.raises(StaleDecisionError):
        catalog.put_back(lost)
    assert everything(catalog, T) == before


def test_nothing_is_put_back_where_the_ledger_counts_no_more_or_covers_nothing(catalog: Catalog) -> None:
    catalog.commit(Batch(slice_of(0, 5), rows=full_batch(0, 4).rows))
    catalog.commit(Batch(slice_of(5, 9), Outcome.LOST, "gone"))
    before = everything(catalog, T)
    for start, offset in ((0, 4), (5, 6), (20, 21)):
        where = slice_of(start, start + 4 if start else 5)
        with pytest.raises(StaleDecisionError):
            catalog.put_back(Batch(where, rows=[row_at(where, offset)]))
    assert everything(catalog, T) == before


def test_a_duplicate_that_the_ledger_counts_is_put_back(damaged: Damaged) -> None:
    catalog, kept = damaged.catalog, full_batch(0, 2)
    catalog.commit(kept)
    copy = Duplicate(2, 5, kept.rows[0].uuid, "same UUID and digest")
    catalog.commit(Batch(slice_of(2, 4), duplicates=[copy]))
    damaged.drop_duplicates()
    catalog.put_back(Batch(slice_of(0, 4), duplicates=[copy]))
    assert [one for _, one in catalog.duplicates(T)] == [copy]
    assert catalog.duplicates_in(slice_of(0, 4), 5) == [copy]
    assert catalog.duplicates_in(slice_of(0, 2), 5) == []
    assert catalog.miscounts(T) == []


def test_a_copy_is_recorded_once_where_the_ledger_says_that_nothing_is(catalog: Catalog) -> None:
    kept = full_batch(0, 2)
    catalog.commit(Batch(slice_of(0, 5), rows=kept.rows))
    copy = Duplicate(3, 5, kept.rows[0].uuid, "same UUID and digest")
    catalog.record_copy(slice_of(0, 5).partition_log, copy)
    assert [one for _, one in catalog.duplicates(T)] == [copy]
    assert [(e.archived, e.duplicates, e.absent) for e in catalog.ledger([T])] == [(2, 1, 2)]
    before = everything(catalog, T)
    for offset in (3, 1, 9):  # recorded; a row stands there; not covered
        with pytest.raises(StaleDecisionError):
            catalog.record_copy(slice_of(0, 5).partition_log, copy._replace(offset=offset))
    assert everything(catalog, T) == before
    assert catalog.miscounts(T) == []


def test_no_copy_is_recorded_where_nothing_was_archived(catalog: Catalog) -> None:
    kept = full_batch(0, 2)
    catalog.commit(kept)
    catalog.commit(Batch(slice_of(2, 5), Outcome.LOST, "retention"))
    with pytest.raises(StaleDecisionError):
        catalog.record_copy(slice_of(2, 5).partition_log, Duplicate(3, 5, kept.rows[0].uuid, "same"))


def test_a_hole_is_covered_by_what_stands_there_and_what_is_added(damaged: Damaged) -> None:
    catalog, batch = damaged.catalog, full_batch(0, 5)
    catalog.commit(batch)
    damaged.drop_row(batch.rows[3])
    damaged.drop_ledger()
    catalog.account(Batch(slice_of(0, 6), rows=batch.rows[3:4], run_id="repair"))
    (entry,) = catalog.ledger([T])
    assert (entry.archived, entry.duplicates, entry.absent, entry.run_id) == (5, 0, 1, "repair")
    assert entry.size_bytes == batch.size_bytes
    assert catalog.miscounts(T) == []
    with pytest.raises(SliceTakenError):
        catalog.account(Batch(slice_of(5, 8)))


def test_a_message_that_was_taken_for_a_copy_of_itself_counts_once(damaged: Damaged) -> None:
    catalog, batch = damaged.catalog, full_batch(0, 3)
    catalog.commit(batch)
    damaged.drop_ledger()
    copies = [Duplicate(row.offset or 0, 5, row.uuid, "same") for row in batch.rows]
    catalog.commit(Batch(slice_of(0, 4), duplicates=copies))  # what archiving does of a hole with rows
    assert catalog.miscounts(T)
    catalog.recount_ledger(slice_of(0, 4))
    (entry,) = catalog.ledger([T])
    assert (entry.archived, entry.duplicates, entry.absent) == (3, 0, 1)
    assert catalog.miscounts(T) == []
    assert list(catalog.duplicates(T)) == []


def test_counts_are_made_those_of_the_rows(damaged: Damaged) -> None:
    catalog, batch = damaged.catalog, full_batch(0, 5)
    catalog.commit(batch)
    before = everything(catalog, T)
    damaged.miscount()
    catalog.recount_ledger(batch.slice)
    catalog.recount_summary(T)
    assert everything(catalog, T) == before
    assert catalog.miscounts(T) == []


def test_counting_anew_hides_nothing_that_is_missing(damaged: Damaged) -> None:
    catalog, batch = damaged.catalog, full_batch(0, 5)
    catalog.commit(batch)
    catalog.commit(Batch(slice_of(5, 9), Outcome.LOST, "gone"))
    damaged.drop_row(batch.rows[2])
    before = everything(catalog, T)
    for where, error in (
        (slice_of(0, 5), DataError),
        (slice_of(5, 9), DataError),
        (slice_of(0, 4), StaleDecisionError),
    ):
        with pytest.raises(error):
            catalog.recount_ledger(where)
    assert everything(catalog, T) == before


def test_what_nobody_suppressed_is_not_suppressed(catalog: Catalog) -> None:
    assert catalog.suppressed([row.uuid for row in full_batch(0, 3).rows]) == set()
