"""What is known of each topic: what the policy says of it, what the source holds, and what the catalog covers.

``status`` and ``topics`` show it and asset checks judge it: gathered here, once. Changes nothing.
"""

from __future__ import annotations

import datetime
import enum
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from hop_archive.archive import Archive
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Generation, Outcome, TopicSummary
from hop_archive.errors import UnavailableError
from hop_archive.ingest.plan import lost, work
from hop_archive.ingest.survey import Survey, survey
from hop_archive.model.findings import Finding
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.topics import TopicPolicy

Value = TypeVar("Value")

PENDING = "Kafka holds these: the next run archives them"
UNRECORDED = "gone from Kafka: the next run records them as lost"
NOT_ARCHIVED = "Kafka holds these: the stanza leaves the topic out now"
EARLIER = "of an earlier life of the topic"
UNKNOWN = "the source does not answer, so whether it holds these is not known"


class TopicState(enum.Enum):
    """What becomes of a topic's messages.

    ``ARCHIVED``: they are archived. ``VETOED``, ``LEFT_OUT``: they are not, because the stanza vetoes the topic, or
    does not name it. ``GONE``: the catalog knows the topic, and the source has it no more.
    """

    ARCHIVED = "archived"
    VETOED = "vetoed"
    LEFT_OUT = "left out"
    GONE = "gone"


class GapKind(enum.Enum):
    """Why offsets are not archived.

    ``HOLE``: not dealt with, between offsets that are. ``UNRECORDED``: gone from Kafka, and no run has recorded that
    yet. ``LOST``, ``SKIPPED``, ``PRUNED``: recorded so in the ledger.
    """

    HOLE = "hole"
    UNRECORDED = "gone"
    LOST = "lost"
    SKIPPED = "skipped"
    PRUNED = "pruned"


@dataclass(frozen=True, slots=True)
class Gap:
    """A slice that is not archived, and why."""

    slice: Slice
    kind: GapKind
    reason: str


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """One topic.

    What only the source can tell is None where it does not answer, has no such topic (any more), or something of the topic
    could not be looked at.

    Attributes:
        topic: Kafka topic name.
        total: What is archived of it, since the archive's start.
        windows: The same by window, where that was asked for.
        state: What becomes of its messages; where the source does not answer, by the policy alone.
        private: Whether they are annotated as not public.
        test: Whether it holds test messages only.
        generations: How many of the topic the catalog knows.
        generation: The number of its present one, or of the last one that the catalog knows; None where it knows none.
        partitions: How many it has; also where something of it could not be looked at, as for ``topic_id``.
        topic_id: Kafka's id of this generation of the topic; None also where the broker gives none.
        held: Offsets that Kafka holds for readers, from the low watermark to the last stable offset.
        held_back: Offsets beyond that, which an open transaction keeps from readers, and so from the archive; they count
            as no lag.
        lag: Those of ``held`` that are not dealt with.
        unrecorded: Offsets that Kafka no longer holds and no run has dealt with: lost, but for the record.
        covered: Offsets dealt with, whatever became of them; 0 where not asked for, as for ``holes``.
        holes: Offsets not dealt with, between offsets that are, less those known to be gone from Kafka.
        gaps: Holes, unrecorded, lost, skipped and pruned offsets as slices, in their order; empty where not asked for.
    """

    topic: str
    total: TopicSummary
    windows: Mapping[str, TopicSummary] = field(default_factory=dict)
    state: TopicState = TopicState.ARCHIVED
    private: bool = False
    test: bool = False
    generations: int = 0
    generation: int | None = None
    partitions: int | None = None
    topic_id: str | None = None
    held: int | None = None
    held_back: int | None = None
    lag: int | None = None
    unrecorded: int | None = None
    covered: int = 0
    holes: int = 0
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Topics by name, as of a moment.

    Attributes:
        topics: Those that were asked for, of which source or catalog know; else those that are archived now, and those that
            the catalog knows from before.
        at: When this was asked (UTC).
        source_error: Why the source's part is missing; '' where it is not.
        obstacles: What could not be looked at, or may not be read, just now.
        unmet: Names and globs of the source's stanza of which nothing comes.
    """

    topics: tuple[TopicFacts, ...]
    at: datetime.datetime
    source_error: str = ""
    obstacles: tuple[Finding, ...] = ()
    unmet: tuple[str, ...] = ()


def gather(
    archive: Archive,
    topics: Collection[str] | None = None,
    *,
    unasked: str = "",
    windows: Mapping[str, datetime.timedelta] | None = None,
    with_coverage: bool = False,
    with_gaps: bool = False,
) -> Facts:
    """Ask the catalog, and the source where it answers. A few requests to each, however many topics there are.

    Args:
        archive: What to look at.
        topics: Only these; None for all.
        unasked: Why the source is not to be asked; '' to ask it.
        windows: How far back totals are wanted, too, by name: by when batches were committed.
        with_coverage: Whether to read the coverage of topics that the source does not have, too, and to find holes.
        with_gaps: Whether to list holes and lost offsets, beside that; reads the ledger of topics that lack some.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    at, catalog = archive.now(), archive.catalog
    totals = {summary.topic: summary for summary in catalog.summaries(topics)}
    recent = {
        window: {summary.topic: summary for summary in catalog.summaries(topics, since=at - age)}
        for window, age in (windows or {}).items()
    }
    seen, gone, source_error = _asked(archive, topics, totals, unasked)
    names = sorted({*totals, *((*seen.infos, *seen.undescribed) if seen else ())})
    coverage = dict(seen.coverage) if seen and with_coverage else {}
    if with_coverage:
        coverage |= catalog.coverage([name for name in names if seen is None or name not in seen.infos])
    recorded = _recorded_gaps(catalog, totals.values()) if with_gaps else None
    parts = _Parts(archive.topics, seen, gone, totals, recent, catalog.generations(names), coverage, recorded)
    facts = tuple(map(parts.facts, names))
    return Facts(facts, at, source_error, seen.obstacles if seen else (), seen.unmet if seen else ())


