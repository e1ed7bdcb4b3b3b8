"""Documents by their catalog rows, one after another, fetched ahead, with what is wrong of each beside it."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain
from typing import Generic, NamedTuple, TypeAlias, TypeVar, cast

from hop_archive.catalog.records import Row
from hop_archive.errors import CorruptError, ObjectMissingError
from hop_archive.model.document import Document
from hop_archive.read.check import check, extent_of
from hop_archive.store.protocol import Extent, Store

Decoded = TypeVar("Decoded")


class FetchedAs(NamedTuple, Generic[Decoded]):
    """One row and what was found for it.

    Attributes:
        row: The row.
        body: The stored bytes; b"" where there are none.
        document: What they decode to; None where they do not.
        problems: In what they are not what the row describes; empty where all is well.
        error: Why there are no bytes: the object is missing, or ends too soon; None where there are some.
    """

    row: Row
    body: bytes
    document: Decoded | None
    problems: tuple[str, ...]
    error: ObjectMissingError | CorruptError | None = None


Fetched: TypeAlias = FetchedAs[Document]
"""One row and the document that was found for it."""


def fetch_documents(store: Store, rows: Iterable[Row]) -> Iterator[Fetched]:
    """Fetch and check the document of each row, in the order given, in bounded memory; see ``fetch_checked``."""
    return fetch_checked(store, rows, check)


def fetch_checked(
    store: Store,
    rows: Iterable[Row],
    check: Callable[[Row, bytes], tuple[Decoded | None, tuple[str, ...]]],
) -> Iterator[FetchedAs[Decoded]]:
    """Fetch the document of each row, in the order given, and ``check`` it, in bounded memory.

    Rows are read as far ahead as the store fetches ahead. An object that is missing or too short is a problem of
    its row, and the rest follows all the same. (What was fetched ahead is then fetched again: damage is rare.)

    Raises:
        UnavailableError: The store does not answer.
    """
    coming = iter(rows)
    asked: deque[Row] = deque()
    whole = False
    while not whole:
        again = list(asked)
        asked.clear()
        bodies = store.fetch(_asking(chain(again, coming), asked))
        with contextlib.closing(cast("Generator[bytes]", bodies)):
            try:
                for body in bodies:
                    row = asked.popleft()
                    yield FetchedAs(row, body, *check(row, body))
                whole = True
            except (ObjectMissingError, CorruptError) as error:
                yield FetchedAs(asked.popleft(), b"", None, (str(error).rstrip("."),), error)


def _asking(rows: Iterable[Row], asked: deque[Row]) -> Iterator[Extent]:
    for row in rows:
        asked.append(row)
        yield extent_of(row)
