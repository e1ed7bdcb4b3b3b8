"""What there is to do: compares what the source holds with what the catalog covers.

``survey`` only reads, and is what sensors and ``status`` call; ``plan_work`` writes what a plan must settle
first (new generations, offsets that are lost) and is what a run calls.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from hop_archive.archive import Archive
from hop_archive.catalog.records import GONE, UNKNOWN_CLUSTER, UNPROVEN, Batch, Generation, Outcome
from hop_archive.errors import (
    ConflictError,
    GenerationChangedError,
    HopArchiveError,
    SliceTakenError,
    UnavailableError,
)
from hop_archive.ingest.generations import Recognition, recognise, truncated_logs
from hop_archive.ingest.obstacles import note_obstacles, obstacle
from hop_archive.ingest.plan import Knowledge, Plan, plan, work
from hop_archive.ingest.truncation import begins_as_archived, prove_tails
from hop_archive.model.findings import ACCEPTED, Finding, Kind
from hop_archive.model.limits import Limits
from hop_archive.model.message import TopicPartition
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice, offsets_by_log
from hop_archive.model.topics import is_topic_name
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.protocol import Answers, TopicInfo

log = logging.getLogger(__name__)

_Place = TypeVar("_Place", TopicPartition, PartitionLog)

OVERTAKEN = "retention removed these before they were archived"
BEFORE_FIRST_SIGHT = "already gone when the archive first saw this topic"
OUTLIVED = "the topic was deleted or made anew before these were archived"
REBUILT = "from before the catalog was rebuilt: what is in the store of them stands in an earlier generation"
HELD_BEFORE = "the generation before has these: they stand below what the log lost"
READ_NEXT = "the next generation of the same log has these: they stand below what the log lost"
VANISHED_S = 60.0
"""For how long a topic that the source does not show counts as hidden, and not as deleted: a broker that lags behind its
cluster, as after a restart, does not know of a topic for some seconds."""
_MOST_CHANGES = 3
"""A topic that is another one each time that it is looked at is left out of a plan after so many looks."""
ADOPTED = "before the ledger began: rows adopted from another archiver carry no offsets"


@dataclass(frozen=True, slots=True)
class Survey:
    """The source and the coverage, side by side.

    Attributes:
        infos: The topics that are archived and exist now.
        recognitions: The generation of each, new ones not yet in the catalog.
        knowledge: Watermarks and coverage of every partition that has a leader.
        coverage: All coverage of these topics, earlier generations included.
        generations: What the catalog has of these topics.
        cluster_id: The cluster they are on.
        proven: Under which leader epoch each log was proven to be the one that is covered.
        obstacles: What could not be looked at, or may not be read: a partition without a leader, a topic that cannot be
            described. None of it is in ``infos``, or ``knowledge``, as far as it is not known.
        undescribed: The topics that exist, as far as anybody can tell, and could not be described.
        unmet: Names and globs of the policy of which nothing comes (``TopicPolicy.unmet``); none where certain topics were
            asked for.
        deleted: The topics that the catalog knows, and the source, asked by name, does not show: they were deleted, or a broker
            lags behind. Those of which something is left are in ``obstacles``, until that is recorded as lost.
        shrunk: What logs were seen to hold, beyond what is covered and beyond their ends now.
    """

    infos: Mapping[str, TopicInfo]
    recognitions: Mapping[str, Recognition]
    knowledge: Mapping[PartitionLog, Knowledge]
    coverage: Mapping[PartitionLog, OffsetSet]
    generations: Mapping[str, tuple[Generation, ...]]
    cluster_id: str
    proven: Mapping[PartitionLog, int | None]
    obstacles: tuple[Finding, ...] = ()
    undescribed: frozenset[str] = frozenset()
    unmet: tuple[str, ...] = ()
    deleted: frozenset[str] = frozenset()
    shrunk: tuple[Slice, ...] = ()

    def moved(self) -> dict[PartitionLog, Knowledge]:
        """Partitions that have another leader than their log was proven under."""
        return {
            at: known
            for at, known in self.knowledge.items()
            if known.watermarks.leader_epoch != self.proven.get(at)
        }

    def unproven(self) -> dict[PartitionLog, Knowledge]:
        """Such partitions with coverage, which may have lost its end; of others there is nothing to prove."""
        return {at: known for at, known in self.moved().items() if known.coverage}

    @property
    def unreadable(self) -> frozenset[str]:
        """The topics that may be seen, and not read."""
        return frozenset(name for name, info in self.infos.items() if info.readable is False)

    @property
    def not_whole(self) -> frozenset[str]:
        """The topics of which something could not be looked at: what is known of them is not all."""
        return frozenset(finding.topic for finding in self.obstacles) - self.unreadable

    def refuse_unseen(self) -> None:
        """Make sure that everything could be looked at, for who can do nothing with a part.

        Raises:
            UnavailableError: Something could not be.
        """
        for finding in self.obstacles:
            if finding.topic not in self.unreadable | self.deleted:
                raise UnavailableError(finding.detail, topic=finding.topic, partition=finding.partition)

    def without(self, topics: Collection[str], obstacles: Collection[Finding]) -> Survey:
        """The same, where these topics could not be looked at, and why."""
        return replace(
            self,
            infos={name: info for name, info in self.infos.items() if name not in topics},
            recognitions={name: found for name, found in self.recognitions.items() if name not in topics},
            knowledge={at: known for at, known in self.knowledge.items() if at.topic not in topics},
            generations={name: found for name, found in self.generations.items() if name not in topics},
            obstacles=(*(found for found in self.obstacles if found.topic not in topics), *obstacles),
        )

    def workable(self) -> dict[PartitionLog, Knowledge]:
        """The ``knowledge`` of what may be read."""
        shut = self.unreadable
        return {at: known for at, known in self.knowledge.items() if at.topic not in shut}

    def progress(self) -> dict[TopicPartition, int]:
        """The offset up to which each partition is dealt with, without a gap: what a consumer would commit."""
        reached = {}
        for partition_log, known in self.knowledge.items():
            pending, marks = work(known).ranges, known.watermarks
            done_up_to = pending[0].start if pending else max(marks.low, marks.stable)
            reached[TopicPartition(partition_log.topic, partition_log.partition)] = done_up_to
        return reached

    def pending(self) -> dict[str, int]:
        """Offsets still to be read, by topic; topics without any are left out."""
        counts: dict[str, int] = defaultdict(int)
        for partition_log, known in self.knowledge.items():
            if size := work(known).size:
                counts[partition_log.topic] += size
        return dict(counts)


def survey(archive: Archive, topics: Collection[str] | None = None) -> Survey:
    """Look at the source and the catalog; changes nothing.

    Only at ``topics``, whether the policy wants them or not; None for all that it wants.

    Raises:
        UnavailableError: The source or the catalog does not answer. One partition, or one topic, that cannot be looked at
            is an obstacle, and no error.
    """
    infos, undescribed, deleted = _topics(archive, topics)
    # Coverage before watermarks: these only grow, so a batch that another run commits in between can never
    # make the log look shorter than what was read of it. And before generations, which another run begins meanwhile: what is
    # covered is of one that is known.
    coverage = archive.catalog.coverage(list(infos))
    observed = archive.catalog.observed(list(infos))
    generations = archive.catalog.generations(list(infos))
    marks = archive.source.watermarks(_partitions(infos))
    cluster_id = marks.cluster_id or archive.source.cluster_id()
    infos, marks = _of_one_generation(archive, infos, marks, generations, observed)
    marks_of: dict[str, dict[int, Watermarks]] = defaultdict(dict)
    for at, seen in marks.items():
        marks_of[at.topic][at.partition] = seen
    ended: dict[str, set[int]] = defaultdict(set)
    for partition_log, seen in observed.items():
        if seen.leader_epoch == GONE:
            ended[partition_log.topic].add(partition_log.generation)
    recognitions = {
        name: recognise(
            info, cluster_id, marks_of.get(name, {}), generations.get(name, ()), coverage, ended.get(name, ())
        )
        for name, info in infos.items()
    }
    knowledge = {
        partition_log: Knowledge(marks[partition], coverage.get(partition_log, EMPTY))
        for partition in sorted(marks)
        for partition_log in [
            PartitionLog(partition.topic, recognitions[partition.topic].number, partition.partition)
        ]
    }
    unreadable = {
        name: f"Source {archive.source.name}: the credentials may see topic {name}, and not read it. Give them the right to "
        "read, or leave the topic out."
        for name, info in infos.items()
        if info.readable is False
    }
    obstacles = (
        *(Finding(Kind.NOT_READABLE, name, why) for name, why in sorted(undescribed.items())),
        *(Finding(Kind.NOT_READABLE, name, why) for name, why in sorted(unreadable.items())),
        *_obstacles(marks.untold),
        *_vanished(archive, deleted, cluster_id),
    )
    return Survey(
        infos,
        recognitions,
        knowledge,
        coverage,
        {name: tuple(found) for name, found in generations.items()},
        cluster_id,
        {partition_log: seen.leader_epoch for partition_log, seen in observed.items()},
        obstacles,
        frozenset(undescribed),
        archive.topics.unmet({*infos, *undescribed}) if topics is None else (),
        deleted,
        tuple(
            Slice(*at, known.watermarks.high, observed[at].stable)
            for at, known in knowledge.items()
            if at in observed and known.watermarks.high < observed[at].stable
        ),
    )


def look(archive: Archive, topics: Collection[str] | None = None) -> Survey:
    """Survey, and remember the watermarks, so that what a topic held when it was deleted is known as of now.

    What went with a topic that was made anew, or deleted a while ago, is recorded as lost. What is in the way is remembered,
    too, as a finding, and closed once it is in the way no more. For those who look often and plan seldom: sensors and
    displays. Records nothing of topics that are new.

    Raises:
        UnavailableError: The source or the catalog does not answer.
    """
    seen = survey(archive, topics)
    # Where a log may have lost its end, what it holds may be of another generation than is known yet.
    unproven = seen.unproven()
    known = {
        at: partition.watermarks
        for at, partition in seen.knowledge.items()
        if not seen.recognitions[at.topic].is_new and at not in unproven
    }
    _note_shrunk(archive, seen)
    archive.catalog.observe(known)
    to_begin = [name for name, recognition in seen.recognitions.items() if recognition.is_new]
    _note_obstacles(archive, topics, seen, to_begin)
    _settle_outlived(archive, seen, are_begun=False)
    return seen


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done, and what it was judged by; of the plan, ``lost`` are those that planning has newly recorded."""

    plan: Plan
    survey: Survey

    def of(self, partition_logs: Collection[PartitionLog], limits: Limits) -> Plan:
        """What is to be archived of these logs alone, of those that may be read; all of what the limits allow is theirs."""
        if partition_logs == self.survey.workable().keys():
            return self.plan
        known = {at: known for at, known in self.survey.workable().items() if at in partition_logs}
        return replace(plan(known, limits), lost=())


