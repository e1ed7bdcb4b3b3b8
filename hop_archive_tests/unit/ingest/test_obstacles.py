"""Obstacles of archiving: open while they are seen, closed by the look that sees them no more."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from hop_archive.archive import Archive
from hop_archive.catalog.checked import CheckedScope
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.errors import ForbiddenError
from hop_archive.ingest.obstacles import note_obstacles
from hop_archive.model.findings import OBSTACLES, Finding, FindingRecord, Kind
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore

T0 = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)
NO_LEADER = [Finding(Kind.NO_LEADER, "alerts", "no leader", partition=p) for p in (0, 1)]
UNREADABLE = Finding(Kind.NOT_READABLE, "secret", "READ is denied")


@dataclass
class Clock:
    minutes: count[int] = field(default_factory=count)

    def __call__(self) -> datetime.datetime:
        return T0 + datetime.timedelta(minutes=next(self.minutes))


def archive(catalog: MockCatalog) -> Archive:
    return Archive(MockSource("s"), catalog, MockStore("o"), now=Clock())


def open_of(catalog: MockCatalog) -> list[FindingRecord]:
    return list(catalog.findings())


def test_what_is_seen_again_keeps_since_when_and_what_is_not_is_closed() -> None:
    catalog = MockCatalog("c")
    at = archive(catalog)
    note_obstacles(at, None, OBSTACLES, [*NO_LEADER, UNREADABLE])
    note_obstacles(at, None, OBSTACLES, [NO_LEADER[1]])
    (left,) = open_of(catalog)
    assert (left.finding, left.first_seen) == (NO_LEADER[1], T0)
    note_obstacles(at, None, OBSTACLES, [])
    assert open_of(catalog) == []


def test_topics_and_kinds_that_were_not_looked_at_stay_open() -> None:
    catalog = MockCatalog("c")
    at = archive(catalog)
    lost = Finding(Kind.LOST, "alerts", "lost")
    catalog.note_findings([lost], T0 - datetime.timedelta(days=1))
    note_obstacles(at, None, OBSTACLES, [*NO_LEADER, UNREADABLE])
    note_obstacles(at, ["secret"], OBSTACLES, [])
    note_obstacles(at, ["alerts"], [Kind.NOT_READABLE], [])
    assert [one.finding for one in open_of(catalog)] == [lost, *NO_LEADER]


class Refusing(MockCatalog):
    writes = 0

    def note_findings(self, findings: Sequence[Finding], seen_at: datetime.datetime) -> Sequence[bool]:
        raise ForbiddenError("may only read")

    def close_unseen(self, scope: CheckedScope, how: str, at: datetime.datetime) -> int:
        self.writes += 1
        return 0


def test_a_role_that_may_only_read_goes_on_and_remembers_nothing() -> None:
    catalog = Refusing("c")
    note_obstacles(archive(catalog), None, OBSTACLES, NO_LEADER)
    assert open_of(catalog) == []


def test_a_look_that_sees_nothing_where_nothing_was_open_writes_nothing() -> None:
    catalog = Refusing("c")
    note_obstacles(archive(catalog), None, OBSTACLES, [])
    assert catalog.writes == 0
