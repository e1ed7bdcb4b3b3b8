"""The use case: small objects that are old enough become large segments, one after another.

For each segment, in order, so that a crash anywhere leaves nothing wrong: its documents are read and checked; it is noted as a
pending delete, made in store and backup, and read back; rows come to name it, all or none, in one transaction, in which the old
objects become pending deletes that wait for their readers. What waited long enough is deleted by the next run.
"""

from __future__ import annotations

import datetime
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from hop_archive.catalog.records import Correction
from hop_archive.errors import (
    ConflictError,
    CorruptError,
    HopArchiveError,
    ObjectMissingError,
)
from hop_archive.ingest.garbage_collection import fewer_collections
from hop_archive.ingest.placing import segment
from hop_archive.model.findings import Finding
from hop_archive.model.keys import segment_key
from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog
from hop_archive.read.check import prove
from hop_archive.read.contents import ObjectContents
from hop_archive.read.fetch import fetch_checked
from hop_archive.store.protocol import Extent, Store
from hop_archive.upkeep.compact.plan import (
    Compaction,
    Group,
    LogPlan,
    chosen_topics,
    groups,
    hold_name,
    logs_to_look_at,
)
from hop_archive.upkeep.failures import Failures
from hop_archive.upkeep.remove.remove import Removing
from hop_archive.upkeep.verify.documents import wrong
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.verification import Verification

COMMAND = "compact"
FAILURES = partial(Failures, "partition", "could not be compacted", "partition_log")

MAKING_S = 3600.0
"""So long a segment may take from when it is begun until rows name it; what is left of one after that is deleted."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What compacting would do with a log.

    Attributes:
        objects: That would be put together, into so many ``segments``.
        size_bytes: Of their documents; ``stored_bytes``: of the objects.
    """

    partition_log: PartitionLog
    objects: int = 0
    segments: int = 0
    messages: int = 0
    size_bytes: int = 0
    stored_bytes: int = 0


def plan_compaction(removing: Removing, wanted: Compaction) -> Iterator[Planned]:
    """What there is to do, log by log, up to the limit; logs without anything are left out.

    Reads the catalog alone, of each message that was not settled before, and changes nothing. Holds the objects of one segment.

    Raises:
        ConfigurationError: A topic means none.
    """
    catalog, messages = removing.catalog, 0
    for topic in chosen_topics(catalog, wanted):
        for log in logs_to_look_at(catalog, wanted, topic, removing.now()):
            planned = Planned(log.partition_log)
            for group in groups(catalog, wanted, log, removing.store.bucket):
                if not group.is_worth_it:
                    continue
                if wanted.limit is not None and messages >= wanted.limit:
                    break
                messages += group.rows
                planned = replace(
                    planned,
                    objects=planned.objects + len(group.objects),
                    segments=planned.segments + 1,
                    messages=planned.messages + group.rows,
                    size_bytes=planned.size_bytes + group.size_bytes,
                    stored_bytes=planned.stored_bytes + group.stored_bytes,
                )
            if planned.segments:
                yield planned
            if wanted.limit is not None and messages >= wanted.limit:
                return


def compact(removing: Removing, wanted: Compaction) -> Iterator[Finding]:
    """Compact what is old enough, and delete old objects whose grace is over. Again, or after a crash: goes on.

    Holds the documents of one segment, and the segment twice. A segment of which a document is not sound is not made; what
    another process changes meanwhile is left to the next run.

    Yields:
        What verification would tell of the documents that are not sound, once it is noted.

    Raises:
        ConfigurationError: A topic means none.
        ForbiddenError: The store, or the role, does not let anything be deleted; or objects of some logs are always refused: the
            other logs were compacted.
        UnavailableError: A server does not answer, or not for objects of some logs; likewise. What was done stays.
        DataError: Segments were not as they were made, or logs failed for several reasons; likewise.
        ObjectFrozenError: Objects of some logs are in cold storage; likewise.
    """
    removing.store.delete([])  # before anything is made whose place it could not take
    catalog = removing.catalog
    with removing.command(COMMAND, None, FAILURES) as failures:
        logs = (
            log
            for topic in chosen_topics(catalog, wanted)
            for log in logs_to_look_at(catalog, wanted, topic, removing.now())
        )
        for log in logs:
            wanted.progress.topic = log.partition_log.topic
            goes_on = True
            with failures.of("/".join(map(str, log.partition_log)), removing.all_answer):
                goes_on = yield from _compact_log(removing, wanted, log)
            if not goes_on:
                break
        else:
            removing.delete_pending(COMMAND)