def plan_work(archive: Archive, topics: Collection[str] | None = None) -> Work:
    """Settle what a plan rests on, then plan: the slices to archive now.

    Where a partition has another leader than before, the end of what is covered is read again and compared: a log that
    lost its end, and may have grown past it again, becomes a new generation, and a finding says so. What cannot be
    compared yet is left out, and so is what cannot be looked at or read: a finding says so. New generations are recorded;
    offsets that are gone are recorded as lost, once, with the reason; the watermarks are remembered; group offsets are
    committed to the source, for those who monitor from outside.
    A topic that changes while it is looked at is looked at again, and left out, as what cannot be looked at is, where it
    changes each time. Running it again records nothing twice.

    Raises:
        UnavailableError: The source or the catalog does not answer.
    """
    for _ in range(_MOST_CHANGES):
        seen, changing = _begun(archive, topics)
        if not changing:
            break
    else:
        why = [
            obstacle(name, error, partition)
            for name, error in sorted(changing.items())
            for partition in range(seen.infos[name].partitions)
        ]
        seen = seen.without(changing, why)
    _note_obstacles(archive, topics, seen)
    archive.catalog.observe(
        {partition_log: known.watermarks for partition_log, known in seen.knowledge.items()}
    )
    overtaken = _note_proven(archive, seen, {at: k for at, k in seen.moved().items() if not k.coverage})
    seen = replace(seen, knowledge={at: known for at, known in seen.knowledge.items() if at not in overtaken})
    archive.source.note_progress(seen.progress())
    planned = plan(seen.knowledge, archive.limits, seen.unreadable)
    gone = [reasoned for s in planned.lost for reasoned in _reasoned(archive, seen, s)]
    # Once more: watermarks that are read after the topic was made anew are the other generation's.
    same = _unchanged(seen, archive.source.topics({s.topic for s, _ in gone})) if gone else ()
    lost = [s for s, reason in gone if s.topic in same and _record_gone(archive, s, reason)]
    lost += _settle_outlived(archive, seen, are_begun=True)
    settled = {s.topic for s in lost} & seen.deleted
    obstacles = tuple(finding for finding in seen.obstacles if finding.topic not in settled)
    return Work(replace(planned, lost=tuple(lost)), replace(seen, obstacles=obstacles))


