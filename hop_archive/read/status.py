"""Where the archive stands, topic by topic: what ``status`` shows and asset checks judge. Changes nothing."""

from __future__ import annotations

import datetime
import enum
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hop_archive.archive import Archive
from hop_archive.catalog.records import TopicSummary, VerifiedShare
from hop_archive.errors import UnavailableError
from hop_archive.ingest.plan import lost
from hop_archive.ingest.survey import Survey, survey
from hop_archive.model.findings import Finding, OpenCount
from hop_archive.model.slices import OffsetSet, PartitionLog
from hop_archive.model.topics import TopicPolicy
from hop_archive.source.answers import Answers
from hop_archive.source.protocol import TopicInfo

WINDOWS = {"last_24_hours": datetime.timedelta(hours=24), "last_hour": datetime.timedelta(hours=1)}
"""The windows of a status, besides all time: by when batches were committed."""


class State(enum.Enum):
    """What becomes of a topic's messages.

    ``ARCHIVED``: they are archived. ``VETOED``, ``LEFT_OUT``: they are not, because the stanza vetoes the topic, or
    does not name it. ``GONE``: the catalog knows the topic, and the source has it no more.
    """

    ARCHIVED = "archived"
    VETOED = "vetoed"
    LEFT_OUT = "left out"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class TopicStatus:
    """Where one topic stands.

    Attributes:
        topic: Kafka topic name.
        total: Since the archive's start.
        windows: The same by window (keys of ``WINDOWS``).
        lag: Offsets that Kafka holds, committed and not dealt with yet; None where the source does not answer, or
            has no such topic (any more), or something of the topic could not be looked at.
        unrecorded: Offsets that Kafka no longer holds and no run has dealt with: lost, but for the record.
        generations: How many lives of the topic the catalog knows.
        held_back: Offsets beyond the last stable one, which an open transaction keeps from readers, and so from the
            archive; they count as no lag. None where the source does not answer, or has no such topic.
        state: What becomes of its messages; where the source does not answer, by the policy alone.
    """

    topic: str
    total: TopicSummary
    windows: Mapping[str, TopicSummary]
    lag: int | None
    unrecorded: int | None
    generations: int
    held_back: int | None = None
    state: State = State.ARCHIVED


@dataclass(frozen=True, slots=True)
class Status:
    """Where the archive stands.

    Attributes:
        topics: By name: those that are archived now, and those that the catalog knows from before.
        at: When this was asked (UTC).
        source_error: Why lags are not known; '' where they are.
        findings: What is wrong or in the way and nobody has settled, by topic and kind.
        obstacles: What could not be looked at, or may not be read, just now.
        unmet: Names and globs of the source's stanza of which nothing comes.
        shares: How much of each topic was read and compared by scrubbing.
    """

    topics: tuple[TopicStatus, ...]
    at: datetime.datetime
    source_error: str = ""
    findings: tuple[OpenCount, ...] = ()
    shares: tuple[VerifiedShare, ...] = ()
    obstacles: tuple[Finding, ...] = ()
    unmet: tuple[str, ...] = ()


def status(archive: Archive, topics: Collection[str] | None = None, *, unasked: str = "") -> Status:
    """Ask the catalog, and the source where it answers.

    Args:
        archive: Whose status.
        topics: Only these; None for all.
        unasked: Why the source is not to be asked; '' to ask it.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    at = archive.now()
    totals = _by_topic(archive.catalog.summaries(topics))
    windows = {w: _by_topic(archive.catalog.summaries(topics, since=at - age)) for w, age in WINDOWS.items()}
    try:
        seen: Survey | None = None if unasked else survey(archive, topics)
        elsewhere = {*totals} - {*seen.infos} - seen.undescribed if seen else set()
        there = archive.source.topics(elsewhere) if elsewhere else Answers[str, TopicInfo]({})
        gone_ones = elsewhere - {*there} - {*there.untold}
        source_error = unasked
    except UnavailableError as error:
        archive.catalog.check()  # Where it is the catalog that does not answer, that is what to say.
        seen, gone_ones, source_error = None, set(), str(error)
    names = sorted({*totals, *((*seen.infos, *seen.undescribed) if seen else ())})
    whole = {*seen.infos} - seen.not_whole if seen else set()
    generations = archive.catalog.generations(names)
    lags, gone, back = _lags(seen), _unrecorded(seen), _held_back(seen)
    rows = [
        TopicStatus(
            topic=name,
            total=totals.get(name, TopicSummary(name)),
            windows={w: found.get(name, TopicSummary(name)) for w, found in windows.items()},
            lag=lags.get(name, 0) if name in whole else None,
            unrecorded=gone.get(name, 0) if name in whole else None,
            generations=len(generations.get(name, ())),
            held_back=back.get(name, 0) if name in whole else None,
            state=State.GONE if name in gone_ones else state_by_policy(name, archive.topics),
        )
        for name in names
    ]
    return Status(
        tuple(rows),
        at,
        source_error,
        tuple(archive.catalog.open_findings(topics)),
        tuple(archive.catalog.verified_shares(topics)),
        seen.obstacles if seen else (),
        seen.unmet if seen else (),
    )


def state_by_policy(name: str, policy: TopicPolicy) -> State:
    """What becomes of the messages of an existing topic."""
    if policy.vetoed(name):
        return State.VETOED
    return State.ARCHIVED if policy.archived(name) else State.LEFT_OUT


def holes(archive: Archive, topics: Collection[str] | None = None) -> dict[PartitionLog, int]:
    """Offsets that lie between dealt-with ones and are not dealt with, by log; those without are left out."""
    coverage = archive.catalog.coverage(topics)
    return {
        partition_log: count
        for partition_log, covered in coverage.items()
        if (count := inner_holes(covered).size)
    }


def inner_holes(covered: OffsetSet) -> OffsetSet:
    """The offsets between the first and the last of ``covered`` that are not in it."""
    first = covered.ranges[0].start if covered else 0
    return OffsetSet.between(first, covered.stop) - covered


def _lags(seen: Survey | None) -> Mapping[str, int]:
    return seen.pending() if seen else {}


def _unrecorded(seen: Survey | None) -> Mapping[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for partition_log, known in (seen.knowledge if seen else {}).items():
        counts[partition_log.topic] += lost(known).size
    return counts


def _held_back(seen: Survey | None) -> Mapping[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for partition_log, known in (seen.knowledge if seen else {}).items():
        counts[partition_log.topic] += known.watermarks.high - known.watermarks.stable
    return counts


def _by_topic(summaries: Iterable[TopicSummary]) -> dict[str, TopicSummary]:
    return {summary.topic: summary for summary in summaries}
