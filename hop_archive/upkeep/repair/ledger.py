"""Mending of what rows, ledger and store do not account for: objects that no row names, holes, and wrong counts."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from hop_archive.archive import Archive
from hop_archive.catalog.records import Batch, Duplicate, Miscount, Outcome, Row
from hop_archive.errors import CorruptError, SliceTakenError, StaleDecisionError
from hop_archive.ingest.decide import decide
from hop_archive.ingest.read import Reading
from hop_archive.ingest.write import duplicate_of, prepare, row_of, write_objects
from hop_archive.model.document import Document, decode, encode
from hop_archive.model.findings import Finding
from hop_archive.model.identity import Identity
from hop_archive.model.keys import is_segment_key, slice_of
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.wording import counted
from hop_archive.store.protocol import ObjectInfo
from hop_archive.upkeep.repair.evidence import documents_in, fits, proven
from hop_archive.upkeep.repair.objects import GoneError, Means, NotMendedError, Planned, quarantine, whole
from hop_archive.upkeep.repair.upstream import runs

_WINDOW = 20_000
"""Offsets that are looked at together where rows are missing."""


# --- objects that no row names


def plan_orphan(means: Means, finding: Finding) -> Planned:
    """How to settle an object that no row names: its documents are catalogued where they are missing, or it is put aside.

    Raises:
        GoneError: It is not there any more, or a row names it.
        NotMendedError: An archiver may be about to name it, or it cannot be told to which life of its topic it belongs.
    """
    key = finding.object_key
    body = whole(means.store, key)
    if body is None or _is_named(means, key):
        raise GoneError
    if means.catalog.pending_keys(means.store.bucket, [key]):
        raise NotMendedError("its delete is pending: run the command that removes it again, which deletes it")
    documents = [(at, one) for at, one in _documents(key, body) if fits(one, key)]
    if not documents:
        _refuse_strangers(body)
        return _aside(means, key, "it holds no document that proves itself and belongs under this key")
    missing = [(at, one) for at, one in documents if _row_of(means, one) is None]
    if not missing:
        _refuse_unsettled(means, key, documents)
        return _aside(means, key, "rows name all of its messages elsewhere")
    return _plan_missing(means, key, missing)


def _refuse_strangers(body: bytes) -> None:
    with contextlib.suppress(CorruptError):
        if not decode(body).digest:
            raise NotMendedError(
                "another archiver wrote it, without a digest that could prove it: a person decides"
            )


def _documents(key: str, body: bytes) -> Iterator[tuple[int | None, Document]]:
    """The documents in an object that prove themselves, with their positions (None: it is the whole object)."""
    parts = documents_in(body) if is_segment_key(key) else ((None, body),)
    for position, one in parts:
        document = proven(one)
        if document is not None:
            yield position, document


def _is_named(means: Means, key: str) -> bool:
    where = slice_of(key)
    if where is None:
        documents = _documents(key, whole(means.store, key) or b"")
        return any(
            row is not None and row.object_key == key for row in (_row_of(means, d) for _, d in documents)
        )
    if where.topic not in means.catalog.topics():
        return False
    rows = means.catalog.select(Query((where.topic,), places=(where,)))
    return any(row.object_key == key for row in rows)


def _row_of(means: Means, document: Document) -> Row | None:
    return means.catalog.find(document.uuid)


def _aside(means: Means, key: str, why: str) -> Planned:
    return Planned(f"moved to quarantine: {why}", lambda: f"{quarantine(means.store, key)}: {why}")


def _refuse_unsettled(means: Means, key: str, documents: Sequence[tuple[int | None, Document]]) -> None:
    """A run that hung may still commit rows that name it, unless the ledger covers its offsets: then that is refused."""
    for _, one in documents:
        if not _covering(means, key, one):
            raise NotMendedError(
                "its offsets are not dealt with yet: the next run of the archive settles them"
            )


def _lineages(means: Means, key: str, document: Document) -> list[PartitionLog]:
    """The logs to which a document may belong: that of its segment, or one for each life of its topic."""
    where = slice_of(key)
    if where is not None:
        return [where.partition_log]
    topic = document.message.topic
    numbers = [one.number for one in means.catalog.generations([topic]).get(topic, ())]
    return [PartitionLog(topic, number, document.message.partition) for number in numbers]


def _covering(means: Means, key: str, document: Document) -> list[PartitionLog]:
    topic, offset = document.message.topic, document.message.offset
    coverage = means.catalog.coverage([topic])
    return [at for at in _lineages(means, key, document) if offset in coverage.get(at, EMPTY)]


def _plan_missing(means: Means, key: str, missing: Sequence[tuple[int | None, Document]]) -> Planned:
    """Documents that no row holds: put back where the ledger counts them, catalogued where nothing covers them."""
    hidden = means.catalog.suppressed([one.uuid for _, one in missing])
    if any(one.uuid in hidden and one.message.value is not None for _, one in missing):
        raise NotMendedError("it holds content that was suppressed: suppress it again")
    counted, uncovered = _sorted_out(means, key, missing)
    if counted:
        return _plan_put_back(means, counted)
    if uncovered:
        return _plan_catalogue(means, uncovered)
    return _aside(means, key, "its offsets are dealt with: copies, or left behind by a run that crashed")


def _sorted_out(
    means: Means, key: str, missing: Sequence[tuple[int | None, Document]]
) -> tuple[list[Row], list[Row]]:
    """The rows that the ledger counts and that are not there, and those of offsets that it does not cover."""
    counted: list[Row] = []
    uncovered: list[Row] = []
    coverage = means.catalog.coverage([missing[0][1].message.topic])
    for position, one in missing:
        made = [_made(means, key, position, one, at) for at in _lineages(means, key, one)]
        dealt = [row for row in made if _at(row).start in coverage.get(_at(row).partition_log, EMPTY)]
        here = [row for row in dealt if _is_counted(means, row)]
        if len(here) > 1 or (not here and len(dealt) < len(made) > 1):
            raise NotMendedError("its topic had several lives, and its key does not tell of which it is")
        counted += here
        uncovered += [row for row in made if row not in dealt] if not here else []
    return counted, uncovered


def _made(means: Means, key: str, position: int | None, document: Document, at: PartitionLog) -> Row:
    return row_of(at.generation, means.store.bucket, document, encode(document), (key, position))


def _at(row: Row) -> Slice:
    assert row.generation is not None
    assert row.partition is not None
    assert row.offset is not None
    return Slice(row.topic, row.generation, row.partition, row.offset, row.offset + 1)


def _is_counted(means: Means, row: Row) -> bool:
    """Whether the ledger counts a message more there than there are rows, and this may be it."""
    here = _at(row)
    if means.catalog.duplicates_in(here, 1):
        return False
    return any(
        one.what == "archived" and one.said > one.found and one.slice.start <= here.start < one.slice.stop
        for one in _miscounts(means, row.topic)
        if one.slice is not None and one.slice.partition_log == here.partition_log
    )


def _miscounts(means: Means, topic: str) -> Sequence[Miscount]:
    """As they were when the topic's first orphan was looked at: to count takes every row, and putting back looks again."""
    if topic not in means.counted:
        means.counted.clear()
        means.counted[topic] = means.catalog.miscounts(topic)
    return means.counted[topic]