def _topics(
    archive: Archive, topics: Collection[str] | None
) -> tuple[Mapping[str, TopicInfo], dict[str, str], frozenset[str]]:
    """The topics to look at that could be described, why others could not be, and those that were deleted."""
    found = archive.source.topics(topics)
    infos, untold = dict(found), dict(found.untold)
    known: Collection[str] = () if topics is None else archive.catalog.generations(topics).keys()
    if topics is None:
        infos = {name: info for name, info in infos.items() if archive.topics.archived(name)}
        # A topic that may not be described is not listed: it is no deleted one.
        known = archive.catalog.generations(None).keys() - infos.keys()
        known = [name for name in known if archive.topics.archived(name)]
        hidden = archive.source.topics(known)
        infos, untold = {**infos, **hidden}, {**untold, **hidden.untold}
    why = {
        name: str(error)
        for name, error in untold.items()
        if topics is not None or archive.topics.archived(name)
    }
    for name in [name for name in infos if not is_topic_name(name)]:
        del infos[name]
        why[name] = (
            f"Source {archive.source.name} has a topic called {name!r}, which is no name for a topic of Kafka: objects and "
            "keys are named after it. Copy what it holds to another topic."
        )
    return infos, why, frozenset(known) - infos.keys() - untold.keys()


def _obstacles(errors: Mapping[_Place, HopArchiveError]) -> list[Finding]:
    return [obstacle(at.topic, errors[at], at.partition) for at in sorted(errors)]


