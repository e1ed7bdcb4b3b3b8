"""Every catalog gives messages up in the same way: ledger split, rows gone, deletes of objects pending, nothing else touched."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

import psycopg
import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import (
    Batch,
    Collision,
    CopyOf,
    Duplicate,
    LedgerEntry,
    Outcome,
    Removal,
    RemovalExtent,
    Removed,
    Replaced,
    Row,
)
from hop_archive.errors import ConflictError, DataError
from hop_archive.model.slices import PartitionLog
from hop_archive_tests.contract.catalog_helpers import (
    Adopt,
    InThread,
    adopted_row,
    connect,
    everything,
    full_batch,
    row_at,
    slice_of,
)
from hop_archive_tests.invariants import assert_ledger_is_sound

pytestmark = pytest.mark.role("cleaner")
pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

REMOVAL = Removal("prune", "too old", run_id="removal")
WITH_BACKUP = replace(REMOVAL, backups=("backup",))


def numbers(entry: LedgerEntry) -> tuple[int, int, str, int, int, int]:
    s = entry.slice
    return (s.start, s.stop, entry.outcome.value, entry.archived, entry.duplicates, entry.absent)


def sparse_batch() -> Batch:
    """Twelve offsets: messages at 0 to 7, duplicates of the first at 8 and 9, two absent."""
    where = slice_of(0, 12)
    rows = [row_at(where, offset, object_key=f"alerts/{offset}.bson", position=None) for offset in range(8)]
    copies = [Duplicate(offset, 5, rows[0].uuid, "again") for offset in (8, 9)]
    return Batch(where, rows=rows, duplicates=copies, run_id="first")


def keys(catalog: Catalog, bucket: str = "archive") -> list[tuple[str, bool]]:
    return [(one.key, one.is_named) for one in catalog.pending_deletes("prune", bucket)]


def consistent(catalog: Catalog, *topics: str) -> None:
    assert_ledger_is_sound(catalog.ledger())
    assert [m for topic in topics or ("alerts",) for m in catalog.miscounts(topic)] == []


def test_what_is_removed_has_another_outcome_and_the_rest_keeps_its_own_with_its_numbers(
    catalog: Catalog,
) -> None:
    batch = sparse_batch()
    catalog.commit(batch)
    (before,) = catalog.ledger()
    removed = catalog.remove([slice_of(2, 4), slice_of(7, 9)], "pruned", REMOVAL)
    gone = [batch.rows[offset] for offset in (2, 3, 7)]
    assert removed == Removed(3, 1, 4, sum(row.size_bytes for row in gone))
    assert [numbers(entry) for entry in catalog.ledger()] == [
        (0, 2, "archived", 2, 0, 0),
        (2, 4, "pruned", 0, 0, 0),
        (4, 7, "archived", 3, 0, 0),
        (7, 9, "pruned", 0, 0, 0),
        (9, 12, "archived", 0, 1, 2),
    ]
    rest = [e for e in catalog.ledger() if e.outcome is Outcome.ARCHIVED]
    assert {(e.run_id, e.created_at, e.reason) for e in rest} == {("first", before.created_at, "")}
    assert {(e.run_id, e.reason) for e in catalog.ledger() if e not in rest} == {("removal", "too old")}
    assert sum(e.size_bytes for e in rest) == sum(row.size_bytes for row in catalog.rows("alerts"))
    assert [row.offset for row in catalog.rows("alerts")] == [0, 1, 4, 5, 6]
    (summary,) = catalog.summaries()
    assert (summary.messages, summary.duplicates, summary.absent, summary.pruned) == (5, 1, 2, 4)
    assert catalog.coverage() == {PartitionLog("alerts", 1, 0): slice_of(0, 12).offsets}
    consistent(catalog)


def test_deletes_of_the_objects_of_removed_rows_are_pending_also_in_the_backup_until_they_are_struck_out(
    catalog: Catalog,
) -> None:
    catalog.commit(sparse_batch())
    catalog.remove([slice_of(2, 4)], "pruned", WITH_BACKUP)
    assert keys(catalog) == keys(catalog, "backup") == [("alerts/2.bson", False), ("alerts/3.bson", False)]
    assert catalog.pending_deletes("clean-tests", "archive") == []
    catalog.strike_out(catalog.pending_deletes("prune", "archive", most=1))
    assert keys(catalog) == [("alerts/3.bson", False)]
    assert len(keys(catalog, "backup")) == 2


def test_removing_again_or_where_nothing_is_archived_changes_nothing(catalog: Catalog) -> None:
    catalog.commit(sparse_batch())
    catalog.commit(Batch(slice_of(12, 20), Outcome.LOST, "gone"))
    catalog.remove([slice_of(0, 4)], "pruned", REMOVAL)
    before = everything(catalog, "alerts")
    assert catalog.remove([slice_of(0, 4), slice_of(12, 30)], "skipped", REMOVAL) == Removed()
    assert everything(catalog, "alerts") == before


def test_a_segment_that_other_rows_name_is_a_pending_delete_but_named(catalog: Catalog) -> None:
    where = slice_of(0, 4)
    key = f"segments/alerts/1/0/{0:020}-{4:020}.bson"
    rows = [row_at(where, offset, object_key=key, position=offset * 100) for offset in range(4)]
    catalog.commit(Batch(where, rows=rows))
    catalog.remove([slice_of(0, 3)], "pruned", REMOVAL)
    assert keys(catalog) == [(key, True)]
    seen = catalog.pending_deletes("prune", "archive")
    catalog.remove([slice_of(3, 4)], "pruned", REMOVAL)
    catalog.strike_out(seen)
    assert keys(catalog) == [(key, False)], "what was noted again meanwhile was struck out"


def test_a_ledger_that_says_less_than_there_is_stops_the_removal(catalog: Catalog) -> None:
    catalog.commit(full_batch(0, 10))
    spoil(catalog, archived=2, absent=8)
    before = everything(catalog, "alerts")
    with pytest.raises(DataError, match="says less"):
        catalog.remove([slice_of(0, 4)], "pruned", REMOVAL)
    assert everything(catalog, "alerts") == before


def test_a_lost_row_is_missed_after_a_removal_as_it_was_before(catalog: Catalog) -> None:
    batch = full_batch(0, 10)
    catalog.commit(batch)
    lose(catalog, batch.rows[8])
    catalog.remove([slice_of(2, 4)], "pruned", REMOVAL)
    assert [(m.what, m.said, m.found) for m in catalog.miscounts("alerts") if m.slice] == [("archived", 6, 5)]


def spoil(catalog: Catalog, *, archived: int, absent: int) -> None:
    """Make the only ledger row say other numbers."""
    if isinstance(catalog, MockCatalog):
        with catalog._state.change() as tables:
            ledger = tables.ledger[PartitionLog("alerts", 1, 0)]
            ledger[0] = replace(ledger[0], archived=archived, absent=absent)
        return
    assert isinstance(catalog, PostgresCatalog)
    with psycopg.connect(catalog._server.conninfo) as connection:
        connection.execute("UPDATE batches SET archived = %s, absent = %s", [archived, absent])


def lose(catalog: Catalog, row: Row) -> None:
    """Delete a row behind the ledger's back."""
    if isinstance(catalog, MockCatalog):
        with catalog._state.change() as tables:
            del tables.rows[row.uuid]
        return
    assert isinstance(catalog, PostgresCatalog)
    with psycopg.connect(catalog._server.conninfo) as connection:
        connection.execute("DELETE FROM messages WHERE uuid = %s", [row.uuid])


