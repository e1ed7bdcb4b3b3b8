"""Archiving until caught up, and on and on: plans one after another, and following what arrives.

What is caught up is judged by the ledger against the watermarks, never by what was read.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

from hop_archive.archive import Archive
from hop_archive.errors import (
    ConfigurationError,
    ConflictError,
    DataError,
    ForbiddenError,
    HopArchiveError,
    UnavailableError,
)
from hop_archive.ingest.garbage_collection import fewer_collections
from hop_archive.ingest.left_undone import LeftUndone
from hop_archive.ingest.obstacles import GivenUp
from hop_archive.ingest.plan import work
from hop_archive.ingest.read import Reading, follow
from hop_archive.ingest.sharing import ALONE, Alone
from hop_archive.ingest.survey import plan_work
from hop_archive.ingest.write import OVERLAP, Done, archive_slices, proven_epochs, store_groups
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.message import TopicPartition
from hop_archive.model.slices import PartitionLog
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.protocol import TopicInfo, place_of

log = logging.getLogger(__name__)

Obstacle: TypeAlias = UnavailableError | ConfigurationError
"""What is waited out: a server that does not answer, or that refuses what it allowed before."""

SURVEY_EVERY_S = 10.0
"""How often following looks for new topics, partitions, generations and holes, in seconds."""

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_MOST_NAMED = 3
_MOST_FRUITLESS = 3
"""Plans in a row that committed nothing: other writers or changing topics are in the way each time."""


def catch_up(
    archive: Archive,
    topics: Collection[str] | None = None,
    stop: Callable[[], bool] = lambda: False,
    overlap: int = OVERLAP,
    targets: Mapping[PartitionLog, int] | None = None,
    sharing: Alone = ALONE,
) -> Iterator[Done]:
    """Archive what was there at the start: up to the watermarks seen then, and no further.

    Offsets that another writer takes meanwhile count as done. Ends early, between batches, when ``stop``
    says so. Running it again goes on where the ledger says. What could not be looked at or read stops nothing else, and is
    raised at the end. What is left undone twice is a finding then (``LeftUndone``). Of ``topics`` None means all that are
    archived; ``targets`` are the only partitions, and up to where, None for all, up to their watermarks. What others
    do at the same time, as ``sharing`` tells, is left to them and waited for.

    Raises:
        UnavailableError: Source, catalog or store does not answer; what was yielded is committed. Or all is archived but
            for partitions without a leader.
        ForbiddenError: All is archived but for topics that may not be read.
        DataError: All is archived but for partitions whose next message is damaged.
        ConflictError: Again and again nothing could be committed; the last reason is named.
    """
    undone = LeftUndone(archive, topics)
    errors: list[HopArchiveError] = []
    obstacles: Sequence[Finding] = ()
    fruitless = 0
    while fruitless < _MOST_FRUITLESS and not stop():
        found = plan_work(archive, topics)
        obstacles = found.survey.obstacles
        if targets is None:
            targets = {at: known.watermarks.stable for at, known in found.survey.knowledge.items()}
        given_up = {place_of(error) for error in errors}  # for this time: the next command asks again
        begins = {
            at: ranges[0].start
            for at, known in found.survey.knowledge.items()
            if (ranges := work(known).ranges) and ranges[0].start < targets.get(at, 0)
        }
        wanted = [
            at
            for at in begins
            if at.topic not in found.survey.unreadable
            and TopicPartition(at.topic, at.partition) not in given_up
        ]
        mine = sharing.take(wanted)
        if wanted and not mine:
            if sharing.wait_for_end({at: begins[at] for at in wanted}, stop):
                continue
            mine = frozenset(wanted)
        slices = [
            s.within(s.start, min(s.stop, targets[s.partition_log]))
            for s in found.of(mine, archive.limits).slices
            if s.start < targets[s.partition_log]
        ]
        pending = {at.topic for at in begins}
        undone.plan(slices, pending)
        if not slices:
            fruitless = 0
            break
        fruitless += 1
        try:
            for done in archive_slices(archive, slices, overlap, errors.append, sharing.is_asked_to_give):
                fruitless = 0 if done.batches else fruitless
                undone.took([done])
                yield done
                if stop():
                    return
            if sharing.is_asked_to_give():
                fruitless = 0
                undone.broken_off()
        except ConflictError as error:
            undone.failed(error)
            log.info("Planning again: %s", error)
    if fruitless:
        raise ConflictError(
            f"{fruitless} plans in a row committed nothing: {undone.reason() or 'no reason was told'}.",
            remedy="Nothing is lost; run again.",
        )
    if not stop():
        _raise_obstacles(errors, obstacles)


def _raise_obstacles(errors: Sequence[HopArchiveError], obstacles: Sequence[Finding]) -> None:
    """Raise what was in the way of all else that is archived by now: what a person decides first, what passes by itself last."""
    for error in errors:
        if isinstance(error, DataError):
            raise error
    reasons = dict.fromkeys([*(o.detail for o in obstacles), *map(str, errors)])
    if not reasons:
        return
    # What is in the way of one partition alone passes by itself.
    forbidden = any(isinstance(e, ForbiddenError) for e in errors) or any(
        o.kind is Kind.NOT_READABLE and o.partition is None for o in obstacles
    )
    kind = ForbiddenError if forbidden else UnavailableError
    more = f" (and {len(reasons) - _MOST_NAMED} more)" if len(reasons) > _MOST_NAMED else ""
    raise kind(
        f"All else is archived. {' '.join(itertools.islice(reasons, _MOST_NAMED))}{more}",
        remedy="hop-archive findings tells what is in the way, and since when.",
    )


def archive_continuously(
    archive: Archive,
    stop: Callable[[], bool],
    sleep: Callable[[float], None],
    topics: Collection[str] | None = None,
    report: Callable[[Obstacle], None] = lambda error: None,
    sharing: Alone = ALONE,
) -> Iterator[list[Done]]:
    """Archive what is there and then what arrives, until ``stop`` says so. Survives outages and refusals.

    A server that does not answer is reported once per attempt and tried again, with pauses that grow to half
    a minute; what was committed before stays, what was not is done then. So is one that refuses, once it has served: a
    password that is being changed, keys that ended, a clock that was set wrong are put right without a restart.
    What is left undone twice, or for a minute of waiting, is a finding (``LeftUndone``), and the others go on. What others
    do at the same time, as ``sharing`` tells, is left to them, until they end.

    Yields:
        What was stored together; empty lists while nothing arrives, so that callers can look around.

    Raises:
        ConfigurationError: Something refuses, or is missing, and nothing worked yet: waiting would hide a mistake.
    """
    pause_s, has_worked = _FIRST_PAUSE_S, False
    undone = LeftUndone(archive, topics)
    while not stop():
        try:
            for dones in _one_round(archive, stop, sleep, topics, undone, sharing):
                pause_s, has_worked = _FIRST_PAUSE_S, True
                yield dones
        except (UnavailableError, ConfigurationError) as error:
            if not (has_worked or error.retryable):
                raise
            undone.failed(error)
            report(error)
            yield []
            sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        except ConflictError as error:
            undone.failed(error)
            log.info("Planning again: %s", error)


def follow_for(
    archive: Archive,
    topics: Collection[str],
    duration_s: float,
    sleep: Callable[[float], None],
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[list[Done]]:
    """Archive what arrives on ``topics`` for a time, after what is there.

    Raises:
        UnavailableError: As for ``catch_up``.
        ConflictError: At the end there is work that was left undone twice; the reason is named.
    """
    undone = LeftUndone(archive, topics)
    end = archive.monotonic() + duration_s

    def over() -> bool:
        return stop() or archive.monotonic() >= end

    while not over():
        try:
            yield from _one_round(archive, over, sleep, topics, undone)
        except ConflictError as error:
            undone.failed(error)
            log.info("Planning again: %s", error)
    undone.settle()
    if undone.findings:
        raise ConflictError(
            f"Work was left undone again and again: {undone.reason()}.", remedy="Nothing is lost."
        )


def _one_round(
    archive: Archive,
    stop: Callable[[], bool],
    sleep: Callable[[float], None],
    topics: Collection[str] | None,
    undone: LeftUndone,
    sharing: Alone = ALONE,
) -> Iterator[list[Done]]:
    """Do what a plan says; where little is left but the end of each log, follow those for a while."""
    found = plan_work(archive, topics)
    wanted = found.survey.workable()
    mine = sharing.take(wanted)
    workable = {at: known for at, known in wanted.items() if at in mine}
    planned = found.of(mine, archive.limits)
    undone.plan(planned.slices, found.survey.pending())
    starts = {}  # of each partition whose only work, if any, is the end of its log
    for partition_log, known in workable.items():
        pending, marks = work(known).ranges, known.watermarks
        if not pending:
            starts[partition_log] = max(marks.stable, known.coverage.stop, marks.low)
        elif len(pending) == 1 and pending[0].stop == marks.stable:
            starts[partition_log] = pending[0].start
    if not wanted:
        yield []
        sleep(_FIRST_PAUSE_S)
    elif not mine:
        yield []
        sharing.wait(wanted, stop)
    elif planned.messages > archive.limits.batch_messages or len(starts) < len(workable):
        anything = False
        asked = sharing.is_asked_to_give
        for done in archive_slices(archive, planned.slices, refused=undone.refused, enough=asked):
            anything = anything or bool(done.batches)
            undone.took([done])
            yield [done]
            if stop():
                return
        if asked():
            undone.broken_off()
        elif not anything:  # what was refused is asked for again by the next plan, and not at once
            yield []
            sleep(_FIRST_PAUSE_S)
    else:
        yield from _follow_tails(archive, found.survey.infos, starts, stop, sleep, undone, sharing)


def _follow_tails(
    archive: Archive,
    infos: Mapping[str, TopicInfo],
    starts: Mapping[PartitionLog, int],
    stop: Callable[[], bool],
    sleep: Callable[[float], None],
    undone: LeftUndone,
    sharing: Alone,
) -> Iterator[list[Done]]:
    end = archive.monotonic() + SURVEY_EVERY_S
    disputed = anything = False
    others: set[str] | None = None

    def over() -> bool:
        return stop() or disputed or sharing.is_asked_to_give() or archive.monotonic() >= end

    epochs = proven_epochs(archive, starts)
    with fewer_collections(), archive.source.reader({}) as reader:
        given_up = GivenUp(archive, starts)
        groups = follow(
            reader, dict(starts), archive.limits, archive.monotonic, over, epochs=epochs, refused=given_up
        )
        for group in groups:
            try:
                if group and others is None:
                    # Once they are read: what has its id still when it is read is read as what it was planned for.
                    now = archive.source.topics({partition_log.topic for partition_log in starts})
                    others = {name for name, info in now.items() if info.topic_id != infos[name].topic_id}
                own = [reading.void_if_of(others or ()) for reading in group]
                dones = list(store_groups(archive, [own], overlap=0))
            except HopArchiveError:
                _note_seen(archive, group, others or ())
                raise
            stored = {done.slice for done in dones if done.batches}
            _note_seen(archive, [reading for reading in group if reading.slice not in stored], others or ())
            disputed = disputed or any(done.disputed for done in dones)
            anything = anything or bool(stored)
            undone.took(dones)
            yield dones
    for error in given_up.errors:
        undone.refused(error)
    fruitless = disputed and not anything
    if (given_up.errors or fruitless) and not stop():  # asked for again by the next plan, and not at once
        yield []
        sleep(_FIRST_PAUSE_S)


def _note_seen(archive: Archive, readings: Collection[Reading], others: Collection[str]) -> None:
    """Remember what was read and not stored, so that it is known to be lost if its topic is deleted before it is read again.

    Not of ``others``, which were made anew before they were read: what they hold is not the old ones'.
    """
    ends = {
        reading.slice.partition_log: reading.messages[-1].offset + 1
        for reading in readings
        if reading.messages
        and not reading.is_beyond_proof
        and (reading.is_void or reading.slice.topic not in others)
    }
    if not ends:
        return
    try:
        known = archive.catalog.observed({partition_log.topic for partition_log in ends})
        seen = {
            at: Watermarks(marks.low, end, max(marks.high, end))
            for at, end in ends.items()
            if (marks := known.get(at)) is not None and marks.stable < end
        }
        archive.catalog.observe(seen)
    except HopArchiveError as error:
        log.warning("What was read and not stored is not remembered: %s", error)