def _note_obstacles(
    archive: Archive, topics: Collection[str] | None, seen: Survey, to_begin: Collection[str] = ()
) -> None:
    """Make the findings of obstacles those of this survey, and of what reading met and is in the way still.

    Of ``to_begin`` the generation is not recorded yet: only that tells whether such a topic stays as it is.
    """
    # Where a log is in doubt, reading its end alone tells whether that can be read, which a mere look does not do.
    doubted = {partition_log.topic for partition_log in seen.unproven()} | {*to_begin}

    def still(finding: Finding) -> bool:
        where = finding.slice
        if finding.kind is Kind.NOT_SHOWN:
            return False
        if where is None:
            return finding.topic in doubted
        known = seen.knowledge.get(where.partition_log)
        # Not where this survey tells of the same partition, or the topic is gone or another generation by now.
        is_seen = any(
            o.topic == finding.topic and o.partition in (None, where.partition) for o in seen.obstacles
        )
        return bool(known and not is_seen and where.start in work(known))

    kinds = [Kind.NO_LEADER, Kind.NOT_READABLE, Kind.NOT_SHOWN]
    note_obstacles(archive, topics, kinds, seen.obstacles, still)


def _partitions(infos: Mapping[str, TopicInfo]) -> list[TopicPartition]:
    return [TopicPartition(name, p) for name, info in infos.items() for p in range(info.partitions)]