def _compact_log(removing: Removing, wanted: Compaction, log: LogPlan) -> Generator[Finding, None, bool]:
    """Compact a log, and remember how far.

    Returns:
        Whether to go on with others.
    """
    catalog, counts, at = removing.catalog, wanted.progress.counts, log.partition_log
    settled_to = log.known.done_to
    looked_to = 0
    for group in groups(catalog, wanted, log, removing.store.bucket):
        if group.is_worth_it:
            if wanted.stop() or (wanted.limit is not None and counts["messages"] >= wanted.limit):
                return False
            try:
                with catalog.hold(hold_name(at)), fewer_collections():
                    findings = _make_segment(removing, wanted, group)
            except ConflictError:
                counts["disturbed"] += 1
                return True  # what is left of it is for the next run
            recorder = FindingsRecorder(catalog, removing.now)
            yield from (finding for finding, _ in recorder.noted(findings))
            wanted.notice(wanted.progress)
        looked_to = max(looked_to, group.place.stop)
        if group.settled_to > settled_to:
            settled_to = group.settled_to
            catalog.note_compacted(at, done_to=settled_to, looked_to=0)
    catalog.note_compacted(at, done_to=settled_to, looked_to=looked_to)
    return True


def _make_segment(removing: Removing, wanted: Compaction, group: Group) -> Sequence[Finding]:
    """Put the documents of a group into one segment, unless one is not sound: what is wrong then.

    Raises:
        ConflictError: Rows are not any more what they were, or somebody deletes the segment. Nothing was changed.
    """
    counts = wanted.progress.counts
    place = group.place
    names = {share.key for share in group.objects}
    bucket = removing.store.bucket
    standing = removing.catalog.select(Query((place.topic,), places=(place,)))
    rows = [row for row in standing if row.bucket == bucket and row.object_key in names]
    if len(rows) != group.rows:
        raise ConflictError(f"Rows of {place} were moved or taken away meanwhile.", topic=place.topic)
    bodies: list[bytes] = []
    findings: list[Finding] = []
    verification = Verification(removing.catalog, removing.store)
    for found in fetch_checked(removing.store, rows, prove):
        if not found.problems:
            bodies.append(found.body)
        elif (finding := wrong(verification, found)) is not None:
            findings.append(finding)
        else:
            raise ConflictError(f"The row of {found.row.uuid} was changed meanwhile.", topic=place.topic)
    if findings:
        counts["damaged"] += 1
        return findings
    compressed = wanted.layouts.compresses(place.topic)
    name = segment_key(*place.partition_log, place.start, place.stop, compressed=compressed)
    made = segment(name, bodies)
    reason = f"documents moved to a segment of {place}, attempt {wanted.attempt()}"
    making = replace(removing.removal(COMMAND, reason), grace_s=MAKING_S)
    key = removing.make(made.objects[0], place.topic, making)
    moves = [
        Correction(
            row, row._replace(object_key=key, position=at.position, frame=at.frame, frame_size=at.frame_size)
        )
        for row, at in zip(rows, made.places, strict=True)
    ]
    has_copy = removing.backup is not None and not removing.tally.backup_refusal
    backups = making.backups if has_copy else ()  # where there is no copy of the new one, the old ones stay
    moving = replace(making, backups=backups, grace_s=wanted.grace / datetime.timedelta(seconds=1))
    try:
        for store in (
            removing.store,
            *([removing.backup] if removing.backup is not None and has_copy else []),
        ):
            _read_back(store, made.objects[0].body, moves, bodies)
        removing.catalog.move_documents(moves, moving)
    except HopArchiveError:
        # Also where somebody took it for a dead process's and struck it out before its copy was made: suppressed content may
        # be in it. Where rows name it all the same, it stays.
        with suppress(HopArchiveError):
            removing.catalog.note_pending_deletes(
                [(bucket, key)], place.topic, removing.removal(COMMAND, reason)
            )
            removing.delete_pending(COMMAND)
        raise
    counts["segments"] += 1
    counts["objects"] += len(group.objects)
    counts["messages"] += len(rows)
    counts["old_bytes"] += group.stored_bytes
    counts["new_bytes"] += len(made.objects[0].body)
    return ()


def _read_back(store: Store, body: bytes, moves: Sequence[Correction], bodies: Sequence[bytes]) -> None:
    """See that a segment is there as it was made, and that rows will find their documents in it.

    Raises:
        ConflictError: It is gone: somebody took it for a dead process's.
        CorruptError: It is not.
    """
    key = moves[0].now.object_key
    try:
        (found,) = store.fetch([Extent(key)])
    except ObjectMissingError as error:
        raise ConflictError(
            f"The segment {key} was deleted by another process before rows named it.",
            remedy="Nothing was changed. Run this again.",
            object_key=key,
            bucket=store.bucket,
        ) from error
    contents = ObjectContents(key, found)
    if found != body or any(contents.at(move.now) != part for move, part in zip(moves, bodies, strict=True)):
        raise CorruptError(
            f"Store {store.name}: the segment {key} is not what was stored a moment ago.",
            remedy="Rows name it nowhere, and it is deleted. See whether the store is sound.",
            object_key=key,
            bucket=store.bucket,
        )
