"""What is measured, each on real servers, over messages and objects of its own that nothing has cached."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import obstore
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as NativePartition
from obstore.store import S3Store as Client

from hop_archive.archive import Archive
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.samples import filler
from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.read import read_slices
from hop_archive.ingest.survey import plan_work
from hop_archive.ingest.write import prepare
from hop_archive.model.query import Query
from hop_archive.model.topics import Layout, LayoutPolicy
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.prepare import Restoration
from hop_archive.recover.restore.request import Request
from hop_archive.recover.restore.run import restore
from hop_archive.source.kafka.source import FETCH_BYTES, KafkaSource
from hop_archive.store.protocol import NewObject
from hop_archive.store.s3.store import S3Store
from hop_archive.upkeep.verify.documents import documents
from hop_archive.upkeep.verify.objects import objects
from hop_archive.upkeep.verify.verification import Verification

IN_FLIGHT = 64
PARTITIONS = 4
_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        objects: Objects, and messages archived one by one, in a round.
        messages: Messages archived in segments in a round.
        size_bytes: Of a message's value.
        rounds: How often; what is compared takes turns.
    """

    objects: int
    messages: int
    size_bytes: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast something went.

    Attributes:
        per_s: Items a second.
        cpu_us: CPU time of this process for one item, all threads together, in microseconds; the servers' is not in it.
    """

    per_s: float
    cpu_us: float


class Bench:
    """Measures on one stack.

    Args:
        address: The stack.
        sizes: How much.
    """

    def __init__(self, address: StackAddress, sizes: Sizes) -> None:
        self._address = address
        self._sizes = sizes
        self._name = f"bench{uuid.uuid4().hex[:8]}"
        self._topics = 0
        self._archived_topics: list[tuple[str, Layout]] = []
        migrate(address.database_url, schema=self._name, name="bench")
        self._archive = Archive(
            source=KafkaSource("bench", bootstrap_servers=address.bootstrap_servers, writable=True),
            catalog=PostgresCatalog("bench", address.database_url, schema=self._name),
            store=S3Store(
                "bench",
                bucket=address.bucket,
                endpoint=address.s3_endpoint,
                region="us-east-1",
                prefix=self._name,
                access_key=address.s3_access_key,
                secret_key=address.s3_secret_key,
                concurrency=IN_FLIGHT,
            ),
        )
        self._client = _client(address)

    def close(self) -> None:
        """Let go of all connections."""
        self._archive.close()

    def warm_up(self) -> None:
        """Open connections, and let the servers make what they make once."""
        for layout in ("message", "segment"):
            self._archived(layout, 200)

    def archive_by_message(self) -> Speed:
        """Messages archived one object each, end to end: from Kafka to the committed row."""
        return self._archived("message", self._sizes.objects)

    def archive_by_segment(self) -> Speed:
        """Messages archived in segments, end to end."""
        return self._archived("segment", self._sizes.messages)

    def put(self) -> Speed:
        """Objects created by obstore alone: the very documents of layout message, each only if absent.

        By threads, which is the faster of its two ways: 150 us of CPU a put, 230 us by asyncio.
        """
        objects = self._objects(self._sizes.objects)
        with ThreadPoolExecutor(IN_FLIGHT) as pool, _Timer() as timer:
            todo = deque(objects)
            for worker in [pool.submit(_put_all, self._client, todo) for _ in range(IN_FLIGHT)]:
                worker.result()
        return timer.speed(len(objects))

    def listing(self) -> Speed:
        """Keys listed by obstore alone: all that this bench has put."""
        with _Timer() as timer:
            count = sum(len(page) for page in obstore.list(self._client, self._name, chunk_size=1000))
        return timer.speed(count)

    def verify_listing(self) -> Speed:
        """Objects verified by listing, joined with the catalog: what this bench has archived one by one."""
        wanted = Verification(self._archive.catalog, self._archive.store, self._alone, grace_s=0)
        with _Timer() as timer:
            assert list(objects(wanted)) == []
        return timer.speed(wanted.checked.counts["objects"])

    def list_archived(self) -> Speed:
        """The keys of those same objects, listed by obstore alone."""
        with _Timer() as timer:
            count = sum(
                len(page)
                for topic in self._alone.topics
                for page in obstore.list(self._client, f"{self._name}/{topic}/", chunk_size=1000)
            )
        return timer.speed(count)

    def verify_deep(self) -> Speed:
        """Messages in segments fetched, decoded, and compared with their rows."""
        wanted = Verification(self._archive.catalog, self._archive.store, self._together)
        with _Timer() as timer:
            assert list(documents(wanted)) == []
        return timer.speed(wanted.checked.counts["messages"])

    def _of_layout(self, layout: Layout) -> Query:
        return Query(tuple(topic for topic, of in self._archived_topics if of == layout))

    @property
    def _alone(self) -> Query:
        return self._of_layout("message")

    @property
    def _together(self) -> Query:
        return self._of_layout("segment")

    def consume(self) -> Speed:
        """Messages consumed by confluent-kafka alone, with the archive's own fetch settings."""
        topic = self._published(self._sizes.messages)
        with _consuming(self._address, topic) as consumer, _Timer() as timer:
            left, end = self._sizes.messages, time.monotonic() + _DEADLINE_S
            while left > 0:
                left -= len(consumer.consume(5_000, 0.1))
                assert time.monotonic() < end, f"{left} messages of {topic} do not come"
        return timer.speed(self._sizes.messages)

    def produce(self) -> Speed:
        """Messages produced by confluent-kafka alone: idempotent, acknowledged by all, as a restore does it."""
        topic = self._new_topic()
        alerts = list(filler(self._sizes.messages, self._sizes.size_bytes, topic=topic))
        producer = Producer(
            {"bootstrap.servers": self._address.bootstrap_servers, "enable.idempotence": True}
        )
        with _Timer() as timer:
            for number, alert in enumerate(alerts):
                while True:
                    try:
                        producer.produce(
                            topic, alert.value, alert.key, number % PARTITIONS, headers=list(alert.headers)
                        )
                        break
                    except BufferError:
                        producer.poll(0.1)
            assert producer.flush(_DEADLINE_S) == 0
        return timer.speed(len(alerts))

    def restore(self) -> Speed:
        """Messages restored from segments to a new topic, planned and looked for, not read back."""
        return self._restored(check=False)

    def restore_and_compare(self) -> Speed:
        """The same, read back and compared digest by digest."""
        return self._restored(check=True)

    def _restored(self, *, check: bool) -> Speed:
        topic = self._published(self._sizes.messages)
        archive = replace(self._archive, layouts=LayoutPolicy("segment"))
        assert sum(done.archived for done in catch_up(archive, [topic])) == self._sizes.messages
        request = Request(query=Query(topics=(topic,)), template="{topic}.again")
        own = Restoration(archive.catalog, archive.store, archive.source, request)
        with TemporaryDirectory() as folder, _Timer() as timer:
            outcome = restore(own, Control(check=check), Path(folder))
        assert (outcome.report["messages"], outcome.differences) == (self._sizes.messages, 0)
        return timer.speed(self._sizes.messages)

    def _archived(self, layout: Layout, count: int) -> Speed:
        topic = self._published(count)
        archive = replace(self._archive, layouts=LayoutPolicy(layout))
        with _Timer() as timer:
            archived = sum(done.archived for done in catch_up(archive, [topic]))
        assert archived == count
        self._archived_topics.append((topic, layout))
        return timer.speed(count)

    def _new_topic(self) -> str:
        self._topics += 1
        topic = f"{self._name}.{self._topics}"
        self._archive.source.create_topic(topic, PARTITIONS)
        return topic

    def _published(self, count: int) -> str:
        topic = self._new_topic()
        self._archive.source.publish(filler(count, self._sizes.size_bytes, topic=topic))
        return topic

    def _objects(self, count: int) -> list[NewObject]:
        """What the archive would put, encoded beforehand, under other names."""
        archive = replace(self._archive, layouts=LayoutPolicy("message"))
        slices = plan_work(archive, [self._published(count)]).plan.slices
        with archive.source.reader({}) as reader:
            readings = list(read_slices(reader, slices, archive.limits, archive.monotonic))
        made = [o for prepared in prepare(archive, readings) for o in prepared.objects]
        return [NewObject(f"{self._name}/raw/{o.key}", o.body) for o in made]


