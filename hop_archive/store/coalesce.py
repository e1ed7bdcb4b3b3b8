"""Extents put together into as few requests as is sensible. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hop_archive.errors import CorruptError
from hop_archive.model.frames import Frame, decompress
from hop_archive.store.protocol import Extent

MAX_SPAN_BYTES = 8 * 2**20
"""A request grows up to this: large enough that latency no longer counts, small enough to have some in flight."""

MAX_GAP_BYTES = 64 * 2**10
"""Bytes between two extents that are read and thrown away rather than asked for in a request of their own."""


@dataclass(slots=True)
class Span:
    """What one request reads, and the extents to be cut out of it.

    Attributes:
        stop: Byte after the last; None for all up to the end of the object.
        extents: What was asked for, in that order; each lies within the span.
    """

    key: str
    start: int
    stop: int | None
    extents: list[Extent] = field(default_factory=list)

    def take(self, extent: Extent) -> bool:
        """Read the extent along if that is sensible (same object, no way back, a small gap, not too much); whether it is."""
        start, end = _range(extent)
        if self.stop is None or end is None or extent.key != self.key:
            return False
        stop = max(self.stop, end)
        if not self.start <= start <= self.stop + MAX_GAP_BYTES or stop - self.start > MAX_SPAN_BYTES:
            return False
        self.stop = stop
        self.extents.append(extent)
        return True


def spans(extents: Iterable[Extent]) -> Iterator[Span]:
    """Put neighbouring extents of an object together; cut out again in turn they come in the order given.

    An extent above ``MAX_SPAN_BYTES`` is a span by itself. Reads ``extents`` one ahead of what it yields.
    """
    span: Span | None = None
    for extent in extents:
        if span is not None:
            if span.take(extent):
                continue
            yield span
        span = Span(extent.key, *_range(extent), [extent])
    if span is not None:
        yield span


def _range(extent: Extent) -> tuple[int, int | None]:
    """The bytes of the object that an extent is of, or is made of; the end is None for all up to the end.

    Those that there can be: of a place before the object's beginning, as an altered row may say it, ``cut`` finds too little.
    """
    start, length = (extent.position or 0, extent.length) if extent.frame is None else extent.frame
    return max(start, 0), None if length is None else max(start, start + length, 0)


def cut(span: Span, data: memoryview, place: str, bucket: str) -> Iterator[bytes]:
    """Yield the bytes of each extent of a span, in the order asked for. Holds the content of one frame.

    Raises:
        CorruptError: The data, which are shorter than the span where the object is, end before an extent does; or its frame
            is damaged.
    """
    frame, content = None, memoryview(b"")
    for extent in span.extents:
        if extent.frame is None:
            found = _part(extent, span.start, data)
            if found is None:
                raise _too_short(extent, span.start + len(data), place, bucket)
        else:
            if extent.frame != frame:
                content = memoryview(_content(extent, extent.frame, span, data, place, bucket))
                frame = extent.frame
            found = _part(extent, 0, content)
            if found is None:
                raise _too_short(extent, len(content), place, bucket)
        yield bytes(found)


def _part(extent: Extent, base: int, data: memoryview) -> memoryview | None:
    """What an extent is of data that begin at ``base``; None where they end before."""
    start = (extent.position or 0) - base
    stop = len(data) if extent.length is None else start + extent.length
    return data[start:stop] if 0 <= start <= stop <= len(data) else None


def _content(extent: Extent, frame: Frame, span: Span, data: memoryview, place: str, bucket: str) -> bytes:
    start = frame.position - span.start
    stop = start + frame.size_bytes
    if not 0 <= start <= stop <= len(data):
        raise _too_short(Extent(extent.key, *frame), span.start + len(data), place, bucket)
    allowed = None if extent.length is None else (extent.position or 0) + extent.length
    try:
        return decompress(data[start:stop], allowed)
    except CorruptError as error:
        raise CorruptError(
            f"{place}: object {extent.key} is damaged at byte {frame.position}: {error}",
            object_key=extent.key,
            bucket=bucket,
            frame=frame.position,
        ) from error


def _too_short(extent: Extent, end: int, place: str, bucket: str) -> CorruptError:
    position, frame = extent.position or 0, extent.frame
    of = (
        f"object {extent.key}"
        if frame is None
        else f"the frame at byte {frame.position} of object {extent.key}"
    )
    return CorruptError(
        f"{place}: {of} is too short. {extent.length} bytes from {position} on were wanted, and it ends at {end}.",
        object_key=extent.key,
        bucket=bucket,
        position=position,
        length=extent.length,
    )
