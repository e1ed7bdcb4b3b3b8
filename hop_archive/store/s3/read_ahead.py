"""Reading ahead of a consumer, by a bounded number of requests and of bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from hop_archive.store.coalesce import Span

FIRST_ROOM_BYTES = 2**20
"""Room kept for an object of unknown size until one that is larger has been met."""


Page = TypeVar("Page")


def pages_ahead(pages: Iterator[Page]) -> Iterator[Page]:
    """Yield pages, which another thread asks for while those before them are being used; two are ahead at most.

    Not so the second: who looks at the first only, as many do, shall not cost another request. Two, because a thread
    that has the next one to do at hand begins at once, and otherwise only when the reader lets it have the interpreter.
    """
    if (page := next(pages, None)) is None:
        return
    yield page
    pool = ThreadPoolExecutor(1, "pages-ahead")
    try:
        coming = deque(pool.submit(next, pages, None) for _ in range(2))
        while (page := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, pages, None))
            yield page
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class Fetched(NamedTuple):
    """What a request brought: the data; or None, because those would take more room than was kept for them."""

    data: memoryview | None
    size_bytes: int


Read = Callable[[Span, int | None], Fetched]
"""Reads a span, unless it takes more than that many bytes; None: whatever it takes."""


class _Asked(NamedTuple):
    span: Span
    room_bytes: int
    answer: Future[Fetched]


class ReadAhead:
    """Has spans read by threads of a pool, and hands them out in the order given.

    What was asked for and not yet taken is at most ``max_requests`` spans and ``max_bytes``, or one span where that is
    larger. A span of unknown size is asked for with the room that the one before took; when it turns out to need more,
    it is given up and read when its turn comes.
    What ``read`` raises is raised when the span's turn comes.
    """

    def __init__(self, read: Read, pool: Executor, *, max_requests: int, max_bytes: int) -> None:
        self._read = read
        self._pool = pool
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._ahead: deque[_Asked] = deque()
        self._held_bytes = 0
        self._usual_bytes = FIRST_ROOM_BYTES

    def run(self, wanted: Iterable[Span]) -> Iterator[tuple[Span, memoryview]]:
        """Yield each span with its data. Closing the iterator withdraws what has not begun."""
        try:
            for span in wanted:
                while self._ahead and (
                    len(self._ahead) >= self._max_requests
                    or self._held_bytes + self._room_bytes(span) > self._max_bytes
                ):
                    yield self._take()
                room_bytes = self._room_bytes(span)
                self._held_bytes += room_bytes
                self._ahead.append(_Asked(span, room_bytes, self._pool.submit(self._read, span, room_bytes)))
            while self._ahead:
                yield self._take()
        finally:
            for asked in self._ahead:
                asked.answer.cancel()

    def _room_bytes(self, span: Span) -> int:
        return self._usual_bytes if span.stop is None else span.stop - span.start

    def _take(self) -> tuple[Span, memoryview]:
        span, room_bytes, pending = self._ahead.popleft()
        answer = pending.result()
        self._held_bytes -= room_bytes
        if answer.data is None:
            answer = self._pool.submit(self._read, span, None).result()
        if span.stop is None:
            self._usual_bytes = max(FIRST_ROOM_BYTES, answer.size_bytes)
        assert answer.data is not None
        return span, answer.data
