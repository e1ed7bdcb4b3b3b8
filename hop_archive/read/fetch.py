"""Documents by their catalog rows, one after another, fetched ahead, with what is wrong of each beside it."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, NamedTuple, TypeAlias, TypeVar, cast

from hop_archive.catalog.records import Row
from hop_archive.errors import CorruptError, ObjectFrozenError, ObjectMissingError
from hop_archive.model.document import Document
from hop_archive.read.check import check, extent_of
from hop_archive.store.protocol import Extent, Store

_PORTION_ROWS, _PORTION_BYTES = 1_000, 32 * 2**20

Decoded = TypeVar("Decoded")
Thing = TypeVar("Thing")


NoBytes: TypeAlias = ObjectMissingError | CorruptError | ObjectFrozenError
"""Why there are no bytes of a document."""

DAMAGED: tuple[type[NoBytes], ...] = (ObjectMissingError, CorruptError)
OR_FROZEN: tuple[type[NoBytes], ...] = (*DAMAGED, ObjectFrozenError)
"""For who tells of each document that cannot be read: what is in cold storage is no damage, and nobody may go on without a word."""


class FetchedAs(NamedTuple, Generic[Decoded]):
    """One row and what was found for it.

    Attributes:
        body: The stored bytes; b"" where there are none.
        document: What they decode to; None where they do not.
        problems: In what they are not what the row describes; empty where all is well.
        error: Why there are no bytes: the object is missing, ends too soon, or is in cold storage; None where there are some.
    """

    row: Row
    body: bytes
    document: Decoded | None
    problems: tuple[str, ...]
    error: NoBytes | None = None


Fetched: TypeAlias = FetchedAs[Document]
"""One row and the document that was found for it."""


Find: TypeAlias = Callable[[uuid.UUID], Row | None]
"""Asks the catalog for the row of a message, as it is now."""


def fetch_documents(
    store: Store, rows: Iterable[Row], find: Find | None = None, of_one: tuple[type[NoBytes], ...] = DAMAGED
) -> Iterator[Fetched]:
    """Fetch and check the document of each row, in the order given, in bounded memory; see ``fetch_checked``."""
    return fetch_checked(store, rows, check, find, of_one)


def fetch_checked(
    store: Store,
    rows: Iterable[Row],
    check: Callable[[Row, bytes], tuple[Decoded | None, tuple[str, ...]]],
    find: Find | None = None,
    of_one: tuple[type[NoBytes], ...] = DAMAGED,
) -> Iterator[FetchedAs[Decoded]]:
    """Fetch the document of each row, in the order given, and ``check`` it, in bounded memory.

    An object that is missing or too short is a problem of its row, and the rest follows all the same, as is one in cold storage
    where ``of_one`` says so: see ``fetch_each``.
    Where an object is missing, ``find`` tells whether the document was moved since the row was read: then it comes from
    where it stands now, with the row that says so.

    Raises:
        UnavailableError: The store does not answer.
    """
    for asked, found in fetch_each(store, ((row, extent_of(row)) for row in rows), of_one):
        row, body = asked, found
        if isinstance(body, ObjectMissingError) and find is not None:
            now = find(row.uuid)
            if now is not None and extent_of(now) != extent_of(row):
                ((row, body),) = fetch_each(store, [(now, extent_of(now))], of_one)
        if isinstance(body, bytes):
            yield FetchedAs(row, body, *check(row, body))
        else:
            yield FetchedAs(row, b"", None, (str(body).rstrip("."),), body)


def was_removed(fetched: FetchedAs[Decoded], find: Find) -> bool:
    """Whether a document is missing because its message was removed since its row was read: then it is no damage."""
    return isinstance(fetched.error, ObjectMissingError) and find(fetched.row.uuid) is None


def fetch_in_portions(
    store: Store,
    rows: Iterable[Row],
    check: Callable[[Row, bytes], tuple[Decoded | None, tuple[str, ...]]],
    find: Find | None = None,
) -> Iterator[FetchedAs[Decoded]]:
    """As ``fetch_checked``, for an order that goes to and fro between objects, or backwards in one.

    Of some rows at a time all documents are held, and asked for as they stand in the store: neighbours by one request.
    """
    for portion in _portions(rows):
        stored = sorted(
            range(len(portion)), key=lambda n: (portion[n].object_key, portion[n].place_in_object)
        )
        found = fetch_checked(store, [portion[n] for n in stored], check, find)
        by_number = dict(zip(stored, found, strict=True))
        yield from (by_number.pop(number) for number in range(len(portion)))


def _portions(rows: Iterable[Row]) -> Iterator[list[Row]]:
    portion: list[Row] = []
    size_bytes = 0
    for row in rows:
        if portion and (len(portion) == _PORTION_ROWS or size_bytes + row.size_bytes > _PORTION_BYTES):
            yield portion
            portion, size_bytes = [], 0
        portion.append(row)
        size_bytes += row.size_bytes
    if portion:
        yield portion


def fetch_each(
    store: Store, wanted: Iterable[tuple[Thing, Extent]], of_one: tuple[type[NoBytes], ...] = DAMAGED
) -> Iterator[tuple[Thing, bytes | NoBytes]]:
    """Fetch an extent for each thing, in the order given: its bytes, or why there are none.

    Things are taken as far ahead as the store fetches ahead. (After one without bytes, what was fetched ahead is fetched
    again: damage is rare. Not so what follows it in the same damaged frame, or missing object: that is told the same.)

    Args:
        store: Where from.
        wanted: What, and which extent it is.
        of_one: The errors that are told of their own thing; others end it.

    Raises:
        UnavailableError: The store does not answer.
        ObjectFrozenError: An object is in cold storage, unless that is told of its own thing.
    """
    coming = iter(wanted)
    while True:
        ahead, coming = itertools.tee(coming)  # which keeps what is asked for and did not come yet
        bodies = store.fetch(extent for _, extent in ahead)
        with contextlib.closing(cast("Generator[bytes]", bodies)):
            try:
                for body in bodies:
                    yield next(coming)[0], body
                return
            except of_one as error:
                thing, failed = next(coming)
                yield thing, error
                for following in coming:
                    extent = following[1]
                    of_damaged_frame = "frame" in error.facts and extent.frame == failed.frame
                    fails_alike = not isinstance(error, CorruptError) or of_damaged_frame
                    if extent.key != failed.key or not fails_alike:
                        coming = itertools.chain([following], coming)
                        break
                    yield following[0], error
