"""A batch as COPY takes it: text, one line a message, made in one go.

Text, made here in one string: see ``docs`` for how it compares with psycopg's row by row.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import psycopg

from hop_archive.catalog import sql
from hop_archive.catalog.protocol import Batch, Duplicate, Row

_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
"""What COPY's text format gives a meaning to (PostgreSQL 14, COPY, "Text Format")."""
_NULL = r"\N"
_BOOLEAN = ("f", "t")


def copy_messages(connection: psycopg.Connection, batch: Batch, number: int) -> None:
    """Insert the rows of ``batch``, in its open transaction, as those of ledger row ``number``.

    Raises:
        psycopg.errors.UniqueViolation: A UUID or an offset has a row already.
    """
    if batch.rows:
        where = f"{_text(batch.slice.topic)}\t{batch.slice.generation}\t{batch.slice.partition}"
        _copy(connection, sql.COPY_MESSAGES, [_message(where, number, row) for row in batch.rows])


def copy_duplicates(connection: psycopg.Connection, batch: Batch, number: int) -> None:
    """Insert the duplicates of ``batch``, in its open transaction, as those of ledger row ``number``.

    Raises:
        psycopg.errors.UniqueViolation: An offset is recorded already.
    """
    if batch.duplicates:
        where = f"{_text(batch.slice.topic)}\t{batch.slice.generation}\t{batch.slice.partition}\t{number}"
        _copy(connection, sql.COPY_DUPLICATES, [_duplicate(where, d) for d in batch.duplicates])


def _copy(connection: psycopg.Connection, statement: str, lines: Iterable[str]) -> None:
    data = "".join(lines).encode()
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(data)


def _message(where: str, number: int, row: Row) -> str:
    """One line, in the order of ``sql.COPY_MESSAGES``."""
    notes = row.annotations
    return (
        f"{where}\t{_text(row.bucket)}\t{number}\t{_BOOLEAN[notes.public]}\t{_text(row.object_key)}"
        f"\t{_text(notes.title)}\t{_text(notes.sender)}\t{_text(notes.media_type)}\t{_text(notes.file_name)}"
        f"\t{_text(notes.originator)}\t{row.timestamp_ms}\t{row.uuid.hex}\t{row.size_bytes}\t{row.crc32}"
        f"\t{_BOOLEAN[row.is_client_uuid]}\t{_BOOLEAN[notes.direct_upload]}\t{row.message_crc32}"
        f"\t{_BOOLEAN[row.retracted]}\t{row.offset}\t{_number(row.timestamp_type)}\t{_bytes(row.digest)}"
        f"\t{_number(row.position)}\n"
    )


def _duplicate(where: str, duplicate: Duplicate) -> str:
    """One line, in the order of ``sql.COPY_DUPLICATES``."""
    offset, timestamp_ms, own, reason = duplicate
    return f"{where}\t{offset}\t{timestamp_ms}\t{own.hex}\t{_text(reason)}\n"


@lru_cache(maxsize=4096)
def _text(value: str) -> str:
    """``value`` escaped; cached because within a batch most texts are alike."""
    return value.translate(_ESCAPES)


def _number(value: int | None) -> str:
    return _NULL if value is None else str(int(value))


def _bytes(value: bytes | None) -> str:
    return _NULL if value is None else rf"\\x{value.hex()}"
