"""Every document against its row, and against the message as it was sent. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from hop_archive.catalog.records import Row
from hop_archive.errors import ObjectFrozenError, ObjectMissingError
from hop_archive.ingest.garbage_collection import fewer_collections
from hop_archive.model.document import crc32, encode
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.message import TopicPartition
from hop_archive.model.query import Order
from hop_archive.read.check import prove
from hop_archive.read.fetch import OR_FROZEN, Fetched, fetch_checked, fetch_documents
from hop_archive.upkeep.verify.sent import Place, sent_received
from hop_archive.upkeep.verify.verification import Verification

KINDS = (Kind.CORRUPT_OBJECT, Kind.FROZEN_OBJECT, Kind.ROW_DIFFERS)
"""Kinds of finding that reading a document may show, and nothing else does."""


def documents(verification: Verification, known: Collection[tuple[str, str]] = ()) -> Iterator[Finding]:
    """Fetch the document of each selected row and compare it with the row.

    Finds ``missing_object``, ``wrong_size``, ``corrupt_object`` (its bytes are not those that were stored), ``frozen_object`` (they
    cannot be read) and ``row_differs``. Objects that are ``known``, by bucket and key, are left out: their finding was told already.
    """
    chosen = verification.catalog.select(verification.query, Order.PLACE)
    return of_rows(verification, (row for row in chosen if (row.bucket, row.object_key) not in known))


def of_rows(verification: Verification, rows: Iterable[Row]) -> Iterator[Finding]:
    """Fetch the document of each of these rows and compare it with the row; finds what ``documents`` finds."""
    with fewer_collections():
        for found in fetch_checked(verification.store, rows, prove, verification.catalog.find, OR_FROZEN):
            verification.checked.counts["messages"] += 1
            verification.checked.counts["bytes"] += len(found.body)
            if found.document is not None and found.document.caveats:
                verification.checked.counts["inexact messages"] += 1
            if found.problems and (finding := wrong(verification, found)):
                yield finding


def wrong(verification: Verification, found: Fetched) -> Finding | None:
    """The finding of a row whose document has problems; None where the row is another one by now, or gone.

    Which of the two is wrong, the object or the row, is told by the checksum that the row has of the object. Where only
    that checksum differs, and the document is whole, it is the row that was changed.
    """
    row, document = found.row, found.document
    if verification.catalog.find(row.uuid) != row:
        return None
    if isinstance(found.error, ObjectMissingError):
        kind = Kind.MISSING_OBJECT
    elif isinstance(found.error, ObjectFrozenError):
        kind = Kind.FROZEN_OBJECT
    elif found.error is not None:  # the object ends too soon, or the frame that the document is in is damaged
        kind = Kind.CORRUPT_OBJECT if "frame" in found.error.facts else Kind.WRONG_SIZE
    elif len(found.body) != row.size_bytes:
        kind = Kind.WRONG_SIZE
    elif crc32(found.body) == row.crc32 or (
        document is not None and len(found.problems) == 1 and encode(document) == found.body
    ):
        kind = Kind.ROW_DIFFERS
    else:
        kind = Kind.CORRUPT_OBJECT
    return of_document(row, kind, "; ".join(found.problems))


def of_document(row: Row, kind: Kind, detail: str) -> Finding:
    """A finding about a row and its document."""
    return Finding(kind, row.topic, detail, row.uuid, row.bucket, row.object_key, row.slice)


def sent_documents(verification: Verification) -> Iterator[Finding]:
    """Compare messages as they were sent with what is stored of them, or of the message that each repeats.

    Places are those of the newest generation of each topic. Holds what was recorded, and the rows of one topic of it.
    Finds ``not_archived`` and ``corrupt_object``, besides what fetching a document may find.
    """
    recorded, catalog = verification.sent or {}, verification.catalog
    for topic in sorted({at.topic for at, _ in recorded}):
        places = sorted(place for place in recorded if place[0].topic == topic)
        # The row of each place that has one, or else the row of the message that it repeats.
        newest = max((known.number for known in catalog.generations([topic]).get(topic, ())), default=0)
        found_at: dict[Place, Row | None] = {}
        for log, copy in catalog.duplicates(topic):
            place = (TopicPartition(topic, log.partition), copy.offset)
            if log.generation == newest and place in recorded:
                found_at[place] = catalog.find(copy.uuid)
        for row in catalog.rows(topic):
            if row.generation == newest and row.partition is not None and row.offset is not None:
                place = (TopicPartition(topic, row.partition), row.offset)
                if place in recorded:
                    found_at[place] = row
        standing = {place: kept for place in places if (kept := found_at.get(place)) is not None}
        for at, offset in places:
            if (at, offset) not in standing:
                detail = f"what was sent to {at} at offset {offset} has no row"
                yield Finding(Kind.NOT_ARCHIVED, topic, detail)
        fetched = fetch_documents(verification.store, standing.values(), of_one=OR_FROZEN)
        for place, found in zip(list(standing), fetched, strict=True):
            verification.checked.counts["messages"] += 1
            if found.problems:
                if finding := wrong(verification, found):
                    yield finding
            elif found.document is not None:
                differences = sent_received(recorded[place], found.document.message)
                # A message that repeats another may have another timestamp.
                unlike = [str(d) for d in differences if d.field in ("key", "value", "headers")]
                if unlike:
                    detail = f"not as it was sent: {'; '.join(unlike)}"
                    yield of_document(found.row, Kind.CORRUPT_OBJECT, detail)