def _of_one_generation(
    archive: Archive,
    infos: Mapping[str, TopicInfo],
    marks: Answers[TopicPartition, Watermarks],
    generations: Mapping[str, Sequence[Generation]],
    observed: Mapping[PartitionLog, Watermarks],
) -> tuple[Mapping[str, TopicInfo], Answers[TopicPartition, Watermarks]]:
    """The same, asked for once more of topics that were made anew meanwhile: no watermarks with another generation's id.

    Topic ids never come back. Where the watermarks are those that were remembered, it makes no difference whose they are.
    """
    newest = {name: found[-1].number for name, found in generations.items() if found}
    moved = set()
    for at, now in marks.items():
        before = observed.get(PartitionLog(at.topic, newest.get(at.topic, -1), at.partition))
        if before is None or replace(now, leader_epoch=None) != replace(before, leader_epoch=None):
            moved.add(at.topic)
    again = archive.source.topics(moved) if moved else Answers({})
    anew = {name: info for name, info in again.items() if info.topic_id != infos[name].topic_id}
    if not anew:
        return infos, marks
    anew_marks = archive.source.watermarks(_partitions(anew))
    all_marks = {at: now for at, now in marks.items() if at.topic not in anew} | dict(anew_marks)
    untold = {at: why for at, why in marks.untold.items() if at.topic not in anew} | dict(anew_marks.untold)
    return {**infos, **anew}, Answers(all_marks, untold)


def _proven(archive: Archive, seen: Survey) -> Survey:
    """The survey with every log proven to be the one that is covered, or recognised as another, or left out."""
    doubtful = seen.unproven()
    if not doubtful:
        return seen
    shut = seen.unreadable
    proof = prove_tails(archive, {at: known for at, known in doubtful.items() if at.topic not in shut})
    cut = {at.topic for at in proof.other}  # a new generation follows, and nothing rests on this one
    same = {at: doubtful[at] for at in proof.same if at.topic not in cut}
    archive.catalog.observe({at: known.watermarks for at, known in same.items() if at not in seen.proven})
    overtaken = _note_proven(archive, seen, same)
    left = overtaken | (doubtful.keys() - proof.same - proof.other.keys())
    waiting = dict(proof.left)
    for at in overtaken:
        waiting[at] = ConflictError(
            f"Another run archived of {at.topic}[{at.partition}] while it was compared with what was archived under its "
            "leader before.",
            remedy="The next run compares it again.",
            topic=at.topic,
            partition=at.partition,
        )
    recognitions = {**seen.recognitions, **truncated_logs(seen.generations, proof.other)}
    knowledge = {}
    for partition_log, known in seen.knowledge.items():
        number = recognitions[partition_log.topic].number
        if number != partition_log.generation:
            knowledge[partition_log._replace(generation=number)] = Knowledge(known.watermarks)
        elif partition_log not in left:
            knowledge[partition_log] = known
    return replace(
        seen,
        recognitions=recognitions,
        knowledge=knowledge,
        proven={**seen.proven, **{at: doubtful[at].watermarks.leader_epoch for at in proof.same}},
        obstacles=(*seen.obstacles, *_obstacles(waiting)),
    )


