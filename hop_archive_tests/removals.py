"""What tests of removals share: worlds to take away from, copied cheaply, and the judgement of what is left."""

from __future__ import annotations

import datetime
import pickle
import random
import uuid
from collections.abc import Callable
from contextlib import suppress

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Batch, Row
from hop_archive.devkit.faults import CrashError, Fault, Faults, When, crash, fail
from hop_archive.errors import HopArchiveError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.document import crc32, decode, encode
from hop_archive.model.frames import decompress, frames_in
from hop_archive.model.identity import digest
from hop_archive.model.keys import is_compressed_key
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice
from hop_archive.read.fetch import fetch_documents
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import NewObject
from hop_archive.upkeep.remove.remove import Removing
from hop_archive_tests.invariants import assert_ledger_is_sound, fetched
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, World, WorldLayout, exhausted


class Backed(World):
    """A world whose store lets objects be deleted, and has a backup."""

    __slots__ = ("backup",)
    backup: MockStore

    def removing(self, faults: Faults | None = None) -> Removing:
        """What a new process removes with; its calls are subject to ``faults``."""
        wrap = (faults or Faults()).wrap
        stores = (wrap(self.store, "store"), wrap(self.backup, "backup"))
        return Removing(wrap(self.catalog, "catalog"), *stores, run_id="removal")

    def coverage(self) -> dict[PartitionLog, OffsetSet]:
        """What is dealt with."""
        return dict(self.catalog.coverage())

    def rows(self) -> list[Row]:
        """Every row."""
        return [row for topic in self.catalog.topics() for row in self.catalog.rows(topic)]


def small_world(layout: WorldLayout = "message") -> Backed:
    """A busy topic of two partitions and a quiet one, some messages each, nothing archived: small enough for matrices."""
    world = Backed(layout, catalog=_catalog(), store=MockStore(deleting_allowed=True))
    world.backup = MockStore("backup", bucket="backup", deleting_allowed=True)
    world.cluster.create_topic(BUSY, 2)
    world.cluster.create_topic(QUIET)
    for number in range(10):
        world.cluster.append(BUSY, b"alert %d" % number, partition=number % 2, timestamp_ms=NOW_MS + number)
    for number in range(3):
        world.cluster.append(QUIET, b"quiet %d" % number)
    return world


def archive_all(world: Backed) -> Backed:
    """Archive what there is, and let the backup have a copy of each object, as a bucket's replication does."""
    exhausted(catch_up(world.archive(), overlap=0))
    bodies = [(info.key, world.store._shelf.get(info.key)) for info in world.store.listing()]
    world.backup.create([NewObject(key, body) for key, body in bodies if body is not None])
    return world


def double(world: Backed, row: Row, offset: int) -> Row:
    """Put a copy of an archived message into the archive, as two archivers at once might have: another UUID."""
    was = decode(fetched(world.store, row))
    own = uuid.UUID(int=offset)
    message = was.message
    document = type(was)(
        type(message)(
            message.topic,
            1,
            offset,
            message.timestamp_ms,
            message.timestamp_type,
            message.key,
            message.value,
            message.headers,
        ),
        own,
        False,
        digest(message.key, message.headers, message.value),
        was.message_crc32,
        was.annotations,
    )
    body, key = encode(document), f"{row.topic}/2023/11/14/22/{own}.bson"
    for store in (world.store, world.backup):
        store.create([NewObject(key, body)])
    return row._replace(
        generation=1, partition=1, offset=offset, uuid=own, is_client_uuid=False, object_key=key, position=None, frame=None, frame_size=None,
        size_bytes=len(body), crc32=crc32(body), digest=document.digest,
    )  # fmt: skip


def doubled_world(layout: WorldLayout = "message") -> Backed:
    """The small world, archived, with three messages in it twice."""
    world = archive_all(small_world(layout))
    rows = list(world.catalog.rows(BUSY))
    stop = next(iter(world.catalog.coverage([BUSY]).values())).stop
    where = Slice(BUSY, 1, 1, stop, stop + 3)
    copies = [double(world, row, stop + n) for n, row in enumerate(rows[:3])]
    world.catalog.commit(Batch(where, rows=copies))
    return world