class _Timer:
    """How long a block took."""

    def __enter__(self) -> _Timer:
        self._began = (time.perf_counter(), time.process_time())
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = (time.perf_counter(), time.process_time())

    def speed(self, count: int) -> Speed:
        """For so many items."""
        took_s, cpu_s = (end - begin for begin, end in zip(self._began, self._ended, strict=True))
        return Speed(count / took_s, cpu_s / count * 1e6)


def interleaved(rounds: int, *measures: Callable[[], Speed]) -> Iterator[Sequence[Speed]]:
    """Take measures in turns, a round at a time, every other round in the opposite order.

    What the machine does meanwhile, and what has piled up by then, touches all alike.
    """
    for number in range(rounds):
        order = range(len(measures)) if number % 2 == 0 else reversed(range(len(measures)))
        taken = {index: measures[index]() for index in order}
        yield [taken[index] for index in range(len(measures))]


def _client(address: StackAddress) -> Client:
    return Client(
        address.bucket,
        config={
            "region": "us-east-1",
            "endpoint": address.s3_endpoint,
            "access_key_id": address.s3_access_key,
            "secret_access_key": address.s3_secret_key,
            "conditional_put": "etag",
        },
        client_options={"allow_http": True},
    )


def _put_all(client: Client, todo: deque[NewObject]) -> None:
    while todo:
        try:
            new = todo.popleft()
        except IndexError:
            return  # another thread took the last one
        obstore.put(client, new.key, new.body, mode="create", use_multipart=False)


@contextmanager
def _consuming(address: StackAddress, topic: str) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": address.bootstrap_servers,
            "group.id": "bench",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "check.crcs": True,
            "fetch.max.bytes": FETCH_BYTES,
            "max.partition.fetch.bytes": FETCH_BYTES,
            "queued.max.messages.kbytes": FETCH_BYTES // 1024,
            "fetch.queue.backoff.ms": 10,
        }
    )
    consumer.assign([NativePartition(topic, number, 0) for number in range(PARTITIONS)])
    try:
        yield consumer
    finally:
        consumer.close()
