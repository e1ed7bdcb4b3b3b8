"""Every catalog lets documents move in the same way: all of them or none, never what changed, old objects left to their readers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace

import pytest

from hop_archive.catalog.compaction import Compacted, ObjectShare
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Batch, Correction, PendingDelete, Removal, Replaced, Row
from hop_archive.errors import ConflictError
from hop_archive.model.keys import segment_key
from hop_archive.model.slices import PartitionLog
from hop_archive_tests.contract.catalog_helpers import adopted_row, everything, row_at, slice_of

pytestmark = pytest.mark.role("cleaner")
pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

LOG = PartitionLog("alerts", 1, 0)
WHERE = slice_of(0, 6)
NEW = segment_key("alerts", 1, 0, 0, 6)
MOVING = Removal("compact", "moved", ("backup",), "a run", grace_s=3600.0)
AT_ONCE = replace(MOVING, grace_s=0.0)
SUPPRESSING = Removal("suppress", "a court said so", ("backup",))


def small_objects(catalog: Catalog) -> Sequence[Row]:
    """Six messages, each an object of its own, in the catalog."""
    rows = [
        row_at(WHERE, n, object_key=f"alerts/2023/1/1/0/{uuid.uuid4()}.bson", position=None) for n in range(6)
    ]
    catalog.commit(Batch(WHERE, rows=rows))
    return rows


def moves_of(rows: Sequence[Row], key: str = NEW, frame: int | None = None) -> list[Correction]:
    size = None if frame is None else 1_000
    return [
        Correction(row, row._replace(object_key=key, position=n * 100, frame=frame, frame_size=size))
        for n, row in enumerate(rows)
    ]


def noted(catalog: Catalog, key: str = NEW) -> None:
    catalog.note_pending_deletes([("archive", key)], "alerts", MOVING)


def to_delete(catalog: Catalog, command: str = "compact", bucket: str = "archive") -> list[str]:
    return [pending.key for pending in catalog.pending_deletes(command, bucket) if not pending.is_named]


def test_rows_name_the_new_object_and_nothing_else_of_them_changes(catalog: Catalog) -> None:
    rows = small_objects(catalog)
    before = catalog.ledger(), catalog.summaries(), catalog.coverage()
    noted(catalog)
    moves = moves_of(rows, frame=7)
    catalog.move_documents(moves, MOVING)
    assert list(catalog.rows("alerts")) == [now for _, now in moves]
    assert (catalog.ledger(), catalog.summaries(), catalog.coverage()) == before
    assert catalog.miscounts("alerts") == []


def test_old_objects_wait_for_their_readers_and_the_new_one_is_no_pending_delete_any_more(
    catalog: Catalog,
) -> None:
    rows = small_objects(catalog)
    noted(catalog)
    catalog.move_documents(moves_of(rows), MOVING)
    old = {row.object_key for row in rows}
    for bucket in ("archive", "backup"):
        assert catalog.pending_keys(bucket, [*old, NEW]) == old
        assert catalog.waiting_keys(bucket, [*old, NEW]) == old
        assert to_delete(catalog, bucket=bucket) == []


def test_what_waited_long_enough_is_given_to_be_deleted(catalog: Catalog) -> None:
    rows = small_objects(catalog)
    noted(catalog)
    catalog.move_documents(moves_of(rows), replace(MOVING, grace_s=0.05))
    deadline = time.monotonic() + 20
    while len(to_delete(catalog)) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sorted(to_delete(catalog)) == sorted(row.object_key for row in rows)
    # It is where it ought to be until somebody has had the time to delete it.
    assert len(catalog.waiting_keys("archive", [row.object_key for row in rows])) == 6


def test_what_is_to_be_deleted_at_once_does_not_wait(catalog: Catalog) -> None:
    rows = small_objects(catalog)
    noted(catalog)
    catalog.move_documents(moves_of(rows), AT_ONCE)
    assert sorted(to_delete(catalog)) == sorted(row.object_key for row in rows)
    assert catalog.waiting_keys("archive", [row.object_key for row in rows]) == frozenset()


def test_who_wants_a_waiting_object_deleted_at_once_takes_it_over(catalog: Catalog) -> None:
    rows = small_objects(catalog)
    noted(catalog)
    catalog.move_documents(moves_of(rows), MOVING)
    wanted = rows[2].object_key
    catalog.note_pending_deletes([("archive", wanted)], "alerts", SUPPRESSING)
    for bucket in ("archive", "backup"):
        assert to_delete(catalog, "suppress", bucket) == [wanted]
        assert wanted not in catalog.waiting_keys(bucket, [wanted])
    assert to_delete(catalog) == []


@pytest.mark.parametrize(
    "change",
    [{"object_key": "alerts/elsewhere.bson"}, {"position": 4}, {"crc32": 1}, {"size_bytes": 1}, {"frame": 3}],
)
def test_where_one_row_is_another_by_now_none_is_moved(catalog: Catalog, change: dict[str, object]) -> None:
    rows = small_objects(catalog)
    noted(catalog)
    moves = moves_of(rows)
    moves[3] = moves[3]._replace(was=moves[3].was._replace(**change))  # type: ignore[arg-type] # of this type
    before = everything(catalog, "alerts")
    with pytest.raises(ConflictError, match="moved, taken away or suppressed"):
        catalog.move_documents(moves, MOVING)
    assert everything(catalog, "alerts") == before
    assert catalog.pending_keys("archive", [NEW, *(row.object_key for row in rows)]) == {NEW}


def test_what_was_suppressed_meanwhile_is_not_brought_back(catalog: Catalog) -> None:
    rows = small_objects(catalog)
    noted(catalog)
    stone = f"{rows[1].object_key.removesuffix('.bson')}.1.bson"
    catalog.note_pending_deletes([("archive", stone)], "alerts", SUPPRESSING)
    new = [Replaced(rows[1].uuid, stone, None, 50, 5, is_tombstone=True)]
    catalog.replace_documents(("archive", rows[1].object_key), new, SUPPRESSING)
    with pytest.raises(ConflictError):
        catalog.move_documents(moves_of(rows), MOVING)
    assert {row.object_key for row in catalog.rows("alerts")} == {
        stone if row == rows[1] else row.object_key for row in rows
    }


def test_a_row_that_was_taken_away_meanwhile_keeps_the_others_from_moving(catalog: Catalog) -> None:
    rows = small_objects(catalog)
    noted(catalog)
    catalog.remove([slice_of(2, 3)], "pruned", Removal("prune", "too old"))
    with pytest.raises(ConflictError):
        catalog.move_documents(moves_of(rows), MOVING)
    assert list(catalog.rows("alerts")) == [*rows[:2], *rows[3:]]


def test_a_retracted_message_moves_and_stays_retracted(catalog: Catalog) -> None:
    rows = small_objects(catalog)
    noted(catalog)
    catalog.retract([rows[0].uuid], retracted=True)
    catalog.move_documents(moves_of(rows), MOVING)
    first, *rest = catalog.rows("alerts")
    assert (first.object_key, first.retracted) == (NEW, True)
    assert not any(row.retracted for row in rest)


def test_rows_come_to_name_no_object_that_is_about_to_be_deleted_or_that_nobody_noted(
    catalog: Catalog,
) -> None:
    rows = small_objects(catalog)
    with pytest.raises(ConflictError, match="about to be deleted"):
        catalog.move_documents(moves_of(rows), MOVING)
    catalog.note_pending_deletes([("archive", NEW)], "alerts", AT_ONCE)
    assert to_delete(catalog) == [NEW]
    with pytest.raises(ConflictError, match="about to be deleted"):
        catalog.move_documents(moves_of(rows), MOVING)
    assert list(catalog.rows("alerts")) == rows


def test_a_repair_makes_no_row_name_an_object_that_somebody_is_to_delete(catalog: Catalog) -> None:
    """Between the repair's look at it and its correction, it was noted: whoever noted it saw that no row named it."""
    rows = small_objects(catalog)
    catalog.note_pending_deletes([("archive", NEW)], "alerts", SUPPRESSING)
    assert to_delete(catalog, "suppress") == [NEW]
    with pytest.raises(ConflictError, match="about to be deleted"):
        catalog.correct_rows(moves_of(rows))
    assert list(catalog.rows("alerts")) == rows
    catalog.correct_rows([Correction(rows[0], rows[0]._replace(object_key="elsewhere"))])


