"""The world that histories play in: what lasts when processes die, and a record of every message that ever was."""

from __future__ import annotations

import copy
import datetime
import random
import shutil
import tempfile
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.mock.session import Tables
from hop_archive.catalog.records import Row
from hop_archive.devkit.faults import Faults
from hop_archive.errors import UnavailableError
from hop_archive.model.limits import Limits
from hop_archive.model.message import Message
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive.source.mock.cluster import Log, MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import NewObject
from hop_archive.upkeep.remove.remove import Removing
from hop_archive_tests.simulation.calls import creates_objects, writes_to_catalog
from hop_archive_tests.simulation.history import At
from hop_archive_tests.worlds import NOW_MS, WorldLayout, layout_policy

TOPICS = ("alerts.busy", "alerts.quiet")
PARTITIONS = {"alerts.busy": 2, "alerts.quiet": 1}
TINY = Limits(run_messages=60, batch_messages=4, batch_bytes=2_000, buffer_bytes=8_000, poll_messages=5)
DAY_MS = 86_400_000


@dataclass(slots=True)
class RestoreBegun:
    """What was there when the first try of a restore began.

    Attributes:
        rows: What the catalog had, at the beginning of any try.
        suppressed: Messages whose content had been taken away by then.
        catalog: The catalog that knows of it.
    """

    rows: dict[uuid.UUID, Row]
    suppressed: frozenset[uuid.UUID]
    catalog: MockCatalog


