"""What was written where, message by message: the map from old to new offsets, as Parquet files of one target."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("topic", pa.string()),
        ("generation", pa.int32()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("uuid", pa.binary(16)),
        ("timestamp", pa.int64()),
        ("digest", pa.binary(16)),
        ("target_topic", pa.string()),
        ("target_partition", pa.int32()),
        ("target_offset", pa.int64()),
    ]
)
"""``generation``, ``partition`` and ``offset`` are null where nobody knows where a message stood. ``digest`` is that of
the message as it was written. ``timestamp`` is in milliseconds since 1970."""

ROW_GROUP = 10_000
FILE_ROWS = 1_000_000
"""Rows of one file, some 30 MB: what is held at once while it is put into the store."""


class Entry(NamedTuple):
    """One message that stands in the target; see ``SCHEMA``."""

    topic: str
    generation: int | None
    partition: int | None
    offset: int | None
    uuid: bytes
    timestamp: int
    digest: bytes
    target_topic: str
    target_partition: int
    target_offset: int


class Journal:
    """The entries of one target topic, a row of files for each partition. Use as a context manager.

    Args:
        folder: Where the files go; nothing else is in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[int, list[Entry]] = {}
        self._counts: dict[int, int] = {}
        self._writers: dict[int, pq.ParquetWriter] = {}

    def __enter__(self) -> Journal:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for partition in [*self._held]:
            self._flush(partition)
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def add(self, entry: Entry) -> None:
        """Add an entry: by partition in order of the target's offsets."""
        held = self._held.setdefault(entry.target_partition, [])
        held.append(entry)
        if len(held) == ROW_GROUP:
            self._flush(entry.target_partition)

    def _flush(self, partition: int) -> None:
        held = self._held.get(partition, [])
        if not held:
            return
        columns = zip(*held, strict=True)
        arrays = [pa.array(column, type=kind) for column, kind in zip(columns, SCHEMA.types, strict=True)]
        written = self._counts.get(partition, 0)
        if partition not in self._writers:
            path = self._folder / f"{partition:06}-{written // FILE_ROWS:04}.parquet"  # sorts by both
            self._writers[partition] = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._writers[partition].write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
        self._counts[partition] = written + len(held)
        held.clear()
        if self._counts[partition] % FILE_ROWS == 0:
            self._writers.pop(partition).close()


def files(folder: Path) -> list[Path]:
    """The files of a journal, in order."""
    return sorted(folder.glob("*.parquet")) if folder.is_dir() else []


def partitions(folder: Path) -> list[int]:
    """The target's partitions that have entries, in order."""
    return sorted({int(path.name.partition("-")[0]) for path in files(folder)})


def count(folder: Path, partition: int) -> int:
    """How many entries a partition has."""
    return sum(pq.read_metadata(path).num_rows for path in folder.glob(f"{partition:06}-*.parquet"))


def entries(folder: Path, partition: int) -> Iterator[Entry]:
    """The entries of one partition, streamed in order of the target's offsets."""
    for path in sorted(folder.glob(f"{partition:06}-*.parquet")):
        with contextlib.closing(pq.ParquetFile(path)) as file:
            for batch in file.iter_batches(ROW_GROUP):
                columns: list[list[Any]] = [column.to_pylist() for column in batch.columns]
                yield from (Entry(*row) for row in zip(*columns, strict=True))
