"""Topics side by side: what the source has, what the policy says of it, and what is archived. Changes nothing."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hop_archive.archive import Archive
from hop_archive.catalog.records import LedgerEntry, Outcome, TopicSummary
from hop_archive.errors import ConfigurationError, UnavailableError
from hop_archive.ingest.plan import Knowledge, lost, work
from hop_archive.ingest.survey import Survey, survey
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.topics import PATTERN_RULE, is_pattern, matches
from hop_archive.read.status import State, inner_holes, state_by_policy

Value = TypeVar("Value")

INTERNAL = "__*"
"""Kafka's own topics: left out of reports unless somebody asks for them."""

PENDING = "Kafka holds these: the next run archives them"
UNRECORDED = "gone from Kafka: the next run records them as lost"
NOT_WANTED = "Kafka holds these: the stanza leaves the topic out now"
EARLIER = "of an earlier life of the topic"
UNKNOWN = "the source does not answer, so whether it holds these is not known"


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
class TopicReport:
    """One topic. What only the source can tell is None where it does not answer, or has no such topic.

    Attributes:
        topic: Kafka topic name.
        state: What becomes of its messages.
        private: Whether they are annotated as not public.
        test: Whether it holds test messages only.
        partitions: How many it has.
        topic_id: Kafka's id of this life of the topic; None also where the broker gives none.
        generation: The number of its present life, or of the last one that the catalog knows; None where it
            knows none.
        held: Offsets that Kafka holds for readers, from the low watermark to the last stable offset.
        held_back: Offsets beyond that, which an open transaction keeps from readers.
        lag: Those of ``held`` that are not dealt with; None also where the topic is not archived.
        messages: Messages archived.
        covered: Offsets dealt with, whatever became of them.
        holes: Offsets not dealt with, between offsets that are.
        unrecorded: Offsets gone from Kafka that no run has recorded as lost; None also where the topic is not archived.
        lost: Offsets recorded as lost.
        skipped: Offsets recorded as skipped.
        gaps: Holes, unrecorded, lost, skipped and pruned offsets as slices, in their order; empty where not asked for.
        pruned: Offsets whose messages a policy took away.
    """

    topic: str
    state: State
    private: bool
    test: bool
    partitions: int | None
    topic_id: str | None
    generation: int | None
    held: int | None
    held_back: int | None
    lag: int | None
    messages: int
    covered: int
    holes: int
    unrecorded: int | None
    lost: int
    skipped: int
    gaps: tuple[Gap, ...] = ()
    pruned: int = 0


@dataclass(frozen=True, slots=True)
class TopicsReport:
    """Topics by name, as of a moment (UTC); ``source_error`` says why the source's part is missing, '' if it is not."""

    topics: tuple[TopicReport, ...]
    at: datetime.datetime
    source_error: str = ""


