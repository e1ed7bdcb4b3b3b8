"""What is measured, each on real servers, over messages and objects of its own that nothing has cached."""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
import resource
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import obstore
import psutil
import psycopg
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as NativePartition
from confluent_kafka.admin import AdminClient
from obstore.store import S3Store as Client
from psycopg import sql

from hop_archive.archive import Archive
from hop_archive.catalog.postgres.adding import COPY_MESSAGES
from hop_archive.catalog.postgres.binary_rows import END, SIGNATURE, binary_rows
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.catalog.records import Row
from hop_archive.devkit.alert_values import ORDINARY, dice
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.samples import Sample, filler
from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.read import read_slices
from hop_archive.ingest.survey import plan_work
from hop_archive.ingest.write import Prepared, prepare
from hop_archive.model.query import Query
from hop_archive.model.topics import Compression, Layout, LayoutPolicy
from hop_archive.read.browse import OpenArchive
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
from hop_archive_tests.faults.real import SEGMENTS, ended, processes_of

IN_FLIGHT = 64
PARTITIONS = 4
SMALL_BYTES = 1_000
LARGE_BYTES = 5_000_000
BOUND_MB = 512
_MADE_MS = 1_700_000_000_000
_DEADLINE_S = 60.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        objects: Objects, and messages archived one by one, in a round.
        messages: Messages archived in segments in a round.
        large: Messages of 5 MB in a round.
        rounds: How often; what is compared takes turns.
    """

    objects: int = 6_000
    messages: int = 200_000
    large: int = 40
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast something went.

    Attributes:
        per_s: Items a second.
        cpu_us: CPU time of this process for one item, all threads together, in microseconds.
        servers_us: The same of all servers; None where these are not ours to look at.
        stored_bytes: Bytes in the store for one item; None where nothing was stored.
        peak_mb: Most memory of the process that did it, in 10^6 bytes; None where that is not measured.
    """

    per_s: float
    cpu_us: float
    servers_us: float | None = None
    stored_bytes: float | None = None
    peak_mb: float | None = None


