"""What was suppressed stays so: whoever makes a catalog anew, or puts messages back, is held to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.model.document import decode
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.recover.restore.request import Request
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent
from hop_archive.upkeep.remove.remove import Removing
from hop_archive.upkeep.remove.suppress import suppress
from hop_archive.upkeep.verify.documents import documents
from hop_archive.upkeep.verify.ledger import ledger
from hop_archive.upkeep.verify.objects import objects
from hop_archive.upkeep.verify.verification import Verification
from hop_archive_tests.invariants import fetched
from hop_archive_tests.restores import archived_world, empty_cluster, held, restoration, run
from hop_archive_tests.worlds import BUSY, World, WorldLayout, exhausted

REASON = "by order of a court"


def suppressed_world(layout: WorldLayout) -> tuple[World, bytes]:
    """The awkward world, archived, of which one message is suppressed; and the value that it had."""
    world = archived_world(layout)
    world.store = _deleting(world.store)
    row = next(r for r in world.catalog.rows(BUSY) if r.partition == 1 and r.is_client_uuid)
    value = decode(fetched(world.store, row)).message.value
    assert value
    suppress(Removing(world.catalog, world.store), [row.uuid], REASON)
    return world, value


def _deleting(store: MockStore) -> MockStore:
    store._deleting_allowed = True
    return store


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_a_catalog_that_is_rebuilt_knows_it_and_verifies_clean(layout: WorldLayout) -> None:
    world, value = suppressed_world(layout)
    known = {one.uuid: one.reason for one in world.catalog.suppressions()}
    before = {row.uuid: row for row in world.catalog.rows(BUSY)}
    world.catalog = MockCatalog()
    exhausted(rebuild(Rebuild(world.catalog, world.store)))
    assert {one.uuid: one.reason for one in world.catalog.suppressions()} == known
    again = {row.uuid: row for row in world.catalog.rows(BUSY)}
    assert again.keys() == before.keys()
    for own in known:
        assert again[own].object_key == before[own].object_key
        document = decode(fetched(world.store, again[own]))
        assert (document.message.value, document.suppressed) == (None, REASON)
    wanted = Verification(world.catalog, world.store, grace_s=0, sleep=lambda _: None)
    assert [*objects(wanted), *ledger(wanted), *documents(wanted)] == []
    assert all(value not in _whole(world.store, info.key) for info in world.store.listing(f"{BUSY}/"))


def _whole(store: MockStore, key: str) -> bytes:
    return next(store.fetch([Extent(key)]))


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_a_restore_puts_everything_else_back(layout: WorldLayout, tmp_path: Path) -> None:
    world, value = suppressed_world(layout)
    target = empty_cluster()
    outcome = run(restoration(world, target, Request(template="{topic}.again")), tmp_path)
    assert (outcome.complete, outcome.differences, outcome.left_out) == (True, 0, 0)
    found = held(target, f"{BUSY}.again")
    assert sum(map(len, found.values())) == sum(1 for _ in world.catalog.rows(BUSY)) - 1
    assert all(one.value != value for messages in found.values() for one in messages)