def _asked(
    archive: Archive, topics: Collection[str] | None, known: Collection[str], unasked: str
) -> tuple[Survey | None, Collection[str], str]:
    """What the source shows, which of the ``known`` topics it has no more, and why that is not known."""
    if unasked:
        return None, (), unasked
    try:
        seen = survey(archive, topics)
        elsewhere = {*known} - {*seen.infos} - seen.undescribed
        if elsewhere:
            there = archive.source.topics(elsewhere)
            elsewhere -= {*there, *there.untold}
    except UnavailableError as error:
        archive.catalog.check()  # Where it is the catalog that does not answer, that is what to say.
        return None, (), str(error)
    return seen, elsewhere, ""


class _Parts:
    """What was found, put together topic by topic."""

    def __init__(
        self,
        policy: TopicPolicy,
        seen: Survey | None,
        gone: Collection[str],
        totals: Mapping[str, TopicSummary],
        recent: Mapping[str, Mapping[str, TopicSummary]],
        generations: Mapping[str, Sequence[Generation]],
        coverage: Mapping[PartitionLog, OffsetSet],
        recorded_gaps: Mapping[str, Sequence[Gap]] | None,
    ) -> None:
        self._policy = policy
        self._seen = seen
        self._gone = gone
        self._totals = totals
        self._recent = recent
        self._generations = generations
        self._coverage = _by_topic(coverage)
        self._knowledge = _by_topic(seen.knowledge if seen else {})
        self._recorded_gaps = recorded_gaps

    def facts(self, name: str) -> TopicFacts:
        """One topic's facts."""
        seen, nothing = self._seen, TopicSummary(name)
        covered, known = self._coverage.get(name, {}), self._knowledge.get(name, {})
        gone = {log: lost(partition) for log, partition in known.items()}
        holes = {log: inner_holes(offsets) - gone.get(log, EMPTY) for log, offsets in covered.items()}
        is_whole = seen is not None and name in seen.infos and name not in seen.not_whole
        marks = [partition.watermarks for partition in known.values()]
        info = seen.infos.get(name) if seen else None
        recognition = seen.recognitions.get(name) if seen else None
        numbers = [generation.number for generation in self._generations.get(name, ())]
        state = self._state(name)
        return TopicFacts(
            topic=name,
            total=self._totals.get(name, nothing),
            windows={window: found.get(name, nothing) for window, found in self._recent.items()},
            state=state,
            private=self._policy.private(name),
            test=self._policy.test(name),
            generations=len(numbers),
            generation=recognition.number
            if recognition and not recognition.is_new
            else max(numbers, default=None),
            partitions=info.partitions if info else None,
            topic_id=info.topic_id if info else None,
            held=sum(max(0, m.stable - m.low) for m in marks) if is_whole else None,
            held_back=sum(m.high - m.stable for m in marks) if is_whole else None,
            lag=sum(work(partition).size for partition in known.values()) if is_whole else None,
            unrecorded=sum(offsets.size for offsets in gone.values()) if is_whole else None,
            covered=sum(offsets.size for offsets in covered.values()),
            holes=sum(offsets.size for offsets in holes.values()),
            gaps=self._gaps(name, state, holes, gone),
        )

    def _state(self, name: str) -> TopicState:
        if name in self._gone:
            return TopicState.GONE
        if self._policy.vetoed(name):
            return TopicState.VETOED
        return TopicState.ARCHIVED if self._policy.archived(name) else TopicState.LEFT_OUT

    def _gaps(
        self,
        name: str,
        state: TopicState,
        holes: Mapping[PartitionLog, OffsetSet],
        gone: Mapping[PartitionLog, OffsetSet],
    ) -> tuple[Gap, ...]:
        if self._recorded_gaps is None:
            return ()
        gaps = list(self._recorded_gaps.get(name, ()))
        for log, offsets in holes.items():
            if self._seen is None or name in self._seen.not_whole:
                reason = UNKNOWN
            elif log not in gone:
                reason = EARLIER
            else:
                reason = PENDING if state is TopicState.ARCHIVED else NOT_ARCHIVED
            gaps += [Gap(hole, GapKind.HOLE, reason) for hole in log.slices(offsets)]
        if state is TopicState.ARCHIVED:
            gaps += [Gap(s, GapKind.UNRECORDED, UNRECORDED) for log in gone for s in log.slices(gone[log])]
        return tuple(sorted(gaps, key=lambda gap: gap.slice))


