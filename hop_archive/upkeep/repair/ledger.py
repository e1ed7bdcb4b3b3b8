"""Mending of what ledger, rows and Kafka do not account for: holes, wrong counts, copies that nothing records."""

from __future__ import annotations

from dataclasses import replace

from hop_archive.catalog.records import Batch, Outcome
from hop_archive.errors import SliceTakenError, StaleDecisionError
from hop_archive.ingest.decide import decide
from hop_archive.ingest.read import Reading
from hop_archive.ingest.write import duplicate_of, prepare, write_objects
from hop_archive.model.findings import Finding
from hop_archive.model.keys import slice_of
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, Slice, offsets_by_log
from hop_archive.model.wording import counted
from hop_archive.upkeep.repair.evidence import fits
from hop_archive.upkeep.repair.orphans import documents_of, row_under
from hop_archive.upkeep.repair.plan import GoneError, NotMendedError, Repair, RepairPlan, contents, runs

_WINDOW = 20_000
"""Offsets that are looked at together where rows are missing."""


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


def plan_count(repair: Repair, finding: Finding) -> RepairPlan:
    """How to make a count right: the missing are put back, and only what is more than was counted is counted anew.

    The ledger row that it is about may have been merged with others since, or split: then about each that has its offsets.

    Raises:
        GoneError: It is right by now.
    """
    short: dict[Slice | None, int] = {}
    for miscount in repair.catalog.miscounts(finding.topic):
        if _is_about(finding, miscount.slice):
            missing = max(0, miscount.said - miscount.found)
            short[miscount.slice] = short.get(miscount.slice, 0) + missing
    if not short:
        raise GoneError
    if None in short:
        return RepairPlan("summary counted anew", lambda: repair.catalog.recount_summary(finding.topic))

    def do() -> str:
        done = []
        for where, missing in short.items():
            if where and missing:
                done.append(_put_back_all(repair, where, missing))
            elif where:
                repair.catalog.recount_ledger(where)
                done.append("ledger row counted anew")
        return "; ".join(done)

    if total := sum(short.values()):
        return RepairPlan(
            f"{total} that the ledger counts looked for in segments and in Kafka, and put back", do
        )
    return RepairPlan("ledger row counted anew", do)


def _is_about(finding: Finding, where: Slice | None) -> bool:
    """Whether a finding is about the number in the ledger row of this slice; None: in the topic's summary."""
    said = finding.slice
    if said is None or where is None:
        return said is where
    return said.partition_log == where.partition_log and bool(said.offsets & where.offsets)


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
        if missing and back < short:  # documents that stand in segments, and that no row names
            for key in (key for at, key in segments if at.offsets & missing):
                segment = contents(repair.store, key)
                for standing, document in documents_of(segment) if segment is not None else ():
                    is_missing = document.message.offset in missing and fits(document, key)
                    if is_missing and repair.catalog.find(document.uuid) is None:
                        row, _ = row_under(repair, standing, document, window.partition_log)
                        back += _put_back(repair, Batch(window, rows=[row]))
            missing -= runs(_standing(repair, window))
        # What Kafka still delivers: its objects are created anew, or found where they stand.
        if missing and back < short:
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


def _put_back(repair: Repair, batch: Batch) -> int:
    if not batch.offsets:
        return 0
    try:
        repair.catalog.put_back(batch)
    except (StaleDecisionError, SliceTakenError):
        return 0  # another one was first, or the ledger does not count it: an absent offset may be delivered later
    return len(batch.offsets)


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
        dealt_with = offsets_by_log(entry.slice for entry in catalog.ledger([where.topic]))
        if not where.offsets - dealt_with.get(where.partition_log, EMPTY):
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
    return RepairPlan(how, lambda: catalog.record_copy(where.partition_log, copy))


def plan_lost(repair: Repair, finding: Finding) -> RepairPlan:
    """Nothing brings back what retention took, unless the ledger says no more that it did.

    Raises:
        GoneError: The ledger does not say so any more.
        NotMendedError: It does.
    """
    where = finding.slice
    assert where is not None
    ledger = repair.catalog.ledger([where.topic])
    lost = offsets_by_log(entry.slice for entry in ledger if entry.outcome is Outcome.LOST)
    log, coverage = where.partition_log, repair.catalog.coverage([where.topic])
    if where.offsets & coverage.get(log, EMPTY) and not where.offsets & lost.get(log, EMPTY):
        raise GoneError
    raise NotMendedError(
        "Kafka removed it before it was archived: accept it, with the reason, once it is explained"
    )
