"""A store of which some objects are in cold storage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hop_archive.errors import ObjectFrozenError
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent


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
