"""Content goes for good, for legal reasons: a tombstone without it takes the document's place, and old objects go.

In order, so that a crash anywhere is completed by the same command: the suppression is remembered; a new object is
noted as a pending delete, made, and named by the rows in the place of the old one, which is one then; then pending ones are deleted,
in the backup too. The row stays: its digest goes on telling that a message which arrives later is the same one.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from hop_archive.catalog.records import Removal, Replaced, Row
from hop_archive.errors import (
    ConflictError,
    CorruptError,
    HopArchiveError,
    ObjectMissingError,
    UnavailableError,
)
from hop_archive.ingest.placing import segment
from hop_archive.model.annotations import Annotations
from hop_archive.model.document import Document, crc32, encode
from hop_archive.model.envelope import ID_HEADER
from hop_archive.model.findings import Kind
from hop_archive.model.frames import decompress, frames_in
from hop_archive.model.keys import (
    first_key,
    is_compressed_key,
    object_key,
    segment_folder,
    slice_of,
    topic_of,
    uuid_of,
)
from hop_archive.model.message import Message, TimestampType
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, Slice
from hop_archive.read.check import check, extent_of
from hop_archive.read.contents import ObjectContents
from hop_archive.store.protocol import Extent, NewObject, ObjectInfo, Store
from hop_archive.upkeep.compact.plan import hold_name
from hop_archive.upkeep.failures import Failures
from hop_archive.upkeep.remove.remove import Removing
from hop_archive.upkeep.repair.orphans import called_lost, documents_of
from hop_archive.upkeep.repair.plan import whole

COMMAND = "suppress"
FAILURES = partial(Failures, "message", "could not be suppressed", "uuid")

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
        young: Keys of objects that may hold the content, that no row names, and that are too young to be judged; of segments that
            are in the making, where they will be.
        unsettled: Keys of old objects that hold messages of these UUIDs without rows, at offsets which the ledger has not dealt
            with: they may be other messages. As long as nothing covers these, they stay.
        keeps_versions: Whether old versions of what was deleted may be in the bucket; None where that is not known.
        backup_keeps_versions: Likewise of the backup; False without one.
        held: Keys of the objects that held the content when this began; none where an earlier call has replaced them all.
    """

    done: tuple[uuid.UUID, ...]
    unknown: tuple[uuid.UUID, ...]
    young: tuple[str, ...]
    unsettled: tuple[str, ...]
    keeps_versions: bool | None
    backup_keeps_versions: bool | None
    held: tuple[str, ...]


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
    removing: Removing,
    message_uuids: Collection[uuid.UUID],
    reason: str,
    *,
    grace_s: float = GRACE_S,
    failures: Failures | None = None,
) -> Suppressed:
    """Remove the content of these messages for good, wherever the archive knows it to be. Again: goes on.

    The reason stands in the catalog and in the tombstones; where one was given before, that one stays. An object that no row
    names has to be ``grace_s`` old before it is deleted. A message with which something fails stops no other one.

    Args:
        removing: Where.
        message_uuids: Which.
        reason: Why.
        grace_s: So old is what may be deleted of what no row names.
        failures: Takes in the messages of which not all could be done, for the caller to raise; None: they are raised here, once
            the others are done.

    Raises:
        ConfigurationError: The store is not the one whose bucket a row names.
        ForbiddenError: The store, or the role, does not allow it.
        ConflictError: Another process is in the way all the time.
        ObjectMissingError, CorruptError: A segment lacks documents that have to be kept, or it has them alone and rows do not say
            so: repair it first.
        DataError: Several messages failed, for several reasons.
        UnavailableError: A server does not answer.
    """
    removal = removing.removal(COMMAND, reason)
    with removing.command(COMMAND, failures, FAILURES) as failed:
        rows, unknown = list[Row](), list[uuid.UUID]()
        for asked in message_uuids:
            if (row := removing.catalog.find(asked)) is None:
                unknown.append(asked)
                continue
            with failed.of(str(asked), removing.all_answer):
                rows.append(removing.at_hand(row))
        removing.catalog.suppress({row.uuid: row.topic for row in rows}, reason)
        held: set[str] = set()
        for row in rows:
            with failed.of(str(row.uuid), removing.all_answer):
                if _suppress_one(removing, row.uuid, removal):
                    held.add(row.object_key)
        removing.delete_pending(COMMAND)
        # What is being compacted may have been read before it was suppressed, and nothing of that is to be seen yet. What begins
        # from now on reads tombstones.
        young: list[str] = []
        for at in sorted({place.partition_log for row in rows for place in places(removing, row)}):
            try:
                with removing.catalog.hold(hold_name(at)):
                    pass
            except ConflictError:
                young.append(segment_folder(*at))
        young_ms = int((removing.now().timestamp() - grace_s) * 1000)
        for row in rows:
            # What crashed attempts left of the message goes; what holds it beside documents that rows name is made anew.
            for info in _may_hold(removing, row):
                with failed.of(str(row.uuid), removing.all_answer):
                    named = _rows_in(removing, row.bucket, info.key) if slice_of(info.key) else []
                    if named and _holds_more(removing, info, named):
                        held.add(info.key)
                        _rewrite(removing, row.bucket, info.key, removal)
                    elif not named and info.modified_ms > young_ms:
                        young.append(info.key)
                    elif not named and _holds(removing, info, row):
                        _refuse_to_lose(removing, info.key)
                        held.add(info.key)
                        removing.catalog.note_pending_deletes([(row.bucket, info.key)], row.topic, removal)
        unsettled: list[str] = []
        for info, is_settled in _orphans_with(removing, rows, unknown, failed):
            if info.modified_ms > young_ms or not is_settled:
                (young if info.modified_ms > young_ms else unsettled).append(info.key)
                continue
            held.add(info.key)
            removing.catalog.note_pending_deletes(
                [(removing.store.bucket, info.key)], topic_of(info.key) or "", removal
            )
        removing.delete_pending(COMMAND)
        of_store, of_backup = (
            _has_old_versions(store) if store and rows else False
            for store in (removing.store, removing.backup)
        )
    done = tuple(row.uuid for row in rows if str(row.uuid) not in failed)
    return Suppressed(
        done,
        tuple(unknown),
        tuple(dict.fromkeys(young)),
        tuple(dict.fromkeys(unsettled)),
        of_store,
        of_backup,
        tuple(sorted(held)),
    )