class Bench:
    """Measures on one stack.

    Args:
        address: The stack.
        sizes: How much.
        servers: Process ids of its servers; none where these were given to it.
    """

    def __init__(self, address: StackAddress, sizes: Sizes, servers: Sequence[int] = ()) -> None:
        self._address = address
        self._sizes = sizes
        self._timer = functools.partial(_Timer, servers)
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
        self._admin = AdminClient({"bootstrap.servers": address.bootstrap_servers, "log_level": 0})
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

    def archive_compressed(self) -> Speed:
        """The same, in segments of zstd frames."""
        return self._archived("segment", self._sizes.messages, compression="zstd")

    def archive_large(self) -> Speed:
        """Messages of 5 MB archived in segments, end to end."""
        return self._archived("segment", self._sizes.large, LARGE_BYTES)

    def restore_large(self) -> Speed:
        """Messages of 5 MB restored from segments."""
        return self._restored(self._sizes.large, LARGE_BYTES, check=False)

    def run_large(self) -> Speed:
        """``hop-archive run`` on messages of 5 MB, from its start to its end, under a bound of ``BOUND_MB`` for what it holds."""
        topic = self._published(self._sizes.large, LARGE_BYTES, f"{self._name}l.{SEGMENTS}")
        namespace = topic.partition(".")[0]
        migrate(self._address.database_url, schema=namespace, name="bench")
        with TemporaryDirectory() as directory:
            made = processes_of(Path(directory), namespace, self._address)
            before, began, peak_mb = _children_cpu_s(), time.perf_counter(), 0.0
            with ended(made.run("--until-caught-up", "--quiet", "--memory", str(BOUND_MB))) as process:
                while process.poll() is None:
                    peak_mb = _peak_mb(process.pid) or peak_mb
                    time.sleep(_LOOK_S)
                took_s = time.perf_counter() - began
                told = process.communicate()
        if process.returncode:
            raise RuntimeError(f"hop-archive run failed: {told}")
        cpu_us = (_children_cpu_s() - before) / self._sizes.large * 1e6
        return Speed(self._sizes.large / took_s, cpu_us, peak_mb=peak_mb)

    def put_large(self) -> Speed:
        """Segments of 60 MB put by obstore alone, counted in messages of 5 MB."""
        per_object = 12
        number = math.ceil(self._sizes.large / per_object)
        body = os.urandom(per_object * LARGE_BYTES)
        todo = deque(NewObject(f"{self._name}/raw/{uuid.uuid4()}", body) for _ in range(number))
        with self._timer() as timer:
            _put_all(self._client, todo)
        return timer.speed(number * per_object)

    def consume_large(self) -> Speed:
        """Messages of 5 MB consumed by confluent-kafka alone."""
        return self._consumed(self._sizes.large, LARGE_BYTES)

    def copy(self) -> Speed:
        """Rows that the archive would make, written by COPY alone to the table and indexes of the catalog."""
        rows = self._rows(self._sizes.messages)
        with psycopg.connect(
            self._address.database_url, options=f"-c search_path={self._name}"
        ) as connection:
            with self._timer() as timer, connection.cursor() as cursor:
                for some in rows:
                    with cursor.copy(COPY_MESSAGES) as copy:
                        copy.write(SIGNATURE)
                        for block in binary_rows(some, 1):
                            copy.write(block)
                        copy.write(END)
                connection.commit()
            connection.execute("DELETE FROM messages WHERE batch = 1 AND topic = %s", [rows[0][0].topic])
        return timer.speed(self._sizes.messages)

    def put(self) -> Speed:
        """Objects created by obstore alone: the very documents of layout message, each only if absent.

        By threads, which is the faster of its two ways: 150 us of CPU a put, 230 us by asyncio.
        """
        objects = self._objects(self._sizes.objects)
        with ThreadPoolExecutor(IN_FLIGHT) as pool, self._timer() as timer:
            todo = deque(objects)
            for worker in [pool.submit(_put_all, self._client, todo) for _ in range(IN_FLIGHT)]:
                worker.result()
        return timer.speed(len(objects))

    def listing(self) -> Speed:
        """Keys listed by obstore alone: all that this bench has put."""
        with self._timer() as timer:
            count = sum(len(page) for page in obstore.list(self._client, self._name, chunk_size=1000))
        return timer.speed(count)

    def verify_listing(self) -> Speed:
        """Objects verified by listing, joined with the catalog: what this bench has archived one by one."""
        wanted = Verification(self._archive.catalog, self._archive.store, self._alone, grace_s=0)
        self._analyze()
        with self._timer() as timer:
            assert list(objects(wanted)) == []
        return timer.speed(wanted.checked.counts["objects"])

    def list_archived(self) -> Speed:
        """The keys of those same objects, listed by obstore alone."""
        with self._timer() as timer:
            count = sum(
                len(page)
                for topic in self._alone.topics
                for page in obstore.list(self._client, f"{self._name}/{topic}/", chunk_size=1000)
            )
        return timer.speed(count)

    def verify_deep(self) -> Speed:
        """Messages in segments fetched, decoded, and compared with their rows."""
        wanted = Verification(self._archive.catalog, self._archive.store, self._together)
        self._analyze()
        with self._timer() as timer:
            assert list(documents(wanted)) == []
        return timer.speed(wanted.checked.counts["messages"])

    def read(self) -> Speed:
        """Messages in segments read as from Python, each decoded and checked."""
        opened = OpenArchive(self._archive.catalog, self._archive.store)
        self._analyze()
        with self._timer() as timer:
            count = sum(1 for _ in opened.messages(self._together.topics))
        return timer.speed(count)

    def _analyze(self) -> None:
        """Let the server know what its tables hold, as autovacuum does within a minute or so of a load.

        Without, a restore of what was archived just before took 1.25 times as long: its planner then took each partition for a row.
        """
        with psycopg.connect(self._address.database_url, autocommit=True) as connection:
            for table in ("messages", "batches"):
                connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(self._name, table)))

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
        return self._consumed(self._sizes.messages)

    def _consumed(self, count: int, size_bytes: int = SMALL_BYTES) -> Speed:
        topic = self._published(count, size_bytes)
        with _consuming(self._address, topic) as consumer, self._timer() as timer:
            left, end = count, time.monotonic() + _DEADLINE_S
            while left > 0:
                left -= len(consumer.consume(5_000, 0.1))
                assert time.monotonic() < end, f"{left} messages of {topic} do not come"
        return timer.speed(count)

    def produce(self) -> Speed:
        """Messages produced by confluent-kafka alone: idempotent, acknowledged by all, as a restore does it."""
        topic = self._new_topic()
        alerts = list(_alerts(self._sizes.messages, SMALL_BYTES, topic))
        producer = Producer(
            {"bootstrap.servers": self._address.bootstrap_servers, "enable.idempotence": True}
        )
        with self._timer() as timer:
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
        return self._restored(self._sizes.messages, check=False)

    def restore_and_compare(self) -> Speed:
        """The same, read back and compared digest by digest."""
        return self._restored(self._sizes.messages, check=True)

    def _restored(self, count: int, size_bytes: int = SMALL_BYTES, *, check: bool) -> Speed:
        topic = self._published(count, size_bytes)
        archive = replace(self._archive, layouts=LayoutPolicy("segment"))
        assert sum(done.archived for done in catch_up(archive, [topic])) == count
        settings = {"max.message.bytes": str(2 * size_bytes + 2**20)}
        request = Request(query=Query(topics=(topic,)), template="{topic}.again", topic_settings=settings)
        own = Restoration(archive.catalog, archive.store, archive.source, request)
        self._analyze()
        with TemporaryDirectory() as folder, self._timer() as timer:
            outcome = restore(own, Control(check=check), Path(folder))
        assert (outcome.report["messages"], outcome.differences) == (count, 0)
        return timer.speed(count)

    def _archived(
        self, layout: Layout, count: int, size_bytes: int = SMALL_BYTES, compression: Compression = "none"
    ) -> Speed:
        topic = self._published(count, size_bytes)
        archive = replace(self._archive, layouts=LayoutPolicy(layout, compression=compression))
        with self._timer() as timer:
            archived = sum(done.archived for done in catch_up(archive, [topic]))
        assert archived == count
        if size_bytes == SMALL_BYTES and compression == "none":
            self._archived_topics.append((topic, layout))
        under = f"{self._name}/segments/{topic}/" if layout == "segment" else f"{self._name}/{topic}/"
        stored = sum(o["size"] for page in obstore.list(self._client, under, chunk_size=1000) for o in page)
        return replace(timer.speed(count), stored_bytes=stored / count)

    def _new_topic(self, prefix: str = "") -> str:
        self._topics += 1
        topic = f"{prefix or self._name}.{self._topics}"
        # What measures before this one have published is needed no more, and may be all that a broker's memory holds.
        past = [name for name in self._archive.source.topics() if name.startswith(self._name)]
        if past:
            for deleted in self._admin.delete_topics(past).values():
                deleted.result(_DEADLINE_S)
        self._archive.source.create_topic(topic, PARTITIONS)
        return topic

    def _published(self, count: int, size_bytes: int = SMALL_BYTES, prefix: str = "") -> str:
        topic = self._new_topic(prefix)
        self._archive.source.publish(_alerts(count, size_bytes, topic))
        return topic

    def _rows(self, count: int) -> list[Sequence[Row]]:
        """Rows of messages that are archived nowhere, by batch."""
        archive = replace(self._archive, layouts=LayoutPolicy("segment"))
        return [prepared.batch.rows for prepared in self._prepared(archive, count)]

    def _objects(self, count: int) -> list[NewObject]:
        """What the archive would put, encoded beforehand, under other names."""
        archive = replace(self._archive, layouts=LayoutPolicy("message"))
        made = [o for prepared in self._prepared(archive, count) for o in prepared.objects]
        return [NewObject(f"{self._name}/raw/{o.key}", o.body) for o in made]

    def _prepared(self, archive: Archive, count: int) -> list[Prepared]:
        slices = plan_work(archive, [self._published(count)]).plan.slices
        with archive.source.reader({}) as reader:
            readings = list(read_slices(reader, slices, archive.limits, archive.monotonic))
        return prepare(archive, readings)


