"""From a request to what is to be written where. Reads the catalog, and nothing else."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Self

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Measure, total
from hop_archive.errors import ConfigurationError, ConflictError
from hop_archive.model.message import TimestampType
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.topics import TopicPolicy, is_topic_name
from hop_archive.recover.restore.request import Request

MEASURE_TIMEOUT_S = 280.0
"""Longest that the database may count one log: below what a connection allows a statement."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Messages of one log, in order of offset; or a topic's adopted ones, in order of timestamp.

    Attributes:
        partition_log: Where they stood; None for adopted ones, of which nobody knows.
        stop: The offset at which it ends: what is archived later is not of this restore; 0 for adopted ones.
        measure: How much it is, less ``duplicates`` and what was suppressed; the largest, and the times, of these, too.
        duplicates: How many recorded duplicates belong to it; 0 where they are not wanted.
        alone: The slices of offsets that were asked for, within which alone it selects; empty: all up to ``stop``.
    """

    topic: str
    partition_log: PartitionLog | None
    stop: int
    measure: Measure
    duplicates: int = 0
    alone: tuple[Slice, ...] = ()

    @property
    def messages(self) -> int:
        """How many messages it is, at most."""
        return self.measure.messages + self.duplicates

    @property
    def partition(self) -> int:
        """The partition in which its messages stood; 0 where that is not known."""
        return self.partition_log.partition if self.partition_log else 0

    def slices(self, start: int = 0) -> Iterator[Slice]:
        """The slices that it selects from, from offset ``start`` on."""
        assert self.partition_log is not None
        whole = Slice(*self.partition_log, 0, self.stop)
        for one in self.alone or (whole,):
            first, stop = max(one.start, start), min(one.stop, self.stop)
            if first < stop:
                yield one.within(first, stop)


@dataclass(frozen=True, slots=True)
class Target:
    """One topic that is written to.

    Attributes:
        lanes: What is written, one after another in each partition; none of a topic without messages.
        generation: The newest of the generations that are written, or the one that is empty; None where all is
            adopted, or nothing is known of the topic but its snapshot.
    """

    topic: str
    source: str
    lanes: tuple[Lane, ...]
    partitions: int
    generation: int | None = None

    @property
    def measure(self) -> Measure:
        """How much it is, less duplicates."""
        return total(lane.measure for lane in self.lanes)

    @property
    def messages(self) -> int:
        """How many messages, at most: test messages may be left out."""
        return sum(lane.messages for lane in self.lanes)


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What a restore is to write, topic by topic.

    Attributes:
        targets: Where to.
        unnamed: Archived topics of the selection that are left out: no topic of Kafka's may have the name they would get.
    """

    targets: tuple[Target, ...]
    unnamed: tuple[str, ...] = ()

    @property
    def messages(self) -> int:
        """How many messages, at most."""
        return sum(target.messages for target in self.targets)

    @property
    def measure(self) -> Measure:
        """How much it is, less duplicates."""
        return total(target.measure for target in self.targets)


def plan(catalog: Catalog, request: Request, policy: TopicPolicy) -> RestorePlan:
    """What ``request`` means now.

    Raises:
        ConfigurationError: Nothing is selected; a topic means none; several topics would go to one; or a topic that is
            named itself would get a name that Kafka does not take.
    """
    planner = _Planner.of(catalog, request)
    targets: dict[str, Target] = {}
    unnamed: list[str] = []
    # Topics without messages are among them: a generation of them is known, or a snapshot.
    known = {*catalog.known_topics(), *(snapshot.name for snapshot in catalog.snapshots("topic"))}
    chosen = replace(request.query, topics=request.topics).chosen_topics(known)
    if request.query.uuids is not None:
        # Copies stand in the topic of what they repeat. To look for a message in each log of each topic took 6 s of
        # processor time where this takes 0.01 (10 million rows, 2026-11-28).
        holders = {row.topic for row in catalog.select(Query(uuids=request.query.uuids))}
        chosen = [topic for topic in chosen if topic in holders]
    for topic in chosen:
        if not request.tests and policy.test(topic):
            continue
        lanes = planner.lanes(topic)
        generation = _newest(lanes)
        if not lanes:
            empty = planner.empty_generations(topic) if request.is_whole else []
            if not empty:
                continue
            generation = empty[0]
        name = request.target_of(topic)
        if not is_topic_name(name):
            if topic in request.topics:
                raise ConfigurationError(
                    f"{topic} would be restored to {name}, and Kafka takes no topic of that name: at most 249 of letters, "
                    "digits, '.', '_' and '-'.",
                    remedy="Name another with --to-topic.",
                    topic=topic,
                )
            unnamed.append(topic)
            continue
        if name in targets:
            raise ConfigurationError(
                f"Topics {targets[name].source} and {topic} would both go to {name}.",
                remedy="Restore them one by one, or say --to-topic-template '{topic}.restored'.",
            )
        targets[name] = planner.target(name, topic, lanes, generation)
    if not targets:
        raise ConfigurationError(
            "Nothing in the catalog is what was selected: there is nothing to restore."
            if not unnamed
            else f"Kafka takes none of the names that {', '.join(unnamed)} would get: there is nothing to restore.",
            remedy="See hop-archive status for what there is; hop-archive uuids lists a selection."
            if not unnamed
            else "Name another with --to-topic, one topic at a time.",
        )
    return RestorePlan(tuple(targets[name] for name in sorted(targets)), tuple(unnamed))


