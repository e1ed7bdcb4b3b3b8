"""Whether what Kafka still holds is archived, and is what was archived of it. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

from hop_archive.archive import Archive
from hop_archive.catalog.records import Outcome, Row
from hop_archive.errors import HopArchiveError
from hop_archive.ingest.decide import decide
from hop_archive.ingest.obstacles import obstacle
from hop_archive.ingest.plan import lost, work
from hop_archive.ingest.read import Reading, read_slices
from hop_archive.ingest.survey import survey
from hop_archive.ingest.truncation import prove_tails
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.identity import identify
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, OffsetSet, Slice, offsets_by_log
from hop_archive.source.protocol import place_of
from hop_archive.upkeep.verify.ledger import of_slice
from hop_archive.upkeep.verify.verification import NOT_LOOKED_AT, Verification

_PLACES = 10
"""A sample is taken in so many places of a partition, evenly spread: reading offset by offset would cost a fetch each."""


def source(verification: Verification, archive: Archive) -> Iterator[Finding]:
    """Compare what Kafka holds now with the coverage. Finds ``not_archived``, and what is ``lost`` by now.

    What cannot be looked at is found, too (``no_leader``, ``not_readable``), and counted: no such look is complete. What
    arrived since the last run counts as not archived as well: right after a run there should be none. The last messages of
    the coverage are read again where the log is not proven under the leader that it has: ``log_truncated`` where Kafka holds
    others there. In a log that is proven, another message is damage of the catalog, which other looks find.
    """
    seen = survey(archive, _topics(verification, archive))
    yield from _unseen(verification, seen.obstacles)
    for log, known in sorted(seen.knowledge.items()):
        verification.checked.counts["offsets"] += max(0, known.watermarks.stable - known.watermarks.low)
        for where in log.slices(lost(known)):
            yield of_slice(Kind.LOST, where, "gone from Kafka, and not recorded as lost yet")
        for where in log.slices(work(known)):
            yield of_slice(Kind.NOT_ARCHIVED, where, "Kafka holds them")
    unproven = seen.unproven()
    doubtful = {
        log: known
        for log, known in seen.workable().items()
        if log in unproven or (known.coverage and known.watermarks.leader_epoch is None)
    }
    proof = prove_tails(archive, doubtful)
    left = sorted(proof.left.items(), key=itemgetter(0))
    yield from _unseen(verification, [obstacle(at.topic, why, at.partition) for at, why in left])
    for where, how in sorted(proof.other.values()):
        yield of_slice(
            Kind.LOG_TRUNCATED, where, f"{how}: the log lost its end, and the next run reads it anew"
        )


def source_documents(verification: Verification, archive: Archive) -> Iterator[Finding]:
    """Read again what Kafka holds and the ledger covers, or a sample of it, and compare each message with its row by digest.

    Finds ``row_differs`` (the row is of other content), and ``not_archived`` (Kafka delivers a message, and neither a
    row nor a duplicate is recorded there). What is not covered is for ``source`` to tell.

    Raises:
        UnavailableError: The source or the catalog does not answer.
    """
    sample = verification.sample
    seen = survey(archive, _topics(verification, archive))
    slices: list[Slice] = []
    for log, known in sorted(seen.workable().items()):
        marks = known.watermarks
        if marks.low < marks.stable and not seen.recognitions[log.topic].is_new:
            entries = verification.catalog.ledger([log.topic])
            # Of what was skipped, cleaned up or pruned there is nothing to compare with.
            archived = offsets_by_log(e.slice for e in entries if e.outcome is Outcome.ARCHIVED)
            held = archived.get(log, EMPTY) & OffsetSet.between(marks.low, marks.stable)
            if sample is not None and held.size > sample:
                # Stretches that are evenly spread: the same each time, as long as Kafka holds the same.
                begins = [held.size * place // _PLACES for place in range(min(_PLACES, sample))]
                length = -(-sample // _PLACES)
                parts = (part for at in begins for part in held.first(at + length) - held.first(at))
                held = OffsetSet.of(parts)
            slices += log.slices(held)
    if not slices:
        return
    with archive.source.reader({}) as reader:
        refused: list[HopArchiveError] = []
        for reading in read_slices(reader, slices, archive.limits, archive.monotonic, refused=refused.append):
            verification.checked.counts["messages read again"] += len(reading.messages)
            yield from _compared(verification, reading)
    places = [(place_of(error), error) for error in refused]
    yield from _unseen(verification, [obstacle(at.topic, error, at.partition) for at, error in places if at])


def _topics(verification: Verification, archive: Archive) -> Sequence[str] | None:
    """The topics that are meant, whether the catalog knows them by now or not; None for all.

    A name means the topic, vetoed or not; a glob means those that are archived.
    """
    query = verification.query
    if not query.topics:
        return None
    found = archive.source.topics()
    there = {*found, *found.untold}  # what could not be described is there, and a look at it says why
    archived_or_named = {name for name in there if archive.topics.archived(name) or name in query.topics}
    return query.chosen_topics({*verification.catalog.known_topics()} | archived_or_named)


def _unseen(verification: Verification, obstacles: Iterable[Finding]) -> Iterator[Finding]:
    """Pass on what could not be looked at, and count it."""
    for finding in obstacles:
        verification.checked.counts[NOT_LOOKED_AT] += 1
        yield finding


def _compared(verification: Verification, reading: Reading) -> Iterator[Finding]:
    if not reading.messages:
        return
    catalog, where = verification.catalog, reading.slice
    rows: dict[int | None, Row] = {}
    if where.topic in catalog.topics():
        rows = {row.offset: row for row in catalog.select(Query((where.topic,), places=(where,)))}
    copies = {copy.offset: copy for copy in catalog.duplicates_in(where, len(where))}
    for message in reading.messages:
        identity = identify(message)
        row, copy = rows.get(message.offset), copies.get(message.offset)
        if row is None and copy is not None:
            row = catalog.find(copy.uuid)
        kind = Kind.ROW_DIFFERS
        if row is not None:
            # Rows of another archiver know the message's time and checksum only.
            known = (row.timestamp_ms, row.message_crc32) if row.digest is None else row.digest
            seen = (identity.timestamp_ms, identity.message_crc32) if row.digest is None else identity.digest
            if known == seen:
                continue
            detail = f"Kafka holds another message there than was archived as {row.uuid}"
        elif copy is not None:
            detail = f"it is recorded as a copy of {copy.uuid}, which has no row"
        else:
            kind = Kind.NOT_ARCHIVED
            (decision,) = decide([message], catalog, verification.store)
            detail = "Kafka delivers a message, and the ledger says that nothing is there"
            if (kept := decision.duplicate_of) is not None:
                detail = f"Kafka delivers a copy of {kept} there, and it is not recorded as one"
        here = where.within(message.offset, message.offset + 1)
        yield Finding(kind, where.topic, detail, identity.uuid, slice=here)
