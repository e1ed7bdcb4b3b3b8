"""What is known of each topic: what the policy says of it, what the source holds, and what the catalog covers.

``status`` and ``topics`` show it and asset checks judge it: gathered here, once. Changes nothing.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from hop_archive.archive import Archive
from hop_archive.catalog.checked import VerifiedShare
from hop_archive.catalog.records import Outcome, TopicSummary
from hop_archive.errors import UnavailableError
from hop_archive.ingest.plan import lost, work
from hop_archive.ingest.survey import Survey, survey
from hop_archive.model.findings import Finding, OpenCount
from hop_archive.model.message import TopicPartition
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.topics import matches, refuse_illegal, without_meaning
from hop_archive.source.protocol import Answers, TopicInfo

Value = TypeVar("Value")

PENDING = "Kafka holds these: the next run archives them"
UNRECORDED = "gone from Kafka: the next run records them as lost"
NOT_ARCHIVED = "Kafka holds these: the stanza leaves the topic out now"
EARLIER = "of an earlier generation of the topic"
UNKNOWN = "the source does not answer, so whether it holds these is not known"


WINDOWS = {"last_24_hours": datetime.timedelta(hours=24), "last_hour": datetime.timedelta(hours=1)}
"""The windows of a status, besides all time: by when batches were committed."""

INTERNAL = "__*"
"""Kafka's own topics: left out of reports unless somebody asks for them."""


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
        total: What is archived of it, since the archive's start.
        windows: The same by window, where that was asked for.
        state: What becomes of its messages; where the source does not answer, by the policy alone.
        private: Whether they are annotated as not public.
        test: Whether it holds test messages only.
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
        findings: What is wrong or in the way and nobody has settled, by topic and kind; where that was asked for.
        shares: How much of each topic was read and compared by scrubbing; likewise.
    """

    topics: tuple[TopicFacts, ...]
    at: datetime.datetime
    source_error: str = ""
    obstacles: tuple[Finding, ...] = ()
    unmet: tuple[str, ...] = ()
    findings: tuple[OpenCount, ...] = ()
    shares: tuple[VerifiedShare, ...] = ()


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
    at = archive.now()
    found = _Gathering(archive, topics, unasked, {w: at - age for w, age in (windows or {}).items()})
    if with_coverage:
        found.read_coverage()
    if with_gaps:
        found.read_gaps()
    facts = tuple(map(found.facts, found.names))
    seen = found.seen
    return Facts(facts, at, found.source_error, seen.obstacles if seen else (), seen.unmet if seen else ())


class _Gathering:
    """What was asked of source and catalog, put together topic by topic."""

    def __init__(
        self,
        archive: Archive,
        topics: Collection[str] | None,
        unasked: str,
        since: Mapping[str, datetime.datetime],
    ) -> None:
        self._catalog = archive.catalog
        self._policy = archive.topics
        self._totals = {summary.topic: summary for summary in self._catalog.summaries(topics)}
        self._recent = {
            window: {summary.topic: summary for summary in self._catalog.summaries(topics, since=moment)}
            for window, moment in since.items()
        }
        self.seen: Survey | None = None
        self.source_error = unasked
        self._gone: set[str] = set()
        if not unasked:
            try:
                seen = survey(archive, topics)
                elsewhere = {*self._totals} - {*seen.infos} - seen.undescribed
                there = archive.source.topics(elsewhere) if elsewhere else Answers[str, TopicInfo]({})
                self.seen, self._gone = seen, elsewhere - {*there, *there.untold}
            except UnavailableError as error:
                archive.catalog.check()  # Where it is the catalog that does not answer, that is what to say.
                self.source_error = str(error)
        self._infos = self.seen.infos if self.seen else {}
        self._not_whole = self.seen.not_whole if self.seen else frozenset[str]()
        self.names = sorted({*self._totals, *self._infos, *(self.seen.undescribed if self.seen else ())})
        self._generations = self._catalog.generations(self.names)
        self._knowledge = _by_topic(self.seen.knowledge if self.seen else {})
        self._coverage: dict[str, dict[PartitionLog, OffsetSet]] = {}
        self._recorded_gaps: dict[str, list[Gap]] | None = None

    def read_coverage(self) -> None:
        """Take in what is covered, also of topics that the source does not have."""
        elsewhere = self._catalog.coverage([name for name in self.names if name not in self._infos])
        self._coverage = _by_topic({**elsewhere, **(self.seen.coverage if self.seen else {})})

    def read_gaps(self) -> None:
        """Take in what the ledger says was not archived."""
        losers = [s.topic for s in self._totals.values() if s.lost or s.skipped or s.pruned]
        kinds = {Outcome.LOST: GapKind.LOST, Outcome.SKIPPED: GapKind.SKIPPED, Outcome.PRUNED: GapKind.PRUNED}
        self._recorded_gaps = {}
        for entry in self._catalog.ledger(losers) if losers else ():
            if entry.outcome in kinds:
                gap = Gap(entry.slice, kinds[entry.outcome], entry.reason)
                self._recorded_gaps.setdefault(entry.slice.topic, []).append(gap)

    def facts(self, name: str) -> TopicFacts:
        """One topic's facts."""
        seen, nothing, policy = self.seen, TopicSummary(name), self._policy
        covered, known = self._coverage.get(name, {}), self._knowledge.get(name, {})
        gone = {log: lost(partition) for log, partition in known.items()}
        holes = {log: inner_holes(offsets) - gone.get(log, EMPTY) for log, offsets in covered.items()}
        is_whole = name in self._infos and name not in self._not_whole
        marks = [partition.watermarks for partition in known.values()]
        info = self._infos.get(name)
        recognition = seen.recognitions.get(name) if seen else None
        numbers = [generation.number for generation in self._generations.get(name, ())]
        state = TopicState.ARCHIVED if policy.archived(name) else TopicState.LEFT_OUT
        if name in self._gone:
            state = TopicState.GONE
        elif policy.vetoed(name):
            state = TopicState.VETOED
        return TopicFacts(
            topic=name,
            total=self._totals.get(name, nothing),
            windows={window: found.get(name, nothing) for window, found in self._recent.items()},
            state=state,
            private=policy.private(name),
            test=policy.test(name),
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
            if name in self._not_whole or self.seen is None:
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


@dataclass(frozen=True, slots=True)
class LeftOutTopics:
    """A topic of the source that is not archived: vetoed or not named.

    Attributes:
        held: Offsets that Kafka holds of it for readers; None where that cannot be told of all its partitions.
    """

    topic: str
    state: TopicState
    held: int | None


def topics_left_out(archive: Archive, there: Answers[str, TopicInfo]) -> Sequence[LeftOutTopics]:
    """Of the source's topics those that its stanza does not want, by name; Kafka's own are not told of. One request.

    Raises:
        UnavailableError: The source does not answer.
    """
    policy = archive.topics
    unwanted = {
        n: info for n, info in there.items() if not policy.archived(n) and not matches(n, (INTERNAL,))
    }
    places = {n: [TopicPartition(n, at) for at in range(info.partitions)] for n, info in unwanted.items()}
    marks = archive.source.watermarks([at for several in places.values() for at in several])
    return [
        LeftOutTopics(
            name,
            TopicState.VETOED if policy.vetoed(name) else TopicState.LEFT_OUT,
            sum(max(0, marks[at].stable - marks[at].low) for at in places[name])
            if all(at in marks for at in places[name])
            else None,
        )
        for name in sorted(unwanted)
    ]


def inner_holes(covered: OffsetSet) -> OffsetSet:
    """The offsets between the first and the last of ``covered`` that are not in it."""
    first = covered.ranges[0].start if covered else 0
    return OffsetSet.between(first, covered.stop) - covered


def holes(archive: Archive, topics: Collection[str] | None = None) -> dict[PartitionLog, int]:
    """Offsets that lie between dealt-with ones and are not dealt with, by log; those without are left out."""
    found = archive.catalog.coverage(topics)
    return {log: size for log, covered in found.items() if (size := inner_holes(covered).size)}


def status(archive: Archive, topics: Collection[str] | None = None, *, unasked: str = "") -> Facts:
    """Ask the catalog, and the source where it answers; see `gather` for the arguments.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    return replace(
        gather(archive, topics, unasked=unasked, windows=WINDOWS),
        findings=tuple(archive.catalog.open_findings(topics)),
        shares=tuple(archive.catalog.verified_shares(topics)),
    )


def report_topics(
    archive: Archive, patterns: Sequence[str] = (), *, internal: bool = False, with_gaps: bool = False
) -> Facts:
    """Look at every topic of the source and of the catalog; of one that is not archived, nothing lags or is unrecorded.

    Args:
        archive: What to look at.
        patterns: Only topics that one of these names or globs means; empty: all.
        internal: Whether to report Kafka's own topics, too.
        with_gaps: Whether to list holes and lost offsets; reads the ledger of topics that lack some.

    Raises:
        ConfigurationError: A pattern is none.
        UnavailableError: The catalog does not answer.
    """
    # Those that are known, too: a topic that may not be described is not listed.
    names, unasked = {summary.topic for summary in archive.catalog.summaries()}, ""
    try:
        found = archive.source.topics()
        names |= {*found, *found.untold}
    except UnavailableError as error:
        archive.catalog.check()  # Where it is the catalog that does not answer, that is what to say.
        unasked = str(error)
    refuse_illegal(without_meaning(patterns, names))
    chosen = [
        name
        for name in sorted(names)
        if (internal or not matches(name, (INTERNAL,))) and (not patterns or matches(name, patterns))
    ]
    facts = gather(archive, chosen, unasked=unasked, with_coverage=True, with_gaps=with_gaps)
    judged = (
        fact if fact.state is TopicState.ARCHIVED else replace(fact, lag=None, unrecorded=None)
        for fact in facts.topics
    )
    return replace(facts, topics=tuple(judged))
