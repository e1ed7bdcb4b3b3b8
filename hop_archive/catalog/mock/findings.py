"""Findings in a mock."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby, islice

from hop_archive.catalog.mock.session import MockSession, Tables
from hop_archive.catalog.records import Looked
from hop_archive.model.findings import ACCEPTED, Finding, FindingRecord, Kind, OpenCount, distinct, remembered
from hop_archive.model.slices import OffsetSet


class MockFindings(MockSession):
    """The part of a mock catalog that remembers findings."""

    def note_findings(self, findings: Sequence[Finding], seen_at: datetime.datetime) -> Sequence[bool]:
        """Remember findings that were seen; see ``Catalog.note_findings``."""
        with self._state.change() as tables:
            accepted = {_bare(one) for one in distinct(findings) if _is_accepted(tables, one)}
            for one in distinct(findings):
                if _bare(one) not in accepted:
                    _note(tables, one, seen_at)
        return [_bare(remembered(one)) not in accepted for one in findings]

    def findings(
        self,
        topics: Collection[str] | None = None,
        kinds: Collection[Kind] | None = None,
        *,
        open_only: bool = True,
        limit: int | None = None,
    ) -> Iterator[FindingRecord]:
        """The findings, in the order in which they were first noted."""
        with self._state.read() as tables:
            every = list(tables.findings)
        wanted = (
            one
            for one in every
            if (topics is None or one.finding.topic in topics)
            and (kinds is None or one.finding.kind in kinds)
            and not (open_only and one.resolved_at)
        )
        yield from islice(wanted, limit)

    def open_findings(self, topics: Collection[str] | None = None) -> Sequence[OpenCount]:
        """How many findings are open, by topic and kind, sorted."""
        found = sorted(self.findings(topics), key=_topic_and_kind)
        groups = [(key, list(some)) for key, some in groupby(found, key=_topic_and_kind)]
        return [
            OpenCount(topic, Kind(kind), len(some), min(one.first_seen for one in some))
            for (topic, kind), some in groups
        ]

    def resolve_findings(self, numbers: Collection[int], how: str, at: datetime.datetime) -> int:
        """Close these findings, with what became of them; returns how many were open."""
        with self._state.change() as tables:
            return _close(tables, {one.number for one in tables.findings if one.number in numbers}, how, at)

    def close_unseen(self, looked: Looked, how: str, at: datetime.datetime) -> int:
        """Close what a complete look did not see again; returns how many were open."""
        with self._state.change() as tables:
            return _close(tables, {one.number for one in tables.findings if _is_unseen(one, looked)}, how, at)


def _bare(one: Finding) -> Finding:
    return one._replace(detail="")


def _is_accepted(tables: Tables, one: Finding) -> bool:
    accepted = [found.finding for found in tables.findings if found.resolution.startswith(ACCEPTED)]
    if one.slice is None:
        return any(_bare(other) == _bare(one) for other in accepted)
    alike = [
        other.slice
        for other in accepted
        if other.slice is not None
        and other.slice.partition_log == one.slice.partition_log
        and _bare(other)._replace(slice=None) == _bare(one)._replace(slice=None)
    ]
    return not one.slice.offsets - OffsetSet.of((s.start, s.stop) for s in alike)


def _note(tables: Tables, one: Finding, seen_at: datetime.datetime) -> None:
    for place, found in enumerate(tables.findings):
        if found.resolved_at is None and _bare(found.finding) == _bare(one):
            last = max(found.last_seen, seen_at)
            tables.findings[place] = found._replace(finding=one, last_seen=last)
            return
    tables.findings.append(FindingRecord(len(tables.findings) + 1, one, seen_at, seen_at))


def _close(tables: Tables, numbers: Collection[int], how: str, at: datetime.datetime) -> int:
    closed = 0
    for place, found in enumerate(tables.findings):
        if found.number in numbers and found.resolved_at is None:
            tables.findings[place] = found._replace(resolved_at=at, resolution=how)
            closed += 1
    return closed


def _is_unseen(one: FindingRecord, looked: Looked) -> bool:
    finding = one.finding
    return (
        finding.kind in looked.kinds
        and (looked.topics is None or finding.topic in looked.topics)
        and looked.bucket in ("", finding.bucket)
        and (not looked.not_bucket or finding.bucket != looked.not_bucket)
        and finding.object_key not in looked.spared
        and one.last_seen < looked.since
        and not (looked.of_no_message and finding.uuid)
        and (looked.young_since is None or one.first_seen < looked.young_since)
    )


def _topic_and_kind(one: FindingRecord) -> tuple[str, str]:
    return one.finding.topic, one.finding.kind.value