def _has_old_versions(store: Store) -> bool | None:
    """Whether old versions may be there; None where that is not known, be it that the store cannot be asked by now."""
    try:
        return store.condition().has_old_versions
    except HopArchiveError:
        return None


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


def _suppress_one(removing: Removing, message_uuid: uuid.UUID, removal: Removal) -> bool:
    """As often as another process moves the message meanwhile. False: there was nothing left to do."""
    for attempt in range(_MOST_ATTEMPTS):
        row = removing.catalog.find(message_uuid)
        if row is None:
            return attempt > 0
        body = _tombstones(removing, [row])[message_uuid]
        if (row.size_bytes, row.crc32) == (len(body), crc32(body)):
            return attempt > 0
        try:
            if row.position is None:
                own = object_key(row.topic, row.timestamp_ms, row.uuid)
                key = removing.make(NewObject(own, body), row.topic, removal)
                new = Replaced(row.uuid, key, None, len(body), crc32(body), is_tombstone=True)
                removing.catalog.replace_documents((row.bucket, row.object_key), [new], removal)
            else:
                _rewrite(removing, row.bucket, row.object_key, removal)
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


def _rewrite(removing: Removing, bucket: str, key: str, removal: Removal) -> None:
    """Put another segment in the place of this one: with tombstones, and without documents that no row names."""
    rows = _rows_in(removing, bucket, key)
    if not rows:
        return  # they were taken away, or another process rewrote it
    _refuse_to_lose(removing, key, rows)
    stones = _tombstones(removing, rows)
    kept = removing.store.fetch(extent_of(row) for row in rows if row.uuid not in stones)
    try:
        bodies = [
            stones[row.uuid] if row.uuid in stones else _as_stored(removing, row, next(kept)) for row in rows
        ]
    except ObjectMissingError as error:  # as where a catalog was put back that is older than the store
        raise ObjectMissingError(
            f"{error} Rows of messages that are to stay name it.",
            remedy="That segment was not changed. Run hop-archive verify and hop-archive repair, and then this again; the suppression is remembered.",
            **error.facts,
        ) from error
    made = segment(first_key(key), bodies)
    new_key = removing.make(made.objects[0], rows[0].topic, removal)
    new = [
        Replaced(
            row.uuid,
            new_key,
            at.position,
            len(body),
            crc32(body) if row.uuid in stones else row.crc32,
            is_tombstone=row.uuid in stones,
            frame=at.frame,
            frame_size=at.frame_size,
        )
        for row, body, at in zip(rows, bodies, made.places, strict=True)
    ]
    removing.catalog.replace_documents((bucket, key), new, removal)