@dataclass(slots=True)
class SimulatedWorld:
    """Cluster, catalog, store and backup, with one clock.

    Attributes:
        lives: By topic id and partition, what readers of committed messages could be given at an offset at some time.
        to_suppress: Messages whose content is to go.
        compacted: Topic id, partition and offset of what compaction took away.
        cut: Topic id and partition of what lost its end at some time.
        resting: Called when somebody waits, so that others go on.
        ending: Called when all processes are to end.
        target: Where messages are restored to.
        restored: What was in the catalog when restores to a topic began, by that topic's name; and what was suppressed.
        full: Where there is no room, and for how many calls more.
        lost: The catalogs that are no more, as they were at their end.
        rebuilt: Whether the catalog was made again of what the store has, or added to by that.
        without_row: UUIDs of messages of which a rebuild told that they get no row, since other content has them.
        dangling: UUIDs and keys of rows whose objects had gone when a catalog, or a snapshot of one, was put back that named them.
        names: The topics of topic ids.
        removes: Whether a process takes messages away, be it copies.
    """

    seed: int
    layout: WorldLayout
    at_ms: int = NOW_MS
    ticks: float = 0.0
    shift_ms: int = 0
    cluster: MockCluster = field(init=False)
    catalog: MockCatalog = field(init=False)
    store: MockStore = field(init=False)
    backup: MockStore = field(init=False)
    lives: dict[tuple[str, int], dict[int, list[Message]]] = field(default_factory=dict)
    to_suppress: set[uuid.UUID] = field(default_factory=set)
    compacted: set[tuple[str, int, int]] = field(default_factory=set)
    cut: set[tuple[str, int]] = field(default_factory=set)
    resting: list[Callable[[], None]] = field(default_factory=list)
    ending: list[Callable[[], None]] = field(default_factory=list)
    target: MockCluster = field(init=False)
    restored: dict[str, RestoreBegun] = field(default_factory=dict)
    full: dict[str, int] = field(default_factory=dict)
    lost: list[MockCatalog] = field(default_factory=list)
    dangling: set[tuple[uuid.UUID, str]] = field(default_factory=set)
    rebuilt: bool = False
    without_row: set[uuid.UUID] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    removes: bool = False
    _folder: Path | None = None
    _dump: Tables | None = None
    _versions: dict[str, deque[dict[str, tuple[bytes, int, str]]]] = field(default_factory=dict)
    _ids: int = 0
    _open: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster = MockCluster(clock=self.now_ms, sleep=self.sleep, make_id=self._make_id)
        self.target = MockCluster(clock=self.now_ms, sleep=self.sleep, make_id=self._make_id)
        self.catalog = MockCatalog(clock=self.now)
        self.store = MockStore(deleting_allowed=True, clock=self.now_ms)
        self.backup = MockStore("backup", bucket="backup", deleting_allowed=True, clock=self.now_ms)
        for topic, partitions in PARTITIONS.items():
            self.cluster.create_topic(topic, partitions)
        self._publish(random.Random(self.seed), 12)
        self.look()

    # --- clocks

    def now_ms(self) -> int:
        """The clock on the wall, which may jump."""
        self.at_ms += 1
        return self.at_ms + self.shift_ms

    def now(self) -> datetime.datetime:
        """The same as a moment."""
        return datetime.datetime.fromtimestamp(self.now_ms() / 1000, datetime.UTC)

    def monotonic(self) -> float:
        """A clock that never goes back."""
        self.ticks += 0.05
        return self.ticks

    def sleep(self, seconds: float) -> None:
        """Let time pass; others go on meanwhile."""
        self.at_ms += int(seconds * 1000)
        self.ticks += seconds
        for rest in self.resting:
            rest()

    # --- what processes open

    def archive(self, faults: Faults | None = None, run_id: str = "") -> Archive:
        """What a new process opens."""
        wrap = (faults or Faults()).wrap
        return Archive(
            source=wrap(MockSource(cluster=self.cluster), "source"),
            catalog=wrap(self.catalog, "catalog"),
            store=wrap(self.store, "store"),
            layouts=layout_policy(self.layout),
            limits=TINY,
            run_id=run_id,
            now=self.now,
            monotonic=self.monotonic,
        )

    def removing(self, faults: Faults | None = None) -> Removing:
        """What a new process removes with."""
        wrap = (faults or Faults()).wrap
        stores = (wrap(self.store, "store"), wrap(self.backup, "backup"))
        return Removing(wrap(self.catalog, "catalog"), *stores, run_id="removal", now=self.now)

    @property
    def folder(self) -> Path:
        """Where processes keep files; outlasts them."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="hop_archive-simulation-"))
        return self._folder

    def close(self) -> None:
        """Leave nothing on this machine."""
        if self._folder is not None:
            shutil.rmtree(self._folder)

    # --- what befalls calls

    def refuse(self, call: str) -> None:
        """Refuse to write where there is no room; after some refusals there is.

        Raises:
            UnavailableError: There is none.
        """
        for part, needs_room in (("store", creates_objects), ("catalog", writes_to_catalog)):
            if self.full.get(part) and needs_room(call):
                self.full[part] -= 1
                raise UnavailableError(f"no room for {call}.")

    def remember(self) -> None:
        """Remember what is in the stores now, as one of the versions of them."""
        for store in (self.store, self.backup):
            versions = self._versions.setdefault(store.name, deque(maxlen=4))
            versions.append({**objects_of(store)})

    def before(self, part: object, versions: int) -> object:
        """A store as it was so many changes ago."""
        assert isinstance(part, MockStore)
        known = self._versions.get(part.name)
        if not known:
            return part
        older = MockStore(part.name, bucket=part.bucket, clock=self.now_ms)
        objects_of(older).update(known[max(0, len(known) - 1 - versions)])
        return older

    # --- events

    def happen(self, at: At) -> None:
        """Let an event happen; what makes no sense now does not."""
        chance = random.Random(at.choice)
        topic = chance.choice(TOPICS)
        number = chance.randrange(PARTITIONS[topic])
        with self.cluster.read() as state:
            log = state.topics[topic].logs[number] if topic in state.topics else None
        if at.what in self._OF_THE_WORLD:
            self._OF_THE_WORLD[at.what](self, chance)
        elif log is None:
            self.cluster.create_topic(topic, PARTITIONS[topic])
            self._publish(chance, 3)
        else:
            self._OF_A_LOG[at.what](self, chance, topic, number, log)
        self.look()

    def heal(self) -> None:
        """End all that is in the way: transactions, missing leaders and rights; and let every grace pass."""
        for transaction in self._open:
            self.cluster.abort(transaction)
        self._open.clear()
        for topic in TOPICS:
            self.cluster.allow(topic)
            for number in range(PARTITIONS[topic]):
                self.cluster.elect_leader(topic, number)
        self.full.clear()
        self.at_ms += 10 * DAY_MS
        self.ticks += 1_000_000
        self.replicate()
        self.look()

    def replicate(self) -> None:
        """What a bucket's replication does: new objects are copied to the backup."""
        there = {info.key for info in self.backup.listing()}
        new = [info.key for info in self.store.listing() if info.key not in there]
        bodies = [NewObject(key, self.body(key)) for key in new]
        self.backup.create(bodies)

    def body(self, key: str) -> bytes:
        """The bytes of an object."""
        return objects_of(self.store)[key][0]

    def rows(self) -> list[Row]:
        """All rows of the catalog."""
        return [row for topic in PARTITIONS for row in self.catalog.rows(topic)]

    def look(self) -> None:
        """Record what readers of committed messages are given now."""
        with self.cluster.read() as state:
            for name, topic in state.topics.items():
                self.names[topic.topic_id] = name
                for number, log in enumerate(topic.logs):
                    ever = self.lives.setdefault((topic.topic_id, number), {})
                    for message in (
                        log.read(log.low, max(0, log.stable - log.low))[0] if log.stable > log.low else ()
                    ):
                        known = ever.setdefault(message.offset, [])
                        if message not in known:
                            known.append(message)

    def ever_at(self, topic: str, partition: int | None, offset: int | None) -> list[Message]:
        """What ever stood at an offset of a topic, whichever topic of that name it was."""
        return [
            message
            for (topic_id, number), ever in self.lives.items()
            if number == partition and self.names[topic_id] == topic
            for at, messages in ever.items()
            if at == offset
            for message in messages
        ]

    def was_told(self, topic_id: str, partition: int, offset: int) -> bool:
        """Whether a catalog that is lost said of an offset that it was no message of its own: lost, left out or a copy."""
        for catalog in self.lost:
            for generation in catalog.generations([self.names[topic_id]]).get(self.names[topic_id], ()):
                at = PartitionLog(generation.topic, generation.number, partition)
                with catalog._state.read() as tables:
                    archived = offset in {
                        row.offset for row in tables.rows_in(Slice(*at, offset, offset + 1))
                    }
                    if generation.topic_id == topic_id and offset in tables.covered(at) and not archived:
                        return True
        return False

    # --- how events are done

    def _id(self, topic: str) -> str:
        with self.cluster.read() as state:
            return state.topics[topic].topic_id

    def _make_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"

    def _publish(
        self,
        chance: random.Random,
        count: int,
        transaction: int | None = None,
        topic: str = "",
        number: int = 0,
    ) -> None:
        for _ in range(count):
            name = topic or chance.choice(TOPICS)
            with self.cluster.read() as state:
                if name not in state.topics:
                    continue
            partition = number if topic else chance.randrange(PARTITIONS[name])
            headers, value = _content(chance)
            at_ms = self.at_ms + chance.choice((0, 0, 0, -1000, 5, -DAY_MS * 40))
            self.cluster.append(
                name, value, key=chance.choice((None, b"", b"key")), headers=headers,
                timestamp_ms=at_ms if chance.random() < 0.9 else None, partition=partition, transaction=transaction,
            )  # fmt: skip

    def _pass_a_day(self, _: random.Random) -> None:
        self.at_ms += DAY_MS

    def _let_the_clock_jump(self, chance: random.Random) -> None:
        self.shift_ms += chance.choice((-600_000, -5_000, 5_000, 600_000))

    def _empty(self, chance: random.Random) -> None:
        self._open.clear()
        self.cluster.restart_empty()
        for name, partitions in PARTITIONS.items():
            self.cluster.create_topic(name, partitions)
        self._publish(chance, 5)

    def _commit(self, chance: random.Random, topic: str, number: int, _: Log) -> None:
        if self._open and chance.random() < 0.7:
            self.cluster.commit(self._open.pop(chance.randrange(len(self._open))))
        else:
            self._begin(chance, topic, number)

    def _abort(self, chance: random.Random, topic: str, number: int, _: Log) -> None:
        if self._open and chance.random() < 0.7:
            self.cluster.abort(self._open.pop(chance.randrange(len(self._open))))
        else:
            self._begin(chance, topic, number)

    def _begin(self, chance: random.Random, topic: str, number: int) -> None:
        begun = self.cluster.begin()
        self._publish(chance, chance.randint(1, 4), begun, topic, number)
        self._open.append(begun)

    def _compact(self, chance: random.Random, topic: str, number: int, log: Log) -> None:
        gone = [offset for offset in range(log.low, log.high) if chance.random() < 0.3]
        self.compacted.update((self._id(topic), number, offset) for offset in gone)
        self.cluster.compact(topic, number, gone)

    def _expire(self, chance: random.Random, topic: str, number: int, log: Log) -> None:
        if log.stable > log.low:
            self.cluster.delete_records(topic, number, chance.randint(log.low, log.stable))

    def _truncate(self, chance: random.Random, topic: str, number: int, log: Log) -> None:
        if not log.open and log.high > log.low:
            self.cut.add((self._id(topic), number))
            lost = chance.randint(1, log.high - log.low)
            self.cluster.lose_end(topic, number, log.high - lost)
            if chance.random() < 0.5:  # up to its old end, or past it
                self._publish(chance, lost + chance.randint(-1, 3), topic=topic, number=number)

    def _make_anew(self, chance: random.Random, topic: str, number: int, _: Log) -> None:
        if not self._open:
            self.cluster.recreate_topic(topic)
            self._publish(chance, 4)

    def _delete(self, chance: random.Random, topic: str, number: int, _: Log) -> None:
        if not self._open:
            self.cluster.delete_topic(topic)

    def _fill(self, chance: random.Random) -> None:
        self.full[chance.choice(("store", "catalog"))] = chance.randint(1, 12)

    def _dump_catalog(self, _: random.Random) -> None:
        with self.catalog._state.read() as tables:
            self._dump = copy.deepcopy(tables)

    def _lose_catalog(self, chance: random.Random) -> None:
        """An operator ends all processes, and puts another catalog in the place of the one that is lost: a dump of before, or an empty one."""
        for end in self.ending:
            end()
        self.lost.append(self.catalog)
        self.catalog = MockCatalog(clock=self.now)
        if self._dump is not None and chance.random() < 0.7:
            self.catalog._state._value = copy.deepcopy(self._dump)
            self.let_dangle(self.catalog)

    def let_dangle(self, catalog: MockCatalog) -> None:
        """An operator puts back what a catalog of before says: some rows of it may name objects that are gone since."""
        there, rows = (
            objects_of(self.store),
            (row for topic in catalog.topics() for row in catalog.rows(topic)),
        )
        self.dangling |= {(row.uuid, row.object_key) for row in rows if row.object_key not in there}

    _OF_THE_WORLD: ClassVar[dict[str, Callable[[SimulatedWorld, random.Random], None]]] = {
        "publish": lambda self, chance: self._publish(chance, chance.randint(1, 8)),
        "a day passes": _pass_a_day,
        "clock jumps": _let_the_clock_jump,
        "cluster emptied": _empty,
        "replication": lambda self, _: self.replicate(),
        "disk full": _fill,
        "catalog dumped": _dump_catalog,
        "catalog lost": _lose_catalog,
    }
    _OF_A_LOG: ClassVar[dict[str, Callable[[SimulatedWorld, random.Random, str, int, Log], None]]] = {
        "commit": _commit,
        "abort": _abort,
        "compaction": _compact,
        "retention": _expire,
        "truncation": _truncate,
        "leader moves": lambda self, _, topic, number, log: self.cluster.move_leader(topic, number),
        "no leader": lambda self, _, topic, number, log: self.cluster.lose_leader(topic, number),
        "leader again": lambda self, _, topic, number, log: self.cluster.elect_leader(topic, number),
        "forbidden": lambda self, _, topic, number, log: self.cluster.deny(topic),
        "allowed": lambda self, _, topic, number, log: self.cluster.allow(topic),
        "topic made anew": _make_anew,
        "topic deleted": _delete,
    }


def objects_of(store: MockStore) -> dict[str, tuple[bytes, int, str]]:
    """Body, time and ETag of each object of a store in memory."""
    return store._shelf._objects  # type: ignore[union-attr]  # in memory it has these


EVENTS = (*SimulatedWorld._OF_THE_WORLD, *SimulatedWorld._OF_A_LOG)


def _content(chance: random.Random) -> tuple[tuple[tuple[str, bytes | None], ...], bytes | None]:
    """Few ids and few values, so that copies and collisions are frequent; and what is awkward."""
    own = uuid.UUID(int=chance.randrange(1, 12)).bytes
    value = chance.choice((None, b"", b"a", b"b", b"%d" % chance.randrange(40), b"x" * 700))
    identity: tuple[tuple[str, bytes | None], ...] = chance.choice(
        (
            ((("_id", own)),),
            (("_id", uuid.UUID(int=chance.getrandbits(60) + 100).bytes),),
            (),
            (("_id", None),),
            (("_id", b"text"),),
        )
    )
    return (*identity, *chance.choice(((), (("a", None), ("a", b"")), (("_test", b"true"),)))), value
