"""The documents in an object, by the places that rows say: also where a row that was looked at before is wrong."""

from __future__ import annotations

import bson
import pytest

from hop_archive.catalog.records import Row
from hop_archive.ingest.placing import segment
from hop_archive.model.frames import MOST_SHARED_BYTES
from hop_archive.model.keys import segment_key
from hop_archive.read.contents import ObjectContents
from hop_archive_tests.contract.catalog_helpers import full_batch

KEY = segment_key("t", 1, 0, 0, 2, compressed=True)


@pytest.fixture
def bodies() -> list[bytes]:
    return [bson.encode({"a": bytes(MOST_SHARED_BYTES)}), bson.encode({"b": 1})]


def row_at(bodies: list[bytes], number: int, **wrong: int) -> Row:
    place = segment(KEY, bodies).places[number]
    row = full_batch(0, 1).rows[0]
    right = {**place._asdict(), "size_bytes": len(bodies[number])}
    return row._replace(**{**right, **wrong})


def test_a_row_that_allows_too_little_of_its_frame_hides_it_from_no_other(bodies: list[bytes]) -> None:
    held = ObjectContents(KEY, segment(KEY, bodies).objects[0].body)
    assert held.at(row_at(bodies, 0, size_bytes=100)) is None
    assert held.at(row_at(bodies, 0)) == bodies[0]
    held = ObjectContents(KEY, held.body)
    assert held.at(row_at(bodies, 0, size_bytes=100)) is None
    assert [part for _, part in held.documents()] == bodies
