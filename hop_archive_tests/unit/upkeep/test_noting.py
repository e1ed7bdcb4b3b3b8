"""Noting findings while they are found: soon, in batches, and also where a look is broken off."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.errors import UnavailableError
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.slices import Slice
from hop_archive.upkeep.verify.recorder import FindingsRecorder


def findings(count: int) -> Iterator[Finding]:
    for start in range(count):
        yield Finding(Kind.COVERAGE_HOLE, "t", "hole", slice=Slice("t", 1, 0, start, start + 1))


class Counting(MockCatalog):
    calls = 0

    def note_findings(self, findings: Sequence[Finding], seen_at: datetime.datetime) -> Sequence[bool]:
        self.calls += 1
        return super().note_findings(findings, seen_at)


def test_a_burst_is_noted_in_few_transactions_and_all_of_it_is_told() -> None:
    catalog = Counting()
    told = list(FindingsRecorder(catalog, monotonic=lambda: 0.0).noted(findings(1_203)))
    assert len(told) == len(list(catalog.findings())) == 1_203
    assert catalog.calls == 1 + 3


def test_what_comes_seldom_is_noted_and_told_at_once() -> None:
    catalog = Counting()
    ticks = iter(range(10_000))
    coming = FindingsRecorder(catalog, monotonic=lambda: float(next(ticks))).noted(findings(5))
    for number in range(1, 6):
        next(coming)
        assert len(list(catalog.findings())) == number


def test_a_look_that_is_broken_off_keeps_what_it_found() -> None:
    def broken() -> Iterator[Finding]:
        yield from findings(7)
        raise UnavailableError("the store went away.")

    catalog = MockCatalog()
    with pytest.raises(UnavailableError):
        list(FindingsRecorder(catalog, monotonic=lambda: 0.0).noted(broken()))
    assert len(list(catalog.findings())) == 7


def test_what_is_not_to_be_kept_is_passed_on_as_it_comes() -> None:
    catalog = Counting()
    assert len(list(FindingsRecorder(catalog, keeps=False).noted(findings(3)))) == 3
    assert catalog.calls == 0


def test_a_mock_that_an_older_version_kept_in_a_directory_goes_on(tmp_path: Path) -> None:
    catalog = MockCatalog(directory=tmp_path)
    with catalog._state.change():
        pass
    (tables,) = json.loads((tmp_path / "catalog.json").read_text())
    del tables["findings"], tables["verified"]
    (tmp_path / "catalog.json").write_text(json.dumps([tables]))
    assert list(MockCatalog(directory=tmp_path).findings()) == []
    assert MockCatalog(directory=tmp_path).note_findings(
        list(findings(1)), FindingsRecorder(catalog).now()
    ) == [True]
