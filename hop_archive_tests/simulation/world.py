"""The world that histories play in: what lasts when processes die, and a record of every message that ever was."""

from __future__ import annotations

import datetime
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.devkit.faults import Faults
from hop_archive.model.limits import Limits
from hop_archive.model.message import Message
from hop_archive.source.mock.cluster import Log, MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import NewObject
from hop_archive.upkeep.remove.remove import Removing
from hop_archive_tests.simulation.history import At
from hop_archive_tests.worlds import NOW_MS, WorldLayout, layout_policy

TOPICS = ("alerts.busy", "alerts.quiet")
PARTITIONS = {"alerts.busy": 2, "alerts.quiet": 1}
TINY = Limits(run_messages=60, batch_messages=4, batch_bytes=2_000, buffer_bytes=8_000, poll_messages=5)
DAY_MS = 86_400_000


@dataclass(slots=True)
class SimulatedWorld:
    """Cluster, catalog, store and backup, with one clock.

    Attributes:
        lives: By topic id and partition, what readers of committed messages could be given at an offset at some time.
        to_suppress: Messages whose content is to go.
        compacted: Topic id, partition and offset of what compaction took away.
        cut: Topic id and partition of what lost its end at some time.
        resting: Called when somebody waits, so that others go on.
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
    _ids: int = 0
    _open: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster = MockCluster(clock=self.now_ms, sleep=self.sleep, make_id=self._make_id)
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
        body = self.store._shelf.get(key)
        assert body is not None
        return body

    def look(self) -> None:
        """Record what readers of committed messages are given now."""
        with self.cluster.read() as state:
            for topic in state.topics.values():
                for number, log in enumerate(topic.logs):
                    ever = self.lives.setdefault((topic.topic_id, number), {})
                    for message in (
                        log.read(log.low, max(0, log.stable - log.low))[0] if log.stable > log.low else ()
                    ):
                        known = ever.setdefault(message.offset, [])
                        if message not in known:
                            known.append(message)

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
            self.cluster.lose_end(topic, number, chance.randint(log.low, log.high - 1))
            if chance.random() < 0.5:
                self._publish(chance, 6)

    def _make_anew(self, chance: random.Random, topic: str, number: int, _: Log) -> None:
        if not self._open:
            self.cluster.recreate_topic(topic)
            self._publish(chance, 4)

    def _delete(self, chance: random.Random, topic: str, number: int, _: Log) -> None:
        if not self._open:
            self.cluster.delete_topic(topic)

    _OF_THE_WORLD: ClassVar[dict[str, Callable[[SimulatedWorld, random.Random], None]]] = {
        "publish": lambda self, chance: self._publish(chance, chance.randint(1, 8)),
        "a day passes": _pass_a_day,
        "clock jumps": _let_the_clock_jump,
        "cluster emptied": _empty,
        "replication": lambda self, _: self.replicate(),
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