def copied(world: Backed) -> Backed:
    """The same world once more, for another history."""
    new = Backed(world.layout)
    new.catalog = _catalog()
    new.catalog._state._value = pickle.loads(pickle.dumps(world.catalog._state._value))
    new.cluster._state._value = pickle.loads(pickle.dumps(world.cluster._state._value))
    new.store, new.backup = _copied(world.store), _copied(world.backup)
    return new


def _catalog() -> MockCatalog:
    """A catalog whose clock stands still when the messages were published."""
    moment = datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC)
    return MockCatalog(clock=lambda: moment)


def _copied(store: MockStore) -> MockStore:
    new = MockStore(store.name, bucket=store.bucket, deleting_allowed=True)
    new._shelf._objects = dict(store._shelf._objects)  # type: ignore[union-attr] # in memory it has these
    return new


def assert_whole(world: Backed) -> None:
    """What is left is sound: ledger, rows, documents; and no object is there that no row names."""
    assert_ledger_is_sound(world.catalog.ledger())
    rows = world.rows()
    assert [m for topic in world.catalog.topics() for m in world.catalog.miscounts(topic)] == []
    assert [
        world.catalog.unledgered(topic) for topic in world.catalog.topics() if world.catalog.unledgered(topic)
    ] == []
    named = {row.object_key for row in rows}
    for store in (world.store, world.backup):
        for found in fetch_documents(store, rows):
            assert found.problems == ()
            assert found.document is not None
            assert encode(found.document) == found.body
        assert {info.key for info in store.listing()} == named, store.name
    assert world.catalog._state._value is not None
    assert world.catalog._state._value.condemned == {}


Deed = Callable[[Backed, Faults], None]
Judgement = Callable[[Backed], None]


def attempt(world: Backed, deed: Deed, faults: Faults) -> None:
    """One process: it ends well, with an error of ours, or dead."""
    with suppress(CrashError, HopArchiveError):
        deed(world, faults)


def crash_at_each_call(base: Backed, deed: Deed, judge: Judgement) -> int:
    """Let every single call fail or be the last, before and after; the next run completes the work. How many calls."""
    calm = Faults()
    world = copied(base)
    deed(world, calm)
    judge(world)
    for number in range(1, len(calm.calls) + 1):
        for when in When:
            for act in (crash, fail):
                world = copied(base)
                faults = Faults((Fault(number, when, act),))
                attempt(world, deed, faults)
                assert len(faults.calls) >= number, "the fault did not strike"
                deed(world, Faults())
                judge(world)
    return len(calm.calls)


def crash_in_pairs(base: Backed, deed: Deed, judge: Judgement, calls: int, pairs: int = 25) -> None:
    """Two faults, in two runs one after the other or in one, at random calls; then a run with nothing in its way."""
    chance = random.Random(7)
    for _ in range(pairs):
        world = copied(base)
        first, second = (
            Fault(chance.randint(1, calls), chance.choice(list(When)), chance.choice([crash, fail]))
            for _ in range(2)
        )
        if chance.random() < 0.5:
            attempt(world, deed, Faults((first, second)))
        else:
            attempt(world, deed, Faults((first,)))
            attempt(world, deed, Faults((second,)))
        deed(world, Faults())
        judge(world)


def assert_nowhere(world: Backed, secret: bytes) -> None:
    """No object of the store or its backup has these bytes, or has them in a frame."""
    for store in (world.store, world.backup):
        for info in store.listing():
            body = store._shelf.get(info.key) or b""
            parts = [body]
            if is_compressed_key(info.key):
                parts += [decompress(body[at : at + size]) for at, size in frames_in(body)]
                assert parts[1:]
            assert not [part for part in parts if secret in part], (store.name, info.key)