def _plan_put_back(means: Means, rows: Sequence[Row]) -> Planned:
    how = f"{counted(len(rows), 'row')} put back, which the ledger counts"

    def deed() -> str:
        for row in rows:
            means.catalog.put_back(Batch(_at(row), rows=[row]))
        return how

    return Planned(how, deed)


def _plan_catalogue(means: Means, rows: Sequence[Row]) -> Planned:
    """Of offsets that nothing covers: only where Kafka has them no more, and it is certain whose they are."""
    if not means.upstream.is_asked:
        raise NotMendedError("whether Kafka still holds its offsets is not known: name the source")
    if any(means.upstream.held(_at(row)) for row in rows):
        raise NotMendedError(
            "Kafka still holds its offsets: the next run of the archive names it, or a copy of it"
        )
    known = {one.uuid for one in means.catalog.known([_identity(row) for row in rows])}
    new = [row for row in rows if row.uuid not in known]
    how = f"{counted(len(new), 'message')} catalogued, which Kafka holds no more"

    def deed() -> str:
        for row in new:
            means.catalog.account(Batch(_at(row), rows=[row], run_id=means.run_id))
        return how

    return Planned(how, deed)


def _identity(row: Row) -> Identity:
    return Identity(
        row.uuid, row.is_client_uuid, row.topic, row.timestamp_ms, row.digest or b"", row.message_crc32
    )


