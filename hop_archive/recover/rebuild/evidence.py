"""What objects hold: documents, each proven by itself, or why there is none. Reads ahead, in bounded memory."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from hop_archive.catalog.records import DocumentPlace, Row
from hop_archive.errors import CorruptError
from hop_archive.ingest.write import row_of
from hop_archive.model.document import decode
from hop_archive.model.frames import Frame, decompress, object_bytes, seek_table, walk
from hop_archive.model.identity import client_uuid
from hop_archive.model.keys import is_compressed_key, is_segment_key, slice_of, topic_of, uuid_of
from hop_archive.read.contents import documents_in
from hop_archive.read.fetch import fetch_each
from hop_archive.store.protocol import Extent, ObjectInfo, Store
from hop_archive.upkeep.repair.evidence import doubt

_PIECE_BYTES = 8 * 2**20
"""Segments are read in pieces of this size: what is held does not grow with them."""

_LEAST_BYTES = 5
"""BSON's shortest document: its length and a zero (bsonspec.org, 1.1)."""

_NO_OFFSET = 2**63 - 1
"""No slice can hold this offset: its end would be none."""


class Found(NamedTuple):
    """One document of an object, without what weighs: thousands are held at once.

    Attributes:
        row: Its row. Of a document of another archiver the digest is b"", and partition and offset are −1.
        collided_with: Its publisher's UUID, where it is archived under another.
        suppressed: Why its content was removed; None where it was not.
    """

    row: Row
    collided_with: uuid.UUID | None
    suppressed: str | None


class Evidence(NamedTuple):
    """What one object holds.

    Attributes:
        found: Proven documents of it, in the order in which they stand.
        problems: What else there is in it, and why it is not believed.
        is_whole: Whether this is the last of the object; before it, others of the same may come.
    """

    info: ObjectInfo
    found: Sequence[Found]
    problems: Sequence[str] = ()
    is_whole: bool = True


def gather(store: Store, infos: Iterable[ObjectInfo]) -> Iterator[Evidence]:
    """Read objects one after another; those of many documents come in several portions.

    Raises:
        UnavailableError: The store does not answer.
    """
    wanted = (
        (info, extent)
        for info in infos
        for extent in [
            Extent(info.key, start, min(_PIECE_BYTES, info.size_bytes - start))
            for start in range(0, info.size_bytes if is_segment_key(info.key) else 0, _PIECE_BYTES)
        ]
        or [Extent(info.key)]
    )
    for info, pieces in itertools.groupby(fetch_each(store, wanted), key=itemgetter(0)):
        bodies = (body if isinstance(body, bytes) else str(body).rstrip(".") for _, body in pieces)
        if is_compressed_key(info.key):
            yield from _compressed_segment(store, info, bodies)
            continue
        if is_segment_key(info.key):
            yield from _segment(store.bucket, info, bodies)
            continue
        body = next(bodies)
        found = body if isinstance(body, str) else _proven(store.bucket, None, body, DocumentPlace(info.key))
        if isinstance(found, Found) and found.row.uuid != uuid_of(info.key):
            found = f"it holds message {found.row.uuid}"
        yield Evidence(info, (), [found]) if isinstance(found, str) else Evidence(info, [found])


def _segment(bucket: str, info: ObjectInfo, pieces: Iterable[bytes | str]) -> Iterator[Evidence]:
    """Documents end to end. One that is damaged within its length leaves the rest readable; a piece that is missing does not."""
    held, position, where = bytearray(), 0, slice_of(info.key)
    assert where is not None
    for piece in pieces:
        if isinstance(piece, str):
            yield Evidence(info, (), [piece])
            return
        held += piece
        found: list[Found] = []
        problems: list[str] = []
        while len(held) >= 4:
            length = int.from_bytes(held[:4], "little", signed=True)
            if not _LEAST_BYTES <= length <= info.size_bytes - position:
                yield Evidence(info, found, [*problems, f"unreadable from byte {position} on"])
                return
            if length > len(held):
                break
            at = DocumentPlace(info.key, position)
            proven = _proven(bucket, where.generation, bytes(held[:length]), at)
            if isinstance(proven, str):
                problems.append(f"at byte {position}: {proven}")
            else:
                found.append(proven)
            del held[:length]
            position += length
        yield Evidence(info, found, problems, is_whole=False)
    yield Evidence(info, (), [f"it ends within a document, at byte {position}"] if held else ())


