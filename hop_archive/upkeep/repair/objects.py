"""Mending of objects and rows that do not agree: good bytes are found, and rows made to name them.

Nothing is overwritten. Good bytes go under a key that is free, durably; then rows are made to name them, in one
transaction and only where they stand as they were seen; then what is damaged is moved aside, never just deleted. A
crash in between leaves at worst an object that no row names.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hop_archive.catalog.records import Correction, DocumentPlace, Row
from hop_archive.errors import CorruptError, ObjectMissingError
from hop_archive.ingest.placing import PlacedDocuments, segment
from hop_archive.model.document import encode
from hop_archive.model.findings import Finding
from hop_archive.model.keys import first_key, object_key, slice_of, topic_of, uuid_of
from hop_archive.model.query import Query
from hop_archive.model.slices import Slice, offsets_by_log
from hop_archive.model.wording import counted
from hop_archive.read.check import check, extent_of
from hop_archive.read.contents import ObjectContents
from hop_archive.store.free_keys import create_free
from hop_archive.store.protocol import Created, NewObject, Store
from hop_archive.upkeep.repair.evidence import (
    corrected,
    document_of,
    encoded_anew,
    proven,
)
from hop_archive.upkeep.repair.plan import GoneError, NotMendedError, Repair, RepairPlan, contents, quarantine


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
    held = contents(repair.store, key)
    bad = [row for row in rows if not _is_sound(row, held)]
    if not bad or (finding.slice is not None and finding.uuid not in {row.uuid for row in bad}):
        raise GoneError
    good = _good_ones(repair, bad, held)
    if not good and repair.catalog.suppressed([row.uuid for row in bad]):
        raise NotMendedError(
            "its content was suppressed, and what was left of it is not to be had: suppress it again"
        )
    if not good:
        asked = ["the store itself"]
        asked += ["the backup"] if repair.backup is not None else []
        asked += ["Kafka"] if repair.upstream.is_asked else []
        bad_documents = counted(len(bad), "document is", "documents are")
        raise NotMendedError(
            f"{bad_documents} good in none of: {', '.join(asked)}; see hop-archive inspect, then findings --accept"
        )
    left = len(bad) - len(good)
    what = "row corrected by" if all(one.body is None for one in good) else "document put back from"
    how = f"{what} {', '.join(sorted({one.origin for one in good}))}"
    if len(good) > 1:
        how = f"{len(good)} times: {how}"
    rest = f"; {left} more are good nowhere" if left else ""

    def do() -> str:
        done = _mend(repair, key, rows, bad, good, held, how)
        if left:
            raise NotMendedError(f"{done}{rest}")
        return done

    return RepairPlan(f"{how}{rest}", do)


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
    return sorted(found.values(), key=lambda row: (*row.place_in_object, row.offset or 0))


def _cut(row: Row, held: ObjectContents | None) -> bytes | None:
    """The bytes that a row says its document is, out of those of its object."""
    return None if held is None else held.at(row)


def _is_sound(row: Row, held: ObjectContents | None) -> bool:
    found = _cut(row, held)
    return found is not None and not check(row, found)[1]


def _good_ones(repair: Repair, bad: Sequence[Row], held: ObjectContents | None) -> list[_Good]:
    """For as many as possible of the rows, what they ought to be, from where most is vouched for."""
    found: dict[Row, _Good] = {}
    hidden = repair.catalog.suppressed([row.uuid for row in bad])
    for look in (_in_itself, _elsewhere, _in_segments, _in_backup, _in_kafka):
        left = [row for row in bad if row not in found]
        for good in look(repair, left, held) if left else ():
            if good.was.uuid in hidden:  # what was suppressed may come back only as what was left of it
                part = good.body if good.body is not None else _cut(good.now, held)
                document = None if part is None else proven(part)
                if document is None or document.message.value is not None:
                    continue
            found[good.was] = good
    return [found[row] for row in bad if row in found]


def _in_itself(_: Repair, rows: Sequence[Row], held: ObjectContents | None) -> Iterator[_Good]:
    """It is the row that is wrong, and its document says in what; or another archiver's document took its document's place."""
    misplaced: dict[uuid.UUID, Row] = {}
    for row in rows:
        begun = None if held is None else held.beginning_at(row)
        for candidate in (begun, _cut(row, held)):
            now = None if candidate is None else corrected(row, candidate)
            if now is not None:
                yield _Good(row, now, None, "its document")
                break
        else:
            if begun is not None and (anew := encoded_anew(row, begun)) is not None:
                yield _Good(row, row, anew, "another document of it, which stood in its place")
            else:
                misplaced[row.uuid] = row
    if held is None or not misplaced:
        return
    for at, part in held.documents():  # it is the place in the row that is wrong
        document = proven(part)
        if document is None or document.uuid not in misplaced:
            continue
        row = misplaced[document.uuid]
        now = row._replace(position=at.position, frame=at.frame, frame_size=at.frame_size)
        if not check(now, part)[1]:
            yield _Good(
                misplaced.pop(document.uuid), now, None, "its document, which stands elsewhere in the object"
            )


def _elsewhere(repair: Repair, rows: Sequence[Row], _: ObjectContents | None) -> Iterator[_Good]:
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


def _in_segments(repair: Repair, rows: Sequence[Row], held: ObjectContents | None) -> Iterator[_Good]:
    """The object is gone, and a segment has its document: it was moved there, which the catalog knows no more, or not yet.

    As where a catalog was put back to before its small objects were put together.
    """
    left = {row.uuid: row for row in rows if held is None and row.slice is not None}
    for at in sorted({row.slice.partition_log for row in left.values() if row.slice is not None}):
        for info in repair.store.listing("segments/{}/{}/{}/".format(*at)):
            where = slice_of(info.key)
            asked = [row for row in left.values() if _holds(where, row.slice)]
            if not asked or repair.catalog.pending_keys(repair.store.bucket, [info.key]):
                continue
            found = contents(repair.store, info.key)
            for place, part in found.documents() if found is not None else ():
                document = proven(part)
                if document is None or document.uuid not in left:
                    continue
                row = left[document.uuid]
                now = row._replace(bucket=repair.store.bucket, **place._asdict())
                if not check(now, part)[1]:
                    yield _Good(left.pop(document.uuid), now, None, f"segment {info.key}")


def _holds(segment: Slice | None, place: Slice | None) -> bool:
    return (
        segment is not None
        and place is not None
        and segment.partition_log == place.partition_log
        and segment.start <= place.start < segment.stop
    )


def _in_backup(repair: Repair, rows: Sequence[Row], _: ObjectContents | None) -> Iterator[_Good]:
    if repair.backup is None:
        return
    for key, some in itertools.groupby(rows, key=lambda row: row.object_key):
        copy = contents(repair.backup, key)
        for row in some:
            if _is_sound(row, copy):
                yield _Good(row, row, _cut(row, copy), "the backup")


def _in_kafka(repair: Repair, rows: Sequence[Row], _: ObjectContents | None) -> Iterator[_Good]:
    """Encoded anew: the same message always makes the same bytes."""
    by_place = {row.slice: row for row in rows if row.slice is not None}
    held = [
        part
        for log, offsets in offsets_by_log(by_place).items()
        for run in log.slices(offsets)
        for part in log.slices(repair.upstream.held(run))
    ]
    for reading in repair.upstream.readings(held):
        for message in reading.messages:
            row = by_place.get(reading.slice.within(message.offset, message.offset + 1))
            if row is None or row.digest is None:
                continue
            body = encode(document_of(row, message))
            if not check(row, body)[1]:  # else it is another message by now
                yield _Good(row, row, body, "Kafka")


def _mend(
    repair: Repair,
    key: str,
    rows: Sequence[Row],
    bad: Sequence[Row],
    good: Sequence[_Good],
    held: ObjectContents | None,
    how: str,
) -> str:
    corrections = [Correction(one.was, one.now) for one in good if one.body is None]
    bodies = {one.was: one.body for one in good if one.body is not None}
    if not bodies:
        repair.catalog.correct_rows(corrections)
        return how
    # What is sound of a segment moves along, so that the damaged one can be put aside whole.
    moving = [row for row in rows if row in bodies or (row not in bad and row.position is not None)]
    parts: list[tuple[tuple[int, int], Row | None, bytes]] = [
        (row.place_in_object, row, bodies.get(row) or _cut(row, held) or b"") for row in moving
    ]
    first, is_segment = moving[0], any(row.position is not None for row in moving)
    if is_segment:  # so do documents that no row names, in the order in which they stood
        named = {row.document_place for row in rows} | {
            one.now.document_place for one in good if one.body is None
        }
        standing = held.documents() if held is not None else ()
        parts += [
            ((at.frame or 0, at.position or 0), None, part)
            for at, part in standing
            if at not in named and proven(part) is not None
        ]
        parts.sort(key=lambda part: part[0])
    else:
        (first,) = moving  # a whole object is one row's
    if topic_of(first.object_key) is not None:
        ought = first_key(first.object_key)
    else:
        ought = object_key(first.topic, first.timestamp_ms, first.uuid)
    made = [part for _, _, part in parts]
    if is_segment:
        placed = segment(ought, made)
    else:
        placed = PlacedDocuments([DocumentPlace(ought)], (NewObject(ought, made[0]),))
    (taken,) = create_free(repair.store, placed.objects)
    for (_, row, _), at in zip(parts, placed.places, strict=True):
        if row is None:
            continue
        now = row._replace(
            object_key=taken,
            bucket=repair.store.bucket,
            position=at.position,
            frame=at.frame,
            frame_size=at.frame_size,
        )
        corrections += [Correction(row, now)] if now != row else []
    repair.catalog.correct_rows(corrections)
    unnamed = len(moving) + len([one for one in good if one.body is None and one.now.object_key != key])
    if held is None or taken == key or unnamed < len(rows):
        return how
    try:
        return f"{how}; {quarantine(repair.store, key)}"
    except NotMendedError as error:
        return f"{how}; {error}"


def _plan_backup(repair: Repair, backup: Store, finding: Finding) -> RepairPlan:
    key = finding.object_key
    rows = _rows_naming(repair, finding)
    copy, held = contents(backup, key), contents(repair.store, key)
    if not rows or (copy is not None and all(_is_sound(row, copy) for row in rows)):
        raise GoneError
    if held is None or not all(_is_sound(row, held) for row in rows):
        raise NotMendedError("the store's own object and its rows do not agree: that is mended first")
    if copy is not None:
        raise NotMendedError(
            "other bytes stand there in the backup, and nothing is overwritten: a person decides"
        )
    sound = NewObject(key, held.body)

    def do() -> str:
        if backup.create([sound]) == [Created.OTHER]:
            raise NotMendedError("other bytes came to stand there in the backup meanwhile")
        return "copied to the backup"

    return RepairPlan("copied from the store to the backup", do)