def _note_proven(archive: Archive, seen: Survey, same: Mapping[PartitionLog, Knowledge]) -> set[PartitionLog]:
    """Remember what was proven of logs that were observed; those of which it is not true any more, or not alone.

    A run that had read before a log lost its end may have committed while this one compared: so first the log is called
    unproven, from when on every such run is refused; then the coverage is read again; and only where it is the same, and
    nobody else has proven anything meanwhile, the log is proven.
    """
    if not same:
        return set()
    topics = list({at.topic for at in same})
    epochs = {at: known.watermarks.leader_epoch for at, known in same.items()}
    archive.catalog.note_proven(dict.fromkeys(same, UNPROVEN), {at: seen.proven.get(at) for at in same})
    now = archive.catalog.coverage(topics)
    kept = {at: epochs[at] for at, known in same.items() if now.get(at, EMPTY) == known.coverage}
    archive.catalog.note_proven(kept, dict.fromkeys(kept, UNPROVEN))
    noted = archive.catalog.observed(topics)
    return {at for at in same if at not in noted or noted[at].leader_epoch != epochs[at]}


def _note_shrunk(archive: Archive, seen: Survey) -> None:
    """Tell of logs that lost an end of which nothing was archived yet."""
    if not seen.shrunk:
        return
    # Where the log ends now moves while it grows again: that it was seen to reach so far is told once.
    noted = archive.catalog.findings(
        {gone.topic for gone in seen.shrunk}, [Kind.LOG_TRUNCATED], open_only=False
    )
    noted_ends = {
        (place.partition_log, place.stop) for row in noted if (place := row.finding.slice) is not None
    }
    detail = "Kafka was seen to hold these, its log ends before them now, and they were not archived"
    findings = [
        Finding(Kind.LOG_TRUNCATED, gone.topic, detail, slice=gone)
        for gone in seen.shrunk
        if (gone.partition_log, gone.stop) not in noted_ends
    ]
    if findings:
        archive.catalog.note_findings(findings, archive.now())


def _begun(
    archive: Archive, topics: Collection[str] | None
) -> tuple[Survey, dict[str, GenerationChangedError]]:
    """A survey whose logs are proven and whose new generations the catalog has; those that changed meanwhile, and how."""
    seen = _proven(archive, survey(archive, topics))
    _note_shrunk(archive, seen)
    changing: dict[str, GenerationChangedError] = {}
    later = [
        name
        for name, recognition in seen.recognitions.items()
        if recognition.is_new and recognition.number > 1
    ]
    # What was seen may be older than the generation that the catalog has meanwhile: then that one is not followed by it.
    same = _unchanged(seen, archive.source.topics(later)) if later else frozenset()
    for name, recognition in seen.recognitions.items():
        if not recognition.is_new:
            continue
        if recognition.number > 1 and name not in same:
            changing[name] = _changed_again(name, recognition.number)
            continue
        detail = f"{recognition.reason}; what was archived of it stays, what Kafka holds now is generation {recognition.number}"
        cut = [Finding(Kind.LOG_TRUNCATED, name, detail, slice=gone) for gone in recognition.truncated]
        if cut:  # before the generation begins, so that none begins without a word
            archive.catalog.note_findings(cut, archive.now())
        ids = (seen.cluster_id, seen.infos[name].topic_id)
        begun = archive.catalog.begin_generation(name, recognition.number, *ids, recognition.reason)
        if (begun.cluster_id, begun.topic_id) != ids:
            changing[name] = _changed_again(name, begun.number)
        elif recognition.number > 1:
            log.warning(
                "Topic %s is generation %d now: %s",
                name,
                recognition.number,
                recognition.reason,
                extra={"topic": name},
            )
    return seen, changing


def _changed_again(name: str, number: int) -> GenerationChangedError:
    return GenerationChangedError(
        f"Topic {name} changed again while its generation {number} was being recorded, {_MOST_CHANGES} times in "
        "a row. Nothing of it is archived until it stays as it is.",
        remedy="The next run sees it as it is then. If it goes on, find out what deletes and makes it again and again.",
        topic=name,
    )


