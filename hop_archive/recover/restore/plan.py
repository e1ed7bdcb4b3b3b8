"""From a request to what is to be written where. Reads the catalog, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Measure, total
from hop_archive.errors import ConfigurationError, ConflictError
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.topics import TopicPolicy
from hop_archive.recover.restore.request import Request

MEASURE_TIMEOUT_S = 280.0
"""Longest that the database may count one log: below what a connection allows a statement."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Messages of one log, in order of offset; or a topic's adopted ones, in order of timestamp.

    Attributes:
        topic: The archived topic.
        partition_log: Where they stood; None for adopted ones, of which nobody knows.
        stop: The offset at which it ends: what is archived later is not of this restore; 0 for adopted ones.
        measure: How much it is, less ``duplicates``.
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
        topic: Its name.
        source: The archived topic.
        lanes: What is written, one after another in each partition; none of a topic without messages.
        partitions: How many partitions it needs.
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
    """What a restore is to write, topic by topic."""

    targets: tuple[Target, ...]

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

    Args:
        catalog: What there is.
        request: What is wanted.
        policy: Which topics hold tests only.

    Raises:
        ConfigurationError: Nothing is selected; a topic means none; or several topics would go to one.
    """
    targets: dict[str, Target] = {}
    for topic in _topics(catalog, request, policy):
        lanes = _lanes(catalog, request, topic)
        generation = _newest(lanes)
        if not lanes:
            if not (request.is_whole and (meant := _empty_lives(catalog, request, topic))):
                continue
            generation = meant[0]
        name = request.target_of(topic)
        if name in targets:
            raise _two_into_one(targets[name].source, topic, name)
        partitions = 1 + max(
            (*(lane.partition for lane in lanes), *partitions_seen(catalog, topic, lanes, generation)),
            default=0,
        )
        targets[name] = Target(name, topic, tuple(lanes), partitions, generation)
    if not targets:
        raise ConfigurationError(
            "Nothing in the catalog is what was selected: there is nothing to restore.",
            remedy="See hop-archive status for what there is; hop-archive uuids lists a selection.",
        )
    return RestorePlan(tuple(targets[name] for name in sorted(targets)))


class Pin(NamedTuple):
    """What a target consisted of when its restore began, as JSON keeps it.

    Attributes:
        source: The archived topic.
        lanes: Generation, partition and stop of each lane that has a log.
        adopted: Whether there is one that has none.
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
    as_begun = {name: _pinned(catalog, request, name, one) for name, one in pins.items()}
    return RestorePlan(tuple(as_begun.get(one.topic, one) for one in planned.targets))


def _pinned(catalog: Catalog, request: Request, name: str, then: Pin) -> Target:
    lanes = []
    for generation, partition, stop in then.lanes:
        lane = _lane(catalog, request, PartitionLog(then.source, generation, partition), stop)
        if lane is None:
            raise ConflictError(
                f"The restore to {name} began with messages of {then.source} (generation {generation}, partition "
                f"{partition}), and the catalog has none of them any more.",
                remedy="Begin anew with --restart, to a topic of another name.",
                topic=then.source,
            )
        lanes.append(lane)
    adopted = _adopted_lane(catalog, request, then.source) if then.adopted else []
    found = (*adopted, *lanes)
    newest = _newest(found) if found else then.generation
    seen = partitions_seen(catalog, then.source, found, newest)
    return Target(
        name, then.source, found, 1 + max((*(lane.partition for lane in found), *seen), default=0), newest
    )


def _topics(catalog: Catalog, request: Request, policy: TopicPolicy) -> list[str]:
    """The topics that are meant, those without messages among them: of a life, or of a snapshot, that is known."""
    known = {*catalog.known_topics(), *(one.name for one in catalog.snapshots("topic"))}
    chosen = replace(request.query, topics=request.topics).chosen_topics(known)
    return [topic for topic in chosen if request.tests or not policy.test(topic)]


def _newest(lanes: Sequence[Lane]) -> int | None:
    return max((lane.partition_log.generation for lane in lanes if lane.partition_log), default=None)


def _empty_lives(catalog: Catalog, request: Request, topic: str) -> list[int | None]:
    """Which lives of a topic without messages may be meant, the newest first: [None] where none is recorded."""
    known = catalog.generations([topic]).get(topic, ())
    if not known:
        return [None] if request.as_of_ms is None and not isinstance(request.generations, int) else []
    numbers = sorted((one.number for one in known), reverse=True)
    return [*_candidates(catalog, request, topic, numbers)]