def test_adopted_rows_go_oldest_first_and_those_of_no_known_time_only_with_all(
    catalog: Catalog, adopt: Adopt
) -> None:
    rows = [adopted_row(timestamp_ms=ms, object_key=f"alerts/{ms}.bson") for ms in (30, -1, 10, 20)]
    adopt(rows)
    assert catalog.adopted_extent("alerts", 25).messages == 2
    assert catalog.remove_adopted("alerts", REMOVAL, before_ms=25, most=1).messages == 1
    assert keys(catalog) == [("alerts/10.bson", False)]
    assert catalog.remove_adopted("alerts", REMOVAL, before_ms=25).messages == 1
    assert catalog.remove_adopted("alerts", REMOVAL, before_ms=25) == Removed()
    assert catalog.adopted_extent("alerts") == RemovalExtent(
        2, sum(r.size_bytes for r in rows[:2]), frozenset({"archive"})
    )
    assert catalog.remove_adopted("alerts", REMOVAL).messages == 2
    assert not catalog.has_adopted("alerts")
    assert list(catalog.rows("alerts")) == []


def test_single_messages_go_with_the_duplicates_that_refer_to_them(catalog: Catalog, adopt: Adopt) -> None:
    batch, old = sparse_batch(), adopted_row()
    catalog.commit(batch)
    adopt([old])
    wanted = [batch.rows[0].uuid, old.uuid, uuid.uuid4()]
    removed = catalog.remove_messages(wanted, "skipped", REMOVAL)
    assert (removed.messages, removed.duplicates, removed.offsets) == (2, 2, 3)
    assert list(catalog.duplicates("alerts")) == []
    assert [numbers(e)[:4] for e in catalog.ledger()] == [
        (0, 1, "skipped", 0),
        (1, 8, "archived", 7),
        (8, 10, "skipped", 0),
        (10, 12, "archived", 0),
    ]
    consistent(catalog)


