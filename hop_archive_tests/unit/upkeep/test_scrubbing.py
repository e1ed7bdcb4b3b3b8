"""Scrubbing: everything is read within the days, the oldest first, whatever stops it in between."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable
from uuid import UUID

import pytest

from hop_archive.devkit.faults import CrashError, Fault, Faults, When, crash
from hop_archive.errors import HopArchiveError
from hop_archive.model.findings import Finding, Kind
from hop_archive.upkeep.verify import scrub as scrubbing
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.scrub import scrub
from hop_archive.upkeep.verify.verification import Verification
from hop_archive.upkeep.verify.verify import verify
from hop_archive_tests.cold_store import ColdStore
from hop_archive_tests.damaging import Ruin, ruin
from hop_archive_tests.worlds import BUSY, QUIET, adopted_row

T0 = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> Ruin:
    monkeypatch.setattr(scrubbing, "_PORTION", 7)
    return ruin("segment")


def night(
    broken: Ruin,
    day: int,
    days: float = 5,
    faults: Faults | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[list[Finding], int]:
    """One night's scrub: what it found, and how many documents it read."""
    archive = broken.archive(faults)
    wanted = Verification(archive.catalog, archive.store, now=lambda: T0 + day * DAY)
    recorder = FindingsRecorder(archive.catalog, now=wanted.now)
    found = [one for one, _ in scrub(wanted, recorder, days, stop)]
    return found, wanted.checked.counts["messages"]


def never(broken: Ruin) -> int:
    return sum(one.never for one in broken.world.catalog.verified_shares())


def test_all_is_read_within_the_days_and_again_within_as_many(sound: Ruin) -> None:
    total = sum(len(sound.rows(topic)) for topic in (BUSY, QUIET))
    reads = [night(sound, day)[1] for day in range(5)]
    assert never(sound) == 0
    assert total <= sum(reads) <= 1.5 * total
    assert max(reads) < total / 2
    again = [night(sound, day)[1] for day in range(5, 10)]
    assert sum(again) >= total
    oldest = min(one.verified_at for one in sound.world.catalog.verified())
    assert oldest >= T0 + 5 * DAY


def test_nights_that_were_missed_are_made_up_for(sound: Ruin) -> None:
    night(sound, 0)
    night(sound, 4)
    assert never(sound) == 0


def test_what_is_due_is_read_oldest_first(sound: Ruin) -> None:
    for day in range(5):
        night(sound, day)
    calls = iter(range(100))
    night(sound, 30, stop=lambda: next(calls) >= 2)
    ages = sorted({one.verified_at for one in sound.world.catalog.verified()})
    assert T0 + 30 * DAY in ages
    assert ages[0] >= T0


def test_a_scrub_that_is_killed_goes_on_where_it_was(sound: Ruin) -> None:
    faults = Faults()
    night(sound, 0, days=1, faults=faults)
    numbers = [n for n, name in enumerate(faults.calls, start=1) if name == "catalog.note_verified"]
    assert len(numbers) > 5
    for when in When:
        broken = ruin("segment")
        before = never(broken)
        with contextlib.suppress(CrashError, HopArchiveError):
            night(broken, 0, days=1, faults=Faults((Fault(numbers[3], when, crash),)))
        left = never(broken)
        assert 0 < left < before
        night(broken, 0, days=1)
        assert never(broken) == 0


def test_damage_is_found_noted_and_closed_once_it_is_mended(sound: Ruin) -> None:
    row = sound.rows(BUSY)[4]
    sound.flip(row)
    found, _ = night(sound, 0, days=1)
    assert [(one.kind, one.uuid) for one in found] == [(Kind.CORRUPT_OBJECT, row.uuid)]
    (one,) = sound.world.catalog.findings()
    assert one.first_seen == T0
    sound.flip(row)
    night(sound, 1, days=1)
    assert list(sound.world.catalog.findings()) == []


