"""Content goes for good, for legal reasons: a tombstone without it takes the document's place, and old objects go.

In order, so that a crash anywhere is completed by the same command: the suppression is remembered; a new object is
noted as a pending delete, made, and named by the rows in the place of the old one, which is one then; then pending ones are deleted,
in the backup too. The row stays: its digest goes on telling that a message which arrives later is the same one.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from hop_archive.catalog.records import Deed, Replaced, Row
from hop_archive.errors import ConflictError, CorruptError, ForbiddenError
from hop_archive.model.annotations import Annotations
from hop_archive.model.document import Document, crc32, encode
from hop_archive.model.identity import ID_HEADER
from hop_archive.model.keys import alternative_key, first_key, object_key, slice_of, uuid_of
from hop_archive.model.message import Message, TimestampType
from hop_archive.model.query import Query
from hop_archive.model.slices import Slice
from hop_archive.read.check import extent_of
from hop_archive.store.free_keys import MOST_ALTERNATIVES
from hop_archive.store.protocol import Created, NewObject, ObjectInfo
from hop_archive.upkeep.remove.remove import Removing

COMMAND = "suppress"

GRACE_S = 3600.0
"""An object that no row names and that is younger than this may be another process's, in the making."""

_MOST_ATTEMPTS = 5
_MOST_COPIES = 10_000


@dataclass(frozen=True, slots=True)
class Suppressed:
    """What became of a wish to suppress.

    Attributes:
        done: Messages whose content is gone, now or from before.
        unknown: UUIDs that the catalog does not have.
        young: Keys of objects that may hold the content, that no row names, and that are too young to be judged.
        keeps_versions: Whether the bucket keeps what is deleted as an old version; None where that is not known.
    """

    done: tuple[uuid.UUID, ...]
    unknown: tuple[uuid.UUID, ...]
    young: tuple[str, ...]
    keeps_versions: bool | None


def tombstone(row: Row, reason: str) -> Document:
    """The document that takes the place of a row's: where it stood, when, and its digest; nothing of its content.

    Made of the row alone, so that a damaged or missing object is no obstacle. The same row and reason always make the
    same document.
    """
    headers = ((ID_HEADER, row.uuid.bytes),) if row.is_client_uuid else ()
    notes = row.annotations
    return Document(
        message=Message(
            topic=row.topic,
            partition=-1 if row.partition is None else row.partition,
            offset=-1 if row.offset is None else row.offset,
            timestamp_ms=row.timestamp_ms,
            timestamp_type=TimestampType.CREATE if row.timestamp_type is None else row.timestamp_type,
            key=None,
            value=None,
            headers=headers,
        ),
        uuid=row.uuid,
        is_client_uuid=row.is_client_uuid,
        digest=row.digest or b"",
        message_crc32=row.message_crc32,
        annotations=Annotations(notes.public, notes.direct_upload, notes.media_type),
        suppressed=reason,
    )


def suppress(
    removing: Removing, message_uuids: Collection[uuid.UUID], reason: str, *, grace_s: float = GRACE_S
) -> Suppressed:
    """Remove the content of these messages for good, wherever the archive knows it to be. Again: goes on.

    Args:
        removing: Where rows, objects and copies are.
        message_uuids: Which messages.
        reason: Why; stands in the catalog and in the tombstones. Where one was given before, that one stays.
        grace_s: How old an object that no row names has to be before it is deleted.

    Raises:
        ConfigurationError: The store is not the one whose bucket the rows name.
        ForbiddenError: The store, or the role, does not allow it.
        ConflictError: Another process is in the way all the time.
        ObjectMissingError, CorruptError: A segment lacks documents that have to be kept: repair it first.
    """
    deed = removing.deed(COMMAND, reason)
    removing.delete_pending(COMMAND)
    rows = [row for asked in message_uuids if (row := removing.catalog.find(asked)) is not None]
    removing.refuse_other_buckets({row.bucket for row in rows})
    removing.catalog.suppress({row.uuid: row.topic for row in rows}, reason)
    for row in rows:
        _suppress_one(removing, row.uuid, deed)
    removing.delete_pending(COMMAND)
    young: list[str] = []
    for row in rows:
        young_ms = int((removing.now().timestamp() - grace_s) * 1000)
        # What crashed attempts left of the message goes; what holds it beside documents that rows name is made anew.
        for info in _may_hold(removing, row):
            named = _rows_in(removing, row.bucket, info.key) if slice_of(info.key) else []
            if named and sum(other.size_bytes for other in named) < info.size_bytes:
                _rewrite(removing, row.bucket, info.key, deed)
            elif not named and info.modified_ms > young_ms:
                young.append(info.key)
            elif not named:
                removing.catalog.note_pending_deletes([(row.bucket, info.key)], row.topic, deed)
    removing.delete_pending(COMMAND)
    known = {row.uuid for row in rows}
    unknown = tuple(asked for asked in message_uuids if asked not in known)
    versions = removing.store.condition().versioning if rows else None
    return Suppressed(tuple(row.uuid for row in rows), unknown, tuple(young), versions)