def test_what_another_attempt_made_anew_under_the_same_key_is_not_taken_for_ones_own(
    catalog: Catalog,
) -> None:
    """One that hung until its object was taken for a dead process's: the other's may have its documents elsewhere."""
    rows = small_objects(catalog)
    noted(catalog)
    with pytest.raises(ConflictError, match="about to be deleted"):
        catalog.move_documents(moves_of(rows), replace(MOVING, reason="moved, at another time"))
    assert list(catalog.rows("alerts")) == rows


def test_without_a_copy_in_the_backup_the_old_copies_stay_there(catalog: Catalog) -> None:
    rows = small_objects(catalog)
    noted(catalog)
    catalog.move_documents(moves_of(rows), replace(MOVING, backups=()))
    assert catalog.pending_keys("backup", [row.object_key for row in rows]) == frozenset()


def test_a_segment_of_which_other_rows_need_the_rest_is_kept(catalog: Catalog) -> None:
    old = segment_key("alerts", 1, 0, 0, 6)
    rows = [row_at(WHERE, n, object_key=old, position=n * 100) for n in range(6)]
    catalog.commit(Batch(WHERE, rows=rows))
    new = segment_key("alerts", 1, 0, 0, 4)
    noted(catalog, new)
    catalog.move_documents(moves_of(rows[:4], new), AT_ONCE)
    (pending,) = catalog.pending_deletes("compact", "archive")
    assert (pending.key, pending.is_named) == (old, True)


