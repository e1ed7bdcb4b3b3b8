"""What was written where, message by message: the map from old to new offsets, as Parquet files of one target."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from hop_archive.catalog.stored import Stored
from hop_archive.model.message import TopicPartition
from hop_archive.model.slices import PartitionLog
from hop_archive.read.parquet import ROW_GROUP, TIME, ParquetFile, columns, time_cells

SCHEMA = columns(
    ("topic", pa.string()),
    ("generation", pa.int32()),
    ("partition", pa.int32()),
    ("offset", pa.int64()),
    ("uuid", pa.uuid()),
    ("timestamp", pa.int64()),
    TIME,
    ("digest", pa.binary(16)),
    ("target_topic", pa.string()),
    ("target_partition", pa.int32()),
    ("target_offset", pa.int64()),
)
"""``generation``, ``partition`` and ``offset`` are null where nobody knows where a message stood. ``digest`` is that of
the message as it was written. ``timestamp`` and ``time`` are as in other tables."""

FILE_ROWS = 1_000_000
"""Rows of one file, some 30 MB: what is held at once while it is put into the store."""


_COMPARED = pa.schema([SCHEMA.field(name) for name in ("uuid", "timestamp", "digest", "target_offset")])


class Entry(NamedTuple):
    """What of one message is compared with what stands in the target; see ``SCHEMA``."""

    uuid: UUID
    timestamp: int
    digest: bytes
    target_offset: int


class Entries(NamedTuple):
    """The same of messages that stand one after another: columns. Values of ``uuids`` are made where they are asked for."""

    uuids: pa.ChunkedArray
    timestamps: list[int]
    digests: list[bytes]
    target_offsets: list[int]

    def one_by_one(self) -> Iterator[Entry]:
        """Each of them."""
        return map(Entry._make, zip(self.uuids.to_pylist(), *self[1:], strict=True))


class Journal(contextlib.ExitStack):
    """The entries of one target topic, a row of files for each partition. Use as a context manager.

    Args:
        folder: Where the files go; nothing else is in it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._written: dict[int, list[ParquetFile]] = {}

    def add(
        self,
        topic: str,
        partition_log: PartitionLog | None,
        target: TopicPartition,
        first_offset: int,
        stored: Sequence[Stored],
        digests: Sequence[bytes],
    ) -> None:
        """Add messages that stand in the target one after another from an offset on: by partition in order of these.

        Args:
            topic: In which they stood.
            partition_log: Where; None where nobody knows.
            target: Where they stand.
            first_offset: Of the first of them there.
            stored: What the catalog knows of each.
            digests: Of each, as it was written.
        """
        written = self._written.setdefault(target.partition, [])
        if not written or written[-1].rows >= FILE_ROWS:
            for full in written[-1:]:
                full.close()
            name = f"{target.partition:06}-{len(written):04}.parquet"  # sorts by both
            written.append(self.enter_context(ParquetFile(self._folder / name, SCHEMA)))
        count = len(stored)
        timestamps = [message.timestamp_ms for message in stored]
        cells: list[Any] = [
            pa.repeat(pa.scalar(topic), count),
            _repeated(partition_log and partition_log.generation, count),
            _repeated(partition_log and partition_log.partition, count),
            [message.offset for message in stored],
            [message.uuid for message in stored],
            timestamps,
            time_cells(timestamps),
            digests,
            pa.repeat(pa.scalar(target.topic), count),
            _repeated(target.partition, count),
            range(first_offset, first_offset + count),
        ]
        written[-1].add_columns(cells)


def _repeated(number: int | None, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(number, pa.int32()), count)


def files(folder: Path) -> list[Path]:
    """The files of a journal, in order."""
    return sorted(folder.glob("*.parquet")) if folder.is_dir() else []


def partitions(folder: Path) -> list[int]:
    """The target's partitions that have entries, in order."""
    return sorted({int(path.name.partition("-")[0]) for path in files(folder)})


def count(folder: Path, partition: int) -> int:
    """How many entries a partition has."""
    return sum(pq.read_metadata(path).num_rows for path in folder.glob(f"{partition:06}-*.parquet"))


class EntryReader:
    """The entries of one partition in order of the target's offsets, read as they are asked for."""

    def __init__(self, folder: Path, partition: int) -> None:
        self._batches = _batches(folder, partition)
        self._left: pa.RecordBatch | None = None

    def take(self, most: int) -> Entries:
        """The next ones, fewer at the end."""
        parts: list[pa.RecordBatch] = []
        while most > 0 and (batch := self._left or next(self._batches, None)):
            parts.append(batch.slice(0, most))
            self._left = batch.slice(parts[-1].num_rows)
            most -= parts[-1].num_rows
        uuids, *others = pa.Table.from_batches(parts, _COMPARED).columns
        return Entries(uuids, *(column.to_pylist() for column in others))


def _batches(folder: Path, partition: int) -> Iterator[pa.RecordBatch]:
    for path in sorted(folder.glob(f"{partition:06}-*.parquet")):
        with contextlib.closing(pq.ParquetFile(path)) as file:
            yield from file.iter_batches(ROW_GROUP, columns=_COMPARED.names)
