"""Extents put together into as few requests as is sensible. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hop_archive.errors import CorruptError
from hop_archive.store.protocol import Extent

MAX_SPAN_BYTES = 8 * 2**20
"""A request grows up to this: large enough that latency no longer counts, small enough to have some in flight."""

MAX_GAP_BYTES = 64 * 2**10
"""Bytes between two extents that are read and thrown away rather than asked for in a request of their own."""


@dataclass(slots=True)
class Span:
    """What one request reads, and the extents to be cut out of it.

    Attributes:
        key: Key of the object.
        start: First byte.
        stop: Byte after the last; None for all up to the end of the object.
        extents: What was asked for, in that order; each lies within the span.
    """

    key: str
    start: int
    stop: int | None
    extents: list[Extent] = field(default_factory=list)

    def take(self, extent: Extent) -> bool:
        """Read the extent along if that is sensible: same object, no way back, a small gap, not too much.

        Returns:
            Whether it is read along.
        """
        key, position, length = extent
        if self.stop is None or length is None or key != self.key:
            return False
        start = position or 0
        stop = max(self.stop, start + length)
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
        start = extent.position or 0
        span = Span(extent.key, start, None if extent.length is None else start + extent.length, [extent])
    if span is not None:
        yield span


def cut(span: Span, data: memoryview, place: str, bucket: str) -> Iterator[bytes]:
    """Yield the bytes of each extent of a span, in the order asked for.

    Args:
        span: What was asked for.
        data: What came; shorter than the span where the object is shorter.
        place: The store, for messages.
        bucket: Its bucket.

    Raises:
        CorruptError: The data end before an extent does.
    """
    for extent in span.extents:
        start = (extent.position or 0) - span.start
        stop = len(data) if extent.length is None else start + extent.length
        if not start <= stop <= len(data):
            position = extent.position or 0
            raise CorruptError(
                f"{place}: object {extent.key} is too short. {extent.length} bytes from {position} on were wanted, and it "
                f"ends at {span.start + len(data)}.",
                object_key=extent.key,
                bucket=bucket,
                position=position,
                length=extent.length,
            )
        yield bytes(data[start:stop])
