"""What the backup may lack without a word: what replication has not copied yet, and nothing else."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from hop_archive.archive import utc_now
from hop_archive.config.load import parse
from hop_archive.config.open import backup_grace_s
from hop_archive.model.findings import Kind
from hop_archive.store.protocol import NewObject
from hop_archive.upkeep.verify.objects import backup_objects
from hop_archive.upkeep.verify.verification import Verification
from hop_archive_tests.damaging import Ruin, ruin
from hop_archive_tests.worlds import BUSY


@pytest.fixture(params=["message", "segment", "zstd"])
def kept(request: pytest.FixtureRequest) -> Ruin:
    made = ruin(request.param)
    made.backup._deleting_allowed = True
    return made


def wanted(kept: Ruin, minutes_later: float = 0.0, **changes: object) -> Verification:
    later = datetime.timedelta(minutes=minutes_later)
    made = Verification(
        kept.world.catalog, kept.world.store, backup=kept.backup, now=lambda: utc_now() + later
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def missing(kept: Ruin, minutes_later: float = 0.0, **changes: object) -> list[str]:
    found = list(backup_objects(wanted(kept, minutes_later, **changes)))
    assert {(one.kind, one.bucket) for one in found} <= {(Kind.MISSING_OBJECT, kept.backup.bucket)}
    return sorted(one.object_key for one in found)


def keys(kept: Ruin) -> list[str]:
    return [info.key for info in kept.backup.listing()]


@pytest.mark.parametrize("step", [1, 2, 5])
def test_an_object_has_fifteen_minutes_to_be_copied_unless_its_stanza_says_otherwise(
    kept: Ruin, step: int
) -> None:
    gone = keys(kept)[::step]
    kept.backup.delete(gone)
    assert missing(kept) == missing(kept, 14) == missing(kept, 59, backup_grace_s=3600) == []
    assert missing(kept, 16) == missing(kept, 61, backup_grace_s=3600) == gone
    assert missing(kept, backup_grace_s=0) == gone


def test_what_is_not_due_yet_is_counted_not_passed_over(kept: Ruin) -> None:
    kept.backup.delete(keys(kept)[:3])
    look = wanted(kept)
    assert list(backup_objects(look)) == []
    assert look.checked.counts["copies not due yet"] == 3


def test_a_copy_of_what_the_store_lacks_as_well_is_on_no_way(kept: Ruin) -> None:
    (key, *_) = gone = keys(kept)[:2]
    kept.backup.delete(gone)
    kept.drop(key)
    assert missing(kept) == [key]


def test_a_copy_of_another_size_is_told_at_once(kept: Ruin) -> None:
    (key, *_) = keys(kept)
    kept.backup.delete([key])
    kept.backup.create([NewObject(key, b"?")])
    assert [one.kind for one in backup_objects(wanted(kept))] == [Kind.WRONG_SIZE]


def test_what_no_row_names_any_more_is_no_trouble(kept: Ruin) -> None:
    kept.backup.delete(keys(kept))
    look = iter(backup_objects(wanted(kept, 16)))
    next(look)
    for row in kept.rows(BUSY):
        kept.drop_row(row)
    assert all(one.topic != BUSY for one in look)


@pytest.mark.parametrize(("said", "seconds"), [("", 900), ("backup_grace_minutes = 0.5", 30)])
def test_a_stanza_says_how_long(said: str, seconds: float) -> None:
    text = f'[store.x]\ntype = "s3"\nbucket = "abc"\nbackup_bucket = "abd"\n{said}'
    assert backup_grace_s(parse(text).store("x")) == seconds