def _unchanged(seen: Survey, now: Mapping[str, TopicInfo]) -> frozenset[str]:
    """The topics that are still those that were seen."""
    was = seen.infos
    return frozenset(
        name for name, info in now.items() if name in was and info.topic_id == was[name].topic_id
    )


def _reasoned(archive: Archive, seen: Survey, gone: Slice) -> list[tuple[Slice, str]]:
    """What is gone, with why; apart what the generation before has, where the log still begins as that one did."""
    if gone.partition_log in seen.coverage:
        return [(gone, OVERTAKEN)]
    before = PartitionLog(gone.topic, gone.generation - 1, gone.partition)
    was = next((g for g in seen.generations.get(gone.topic, ()) if g.number == before.generation), None)
    topic_id = seen.infos[gone.topic].topic_id
    is_cut = (
        was is not None
        and topic_id is not None
        and (was.cluster_id, was.topic_id) == (seen.cluster_id, topic_id)
    )
    if is_cut and (held := gone.offsets & seen.coverage.get(before, EMPTY)):
        ledger = archive.catalog.ledger([gone.topic])
        held -= offsets_by_log(e.slice for e in ledger if e.reason == READ_NEXT).get(before, EMPTY)
        # Where only a sibling partition's log lost its end, this one need not be read.
        epoch = seen.knowledge[gone.partition_log].watermarks.leader_epoch
        is_moved = epoch is None or epoch != seen.proven.get(before)
        is_moved |= gone.partition in {place.partition for place in seen.recognitions[gone.topic].truncated}
        if held and (not is_moved or begins_as_archived(archive, before, gone.stop)):
            rest = gone.partition_log.slices(gone.offsets - held)
            return [
                *((s, HELD_BEFORE) for s in gone.partition_log.slices(held)),
                *((s, OVERTAKEN) for s in rest),
            ]
    # Nobody knows where that generation came from: most likely it is the same topic.
    if was is not None and was.cluster_id == UNKNOWN_CLUSTER:
        return [(gone, REBUILT)]
    if gone.generation > 1:
        return [(gone, OVERTAKEN)]
    return [(gone, ADOPTED if archive.catalog.has_adopted(gone.topic) else BEFORE_FIRST_SIGHT)]


def _settle_outlived(archive: Archive, seen: Survey, *, are_begun: bool) -> list[Slice]:
    """Record what earlier generations on this cluster were seen to hold and nothing covers: as lost, where it went with them.

    Where the log is the same, and only lost its end in some partition, what it held below that is skipped: the next
    generation has it. What stands on another cluster may be there still, and is read when the source is that one again. A
    topic that is there again after all, with the id that it had, is a new generation. Unless the generations that are new in
    ``seen`` ``are_begun`` in the catalog, one broker's stale answer may be all that tells of a log that got shorter.

    Returns:
        What this call recorded as lost.
    """
    newest = {name: recognition.number for name, recognition in seen.recognitions.items()}
    over = {
        (name, g.number)
        for name, found in seen.generations.items()
        for g in found
        if g.cluster_id == seen.cluster_id
        and g.number < newest[name]
        and (are_begun or not seen.recognitions[name].is_new or g.topic_id != seen.infos[name].topic_id)
    }
    deleted = _deleted_for_good(archive, seen)
    names = deleted | {name for name, _ in over}
    left = archive.catalog.left_behind(names, seen.cluster_id) if names else {}
    left = {at: found for at, found in left.items() if at.topic in deleted or at[:2] in over}
    if not left:
        return []
    # Once more: one broker's stale answer would be a false alarm.
    now = archive.source.topics({at.topic for at in left})
    same = _unchanged(seen, now) | (deleted - now.untold.keys() - now.keys())
    next_has = _read_next(archive, seen, [at for at in left if at.topic in same])
    for at in sorted(next_has):
        for s in at.slices(left[at] & next_has[at]):
            _record_gone(archive, s, READ_NEXT)
    lost = {at: left[at] - next_has[at] for at in sorted(next_has)}
    archive.catalog.note_proven({at: GONE for at, found in lost.items() if found})
    slices = [s for at, found in lost.items() for s in at.slices(found)]
    return [s for s in slices if _record_gone(archive, s, OUTLIVED)]


