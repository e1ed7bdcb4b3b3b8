"""The documents that an object holds, by their places in it. Does no I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hop_archive.catalog.records import DocumentPlace, Row
from hop_archive.errors import CorruptError
from hop_archive.model.frames import Frame, decompress, frames_in
from hop_archive.model.keys import is_compressed_key, is_segment_key

_LENGTH = struct.Struct("<i")


class ObjectContents:
    """The bytes of an object, and the documents in it, be it compressed or not. Holds the content of one frame beside them."""

    def __init__(self, key: str, body: bytes) -> None:
        self.key = key
        self.body = body
        self._frame: Frame | None = None
        self._content: bytes | None = None

    def at(self, row: Row) -> bytes | None:
        """The bytes that a row says its document is; None where there are none, or its frame is damaged."""
        if row.position is None:
            return self.body
        content, end = self._around(row), row.position + row.size_bytes
        return content[row.position : end] if content is not None and end <= len(content) else None

    def beginning_at(self, row: Row) -> bytes | None:
        """The document that begins where a row says that its does, by the length that it states; None where none can."""
        if row.position is None:
            return self.body
        content = self._around(row)
        return None if content is None else document_at(content, row.position)

    def documents(self) -> Iterator[tuple[DocumentPlace, bytes]]:
        """The documents in the order in which they stand; one that is no segment's is a whole object.

        In a segment a document whose length was damaged hides those after it, in a compressed one only those of its frame; so
        does a frame that is damaged itself.
        """
        if is_compressed_key(self.key):
            for frame in frames_in(self.body):
                for position, part in documents_in(self._content_of(frame, None) or b""):
                    yield DocumentPlace(self.key, position, *frame), part
        elif is_segment_key(self.key):
            for position, part in documents_in(self.body):
                yield DocumentPlace(self.key, position), part
        else:
            yield DocumentPlace(self.key), self.body

    def _around(self, row: Row) -> bytes | None:
        if row.frame is None:
            return self.body
        end = (row.position or 0) + row.size_bytes
        return self._content_of(Frame(row.frame, row.frame_size or 0), end)

    def _content_of(self, frame: Frame, most_bytes: int | None) -> bytes | None:
        if frame != self._frame:
            start = max(0, frame.position)
            try:
                content = decompress(self.body[start : start + frame.size_bytes], most_bytes)
            except CorruptError:
                return None  # not kept: whoever allows more may be given it
            self._frame, self._content = frame, content
        return self._content


def documents_in(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The documents that stand end to end, with their positions; ends where none begins.

    A document whose length was damaged hides those after it.
    """
    position = 0
    while (found := document_at(body, position)) is not None:
        yield position, found
        position += len(found)


def document_at(body: bytes, position: int) -> bytes | None:
    """The bytes of the document that begins at ``position``, by the length that it states; None where none can."""
    if not 0 <= position <= len(body) - 5:
        return None
    (length,) = _LENGTH.unpack_from(body, position)
    return body[position : position + length] if 5 <= length <= len(body) - position else None
