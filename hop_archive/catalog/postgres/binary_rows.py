"""Rows of messages in COPY's binary format (PostgreSQL documentation, COPY, "Binary Format"), written by hand.

In 0.43 of the time of psycopg's formatter, which is C (own CPU, 24 columns, 2026-11-29): in a batch most cells are the same for
long, and those that differ from row to row are of fixed size. What psycopg would write is the judge, in
``unit/catalog/test_binary_rows.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hop_archive.catalog.records import COLUMNS, Row

SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"

_BLOCK_PARTS = 1_000
"""Parts of rows that are handed over at once, of 200 rows mostly: about 50 KB."""
_DIGEST_BYTES = 16

_MOST_REMEMBERED, _LARGEST_BYTES = 1_000, 1_024
"""Parts of a row that are remembered for the next rows of a batch, and how long the longest is."""

_TYPES = [*COLUMNS.values(), "int8"]
_COUNT = struct.Struct(">h").pack(len(_TYPES))
_LENGTH = struct.Struct(">i").pack
_NULL = _LENGTH(-1)
_WRITTEN: dict[str, Callable[[Any], bytes]] = {
    "bool": struct.Struct(">?").pack,
    "bytea": bytes,
    "int2": struct.Struct(">h").pack,
    "int4": struct.Struct(">i").pack,
    "int8": struct.Struct(">q").pack,
    "text": str.encode,
    "uuid": lambda value: value.bytes,
}

# The cells that differ from row to row, each with its length before it: from the offset to the digest, and after the keys.
_OFFSET_TO_DIGEST = struct.Struct(">iqiqihi16si?i16s").pack
_POSITION_TO_CRCS = struct.Struct(">iqiiiqiq").pack
_SIZE_CRCS = struct.Struct(">iiiqiq").pack


def binary_rows(rows: Iterable[Row], number: int) -> Iterator[bytes]:
    """The rows in blocks, each as one of ledger row ``number``; ``SIGNATURE`` goes before them all, ``END`` after them.

    The encoding of catalogs and of connections to them is UTF-8 (``migrate``, ``DatabaseServer``).
    """
    block: list[bytes] = []
    remembered: dict[tuple[Any, ...], bytes] = {}
    last: tuple[Any, ...] = ("", None, None, "", "", None, None, None, None)
    log = keys = notes = b""
    for row in rows:
        (
            topic, generation, partition, offset, timestamp_ms, clock, own, is_client, digest, object_key, bucket,
            position, size, crc, value_crc, annotations, retracted, frame, frame_size,
        ) = row  # fmt: skip
        if offset is None or clock is None or digest is None or len(digest) != _DIGEST_BYTES:
            block.append(_COUNT + _written(_TYPES, (*row.cells(), number)))  # of another archiver
            continue
        same = (topic, generation, partition, object_key, bucket, annotations, retracted, frame, frame_size)
        if same != last:  # seldom: it is not written anew, but for what differs
            if same[:3] != last[:3]:
                log = _COUNT + _written(_TYPES[:3], same[:3])
            if same[3:5] != last[3:5]:
                keys = _written(_TYPES[9:11], same[3:5])
            if same[5:] != last[5:]:
                notes = _notes(same[5:], number, remembered)
            last = same
        block += (
            log,
            _OFFSET_TO_DIGEST(8, offset, 8, timestamp_ms, 2, clock, 16, own.bytes, 1, is_client, 16, digest),
            keys,
            _NULL + _SIZE_CRCS(4, size, 8, crc, 8, value_crc)
            if position is None
            else _POSITION_TO_CRCS(8, position, 4, size, 8, crc, 8, value_crc),
            notes,
        )
        if len(block) >= _BLOCK_PARTS:
            yield b"".join(block)
            block.clear()
    yield b"".join(block)


def _notes(rest: tuple[Any, ...], number: int, remembered: dict[tuple[Any, ...], bytes]) -> bytes:
    """The cells from the annotations on; those of publishers who take turns are remembered."""
    notes = remembered.get(rest)
    if notes is None:
        notes = _written(_TYPES[15:], (*rest[0], *rest[1:], number))
        if len(notes) <= _LARGEST_BYTES and len(remembered) < _MOST_REMEMBERED:
            remembered[rest] = notes
    return notes


def _written(types: Sequence[str], cells: Sequence[Any]) -> bytes:
    """Cells one after another, each with its length before it."""
    parts: list[bytes] = []
    for kind, cell in zip(types, cells, strict=True):
        if cell is None:
            parts.append(_NULL)
        else:
            written = _WRITTEN[kind](cell)
            parts += (_LENGTH(len(written)), written)
    return b"".join(parts)