def _by_topic(by_log: Mapping[PartitionLog, Value]) -> dict[str, dict[PartitionLog, Value]]:
    found: dict[str, dict[PartitionLog, Value]] = {}
    for log, value in by_log.items():
        found.setdefault(log.topic, {})[log] = value
    return found


def inner_holes(covered: OffsetSet) -> OffsetSet:
    """The offsets between the first and the last of ``covered`` that are not in it."""
    first = covered.ranges[0].start if covered else 0
    return OffsetSet.between(first, covered.stop) - covered


def holes(archive: Archive, topics: Collection[str] | None = None) -> dict[PartitionLog, int]:
    """Offsets that lie between dealt-with ones and are not dealt with, by log; those without are left out."""
    found = archive.catalog.coverage(topics)
    return {log: size for log, covered in found.items() if (size := inner_holes(covered).size)}


def _recorded_gaps(catalog: Catalog, totals: Iterable[TopicSummary]) -> dict[str, list[Gap]]:
    """What the ledger says was not archived, by topic."""
    losers = [total.topic for total in totals if total.lost or total.skipped or total.pruned]
    kinds = {Outcome.LOST: GapKind.LOST, Outcome.SKIPPED: GapKind.SKIPPED, Outcome.PRUNED: GapKind.PRUNED}
    found = defaultdict[str, list[Gap]](list)
    for entry in catalog.ledger(losers) if losers else ():
        if entry.outcome in kinds:
            found[entry.slice.topic].append(Gap(entry.slice, kinds[entry.outcome], entry.reason))
    return found
