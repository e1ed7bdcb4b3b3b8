"""What plan after plan leaves undone: twice from the same offset on, and it is a finding, with its reason."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from hop_archive.archive import Archive
from hop_archive.errors import ConfigurationError, HopArchiveError, UnavailableError
from hop_archive.ingest.obstacles import note_obstacles
from hop_archive.ingest.write import Done
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.message import TopicPartition
from hop_archive.model.slices import EMPTY, PartitionLog, Slice
from hop_archive.source.protocol import place_of

log = logging.getLogger(__name__)

_TWICE = 2
_MOST_TOLD = 5
_OUTAGE_S = 60.0
"""A server that is away, or refuses, for less is waited for, and no finding."""


@dataclass(frozen=True, slots=True)
class _Tried:
    """How often, and since when, work was planned that begins at the same offset."""

    start: int
    times: int
    since: float


class LeftUndone:
    """Compares each plan with the one before: what begins where it began then was left, whatever the reason.

    Judged by plans, which are judged by the ledger, not by what was told of an attempt: so no way of leaving work can be
    forgotten here. Twice left makes a finding (``left_undone``), which is closed when a plan begins later.
    """

    def __init__(self, archive: Archive, topics: Collection[str] | None = None) -> None:
        self._archive = archive
        self._topics = topics
        self._tried: dict[PartitionLog, _Tried] = {}
        self._notes: dict[PartitionLog, str] = {}
        self._error: HopArchiveError | None = None
        self._refused: set[TopicPartition | None] = set()
        self.findings: tuple[Finding, ...] = ()

    def plan(self, slices: Iterable[Slice], pending: Collection[str]) -> None:
        """Take in what is going to be tried now; note what was left twice, and close what is left no more.

        In topics that are ``pending`` there is work, whether or not it fits into this plan.

        Raises:
            UnavailableError: The catalog does not answer.
        """
        now = self._archive.monotonic()
        starts: dict[PartitionLog, int] = {}
        for s in slices:
            starts[s.partition_log] = min(s.start, starts.get(s.partition_log, s.start))
        before, self._tried, left = self._tried, {}, []
        is_outage = isinstance(self._error, UnavailableError | ConfigurationError)
        for partition_log, start in starts.items():
            was = before.get(partition_log)
            is_again = was is not None and was.start == start
            tried = _Tried(start, was.times + 1, was.since) if was and is_again else _Tried(start, 0, now)
            self._tried[partition_log] = tried
            is_left = tried.times >= _TWICE and (not is_outage or now - tried.since >= _OUTAGE_S)
            if is_left and TopicPartition(partition_log.topic, partition_log.partition) not in self._refused:
                left.append(partition_log)
        standing = {at.topic for at, start in starts.items() if at not in before or start <= before[at].start}
        moved = {partition_log.topic for partition_log in starts} - standing
        known, findings = {finding.topic for finding in self.findings}, []
        for at in sorted(left):
            why = self._notes.get(at) or self._error or "nothing came of it, and no reason was told"
            detail = f"from offset {self._tried[at].start} of partition {at.partition} on: {why}"
            findings.append(Finding(Kind.LEFT_UNDONE, at.topic, detail, partition=at.partition))
            level = logging.INFO if at.topic in known else logging.WARNING
            log.log(level, "Left undone again: %s, %s", at.topic, detail, extra={"topic": at.topic})
        self.findings = tuple(findings)
        undecided = {*pending} - {at.topic for at in left} - moved
        noted = self._archive.catalog.open_findings(self._topics)
        was_open = {finding.topic for finding in noted if finding.kind is Kind.LEFT_UNDONE}
        judged = (was_open | {finding.topic for finding in findings}) - undecided
        if judged:
            note_obstacles(self._archive, judged, [Kind.LEFT_UNDONE], findings)
        self._notes, self._error, self._refused = {}, None, set()

    def settle(self) -> None:
        """Take in what was done since the last plan: it is left no more. For who makes no further plan.

        Raises:
            UnavailableError: The catalog does not answer.
        """
        topics = {finding.topic for finding in self.findings}
        if not topics:
            return
        coverage = self._archive.catalog.coverage(topics)
        done = {
            (at.topic, at.partition)
            for at, tried in self._tried.items()
            if tried.start in coverage.get(at, EMPTY)
        }
        self.findings = tuple(left for left in self.findings if (left.topic, left.partition) not in done)
        note_obstacles(self._archive, topics, [Kind.LEFT_UNDONE], self.findings)

    def took(self, dones: Iterable[Done]) -> None:
        """Take in what became of some of it, for the reason where that was nothing."""
        for done in dones:
            if done.note and done.slice.partition_log not in self._notes:
                self._notes[done.slice.partition_log] = done.note

    def refused(self, error: HopArchiveError) -> None:
        """Take in that a partition could not be read, which is a finding of its own (``GivenUp``)."""
        self._refused.add(place_of(error))

    def failed(self, error: HopArchiveError) -> None:
        """Take in why the rest was not tried, or not to the end."""
        self._error = error

    def broken_off(self) -> None:
        """Take in that the rest was not tried, because somebody else is to have some of it: it was not left."""
        self._tried = {}

    def reason(self) -> str:
        """Why work was left, as far as that was told, for people; '' where nothing was."""
        reasons = {f"{left.topic}, {left.detail}" for left in self.findings} or {*self._notes.values()}
        return "; ".join(sorted(reasons)[:_MOST_TOLD]) or str(self._error or "")