class _Timer:
    """How long a block took, and how much CPU this process and its servers used."""

    def __init__(self, servers: Sequence[int]) -> None:
        self._servers = servers

    def __enter__(self) -> _Timer:
        self._began = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = self._now()

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), sum(map(server_cpu_s, self._servers))

    def speed(self, count: int) -> Speed:
        """For so many items."""
        took_s, cpu_s, servers_s = (end - begin for begin, end in zip(self._began, self._ended, strict=True))
        return Speed(count / took_s, cpu_s / count * 1e6, servers_s / count * 1e6 if self._servers else None)


def _children_cpu_s() -> float:
    """CPU seconds of processes of ours that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak_mb(pid: int) -> float | None:
    """Most memory that a process has had so far; None once it is over.

    Linux's ``VmHWM``: what ``getrusage`` and ``wait4`` tell of a child begins with what its parent had when it was forked.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / 1e6 if found else None


def server_cpu_s(pid: int) -> float:
    """CPU seconds of a server and its processes so far, those that are over included."""
    server = psutil.Process(pid)
    total = sum(server.cpu_times()[:4])
    for child in server.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:2])
    return total


def _alerts(count: int, size_bytes: int, topic: str) -> Iterator[Sample]:
    """Messages to publish, each with an ``_id`` of its own: some KB of chance, or JSON of chance and words of about 1 KB.

    Two thousand different ones, in turns: more than share a frame.
    """
    made = filler(count, size_bytes, topic=topic)
    if size_bytes != SMALL_BYTES:
        return made
    return (
        replace(one, value=value, headers=(one.headers[0], ("_sender", b"bench"), ("_format", b"json")))
        for one, value in zip(made, itertools.cycle(_json_alerts()), strict=False)
    )


@functools.cache
def _json_alerts() -> Sequence[bytes]:
    rng = dice("bench")
    notice, event = ORDINARY["gcn-json"].make, ORDINARY["icecube"].make
    return [
        b'{"notice": %b, "event": %b}' % (notice(rng, _MADE_MS + n), event(rng, _MADE_MS + n))
        for n in range(2_000)
    ]


def interleaved(
    rounds: int, measures: Mapping[str, Callable[[], Speed]], failed: Callable[[str, Exception], None]
) -> dict[str, list[Speed]]:
    """Take measures in turns, a round at a time, every other round in the opposite order; what they took, by name.

    What the machine does meanwhile, and what has piled up by then, touches all alike. One that fails is told of, and left out
    from then on, and the others go on.
    """
    taken: dict[str, list[Speed]] = {name: [] for name in measures}
    for number in range(rounds):
        order = list(taken)
        for name in order if number % 2 == 0 else reversed(order):
            try:
                taken[name].append(measures[name]())
            except Exception as error:  # noqa: BLE001 (whatever it is, the others are measured)
                failed(name, error)
                del taken[name]
    return taken


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