# --- holes in the coverage


def plan_hole(means: Means, finding: Finding) -> Planned:
    """How to cover offsets that have rows and no ledger row: by the rows, and by what Kafka still delivers.

    Raises:
        GoneError: The ledger covers them by now.
        NotMendedError: No row stands there: the next run deals with them; or the source is not to be asked.
    """
    where = finding.slice
    assert where is not None
    left = where.offsets - means.catalog.coverage([where.topic]).get(where.partition_log, EMPTY)
    if not left:
        raise GoneError
    if not _has_any(means, where):
        raise NotMendedError(
            "no row stands there: the next run of the archive reads it, or records it as lost"
        )
    if not means.upstream.is_asked:
        raise NotMendedError("whether Kafka still holds these offsets is not known: name the source")
    how = f"ledger row made anew of {counted(left.size, 'offset')}, from the rows that stand there"
    return Planned(how, lambda: "; ".join(_cover(means, one) for one in where.partition_log.slices(left)))


def _cover(means: Means, where: Slice) -> str:
    held = means.upstream.held(where)
    read = covered = 0
    for reading in means.upstream.readings(where.partition_log.slices(held)):
        batch = _missing_of(means, reading)
        means.catalog.account(replace(batch, run_id=means.run_id))
        read, covered = read + len(batch.offsets), covered + len(reading.slice)
    told = f"{where}: {counted(covered, 'offset')} read again, {counted(read, 'missing message')} among them"
    for part in where.partition_log.slices(where.offsets - held):
        means.catalog.account(Batch(part, run_id=means.run_id))
        entry = next(e for e in means.catalog.ledger([where.topic]) if e.slice == part)
        told += f"; of {len(part)} that Kafka holds no more {entry.absent} count as absent, and may be lost"
    return told


def _has_any(means: Means, where: Slice) -> bool:
    return bool(_standing(means, where, limit=1))


def _standing(means: Means, where: Slice, limit: int | None = None) -> set[int]:
    """The offsets of a slice that have a row, or are recorded as duplicates."""
    most = len(where) if limit is None else limit
    found = {one.offset for one in means.catalog.duplicates_in(where, most)}
    if where.topic in means.catalog.topics():
        rows = means.catalog.select(Query((where.topic,), places=(where,), limit=limit))
        found |= {row.offset for row in rows if row.offset is not None}
    return found


def _missing_of(means: Means, reading: Reading) -> Batch:
    """What of a reading has neither row nor duplicate: its objects are created, its rows are yet to be added."""
    standing = _standing(means, reading.slice)
    messages = tuple(m for m in reading.messages if m.offset not in standing)
    if not messages:
        return Batch(reading.slice)
    archive = _archive(means)
    hidden = means.catalog.suppressed(
        [one.identity.uuid for one in decide(messages, means.catalog, means.store)]
    )
    if hidden:
        raise NotMendedError(
            "a message of it was suppressed, and Kafka still holds its content: suppress it again"
        )
    size_bytes = sum(message.size_bytes for message in messages)
    (prepared,) = prepare(archive, [Reading(reading.slice, messages, size_bytes=size_bytes)])
    (stored,) = write_objects(archive, [prepared])
    return stored.batch


