"""Rows of the catalog as Parquet: their columns, and the way there. Exports and snapshots of the catalog are made of these."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from hop_archive.catalog.records import COLUMNS, LedgerEntry, Outcome, Row
from hop_archive.model.message import NO_TIMESTAMP_MS
from hop_archive.model.slices import Slice

ROW_GROUP = 10_000
"""Rows that are held before they are written, or made part of a table: a few MB."""

_MOST_TABLES = 100
"""Tables that are held before they are made one: one of a single row takes 8 kB (pyarrow 26, 2026-11-29)."""

_KINDS = {
    "text": pa.string(),
    "uuid": pa.uuid(),
    "bytea": pa.binary(),
    "bool": pa.bool_(),
    "int2": pa.int8(),
    "int4": pa.int32(),
    "int8": pa.int64(),
}
TIME = ("time", pa.timestamp("ms", tz="UTC"))
_RANDOM = ("uuid", "digest")
"""Columns of which each value is another one: a dictionary of them took a fifth of a restore's map, and half of the time of writing it."""
_MAY_LACK = (
    "generation",
    "partition",
    "offset",
    "timestamp_type",
    "position",
    "frame",
    "frame_size",
    "file_position",
)
_CALENDAR_MS = range(-62_135_596_800_000, 253_402_300_800_000)
"""The years 1 to 9999."""


def columns(*fields: tuple[str, pa.DataType]) -> pa.Schema:
    """Columns, of which pandas is told that whole numbers that may be null are to stay such: else it would make them floats."""
    whole = [(name, str(kind), str(kind).replace("i", "I")) for name, kind in fields if name in _MAY_LACK]
    described = {
        "index_columns": [],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": of_pandas, "metadata": None}
            for name, kind, of_pandas in whole
        ],
    }
    return pa.schema(fields, metadata={"pandas": json.dumps(described)})


_OF_ROWS = [(name, _KINDS[kind]) for name, kind in COLUMNS.items()]
_OF_ROWS.insert(list(COLUMNS).index("timestamp") + 1, TIME)

ROWS = columns(*_OF_ROWS)
"""The columns of ``messages``. ``timestamp`` is a number of milliseconds: Kafka takes any. ``time`` beside it is the same as
a time; null where Kafka had none, or no calendar reaches it."""
WITH_VALUES = columns(*_OF_ROWS, ("value", pa.large_binary()))
"""Likewise, and the payload; null for null."""
SCHEMA = columns(*_OF_ROWS, ("file", pa.string()), ("file_position", pa.int64()))
"""Likewise, and where in the folder the document or payload is; ``file`` is null for a payload that is null."""
MESSAGES = columns(*_OF_ROWS[1:])
"""Likewise, without the topic; that and the month are in the folders' names."""
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
        TIME,
        ("uuid", pa.uuid()),
        ("reason", pa.string()),
    ]
)


def cells_of(row: Row) -> tuple[object, ...]:
    """A row as Parquet has it, by the columns of ``ROWS``."""
    cells = row.cells()
    return (*cells[:5], time_cell(row.timestamp_ms), cells[5], row.uuid.bytes, *cells[7:])


def time_cell(timestamp_ms: int) -> int | None:
    """A timestamp by the column ``time``."""
    return timestamp_ms if timestamp_ms != NO_TIMESTAMP_MS and timestamp_ms in _CALENDAR_MS else None


def time_cells(timestamps_ms: Sequence[int]) -> Sequence[int | None]:
    """Timestamps by the column ``time``."""
    if min(timestamps_ms, default=0) > NO_TIMESTAMP_MS and max(timestamps_ms, default=0) in _CALENDAR_MS:
        return timestamps_ms  # as nearly all are
    return [time_cell(timestamp_ms) for timestamp_ms in timestamps_ms]


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


def tables_of(rows: Iterable[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    """Rows, however many, as a table of these columns."""
    coming, tables = iter(rows), [schema.empty_table()]
    while some := list(islice(coming, ROW_GROUP)):
        tables.append(table_of(some, schema))
    return pa.concat_tables(tables)


class ParquetFile:
    """A Parquet file that takes a row at a time, and is written in groups of some thousand. Use as a context manager."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = path.open("wb")  # opened here: pyarrow takes no path that is not UTF-8
        repeating = [name for name in schema.names if name not in _RANDOM]
        self._writer = pq.ParquetWriter(
            self._file, schema, compression="zstd", use_dictionary=repeating or False
        )
        self._held: list[tuple[object, ...]] = []
        self._tables: list[pa.Table] = []
        self._held_rows = 0
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        self._file.close()

    def close(self) -> None:
        """Write what is held, and close the file; closing twice is harmless."""
        self.__exit__(None)

    def add(self, cells: tuple[object, ...]) -> None:
        """Add a row, by the columns of the schema."""
        self._held.append(cells)
        self._hold(1)

    def add_columns(self, columns: Sequence[Any]) -> None:
        """Add rows, after those that were added before, as columns of equal length: in 0.2 of the time of one by one."""
        self._gather()
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        self._tables.append(table)
        if len(self._tables) >= _MOST_TABLES:
            self._tables = [pa.concat_tables(self._tables).combine_chunks()]
        self._hold(table.num_rows)

    def _hold(self, rows: int) -> None:
        self.rows += rows
        self._held_rows += rows
        if self._held_rows >= ROW_GROUP:
            self._flush()

    def _gather(self) -> None:
        """Make a table of the rows that are held one by one."""
        if self._held:
            self._tables.append(table_of(self._held, self._schema))
            self._held = []

    def _flush(self) -> None:
        self._gather()
        if self._tables:
            self._writer.write_table(pa.concat_tables(self._tables))
            self._tables, self._held_rows = [], 0


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
