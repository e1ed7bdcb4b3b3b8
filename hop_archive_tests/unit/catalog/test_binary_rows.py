"""Rows as COPY takes them: what is written by hand is what psycopg writes."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg._copy_base import BinaryFormatter
from psycopg.adapt import Transformer
from psycopg.pq import Format

from hop_archive.catalog.postgres.binary_rows import END, SIGNATURE, binary_rows
from hop_archive.catalog.records import COLUMNS, Row
from hop_archive.model.annotations import Annotations
from hop_archive.model.message import TimestampType
from hop_archive_tests.strategies import GREATEST_INT64, LEAST_INT64

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
int4, int8 = st.integers(0, 2**31 - 1), st.integers(LEAST_INT64, GREATEST_INT64)
crcs = st.integers(0, 2**32 - 1)


def some_of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Often the same, and often none: what is remembered of a row is met by others that are nearly the same."""
    return st.one_of(st.none(), values)


rows: st.SearchStrategy[Row] = st.builds(
    Row,
    topic=st.sampled_from(["a", "ä.b"]),
    generation=some_of(st.integers(1, 2)),
    partition=some_of(st.integers(0, 1)),
    offset=some_of(int8),
    timestamp_ms=int8,
    timestamp_type=some_of(st.sampled_from(TimestampType)),
    uuid=st.uuids(),
    is_client_uuid=st.booleans(),
    digest=st.one_of(st.none(), st.just(b""), st.binary(min_size=16, max_size=16)),
    object_key=st.sampled_from(["k", "another key"]),
    bucket=st.sampled_from(["b", "c"]),
    position=some_of(st.one_of(st.just(0), int8)),
    size_bytes=int4,
    crc32=crcs,
    message_crc32=crcs,
    annotations=st.one_of(
        st.just(Annotations()), st.builds(Annotations, st.booleans(), st.booleans(), *[texts] * 5)
    ),
    retracted=st.booleans(),
    frame=some_of(st.integers(0, 2)),
    frame_size=some_of(st.integers(0, 2)),
)


def by_psycopg(some: list[Row], number: int) -> bytes:
    transformer = Transformer()
    oids = [psycopg.adapters.types.get_oid(kind) for kind in (*COLUMNS.values(), "int8")]
    transformer.set_dumper_types(oids, Format.BINARY)
    formatter = BinaryFormatter(transformer)
    written = b"".join(bytes(formatter.write_row((*row.cells(), number))) for row in some)
    return written + bytes(formatter.end())


@given(st.lists(rows, min_size=1, max_size=6), st.integers(1, 2**40))
def test_rows_are_written_as_psycopg_writes_them(some: list[Row], number: int) -> None:
    assert SIGNATURE + b"".join(binary_rows(some, number)) + END == by_psycopg(some, number)


@pytest.mark.parametrize("count", [199, 200, 201, 1_000])
def test_many_rows_come_in_blocks_and_whole(count: int) -> None:
    row = Row(
        "t",
        1,
        0,
        0,
        1,
        TimestampType.CREATE,
        uuid.UUID(int=1),
        True,
        bytes(16),
        "k",
        "b",
        0,
        9,
        1,
        2,
        Annotations(),
    )
    some = [row._replace(offset=n, position=n) for n in range(count)]
    blocks = [*binary_rows(some, 7)]
    assert len(blocks) == count // 200 + 1
    assert SIGNATURE + b"".join(blocks) + END == by_psycopg(some, 7)