def likenesses(removing: Removing, rows: Sequence[Row]) -> list[Row]:
    """Rows of other messages that hold the same content, and are not suppressed: copies in other topics, most likely.

    They are looked for where a restore or a mirror leaves them: at the same timestamp, in any topic, and under a UUID that
    the archive made because the publisher's was taken. Same is a digest, or the CRC-32 of a value that is not empty.
    """
    asked = {row.uuid for row in rows}
    found: dict[uuid.UUID, Row] = {}
    for row in rows:
        same_time: Iterable[Row] = ()
        if row.timestamp_ms >= 0:  # below, nobody set it: it would be that of any number of others
            same_time = removing.catalog.select(
                Query(since_ms=row.timestamp_ms, until_ms=row.timestamp_ms + 1)
            )
        collisions = removing.catalog.mentions(row.uuid, row.topic, _MOST_COPIES).collisions
        named = (named for _, met in collisions for named in (met.client_uuid, met.archived_as))
        for other in chain(same_time, map(removing.catalog.find, named)):
            if other is None:
                continue
            same_digest = row.digest is not None and row.digest == other.digest
            if same_digest or row.message_crc32 == other.message_crc32 != 0:
                found[other.uuid] = other
    hidden = removing.catalog.suppressed(list(found))
    return [other for other in found.values() if other.uuid not in hidden and other.uuid not in asked]


def places(removing: Removing, row: Row) -> list[Slice]:
    """Where the message stood in Kafka, as far as that is recorded: its own offset, and those of its copies."""
    copies = removing.catalog.mentions(row.uuid, row.topic, _MOST_COPIES).duplicates
    found = [Slice(*at, copy.offset, copy.offset + 1) for at, copy in copies]
    return [*found, row.slice] if row.slice is not None else found


def _suppress_one(removing: Removing, message_uuid: uuid.UUID, deed: Deed) -> None:
    """As often as another process moves the message meanwhile."""
    for _ in range(_MOST_ATTEMPTS):
        row = removing.catalog.find(message_uuid)
        if row is None:
            return
        body = _tombstones(removing, [row])[message_uuid]
        if (row.size_bytes, row.crc32) == (len(body), crc32(body)):
            return
        try:
            if row.position is None:
                key = _make(
                    removing, object_key(row.topic, row.timestamp_ms, row.uuid), body, row.topic, deed
                )
                new = Replaced(row.uuid, key, None, len(body), crc32(body), is_tombstone=True)
                removing.catalog.replace_documents((row.bucket, row.object_key), [new], deed)
            else:
                _rewrite(removing, row.bucket, row.object_key, deed)
        except ConflictError:
            continue
    raise ConflictError(
        f"Another process is in the way of suppressing {message_uuid} all the time.",
        remedy="Run this again when it is done; the suppression is remembered.",
        uuid=str(message_uuid),
    )


def _tombstones(removing: Removing, rows: Sequence[Row]) -> dict[uuid.UUID, bytes]:
    """The tombstones of those rows that are suppressed, by whichever command."""
    reasons = {one.uuid: one.reason for one in removing.catalog.suppressions([row.uuid for row in rows])}
    return {row.uuid: encode(tombstone(row, reasons[row.uuid])) for row in rows if row.uuid in reasons}