def _archive(means: Means) -> Archive:
    archive = means.upstream.archive
    assert archive is not None
    return archive


# --- counts


def plan_count(means: Means, finding: Finding) -> Planned:
    """How to make a count right: the missing are put back, and only what is more than was counted is counted anew.

    Raises:
        GoneError: It is right by now.
    """
    found = [one for one in means.catalog.miscounts(finding.topic) if one.slice == finding.slice]
    if not found:
        raise GoneError
    where = finding.slice
    if where is None:
        return Planned("summary counted anew", lambda: _recount_summary(means, finding.topic))
    short = sum(max(0, one.said - one.found) for one in found)
    if short == 0:
        return Planned("ledger row counted anew", lambda: _recount(means, where))
    how = f"{short} that the ledger counts looked for in segments and in Kafka, and put back"
    return Planned(how, lambda: _put_back_all(means, where, found))


def _recount_summary(means: Means, topic: str) -> str:
    means.catalog.recount_summary(topic)
    return "summary counted anew"


def _recount(means: Means, where: Slice) -> str:
    means.catalog.recount_ledger(where)
    return "ledger row counted anew"


def _put_back_all(means: Means, where: Slice, found: Collection[Miscount]) -> str:
    """Look for what is missing, window by window, until all is there that the ledger counts."""
    short = sum(max(0, one.said - one.found) for one in found)
    back = 0
    segments = sorted(_segments(means, where), key=lambda pair: pair[0].start)
    for start in range(where.start, where.stop, _WINDOW):
        window = where.within(start, min(where.stop, start + _WINDOW))
        missing = window.offsets - runs(_standing(means, window))
        if missing and back < short:
            back += _from_segments(means, window, missing, segments)
            missing -= runs(_standing(means, window))
        if missing and back < short:
            back += _from_kafka(means, window, missing)
    told = f"{counted(back, 'row or duplicate', 'rows and duplicates')} put back"
    if back < short:
        raise NotMendedError(
            f"{told}; {short - back} that the ledger counts are neither in the store nor in Kafka"
        )
    return told


def _segments(means: Means, where: Slice) -> Iterator[tuple[Slice, ObjectInfo]]:
    for info in means.store.listing(f"segments/{where.topic}/{where.generation}/{where.partition}/"):
        at = slice_of(info.key)
        if at is not None and at.start < where.stop and where.start < at.stop:
            yield at, info


def _from_segments(
    means: Means, window: Slice, missing: OffsetSet, segments: Sequence[tuple[Slice, ObjectInfo]]
) -> int:
    """Put back the rows of documents that stand in segments, and that no row names."""
    back = 0
    for at, info in segments:
        if not at.offsets & missing:
            continue
        body = whole(means.store, info.key) or b""
        for position, one in _documents(info.key, body):
            if one.message.offset in missing and fits(one, info.key) and _row_of(means, one) is None:
                row = _made(means, info.key, position, one, window.partition_log)
                back += _put_back(means, Batch(window, rows=[row]))
    return back


def _from_kafka(means: Means, window: Slice, missing: OffsetSet) -> int:
    """Put back what Kafka still delivers: its objects are created anew, or found where they stand."""
    held = [
        s
        for hole in window.partition_log.slices(missing)
        for s in window.partition_log.slices(means.upstream.held(hole))
    ]
    return sum(_put_back(means, _missing_of(means, reading)) for reading in means.upstream.readings(held))


def _put_back(means: Means, batch: Batch) -> int:
    if not batch.offsets:
        return 0
    try:
        means.catalog.put_back(batch)
    except (StaleDecisionError, SliceTakenError):
        return 0  # another one was first, or the ledger does not count it: an absent offset may be delivered later
    return len(batch.offsets)