def test_an_object_in_cold_storage_is_told_and_keeps_nothing_else_from_being_read(sound: Ruin) -> None:
    row = sound.rows(BUSY)[4]
    sound.world.store = cold = ColdStore(sound.world.store, row.object_key)
    sound.flip(damaged := sound.rows(QUIET)[0])
    found, _ = night(sound, 0, days=1)
    assert {one.object_key for one in found if one.kind is Kind.FROZEN_OBJECT} == {row.object_key}
    assert [one.uuid for one in found if one.kind is not Kind.FROZEN_OBJECT] == [damaged.uuid]
    assert never(sound) == 0
    how = {one.record.finding.kind: one.how for one in sound.repair(dry_run=True)}
    assert how.keys() == {Kind.FROZEN_OBJECT, Kind.CORRUPT_OBJECT}
    assert "Restore it" in how[Kind.FROZEN_OBJECT]
    cold.cold.clear()
    sound.flip(damaged)
    night(sound, 1, days=1)
    assert list(sound.world.catalog.findings()) == []


def test_rows_of_another_archiver_are_read_too(sound: Ruin) -> None:
    sound.world.catalog.adopt([adopted_row(QUIET)])
    found, _ = night(sound, 0, days=1)
    assert [one.kind for one in found] == [Kind.MISSING_OBJECT]
    assert [one for one in sound.world.catalog.verified() if one.generation == 0]
    found, _ = night(sound, 0, days=3)
    assert found == []


def adopt(broken: Ruin, count: int) -> None:
    """Rows of another archiver, one a second, with nothing behind them: each that is read is a finding."""
    row = adopted_row(QUIET)
    names = {n: f"{QUIET}/old{n:03}.bson" for n in range(count)}
    broken.world.catalog.adopt(
        [
            row._replace(uuid=UUID(int=(1 << 100) + n), timestamp_ms=1000 * n, object_key=names[n])
            for n in names
        ]
    )


def adopted_read(broken: Ruin, day: int, days: float = 5) -> int:
    """How many rows of another archiver one night's scrub read."""
    found, _ = night(broken, day, days)
    return len([one for one in found if one.topic == QUIET])


def test_rows_of_another_archiver_are_read_in_shares(sound: Ruin) -> None:
    adopt(sound, 50)
    reads = [adopted_read(sound, day) for day in range(5)]
    assert sum(reads[:3]) < 50 <= sum(reads)
    assert max(reads[:4]) <= 20
    spans = [one for one in sound.world.catalog.verified() if one.generation == 0]
    assert (min(one.start for one in spans), max(one.stop for one in spans)) == (0, 49_001)
    again = [adopted_read(sound, day) for day in range(5, 10)]
    assert 50 <= sum(again) <= 70
    assert max(again) <= 20


def test_what_was_all_read_at_once_is_read_again_in_shares(sound: Ruin) -> None:
    adopt(sound, 50)
    night(sound, 0, days=1)
    assert never(sound) == 0
    total = sum(len(sound.rows(topic)) for topic in (BUSY, QUIET))
    reads = [night(sound, day)[1] for day in range(1, 6)]
    assert max(reads) < total / 2
    assert sum(reads) >= total
    assert min(one.verified_at for one in sound.world.catalog.verified()) >= T0 + DAY


def test_a_look_at_every_document_counts_as_reading_them(sound: Ruin) -> None:
    sound.flip(sound.rows(BUSY)[4])
    wanted = Verification(sound.world.catalog, sound.world.store)
    recorder = FindingsRecorder(sound.world.catalog, now=lambda: T0)
    found = verify(wanted, recorder, ("documents",))
    next(found)
    assert never(sound) > 0, "it is not over yet"
    found.close()  # type: ignore[attr-defined]
    assert never(sound) > 0, "it was broken off"
    list(verify(wanted, recorder, ("documents",)))
    assert never(sound) == 0
    assert {one.verified_at for one in sound.world.catalog.verified()} == {T0}


def test_what_was_lost_is_not_looked_for(sound: Ruin) -> None:
    from hop_archive.catalog.records import Batch, Outcome
    from hop_archive.model.slices import Slice

    sound.world.catalog.commit(Batch(Slice(QUIET, 1, 0, 1_000, 10**12), Outcome.LOST, "gone"))
    night(sound, 0, days=1)
    assert all(one.stop <= 1_000 for one in sound.world.catalog.verified())
