"""Mending of what ledger, rows and Kafka do not account for: holes, wrong counts, copies that nothing records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hop_archive.catalog.records import Batch, Outcome
from hop_archive.errors import SliceTakenError, StaleDecisionError
from hop_archive.ingest.decide import decide
from hop_archive.ingest.read import Reading
from hop_archive.ingest.write import duplicate_of, prepare, write_objects
from hop_archive.model.findings import Finding
from hop_archive.model.keys import slice_of
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, OffsetSet, Slice
from hop_archive.model.wording import counted
from hop_archive.upkeep.repair.evidence import fits
from hop_archive.upkeep.repair.orphans import documents_of, row_under
from hop_archive.upkeep.repair.plan import GoneError, NotMendedError, Repair, RepairPlan, whole
from hop_archive.upkeep.repair.upstream import runs

_WINDOW = 20_000
"""Offsets that are looked at together where rows are missing."""


# --- holes in the coverage


def plan_hole(repair: Repair, finding: Finding) -> RepairPlan:
    """How to cover offsets that have rows and no ledger row: by the rows, and by what Kafka still delivers.

    Raises:
        GoneError: The ledger covers them by now.
        NotMendedError: No row stands there: the next run deals with them; or the source is not to be asked.
    """
    where = finding.slice
    assert where is not None
    left = where.offsets - repair.catalog.coverage([where.topic]).get(where.partition_log, EMPTY)
    if not left:
        raise GoneError
    if not _standing(repair, where, limit=1):
        raise NotMendedError(
            "no row stands there: the next run of the archive reads it, or records it as lost"
        )
    if not repair.upstream.is_asked:
        raise NotMendedError("whether Kafka still holds these offsets is not known: name the source")
    holes = where.partition_log.slices(left)

    def do() -> str:
        done: list[str] = []
        for hole in holes:
            held = repair.upstream.held(hole)
            read = covered = 0
            for reading in repair.upstream.readings(hole.partition_log.slices(held)):
                batch = _missing_of(repair, reading)
                repair.catalog.account(replace(batch, run_id=repair.run_id))
                read, covered = read + len(batch.offsets), covered + len(reading.slice)
            again = f"{counted(covered, 'offset')} read again, {counted(read, 'missing message')} among them"
            done.append(f"{hole}: {again}")
            for part in hole.partition_log.slices(hole.offsets - held):
                repair.catalog.account(Batch(part, run_id=repair.run_id))
                entry = next(entry for entry in repair.catalog.ledger([part.topic]) if entry.slice == part)
                gone = (
                    f"of {len(part)} that Kafka holds no more {entry.absent} count as absent, and may be lost"
                )
                done.append(gone)
        return "; ".join(done)

    how = f"ledger row made anew of {counted(left.size, 'offset')}, from the rows that stand there"
    return RepairPlan(how, do)


def _standing(repair: Repair, where: Slice, limit: int | None = None) -> set[int]:
    """The offsets of a slice that have a row, or are recorded as duplicates."""
    most = len(where) if limit is None else limit
    found = {copy.offset for copy in repair.catalog.duplicates_in(where, most)}
    if where.topic in repair.catalog.topics():
        rows = repair.catalog.select(Query((where.topic,), places=(where,), limit=limit))
        found |= {row.offset for row in rows if row.offset is not None}
    return found


def _missing_of(repair: Repair, reading: Reading) -> Batch:
    """What of a reading has neither row nor duplicate: its objects are created, its rows are yet to be added."""
    standing = _standing(repair, reading.slice)
    messages = tuple(m for m in reading.messages if m.offset not in standing)
    if not messages:
        return Batch(reading.slice)
    archive = repair.upstream.archive
    assert archive is not None
    decisions = decide(messages, repair.catalog, repair.store)
    if repair.catalog.suppressed([decision.identity.uuid for decision in decisions]):
        raise NotMendedError(
            "a message of it was suppressed, and Kafka still holds its content: suppress it again"
        )
    size_bytes = sum(message.size_bytes for message in messages)
    prepared = prepare(archive, [Reading(reading.slice, messages, size_bytes=size_bytes)])
    (stored,) = write_objects(archive, prepared)
    return stored.batch


# --- counts


def plan_count(repair: Repair, finding: Finding) -> RepairPlan:
    """How to make a count right: the missing are put back, and only what is more than was counted is counted anew.

    Raises:
        GoneError: It is right by now.
    """
    found = [
        miscount for miscount in repair.catalog.miscounts(finding.topic) if miscount.slice == finding.slice
    ]
    if not found:
        raise GoneError
    where = finding.slice

    def recount() -> str:
        if where is None:
            repair.catalog.recount_summary(finding.topic)
            return "summary counted anew"
        repair.catalog.recount_ledger(where)
        return "ledger row counted anew"

    if where is None:
        return RepairPlan("summary counted anew", recount)
    short = sum(max(0, miscount.said - miscount.found) for miscount in found)
    if short == 0:
        return RepairPlan("ledger row counted anew", recount)
    how = f"{short} that the ledger counts looked for in segments and in Kafka, and put back"
    return RepairPlan(how, lambda: _put_back_all(repair, where, short))


def _put_back_all(repair: Repair, where: Slice, short: int) -> str:
    """Look for what is missing, window by window, until all is there that the ledger counts."""
    back = 0
    listing = repair.store.listing(f"segments/{where.topic}/{where.generation}/{where.partition}/")
    found = [(at, info.key) for info in listing if (at := slice_of(info.key)) is not None]
    segments = [(at, key) for at, key in found if at.start < where.stop and where.start < at.stop]
    segments.sort(key=lambda pair: pair[0].start)
    for start in range(where.start, where.stop, _WINDOW):
        window = where.within(start, min(where.stop, start + _WINDOW))
        missing = window.offsets - runs(_standing(repair, window))
        if missing and back < short:
            back += _from_segments(repair, window, missing, segments)
            missing -= runs(_standing(repair, window))
        if (
            missing and back < short
        ):  # what Kafka still delivers: its objects are created anew, or found where they stand
            log = window.partition_log
            held = [part for hole in log.slices(missing) for part in log.slices(repair.upstream.held(hole))]
            readings = repair.upstream.readings(held)
            back += sum(_put_back(repair, _missing_of(repair, reading)) for reading in readings)
    done = f"{counted(back, 'row or duplicate', 'rows and duplicates')} put back"
    if back < short:
        raise NotMendedError(
            f"{done}; {short - back} that the ledger counts are neither in the store nor in Kafka"
        )
    return done


def _from_segments(
    repair: Repair, window: Slice, missing: OffsetSet, segments: Sequence[tuple[Slice, str]]
) -> int:
    """Put back the rows of documents that stand in segments, and that no row names."""
    back = 0
    for at, key in segments:
        if not at.offsets & missing:
            continue
        for position, document in documents_of(key, whole(repair.store, key) or b""):
            if document.message.offset not in missing or not fits(document, key):
                continue
            if repair.catalog.find(document.uuid) is None:
                row, _ = row_under(repair, key, position, document, window.partition_log)
                back += _put_back(repair, Batch(window, rows=[row]))
    return back


def _put_back(repair: Repair, batch: Batch) -> int:
    if not batch.offsets:
        return 0
    try:
        repair.catalog.put_back(batch)
    except (StaleDecisionError, SliceTakenError):
        return 0  # another one was first, or the ledger does not count it: an absent offset may be delivered later
    return len(batch.offsets)


# --- what only Kafka, or a person, could settle


def plan_unarchived(repair: Repair, finding: Finding) -> RepairPlan:
    """How to record a copy that the ledger calls absent; whatever it does not cover, archiving reads.

    A catalog that was rebuilt from the store alone lacks such copies: no document shows them.

    Raises:
        GoneError: The ledger covers it by now; or it has a row, or Kafka holds it no more.
        NotMendedError: It does not, or it is no copy.
    """
    where, catalog = finding.slice, repair.catalog
    assert where is not None
    if finding.uuid is None:
        log = where.partition_log
        entries = [entry.slice for entry in catalog.ledger([where.topic]) if entry.slice.partition_log == log]
        if not where.offsets - OffsetSet.of((at.start, at.stop) for at in entries):
            raise GoneError
        raise NotMendedError("the next run of the archive reads it (hop-archive run)")
    # A message that Kafka was seen to deliver.
    if _standing(repair, where, limit=1):
        raise GoneError
    if not repair.upstream.is_asked:
        raise NotMendedError("whether it is a copy of a message is not known: name the source")
    held = repair.upstream.held(where)
    if not held:
        raise GoneError
    readings = repair.upstream.readings(where.partition_log.slices(held))
    decisions = (one for reading in readings for one in decide(reading.messages, catalog, repair.store))
    copy = next((duplicate_of(one) for one in decisions if one.duplicate_of is not None), None)
    if copy is None:
        raise NotMendedError(
            "the ledger says that nothing is there, and Kafka delivers a message that is no copy: a person decides"
        )
    how = f"recorded as a copy of {copy.uuid}, which it is by UUID and digest"

    def do() -> str:
        catalog.record_copy(where.partition_log, copy)
        return how

    return RepairPlan(how, do)


def plan_lost(repair: Repair, finding: Finding) -> RepairPlan:
    """Nothing brings back what retention took, unless the ledger says no more that it did.

    Raises:
        GoneError: The ledger does not say so any more.
        NotMendedError: It does.
    """
    where = finding.slice
    assert where is not None
    lost = OffsetSet.of(
        (entry.slice.start, entry.slice.stop)
        for entry in repair.catalog.ledger([where.topic])
        if entry.slice.partition_log == where.partition_log and entry.outcome is Outcome.LOST
    )
    coverage = repair.catalog.coverage([where.topic]).get(where.partition_log, EMPTY)
    if where.offsets & coverage and not where.offsets & lost:
        raise GoneError
    raise NotMendedError(
        "Kafka removed it before it was archived: accept it, with the reason, once it is explained"
    )


def plan_foreign(repair: Repair, finding: Finding) -> RepairPlan:
    """Nothing that mending could do: what is not the archive's is not the archive's to move.

    Raises:
        GoneError: It is not there any more.
        NotMendedError: It is.
    """
    if not any(info.key == finding.object_key for info in repair.store.listing(finding.object_key)):
        raise GoneError
    raise NotMendedError("it is not the archive's: whoever put it there may take it away, or accept it")


def leave_truncation(_repair: Repair, _finding: Finding) -> RepairPlan:
    """Nothing to mend: what the log held before and after is archived, each in its own generation.

    Raises:
        NotMendedError: Always.
    """
    raise NotMendedError(
        "Kafka lost messages that the archive has: look at the brokers, restore them if they are missed, and accept it"
    )


def leave_obstacle(_repair: Repair, _finding: Finding) -> RepairPlan:
    """Nothing to mend in the archive: the run that gets past it closes it.

    Raises:
        NotMendedError: Always.
    """
    raise NotMendedError("the archive is not what is wrong: the next run that gets past it closes it")
