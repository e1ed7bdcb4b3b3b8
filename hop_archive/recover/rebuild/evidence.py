"""What objects hold: documents, each proven by itself, or why there is none. Reads ahead, in bounded memory."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

from hop_archive.catalog.records import Row
from hop_archive.errors import CorruptError, ObjectMissingError
from hop_archive.model.document import Document, crc32, decode
from hop_archive.model.identity import ID_HEADER
from hop_archive.model.keys import is_segment_key, topic_of, uuid_of
from hop_archive.store.protocol import Extent, ObjectInfo, Store
from hop_archive.upkeep.repair.evidence import doubt

_PIECE_BYTES = 8 * 2**20
"""Segments are read in pieces of this size: what is held does not grow with them."""

_LEAST_BYTES = 5
"""BSON's shortest document: its length and a zero (bsonspec.org, 1.1)."""

_MOST_ID_BYTES = 256
"""Longer ``_id`` headers than this are not held."""

_NO_OFFSET = 2**63 - 1
"""No slice can hold this offset: its end would be none."""


class Found(NamedTuple):
    """One document of an object.

    Attributes:
        document: What it says, but for key, value and all headers other than ``_id``, which may weigh a lot.
        position: Where it begins; None where it is the whole object.
        size_bytes: Its length.
        crc32: CRC-32 of its bytes.
        suppressed: Why its content was removed; None where it was not.
    """

    document: Document
    position: int | None
    size_bytes: int
    crc32: int
    suppressed: str | None = None

    def row(self, key: str, bucket: str, generation: int | None) -> Row:
        """Its row; of a document of another archiver, which has no digest, as that one leaves it: without place.

        Args:
            key: Of its object.
            bucket: In which that is.
            generation: Of its topic, where that is known.
        """
        document, message = self.document, self.document.message
        is_ours = bool(document.digest)
        return Row(
            topic=message.topic,
            generation=generation if is_ours else None,
            partition=message.partition if is_ours else None,
            offset=message.offset if is_ours else None,
            timestamp_ms=message.timestamp_ms,
            timestamp_type=message.timestamp_type if is_ours else None,
            uuid=document.uuid,
            is_client_uuid=document.is_client_uuid,
            digest=document.digest if is_ours else None,
            object_key=key,
            bucket=bucket,
            position=self.position,
            size_bytes=self.size_bytes,
            crc32=self.crc32,
            message_crc32=document.message_crc32,
            annotations=document.annotations,
        )


class Evidence(NamedTuple):
    """What one object holds.

    Attributes:
        info: The object.
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
    for info, pieces in itertools.groupby(_pieces(store, infos), key=lambda piece: piece.info):
        if is_segment_key(info.key):
            yield from _segment(info, pieces)
            continue
        piece = next(iter(pieces))
        found = piece.problem or _proven(info.key, piece.body, None)
        if isinstance(found, Found) and found.document.uuid != uuid_of(info.key):
            found = f"it holds message {found.document.uuid}"
        yield Evidence(info, (), [found]) if isinstance(found, str) else Evidence(info, [found])


class _Piece(NamedTuple):
    info: ObjectInfo
    body: bytes
    problem: str = ""


def _pieces(store: Store, infos: Iterable[ObjectInfo]) -> Iterator[_Piece]:
    """The bytes of each object in turn; one that is gone or became shorter is a problem of its own, not the end."""
    coming = ((info, extent) for info in infos for extent in _extents(info))
    asked: list[tuple[ObjectInfo, Extent]] = []
    given_up: ObjectInfo | None = None
    whole = False
    while not whole:
        again = [one for one in asked if one[0] is not given_up]
        asked = []
        rest = (one for one in itertools.chain(again, coming) if one[0] is not given_up)
        bodies = store.fetch(_asking(rest, asked))
        with contextlib.closing(cast("Generator[bytes]", bodies)):
            try:
                for body in bodies:
                    yield _Piece(asked.pop(0)[0], body)
                whole = True
            except (ObjectMissingError, CorruptError) as error:
                given_up = asked.pop(0)[0]
                yield _Piece(given_up, b"", str(error).rstrip("."))


def _asking(
    wanted: Iterable[tuple[ObjectInfo, Extent]], asked: list[tuple[ObjectInfo, Extent]]
) -> Iterator[Extent]:
    for one in wanted:
        asked.append(one)
        yield one[1]


def _extents(info: ObjectInfo) -> Iterator[Extent]:
    if not is_segment_key(info.key) or not info.size_bytes:
        yield Extent(info.key)
        return
    for start in range(0, info.size_bytes, _PIECE_BYTES):
        yield Extent(info.key, start, min(_PIECE_BYTES, info.size_bytes - start))


def _segment(info: ObjectInfo, pieces: Iterable[_Piece]) -> Iterator[Evidence]:
    """Documents end to end. One that is damaged within its length leaves the rest readable."""
    held, position = bytearray(), 0
    for piece in pieces:
        if piece.problem:
            yield Evidence(info, (), [piece.problem])
            return
        held += piece.body
        found: list[Found] = []
        problems: list[str] = []
        while len(held) >= 4:
            length = int.from_bytes(held[:4], "little", signed=True)
            if not _LEAST_BYTES <= length <= info.size_bytes - position:
                yield Evidence(info, found, [*problems, f"unreadable from byte {position} on"])
                return
            if length > len(held):
                break
            proven = _proven(info.key, bytes(held[:length]), position)
            if isinstance(proven, str):
                problems.append(f"at byte {position}: {proven}")
            else:
                found.append(proven)
            del held[:length]
            position += length
        yield Evidence(info, found, problems, is_whole=False)
    yield Evidence(info, (), [f"it ends within a document, at byte {position}"] if held else ())


def _proven(key: str, body: bytes, position: int | None) -> Found | str:
    """The document, or why it is not one that the archive would have stored there."""
    try:
        document = decode(body)
    except CorruptError as error:
        return str(error).rstrip(".")
    message = document.message
    if message.topic != topic_of(key):
        return f"it is of topic {message.topic}"
    if document.digest and not (message.partition >= 0 and 0 <= message.offset < _NO_OFFSET):
        return "it does not say where in its topic it stood"
    # Without what weighs, and rows do not have: thousands are held at once.
    headers = tuple((name, value) for name, value in message.headers if name == ID_HEADER)
    if sum(len(value or b"") for _, value in headers) > _MOST_ID_BYTES:
        headers = tuple(pair for pair in headers if pair[1] is not None and len(pair[1]) == 16)[:1]
    light = replace(document, message=replace(message, key=None, value=None, headers=headers))
    found = Found(light, position, len(body), crc32(body))
    if document.suppressed:  # such a document no longer proves itself by its content
        return found._replace(suppressed=document.suppressed)
    return doubt(document, body) or found
