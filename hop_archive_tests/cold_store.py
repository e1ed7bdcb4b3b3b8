"""Stores whose objects cannot be read, or not any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hop_archive.catalog.records import Row
from hop_archive.errors import ObjectFrozenError
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent
from hop_archive_tests.worlds import World


class ColdStore(MockStore):
    """The objects of another store; those whose keys are ``cold`` cannot be read."""

    def __init__(self, store: MockStore, *cold: str) -> None:
        super().__init__(bucket=store.bucket, deleting_allowed=True)
        self._shelf = store._shelf
        self.cold = {*cold}

    def fetch(self, extents: Iterable[Extent]) -> Iterator[bytes]:
        for extent in extents:
            if extent.key in self.cold:
                raise ObjectFrozenError(
                    f"object {extent.key} is in cold storage.", remedy="Restore it.", object_key=extent.key
                )
            yield from super().fetch([extent])


def removed_while_read(world: World, row: Row) -> None:
    """Take a message away, row first, once somebody has read its row and begins to fetch."""

    class Removing(MockStore):
        def fetch(self, extents: Iterable[Extent]) -> Iterator[bytes]:
            wanted = [*extents]
            with world.catalog._state.change() as tables:
                tables.rows.pop(row.uuid, None)
            self._shelf.remove(row.object_key)
            return super().fetch(wanted)

    removing = Removing(bucket=world.store.bucket)
    removing._shelf, world.store = world.store._shelf, removing
