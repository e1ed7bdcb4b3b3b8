"""What every catalog promises about restores."""

from __future__ import annotations

from pathlib import Path

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Batch, Duplicate, Measure
from hop_archive.errors import ConflictError
from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive_tests.contract.catalog_helpers import Adopt, adopted_row, row_at, slice_of

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

EVERYTHING = 2**62


def test_a_name_that_is_held_is_refused_to_others_until_it_is_let_go(catalog: Catalog) -> None:
    with catalog.hold("restore a"):
        with pytest.raises(ConflictError, match="restore a"), catalog.hold("restore a"):
            pass
        with catalog.hold("restore b"):
            pass
    with catalog.hold("restore a"):
        pass


def test_a_name_is_let_go_where_the_block_ends_with_an_error(catalog: Catalog) -> None:
    with pytest.raises(RuntimeError), catalog.hold("a"):
        raise RuntimeError
    with catalog.hold("a"):
        pass


def test_processes_that_share_a_directory_share_what_is_held(tmp_path: Path) -> None:
    one, other = MockCatalog(directory=tmp_path), MockCatalog(directory=tmp_path)
    with one.hold("a"), pytest.raises(ConflictError), other.hold("a"):
        pass


def test_the_same_request_finds_its_restore_until_that_is_over(catalog: Catalog) -> None:
    first = catalog.begin_restore("f", "there", {"topics": ["a"]})
    assert (first.outcome, first.request, first.progress) == ("running", {"topics": ["a"]}, {})
    catalog.note_restore(first.number, progress={"base": {"a": [1]}, "kept": 1})
    catalog.note_restore(first.number, progress={"base": {"a": [0, 7]}})
    again = catalog.begin_restore("f", "there", {"topics": ["other"]})
    assert (again.number, again.request) == (first.number, {"topics": ["a"]})
    assert again.progress == {"base": {"a": [0, 7]}, "kept": 1}
    catalog.note_restore(first.number, outcome="done", report={"messages": 3})
    following = catalog.begin_restore("f", "there", {})
    assert following.number != first.number
    assert following.progress == {}
    assert [one.number for one in catalog.restores()] == [following.number, first.number]
    assert catalog.restores()[1].report == {"messages": 3}
    assert [one.number for one in catalog.restores(running_only=True)] == [following.number]
    assert len(catalog.restores(limit=1)) == 1


def test_lineages_are_those_that_have_rows(catalog: Catalog) -> None:
    for generation, partition in ((2, 0), (1, 10), (1, 2)):
        where = Slice("alerts", generation, partition, 0, 2)
        catalog.commit(Batch(where, rows=[row_at(where, 1)]))
    where = Slice("alerts", 3, 0, 0, 2)
    catalog.commit(Batch(where))
    assert list(catalog.partition_logs("alerts")) == [
        PartitionLog("alerts", 1, 2),
        PartitionLog("alerts", 1, 10),
        PartitionLog("alerts", 2, 0),
    ]
    assert list(catalog.partition_logs("nothing")) == []


def test_a_selection_is_measured_as_it_is_selected(catalog: Catalog, adopt: Adopt) -> None:
    where = slice_of(0, 9)
    times = [0, -1, 50, 70]
    rows = [row_at(where, n, timestamp_ms=at) for n, at in enumerate(times)]
    catalog.commit(Batch(where, rows=rows))
    adopt([adopted_row(timestamp_ms=60)])
    for query in (
        Query(),
        Query(adopted=False),
        Query(adopted=True),
        Query(since_ms=50),
        Query(places=(where.within(1, 3),)),
        Query(uuids=(rows[2].uuid,)),
        Query(uuids=()),
    ):
        chosen = list(catalog.select(query))
        dated = [row.timestamp_ms for row in chosen if row.timestamp_ms > 0]
        assert catalog.measure(query, timeout_s=10) == Measure(
            len(chosen),
            sum(row.size_bytes for row in chosen),
            max((row.size_bytes for row in chosen), default=0),
            min(dated, default=None),
            max(dated, default=None),
            sum(row.timestamp_ms == 0 for row in chosen),
            sum(row.timestamp_type == 1 for row in chosen),
        )
    assert catalog.measure(Query(), timeout_s=10).messages == 5
    assert catalog.measure(Query(adopted=True), timeout_s=10).messages == 1


def test_duplicates_of_a_slice_come_by_offset(catalog: Catalog) -> None:
    where = slice_of(0, 9)
    kept = row_at(where, 0)
    copies = [Duplicate(offset, 5, kept.uuid, "same") for offset in (2, 4, 7)]
    catalog.commit(Batch(where, rows=[kept], duplicates=copies))
    assert list(catalog.duplicates_in(where.within(0, EVERYTHING), 10)) == copies
    assert list(catalog.duplicates_in(where.within(3, 7), 10)) == copies[1:2]
    assert list(catalog.duplicates_in(where.within(0, 9), 2)) == copies[:2]
    assert list(catalog.duplicates_in(Slice(where.topic, 5, 0, 0, 9), 2)) == []