def report_topics(
    archive: Archive, patterns: Sequence[str] = (), *, internal: bool = False, with_gaps: bool = False
) -> TopicsReport:
    """Look at every topic of the source and of the catalog.

    A few requests to each, however many topics there are.

    Args:
        archive: What to look at.
        patterns: Only topics that one of these names or globs means; empty: all.
        internal: Whether to report Kafka's own topics, too.
        with_gaps: Whether to list holes and lost offsets; reads the ledger of topics that lack some.

    Raises:
        ConfigurationError: A pattern is none.
        UnavailableError: The catalog does not answer.
    """
    wanted = _Wanted(tuple(patterns), internal)
    at = archive.now()
    summaries = {s.topic: s for s in archive.catalog.summaries() if s.topic in wanted}
    seen, source_error = _survey(archive, wanted, summaries)
    names = sorted({*summaries, *((*seen.infos, *seen.undescribed) if seen else ())})
    parts = _Parts(archive, seen, summaries, names)
    gaps = parts.gaps(names) if with_gaps else {}
    return TopicsReport(tuple(parts.report(name, gaps.get(name, ())) for name in names), at, source_error)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which topics are reported."""

    patterns: tuple[str, ...]
    internal: bool

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            if not is_pattern(pattern):
                raise ConfigurationError(f"Wanted {PATTERN_RULE}, found {pattern!r}.", pattern=pattern)

    def __contains__(self, name: str) -> bool:
        if matches(name, (INTERNAL,)) and not self.internal:
            return False
        return not self.patterns or matches(name, self.patterns)


def _survey(archive: Archive, wanted: _Wanted, known: Collection[str]) -> tuple[Survey | None, str]:
    try:
        found = archive.source.topics()
        # Those that are known, too: a topic that may not be described is not listed.
        return survey(archive, sorted({n for n in (*found, *found.untold, *known) if n in wanted})), ""
    except UnavailableError as error:
        archive.catalog.check()  # Where it is the catalog that does not answer, that is what to say.
        return None, str(error)


class _Parts:
    """What was found, put together topic by topic."""

    def __init__(
        self,
        archive: Archive,
        seen: Survey | None,
        summaries: Mapping[str, TopicSummary],
        names: Sequence[str],
    ) -> None:
        self._catalog = archive.catalog
        self._policy = archive.topics
        self._seen = seen
        self._summaries = summaries
        self._generations = archive.catalog.generations(names)
        here = seen.infos if seen else {}
        coverage = {
            **archive.catalog.coverage([name for name in names if name not in here]),
            **(seen.coverage if seen else {}),
        }
        self._coverage = _by_topic(coverage)
        self._knowledge = _by_topic(seen.knowledge if seen else {})

    def report(self, name: str, gaps: Iterable[Gap]) -> TopicReport:
        """One topic's report."""
        summary = self._summaries.get(name, TopicSummary(name))
        covered = self._coverage.get(name, {}).values()
        state = self._state(name)
        known = self._known(name)
        info = self._seen.infos.get(name) if self._seen else None
        judged = known if state is State.ARCHIVED else None
        return TopicReport(
            topic=name,
            state=state,
            private=self._policy.private(name),
            test=self._policy.test(name),
            partitions=info.partitions if info else None,
            topic_id=info.topic_id if info else None,
            generation=self._generation(name),
            held=None
            if known is None
            else sum(max(0, k.watermarks.stable - k.watermarks.low) for k in known),
            held_back=None if known is None else sum(k.watermarks.high - k.watermarks.stable for k in known),
            lag=None if judged is None else sum(work(k).size for k in judged),
            messages=summary.messages,
            covered=sum(offsets.size for offsets in covered),
            holes=sum(offsets.size for offsets in self._holes(name).values()),
            unrecorded=None if judged is None else sum(lost(k).size for k in judged),
            lost=summary.lost,
            skipped=summary.skipped,
            gaps=tuple(sorted(gaps, key=lambda gap: gap.slice)),
            pruned=summary.pruned,
        )

    def gaps(self, names: Sequence[str]) -> dict[str, list[Gap]]:
        """What is not archived of each topic, as slices."""
        losers = [n for n in names if (s := self._summaries.get(n)) and (s.lost or s.skipped or s.pruned)]
        found: dict[str, list[Gap]] = {name: list(self._unsettled(name)) for name in names}
        for entry in self._catalog.ledger(losers) if losers else ():
            found[entry.slice.topic] += _recorded(entry)
        return found

    def _state(self, name: str) -> State:
        if self._seen is not None and name not in self._seen.infos and name not in self._seen.undescribed:
            return State.GONE
        return state_by_policy(name, self._policy)

    def _generation(self, name: str) -> int | None:
        recognition = self._seen.recognitions.get(name) if self._seen else None
        if recognition is not None and not recognition.is_new:
            return recognition.number
        earlier = self._generations.get(name)
        return earlier[-1].number if earlier else None

    def _known(self, name: str) -> Collection[Knowledge] | None:
        """What the source says of its partitions; None where it says nothing."""
        if self._seen is None or name not in self._seen.infos or name in self._seen.not_whole:
            return None
        return self._knowledge.get(name, {}).values()

    def _holes(self, name: str) -> dict[PartitionLog, OffsetSet]:
        """The holes of each log, less what is known to be gone from Kafka."""
        return {
            partition_log: inner_holes(covered) - self._gone(partition_log)
            for partition_log, covered in self._coverage.get(name, {}).items()
        }

    def _gone(self, partition_log: PartitionLog) -> OffsetSet:
        known = self._knowledge.get(partition_log.topic, {}).get(partition_log)
        return lost(known) if known else EMPTY

    def _unsettled(self, name: str) -> Iterator[Gap]:
        for partition_log, offsets in self._holes(name).items():
            reason = self._why_open(partition_log)
            yield from (Gap(hole, GapKind.HOLE, reason) for hole in partition_log.slices(offsets))
        if self._state(name) is State.ARCHIVED:
            for partition_log in self._knowledge.get(name, {}):
                slices = partition_log.slices(self._gone(partition_log))
                yield from (Gap(gone, GapKind.UNRECORDED, UNRECORDED) for gone in slices)

    def _why_open(self, partition_log: PartitionLog) -> str:
        if self._seen is None or partition_log.topic in self._seen.not_whole:
            return UNKNOWN
        if partition_log not in self._knowledge.get(partition_log.topic, {}):
            return EARLIER
        return PENDING if self._state(partition_log.topic) is State.ARCHIVED else NOT_WANTED


def _recorded(entry: LedgerEntry) -> list[Gap]:
    kinds = {Outcome.LOST: GapKind.LOST, Outcome.SKIPPED: GapKind.SKIPPED, Outcome.PRUNED: GapKind.PRUNED}
    return [Gap(entry.slice, kinds[entry.outcome], entry.reason)] if entry.outcome in kinds else []


def _by_topic(by_lineage: Mapping[PartitionLog, Value]) -> dict[str, dict[PartitionLog, Value]]:
    found: dict[str, dict[PartitionLog, Value]] = {}
    for partition_log, value in by_lineage.items():
        found.setdefault(partition_log.topic, {})[partition_log] = value
    return found
