"""What Kafka still holds, read again and compared with the rows by digest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hop_archive.model.findings import Finding
from hop_archive.upkeep.repair.repair import RepairOutcome
from hop_archive.upkeep.verify.source import source_documents
from hop_archive.upkeep.verify.verification import Verification
from hop_archive_tests.damaging import Ruin, kinds, ruin
from hop_archive_tests.worlds import BUSY, QUIET


@pytest.fixture
def sound() -> Ruin:
    return ruin("segment")


def reread(broken: Ruin, sample: int | None = None) -> tuple[list[Finding], int]:
    wanted = Verification(broken.world.catalog, broken.world.store, sample=sample)
    found = list(source_documents(wanted, broken.archive()))
    return found, wanted.checked.counts["messages read again"]


def test_what_was_archived_is_what_kafka_holds_copies_included(sound: Ruin) -> None:
    found, read = reread(sound)
    assert found == []
    rows = len(sound.rows(BUSY)) + len(sound.rows(QUIET))
    assert read == rows + len(list(sound.world.catalog.duplicates(BUSY)))


def test_a_sample_is_read_of_each_partition_and_no_more(sound: Ruin) -> None:
    found, read = reread(sound, sample=10)
    assert found == []
    assert 10 <= read <= 3 * 20


def test_a_row_of_other_content_is_told_and_left_to_people(sound: Ruin) -> None:
    row = sound.rows(BUSY)[5]
    sound.alter(row, digest=b"0" * 16)
    found, _ = reread(sound)
    assert [(one.kind.value, one.slice and one.slice.start) for one in found] == [("row_differs", row.offset)]
    sound.world.catalog.note_findings(found, sound.archive().now())
    assert [one.outcome for one in sound.repair() if not one.record.finding.object_key] == [
        RepairOutcome.LEFT
    ]


def test_a_message_for_which_nothing_is_recorded_is_told(sound: Ruin) -> None:
    row = sound.rows(BUSY)[5]
    sound.drop_row(row)
    found, _ = reread(sound)
    assert (kinds(found), [one.uuid for one in found]) == (["not_archived"], [row.uuid])
    sound.world.catalog.note_findings(found, sound.archive().now())
    assert [one.outcome for one in sound.repair()] == [RepairOutcome.LEFT]
    sound.verify()
    assert "not_archived" in kinds([one.finding for one in sound.world.catalog.findings()])


def forget_copies(broken: Ruin) -> None:
    """As a catalog is that was rebuilt from the store alone: no document shows that a copy was there."""
    with broken.world.catalog._state.change() as tables:
        tables.duplicates.clear()
        for ledger in tables.ledger.values():
            ledger[:] = [replace(e, duplicates=0, absent=e.absent + e.duplicates) for e in ledger]


def test_a_copy_that_a_rebuilt_catalog_lacks_is_told_and_recorded(sound: Ruin) -> None:
    copies = list(sound.world.catalog.duplicates(BUSY))
    forget_copies(sound)
    found, _ = reread(sound)
    assert (kinds(found), len(found)) == (["not_archived"], len(copies))
    assert all(
        f"copy of {one.uuid}" in finding.detail for finding, (_, one) in zip(found, copies, strict=True)
    )
    sound.world.catalog.note_findings(found, sound.archive().now())
    assert [one.outcome for one in sound.repair(dry_run=True)] == [RepairOutcome.PLANNED] * len(copies)
    assert reread(sound)[0] == found
    assert [one.outcome for one in sound.repair()] == [RepairOutcome.MENDED] * len(copies)
    assert list(sound.world.catalog.duplicates(BUSY)) == copies
    assert reread(sound)[0] == []
    assert sound.verify() == []


def test_a_message_that_is_no_copy_is_not_called_one(sound: Ruin) -> None:
    copies = list(sound.world.catalog.duplicates(BUSY))
    forget_copies(sound)
    for own in {one.uuid for _, one in copies}:
        row = sound.world.catalog.find(own)
        assert row is not None
        sound.drop_row(row)
    found, _ = reread(sound)
    sound.world.catalog.note_findings(found, sound.archive().now())
    assert {one.outcome for one in sound.repair()} == {RepairOutcome.LEFT}
    assert list(sound.world.catalog.duplicates(BUSY)) == []


def test_a_copy_of_which_the_original_is_gone_is_told(sound: Ruin) -> None:
    (_, copy), *_ = sound.world.catalog.duplicates(BUSY)
    kept = sound.world.catalog.find(copy.uuid)
    assert kept is not None
    sound.drop_row(kept)
    found, _ = reread(sound)
    assert {"row_differs", "not_archived"} == set(kinds(found))


def test_what_kafka_holds_no_more_is_not_asked_for(sound: Ruin) -> None:
    sound.forget()
    assert reread(sound) == ([], 0)