def _lanes(catalog: Catalog, request: Request, topic: str) -> list[Lane]:
    partition_logs = list(catalog.partition_logs(topic))
    numbers = sorted({one.generation for one in partition_logs}, reverse=True)
    lanes: list[Lane] = []
    for number in _candidates(catalog, request, topic, numbers):
        found = [
            lane
            for one in partition_logs
            if one.generation == number and (lane := _lane(catalog, request, one))
        ]
        lanes = [*found, *lanes]
        if lanes and request.generations != "all":
            break
    return [*_adopted(catalog, request, topic, lanes), *lanes]


def partitions_seen(
    catalog: Catalog, topic: str, lanes: Sequence[Lane], generation: int | None
) -> frozenset[int]:
    """The partitions that the lives which are restored were ever seen to have, messages in them or not."""
    lives = {generation, *(lane.partition_log.generation for lane in lanes if lane.partition_log is not None)}
    seen = (*catalog.partition_logs(topic), *catalog.observed([topic]), *catalog.coverage([topic]))
    return frozenset(one.partition for one in seen if one.generation in lives)


def _candidates(catalog: Catalog, request: Request, topic: str, numbers: Collection[int]) -> list[int]:
    """The generations that may be meant, the newest first."""
    if isinstance(request.generations, int):
        return [number for number in numbers if number == request.generations]
    if request.as_of_ms is None:
        return list(numbers)
    born = {
        one.number: one.detected_at.timestamp() * 1000 for one in catalog.generations([topic]).get(topic, ())
    }
    # The first may have lived long before the archive saw it.
    return [n for n in numbers if n == min(numbers) or born.get(n, 0) <= request.as_of_ms]


def _lane(catalog: Catalog, request: Request, partition_log: PartitionLog, stop: int = 0) -> Lane | None:
    """The lane of a log, up to ``stop``; 0: up to all that is archived by now."""
    covered = catalog.coverage([partition_log.topic]).get(partition_log, EMPTY)
    whole = Slice(*partition_log, 0, stop or max(covered.stop, _last(catalog, partition_log) + 1))
    asked = OffsetSet.of(found for at, found in request.offsets if at == whole.topic_partition)
    alone = tuple(
        partition_log.slices(asked & whole.offsets)
    )  # united: what is asked for twice is written once
    if request.offsets and not alone:
        return None
    query = replace(bounded(request), places=alone or (whole,))
    measure = catalog.measure(query, timeout_s=MEASURE_TIMEOUT_S)
    copies = _duplicates(catalog, request, alone or (whole,)) if request.duplicates else 0
    lane = Lane(partition_log.topic, partition_log, whole.stop, measure, copies, alone)
    return lane if lane.messages else None


def _last(catalog: Catalog, partition_log: PartitionLog) -> int:
    """The last offset with a row that the ledger does not cover; -1 where it covers all."""
    beyond = [
        one.stop - 1 for one in catalog.unledgered(partition_log.topic) if one.partition_log == partition_log
    ]
    return max(beyond, default=-1)


def _duplicates(catalog: Catalog, request: Request, places: tuple[Slice, ...]) -> int:
    """How many duplicates there are in ``places`` within the time that is wanted; other bounds come later."""
    count = 0
    for place in places:
        start = place.start
        while start < place.stop:
            found = catalog.duplicates_in(place.within(start, place.stop), 10_000)
            count += sum(in_time(request, one.timestamp_ms) for one in found)
            start = found[-1].offset + 1 if found else place.stop
    return count


def _adopted(catalog: Catalog, request: Request, topic: str, lanes: Sequence[Lane]) -> list[Lane]:
    """What another archiver left of the topic's first life, or of all that is known of it."""
    first = all(lane.partition_log is not None and lane.partition_log.generation == 1 for lane in lanes)
    wanted = request.generations in ("all", 1) or (request.generations == "latest" and first)
    if not wanted or request.offsets or not catalog.has_adopted(topic):
        return []
    return _adopted_lane(catalog, request, topic)


def _adopted_lane(catalog: Catalog, request: Request, topic: str) -> list[Lane]:
    query = replace(bounded(request), topics=(topic,), adopted=True)
    measure = catalog.measure(query, timeout_s=MEASURE_TIMEOUT_S)
    return [Lane(topic, None, 0, measure)] if measure.messages else []


def bounded(request: Request) -> Query:
    """The request's query with its bound in time, for one lane: without topics."""
    return replace(request.query, topics=(), until_ms=request.until_ms)


def in_time(request: Request, timestamp_ms: int) -> bool:
    """Whether a timestamp is within the bounds."""
    since_ms, until_ms = request.query.since_ms, request.until_ms
    return (since_ms is None or timestamp_ms >= since_ms) and (until_ms is None or timestamp_ms < until_ms)


def _two_into_one(one: str, other: str, target: str) -> ConfigurationError:
    return ConfigurationError(
        f"Topics {one} and {other} would both go to {target}.",
        remedy="Restore them one by one, or say --to-topic-template '{topic}.restored'.",
    )
