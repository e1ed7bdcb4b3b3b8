"""What verification found, and what it looked at and when, in a mock."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby, islice

from hop_archive.catalog.checked import CheckedRange, CheckedScope, VerifiedRange, VerifiedShare, with_checked
from hop_archive.catalog.ledger import with_verified
from hop_archive.catalog.mock.session import MockSession, Tables
from hop_archive.catalog.records import Outcome, Row
from hop_archive.model.findings import ACCEPTED, Finding, FindingRecord, Kind, OpenCount, distinct, remembered
from hop_archive.model.slices import OffsetSet


class MockVerification(MockSession):
    """The part of a mock catalog that remembers findings, and when what was verified."""

    def note_findings(self, findings: Sequence[Finding], seen_at: datetime.datetime) -> Sequence[bool]:
        with self._state.change() as tables:
            once = distinct(findings)
            accepted = {_bare(finding) for finding in once if _is_accepted(tables, finding)}
            at = {_bare(r.finding): n for n, r in enumerate(tables.findings) if r.resolved_at is None}
            for finding in (finding for finding in once if _bare(finding) not in accepted):
                if (n := at.get(_bare(finding))) is None:
                    new = FindingRecord(len(tables.findings) + 1, finding, seen_at, seen_at)
                    tables.findings.append(new)
                else:
                    record = tables.findings[n]
                    last = max(record.last_seen, seen_at)
                    tables.findings[n] = record._replace(finding=finding, last_seen=last)
        return [_bare(remembered(finding)) not in accepted for finding in findings]

    def findings(
        self,
        topics: Collection[str] | None = None,
        kinds: Collection[Kind] | None = None,
        *,
        open_only: bool = True,
        limit: int | None = None,
    ) -> Iterator[FindingRecord]:
        with self._state.read() as tables:
            every = list(tables.findings)
        found = (
            record
            for record in every
            if (topics is None or record.finding.topic in topics)
            and (kinds is None or record.finding.kind in kinds)
            and not (open_only and record.resolved_at)
        )
        yield from islice(found, limit)

    def open_findings(self, topics: Collection[str] | None = None) -> Sequence[OpenCount]:
        def place(record: FindingRecord) -> tuple[str, str]:
            return record.finding.topic, record.finding.kind.value

        groups = groupby(sorted(self.findings(topics), key=place), key=place)
        found = [(topic, kind, list(some)) for (topic, kind), some in groups]
        return [
            OpenCount(topic, Kind(kind), len(some), min(record.first_seen for record in some))
            for topic, kind, some in found
        ]

    def resolve_findings(self, numbers: Collection[int], how: str, at: datetime.datetime) -> int:
        with self._state.change() as tables:
            return _close(tables, numbers, how, at)

    def close_unseen(self, scope: CheckedScope, how: str, at: datetime.datetime) -> int:
        with self._state.change() as tables:
            unseen = [record.number for record in tables.findings if _is_unseen(record, scope)]
            return _close(tables, unseen, how, at)

    def verified(self, topics: Collection[str] | None = None) -> Sequence[VerifiedRange]:
        with self._state.read() as tables:
            every = list(tables.verified)
        return sorted(done for done in every if topics is None or done.topic in topics)

    def note_verified(self, new: VerifiedRange) -> None:
        with self._state.change() as tables:
            known = [done for done in tables.verified if done[:3] == new[:3]]
            others = [done for done in tables.verified if done[:3] != new[:3]]
            tables.verified[:] = [*others, *with_verified(known, new)]

    def checked(self, topics: Collection[str] | None = None) -> Sequence[CheckedRange]:
        with self._state.read() as tables:
            every = [done for done in tables.checked if topics is None or done.section.topic in topics]
        return sorted(every, key=lambda done: (*done.section[:2], done.section.look.value, done.after))

    def note_checked(self, new: Sequence[CheckedRange]) -> None:
        with self._state.change() as tables:
            for done in new:
                known = [kept for kept in tables.checked if kept.section == done.section]
                others = [kept for kept in tables.checked if kept.section != done.section]
                tables.checked[:] = [*others, *with_checked(known, done)]

    def verified_shares(self, topics: Collection[str] | None = None) -> Sequence[VerifiedShare]:
        shares: dict[str, VerifiedShare] = {}
        with self._state.read() as tables:
            for at in sorted(at for at in tables.ledger if topics is None or at.topic in topics):
                if not (archived := tables.covered(at, Outcome.ARCHIVED)):
                    continue
                here = [done for done in tables.verified if done[:3] == at]
                never = archived - OffsetSet.of((done.start, done.stop) for done in here)
                so_far = shares.get(at.topic, VerifiedShare(at.topic, 0, 0, None))
                moments = [done.verified_at for done in here] + ([so_far.oldest] if so_far.oldest else [])
                shares[at.topic] = VerifiedShare(
                    at.topic,
                    so_far.offsets + archived.size,
                    so_far.never + never.size,
                    min(moments, default=None),
                )
        return list(shares.values())

    def adopted_span(self, topic: str) -> tuple[int, int] | None:
        times = [row.timestamp_ms for row in self.adopted_rows(topic, -(2**63))]
        return (times[0], times[-1]) if times else None

    def adopted_rows(self, topic: str, since_ms: int) -> Iterator[Row]:
        with self._state.read() as tables:
            rows = [row for row in tables.rows.values() if row.topic == topic and row.digest is None]
        rows.sort(key=lambda row: row.timestamp_ms)
        yield from (row for row in rows if row.timestamp_ms >= since_ms)


def _bare(finding: Finding) -> Finding:
    return finding._replace(detail="")


def _is_accepted(tables: Tables, finding: Finding) -> bool:
    accepted = [record.finding for record in tables.findings if record.resolution.startswith(ACCEPTED)]
    if finding.slice is None:
        return any(_bare(other) == _bare(finding) for other in accepted)
    alike = [
        other.slice
        for other in accepted
        if other.slice is not None
        and other.slice.partition_log == finding.slice.partition_log
        and _bare(other)._replace(slice=None) == _bare(finding)._replace(slice=None)
    ]
    return not finding.slice.offsets - OffsetSet.of((s.start, s.stop) for s in alike)


def _close(tables: Tables, numbers: Collection[int], how: str, at: datetime.datetime) -> int:
    closed = 0
    for index, record in enumerate(tables.findings):
        if record.number in numbers and record.resolved_at is None:
            tables.findings[index] = record._replace(resolved_at=at, resolution=how)
            closed += 1
    return closed


def _is_unseen(record: FindingRecord, scope: CheckedScope) -> bool:
    finding = record.finding
    return (
        finding.kind in scope.kinds
        and (scope.topics is None or finding.topic in scope.topics)
        and scope.bucket in ("", finding.bucket)
        and (not scope.not_bucket or finding.bucket != scope.not_bucket)
        and finding.object_key not in scope.spared
        and record.last_seen < scope.since
        and not (scope.of_no_message and finding.uuid)
        and (scope.young_since is None or record.first_seen < scope.young_since)
        and (scope.keys is None or scope.keys[0] < finding.object_key <= scope.keys[1])
    )