def _compressed_segment(store: Store, info: ObjectInfo, pieces: Iterable[bytes | str]) -> Iterator[Evidence]:
    """Documents in zstd frames, by the frame. A frame that is damaged hides its own documents only."""
    where = slice_of(info.key)
    assert where is not None
    for frame, content in _frames(store, info, pieces):
        found: list[Found] = []
        problems: list[str] = []
        reached = 0
        if isinstance(content, str):
            problems.append(content)
        else:
            for position, body in documents_in(content):
                reached = position + len(body)
                at = DocumentPlace(info.key, position, *frame)
                proven = _proven(store.bucket, where.generation, body, at)
                if isinstance(proven, str):
                    problems.append(f"in the frame at byte {frame.position}, at {position}: {proven}")
                else:
                    found.append(proven)
            if reached < len(content):
                problems.append(f"in the frame at byte {frame.position}: unreadable from {reached} on")
        yield Evidence(info, found, problems, is_whole=False)
    yield Evidence(info, ())


def _frames(
    store: Store, info: ObjectInfo, pieces: Iterable[bytes | str]
) -> Iterator[tuple[Frame, bytes | str]]:
    """The frames of a segment with their contents, or why there are none.

    As they follow one another; where that cannot be told any more, by the seek table at the end of the object.
    """
    missing: list[str] = []
    walked: set[Frame] = set()
    reached = 0
    for frame, data in walk(_until_missing(pieces, missing)):
        walked.add(frame)
        reached = frame.position + frame.size_bytes
        try:
            yield frame, decompress(data)
        except CorruptError as error:
            yield frame, f"at byte {frame.position}: {error}"
    if not missing and object_bytes(reached, len(walked)) == info.size_bytes:
        return
    table = Extent(info.key, max(0, info.size_bytes - _PIECE_BYTES), min(info.size_bytes, _PIECE_BYTES))
    ((_, tail),) = fetch_each(store, [(None, table)])
    told = seek_table(tail, info.size_bytes) if isinstance(tail, bytes) else None
    if told is None:
        why = missing[0] if missing else f"unreadable from byte {reached} on"
        yield Frame(reached, info.size_bytes - reached), why
    left = [(frame, Extent(info.key, frame=frame)) for frame in told or () if frame not in walked]
    for frame, content in fetch_each(store, left):
        yield frame, content if isinstance(content, bytes) else str(content).rstrip(".")


def _until_missing(pieces: Iterable[bytes | str], missing: list[str]) -> Iterator[bytes]:
    """The pieces up to the first that could not be had; why goes into ``missing``."""
    for piece in pieces:
        if isinstance(piece, str):
            missing.append(piece)
            return
        yield piece


def _proven(bucket: str, generation: int | None, body: bytes, at: DocumentPlace) -> Found | str:
    """The document, or why it is not one that the archive would have stored there."""
    key = at.object_key
    try:
        document = decode(body, uuid_of(key))
    except CorruptError as error:
        return str(error).rstrip(".")
    message = document.message
    if message.topic != topic_of(key):
        return f"it is of topic {message.topic}"
    if document.digest and not (message.partition >= 0 and 0 <= message.offset < _NO_OFFSET):
        return "it does not say where in its topic it stood"
    collided_with = None if document.is_client_uuid else client_uuid(message.headers)
    row = row_of(generation, bucket, document, body, at)
    found = Found(row, collided_with, document.suppressed or None)
    if document.suppressed:  # such a document no longer proves itself by its content
        return found
    return doubt(document, body) or found
