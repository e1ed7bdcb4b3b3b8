"""Comparing and proving fetch many documents at a time, and judge each by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import bson
import pytest

from hop_archive.devkit.prove import prove
from hop_archive.errors import ConfigurationError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.limits import Limits
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent, NewObject
from hop_archive.upkeep.verify.sent import read_sent
from hop_archive_tests.worlds import BUSY, QUIET, World, WorldLayout, awkward_world, exhausted

MANY = 1200


class Asked(MockStore):
    """Counts how often it is asked for documents."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def fetch(self, extents: Iterable[Extent]) -> Iterator[bytes]:
        self.calls += 1
        return super().fetch(extents)


@dataclass(slots=True)
class Observed(World):
    store: Asked = field(default_factory=Asked)


def archived_world(layout: WorldLayout = "message") -> World:
    world = awkward_world(layout)
    exhausted(catch_up(world.archive()))
    return world


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_an_archive_of_awkward_messages_is_proved(layout: WorldLayout) -> None:
    proofs = prove(archived_world(layout).archive(), [BUSY, QUIET])
    assert all(proof.holds for proof in proofs)
    busy, quiet = proofs
    assert (busy.delivered, busy.duplicates) == (busy.archived + busy.duplicates, 3)
    assert quiet.delivered == quiet.archived > 0


def test_a_document_that_is_missing_is_a_difference_of_its_own_message_only() -> None:
    world = archived_world()
    rows = [row for row in world.catalog.rows(BUSY) if row.partition == 0]
    gone = {rows[1].object_key, rows[2].object_key, rows[-1].object_key}
    world.store = _without(world.store, gone)
    (proof,) = prove(world.archive(), [BUSY])
    found = {(d.partition, d.offset): d.field for d in proof.differences if d.stage == "received/stored"}
    assert found.items() >= {(0, row.offset): "document" for row in (rows[1], rows[2], rows[-1])}.items()
    assert {d.expected.strip("'") for d in proof.differences} == gone
    assert proof.missing == ()


def _without(store: MockStore, keys: set[str]) -> MockStore:
    """A store with all of ``store`` but ``keys``."""
    kept = [info.key for info in store.listing() if info.key not in keys]
    bodies = store.fetch([Extent(key) for key in kept])
    left = MockStore()
    left.create([NewObject(key, body) for key, body in zip(kept, bodies, strict=True)])
    return left


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_documents_are_fetched_many_at_a_time(layout: WorldLayout) -> None:
    world = Observed(layout)
    world.cluster.create_topic(QUIET)
    for number in range(MANY):
        world.cluster.append(QUIET, b"%d" % number)
    archive = replace(world.archive(), limits=Limits())
    exhausted(catch_up(archive))
    world.store.calls = 0
    (proof,) = prove(archive, [QUIET])
    assert (proof.archived, proof.holds) == (MANY, True)
    assert world.store.calls <= 3


@pytest.mark.parametrize(
    "content",
    [b"junk", b"\xff" * 99, b"\x03\0", bson.encode({"a": 1}),
     bson.encode({"topic": "t", "partition": 0, "offset": 0, "key": b"", "value": b"", "headers": 5, "timestamp": 0}),
     bson.encode({"topic": "t", "partition": 0, "offset": 0, "key": b"", "value": b"", "headers": ["abc"], "timestamp": 0})],
)  # fmt: skip
def test_what_is_no_record_is_told_with_what_is_wanted_and_no_librarys_words(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_sent(tmp_path / "file")
    assert str(caught.value) == (
        f"{tmp_path / 'file'} is not a record of sent messages. "
        "Name a file that hop-archive publish --record FILE (or local publish --record FILE) wrote."
    )
