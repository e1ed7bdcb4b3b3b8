"""Documents against their rows: the quick ways to check say what the thorough one does, of whatever differs."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from dataclasses import replace

import bson
import pytest

from hop_archive.catalog.records import Row
from hop_archive.ingest.follow import catch_up
from hop_archive.model.document import Document, crc32, decode, encode
from hop_archive.model.message import TimestampType
from hop_archive.read.check import check, check_message, prove
from hop_archive.read.fetch import fetch_documents
from hop_archive_tests.worlds import BUSY, World, awkward_world, exhausted


@pytest.fixture
def stored() -> list[tuple[Row, bytes]]:
    world: World = awkward_world()
    exhausted(catch_up(world.archive()))
    return [(fetched.row, fetched.body) for fetched in fetch_documents(world.store, world.catalog.rows(BUSY))]


def described(row: Row, body: bytes) -> tuple[Row, bytes]:
    """A row that says the size and the CRC-32 of these bytes: what is left to differ is what they mean."""
    return row._replace(size_bytes=len(body), crc32=crc32(body)), body


def rows_that_differ(row: Row) -> Iterator[Row]:
    yield row._replace(size_bytes=row.size_bytes + 1)
    yield row._replace(crc32=row.crc32 ^ 1)
    yield row._replace(uuid=uuid.UUID(int=5))
    yield row._replace(topic="another")
    yield row._replace(timestamp_ms=row.timestamp_ms + 1)
    yield row._replace(partition=7)
    yield row._replace(offset=4_000)
    yield row._replace(timestamp_type=TimestampType.NONE)
    yield row._replace(message_crc32=row.message_crc32 ^ 1)
    yield row._replace(digest=b"d" * 16)
    yield row._replace(annotations=row.annotations._replace(title="another"))
    yield row._replace(generation=None, partition=None, offset=None, timestamp_type=None, digest=None)


def documents_that_differ(document: Document) -> Iterator[Document]:
    message = document.message
    yield replace(document, digest=b"d" * 16)
    yield replace(document, message=message._replace(value=b"forged"))
    yield replace(document, message=message._replace(key=b"forged"))
    yield replace(document, message=message._replace(headers=(*message.headers, ("more", None))))
    yield replace(document, message=message._replace(timestamp_type=TimestampType.APPEND))
    # Of these rows say nothing.
    yield replace(document, message=message._replace(leader_epoch=12))
    yield replace(document, message_crc32=document.message_crc32 ^ 1)
    yield replace(document, suppressed="it was a secret")


def odd_bytes(body: bytes) -> Iterator[bytes]:
    fields = bson.decode(body)
    yield b""
    yield body[:-1]
    yield bson.encode({**fields, "metadata": {**fields["metadata"], "timestamp_type": 99}})
    yield bson.encode({**fields, "metadata": {**fields["metadata"], "leader_epoch": "new"}})
    yield bson.encode({**fields, "message": datetime.datetime.now(datetime.UTC)})


def cases(row: Row, body: bytes) -> Iterator[tuple[Row, bytes]]:
    yield row, body
    yield from ((changed, body) for changed in rows_that_differ(row))
    yield from (described(row, encode(changed)) for changed in documents_that_differ(decode(body)))
    yield from (described(row, odd) for odd in odd_bytes(body))


def test_every_way_to_check_says_the_same(stored: list[tuple[Row, bytes]]) -> None:
    for row, body in (case for pair in stored for case in cases(*pair)):
        document, problems = check(row, body)
        assert check_message(row, body) == (document and (document.message, ()), problems)


def test_proving_finds_what_checking_finds(stored: list[tuple[Row, bytes]]) -> None:
    for row, body in stored:
        changed = [(other, body) for other in rows_that_differ(row)]
        changed += [described(row, encode(other)) for other in documents_that_differ(decode(body))]
        assert [prove(*pair)[1] for pair in changed] == [check(*pair)[1] for pair in changed]
        assert prove(row, body) == (None, ())


def test_what_differs_is_found(stored: list[tuple[Row, bytes]]) -> None:
    for row, body in stored:
        assert check_message(row, body) == ((decode(body).message, ()), ())
        *changed, adopted = rows_that_differ(row)
        assert [check_message(other, body)[1] != () for other in changed] == [True] * len(changed)
        assert check_message(adopted, body)[1] == ()
        forged = [described(row, encode(other)) for other in documents_that_differ(decode(body))][:5]
        assert [check_message(*pair)[1] != () for pair in forged] == [True] * 5
        odd = [described(row, other) for other in odd_bytes(body)]
        assert [check_message(*pair) for pair in odd] == [(None, check(*pair)[1]) for pair in odd]
