"""Mending of objects that no row names."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import GONE, Batch, Correction, DocumentPlace, Row
from hop_archive.errors import CorruptError
from hop_archive.ingest.write import row_of
from hop_archive.model.document import Document, decode, encode
from hop_archive.model.findings import Finding
from hop_archive.model.identity import Identity, Known, digest, same_message
from hop_archive.model.keys import slice_of, uuid_of
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.wording import counted
from hop_archive.read.check import check
from hop_archive.read.contents import ObjectContents
from hop_archive.upkeep.repair.evidence import fits, proven
from hop_archive.upkeep.repair.plan import GoneError, NotMendedError, Repair, RepairPlan, contents, quarantine

_REBUILD = "Stop archiving the topic, then hop-archive rebuild-catalog -T {topic} takes in what can be"
_NOTHING = b""
"""Of an offset at which nothing is archived."""


def plan_orphan(repair: Repair, finding: Finding) -> RepairPlan:
    """How to settle an object that no row names: its documents are catalogued where they are missing, or it is put aside.

    Raises:
        GoneError: It is not there any more, or a row names it.
        NotMendedError: An archiver may be about to name it; its generation cannot be told, or the catalog does not know it; or it
            alone may have a message, or has content that was suppressed.
    """
    key, catalog = finding.object_key, repair.catalog
    held = contents(repair.store, key)
    if held is None or _is_named(repair, held):
        raise GoneError
    if catalog.pending_keys(repair.store.bucket, [key]):
        raise NotMendedError("its delete is pending: run the command that removes it again, which deletes it")
    if (where := slice_of(key)) is not None:
        known = catalog.generations([where.topic]).get(where.topic, ())
        if where.generation not in {generation.number for generation in known}:
            raise NotMendedError(
                f"the catalog knows no generation {where.generation} of {where.topic}: it was begun anew, or put back to before "
                f"that. {_REBUILD.format(topic=where.topic)}"
            )
    documents = [(at, document) for at, document in documents_of(held) if fits(document, key)]
    if not documents:
        with contextlib.suppress(CorruptError):
            found = decode(held.body, uuid_of(key))
            if not found.digest:
                row = catalog.find(found.uuid)
                content = digest(found.message.key, found.message.headers, found.message.value)
                if row is not None and row.object_key != key and row.digest == content:
                    return _aside(
                        repair, key, "another archiver's document of a message that stands elsewhere"
                    )
                raise NotMendedError(
                    "another archiver wrote it, without a digest that could prove it: a person decides"
                )
        return _aside(repair, key, "it holds no document that proves itself and belongs under this key")
    hidden = catalog.suppressed([document.uuid for _, document in documents])
    # Suppressing looks where archiving leaves things, not in quarantine.
    if any(document.uuid in hidden and not document.suppressed for _, document in documents):
        raise NotMendedError("it holds content that was suppressed: suppress it again")
    rows = {document.uuid: catalog.find(document.uuid) for _, document in documents}
    missing = [(at, document) for at, document in documents if rows[document.uuid] is None]
    others = [
        (at, document)
        for at, document in documents
        if (row := rows[document.uuid]) is not None and not _is_of(row, document)
    ]
    if not missing:
        return _plan_known(repair, key, documents, others)
    counted_rows, uncovered, covered = _sorted_out(repair, missing)
    # Beside others, too: once rows name the object, nobody looks for these.
    _refuse_only_copies(repair, covered)
    _refuse_to_hide(repair, key, others)
    if counted_rows:
        how = f"{counted(len(counted_rows), 'row')} put back, which the ledger counts"

        def put_back() -> None:
            for row, place in counted_rows:
                catalog.put_back(Batch(place, rows=[row]))

        return RepairPlan(how, put_back)
    if uncovered:
        return _plan_catalogue(repair, uncovered)
    return _aside(repair, key, "its offsets are dealt with: copies, or left behind by a run that crashed")


def _plan_known(
    repair: Repair,
    key: str,
    documents: Sequence[tuple[DocumentPlace, Document]],
    others: Sequence[tuple[DocumentPlace, Document]],
) -> RepairPlan:
    """How to settle an object of whose documents all UUIDs have rows; ``others``: those whose rows are of other content."""
    catalog = repair.catalog
    # A run that hung may still commit rows that name it, unless the ledger covers its offsets, or its log is called gone:
    # then that is refused.
    open_logs = _not_dealt_with(repair, key, documents)
    # Of a topic that has another generation by now the log can be called gone.
    last = {
        topic: found[-1].number
        for topic, found in catalog.generations({log.topic for log in open_logs}).items()
        if found
    }
    seen = catalog.observed({log.topic for log in open_logs})
    over = {log for log in open_logs if log.generation < last.get(log.topic, 0) and log in seen}
    if open_logs - over:
        raise NotMendedError("its offsets are not dealt with yet: the next run of the archive settles them")
    _refuse_to_hide(repair, key, others)
    if corrections := _rows_of_gone_objects(repair, documents):
        how = f"{counted(len(corrections), 'row')} made to name it, for the objects that they name are gone"
        return RepairPlan(how, lambda: catalog.correct_rows(corrections))

    def close_and_quarantine() -> str:
        catalog.note_proven(dict.fromkeys(over, GONE))
        return f"{quarantine(repair.store, key)}: {why}"

    why = "rows name all of its messages elsewhere" if not others else "its offsets are dealt with"
    return RepairPlan(f"moved to quarantine: {why}", close_and_quarantine)


def plan_foreign(repair: Repair, finding: Finding) -> RepairPlan:
    """Nothing that mending could do: what is not the archive's is not the archive's to move.

    Raises:
        GoneError: It is not there any more.
        NotMendedError: It is.
    """
    if not any(info.key == finding.object_key for info in repair.store.listing(finding.object_key)):
        raise GoneError
    raise NotMendedError("it is not the archive's: whoever put it there may take it away, or accept it")


def documents_of(held: ObjectContents) -> Iterator[tuple[DocumentPlace, Document]]:
    """The documents in an object that prove themselves, with their places."""
    for at, part in held.documents():
        document = proven(part)
        if document is not None:
            yield at, document


def called_lost(catalog: Catalog, log: PartitionLog) -> OffsetSet:
    """Offsets of which the ledger says that what stood there is lost, or not known: an object that has it is the only one."""
    return OffsetSet.of(
        (entry.slice.start, entry.slice.stop)
        for entry in catalog.ledger([log.topic])
        if entry.slice.partition_log == log and not entry.is_settled
    )


def row_under(repair: Repair, at: DocumentPlace, document: Document, log: PartitionLog) -> tuple[Row, Slice]:
    """The row that a document that stands there makes in this log, and its offset."""
    row = row_of(log.generation, repair.store.bucket, document, encode(document), at)
    assert row.slice is not None
    return row, row.slice


def _is_named(repair: Repair, held: ObjectContents) -> bool:
    key, where = held.key, slice_of(held.key)
    if where is None:
        found = (repair.catalog.find(document.uuid) for _, document in documents_of(held))
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


def _not_dealt_with(
    repair: Repair, key: str, documents: Sequence[tuple[DocumentPlace, Document]]
) -> set[PartitionLog]:
    """The logs in which a run may still commit what an object holds: nothing covers the offset of a document in any of its."""
    found: set[PartitionLog] = set()
    for _, document in documents:
        coverage, offset = repair.catalog.coverage([document.message.topic]), document.message.offset
        logs = _possible_logs(repair, key, document)
        if not any(offset in coverage.get(log, EMPTY) for log in logs):
            found.update(logs)
    return found


def _is_of(row: Row, document: Document) -> bool:
    """Whether a row of the same UUID is of this document's message, and not of other content that came under it."""
    message = document.message
    about = (document.is_client_uuid, message.topic, message.timestamp_ms)
    identity = Identity(document.uuid, *about, document.digest, document.message_crc32)
    known = Known(row.uuid, row.topic, row.timestamp_ms, row.message_crc32, row.is_client_uuid, row.digest)
    return same_message(identity, known)


