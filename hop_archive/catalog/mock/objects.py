"""Rows joined to the objects that they name. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from hop_archive.catalog.records import Recorded


class Named(NamedTuple):
    """What a row says of its object."""

    key: str
    bucket: str
    topic: str
    position: int | None
    size_bytes: int
    uuid: uuid.UUID


def joined(rows: Iterable[Named]) -> Iterator[Recorded]:
    """The objects of rows that come sorted by key, then position; holds the rows of one object at a time."""
    for (key, bucket), found in groupby(rows, key=lambda row: (row.key, row.bucket)):
        first, count, end = None, 0, 0
        for row in found:
            first, count = first or row, count + 1
            end = max(end, (row.position or 0) + row.size_bytes)
        assert first is not None
        yield Recorded(key, bucket, first.topic, count, end, first.position is not None, first.uuid)
