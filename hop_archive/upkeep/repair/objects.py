"""Mending of objects and rows that do not agree: good bytes are found, and rows made to name them.

Nothing is overwritten. Good bytes go under a key that is free, durably; then rows are made to name them, in one
transaction and only where they stand as they were seen; then what is damaged is moved aside, never just deleted. A
crash in between leaves at worst an object that no row names.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hop_archive.catalog.records import Correction, Row
from hop_archive.errors import CorruptError, ObjectMissingError
from hop_archive.model.document import Document, encode
from hop_archive.model.findings import Finding
from hop_archive.model.keys import first_key, object_key, slice_of, topic_of, uuid_of
from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive.model.wording import counted
from hop_archive.read.check import check, extent_of
from hop_archive.store.free_keys import create_free
from hop_archive.store.protocol import Created, NewObject, Store
from hop_archive.upkeep.repair.evidence import corrected, document_at, documents_in, proven
from hop_archive.upkeep.repair.plan import GoneError, NotMendedError, Repair, RepairPlan, quarantine, whole
from hop_archive.upkeep.repair.upstream import runs


class _Good(NamedTuple):
    """A row as it ought to be, and the bytes of its document; None: they stand where the row says."""

    was: Row
    now: Row
    body: bytes | None
    origin: str


def plan_object(repair: Repair, finding: Finding) -> RepairPlan:
    """How to mend what rows and an object say differently of a document.

    Raises:
        GoneError: They agree by now.
        NotMendedError: Nothing vouches for what it ought to be.
    """
    key = finding.object_key
    if not key:
        raise NotMendedError("Kafka and the archive hold different messages there: a person decides")
    if repair.backup is not None and finding.bucket == repair.backup.bucket != repair.store.bucket:
        return _plan_backup(repair, repair.backup, finding)
    rows = _rows_naming(repair, finding)
    if not rows:
        raise GoneError
    body = whole(repair.store, key)
    bad = [row for row in rows if not _is_sound(row, body)]
    if not bad or (finding.slice is not None and finding.uuid not in {row.uuid for row in bad}):
        raise GoneError
    good = _good_ones(repair, bad, body)
    if not good and repair.catalog.suppressed([row.uuid for row in bad]):
        raise NotMendedError(
            "its content was suppressed, and what was left of it is not to be had: suppress it again"
        )
    if not good:
        asked = ["the store itself"]
        asked += ["the backup"] if repair.backup is not None else []
        asked += ["Kafka"] if repair.upstream.is_asked else []
        bad_documents = counted(len(bad), "document is", "documents are")
        raise NotMendedError(f"{bad_documents} good in none of: {', '.join(asked)}")
    left = len(bad) - len(good)
    what = "row corrected by" if all(one.body is None for one in good) else "document put back from"
    how = f"{what} {', '.join(sorted({one.origin for one in good}))}"
    if len(good) > 1:
        how = f"{len(good)} times: {how}"
    rest = f"; {left} more are good nowhere" if left else ""

    def do() -> str:
        done = _mend(repair, key, rows, bad, good, body, how)
        if left:
            raise NotMendedError(f"{done}{rest}")
        return done

    return RepairPlan(f"{how}{rest}", do)


# --- what there is


def _rows_naming(repair: Repair, finding: Finding) -> list[Row]:
    """The rows that name an object; holds the rows of one segment."""
    key, where = finding.object_key, slice_of(finding.object_key)
    found: dict[object, Row] = {}
    if where is not None and where.topic in repair.catalog.topics():
        standing = repair.catalog.select(Query((where.topic,), places=(where,)))
        found = {row.uuid: row for row in standing if row.object_key == key}
    for message_uuid in (finding.uuid, uuid_of(key)):
        row = None if message_uuid is None else repair.catalog.find(message_uuid)
        if row is not None and row.object_key == key:
            found[row.uuid] = row
    return sorted(found.values(), key=lambda row: (row.position or 0, row.offset or 0))


def _cut(row: Row, body: bytes | None) -> bytes | None:
    """The bytes that a row says its document is, out of those of its object."""
    if body is None or row.position is None:
        return body
    end = row.position + row.size_bytes
    return body[row.position : end] if end <= len(body) else None


def _is_sound(row: Row, body: bytes | None) -> bool:
    found = _cut(row, body)
    return found is not None and not check(row, found)[1]


# --- what ought to be


def _good_ones(repair: Repair, bad: Sequence[Row], body: bytes | None) -> list[_Good]:
    """For as many as possible of the rows, what they ought to be, from where most is vouched for."""
    found: dict[Row, _Good] = {}
    hidden = repair.catalog.suppressed([row.uuid for row in bad])
    for look in (_in_itself, _elsewhere, _in_backup, _in_kafka):
        left = [row for row in bad if row not in found]
        for good in look(repair, left, body) if left else ():
            if good.was.uuid in hidden:  # what was suppressed may come back only as what was left of it
                held = good.body if good.body is not None else _cut(good.now, body)
                document = None if held is None else proven(held)
                if document is None or document.message.value is not None:
                    continue
            found[good.was] = good
    return [found[row] for row in bad if row in found]


def _in_itself(_: Repair, rows: Sequence[Row], body: bytes | None) -> Iterator[_Good]:
    """It is the row that is wrong, and its document says in what."""
    for row in rows:
        held = body if row.position is None else document_at(body or b"", row.position)
        for candidate in (held, _cut(row, body)):
            now = None if candidate is None else corrected(row, candidate)
            if now is not None:
                yield _Good(row, now, None, "its document")
                break


def _elsewhere(repair: Repair, rows: Sequence[Row], _: bytes | None) -> Iterator[_Good]:
    """It is the key in the row that is wrong: the document stands where it ought to."""
    store = repair.store
    for row in rows:
        keys: Iterator[str] = iter(())
        where, place = slice_of(row.object_key), row.slice
        if row.position is None:
            stem = object_key(row.topic, row.timestamp_ms, row.uuid).removesuffix("bson")
            keys = (info.key for info in store.listing(stem) if info.key != row.object_key)
        elif where is None or not _holds(where, place):
            listing = store.listing(f"segments/{row.topic}/{row.generation}/{row.partition}/")
            keys = (info.key for info in listing if _holds(slice_of(info.key), place))
        for key in keys:
            now = row._replace(object_key=key, bucket=store.bucket)
            try:
                (found,) = store.fetch([extent_of(now)])
            except (ObjectMissingError, CorruptError):
                continue
            if not check(now, found)[1]:
                yield _Good(row, now, None, f"object {key}")
                break


def _holds(segment: Slice | None, place: Slice | None) -> bool:
    return (
        segment is not None
        and place is not None
        and segment.partition_log == place.partition_log
        and segment.start <= place.start < segment.stop
    )


def _in_backup(repair: Repair, rows: Sequence[Row], _: bytes | None) -> Iterator[_Good]:
    if repair.backup is None:
        return
    for key, some in itertools.groupby(rows, key=lambda row: row.object_key):
        copy = whole(repair.backup, key)
        for row in some:
            if _is_sound(row, copy):
                yield _Good(row, row, _cut(row, copy), "the backup")


def _in_kafka(repair: Repair, rows: Sequence[Row], _: bytes | None) -> Iterator[_Good]:
    """Encoded anew: the same message always makes the same bytes."""
    by_place = {row.slice: row for row in rows if row.slice is not None}
    offsets: dict[PartitionLog, list[int]] = {}
    for place in by_place:
        offsets.setdefault(place.partition_log, []).append(place.start)
    held = [
        part
        for log, some in sorted(offsets.items())
        for run in log.slices(runs(some))
        for part in log.slices(repair.upstream.held(run))
    ]
    for reading in repair.upstream.readings(held):
        for message in reading.messages:
            row = by_place.get(reading.slice.within(message.offset, message.offset + 1))
            if row is None or row.digest is None:
                continue
            document = Document(
                message, row.uuid, row.is_client_uuid, row.digest, row.message_crc32, row.annotations
            )
            body = encode(document)
            if not check(row, body)[1]:  # else it is another message by now
                yield _Good(row, row, body, "Kafka")


# --- doing it


def _mend(
    repair: Repair,
    key: str,
    rows: Sequence[Row],
    bad: Sequence[Row],
    good: Sequence[_Good],
    body: bytes | None,
    how: str,
) -> str:
    corrections = [Correction(one.was, one.now) for one in good if one.body is None]
    bodies = {one.was: one.body for one in good if one.body is not None}
    if not bodies:
        repair.catalog.correct_rows(corrections)
        return how
    # What is sound of a segment moves along, so that the damaged one can be put aside whole.
    moving = [row for row in rows if row in bodies or (row not in bad and row.position is not None)]
    held = {row: bodies.get(row) or _cut(row, body) or b"" for row in moving}
    made, positions = _end_to_end(held, body, {row.position for row in rows})
    first = moving[0]
    if topic_of(first.object_key) is not None:
        ought = first_key(first.object_key)
    else:
        ought = object_key(first.topic, first.timestamp_ms, first.uuid)
    (taken,) = create_free(repair.store, [NewObject(ought, made)])
    for row in moving:
        now = row._replace(object_key=taken, bucket=repair.store.bucket, position=positions[row])
        corrections += [Correction(row, now)] if now != row else []
    repair.catalog.correct_rows(corrections)
    unnamed = len(moving) + len([one for one in good if one.body is None and one.now.object_key != key])
    if body is None or taken == key or unnamed < len(rows):
        return how
    try:
        return f"{how}; {quarantine(repair.store, key)}"
    except NotMendedError as error:
        return f"{how}; {error}"


def _end_to_end(
    held: dict[Row, bytes], body: bytes | None, named: set[int | None]
) -> tuple[bytes, dict[Row, int | None]]:
    """Documents end to end, in the order in which they stood, and where each is; those that no row names among them."""
    if all(row.position is None for row in held):
        ((row, alone),) = held.items()
        return alone, {row: None}
    parts: list[tuple[int, Row | None, bytes]] = [
        (row.position or 0, row, part) for row, part in held.items()
    ]
    parts += [
        (position, None, part)
        for position, part in documents_in(body or b"")
        if position not in named and proven(part) is not None
    ]
    joined, positions = bytearray(), dict[Row, int | None]()
    for _, named_by, part in sorted(parts, key=lambda part: part[0]):
        if named_by is not None:
            positions[named_by] = len(joined)
        joined += part
    return bytes(joined), positions


def _plan_backup(repair: Repair, backup: Store, finding: Finding) -> RepairPlan:
    key = finding.object_key
    rows = _rows_naming(repair, finding)
    copy, body = whole(backup, key), whole(repair.store, key)
    if not rows or (copy is not None and all(_is_sound(row, copy) for row in rows)):
        raise GoneError
    if body is None or not all(_is_sound(row, body) for row in rows):
        raise NotMendedError("the store's own object and its rows do not agree: that is mended first")
    if copy is not None:
        raise NotMendedError(
            "other bytes stand there in the backup, and nothing is overwritten: a person decides"
        )
    sound = NewObject(key, body)

    def do() -> str:
        (outcome,) = backup.create([sound])
        if outcome is Created.OTHER:
            raise NotMendedError("other bytes came to stand there in the backup meanwhile")
        return "copied to the backup"

    return RepairPlan("copied from the store to the backup", do)