def _refuse_to_hide(repair: Repair, key: str, others: Sequence[tuple[DocumentPlace, Document]]) -> None:
    """Refuse to put aside a message that may be nowhere else, though there is a row of its UUID: that is of other content.

    Raises:
        NotMendedError: Nothing covers its offset, the ledger counts a message more there than there are rows, or what is
            archived there is something else.
    """
    for at, document in others:
        pairs = [row_under(repair, at, document, log) for log in _possible_logs(repair, key, document)]
        if (
            _not_dealt_with(repair, key, [(at, document)])
            or any(_is_counted(repair, place) for _, place in pairs)
            or any(_no_copies(repair, pairs))
        ):
            raise NotMendedError(
                f"it may be all that there is of a message whose UUID, {document.uuid}, other content has by now: a person decides"
            )


def _sorted_out(
    repair: Repair, missing: Sequence[tuple[DocumentPlace, Document]]
) -> tuple[list[tuple[Row, Slice]], list[tuple[Row, Slice]], list[tuple[Row, Slice]]]:
    """The rows that the ledger counts and that are not there, those of offsets that it does not cover, and of such as it does."""
    counted_rows: list[tuple[Row, Slice]] = []
    uncovered: list[tuple[Row, Slice]] = []
    covered: list[tuple[Row, Slice]] = []
    coverage = repair.catalog.coverage([missing[0][1].message.topic])
    for at, document in missing:
        made = [
            row_under(repair, at, document, log) for log in _possible_logs(repair, at.object_key, document)
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
        covered += dealt if not here else []
    return counted_rows, uncovered, covered


def _refuse_only_copies(repair: Repair, covered: Sequence[tuple[Row, Slice]]) -> None:
    """Refuse what is no copy of what is archived of its offset, but something else, or called lost: no other object may have it.

    Raises:
        NotMendedError: There is such a document; the first is named.
    """
    for place, why in _no_copies(repair, covered):
        raise NotMendedError(
            f"it holds a message that no row has, at offset {place.start} of {place.partition_log}, {why}. "
            f"{_REBUILD.format(topic=place.topic)}"
        )


def _no_copies(repair: Repair, covered: Sequence[tuple[Row, Slice]]) -> Iterator[tuple[Slice, str]]:
    """The places of documents that are no copies of what is archived there, each with what is.

    Args:
        repair: Where.
        covered: What rows of documents would be in each log to which these may belong, all of which the ledger covers.
    """
    logs = {place.partition_log for _, place in covered}
    digests = {
        log: _digests(repair, [place for _, place in covered if place.partition_log == log]) for log in logs
    }
    lost = {log: called_lost(repair.catalog, log) for log in logs}
    for _, some in itertools.groupby(covered, key=lambda pair: pair[0].uuid):
        places = [
            (row, place, digests[place.partition_log].get(place.start, _NOTHING)) for row, place in some
        ]
        if any(held in (None, row.digest) for row, _, held in places):
            continue  # a copy
        for _, place, held in places:
            if held != _NOTHING:
                yield (
                    place,
                    "where a row has another: of a catalog that was lost and begun anew, or of a log that lost its end",
                )
            elif place.start in lost[place.partition_log]:
                yield place, "which the ledger calls lost"


def _digests(repair: Repair, places: Sequence[Slice]) -> dict[int, bytes | None]:
    """The digest of what is archived, or repeated, at each offset from the first to the last of these of one log."""
    whole = places[0].within(min(place.start for place in places), max(place.stop for place in places))
    found = {
        row.offset: row.digest
        for row in repair.catalog.select(Query((whole.topic,), places=(whole,)))
        if row.offset is not None
    }
    for copy in repair.catalog.duplicates_in(whole, len(whole)):
        if (row := repair.catalog.find(copy.uuid)) is not None:
            found[copy.offset] = row.digest
    return found


def _rows_of_gone_objects(
    repair: Repair, documents: Sequence[tuple[DocumentPlace, Document]]
) -> list[Correction]:
    """Rows of these documents that name an object which is not there: a catalog that was put back to before they were moved."""
    catalog, store = repair.catalog, repair.store
    is_there: dict[str, bool] = {}
    corrections: list[Correction] = []
    for at, document in documents:
        row = catalog.find(document.uuid)
        if row is None:
            continue
        if row.object_key not in is_there:
            listed = next(iter(store.listing(row.object_key)), None)
            is_there[row.object_key] = listed is not None and listed.key == row.object_key
        now = row._replace(bucket=store.bucket, **at._asdict())
        if not is_there[row.object_key] and not check(now, encode(document))[1]:
            corrections.append(Correction(row, now))
    return corrections


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

    def do() -> None:
        for row, place in new:
            repair.catalog.account(Batch(place, rows=[row], run_id=repair.run_id))

    return RepairPlan(how, do)
