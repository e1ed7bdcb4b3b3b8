"""The ledger against itself, the rows and the summary."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hop_archive.catalog.checked import LAST_KEY, Look, Section, ledger_key
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Miscount, Outcome
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.slices import EMPTY, OffsetSet, Slice, offsets_by_log
from hop_archive.model.wording import counted
from hop_archive.read.topic_facts import inner_holes
from hop_archive.upkeep.verify.objects import ROWS_IN_A_STEP, Step, found_in
from hop_archive.upkeep.verify.verification import Verification

_TOGETHER = 100
"""Ledger rows that are compared with their rows by one statement, at most."""
_MOST_OFFSETS = 1_000_000
"""Of how many offsets they are, but for the last of them."""
_PATIENCE_S = 6.0
"""A step of a run that failed is tried again after 5 s; another of its steps may have gone on meanwhile."""


def ledger(verification: Verification, took: dict[Section, int] | None = None) -> Iterator[Finding]:
    """Compare the ledger with itself, with the rows and with the summary. Changes nothing.

    Finds ``coverage_hole`` (offsets between dealt-with ones, or with rows, that no ledger row covers),
    ``count_mismatch`` and ``lost``. ``took`` is given what each section took.
    """
    yield from coverage(verification)
    for topic in verification.topics():
        yield from found_in(counts_of(verification, topic), Section("", topic, Look.LEDGER), took)


def coverage(verification: Verification) -> Iterator[Finding]:
    """Compare the ledger with itself and with where there are rows; what it costs does not grow with their number.

    Finds ``coverage_hole`` and ``lost``.
    """
    catalog, counts = verification.catalog, verification.checked.counts
    catalog.note_logs()
    doubtful: dict[Slice, None] = {}
    for topic in verification.topics():
        for entry in catalog.ledger([topic]):
            counts["batches"] += 1
            counts["offsets"] += len(entry.slice)
            counts["skipped offsets"] += (entry.outcome is Outcome.SKIPPED) * len(entry.slice)
            counts["pruned offsets"] += (entry.outcome is Outcome.PRUNED) * len(entry.slice)
            if entry.outcome is Outcome.LOST:
                yield of_slice(Kind.LOST, entry.slice, entry.reason)
        doubtful |= dict.fromkeys(_holes(catalog, topic))
    if doubtful:
        verification.sleep(_PATIENCE_S)  # a run may have been about to fill them
    for topic, some in itertools.groupby(doubtful, key=lambda hole: hole.topic):
        before = list(some)
        for hole in _holes(catalog, topic):
            if any(
                hole.partition_log == was.partition_log and hole.start < was.stop and was.start < hole.stop
                for was in before
            ):
                yield of_slice(Kind.COVERAGE_HOLE, hole, "no ledger row covers these")


def counts_of(verification: Verification, topic: str, after: str = "") -> Iterator[Step]:
    """Compare a topic's ledger rows whose ``ledger_key`` is greater than one with their rows, and then its summary with them.

    Finds ``count_mismatch``.
    """
    catalog = verification.catalog
    every = catalog.ledger([topic])
    left = [e for e in every if ledger_key(*e.slice.partition_log[1:], e.slice.stop) > after]
    while left:
        log, offsets, number = left[0].slice.partition_log, 0, 0
        for number, entry in enumerate(left[:_TOGETHER], start=1):
            if entry.slice.partition_log != log or offsets > _MOST_OFFSETS:
                number -= 1
                break
            offsets += entry.archived + entry.duplicates
        some, left = left[:number], left[number:]
        where = some[0].slice.within(some[0].slice.start, some[-1].slice.stop)
        key = ledger_key(*log[1:], where.stop)
        yield key, None, 0  # before they are counted: whoever ends here has not asked for nothing
        for miscount in catalog.miscounts_in(where):
            yield key, _miscounted(miscount), 0
        verification.checked.counts["batches counted"] += len(some)
        yield key, None, 1 + offsets // ROWS_IN_A_STEP
    # Which reads those rows of another archiver that no ledger row counts.
    adopted = sum(summary.messages for summary in catalog.summaries([topic])) - sum(e.archived for e in every)
    yield LAST_KEY, None, max(0, adopted) // ROWS_IN_A_STEP
    for miscount in catalog.summary_miscounts(topic):
        yield LAST_KEY, _miscounted(miscount), 0


def _miscounted(miscount: Miscount) -> Finding:
    where = "the ledger" if miscount.slice is not None else "the topic's summary"
    detail = f"{miscount.what}: {where} says {miscount.said}, the rows are {miscount.found}"
    return Finding(Kind.COUNT_MISMATCH, miscount.topic, detail, slice=miscount.slice)


def of_slice(kind: Kind, where: Slice, detail: str) -> Finding:
    """A finding about some offsets."""
    return Finding(kind, where.topic, f"{counted(len(where), 'offset')}: {detail}", slice=where)


def _holes(catalog: Catalog, topic: str) -> list[Slice]:
    """Without the spaces between rows that stand beyond the coverage: those may well be absent offsets."""
    coverage = catalog.coverage([topic])
    inner = {Slice(*at, *hole) for at, covered in coverage.items() for hole in inner_holes(covered)}
    beyond = {
        Slice(*rows.partition_log, *hole)
        for rows in catalog.unledgered(topic)
        for hole in OffsetSet.between(rows.start, rows.stop) - coverage.get(rows.partition_log, EMPTY)
    }
    return [hole for log, found in offsets_by_log(inner | beyond).items() for hole in log.slices(found)]
