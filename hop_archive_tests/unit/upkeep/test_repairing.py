"""Mending, kind by kind, on a mock archive: from a backup, from Kafka, from the store itself, or not at all and why."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Batch, Outcome, Removal, Row
from hop_archive.errors import CorruptError, ForbiddenError
from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.write import commit_batches, store_slices
from hop_archive.model.document import decode, encode
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.keys import object_key, segment_key
from hop_archive.model.message import TimestampType
from hop_archive.model.slices import Slice
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import NewObject
from hop_archive.upkeep.remove.remove import Removing
from hop_archive.upkeep.remove.suppress import suppress
from hop_archive.upkeep.repair.orphans import plan_orphan
from hop_archive.upkeep.repair.plan import QUARANTINE, NotMendedError, Repair, Upstream
from hop_archive.upkeep.repair.repair import RepairOutcome
from hop_archive_tests.damaging import Ruin, kinds, ruin
from hop_archive_tests.invariants import assert_archived, assert_no_object_twice, fetched
from hop_archive_tests.removals import archive_all, small_world
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, WorldLayout, exhausted

Damage = Callable[[Ruin, Row], object]


@pytest.fixture(params=["message", "segment", "zstd"])
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ruin:
    monkeypatch.setattr("hop_archive.model.frames.FRAME_BYTES", 1_000)  # two or three documents a frame
    found = ruin(request.param)
    assert found.verify() == []
    return found


def victim(broken: Ruin) -> Row:
    return broken.rows(BUSY)[10]


def assert_whole(broken: Ruin) -> None:
    broken.replicate()
    assert broken.verify() == []
    assert list(broken.world.catalog.findings()) == []
    archive = broken.archive()
    for topic in (BUSY, QUIET):
        assert_archived(archive, broken.world.cluster, topic)
    assert_no_object_twice(archive)


DAMAGES: dict[str, tuple[Damage, set[str]]] = {
    "object deleted": (lambda b, row: b.drop(row.object_key), {"missing_object"}),
    "object truncated": (lambda b, row: b.truncate(row), {"wrong_size"}),
    "bit flipped": (lambda b, row: b.flip(row), {"corrupt_object"}),
    "length flipped": (lambda b, row: b.flip(row, 1), {"corrupt_object"}),
    "row altered": (
        lambda b, row: b.alter(row, timestamp_ms=row.timestamp_ms + 1, digest=b"0" * 16),
        {"row_differs"},
    ),
    "timestamp type altered": (
        lambda b, row: b.alter(row, timestamp_type=TimestampType.NONE),
        {"row_differs"},
    ),
    "checksum altered": (lambda b, row: b.alter(row, crc32=row.crc32 ^ 1), {"row_differs"}),
    "size altered": (
        lambda b, row: b.alter(row, size_bytes=row.size_bytes - 1),
        {"corrupt_object", "wrong_size"},
    ),
    "key altered": (
        lambda b, row: b.alter(row, object_key=f"{row.topic}/elsewhere"),
        {"missing_object", "orphan_object"},
    ),
    "row deleted": (lambda b, row: b.drop_row(row), {"count_mismatch", "orphan_object"}),
    "ledger row removed": (lambda b, row: b.drop_ledger_row(row), {"coverage_hole"}),
    "ledger row altered": (lambda b, row: b.miscount(row), {"count_mismatch"}),
}


@pytest.mark.parametrize("means", ["backup", "Kafka"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_damaged_is_found_planned_and_mended(broken: Ruin, damage: str, means: str) -> None:
    act, expected = DAMAGES[damage]
    act(broken, victim(broken))
    found = broken.verify()
    assert found
    assert set(kinds(found)) <= expected
    before = list(broken.world.store.listing())
    planned = broken.repair(dry_run=True, backup=means == "backup")
    outcomes = {one.outcome for one in planned if one.record.finding.bucket != broken.backup.bucket}
    assert outcomes <= {RepairOutcome.PLANNED, RepairOutcome.GONE}
    assert list(broken.world.store.listing()) == before
    mended = broken.repair(backup=means == "backup", source=means == "Kafka" or "ledger" in damage)
    assert {one.outcome for one in mended} <= {RepairOutcome.MENDED, RepairOutcome.GONE}, [
        (m.outcome, m.how) for m in mended
    ]
    assert_whole(broken)


@pytest.mark.parametrize("layout", ["segment", "zstd"])
def test_a_row_that_says_another_place_in_its_segment_is_corrected_without_backup_or_kafka(
    layout: WorldLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hop_archive.model.frames.FRAME_BYTES", 1_000)
    broken = ruin(layout)
    rows = broken.rows(BUSY)[10:13]
    first, second, third = rows
    broken.alter(first, position=(first.position or 0) + 7)
    broken.alter(second, frame=third.frame, frame_size=third.frame_size, position=third.position)
    broken.alter(third, frame=None if third.frame is None else third.frame + 1, position=10**6)
    assert broken.verify()
    mended = broken.repair(backup=False, source=False)
    assert RepairOutcome.MENDED in {one.outcome for one in mended}
    assert broken.rows(BUSY)[10:13] == rows
    assert_whole(broken)


def test_damaged_bytes_are_moved_aside_and_never_lost(broken: Ruin) -> None:
    row = victim(broken)
    broken.flip(row)
    damaged = broken.body(row.object_key)
    broken.verify()
    broken.repair()
    assert broken.body(f"{QUARANTINE}{row.object_key}") == damaged
    keys = [info.key for info in broken.world.store.listing()]
    assert row.object_key not in keys


def test_where_nothing_may_be_deleted_damaged_bytes_stay_and_are_told(broken: Ruin) -> None:
    broken.flip(victim(broken))
    broken.verify()
    broken.world.store._deleting_allowed = False
    assert all(
        "does not allow deleting" in one.how for one in broken.repair() if one.outcome is RepairOutcome.MENDED
    )
    broken.replicate()
    assert kinds(broken.verify()) == ["orphan_object"]
    (left,) = broken.repair()
    assert (left.outcome, "does not allow deleting" in left.how) == (RepairOutcome.LEFT, True)


def test_what_is_good_nowhere_stays_open_and_says_why(broken: Ruin) -> None:
    broken.drop(victim(broken).object_key)
    broken.forget()
    broken.verify()
    mended = broken.repair(backup=False)
    assert {one.outcome for one in mended} == {RepairOutcome.LEFT}
    assert "good in none of: the store itself, Kafka" in mended[0].how
    assert kinds([one.finding for one in broken.world.catalog.findings()]) == ["missing_object"]
    assert {one.outcome for one in broken.repair()} == {RepairOutcome.MENDED}  # once there is a backup
    assert broken.verify() == []


def test_what_is_partly_good_is_partly_mended() -> None:
    broken = ruin("segment")
    first, second, *_ = [
        row for row in broken.rows(BUSY) if row.object_key == broken.rows(BUSY)[0].object_key
    ]
    broken.flip(first)
    broken.flip(second)
    body = bytearray(broken.body(first.object_key))
    body[(second.position or 0) + 40] ^= 1  # whole again
    copy = MockStore("backup", bucket="backup")
    copy.create([NewObject(first.object_key, bytes(body[:-1]))])
    broken.backup = copy
    broken.verify()
    broken.repair(source=False)
    left = [one.finding for one in broken.world.catalog.findings()]
    assert {one.uuid for one in left if one.kind is Kind.CORRUPT_OBJECT} == {first.uuid}


def test_an_orphan_that_is_a_copy_or_garbage_is_moved_aside(broken: Ruin) -> None:
    row = broken.rows(BUSY)[0]
    copy = object_key(row.topic, row.timestamp_ms, row.uuid).replace(".bson", ".7.bson")
    one = fetched(broken.world.store, row)
    garbage = f"{BUSY}/2026/1/2/3/{uuid.UUID(int=99)}.bson"
    broken.world.store.create([NewObject(copy, one), NewObject(garbage, b"?")])
    assert kinds(broken.verify()) == ["orphan_object"]
    assert {one.outcome for one in broken.repair(source=False)} == {RepairOutcome.MENDED}
    assert broken.body(f"{QUARANTINE}{garbage}") == b"?"
    assert_whole(broken)


def test_an_object_that_a_run_may_be_about_to_name_is_left(broken: Ruin) -> None:
    broken.world.cluster.append(QUIET, b"fresh")
    state = broken.archive()
    from hop_archive.ingest.survey import plan_work
    from hop_archive.ingest.write import store_slices

    store_slices(state, plan_work(state).plan.slices)
    assert kinds(broken.verify()) == ["orphan_object"]
    for source in (False, True):
        (left,) = broken.repair(source=source)
        assert left.outcome is RepairOutcome.LEFT
    from hop_archive.ingest.follow import catch_up

    for _ in catch_up(broken.archive()):
        pass
    assert_whole(broken)


def test_an_orphan_that_kafka_holds_no_more_is_catalogued(broken: Ruin) -> None:
    from hop_archive.ingest.survey import plan_work
    from hop_archive.ingest.write import store_slices

    broken.world.cluster.append(QUIET, b"the last copy", key=b"k")
    archive = broken.archive()
    store_slices(archive, plan_work(archive).plan.slices)
    count = len(broken.rows(QUIET))
    broken.forget()
    broken.verify()
    assert {one.outcome for one in broken.repair()} == {RepairOutcome.MENDED}
    rows = broken.rows(QUIET)
    assert len(rows) == count + 1
    broken.replicate()
    assert broken.verify() == []


def test_an_orphan_of_a_log_that_is_over_is_put_aside_and_no_run_can_name_it_any_more() -> None:
    broken = ruin("segment")
    log = next(iter(broken.world.catalog.coverage([QUIET])))
    stop = broken.world.catalog.coverage([QUIET])[log].stop
    broken.world.cluster.append(QUIET, b"read under the old name", key=b"k", timestamp_ms=1_700_000_000_000)
    hung = store_slices(broken.archive(), [Slice(*log, stop, stop + 1)])
    broken.world.cluster.recreate_topic(QUIET)
    broken.world.cluster.append(QUIET, b"read under the old name", key=b"k", timestamp_ms=1_700_000_000_000)
    for _ in catch_up(broken.archive()):
        pass
    broken.replicate()
    assert kinds(broken.verify()) == ["orphan_object"]
    (mended,) = broken.repair()
    assert mended.outcome is RepairOutcome.MENDED, mended.how
    broken.replicate()
    assert broken.verify() == []
    assert [done.archived for done in commit_batches(broken.archive(), hung)] == [0]


def test_an_orphan_that_alone_has_a_message_whose_uuid_other_content_took_is_left_to_people() -> None:
    """Its row is gone, which the ledger counts, and Kafka has neither; what stands under its UUID now is no copy of it."""
    from hop_archive.ingest.follow import catch_up

    broken = ruin("message")
    row = victim(broken)
    broken.drop_row(row)
    broken.forget()
    broken.world.cluster.append(QUIET, b"other content", headers=(("_id", row.uuid.bytes),))
    for _ in catch_up(broken.archive()):
        pass
    there = broken.world.catalog.find(row.uuid)
    assert there is not None
    assert there.topic == QUIET
    broken.replicate()
    broken.verify()
    (left,) = [one for one in broken.repair() if one.record.finding.kind is Kind.ORPHAN_OBJECT]
    assert (left.outcome, "other content" in left.how) == (RepairOutcome.LEFT, True), left.how
    assert "orphan_object" in kinds(broken.verify())


def test_an_orphan_of_a_log_that_is_over_is_left_to_people_where_other_content_took_its_uuid() -> None:
    from hop_archive.ingest.follow import catch_up
    from hop_archive.ingest.write import store_slices

    broken = ruin("segment")
    log = next(iter(broken.world.catalog.coverage([QUIET])))
    stop = broken.world.catalog.coverage([QUIET])[log].stop
    own = (("_id", uuid.UUID(int=5).bytes),)
    broken.world.cluster.append(QUIET, b"read under the old name", headers=own)
    store_slices(broken.archive(), [Slice(*log, stop, stop + 1)])
    broken.world.cluster.recreate_topic(QUIET)
    broken.world.cluster.append(QUIET, b"other content", headers=own)
    for _ in catch_up(broken.archive()):
        pass
    broken.replicate()
    assert "orphan_object" in kinds(broken.verify())
    (left,) = [one for one in broken.repair() if one.record.finding.kind is Kind.ORPHAN_OBJECT]
    assert (left.outcome, "other content" in left.how) == (RepairOutcome.LEFT, True), left.how


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_an_orphan_of_what_is_called_lost_is_left_to_a_rebuild_which_takes_it_in(layout: WorldLayout) -> None:
    """A run died before it recorded what it had stored, and then retention was faster than the next one."""
    broken = ruin(layout)
    world = broken.world
    log = next(iter(world.catalog.coverage([QUIET])))
    stop = world.catalog.coverage([QUIET])[log].stop
    world.cluster.append(QUIET, b"stored, and not recorded", timestamp_ms=1_700_000_000_000)
    store_slices(broken.archive(), [Slice(*log, stop, stop + 1)])
    world.cluster.delete_records(QUIET, 0, stop + 1)
    exhausted(catch_up(broken.archive()))
    assert Outcome.LOST in {entry.outcome for entry in world.catalog.ledger([QUIET])}
    broken.replicate()
    keys = {info.key for info in world.store.listing()}
    assert set(kinds(broken.verify())) == {"orphan_object", "lost"}
    left = [one for one in broken.repair() if one.record.finding.kind is Kind.ORPHAN_OBJECT]
    assert [(one.outcome, f"rebuild-catalog -T {QUIET}" in one.how) for one in left] == [
        (RepairOutcome.LEFT, True)
    ]
    assert {info.key for info in world.store.listing()} == keys, "it is not put aside"
    exhausted(rebuild(Rebuild(world.catalog, world.store, None)))
    assert [row.offset for row in world.catalog.rows(QUIET)][-1] == stop
    assert broken.verify() == []


def test_an_orphan_of_what_is_called_lost_is_left_to_people_where_other_content_took_its_uuid() -> None:
    """The same, and what came next had the UUID of what was not recorded: no rebuild gives it a row."""
    broken = ruin("segment")
    world, own = broken.world, (("_id", uuid.UUID(int=5).bytes),)
    log = next(iter(world.catalog.coverage([QUIET])))
    stop = world.catalog.coverage([QUIET])[log].stop
    world.cluster.append(QUIET, b"stored, and not recorded", headers=own)
    store_slices(broken.archive(), [Slice(*log, stop, stop + 1)])
    world.cluster.delete_records(QUIET, 0, stop + 1)
    world.cluster.append(QUIET, b"other content", headers=own)
    exhausted(catch_up(broken.archive()))
    broken.replicate()
    keys = {info.key for info in world.store.listing()}
    broken.verify()
    (left,) = [one for one in broken.repair() if one.record.finding.kind is Kind.ORPHAN_OBJECT]
    assert (left.outcome, "other content" in left.how) == (RepairOutcome.LEFT, True), left.how
    assert {info.key for info in world.store.listing()} == keys, "it is not put aside"


def test_suppressing_deletes_no_orphan_that_alone_has_a_message_which_is_called_lost() -> None:
    broken = ruin("segment")
    world = broken.world
    log = next(iter(world.catalog.coverage([QUIET])))
    stop = world.catalog.coverage([QUIET])[log].stop
    asked = next(row for row in world.catalog.rows(QUIET))
    world.cluster.append(QUIET, b"stored, and not recorded", timestamp_ms=1_700_000_000_000)
    (stored,) = store_slices(broken.archive(), [Slice(*log, stop, stop + 1)])
    both = broken.body(asked.object_key) + broken.body(stored.rows[0].object_key)
    broken.put(segment_key(*log, 0, stop + 1), both)
    broken.drop(stored.rows[0].object_key)
    world.cluster.delete_records(QUIET, 0, stop + 1)
    exhausted(catch_up(broken.archive()))
    removing = Removing(world.catalog, world.store, broken.backup)
    with pytest.raises(CorruptError, match="which the catalog does not know"):
        suppress(removing, [asked.uuid], "a court said so", grace_s=-1)
    exhausted(rebuild(Rebuild(world.catalog, world.store, None)))
    assert [row.offset for row in world.catalog.rows(QUIET)][-1] == stop
    suppress(removing, [asked.uuid], "a court said so", grace_s=-1)
    assert both[: asked.size_bytes] not in b"".join(broken.body(info.key) for info in world.store.listing())


def test_an_object_whose_delete_is_pending_is_not_catalogued_again() -> None:
    broken = ruin("message")
    row = broken.rows(BUSY)[5]
    place = Slice(BUSY, row.generation or 0, row.partition or 0, row.offset or 0, (row.offset or 0) + 1)
    broken.world.catalog.remove([place], "pruned", Removal("prune", "old"))
    assert broken.world.catalog.find(row.uuid) is None
    assert kinds(broken.verify()) == ["orphan_object"]
    (left,) = broken.repair()
    assert left.outcome is RepairOutcome.LEFT
    assert "pending" in left.how
    assert broken.world.catalog.find(row.uuid) is None


def test_an_orphan_of_a_document_that_was_changed_is_not_believed(broken: Ruin) -> None:
    row = broken.rows(BUSY)[3]
    one = fetched(broken.world.store, row)
    document = decode(one)
    forged = replace(document, message=document.message._replace(value=b"forged"), uuid=uuid.UUID(int=77))
    key = object_key(BUSY, document.message.timestamp_ms, forged.uuid)
    broken.world.store.create([NewObject(key, encode(forged))])
    broken.verify()
    assert {one.outcome for one in broken.repair()} == {RepairOutcome.MENDED}
    assert broken.body(f"{QUARANTINE}{key}") == encode(forged)
    assert broken.world.catalog.find(forged.uuid) is None


def test_what_was_suppressed_does_not_come_back(broken: Ruin) -> None:
    row = victim(broken)
    broken.flip(row)
    broken.world.catalog.suppress({row.uuid: row.topic}, "by law")
    broken.verify()
    assert {one.outcome for one in broken.repair() if one.record.finding.uuid == row.uuid} == {
        RepairOutcome.LEFT
    }
    (kept,) = [one for one in broken.world.catalog.findings() if one.finding.uuid == row.uuid]
    assert kept.finding.kind is Kind.CORRUPT_OBJECT


@pytest.mark.parametrize("value", [b"a secret", None])
def test_an_orphan_with_content_that_was_suppressed_is_not_put_where_suppressing_does_not_look(
    value: bytes | None,
) -> None:
    """Too young for suppressing when that was done; quarantine would keep it for ever."""
    from hop_archive.ingest.follow import catch_up
    from hop_archive.upkeep.remove.remove import Removing
    from hop_archive.upkeep.remove.suppress import suppress

    broken = ruin("message")
    broken.world.cluster.append(QUIET, value, key=b"a secret")
    for _ in catch_up(broken.archive()):
        pass
    row = max(broken.rows(QUIET), key=lambda row: row.offset or 0)
    left_over = row.object_key.replace(".bson", ".7.bson")
    broken.world.store.create([NewObject(left_over, fetched(broken.world.store, row))])
    broken.world.store._deleting_allowed = True
    removing = Removing(broken.world.catalog, broken.world.store)
    assert left_over in suppress(removing, [row.uuid], "by law").young
    broken.verify()
    assert [one.outcome for one in broken.repair() if one.record.finding.object_key == left_over] == [
        RepairOutcome.LEFT
    ]
    suppress(removing, [row.uuid], "by law", grace_s=-1)
    assert not [
        info.key
        for info in broken.world.store.listing()
        if str(row.uuid) in info.key and ".1." not in info.key
    ]


def test_content_that_was_suppressed_goes_with_an_orphan_where_its_row_is_gone(broken: Ruin) -> None:
    """Taken away after it was suppressed; a crashed run had left its content, and repair says to suppress it again."""
    from hop_archive.ingest.survey import plan_work
    from hop_archive.ingest.write import store_slices
    from hop_archive.upkeep.remove.remove import Removing
    from hop_archive.upkeep.remove.suppress import suppress

    own = uuid.UUID(int=5)
    broken.world.cluster.append(QUIET, b"a secret", headers=(("_id", own.bytes),))
    archive = broken.archive()
    (batch,) = store_slices(archive, plan_work(archive).plan.slices)
    broken.world.catalog.suppress({own: QUIET}, "by law")
    broken.replicate()
    assert kinds(broken.verify()) == ["orphan_object"]
    (left,) = broken.repair()
    assert "suppress it again" in left.how
    broken.world.store._deleting_allowed = broken.backup._deleting_allowed = True
    removing = Removing(broken.world.catalog, broken.world.store, broken.backup)
    assert len(suppress(removing, [own], "by law").young) == 1
    done = suppress(removing, [own], "by law", grace_s=-1)
    assert (done.young, len(done.unsettled)) == ((), 1), "other content may have its UUID, however old it is"
    broken.world.catalog.commit(Batch(batch.slice, Outcome.SKIPPED, "a message marked as a test, cleaned up"))
    assert suppress(removing, [own], "by law").unknown == (own,)
    assert kinds(broken.verify()) == ["orphan_object"], "it may be another process's"
    suppress(removing, [own], "by law", grace_s=-1)
    assert broken.verify() == []


def test_content_that_was_suppressed_goes_with_an_orphan_of_a_generation_that_the_catalog_does_not_know(
    broken: Ruin,
) -> None:
    """The catalog was lost and begun anew; messages came once more, and were suppressed."""
    from hop_archive.upkeep.remove.remove import Removing
    from hop_archive.upkeep.remove.suppress import suppress

    world, asked = broken.world, [uuid.UUID(int=number) for number in (1005, 1006)]
    world.cluster.recreate_topic(QUIET)
    for life in range(2):
        for own in asked:
            world.cluster.append(
                QUIET, b"a secret", headers=(("_id", own.bytes),), timestamp_ms=NOW_MS + life
            )
        exhausted(catch_up(broken.archive(), overlap=0))
        if not life:
            old = {row.object_key for row in broken.rows(QUIET) if row.uuid in asked}
            world.catalog = MockCatalog()
            world.cluster.recreate_topic(QUIET)
    broken.replicate()
    world.store._deleting_allowed = broken.backup._deleting_allowed = True
    removing = Removing(world.catalog, world.store, broken.backup)
    suppress(removing, asked, "by law")
    broken.verify()
    assert old <= {*suppress(removing, asked, "by law").young}
    assert suppress(removing, asked, "by law", grace_s=-1).done == tuple(asked)
    for store in (world.store, broken.backup):
        assert not old & {info.key for info in store.listing()}


def test_a_copy_that_the_backup_lacks_is_made_and_one_that_differs_is_left(broken: Ruin) -> None:
    keys = [info.key for info in broken.backup.listing()]
    broken.backup._deleting_allowed = True
    broken.backup.delete(keys[:2])
    broken.backup.create([NewObject(keys[1], b"?")])
    broken.backup._deleting_allowed = False
    assert kinds(broken.verify()) == ["missing_object", "wrong_size"]
    outcomes = {one.record.finding.object_key: one.outcome for one in broken.repair()}
    assert outcomes == {keys[0]: RepairOutcome.MENDED, keys[1]: RepairOutcome.LEFT}
    assert kinds(broken.verify()) == ["wrong_size"]


def test_holes_are_not_closed_by_guessing_whether_kafka_holds_them(broken: Ruin) -> None:
    broken.drop_ledger_row(victim(broken))
    broken.verify()
    (left,) = broken.repair(source=False)
    assert (left.outcome, "name the source" in left.how) == (RepairOutcome.LEFT, True)
    broken.forget()
    (mended,) = broken.repair()
    assert mended.outcome is RepairOutcome.MENDED
    assert "may be lost" in mended.how
    assert broken.verify() == []


def test_messages_missing_in_a_hole_are_read_again(broken: Ruin) -> None:
    row = victim(broken)
    broken.drop_ledger_row(row)
    broken.drop_row(row)
    if row.position is None:
        broken.drop(row.object_key)
    broken.verify()
    broken.repair(backup=False)
    assert_whole(broken)


def test_a_row_and_its_object_that_are_both_gone_are_read_again(broken: Ruin) -> None:
    row = victim(broken)
    broken.drop_row(row)
    if row.position is None:
        broken.drop(row.object_key)
    else:
        rest = [r for r in broken.rows(BUSY) if r.object_key == row.object_key]
        for one in rest:
            broken.drop_row(one)
        broken.drop(row.object_key)
    broken.verify()
    broken.repair(backup=False)
    assert_whole(broken)


def test_what_is_counted_and_nowhere_to_be_had_stays_open(broken: Ruin) -> None:
    row = victim(broken)
    broken.drop_row(row)
    if row.position is None:
        broken.drop(row.object_key)
    else:
        broken.flip(row)
    broken.forget()
    broken.verify()
    broken.repair()
    left = [one for one in broken.world.catalog.findings() if one.finding.kind is Kind.COUNT_MISMATCH]
    assert left
    assert broken.repair(dry_run=False)[-1].outcome is RepairOutcome.LEFT


@pytest.mark.parametrize("damage", ["row deleted", "ledger row altered"])
def test_a_wrong_count_is_mended_also_once_its_ledger_row_was_merged_with_others(damage: str) -> None:
    broken = ruin("segment")
    row = victim(broken)
    DAMAGES[damage][0](broken, row)
    (found,) = [f for f in broken.verify() if f.kind is Kind.COUNT_MISMATCH and f.slice]
    now = broken.archive().now()
    assert broken.world.catalog.merge_ledger(now + datetime.timedelta(days=1)) > 0
    assert found.slice not in [entry.slice for entry in broken.world.catalog.ledger([row.topic])]
    assert {one.outcome for one in broken.repair()} == {RepairOutcome.MENDED}
    assert_whole(broken)


def test_a_segment_of_a_topic_of_which_the_catalog_knows_another_archivers_rows_alone_is_left() -> None:
    """As in a catalog that was put back to before the archive's first run: there is no generation yet."""
    world = archive_all(small_world("segment"))
    nowhere = dict.fromkeys(
        ("generation", "partition", "offset", "timestamp_type", "digest", "position", "frame", "frame_size")
    )
    before = MockCatalog()
    rows = list(world.catalog.rows(QUIET))
    before.adopt([row._replace(object_key=f"{QUIET}/{row.uuid}.bson", **nowhere) for row in rows])  # type: ignore[arg-type] # nulls
    asked = Repair(before, world.store, None, Upstream(None))
    with pytest.raises(NotMendedError, match=f"no generation 1 of {QUIET}.*rebuild-catalog -T {QUIET}"):
        plan_orphan(asked, Finding(Kind.ORPHAN_OBJECT, QUIET, "", object_key=rows[0].object_key))


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
@pytest.mark.parametrize(("generation", "later"), [(1, 30), (1, 2), (2, 30)])
def test_what_was_archived_before_a_catalog_was_lost_and_begun_anew_is_left_to_a_rebuild(
    layout: WorldLayout, generation: int, later: int
) -> None:
    """Nobody rebuilt it: what the store has of each topic's first life stands where the catalog has its second."""
    broken = ruin(layout)
    world = broken.world
    if generation == 2:
        world.cluster.recreate_topic(QUIET)
        world.cluster.append(QUIET, b"of the second life")
        exhausted(catch_up(broken.archive(), overlap=0))
    before = {row.uuid for row in world.catalog.rows(QUIET)}
    world.catalog = MockCatalog()
    world.cluster.recreate_topic(QUIET)
    for number in range(later):
        world.cluster.append(QUIET, b"of a later life %d" % number, timestamp_ms=1_700_000_000_000 + number)
    exhausted(catch_up(broken.archive(), overlap=0))
    broken.replicate()
    keys = {info.key for info in world.store.listing()}
    assert {finding.kind for finding in broken.verify()} == {Kind.ORPHAN_OBJECT}
    left = [one for one in broken.repair() if one.outcome is RepairOutcome.LEFT]
    assert left
    assert all(f"rebuild-catalog -T {QUIET}" in one.how for one in left)
    assert {info.key for info in world.store.listing()} == keys, "none is put aside"
    list(rebuild(Rebuild(world.catalog, world.store, None)))
    assert before <= {row.uuid for row in world.catalog.rows(QUIET)}
    assert broken.verify() == []


def test_what_is_not_the_archives_is_left_to_people(broken: Ruin) -> None:
    broken.world.store.create([NewObject("readme.txt", b"?")])
    broken.verify()
    (left,) = broken.repair()
    assert (left.outcome, left.record.finding.kind) == (RepairOutcome.LEFT, Kind.FOREIGN_OBJECT)
    broken.drop("readme.txt")
    assert [one.outcome for one in broken.repair()] == [RepairOutcome.GONE]


def test_deleting_none_tells_whether_deleting_is_allowed() -> None:
    MockStore(deleting_allowed=True).delete([])
    with pytest.raises(ForbiddenError):
        MockStore().delete([])
