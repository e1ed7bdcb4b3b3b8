"""Whether what Kafka still holds is what was archived of it: read again, and compared by digest. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hop_archive.archive import Archive
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Duplicate, Outcome, Row
from hop_archive.errors import HopArchiveError
from hop_archive.ingest.decide import decide
from hop_archive.ingest.obstacles import obstacle
from hop_archive.ingest.read import Reading, read_slices
from hop_archive.ingest.survey import survey
from hop_archive.model.document import crc32
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.identity import Identity, identify
from hop_archive.model.message import Message
from hop_archive.model.query import Query
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice
from hop_archive.source.protocol import place_of
from hop_archive.upkeep.verify.objects import Verification, topics_at, unseen

_PLACES = 10
"""A sample is taken in so many places of a partition, evenly spread: reading offset by offset would cost a fetch each."""


def source_documents(wanted: Verification, archive: Archive, sample: int | None = None) -> Iterator[Finding]:
    """Read again what Kafka holds and the ledger covers, and compare each message with its row by digest.

    Finds ``row_differs`` (the row is of other content), and ``not_archived`` (Kafka delivers a message, and neither a
    row nor a duplicate is recorded there). What is not covered is for ``verifying.source`` to tell.

    Args:
        wanted: Which topics, and where to count.
        archive: The source, and how much may be held at once.
        sample: About so many messages of each partition; None: all.

    Raises:
        UnavailableError: The source or the catalog does not answer.
    """
    slices = _slices(wanted, archive, sample)
    if not slices:
        return
    with archive.source.reader({}) as reader:
        refused: list[HopArchiveError] = []
        for reading in read_slices(reader, slices, archive.limits, archive.monotonic, refused=refused.append):
            wanted.checked.counts["messages read again"] += len(reading.messages)
            yield from _compared(wanted, reading)
    places = [(place_of(error), error) for error in refused]
    yield from unseen(wanted, [obstacle(at.topic, error, at.partition) for at, error in places if at])


def _slices(wanted: Verification, archive: Archive, sample: int | None) -> list[Slice]:
    seen = survey(archive, topics_at(wanted, archive) if wanted.query.topics else None)
    found: list[Slice] = []
    for partition_log, known in sorted(seen.workable().items()):
        marks = known.watermarks
        if marks.low < marks.stable and not seen.recognitions[partition_log.topic].is_new:
            held = _archived(wanted.catalog, partition_log) & OffsetSet.between(marks.low, marks.stable)
            found += _sampled(partition_log, held, sample)
    return found


def _archived(catalog: Catalog, partition_log: PartitionLog) -> OffsetSet:
    """What the ledger calls archived: of what was skipped, cleaned up or pruned there is nothing to compare with."""
    entries = (one for one in catalog.ledger([partition_log.topic]) if one.outcome is Outcome.ARCHIVED)
    return OffsetSet.of(
        (one.slice.start, one.slice.stop) for one in entries if one.slice.partition_log == partition_log
    )


def _sampled(partition_log: PartitionLog, held: OffsetSet, sample: int | None) -> list[Slice]:
    """All of it, or stretches that are evenly spread: the same each time, as long as Kafka holds the same."""
    if sample is None or held.size <= sample:
        return partition_log.slices(held)
    length = -(-sample // _PLACES)
    begins = [held.size * place // _PLACES for place in range(min(_PLACES, sample))]
    chosen = [held.first(begin + length) - held.first(begin) for begin in begins]
    return partition_log.slices(OffsetSet.of(part for some in chosen for part in some))


def _compared(wanted: Verification, reading: Reading) -> Iterator[Finding]:
    if not reading.messages:
        return
    catalog = wanted.catalog
    rows = _rows(catalog, reading.slice)
    copies = {one.offset: one for one in catalog.duplicates_in(reading.slice, len(reading.slice))}
    for message in reading.messages:
        identity = identify(message, crc32(message.value))
        row, copy = rows.get(message.offset), copies.get(message.offset)
        if row is None and copy is not None:
            row = catalog.find(copy.uuid)
        detail = _absent(wanted, message, copy) if row is None else _difference(identity, row)
        if detail is not None:
            kind = Kind.ROW_DIFFERS if row is not None or copy is not None else Kind.NOT_ARCHIVED
            where = reading.slice.within(message.offset, message.offset + 1)
            yield Finding(kind, where.topic, detail, identity.uuid, slice=where)


def _absent(wanted: Verification, message: Message, copy: Duplicate | None) -> str:
    if copy is not None:
        return f"it is recorded as a copy of {copy.uuid}, which has no row"
    (decision,) = decide([message], wanted.catalog, wanted.store)
    if decision.duplicate_of is not None:
        return f"Kafka delivers a copy of {decision.duplicate_of} there, and it is not recorded as one"
    return "Kafka delivers a message, and the ledger says that nothing is there"


def _rows(catalog: Catalog, where: Slice) -> Mapping[int, Row]:
    if where.topic not in catalog.topics():
        return {}
    found = catalog.select(Query((where.topic,), places=(where,)))
    return {row.offset: row for row in found if row.offset is not None}


def _difference(identity: Identity, row: Row) -> str | None:
    """What of a row is not that of the message; rows of another archiver know its time and checksum only."""
    if row.digest is not None:
        same = row.digest == identity.digest
    else:
        same = (row.timestamp_ms, row.message_crc32) == (identity.timestamp_ms, identity.message_crc32)
    return None if same else f"Kafka holds another message there than was archived as {row.uuid}"