def _as_stored(removing: Removing, row: Row, body: bytes) -> bytes:
    """The bytes of a document that is kept; where they are damaged, those that are read twice the same.

    Raises:
        UnavailableError: They are other ones each time.
    """
    if not check(row, body)[1]:
        return body
    (again,) = removing.store.fetch([extent_of(row)])
    if again != body and check(row, again)[1]:
        raise UnavailableError(
            f"The object {row.object_key} in bucket {row.bucket} is read differently each time.",
            remedy="Nothing was changed. Run this again; the suppression is remembered.",
            object_key=row.object_key,
            bucket=row.bucket,
        )
    return again


def _holds(removing: Removing, info: ObjectInfo, row: Row) -> bool:
    """Whether an object that no row names may hold this message: of a damaged one it is taken for granted.

    Raises:
        CorruptError: It holds it, and beside it a message that the catalog does not know, which would go with it. So it is where a
            catalog was made anew and not rebuilt.
        UnavailableError: Not all of it was read.
    """
    stores = (removing.store, *([removing.backup] if removing.backup else []))
    body = next((found for store in stores if (found := whole(store, info.key)) is not None), None)
    if body is None:
        return True
    _refuse_what_was_not_read(info, body)
    documents = [document for _, document in documents_of(ObjectContents(info.key, body))]
    if documents and all(document.digest != row.digest for document in documents):
        return False
    others = [document for document in documents if document.digest != row.digest]
    _refuse_what_is_unknown(removing, info.key, others)
    return True


def _orphans_with(
    removing: Removing,
    rows: Sequence[Row],
    unknown: Sequence[uuid.UUID],
    failed: Failures,
) -> Iterator[tuple[ObjectInfo, bool]]:
    """Objects that hold one of these messages, of those that verification found to have no row, wherever in their topics.

    As in a generation that the catalog does not know, since it was lost and begun anew; or of a message whose row is gone.
    Each is read once. With each, whether that is settled: of a message without a row only where its offset is dealt with, else it
    may be another message of the same UUID, that is yet to be archived.
    """
    digests = {row.uuid: row.digest for row in rows}
    topics = {row.uuid: row.topic for row in rows}
    topics.update((lost.uuid, lost.topic) for lost in removing.catalog.suppressions(unknown))
    for record in removing.catalog.findings({*topics.values()}, [Kind.ORPHAN_OBJECT]) if topics else ():
        key, body, documents = record.finding.object_key, None, list[Document]()
        asked = [each for each, topic in topics.items() if topic == record.finding.topic]
        with failed.of([str(each) for each in asked], removing.all_answer):
            body = whole(removing.store, key)
            documents += [] if body is None else (d for _, d in documents_of(ObjectContents(key, body)))
        own = [
            document
            for document in documents
            if document.uuid in asked
            and not document.suppressed
            and digests.get(document.uuid) in (None, document.digest)
        ]
        if not own:
            continue
        with failed.of({str(document.uuid) for document in own}, removing.all_answer):
            found = [info for info in removing.store.listing(key) if info.key == key]
            for info in found:
                _refuse_what_was_not_read(info, body or b"")
            _refuse_what_is_unknown(removing, key, (d for d in documents if d not in own))
            _refuse_to_lose(removing, key)
            # Of what has no row the offset has to be dealt with, in the log of its segment, or in one of any generation.
            where = slice_of(key)
            is_settled = all(
                document.uuid in digests
                or any(
                    document.message.offset in offsets
                    for log, offsets in removing.catalog.coverage([document.message.topic]).items()
                    if log.partition == document.message.partition
                    and (where is None or log == where.partition_log)
                )
                for document in own
            )
            yield from ((info, is_settled) for info in found)


