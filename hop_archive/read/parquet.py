"""Rows of the catalog as Parquet: their columns, and the way there. Exports and snapshots of the catalog are made of these."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hop_archive.catalog.records import COLUMNS, LedgerEntry, Outcome, Row
from hop_archive.model.slices import Slice

_KINDS = {
    "text": pa.string(),
    "uuid": pa.string(),
    "bytea": pa.binary(),
    "bool": pa.bool_(),
    "int2": pa.int8(),
    "int4": pa.int32(),
    "int8": pa.int64(),
}
SCHEMA = pa.schema(
    [
        *((name, _KINDS[kind]) for name, kind in COLUMNS.items()),
        ("file", pa.string()),
        ("file_position", pa.int64()),
    ]
)
"""The columns of ``messages``, and where in the folder the document or payload is; ``file`` is null for a payload that
is null. ``timestamp`` stays a number of milliseconds: Kafka takes any, calendars do not."""

MESSAGES = pa.schema([field for field in SCHEMA if field.name not in ("topic", "file", "file_position")])
"""The columns of ``messages``; topic and month are in the folders' names."""
LEDGER = pa.schema(
    [
        ("generation", pa.int32()),
        ("partition", pa.int32()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("archived", pa.int64()),
        ("duplicates", pa.int64()),
        ("absent", pa.int64()),
        ("bytes", pa.int64()),
        ("run_id", pa.string()),
        ("created_at", pa.timestamp("us", tz="UTC")),
    ]
)
DUPLICATES = pa.schema(
    [
        ("generation", pa.int32()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.int64()),
        ("uuid", pa.string()),
        ("reason", pa.string()),
    ]
)


def cells_of(row: Row) -> tuple[object, ...]:
    """A row as Parquet has it, by the columns of ``SCHEMA`` but the last two."""
    cells = row.cells()
    return (*cells[:6], str(row.uuid), *cells[7:])


def ledger_cells(e: LedgerEntry) -> tuple[object, ...]:
    """A ledger row by the columns of ``LEDGER``; ``ledger_entry`` is the way back."""
    place = (e.slice.generation, e.slice.partition, e.slice.start, e.slice.stop, e.outcome.value, e.reason)
    return (*place, e.archived, e.duplicates, e.absent, e.size_bytes, e.run_id, e.created_at)


def ledger_entry(topic: str, row: Mapping[str, Any]) -> LedgerEntry:
    """A ledger row as a snapshot has it."""
    place = (row[name] for name in ("generation", "partition", "start", "stop"))
    rest = ("reason", "archived", "duplicates", "absent", "bytes", "run_id", "created_at")
    return LedgerEntry(Slice(topic, *place), Outcome(row["outcome"]), *(row[name] for name in rest))


def table_of(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    """Rows, of which there is at least one, as a table of these columns."""
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