def plan_unarchived(means: Means, finding: Finding) -> Planned:
    """How to record a copy that the ledger calls absent; whatever it does not cover, archiving reads.

    A catalog that was rebuilt from the store alone lacks such copies: no document shows them.

    Raises:
        GoneError: The ledger covers it by now.
        NotMendedError: It does not, or it is no copy.
    """
    where = finding.slice
    assert where is not None
    if finding.uuid is not None:  # a message that Kafka was seen to deliver
        if _has_any(means, where):
            raise GoneError
        return _plan_copy(means, where)
    entries = [e for e in means.catalog.ledger([where.topic]) if e.slice.partition_log == where.partition_log]
    if not where.offsets - OffsetSet.of((e.slice.start, e.slice.stop) for e in entries):
        raise GoneError
    raise NotMendedError("the next run of the archive reads it (hop-archive run)")


def _plan_copy(means: Means, where: Slice) -> Planned:
    if not means.upstream.is_asked:
        raise NotMendedError("whether it is a copy of a message is not known: name the source")
    copy = _copy_in_kafka(means, where)
    if copy is None:
        raise NotMendedError(
            "the ledger says that nothing is there, and Kafka delivers a message that is no copy: a person decides"
        )
    how = f"recorded as a copy of {copy.uuid}, which it is by UUID and digest"

    def deed() -> str:
        means.catalog.record_copy(where.partition_log, copy)
        return how

    return Planned(how, deed)


def _copy_in_kafka(means: Means, where: Slice) -> Duplicate | None:
    """What Kafka delivers there, as a copy of a row; None where it delivers nothing, or something else.

    Raises:
        GoneError: Kafka holds the offset no more.
    """
    held = means.upstream.held(where)
    if not held:
        raise GoneError
    for reading in means.upstream.readings(where.partition_log.slices(held)):
        for decision in decide(reading.messages, means.catalog, means.store):
            if decision.duplicate_of is not None:
                return duplicate_of(decision)
    return None


def plan_lost(means: Means, finding: Finding) -> Planned:
    """Nothing brings back what retention took, unless the ledger says no more that it did.

    Raises:
        GoneError: The ledger does not say so any more.
        NotMendedError: It does.
    """
    where = finding.slice
    assert where is not None
    lost = [
        (e.slice.start, e.slice.stop)
        for e in means.catalog.ledger([where.topic])
        if e.slice.partition_log == where.partition_log and e.outcome is Outcome.LOST
    ]
    coverage = means.catalog.coverage([where.topic]).get(where.partition_log, EMPTY)
    if where.offsets & coverage and not where.offsets & OffsetSet.of(lost):
        raise GoneError
    raise NotMendedError(
        "Kafka removed it before it was archived: accept it, with the reason, once it is explained"
    )


def plan_foreign(means: Means, finding: Finding) -> Planned:
    """Nothing that mending could do: what is not the archive's is not the archive's to move.

    Raises:
        GoneError: It is not there any more.
        NotMendedError: It is.
    """
    if not any(info.key == finding.object_key for info in means.store.listing(finding.object_key)):
        raise GoneError
    raise NotMendedError("it is not the archive's: whoever put it there may take it away, or accept it")


def leave_truncation(means: Means, finding: Finding) -> Planned:
    """Nothing to mend: what the log held before and after is archived, each in its own generation.

    Raises:
        NotMendedError: Always.
    """
    raise NotMendedError(
        "Kafka lost messages that the archive has: look at the brokers, restore them if they are missed, and accept it"
    )


def leave_obstacle(means: Means, finding: Finding) -> Planned:
    """Nothing to mend in the archive: the run that gets past it closes it.

    Raises:
        NotMendedError: Always.
    """
    raise NotMendedError("the archive is not what is wrong: the next run that gets past it closes it")
