"""What rebuilding asks of a catalog, over the mock, the mock in a directory, and Postgres."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import UNKNOWN_CLUSTER, UNTOLD, Batch, Collision, Duplicate, Outcome
from hop_archive.errors import StaleDecisionError
from hop_archive.model.slices import PartitionLog
from hop_archive_tests.contract.catalog_helpers import (
    InThread,
    adopted_row,
    everything,
    full_batch,
    row_at,
    slice_of,
)

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

ALERTS = PartitionLog("alerts", 1, 0)


def sums(catalog: Catalog) -> list[tuple[int, int, int, str, int, int, int]]:
    return [
        (e.slice.start, e.slice.stop, e.slice.generation, e.outcome.value, e.archived, e.duplicates, e.absent)
        for e in catalog.ledger()
    ]


def test_in_an_empty_catalog_reinstating_is_committing(catalog: Catalog) -> None:
    where = slice_of(0, 6)
    rows = [row_at(where, offset) for offset in (0, 2)]
    own = uuid.uuid4()
    batch = Batch(
        where,
        rows=rows,
        duplicates=[Duplicate(3, 17, rows[0].uuid, "same")],
        collisions=[Collision(2, own, rows[1].uuid)],
    )
    done = catalog.reinstate(batch)
    assert (done.added, done.covered, done.refused) == (2, 6, ())
    assert sums(catalog) == [(0, 6, 1, "archived", 2, 1, 3)]
    assert list(catalog.rows("alerts")) == rows
    assert list(catalog.duplicates("alerts")) == [(ALERTS, batch.duplicates[0])]
    assert catalog.collisions("alerts") == [(ALERTS, batch.collisions[0])]
    (summary,) = catalog.summaries()
    assert (summary.messages, summary.size_bytes) == (2, sum(row.size_bytes for row in rows))
    assert (summary.first_timestamp_ms, summary.last_timestamp_ms) == (
        rows[0].timestamp_ms,
        rows[1].timestamp_ms,
    )
    assert catalog.miscounts("alerts") == []


def test_reinstating_again_or_what_was_committed_changes_nothing(catalog: Catalog) -> None:
    batch = full_batch(0, 5)
    catalog.commit(batch)
    before = everything(catalog, "alerts")
    for _ in range(2):
        assert catalog.reinstate(batch) == replace(catalog.reinstate(batch), added=0, covered=0)
    assert everything(catalog, "alerts") == before


def test_only_what_the_ledger_lacks_is_covered_and_only_rows_that_are_missing_are_added(
    catalog: Catalog,
) -> None:
    whole = full_batch(0, 12)
    catalog.commit(Batch(slice_of(4, 8), rows=whole.rows[4:8]))
    done = catalog.reinstate(whole)
    assert (done.added, done.covered) == (8, 8)
    assert sums(catalog) == [
        (0, 4, 1, "archived", 4, 0, 0),
        (4, 8, 1, "archived", 4, 0, 0),
        (8, 12, 1, "archived", 4, 0, 0),
    ]
    assert list(catalog.rows("alerts")) == list(whole.rows)


@pytest.mark.parametrize(("outcome", "reason"), [(Outcome.LOST, "too late"), (Outcome.SKIPPED, UNTOLD)])
def test_a_slice_that_was_called_lost_or_untold_is_archived_and_the_rest_stays_so(
    catalog: Catalog, outcome: Outcome, reason: str
) -> None:
    catalog.commit(Batch(slice_of(0, 10), outcome, reason))
    batch = Batch(slice_of(3, 5), rows=[row_at(slice_of(3, 5), 4)])
    assert catalog.reinstate(batch).covered == 2
    assert sums(catalog) == [
        (0, 3, 1, outcome.value, 0, 0, 0),
        (3, 5, 1, "archived", 1, 0, 1),
        (5, 10, 1, outcome.value, 0, 0, 0),
    ]
    assert {e.reason for e in catalog.ledger() if e.outcome is outcome} == {reason}


@pytest.mark.parametrize("outcome", [Outcome.SKIPPED, Outcome.PRUNED])
def test_what_was_left_out_or_taken_away_on_purpose_does_not_come_back(
    catalog: Catalog, outcome: Outcome
) -> None:
    catalog.commit(Batch(slice_of(0, 2), outcome, "on purpose"))
    batch = full_batch(0, 4)
    done = catalog.reinstate(batch)
    assert (done.added, done.covered) == (2, 2)
    assert done.refused == tuple(batch.rows[:2])
    assert sums(catalog)[0] == (0, 2, 1, outcome.value, 0, 0, 0)


def test_a_row_whose_place_has_another_message_is_refused_and_the_other_stays(catalog: Catalog) -> None:
    batch = full_batch(0, 2)
    catalog.commit(batch)
    other = row_at(slice_of(0, 2), 1)
    assert catalog.reinstate(Batch(slice_of(1, 2), rows=[other])).refused == (other,)
    assert list(catalog.rows("alerts")) == list(batch.rows)


def test_neither_a_row_nor_a_duplicate_takes_an_offset_that_the_other_has(catalog: Catalog) -> None:
    where = slice_of(0, 2)
    row, late = row_at(where, 0), row_at(where, 1)
    catalog.commit(Batch(where, rows=[row], duplicates=[Duplicate(1, 5, row.uuid, "same")]))
    before = everything(catalog, "alerts")
    assert catalog.reinstate(Batch(where, rows=[late])).refused == (late,)
    catalog.reinstate(Batch(slice_of(0, 1), duplicates=[Duplicate(0, 5, row.uuid, "same")]))
    assert everything(catalog, "alerts") == before


def test_a_uuid_that_has_a_row_elsewhere_refuses_the_whole(catalog: Catalog) -> None:
    catalog.commit(full_batch(0, 3))
    (first, *_) = catalog.rows("alerts")
    where = slice_of(10, 12)
    before = everything(catalog, "alerts")
    with pytest.raises(StaleDecisionError):
        catalog.reinstate(Batch(where, rows=[row_at(where, 10, uuid=first.uuid), row_at(where, 11)]))
    assert everything(catalog, "alerts") == before


def test_two_that_reinstate_the_same_at_once_do_no_harm(catalog: Catalog) -> None:
    batch = full_batch(0, 300)
    both = [InThread(lambda: catalog.reinstate(batch)) for _ in range(2)]
    done = [one.outcome() for one in both]
    assert {getattr(one, "added", one) for one in done} == {0, 300}
    assert list(catalog.rows("alerts")) == list(batch.rows)
    assert sums(catalog) == [(0, 300, 1, "archived", 300, 0, 0)]
    (summary,) = catalog.summaries()
    assert summary.messages == 300


def test_recounting_sets_the_numbers_of_earlier_ledger_rows_right(catalog: Catalog) -> None:
    where = slice_of(0, 4)
    rows = [row_at(where, offset) for offset in range(4)]
    catalog.commit(Batch(where, rows=rows[:2]))
    assert catalog.reinstate(Batch(where, rows=rows)).added == 2
    assert [one.said for one in catalog.miscounts("alerts")] == [2]
    assert catalog.recount("alerts") == 1
    assert catalog.recount("alerts") == 0
    assert catalog.recount("unknown") == 0
    assert [one.topic for one in catalog.summaries()] == ["alerts"]
    assert catalog.miscounts("alerts") == []
    assert sums(catalog) == [(0, 4, 1, "archived", 4, 0, 0)]


def test_adopted_rows_are_added_once_and_counted_once(catalog: Catalog) -> None:
    rows = [adopted_row() for _ in range(3)]
    assert catalog.adopt(rows[:2]) == 2
    assert catalog.adopt(rows) == 1
    assert catalog.has_adopted("alerts")
    assert sorted(row.uuid for row in catalog.rows("alerts")) == sorted(row.uuid for row in rows)
    (summary,) = catalog.summaries()
    assert summary.messages == 3
    assert catalog.adopt([]) == 0
    assert catalog.coverage() == {}


def test_only_the_newest_generation_can_be_claimed_and_only_while_its_cluster_is_unknown(
    catalog: Catalog,
) -> None:
    for number in (1, 2):
        catalog.begin_generation("alerts", number, UNKNOWN_CLUSTER, None, "rebuilt")
    assert not catalog.claim_generation("alerts", 1, "c", "t", "proven")
    assert not catalog.claim_generation("alerts", 3, "c", "t", "proven")
    assert not catalog.claim_generation("others", 1, "c", "t", "proven")
    for number, reason in ((1, UNTOLD), (2, UNTOLD), (2, "on purpose")):
        start = len(reason)
        where = slice_of(start, start + 1, generation=number)
        catalog.commit(Batch(where, Outcome.SKIPPED, reason))
    assert catalog.claim_generation("alerts", 2, "c", "t", "proven")
    assert [(e.slice.generation, e.reason) for e in catalog.ledger()] == [(1, UNTOLD), (2, "on purpose")]
    assert not catalog.claim_generation("alerts", 2, "d", "u", "again")
    first, second = catalog.generations(["alerts"])["alerts"]
    assert (first.cluster_id, first.topic_id) == (UNKNOWN_CLUSTER, None)
    assert (second.cluster_id, second.topic_id, second.reason) == ("c", "t", "proven")