def _read_next(
    archive: Archive, seen: Survey, earlier: Collection[PartitionLog]
) -> dict[PartitionLog, OffsetSet]:
    """What of the log of each earlier generation the next generations account for, since it is still that log.

    Logs of which it cannot be told, since where their log ends now is not known, are left out.
    """
    read: dict[PartitionLog, OffsetSet] = {}
    unproven = seen.unproven()
    for at in earlier:
        info = seen.infos.get(at.topic)
        was = next((g for g in seen.generations.get(at.topic, ()) if g.number == at.generation), None)
        if info is None or was is None or info.topic_id is None or was.topic_id != info.topic_id:
            read[at] = EMPTY
            continue
        newest = at._replace(generation=seen.recognitions[at.topic].number)
        if newest in seen.knowledge and newest not in unproven:
            noted = archive.catalog.findings([at.topic], [Kind.LOG_TRUNCATED], open_only=False)
            places = [row.finding.slice for row in noted if row.finding.slice is not None]
            cuts = [s.start for s in places if s.partition == at.partition and s.generation >= at.generation]
            read[at] = OffsetSet.between(0, min([seen.knowledge[newest].watermarks.high, *cuts]))
    return read


def _vanished(archive: Archive, deleted: Collection[str], cluster_id: str) -> list[Finding]:
    """What topics were seen to hold that are not shown, and nothing covers."""
    left = archive.catalog.left_behind(deleted, cluster_id) if deleted else {}
    return [
        Finding(
            Kind.NOT_SHOWN,
            at.topic,
            f"Source {archive.source.name} does not show topic {at.topic}, of which offsets were seen that are not archived: "
            f"they are recorded as lost if it does not for {VANISHED_S:.0f} seconds.",
            slice=Slice(*at, found.ranges[0].start, found.stop),
        )
        for at, found in sorted(left.items())
    ]


def _deleted_for_good(archive: Archive, seen: Survey) -> frozenset[str]:
    """The topics that have not been shown for a while, by the findings that tell of it.

    Where the clock was set back, it is counted from now on.
    """
    hidden = {found.slice for found in seen.obstacles if found.slice and found.kind is Kind.NOT_SHOWN}
    if not hidden:
        return frozenset()
    now = archive.now()
    since: dict[str, list[float]] = defaultdict(list)
    noted = archive.catalog.findings({s.topic for s in hidden}, [Kind.NOT_SHOWN], open_only=False)
    for row in list(noted):
        is_standing = row.resolved_at is None or row.resolution.startswith(ACCEPTED)
        if row.finding.slice not in hidden or not is_standing:
            continue
        since[row.finding.topic].append((now - row.first_seen).total_seconds())
        if row.first_seen > now and row.resolved_at is None:
            archive.catalog.resolve_findings([row.number], "the clock was set back", now)
            archive.catalog.note_findings([row.finding], now)
    return frozenset(name for name, ages in since.items() if min(ages) >= VANISHED_S)


def _record_gone(archive: Archive, gone: Slice, reason: str) -> bool:
    """Record that ``gone`` cannot be archived any more; False where another run has dealt with it."""
    outcome = Outcome.SKIPPED if reason in (ADOPTED, REBUILT, HELD_BEFORE, READ_NEXT) else Outcome.LOST
    try:
        archive.catalog.commit(Batch(gone, outcome, reason, run_id=archive.run_id))
    except SliceTakenError:
        return False
    log.warning("%s: recorded as %s: %s", gone, outcome.value, reason)
    return True
