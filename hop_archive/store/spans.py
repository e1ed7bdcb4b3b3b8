"""Extents put together into as few requests as is sensible. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

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

    def takes(self, extent: Extent) -> bool:
        """Tell whether the extent may be read along: same object, no way back, a small gap, not too much."""
        if extent.key != self.key or self.stop is None or extent.length is None:
            return False
        start, stop = _bounds(extent)
        return (
            self.start <= start <= self.stop + MAX_GAP_BYTES
            and max(self.stop, stop or 0) - self.start <= MAX_SPAN_BYTES
        )

    def add(self, extent: Extent) -> None:
        """Read the extent along; the span grows as needed."""
        _, stop = _bounds(extent)
        if self.stop is not None and stop is not None:
            self.stop = max(self.stop, stop)
        self.extents.append(extent)


def spans(extents: Iterable[Extent]) -> Iterator[Span]:
    """Put neighbouring extents of an object together; cut out again in turn they come in the order given.

    An extent above ``MAX_SPAN_BYTES`` is a span by itself. Reads ``extents`` one ahead of what it yields.
    """
    span: Span | None = None
    for extent in extents:
        if span is not None and span.takes(extent):
            span.add(extent)
            continue
        if span is not None:
            yield span
        span = Span(extent.key, *_bounds(extent), [extent])
    if span is not None:
        yield span


def cut(span: Span, extent: Extent, data: memoryview) -> bytes | None:
    """Return the bytes of an extent out of those of its span; None when the data end before it does.

    Args:
        span: What was asked for.
        extent: One of its extents.
        data: What came; shorter than the span where the object is shorter.
    """
    start, stop = _bounds(extent)
    stop = span.start + len(data) if stop is None else stop
    if not start <= stop <= span.start + len(data):
        return None
    return bytes(data[start - span.start : stop - span.start])


def _bounds(extent: Extent) -> tuple[int, int | None]:
    start = extent.position or 0
    return start, None if extent.length is None else start + extent.length