def _refuse_what_was_not_read(info: ObjectInfo, body: bytes) -> None:
    """Refuse to judge an object by a part of it.

    Raises:
        UnavailableError: Not all of it was read.
    """
    if len(body) != info.size_bytes:
        raise UnavailableError(
            f"Of the object {info.key} {len(body)} bytes were read, and it has {info.size_bytes}.",
            remedy="Nothing was changed. Run this again; the suppression is remembered.",
            object_key=info.key,
        )


def _refuse_what_is_unknown(removing: Removing, key: str, documents: Iterable[Document]) -> None:
    """Refuse to delete an object for one message that has others in it which the catalog does not know.

    Raises:
        CorruptError: So it is.
    """
    for document in documents:
        if not _is_dealt_with(removing, document, slice_of(key)):
            raise CorruptError(
                f"The object {key} holds the message {document.uuid}, too, which the catalog does not know.",
                remedy="The object stays. Run hop-archive rebuild-catalog, then this again; the suppression is remembered.",
                object_key=key,
                bucket=removing.store.bucket,
            )


def _is_dealt_with(removing: Removing, document: Document, segment_slice: Slice | None) -> bool:
    """Whether the catalog has the message of a document, or has dealt with its offset, at which no other message stands."""
    if segment_slice is None:
        return True
    message, log = document.message, segment_slice.partition_log
    row = removing.catalog.find(document.uuid)
    if row is not None and row.topic == message.topic and row.digest in (None, document.digest):
        return True
    if message.offset not in removing.catalog.coverage([log.topic]).get(log, EMPTY):
        return False
    there = list(removing.catalog.select(Query(places=(Slice(*log, message.offset, message.offset + 1),))))
    if not there:
        return message.offset not in called_lost(removing.catalog, log)
    return all(row.digest == document.digest for row in there)


def _holds_more(removing: Removing, info: ObjectInfo, named: Sequence[Row]) -> bool:
    """Whether a segment has more in it than the documents that these rows name; of a damaged one it is taken for granted."""
    named_bytes = sum(row.size_bytes for row in named)
    if not is_compressed_key(info.key):
        return named_bytes < info.size_bytes
    try:
        (body,) = removing.store.fetch([Extent(info.key)])
        return named_bytes < sum(len(decompress(body[at : at + size])) for at, size in frames_in(body))
    except (ObjectMissingError, CorruptError):
        return True


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
    return sorted(rows, key=lambda row: row.place_in_object)


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


def _refuse_to_lose(removing: Removing, key: str, named: Sequence[Row] = ()) -> None:
    """Refuse to give up a segment, but for what of it is ``named``, that alone has a document of another message.

    Raises:
        CorruptError: It has one.
    """
    row = removing.only_in(key, {row.uuid for row in named}, {})
    if row is not None:
        raise CorruptError(
            f"The object {key} alone has the document of {row.uuid}: its row names {row.object_key}, which is gone.",
            remedy="The object stays. Run hop-archive verify and repair, then this again; the suppression is remembered.",
            object_key=key,
            bucket=removing.store.bucket,
        )
    document = removing.unsettled_in(key, removing.store, {})
    if document is not None and document.uuid not in {row.uuid for row in named}:
        raise CorruptError(
            f"The object {key} alone may have the message {document.uuid} of offset {document.message.offset}, which has no row.",
            remedy="The object stays. Run hop-archive rebuild-catalog, then this again; the suppression is remembered. Where other "
            "content has its UUID by now, as that tells, no row can be made: delete the object by hand, if the content has to go.",
            object_key=key,
            bucket=removing.store.bucket,
        )


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
