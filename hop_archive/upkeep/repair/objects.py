"""Mending of objects and rows that do not agree: good bytes are found, and rows made to name them.

Nothing is overwritten. Good bytes go under a key that is free, durably; then rows are made to name them, in one
transaction and only where they stand as they were seen; then what is damaged is moved aside, never just deleted. A
crash in between leaves at worst an object that no row names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Correction, Miscount, Row
from hop_archive.errors import CorruptError, ForbiddenError, ObjectMissingError
from hop_archive.model.document import Document, encode, object_key
from hop_archive.model.findings import Finding
from hop_archive.model.keys import OWN_FOLDER, first_key, slice_of, topic_of, uuid_of
from hop_archive.model.message import Message
from hop_archive.model.query import Query
from hop_archive.model.slices import Slice
from hop_archive.model.wording import counted
from hop_archive.read.check import check, extent_of
from hop_archive.store.free_keys import create_free
from hop_archive.store.protocol import Created, Extent, NewObject, Store
from hop_archive.upkeep.repair.evidence import corrected, document_at, documents_in, proven
from hop_archive.upkeep.repair.upstream import Upstream, runs
from hop_archive.upkeep.verify.verification import BACKUP_GRACE_S

QUARANTINE = f"{OWN_FOLDER}quarantine/"
"""Under this prefix stands what was moved aside: damaged bytes, and what no row names. A person may delete it."""


class NotMendedError(Exception):
    """Why a finding stays as it is; a sentence for people. Not an error: it is told of the finding."""


class GoneError(Exception):
    """The finding is not there any more."""


class Planned(NamedTuple):
    """What would mend a finding.

    Attributes:
        how: What is done, for people.
        deed: Does it, and says what was done; may raise ``NotMendedError``.
    """

    how: str
    deed: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Means:
    """What there is to mend with.

    Attributes:
        catalog: Whose rows.
        store: Whose objects.
        backup: The backup of the store; None where there is none.
        upstream: The source.
        run_id: Noted in the ledger.
        backup_grace_s: How old an object has to be before its copy counts as missing in the backup.
        counted: The wrong counts of one topic, as they were when they were asked for.
    """

    catalog: Catalog
    store: Store
    backup: Store | None
    upstream: Upstream
    run_id: str = "repair"
    backup_grace_s: float = BACKUP_GRACE_S
    counted: dict[str, Sequence[Miscount]] = field(default_factory=dict)


class _Good(NamedTuple):
    """A row as it ought to be, and the bytes of its document; None: they stand where the row says."""

    was: Row
    now: Row
    body: bytes | None
    origin: str


def plan_object(means: Means, finding: Finding) -> Planned:
    """How to mend what rows and an object say differently of a document.

    Raises:
        GoneError: They agree by now.
        NotMendedError: Nothing vouches for what it ought to be.
    """
    if not finding.object_key:
        raise NotMendedError("Kafka and the archive hold different messages there: a person decides")
    if means.backup is not None and finding.bucket == means.backup.bucket != means.store.bucket:
        return _plan_backup(means, means.backup, finding)
    rows = _rows_naming(means.catalog, finding)
    if not rows:
        raise GoneError
    body = whole(means.store, finding.object_key)
    bad = [row for row in rows if not _is_sound(row, body)]
    if not bad or (finding.slice is not None and finding.uuid not in {row.uuid for row in bad}):
        raise GoneError
    good = _good_ones(means, bad, body)
    if not good:
        raise NotMendedError(_why_none(means, bad))
    return _planned(means, finding.object_key, rows, bad, good, body)


def whole(store: Store, key: str) -> bytes | None:
    """The bytes of an object; None where it is not there."""
    try:
        (body,) = store.fetch([Extent(key)])
    except ObjectMissingError:
        return None
    return body


def quarantine(store: Store, key: str) -> str:
    """Move an object aside, byte for byte; says where it is now. Again, after a crash, it goes on.

    Raises:
        NotMendedError: The store's stanza does not allow deleting; nothing was done.
    """
    try:
        store.delete([])
    except ForbiddenError as error:
        raise NotMendedError(f"{key} stays where it is: the store does not allow deleting") from error
    body = whole(store, key)
    if body is None:
        return f"{key} is gone"
    ending = ".bson" if key.endswith(".bson") else ""
    (kept,) = create_free(store, [NewObject(f"{QUARANTINE}{key}", body)], ending)
    store.delete([key])
    return f"{key} moved to {kept}"


def placed(where: Slice, row: Row) -> bool:
    """Whether a row stands in a slice."""
    partition_log = (row.topic, row.generation, row.partition)
    return (
        partition_log == where.partition_log
        and row.offset is not None
        and where.start <= row.offset < where.stop
    )


# --- what there is


def _rows_naming(catalog: Catalog, finding: Finding) -> list[Row]:
    """The rows that name an object; holds the rows of one segment."""
    key, where = finding.object_key, slice_of(finding.object_key)
    found: dict[object, Row] = {}
    if where is not None and where.topic in catalog.topics():
        standing = catalog.select(Query((where.topic,), places=(where,)))
        found = {row.uuid: row for row in standing if row.object_key == key}
    for own in (finding.uuid, uuid_of(key)):
        row = None if own is None else catalog.find(own)
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


def _good_ones(means: Means, bad: Sequence[Row], body: bytes | None) -> list[_Good]:
    """For as many as possible of the rows, what they ought to be, from where most is vouched for."""
    found: dict[Row, _Good] = {}
    hidden = means.catalog.suppressed([row.uuid for row in bad])
    for look in (_in_itself, _elsewhere, _in_backup, _in_kafka):
        left = [row for row in bad if row not in found]
        for good in look(means, left, body) if left else ():
            if good.was.uuid not in hidden or _is_without_payload(good, body):
                found[good.was] = good
    return [found[row] for row in bad if row in found]


def _is_without_payload(good: _Good, body: bytes | None) -> bool:
    """What was suppressed may come back only as what was left of it."""
    held = good.body if good.body is not None else _cut(good.now, body)
    document = None if held is None else proven(held)
    return document is not None and document.message.value is None


def _in_itself(_: Means, rows: Sequence[Row], body: bytes | None) -> Iterator[_Good]:
    """It is the row that is wrong, and its document says in what."""
    for row in rows:
        held = body if row.position is None else document_at(body or b"", row.position)
        for candidate in (held, _cut(row, body)):
            now = None if candidate is None else corrected(row, candidate)
            if now is not None:
                yield _Good(row, now, None, "its document")
                break


def _elsewhere(means: Means, rows: Sequence[Row], _: bytes | None) -> Iterator[_Good]:
    """It is the key in the row that is wrong: the document stands where it ought to."""
    for row in rows:
        for key in _likely_keys(means.store, row):
            now = row._replace(object_key=key, bucket=means.store.bucket)
            if _is_sound_at(means.store, now):
                yield _Good(row, now, None, f"object {key}")
                break


def _likely_keys(store: Store, row: Row) -> Iterator[str]:
    where = slice_of(row.object_key)
    if row.position is None:
        stem = object_key(row.topic, row.timestamp_ms, row.uuid).removesuffix("bson")
        yield from (info.key for info in store.listing(stem) if info.key != row.object_key)
    elif where is None or not placed(where, row):
        listing = store.listing(f"segments/{row.topic}/{row.generation}/{row.partition}/")
        segments = ((info.key, slice_of(info.key)) for info in listing)
        yield from (key for key, at in segments if at is not None and placed(at, row))


def _is_sound_at(store: Store, row: Row) -> bool:
    try:
        (found,) = store.fetch([extent_of(row)])
    except (ObjectMissingError, CorruptError):
        return False
    return not check(row, found)[1]


def _in_backup(means: Means, rows: Sequence[Row], _: bytes | None) -> Iterator[_Good]:
    if means.backup is None:
        return
    for key, some in itertools.groupby(rows, key=lambda row: row.object_key):
        copy = whole(means.backup, key)
        for row in some:
            if _is_sound(row, copy):
                yield _Good(row, row, _cut(row, copy), "the backup")


def _in_kafka(means: Means, rows: Sequence[Row], _: bytes | None) -> Iterator[_Good]:
    """Encoded anew: the same message always makes the same bytes."""
    by_place = {_place_of(row): row for row in rows if row.offset is not None}
    for reading in means.upstream.readings(_held(means.upstream, rows)):
        for message in reading.messages:
            row = by_place.get((*reading.slice.partition_log, message.offset))
            if row is not None and (body := _encoded(row, message)) is not None:
                yield _Good(row, row, body, "Kafka")


def _place_of(row: Row) -> tuple[object, ...]:
    return row.topic, row.generation, row.partition, row.offset


def _held(upstream: Upstream, rows: Sequence[Row]) -> list[Slice]:
    offsets: dict[tuple[str, int, int], list[int]] = {}
    for row in rows:
        if row.generation is not None and row.partition is not None and row.offset is not None:
            offsets.setdefault((row.topic, row.generation, row.partition), []).append(row.offset)
    return [
        Slice(*at, *held)
        for at, some in sorted(offsets.items())
        for start, stop in runs(some)
        for held in upstream.held(Slice(*at, start, stop))
    ]


def _encoded(row: Row, message: Message) -> bytes | None:
    """The document of a row, made of its message again; None where that is another one by now."""
    if row.digest is None:
        return None
    document = Document(message, row.uuid, row.is_client_uuid, row.digest, row.message_crc32, row.annotations)
    body = encode(document)
    return body if not check(row, body)[1] else None


def _why_none(means: Means, bad: Sequence[Row]) -> str:
    asked = ["the store itself"]
    asked += ["the backup"] if means.backup is not None else []
    asked += ["Kafka"] if means.upstream.is_asked else []
    if means.catalog.suppressed([row.uuid for row in bad]):
        return "its content was suppressed, and what was left of it is not to be had: suppress it again"
    return f"{counted(len(bad), 'document is', 'documents are')} good in none of: {', '.join(asked)}"


# --- the deed


def _planned(
    means: Means, key: str, rows: Sequence[Row], bad: Sequence[Row], good: Sequence[_Good], body: bytes | None
) -> Planned:
    left = len(bad) - len(good)
    origins = ", ".join(sorted({one.origin for one in good}))
    what = "row corrected by" if all(one.body is None for one in good) else "document put back from"
    how = f"{what} {origins}"
    if len(good) > 1:
        how = f"{len(good)} times: {how}"
    rest = f"; {left} more are good nowhere" if left else ""

    def deed() -> str:
        told = _mend(means, key, rows, bad, good, body, how)
        if left:
            raise NotMendedError(f"{told}{rest}")
        return told

    return Planned(f"{how}{rest}", deed)


def _mend(
    means: Means,
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
        means.catalog.correct_rows(corrections)
        return how
    # What is sound of a segment moves along, so that the damaged one can be put aside whole.
    moving = [row for row in rows if row in bodies or (row not in bad and row.position is not None)]
    held = {row: bodies.get(row) or _cut(row, body) or b"" for row in moving}
    made, positions = _joined(held, body, set(rows))
    (taken,) = create_free(means.store, [NewObject(_key_for(moving[0]), made)])
    for row in moving:
        now = row._replace(object_key=taken, bucket=means.store.bucket, position=positions[row])
        corrections += [Correction(row, now)] if now != row else []
    means.catalog.correct_rows(corrections)
    unnamed = len(moving) + len([one for one in good if one.body is None and one.now.object_key != key])
    if body is None or taken == key or unnamed < len(rows):
        return how
    try:
        return f"{how}; {quarantine(means.store, key)}"
    except NotMendedError as error:
        return f"{how}; {error}"


def _joined(
    held: dict[Row, bytes], body: bytes | None, named: set[Row]
) -> tuple[bytes, dict[Row, int | None]]:
    """Documents end to end, in the order in which they stood, and where each is; those that no row names among them."""
    if all(row.position is None for row in held):
        (only,) = held.items()
        return only[1], {only[0]: None}
    parts: list[tuple[int, Row | None, bytes]] = [(row.position or 0, row, one) for row, one in held.items()]
    known = {row.position for row in named}
    parts += [
        (position, None, one)
        for position, one in documents_in(body or b"")
        if position not in known and proven(one) is not None
    ]
    parts.sort(key=lambda part: part[0])
    ends = itertools.accumulate(len(one) for _, _, one in parts)
    starts = [end - len(one) for end, (_, _, one) in zip(ends, parts, strict=True)]
    places: dict[Row, int | None] = {
        row: start for start, (_, row, _) in zip(starts, parts, strict=True) if row is not None
    }
    return b"".join(one for _, _, one in parts), places


def _key_for(row: Row) -> str:
    """The key under which the document of a row, or its segment, ought to stand."""
    if topic_of(row.object_key) is not None:
        return first_key(row.object_key)
    return object_key(row.topic, row.timestamp_ms, row.uuid)


# --- the backup


def _plan_backup(means: Means, backup: Store, finding: Finding) -> Planned:
    key = finding.object_key
    rows = _rows_naming(means.catalog, finding)
    copy, body = whole(backup, key), whole(means.store, key)
    if not rows or (copy is not None and all(_is_sound(row, copy) for row in rows)):
        raise GoneError
    if body is None or not all(_is_sound(row, body) for row in rows):
        raise NotMendedError("the store's own object and its rows do not agree: that is mended first")
    if copy is not None:
        raise NotMendedError(
            "other bytes stand there in the backup, and nothing is overwritten: a person decides"
        )
    sound = body

    def deed() -> str:
        (outcome,) = backup.create([NewObject(key, sound)])
        if outcome is Created.OTHER:
            raise NotMendedError("other bytes came to stand there in the backup meanwhile")
        return "copied to the backup"

    return Planned("copied from the store to the backup", deed)