@dataclass(frozen=True, slots=True)
class Pin:
    """What a target consisted of when its restore began, as JSON keeps it.

    Attributes:
        lanes: Generation, partition and stop of each lane that has a log.
        generation: That of a target without lanes; None where lanes tell, or nobody knows.
    """

    source: str
    lanes: Sequence[Sequence[int]]
    adopted: bool
    generation: int | None = None


def pin(target: Target) -> Pin:
    """What ``pinned`` needs to make the same target again, whatever is archived meanwhile."""
    lanes = [[*lane.partition_log[1:], lane.stop] for lane in target.lanes if lane.partition_log is not None]
    generation = None if target.lanes else target.generation
    return Pin(target.source, lanes, any(lane.partition_log is None for lane in target.lanes), generation)


def pinned(catalog: Catalog, request: Request, planned: RestorePlan, pins: Mapping[str, Pin]) -> RestorePlan:
    """The plan with its targets as they were when the restore began: what was archived since is not of it.

    A topic that was made anew since has another latest generation; the restore goes on with the one it began with.

    Raises:
        ConflictError: What it began with is not in the catalog any more.
    """
    planner = _Planner.of(catalog, request)
    as_begun: dict[str, Target] = {}
    for name, then in pins.items():
        lanes = []
        for generation, partition, stop in then.lanes:
            lane = planner.lane(PartitionLog(then.source, generation, partition), stop)
            if lane is None:
                raise ConflictError(
                    f"The restore to {name} began with messages of {then.source} (generation {generation}, partition "
                    f"{partition}), and the catalog has none of them any more.",
                    remedy="Begin anew with --restart, to a topic of another name.",
                    topic=then.source,
                )
            lanes.append(lane)
        if then.adopted:
            lanes = [*planner.adopted_lane(then.source), *lanes]
        newest = _newest(lanes) if lanes else then.generation
        as_begun[name] = planner.target(name, then.source, lanes, newest)
    return replace(planned, targets=tuple(as_begun.get(target.topic, target) for target in planned.targets))


def _newest(lanes: Sequence[Lane]) -> int | None:
    return max((lane.partition_log.generation for lane in lanes if lane.partition_log), default=None)


