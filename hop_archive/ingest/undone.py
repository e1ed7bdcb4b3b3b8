"""What plan after plan leaves undone: twice from the same offset on, and it is a finding, with its reason."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
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


class Undone:
    """Compares each plan with the one before: what begins where it began then was left, whatever the reason.

    Judged by plans, which are judged by the ledger, not by what was told of an attempt: so no way of leaving work can be
    forgotten here. Twice left makes a finding (``left_undone``), which is closed when a plan begins later.

    Args:
        archive: Whose plans, and where findings are noted.
        topics: What is planned; None for all.
    """

    def __init__(self, archive: Archive, topics: Collection[str] | None = None) -> None:
        self._archive = archive
        self._topics = topics
        self._tried: Mapping[PartitionLog, _Tried] = {}
        self._notes: dict[PartitionLog, str] = {}
        self._error: HopArchiveError | None = None
        self._refused: set[TopicPartition | None] = set()
        self.findings: tuple[Finding, ...] = ()

    def plan(self, slices: Iterable[Slice], pending: Collection[str]) -> None:
        """Take in what is to be done now; note what was left twice, and close what is left no more.

        Args:
            slices: What is going to be tried.
            pending: Topics in which there is work, whether or not it fits into this plan.

        Raises:
            UnavailableError: The catalog does not answer.
        """
        now = self._archive.monotonic()
        starts: dict[PartitionLog, int] = {}
        for one in slices:
            starts[one.partition_log] = min(one.start, starts.get(one.partition_log, one.start))
        before, tried = self._tried, {}
        for partition_log, start in starts.items():
            was = before.get(partition_log)
            again = was is not None and was.start == start
            tried[partition_log] = (
                _Tried(start, was.times + 1, was.since) if was and again else _Tried(start, 0, now)
            )
        self._tried = tried
        left = [
            partition_log
            for partition_log, one in tried.items()
            if self._is_left(one, now)
            and TopicPartition(partition_log.topic, partition_log.partition) not in self._refused
        ]
        standing = {
            partition_log.topic
            for partition_log, start in starts.items()
            if partition_log not in before or start <= before[partition_log].start
        }
        moved = {partition_log.topic for partition_log in starts} - standing
        self._note(left, undecided={*pending} - {partition_log.topic for partition_log in left} - moved)
        self._notes, self._error, self._refused = {}, None, set()

    def settle(self) -> None:
        """Take in what was done since the last plan: it is left no more. For who makes no further plan.

        Raises:
            UnavailableError: The catalog does not answer.
        """
        topics = {one.topic for one in self.findings}
        if not topics:
            return
        coverage = self._archive.catalog.coverage(topics)
        done = {
            (at.topic, at.partition)
            for at, one in self._tried.items()
            if one.start in coverage.get(at, EMPTY)
        }
        self.findings = tuple(one for one in self.findings if (one.topic, one.partition) not in done)
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

    def reason(self) -> str:
        """Why work was left, as far as that was told, for people; '' where nothing was."""
        told = {f"{one.topic}, {one.detail}" for one in self.findings} or {*self._notes.values()}
        return "; ".join(sorted(told)[:_MOST_TOLD]) or str(self._error or "")

    def _is_left(self, one: _Tried, now: float) -> bool:
        outage = isinstance(self._error, UnavailableError | ConfigurationError)
        return one.times >= _TWICE and (not outage or now - one.since >= _OUTAGE_S)

    def _note(self, left: Collection[PartitionLog], undecided: Collection[str]) -> None:
        known = {one.topic: one for one in self.findings}
        self.findings = tuple(self._finding(partition_log) for partition_log in sorted(left))
        for one in self.findings:
            level = logging.INFO if one.topic in known else logging.WARNING
            log.log(level, "Left undone again: %s, %s", one.topic, one.detail)
        noted = self._archive.catalog.open_findings(self._topics)
        was_open = {one.topic for one in noted if one.kind is Kind.LEFT_UNDONE}
        judged = (was_open | {one.topic for one in self.findings}) - set(undecided)
        if judged:
            note_obstacles(self._archive, judged, [Kind.LEFT_UNDONE], self.findings)

    def _finding(self, partition_log: PartitionLog) -> Finding:
        why = self._notes.get(partition_log) or str(
            self._error or "nothing came of it, and no reason was told"
        )
        detail = (
            f"from offset {self._tried[partition_log].start} of partition {partition_log.partition} on: {why}"
        )
        return Finding(Kind.LEFT_UNDONE, partition_log.topic, detail, partition=partition_log.partition)
