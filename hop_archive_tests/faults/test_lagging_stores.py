"""A store that does not show at once what it took, or shows what was before: nothing is lost, and nothing is called so for good."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent, ObjectInfo
from hop_archive_tests.damaging import Ruin, kinds, ruin
from hop_archive_tests.worlds import BUSY


class LaggingStore(MockStore):
    """Keeps the contract, and tells only later of some objects.

    Attributes:
        unlisted: Keys that listings do not show.
        unread: Keys that are not there for who reads them, nor listed.
        older: What reads get in the place of what stands under these keys.
    """

    def __init__(self, of: MockStore) -> None:
        super().__init__(deleting_allowed=True)
        self._shelf = of._shelf
        self.unlisted: set[str] = set()
        self.unread: set[str] = set()
        self.older: dict[str, bytes] = {}

    def listing(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        hidden = self.unlisted | self.unread
        return (info for info in super().listing(prefix, start_after) if info.key not in hidden)

    def fetch(self, extents: Iterable[Extent]) -> Iterator[bytes]:
        for extent in extents:
            if extent.key in self.unread:
                raise self._missing(extent.key)
            if extent.key in self.older:
                old = MockStore()
                old._shelf.add(extent.key, self.older[extent.key])
                yield from old.fetch([extent])
            else:
                yield from super().fetch([extent])

    def etag(self, key: str) -> str:
        if key in self.unread:
            raise self._missing(key)
        return super().etag(key)


@pytest.fixture(params=["message", "segment", "zstd"])
def lagging(request: pytest.FixtureRequest) -> Ruin:
    """A sound archive whose store can lag."""
    made = ruin(request.param)
    made.world.store = LaggingStore(made.world.store)
    return made


def store_of(ruined: Ruin) -> LaggingStore:
    assert isinstance(ruined.world.store, LaggingStore)
    return ruined.world.store


def keys(ruined: Ruin) -> set[str]:
    return {row.object_key for row in ruined.rows(BUSY)}


def test_what_is_only_not_listed_yet_is_not_called_missing(lagging: Ruin) -> None:
    store_of(lagging).unlisted = keys(lagging)
    assert lagging.verify() == []


def test_what_is_not_to_be_read_yet_is_a_finding_until_it_is_and_repairing_changes_no_bytes(
    lagging: Ruin,
) -> None:
    before = {info.key: lagging.body(info.key) for info in lagging.world.store.listing()}
    store_of(lagging).unread = keys(lagging)
    assert kinds(lagging.verify()) == ["missing_object"]
    store_of(lagging).unread = set()
    lagging.repair()
    assert {key: lagging.body(key) for key in before} == before
    assert lagging.verify() == []
    assert not list(lagging.world.catalog.open_findings())


def test_older_bytes_are_found_and_repairing_loses_neither_them_nor_what_is_newer(lagging: Ruin) -> None:
    before = {info.key: lagging.body(info.key) for info in lagging.world.store.listing()}
    store_of(lagging).older = {key: b"\0" * len(before[key]) for key in keys(lagging)}
    assert lagging.verify()
    lagging.repair()
    store_of(lagging).older = {}
    lagging.repair()
    assert lagging.verify() == []
    standing = {lagging.body(info.key) for info in lagging.world.store.listing()}
    assert standing >= {*before.values()}