def test_an_extent_counts_messages_bytes_and_buckets_at_places(catalog: Catalog) -> None:
    batch = sparse_batch()
    catalog.commit(batch)
    size_bytes = sum(row.size_bytes for row in batch.rows[2:4])
    assert catalog.extent([slice_of(2, 4)]) == RemovalExtent(2, size_bytes, frozenset({"archive"}))
    assert catalog.extent([]) == catalog.extent([slice_of(8, 12)]) == RemovalExtent()
    assert catalog.spans("alerts") == [slice_of(0, 8)]
    assert catalog.spans("elsewhere") == []


def test_the_first_message_or_duplicate_that_is_not_old_or_that_one_refers_to_is_kept(
    catalog: Catalog,
) -> None:
    where = slice_of(0, 6)
    rows = [row_at(where, offset, timestamp_ms=offset * 10) for offset in range(6)]
    catalog.commit(Batch(where, rows=rows))
    partition_log = PartitionLog("alerts", 1, 0)
    assert catalog.keepers([where], 40) == {partition_log: 4}
    assert catalog.keepers([slice_of(0, 4)], 40) == {}
    other = slice_of(0, 3, partition=1)
    young = Duplicate(1, 45, rows[2].uuid, "again")
    catalog.commit(Batch(other, rows=[row_at(other, 0, timestamp_ms=-1)], duplicates=[young]))
    assert catalog.keepers([where, other], 40) == {partition_log: 2, PartitionLog("alerts", 1, 1): 0}


def test_what_duplicates_from_an_offset_on_refer_to_is_told_by_log(catalog: Catalog) -> None:
    where, other = slice_of(0, 6), slice_of(0, 3, partition=1)
    rows = [row_at(where, offset) for offset in (1, 3)]
    again = [Duplicate(4, 5, rows[1].uuid, "again"), Duplicate(5, 5, rows[0].uuid, "again")]
    catalog.commit(Batch(where, rows=rows, duplicates=again))
    catalog.commit(Batch(other, duplicates=[Duplicate(2, 5, rows[1].uuid, "again")]))
    log, beside = where.partition_log, other.partition_log
    assert catalog.referred_to("alerts", {log: 6, beside: 3}) == {}
    assert catalog.referred_to("alerts", {log: 6, beside: 2}) == {log: 3}
    assert catalog.referred_to("alerts", {log: 5}) == {log: 1}
    assert catalog.referred_to("elsewhere", {log: 0}) == catalog.referred_to("alerts", {}) == {}


def test_likely_copies_are_those_of_one_digest_and_adopted_rows_of_one_time_and_checksum(
    catalog: Catalog, adopt: Adopt
) -> None:
    where = slice_of(0, 5)
    rows = [row_at(where, offset) for offset in range(5)]
    rows[3] = rows[3]._replace(digest=rows[1].digest)
    catalog.commit(Batch(where, rows=rows))
    like = rows[4]
    old = adopted_row(is_client_uuid=False, timestamp_ms=like.timestamp_ms, message_crc32=like.message_crc32)
    empty = [adopted_row(is_client_uuid=False, timestamp_ms=7, message_crc32=0) for _ in range(2)]
    theirs = [adopted_row(is_client_uuid=True, timestamp_ms=8, message_crc32=9) for _ in range(2)]
    adopt([old, *empty, *theirs])
    groups: dict[str, list[uuid.UUID]] = {}
    for one in catalog.likely_copies("alerts"):
        groups.setdefault(one.group, []).append(one.uuid)
    copies, *tied = groups.values()
    assert copies == [rows[1].uuid, rows[3].uuid]
    assert sorted(tied) == sorted([[rows[4].uuid, old.uuid], [one.uuid for one in empty]])


