"""Where the archive stands, topic by topic: what ``status`` shows and asset checks judge. Changes nothing."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hop_archive.archive import Archive
from hop_archive.catalog.protocol import TopicSummary
from hop_archive.errors import UnavailableError
from hop_archive.planning import lost
from hop_archive.slices import OffsetSet
from hop_archive.surveying import Survey, survey

WINDOWS = {"last_24_hours": datetime.timedelta(hours=24), "last_hour": datetime.timedelta(hours=1)}
"""The windows of a status, besides all time: by when batches were committed."""


@dataclass(frozen=True, slots=True)
class TopicStatus:
    """Where one topic stands.

    Attributes:
        topic: Kafka topic name.
        total: Since the archive's start.
        windows: The same by window (keys of ``WINDOWS``).
        lag: Offsets that Kafka holds, committed and not dealt with yet; None while the source does not answer.
        unrecorded: Offsets that Kafka no longer holds and no run has dealt with: lost, but for the record.
        generations: How many lives of the topic the catalog knows.
    """

    topic: str
    total: TopicSummary
    windows: Mapping[str, TopicSummary]
    lag: int | None
    unrecorded: int | None
    generations: int


@dataclass(frozen=True, slots=True)
class Status:
    """Where the archive stands.

    Attributes:
        topics: By name: those that are archived now, and those that the catalog knows from before.
        at: When this was asked (UTC).
        source_error: Why lags are not known; '' where they are.
    """

    topics: tuple[TopicStatus, ...]
    at: datetime.datetime
    source_error: str = ""


def status(archive: Archive, topics: Collection[str] | None = None) -> Status:
    """Ask the catalog, and the source where it answers.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    at = archive.now()
    totals = _by_topic(archive.catalog.summaries(topics))
    windows = {w: _by_topic(archive.catalog.summaries(topics, since=at - age)) for w, age in WINDOWS.items()}
    try:
        seen: Survey | None = survey(archive, topics)
        source_error = ""
    except UnavailableError as error:
        archive.catalog.check()  # Where it is the catalog that does not answer, that is what to say.
        seen, source_error = None, str(error)
    names = sorted({*totals, *(seen.infos if seen else ())})
    generations = archive.catalog.generations(names)
    lags, gone = _lags(seen), _unrecorded(seen)
    rows = [
        TopicStatus(
            topic=name,
            total=totals.get(name, TopicSummary(name)),
            windows={w: found.get(name, TopicSummary(name)) for w, found in windows.items()},
            lag=lags.get(name, 0) if seen else None,
            unrecorded=gone.get(name, 0) if seen else None,
            generations=len(generations.get(name, ())),
        )
        for name in names
    ]
    return Status(tuple(rows), at, source_error)


def holes(archive: Archive, topic: str) -> int:
    """Offsets of ``topic``, of any generation, that lie between dealt-with ones and are not dealt with."""
    return sum(_inner_holes(covered) for covered in archive.catalog.coverage([topic]).values())


def _inner_holes(covered: OffsetSet) -> int:
    first = covered.ranges[0].start if covered else 0
    return (OffsetSet.between(first, covered.stop) - covered).size


def _lags(seen: Survey | None) -> Mapping[str, int]:
    return seen.pending() if seen else {}


def _unrecorded(seen: Survey | None) -> Mapping[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for lineage, known in (seen.knowledge if seen else {}).items():
        counts[lineage.topic] += lost(known).size
    return counts


def _by_topic(summaries: Iterable[TopicSummary]) -> dict[str, TopicSummary]:
    return {summary.topic: summary for summary in summaries}
