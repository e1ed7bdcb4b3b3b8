"""Mending of objects that no row names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from hop_archive.catalog.records import Batch, Row
from hop_archive.errors import CorruptError
from hop_archive.ingest.write import row_of
from hop_archive.model.document import Document, decode, encode
from hop_archive.model.findings import Finding
from hop_archive.model.identity import Identity
from hop_archive.model.keys import is_segment_key, slice_of
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, PartitionLog, Slice
from hop_archive.model.wording import counted
from hop_archive.upkeep.repair.evidence import documents_in, fits, proven
from hop_archive.upkeep.repair.plan import GoneError, NotMendedError, Repair, RepairPlan, quarantine, whole


def plan_orphan(repair: Repair, finding: Finding) -> RepairPlan:
    """How to settle an object that no row names: its documents are catalogued where they are missing, or it is put aside.

    Raises:
        GoneError: It is not there any more, or a row names it.
        NotMendedError: An archiver may be about to name it, or which generation of its topic it belongs to cannot be told.
    """
    key, catalog = finding.object_key, repair.catalog
    body = whole(repair.store, key)
    if body is None or _is_named(repair, key, body):
        raise GoneError
    if catalog.pending_keys(repair.store.bucket, [key]):
        raise NotMendedError("its delete is pending: run the command that removes it again, which deletes it")
    documents = [(at, document) for at, document in documents_of(key, body) if fits(document, key)]
    if not documents:
        with contextlib.suppress(CorruptError):
            if not decode(body).digest:
                raise NotMendedError(
                    "another archiver wrote it, without a digest that could prove it: a person decides"
                )
        return _aside(repair, key, "it holds no document that proves itself and belongs under this key")
    missing = [(at, document) for at, document in documents if catalog.find(document.uuid) is None]
    if not missing:
        # A run that hung may still commit rows that name it, unless the ledger covers its offsets: then that is refused.
        for _, document in documents:
            coverage = catalog.coverage([document.message.topic])
            offset = document.message.offset
            if not any(offset in coverage.get(log, EMPTY) for log in _possible_logs(repair, key, document)):
                raise NotMendedError(
                    "its offsets are not dealt with yet: the next run of the archive settles them"
                )
        return _aside(repair, key, "rows name all of its messages elsewhere")
    hidden = catalog.suppressed([document.uuid for _, document in missing])
    if any(document.uuid in hidden and document.message.value is not None for _, document in missing):
        raise NotMendedError("it holds content that was suppressed: suppress it again")
    counted_rows, uncovered = _sorted_out(repair, key, missing)
    if counted_rows:
        how = f"{counted(len(counted_rows), 'row')} put back, which the ledger counts"

        def put_back() -> str:
            for row, place in counted_rows:
                catalog.put_back(Batch(place, rows=[row]))
            return how

        return RepairPlan(how, put_back)
    if uncovered:
        return _plan_catalogue(repair, uncovered)
    return _aside(repair, key, "its offsets are dealt with: copies, or left behind by a run that crashed")


def documents_of(key: str, body: bytes) -> Iterator[tuple[int | None, Document]]:
    """The documents in an object that prove themselves, with their positions (None: it is the whole object)."""
    for position, part in documents_in(body) if is_segment_key(key) else ((None, body),):
        document = proven(part)
        if document is not None:
            yield position, document


def row_under(
    repair: Repair, key: str, position: int | None, document: Document, log: PartitionLog
) -> tuple[Row, Slice]:
    """The row that a document under this key makes in this log, and its place."""
    row = row_of(log.generation, repair.store.bucket, document, encode(document), (key, position))
    assert row.slice is not None
    return row, row.slice


def _is_named(repair: Repair, key: str, body: bytes) -> bool:
    where = slice_of(key)
    if where is None:
        found = (repair.catalog.find(document.uuid) for _, document in documents_of(key, body))
        return any(row is not None and row.object_key == key for row in found)
    if where.topic not in repair.catalog.topics():
        return False
    rows = repair.catalog.select(Query((where.topic,), places=(where,)))
    return any(row.object_key == key for row in rows)


def _aside(repair: Repair, key: str, why: str) -> RepairPlan:
    return RepairPlan(f"moved to quarantine: {why}", lambda: f"{quarantine(repair.store, key)}: {why}")


def _possible_logs(repair: Repair, key: str, document: Document) -> list[PartitionLog]:
    """The logs to which a document may belong: that of its segment, or one for each generation of its topic."""
    where = slice_of(key)
    if where is not None:
        return [where.partition_log]
    topic = document.message.topic
    known = repair.catalog.generations([topic]).get(topic, ())
    return [PartitionLog(topic, generation.number, document.message.partition) for generation in known]


def _sorted_out(
    repair: Repair, key: str, missing: Sequence[tuple[int | None, Document]]
) -> tuple[list[tuple[Row, Slice]], list[tuple[Row, Slice]]]:
    """The rows that the ledger counts and that are not there, and those of offsets that it does not cover."""
    counted_rows: list[tuple[Row, Slice]] = []
    uncovered: list[tuple[Row, Slice]] = []
    coverage = repair.catalog.coverage([missing[0][1].message.topic])
    for position, document in missing:
        made = [
            row_under(repair, key, position, document, log) for log in _possible_logs(repair, key, document)
        ]
        dealt = [
            (row, place) for row, place in made if place.start in coverage.get(place.partition_log, EMPTY)
        ]
        here = [(row, place) for row, place in dealt if _is_counted(repair, place)]
        if len(here) > 1 or (not here and len(dealt) < len(made) > 1):
            raise NotMendedError(
                "its topic had several generations, and its key does not tell of which it is"
            )
        counted_rows += here
        uncovered += [pair for pair in made if pair not in dealt] if not here else []
    return counted_rows, uncovered


def _is_counted(repair: Repair, here: Slice) -> bool:
    """Whether the ledger counts a message more there than there are rows, and this may be it.

    By the miscounts as they were when the topic's first orphan was looked at: to count takes every row, and putting back
    looks again.
    """
    if repair.catalog.duplicates_in(here, 1):
        return False
    if here.topic not in repair.miscounts:
        repair.miscounts.clear()
        repair.miscounts[here.topic] = repair.catalog.miscounts(here.topic)
    return any(
        miscount.what == "archived"
        and miscount.said > miscount.found
        and miscount.slice is not None
        and miscount.slice.partition_log == here.partition_log
        and miscount.slice.start <= here.start < miscount.slice.stop
        for miscount in repair.miscounts[here.topic]
    )


def _plan_catalogue(repair: Repair, rows: Sequence[tuple[Row, Slice]]) -> RepairPlan:
    """Of offsets that nothing covers: only where Kafka has them no more, and it is certain whose they are."""
    if not repair.upstream.is_asked:
        raise NotMendedError("whether Kafka still holds its offsets is not known: name the source")
    if any(repair.upstream.held(place) for _, place in rows):
        raise NotMendedError(
            "Kafka still holds its offsets: the next run of the archive names it, or a copy of it"
        )
    identities = [
        Identity(
            row.uuid, row.is_client_uuid, row.topic, row.timestamp_ms, row.digest or b"", row.message_crc32
        )
        for row, _ in rows
    ]
    known = {message.uuid for message in repair.catalog.known(identities)}
    new = [(row, place) for row, place in rows if row.uuid not in known]
    how = f"{counted(len(new), 'message')} catalogued, which Kafka holds no more"

    def do() -> str:
        for row, place in new:
            repair.catalog.account(Batch(place, rows=[row], run_id=repair.run_id))
        return how

    return RepairPlan(how, do)