def _rewrite(removing: Removing, bucket: str, key: str, deed: Deed) -> None:
    """Put another segment in the place of this one: with tombstones, and without documents that no row names."""
    rows = _rows_in(removing, bucket, key)
    if not rows:
        return  # they were taken away, or another process rewrote it
    stones = _tombstones(removing, rows)
    kept = removing.store.fetch(extent_of(row) for row in rows if row.uuid not in stones)
    bodies = [stones[row.uuid] if row.uuid in stones else next(kept) for row in rows]
    new_key = _make(removing, first_key(key), b"".join(bodies), rows[0].topic, deed)
    new: list[Replaced] = []
    position = 0
    for row, body in zip(rows, bodies, strict=True):
        is_stone = row.uuid in stones
        crc = crc32(body) if is_stone else row.crc32
        new.append(Replaced(row.uuid, new_key, position, len(body), crc, is_tombstone=is_stone))
        position += len(body)
    removing.catalog.replace_documents((bucket, key), new, deed)


def _rows_in(removing: Removing, bucket: str, key: str) -> list[Row]:
    """The rows that name a segment, by position; its key says whose offsets those may be."""
    place = slice_of(key)
    if place is None:
        raise CorruptError(
            f"The object {key} holds several documents, and its key is none of a segment.",
            remedy="Find out who wrote it; nothing was changed.",
            object_key=key,
            bucket=bucket,
        )
    found = removing.catalog.select(Query(places=(place,)))
    rows = [row for row in found if (row.bucket, row.object_key) == (bucket, key)]
    return sorted(rows, key=lambda row: row.position or 0)


def _make(removing: Removing, name: str, body: bytes, topic: str, deed: Deed) -> str:
    """Make an object under the first free key of this name, in the store and in its backup; a pending delete until rows name it."""
    stores = [removing.store, *([removing.backup] if removing.backup else [])]
    for attempt in range(MOST_ALTERNATIVES):
        key = alternative_key(name, attempt)
        if any(info.key == key for store in stores for info in store.listing(key)):
            continue  # no pending delete: it may be named
        removing.catalog.note_pending_deletes([(removing.store.bucket, key)], topic, deed)
        new = [NewObject(key, body)]
        if removing.store.create(new) == [Created.OTHER]:
            continue  # somebody was faster; a pending delete is named, or goes
        try:
            # Replication would put it into the backup as well; where there is none, the backup would lack it.
            if removing.backup is None or removing.backup.create(new) != [Created.OTHER]:
                return key
        except ForbiddenError as error:
            removing.tally.backup_refusal = str(error)
            return key
    raise CorruptError(
        f"{MOST_ALTERNATIVES} objects with other bytes stand under the name {name!r}.",
        remedy="Find out who writes there; nothing was overwritten.",
        object_key=name,
        bucket=removing.store.bucket,
    )


def _may_hold(removing: Removing, row: Row) -> Iterator[ObjectInfo]:
    """Objects whose keys say that they may hold the message, or a copy of it that was not kept; not its own alone."""
    now = removing.catalog.find(row.uuid)
    own = now.object_key if now is not None else ""
    alone = object_key(row.topic, row.timestamp_ms, row.uuid).removesuffix(".bson")
    for info in _listed(removing, alone):
        if uuid_of(info.key) == row.uuid and info.key != own:
            yield info
    stood = places(removing, row)
    for partition_log in sorted({at.partition_log for at in stood}):
        offsets = [at.start for at in stood if at.partition_log == partition_log]
        for info in _listed(removing, "segments/{}/{}/{}/".format(*partition_log), max(offsets)):
            place = slice_of(info.key)
            if place is not None and any(place.start <= offset < place.stop for offset in offsets):
                yield info


def _listed(removing: Removing, prefix: str, last: int | None = None) -> Iterator[ObjectInfo]:
    """Objects of the store, then those that only the backup has; of segments, none that starts after ``last``."""
    seen: set[str] = set()
    for store in (removing.store, *([removing.backup] if removing.backup else [])):
        for info in store.listing(prefix):
            place = slice_of(info.key)
            if last is not None and place is not None and place.start > last:
                break  # keys sort by the first offset
            if info.key not in seen:
                seen.add(info.key)
                yield info
