"""Contents of stored messages, in bulk: fetched by large ranges, and each proven to be what the catalog knows.

By size, CRC-32, UUID and recorded digest, which is all that can differ where the bytes are those that were stored: at 4 µs for
a message of 1 KB, where ``check`` takes 30 (2026-11-29). Where one differs, that tells in what, by the whole row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zlib_ng.zlib_ng import crc32

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.stored import Stored
from hop_archive.errors import CorruptError, ObjectMissingError
from hop_archive.model.content import Content, content_of
from hop_archive.model.frames import Frame
from hop_archive.read.check import check
from hop_archive.read.fetch import NoBytes, fetch_each
from hop_archive.store.protocol import Extent, Store

TOGETHER_BYTES = 8 * 2**20
"""Neighbours are fetched as one up to this size, as much as a store asks for at once."""

_GAP_BYTES = 64 * 2**10
"""Bytes between two of them that are read and thrown away."""


def extent_of(stored: Stored) -> Extent:
    """Where one document is, in either layout, compressed or not."""
    length = None if stored.position is None else stored.size_bytes
    frame = None if stored.frame is None or length is None else Frame(stored.frame, stored.frame_size or 0)
    return Extent(stored.object_key, stored.position, length, frame)


def fetch_bodies(store: Store, wanted: Sequence[Stored]) -> Iterator[list[tuple[Stored, bytes | NoBytes]]]:
    """The documents in the order given, some at a time, each with its bytes, or with why there are none.

    Those that stand together, in an object or in a frame of one, are fetched as one extent; where that fails, one by one.
    Of what is fetched a range, or the content of a frame, is held at a time, besides what the store reads ahead.

    Raises:
        UnavailableError: The store does not answer.
    """
    for together, data in fetch_each(store, ((some, _whole(some)) for some in _together(wanted))):
        if not isinstance(data, bytes):
            yield list(fetch_each(store, [(stored, extent_of(stored)) for stored in together]))
            continue
        start = together[0].position or 0
        bodies: list[tuple[Stored, bytes | NoBytes]] = []
        for stored in together:
            at = (stored.position or 0) - start
            bodies.append((stored, data[at : at + stored.size_bytes]))
        yield bodies


def _together(wanted: Sequence[Stored]) -> Iterator[Sequence[Stored]]:
    """Neighbours that one extent reaches over, in the order given: of one object, or of one frame in it, with small gaps."""
    first = begin = end = 0
    of: tuple[str, int | None] | None = None
    for at, stored in enumerate(wanted):
        _, _, _, _, key, position, size_bytes, _, frame, _ = stored
        if (
            position is None
            or of != (key, frame)
            or not 0 <= position - end <= _GAP_BYTES
            or position + size_bytes - begin > TOGETHER_BYTES
        ):
            if at:
                yield wanted[first:at]
            first, begin = at, position or 0
            of = None if position is None else (key, frame)
        end = (position or 0) + size_bytes
    if wanted:
        yield wanted[first:]


def _whole(together: Sequence[Stored]) -> Extent:
    """The extent that reaches over all of these."""
    first, last = together[0], together[-1]
    if first.position is None or len(together) == 1:
        return extent_of(first)
    stop = (last.position or 0) + last.size_bytes
    return extent_of(first)._replace(length=stop - first.position)


def proven(stored: Stored, body: bytes) -> Content | None:
    """The content, where ``body`` is the very document that the catalog knows; None where it is not, or only ``check`` can tell."""
    if len(body) != stored.size_bytes or crc32(body) != stored.crc32:
        return None
    try:
        found = content_of(body, stored.uuid)
    except CorruptError:
        return None
    return found if found.uuid and (found.digest == stored.digest or stored.digest is None) else None


def examined(
    catalog: Catalog, store: Store, stored: Stored, body: bytes | NoBytes
) -> tuple[Content | None, str]:
    """The content of what is not ``proven``, if it is one after all; None, and in what it is not what its row describes.

    Where its object is missing, it is looked for where the row says by now: it may have been moved since it was read. What
    stands there may be what is left of a content that was removed for good, which is no content.

    Raises:
        UnavailableError: Catalog or store do not answer.
    """
    row = catalog.find(stored.message_uuid)
    if row is None:
        return None, "its row is not in the catalog any more"
    now = Stored.of(row)
    if isinstance(body, ObjectMissingError) and extent_of(now) != extent_of(stored):
        ((_, body),) = fetch_each(store, [(now, extent_of(now))])
    if not isinstance(body, bytes):
        return None, str(body).rstrip(".")
    document, problems = check(row, body)  # which also knows a UUID that is written in another way
    if document is None or problems:
        return None, "; ".join(problems)
    if document.suppressed:
        return None, "its content was removed for good"
    found, message = content_of(body, stored.uuid), document.message
    received = [*message.headers]
    made_id = found.made_id or len(received) < len(found.headers)
    return found._replace(
        uuid=stored.uuid, headers=received, made_id=made_id, size_bytes=message.size_bytes
    ), ""