def test_copies_that_archiving_itself_may_leave_are_found_without_reading_all_digests(
    catalog: Catalog, adopt: Adopt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one client UUID that was in use by other content when they came; and, of adopted rows, as ever, page by page."""
    monkeypatch.setattr("hop_archive.catalog.postgres.removals._PAGE_ROWS", 2)
    where = slice_of(0, 9)
    rows = [row_at(where, offset) for offset in range(9)]
    rows[3], rows[5], rows[6] = (rows[n]._replace(digest=rows[1].digest) for n in (3, 5, 6))
    rows[7] = rows[7]._replace(digest=rows[2].digest)  # of no collision: nothing that archiving itself leaves
    client = uuid.uuid4()
    gone = rows[6].uuid  # what held the publisher's UUID is gone, and the message came once more
    met = [
        Collision(3, client, rows[3].uuid),
        Collision(5, client, rows[5].uuid),
        Collision(1, gone, rows[1].uuid),
    ]
    catalog.commit(Batch(where, rows=rows, collisions=met))
    other = slice_of(0, 1, "other")
    catalog.commit(Batch(other, rows=[row_at(other, 0)._replace(digest=rows[1].digest)]))
    pairs = [
        [adopted_row(is_client_uuid=False, timestamp_ms=n, message_crc32=5) for _ in range(2)]
        for n in (-7, 3, 4, 9)
    ]
    adopt([row for pair in pairs for row in pair])
    groups: dict[str, set[uuid.UUID]] = {}
    for one in catalog.likely_copies("alerts", by_digest=False):
        groups.setdefault(one.group, set()).add(one.uuid)
    assert next(iter(groups.values())) == {rows[n].uuid for n in (1, 3, 5, 6)}
    assert list(groups.values())[1:] == [{row.uuid for row in pair} for pair in pairs]
    everything = {one.group for one in catalog.likely_copies("alerts")}
    assert everything - groups.keys() == {(rows[2].digest or b"").hex()}


def test_a_copy_becomes_a_duplicate_and_what_referred_to_it_refers_to_the_kept_one(
    catalog: Catalog, adopt: Adopt
) -> None:
    where = slice_of(0, 4)
    rows = [row_at(where, n, object_key=f"alerts/{n}.bson", position=None) for n in range(3)]
    catalog.commit(Batch(where, rows=rows, duplicates=[Duplicate(3, 5, rows[2].uuid, "again")]))
    old = adopted_row(object_key="alerts/old.bson")
    adopt([old])
    copies = [CopyOf(rows[2].uuid, rows[0].uuid, "same"), CopyOf(old.uuid, rows[1].uuid, "same")]
    moved = catalog.move_to_duplicates(copies, REMOVAL)
    assert (moved.messages, moved.size_bytes) == (2, rows[2].size_bytes + old.size_bytes)
    found = [(at, d.offset, d.uuid, d.timestamp_ms) for at, d in catalog.duplicates("alerts")]
    at = PartitionLog("alerts", 1, 0)
    assert found == [(at, 2, rows[0].uuid, rows[2].timestamp_ms), (at, 3, rows[0].uuid, 5)]
    assert [numbers(e) for e in catalog.ledger()] == [(0, 4, "archived", 2, 2, 0)]
    assert keys(catalog) == [("alerts/2.bson", False), ("alerts/old.bson", False)]
    assert catalog.mentions(rows[1].uuid, "alerts").duplicate_count == 0
    assert catalog.move_to_duplicates(copies, REMOVAL) == Removed()
    consistent(catalog)


def test_a_copy_whose_kept_message_is_gone_is_left(catalog: Catalog) -> None:
    batch = full_batch(0, 3)
    catalog.commit(batch)
    before = everything(catalog, "alerts")
    assert (
        catalog.move_to_duplicates([CopyOf(batch.rows[1].uuid, uuid.uuid4(), "same")], REMOVAL) == Removed()
    )
    assert everything(catalog, "alerts") == before


def test_of_two_copies_of_each_other_one_stays(catalog: Catalog) -> None:
    batch = full_batch(0, 3)
    catalog.commit(batch)
    one, other = batch.rows[0].uuid, batch.rows[1].uuid
    catalog.move_to_duplicates([CopyOf(one, other, "same"), CopyOf(other, one, "same")], REMOVAL)
    assert [row.uuid for row in catalog.rows("alerts")] == [other, batch.rows[2].uuid]
    consistent(catalog)


def test_messages_are_retracted_and_the_undoing_undoes_it(catalog: Catalog) -> None:
    batch = full_batch(0, 3)
    catalog.commit(batch)
    own = batch.rows[1].uuid
    assert catalog.retract([own, uuid.uuid4()], retracted=True) == {own}
    assert [row.retracted for row in catalog.rows("alerts")] == [False, True, False]
    assert catalog.retract([own], retracted=False) == {own}
    assert not any(row.retracted for row in catalog.rows("alerts"))


def test_a_suppression_is_remembered_with_its_first_reason(catalog: Catalog) -> None:
    one, other, third = (uuid.UUID(int=n) for n in (1, 2, 3))
    catalog.suppress({one: "alerts"}, "a court said so")
    catalog.suppress({one: "alerts", other: "news"}, "another")
    assert catalog.suppressed([one, other, third]) == {one, other}
    assert catalog.suppressed([]) == frozenset()
    assert [(s.uuid, s.topic, s.reason) for s in catalog.suppressions()] == [
        (one, "alerts", "a court said so"),
        (other, "news", "another"),
    ]
    assert [s.uuid for s in catalog.suppressions([other, third])] == [other]


def test_rows_name_another_frame(catalog: Catalog) -> None:
    where = slice_of(0, 2)
    rows = [row_at(where, n, object_key="a.zst", position=n * 10, frame=0, frame_size=50) for n in range(2)]
    catalog.commit(Batch(where, rows=rows))
    catalog.note_pending_deletes([("archive", "b.zst")], "alerts", REMOVAL)
    new = [
        Replaced(
            row.uuid,
            "b.zst",
            n,
            row.size_bytes,
            row.crc32,
            is_tombstone=False,
            frame=n * 70,
            frame_size=70 + n,
        )
        for n, row in enumerate(rows)
    ]
    catalog.replace_documents(("archive", "a.zst"), new, REMOVAL)
    assert list(catalog.rows("alerts")) == [
        row._replace(object_key="b.zst", position=n, frame=n * 70, frame_size=70 + n)
        for n, row in enumerate(rows)
    ]


def test_rows_name_another_object_all_numbers_follow_and_the_delete_of_the_old_one_is_pending(
    catalog: Catalog, adopt: Adopt
) -> None:
    batch, old = sparse_batch(), adopted_row(object_key="alerts/old.bson")
    catalog.commit(batch)
    adopt([old])
    row = batch.rows[1]
    tombstone = Replaced(row.uuid, "alerts/1.1.bson", None, 7, 99, is_tombstone=True)
    catalog.note_pending_deletes([("archive", "alerts/1.1.bson")], "alerts", WITH_BACKUP)
    assert catalog.replace_documents(("archive", row.object_key), [tombstone], WITH_BACKUP) == {row.uuid}
    found = catalog.find(row.uuid)
    assert found is not None
    assert (found.object_key, found.position, found.size_bytes, found.crc32) == (
        "alerts/1.1.bson",
        None,
        7,
        99,
    )
    assert found.annotations.sender == ""
    assert found.annotations.media_type == row.annotations.media_type
    kept = row.annotations._replace(sender="")
    assert found == row._replace(object_key="alerts/1.1.bson", size_bytes=7, crc32=99, annotations=kept)
    assert keys(catalog) == keys(catalog, "backup") == [(row.object_key, False)]
    (entry,) = catalog.ledger()
    assert entry.size_bytes == batch.size_bytes - row.size_bytes + 7
    adopted = Replaced(old.uuid, "alerts/new.bson", None, 11, 98, is_tombstone=False)
    catalog.note_pending_deletes(
        [("archive", "alerts/new.bson"), ("archive", "alerts/1.1.bson")], "alerts", REMOVAL
    )
    assert catalog.replace_documents(("archive", old.object_key), [adopted], REMOVAL) == {old.uuid}
    assert catalog.replace_documents(("archive", row.object_key), [tombstone], REMOVAL) == frozenset()
    consistent(catalog)


def test_no_row_comes_to_name_an_object_that_somebody_is_about_to_delete(catalog: Catalog) -> None:
    batch = sparse_batch()
    catalog.commit(batch)
    row = batch.rows[1]
    new = [Replaced(row.uuid, "alerts/1.1.bson", None, 7, 99, is_tombstone=True)]
    before = everything(catalog, "alerts")
    with pytest.raises(ConflictError, match="about to be deleted"):
        catalog.replace_documents(("archive", row.object_key), new, REMOVAL)
    catalog.note_pending_deletes([("archive", "alerts/1.1.bson")], "alerts", REMOVAL)
    claimed = catalog.pending_deletes("prune", "archive")
    catalog.note_pending_deletes([("archive", "alerts/1.1.bson")], "alerts", REMOVAL)
    with pytest.raises(ConflictError, match="about to be deleted"):
        catalog.replace_documents(("archive", row.object_key), new, REMOVAL)
    assert everything(catalog, "alerts") == before
    catalog.strike_out(claimed)
    catalog.strike_out(catalog.pending_deletes("prune", "archive"))
    catalog.note_pending_deletes([("archive", "alerts/1.1.bson")], "alerts", REMOVAL)
    assert catalog.replace_documents(("archive", row.object_key), new, REMOVAL) == {row.uuid}


def test_an_object_that_no_row_names_can_be_a_pending_delete(catalog: Catalog) -> None:
    catalog.note_pending_deletes([("archive", "alerts/x.bson")], "alerts", WITH_BACKUP)
    assert catalog.pending_keys("archive", ["alerts/x.bson", "alerts/y.bson"]) == {"alerts/x.bson"}
    assert keys(catalog) == keys(catalog, "backup") == [("alerts/x.bson", False)]
    catalog.strike_out(catalog.pending_deletes("prune", "archive"))
    assert catalog.pending_keys("archive", ["alerts/x.bson"]) == frozenset()


def test_two_who_remove_overlapping_places_at_once_take_each_message_once(
    make_postgres: Callable[..., PostgresCatalog],
) -> None:
    one, other = make_postgres(), make_postgres()
    for start in range(0, 400, 20):
        one.commit(full_batch(start, start + 20))
    halves: Sequence[tuple[PostgresCatalog, int]] = ((one, 0), (other, 5))
    threads = [
        InThread(
            lambda c=catalog, f=first: sum(  # type: ignore[misc] # mypy cannot type the defaults
                c.remove([slice_of(n, n + 15)], "pruned", REMOVAL).messages for n in range(f, 385, 10)
            )
        )
        for catalog, first in halves
    ]
    threads.append(InThread(lambda: one.merge_ledger(one.condition().at)))
    assert sum(int(str(thread.outcome())) for thread in threads[:2]) == 400 - len(list(one.rows("alerts")))
    threads[2].outcome()
    consistent(one)
    assert one.coverage() == {PartitionLog("alerts", 1, 0): slice_of(0, 400).offsets}


def test_a_removal_that_waited_for_another_sees_what_that_one_made_of_the_ledger(
    make_postgres: Callable[..., PostgresCatalog], database_url: str
) -> None:
    catalog = make_postgres()
    catalog.commit(full_batch(0, 30))
    with connect(database_url) as holding:
        holding.autocommit = False
        holding.execute("SELECT FROM batches FOR UPDATE")
        first = InThread(lambda: catalog.remove([slice_of(0, 20)], "pruned", REMOVAL))
        second = InThread(lambda: make_postgres().remove([slice_of(10, 30)], "pruned", REMOVAL))
        holding.commit()
    counts = [str(thread.outcome()) for thread in (first, second)]
    assert list(catalog.rows("alerts")) == [], counts
    assert {e.outcome for e in catalog.ledger()} == {Outcome.PRUNED}
    consistent(catalog)
