"""Documents by their rows: what a damaged frame, or a missing object, costs, and how often it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from hop_archive.catalog.records import Row
from hop_archive.errors import CorruptError, ObjectFrozenError, ObjectMissingError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.document import crc32
from hop_archive.read.check import extent_of
from hop_archive.read.fetch import OR_FROZEN, fetch_documents, fetch_each
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent
from hop_archive_tests.cold_store import ColdStore
from hop_archive_tests.worlds import BUSY, World, awkward_world, exhausted


class CountingStore(MockStore):
    """Counts how often a fetch is begun."""

    fetches = 0

    def fetch(self, extents: Iterable[Extent]) -> Iterator[bytes]:
        self.fetches += 1
        return super().fetch(extents)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("hop_archive.model.frames.FRAME_BYTES", 1_000)
    made = awkward_world("zstd")
    made.store = CountingStore()
    exhausted(catch_up(made.archive(), overlap=0))
    return made


def damage(world: World, row: Row) -> None:
    assert row.frame is not None
    assert row.frame_size is not None
    body = bytearray(world.store._shelf.get(row.object_key) or b"")
    body[row.frame + row.frame_size - 1] ^= 1
    world.store.damage(row.object_key, bytes(body))


def test_every_document_is_read_back_out_of_its_frame(world: World) -> None:
    rows = list(world.catalog.rows(BUSY))
    found = list(fetch_documents(world.store, rows))
    assert [(len(one.body), crc32(one.body)) for one in found] == [(r.size_bytes, r.crc32) for r in rows]
    assert {one.problems for one in found} == {()}
    assert len({(row.object_key, row.frame) for row in rows}) > len({row.object_key for row in rows})
    assert all(row.position is not None and row.object_key.endswith(".bson.zst") for row in rows)


def test_a_damaged_frame_costs_its_own_documents_and_is_fetched_once(world: World) -> None:
    assert isinstance(world.store, CountingStore)
    rows = list(world.catalog.rows(BUSY))
    victim = rows[9]
    damage(world, victim)
    same = [row for row in rows if (row.object_key, row.frame) == (victim.object_key, victim.frame)]
    assert len(same) > 1
    world.store.fetches = 0
    found = list(fetch_documents(world.store, rows))
    assert [one.row for one in found] == rows
    assert [one.row for one in found if one.problems] == same
    assert all(isinstance(one.error, CorruptError) for one in found if one.problems)
    assert world.store.fetches == 2


def test_a_missing_object_is_asked_for_once(world: World) -> None:
    assert isinstance(world.store, CountingStore)
    rows = list(world.catalog.rows(BUSY))
    world.store._shelf.remove(rows[0].object_key)
    world.store.fetches = 0
    found = list(fetch_each(world.store, ((row, extent_of(row)) for row in rows)))
    missing = [row for row, body in found if isinstance(body, ObjectMissingError)]
    assert missing == [row for row in rows if row.object_key == rows[0].object_key]
    assert [row for row, _ in found] == rows
    assert world.store.fetches == 2


def test_an_object_in_cold_storage_costs_its_own_documents_and_is_asked_for_once(world: World) -> None:
    rows = list(world.catalog.rows(BUSY))
    cold = ColdStore(world.store, rows[0].object_key)
    found = list(fetch_documents(cold, rows, of_one=OR_FROZEN))
    assert {isinstance(one.error, ObjectFrozenError) for one in found if one.row.object_key in cold.cold} == {
        True
    }
    others = [one for one in found if one.row.object_key not in cold.cold]
    assert others
    assert {one.problems for one in others} == {()}
    with pytest.raises(ObjectFrozenError):  # who takes objects for what they hold must not go on without one
        list(fetch_each(cold, [(row, extent_of(row)) for row in rows]))
    with pytest.raises(ObjectFrozenError):
        list(fetch_documents(cold, rows))
