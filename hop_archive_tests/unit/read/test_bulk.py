"""Documents fetched together are those that are fetched one by one, and each is proven, or it is told what is wrong of it."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Sequence
from zlib import crc32

import pytest

from hop_archive.catalog.stored import Stored
from hop_archive.errors import CorruptError, ObjectMissingError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.document import decode
from hop_archive.read import bulk
from hop_archive.read.bulk import examined, extent_of, fetch_bodies, proven
from hop_archive.read.fetch import NoBytes
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent
from hop_archive_tests.worlds import BUSY, World, awkward_world, exhausted


class CountingStore(MockStore):
    """Counts the extents that are asked for."""

    asked = 0

    def fetch(self, extents: Iterable[Extent]) -> Iterator[bytes]:
        def counted() -> Iterator[Extent]:
            for extent in extents:
                self.asked += 1
                yield extent

        return super().fetch(counted())


@pytest.fixture(params=["message", "segment", "zstd"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("hop_archive.model.frames.FRAME_BYTES", 1_000)
    made = awkward_world(request.param)
    made.store = CountingStore()
    exhausted(catch_up(made.archive(), overlap=0))
    return made


def wanted_of(world: World) -> list[Stored]:
    return [Stored.of(row) for row in world.catalog.rows(BUSY)]


def bodies(world: World, wanted: Sequence[Stored]) -> list[tuple[Stored, bytes | NoBytes]]:
    return list(itertools.chain.from_iterable(fetch_bodies(world.store, wanted)))


@pytest.mark.parametrize("largest", [1, 700, 2**23])
def test_what_is_fetched_together_is_what_is_fetched_one_by_one(
    world: World, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "TOGETHER_BYTES", largest)
    wanted = wanted_of(world)
    for some in (wanted, wanted[::-1], wanted[::3], wanted[:1], []):
        alone = list(world.store.fetch([extent_of(stored) for stored in some]))
        assert bodies(world, some) == list(zip(some, alone, strict=True))


def test_what_stands_together_is_fetched_by_few_extents(world: World) -> None:
    assert isinstance(world.store, CountingStore)
    wanted = wanted_of(world)
    world.store.asked = 0
    bodies(world, wanted)
    assert world.store.asked == len({(stored.object_key, stored.frame) for stored in wanted})


def test_each_message_is_proven_to_be_what_its_row_says(world: World) -> None:
    for (stored, body), row in zip(bodies(world, wanted_of(world)), world.catalog.rows(BUSY), strict=True):
        assert isinstance(body, bytes)
        content, message = proven(stored, body), decode(body, row.uuid).message
        assert content is not None
        assert (content.key, content.value, tuple(content.headers)) == (
            message.key,
            message.value,
            message.headers,
        )
        assert content == proven(stored, body)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"crc32": 1}, "CRC-32"),
        ({"size_bytes": 7}, "size"),
        ({"digest": b"another digest !"}, "digest"),
    ],
)
def test_what_differs_from_its_row_is_not_proven_and_told(
    world: World, change: dict[str, object], told: str
) -> None:
    row = next(iter(world.catalog.rows(BUSY)))
    (body,) = world.store.fetch([extent_of(Stored.of(row))])
    altered = row._replace(**change)  # type: ignore[arg-type]  # as given
    with world.catalog._state.change() as tables:
        tables.rows[row.uuid] = altered
    stored = Stored.of(altered)
    assert proven(stored, body) is None
    content, why = examined(world.catalog, world.store, stored, body)
    assert content is None
    assert told in why


def test_of_what_cannot_be_fetched_together_each_is_fetched_by_itself(world: World) -> None:
    wanted = wanted_of(world)
    victim = wanted[len(wanted) // 2]
    found = {stored.uuid: body for stored, body in bodies(world, wanted)}
    body = world.store._shelf.get(victim.object_key) or b""
    world.store.damage(victim.object_key, body[: (victim.frame or victim.position or 0) + 3])
    after = bodies(world, wanted)
    assert [stored for stored, _ in after] == wanted
    for stored, body_now in after:
        place = stored.frame if stored.frame is not None else stored.position or 0
        is_cut = stored.object_key == victim.object_key and place >= (victim.frame or victim.position or 0)
        if is_cut and victim.position is not None:
            assert isinstance(body_now, CorruptError)
        elif stored != victim:
            assert body_now == found[stored.uuid]


def test_a_message_whose_object_was_replaced_meanwhile_comes_from_where_it_is_now(world: World) -> None:
    row = next(iter(world.catalog.rows(BUSY)))
    gone = Stored.of(row)._replace(object_key="gone.bson")
    ((_, body),) = bodies(world, [gone])
    assert isinstance(body, ObjectMissingError)
    content, why = examined(world.catalog, world.store, gone, body)
    assert why == ""
    assert content is not None
    (document,) = world.store.fetch([extent_of(Stored.of(row))])
    assert content.value == decode(document, row.uuid).message.value


def test_of_a_uuid_that_is_written_in_another_way_the_archives_own_header_is_known_all_the_same(
    world: World,
) -> None:
    row = next(
        row for row in world.catalog.rows(BUSY) if not row.is_client_uuid and not collides(world, row.uuid)
    )
    (body,) = world.store.fetch([extent_of(Stored.of(row))])
    written = str(row.uuid).encode()
    other = body.replace(written, written.upper())
    altered = row._replace(crc32=crc32(other))
    with world.catalog._state.change() as tables:
        tables.rows[row.uuid] = altered
    content, why = examined(world.catalog, world.store, Stored.of(altered), other)
    assert why == ""
    assert content == proven(Stored.of(row), body)
    assert content is not None
    assert content.made_id


def collides(world: World, message_uuid: uuid.UUID) -> bool:
    return any(met.archived_as == message_uuid for _, met in world.catalog.collisions(BUSY))


def test_a_message_whose_object_is_missing_is_told_so(world: World) -> None:
    row = next(iter(world.catalog.rows(BUSY)))
    world.store._shelf.remove(row.object_key)
    ((stored, body),) = bodies(world, [Stored.of(row)])
    content, why = examined(world.catalog, world.store, stored, body)
    assert content is None
    assert row.object_key in why
