"""The ledger against itself, the rows and the summary. Changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Outcome
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.wording import counted
from hop_archive.read.topic_facts import inner_holes
from hop_archive.upkeep.verify.verification import Verification

_PATIENCE_S = 6.0
"""A step of a run that failed is tried again after 5 s; another of its steps may have gone on meanwhile."""


def ledger(verification: Verification) -> Iterator[Finding]:
    """Compare the ledger with itself, with the rows and with the summary.

    Finds ``coverage_hole`` (offsets between dealt-with ones, or with rows, that no ledger row covers),
    ``count_mismatch`` and ``lost``.
    """
    catalog, counts = verification.catalog, verification.checked.counts
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
        for miscount in catalog.miscounts(topic):
            where = "the ledger" if miscount.slice is not None else "the topic's summary"
            detail = f"{miscount.what}: {where} says {miscount.said}, the rows are {miscount.found}"
            yield Finding(Kind.COUNT_MISMATCH, topic, detail, slice=miscount.slice)
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
    by_log: dict[PartitionLog, list[tuple[int, int]]] = {}
    for hole in inner | beyond:
        by_log.setdefault(hole.partition_log, []).append((hole.start, hole.stop))
    return [hole for log, found in sorted(by_log.items()) for hole in log.slices(OffsetSet.of(found))]