def test_of_many_pending_deletes_those_that_are_due_at_once_come_first(catalog: Catalog) -> None:
    catalog.note_pending_deletes([("archive", "a.zst")], "alerts", replace(AT_ONCE, grace_s=0.001))
    while not catalog.pending_deletes("compact", "archive"):
        time.sleep(0.001)
    catalog.note_pending_deletes([("archive", "y.zst"), ("archive", "z.zst")], "alerts", AT_ONCE)
    assert [one.key for one in catalog.pending_deletes("compact", "archive", most=2)] == ["y.zst", "z.zst"]
    assert to_delete(catalog) == ["a.zst", "y.zst", "z.zst"]


def test_messages_of_one_segment_may_be_taken_away_with_a_grace_for_it(catalog: Catalog) -> None:
    """However many rows name it, it is one pending delete, due at one time."""
    key = segment_key("alerts", 1, 0, 0, 6)
    rows = [row_at(WHERE, n, object_key=key, position=n * 100) for n in range(6)]
    catalog.commit(Batch(WHERE, rows=rows))
    assert catalog.remove_messages([row.uuid for row in rows], "skipped", MOVING).messages == 6
    assert catalog.waiting_keys("archive", [key]) == catalog.waiting_keys("backup", [key]) == {key}
    assert to_delete(catalog) == []


# Which objects there are


def test_objects_are_told_in_order_of_their_first_offsets_with_what_rows_name_of_them(
    catalog: Catalog,
) -> None:
    where = slice_of(10, 20)
    framed = segment_key("alerts", 1, 0, 10, 20, compressed=True)
    rows = [
        row_at(where, 10, timestamp_ms=110, object_key="alerts/a.bson", position=None, size_bytes=70),
        row_at(
            where, 12, timestamp_ms=112, object_key=framed, position=0, size_bytes=100, frame=0, frame_size=30
        ),
        row_at(where, 13, timestamp_ms=113, object_key="alerts/b.bson", position=None, size_bytes=5),
        row_at(
            where,
            17,
            timestamp_ms=117,
            object_key=framed,
            position=9,
            size_bytes=200,
            frame=30,
            frame_size=40,
        ),
    ]
    catalog.commit(Batch(where, rows=rows))
    catalog.adopt([adopted_row(topic="alerts")])
    a = ObjectShare("alerts/a.bson", "archive", 1, 70, 70, 10, 10, 110)
    both = ObjectShare(framed, "archive", 2, 300, 70, 12, 17, 117)
    b = ObjectShare("alerts/b.bson", "archive", 1, 5, 5, 13, 13, 113)
    assert catalog.objects_in(where, 100) == [a, both, b]
    assert catalog.objects_in(slice_of(13, 20), 100) == [b, both._replace(rows=1, size_bytes=200, first=17)]
    assert catalog.objects_in(where, 2) == [
        a,
        both._replace(rows=1, size_bytes=100, stored_bytes=30, last=12, newest_ms=112),
    ]
    assert catalog.objects_in(slice_of(0, 10), 100) == []


# How far


def test_how_far_a_log_was_compacted_never_goes_back_and_moves_are_counted(catalog: Catalog) -> None:
    assert catalog.compacted() == {}
    catalog.note_compacted(LOG, done_to=5, looked_to=0)
    catalog.note_compacted(LOG, done_to=3, looked_to=9)
    assert catalog.compacted() == {LOG: Compacted(LOG, 5, 9, 0)}
    rows = small_objects(catalog)
    noted(catalog)
    catalog.move_documents(moves_of(rows), MOVING)
    assert catalog.compacted(["alerts"]) == {LOG: Compacted(LOG, 5, 9, 1)}
    assert catalog.compacted(["others"]) == {}
    with pytest.raises(ConflictError):
        catalog.move_documents(moves_of(rows), MOVING)
    assert catalog.compacted()[LOG].moves == 1


def test_striking_out_spares_what_was_noted_again(catalog: Catalog) -> None:
    catalog.note_pending_deletes([("archive", NEW)], "alerts", AT_ONCE)
    seen: Sequence[PendingDelete] = catalog.pending_deletes("compact", "archive")
    catalog.note_pending_deletes([("archive", NEW)], "alerts", MOVING)
    catalog.strike_out(seen)
    assert catalog.pending_keys("archive", [NEW]) == {NEW}