@dataclass(frozen=True, slots=True)
class _Planner:
    """Makes targets of what the catalog has and a request selects."""

    catalog: Catalog
    request: Request
    suppressed: Mapping[str, frozenset[uuid.UUID]]

    @classmethod
    def of(cls, catalog: Catalog, request: Request) -> Self:
        """Asks the catalog, once, what is never put back."""
        found = sorted((suppression.topic, suppression.uuid) for suppression in catalog.suppressions())
        by_topic = itertools.groupby(found, key=itemgetter(0))
        return cls(catalog, request, {topic: frozenset(own for _, own in some) for topic, some in by_topic})

    def target(self, name: str, topic: str, lanes: Sequence[Lane], generation: int | None) -> Target:
        """A target with all partitions that its generations were ever seen to have, messages in them or not."""
        generations = {generation, *(lane.partition_log.generation for lane in lanes if lane.partition_log)}
        catalog = self.catalog
        seen = (*catalog.partition_logs(topic), *catalog.observed([topic]), *catalog.coverage([topic]))
        partitions = {log.partition for log in seen if log.generation in generations}
        partitions |= {lane.partition for lane in lanes}
        return Target(name, topic, tuple(lanes), 1 + max(partitions, default=0), generation)

    def lanes(self, topic: str) -> list[Lane]:
        """What is selected of a topic: first what another archiver left of its first generation, or of all that is known."""
        request = self.request
        # Up to all that is archived by now, whether the ledger covers it or not.
        covered = self.catalog.coverage([topic])
        stops = {
            rows.partition_log: max(covered.get(rows.partition_log, EMPTY).stop, rows.stop)
            for rows in self.catalog.spans(topic)
        }
        numbers = sorted({log.generation for log in stops}, reverse=True)
        lanes: list[Lane] = []
        for number in self._candidates(topic, numbers):
            found = (self.lane(log, stop) for log, stop in stops.items() if log.generation == number)
            lanes = [*(lane for lane in found if lane is not None), *lanes]
            if lanes and request.generations != "all":
                break
        of_first = all(
            lane.partition_log is not None and lane.partition_log.generation == 1 for lane in lanes
        )
        with_adopted = request.generations in ("all", 1) or (request.generations == "latest" and of_first)
        if with_adopted and not request.offsets and self.catalog.has_adopted(topic):
            return [*self.adopted_lane(topic), *lanes]
        return lanes

    def empty_generations(self, topic: str) -> Sequence[int | None]:
        """Which generations of a topic without messages may be meant, the newest first: [None] where none is recorded."""
        known = self.catalog.generations([topic]).get(topic, ())
        if known:
            return self._candidates(topic, sorted((generation.number for generation in known), reverse=True))
        is_latest = self.request.as_of_ms is None and not isinstance(self.request.generations, int)
        return [None] if is_latest else []

    def _candidates(self, topic: str, numbers: Sequence[int]) -> list[int]:
        """The generations that may be meant, the newest first."""
        wanted, as_of_ms = self.request.generations, self.request.as_of_ms
        if isinstance(wanted, int):
            return [number for number in numbers if number == wanted]
        if as_of_ms is None:
            return list(numbers)
        known = self.catalog.generations([topic]).get(topic, ())
        born = {generation.number: generation.detected_at.timestamp() * 1000 for generation in known}
        # The first may have lived long before the archive saw it.
        return [n for n in numbers if n == min(numbers) or born.get(n, 0) <= as_of_ms]

    def lane(self, partition_log: PartitionLog, stop: int) -> Lane | None:
        """The lane of a log, up to ``stop``; None where nothing of it is selected."""
        catalog, request, topic = self.catalog, self.request, partition_log.topic
        whole = Slice(*partition_log, 0, stop)
        # United: what is asked for twice is written once.
        asked = OffsetSet.of(offsets for at, offsets in request.offsets if at == whole.topic_partition)
        alone = tuple(partition_log.slices(asked & whole.offsets))
        if request.offsets and not alone:
            return None
        places = alone or (whole,)
        measure = catalog.measure(replace(bounded(request), places=places), timeout_s=MEASURE_TIMEOUT_S)
        hidden = self.suppressed.get(topic, frozenset())
        copies = 0
        for place in places if request.duplicates else ():
            start = place.start
            while start < place.stop:  # within the time that is asked for; other bounds come later
                found = catalog.duplicates_in(place.within(start, place.stop), 10_000)
                copies += sum(
                    copy.uuid not in hidden and in_time(request, copy.timestamp_ms) for copy in found
                )
                start = found[-1].offset + 1 if found else place.stop
        if not measure.messages and not copies:
            return None
        # One of which all was suppressed is a lane all the same: no older generation is meant in its place.
        less = self._less_suppressed(measure, topic, places)
        return Lane(topic, partition_log, whole.stop, less, copies, alone)

    def adopted_lane(self, topic: str) -> list[Lane]:
        """The lane of what another archiver left of a topic; none where nothing of it is selected."""
        query = replace(bounded(self.request), topics=(topic,), adopted=True)
        measure = self.catalog.measure(query, timeout_s=MEASURE_TIMEOUT_S)
        less = self._less_suppressed(measure, topic, ())
        return [Lane(topic, None, 0, less)] if measure.messages else []

    def _less_suppressed(self, measure: Measure, topic: str, places: Sequence[Slice]) -> Measure:
        """A measure of what is selected in some places, or of a topic's adopted rows where there are none, less what is never put back."""
        query = replace(bounded(self.request), topics=(topic,))
        hidden = self.suppressed.get(topic, frozenset())
        if query.uuids is not None:
            hidden &= {*query.uuids}
        if not hidden or not measure.messages:
            return measure
        rows = [
            row
            for row in self.catalog.select(replace(query, uuids=tuple(sorted(hidden))))
            if (any(row.stands_in(place) for place in places) if places else row.slice is None)
        ]
        return measure._replace(
            messages=measure.messages - len(rows),
            size_bytes=measure.size_bytes - sum(row.size_bytes for row in rows),
            at_zero=measure.at_zero - sum(row.timestamp_ms == 0 for row in rows),
            by_append=measure.by_append - sum(row.timestamp_type is TimestampType.APPEND for row in rows),
        )


def bounded(request: Request) -> Query:
    """The request's query with its bound in time, for one lane: without topics."""
    return replace(request.query, topics=(), until_ms=request.until_ms)


def in_time(request: Request, timestamp_ms: int) -> bool:
    """Whether a timestamp is within the bounds."""
    since_ms, until_ms = request.query.since_ms, request.until_ms
    return (since_ms is None or timestamp_ms >= since_ms) and (until_ms is None or timestamp_ms < until_ms)
