"""What the proofs on real servers share: the archive as a process, messages that keep arriving, and the judge."""

from __future__ import annotations

import itertools
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.records import Outcome, Row
from hop_archive.devkit.local.address import ServerName, StackAddress
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.devkit.samples import SAMPLE_TOPICS, Sample, filler, samples
from hop_archive.errors import UnavailableError
from hop_archive.ingest.follow import Obstacle, archive_continuously
from hop_archive.ingest.survey import OUTLIVED, survey
from hop_archive.model.document import crc32, decode
from hop_archive.model.message import Message
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog
from hop_archive.read.check import extent_of
from hop_archive.source.protocol import Source
from hop_archive.upkeep.verify.sent import Place, Sent, sent_by_place, sent_received
from hop_archive_tests.cli_helpers import command, environment
from hop_archive_tests.invariants import assert_ledger_is_sound, assert_no_object_twice
from hop_archive_tests.roles import as_role
from hop_archive_tests.worlds import exhausted

DEADLINE_S = 180.0
_LONGEST_PAUSE_S = 0.2
SEGMENTS = "segment"
"""Topics with this in their name are archived in segments, the others message by message."""
PARTITIONS = 2
"""Of the topics that ``begin_life`` makes."""


@contextmanager
def in_background(work: Callable[[], None]) -> Iterator[None]:
    """Do some work in a thread while the block runs; what it raised is raised at the block's end."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test has to tell
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(DEADLINE_S)
        if raised:  # also where the block failed: that the work was over is why
            raise raised[0]
    assert not thread.is_alive(), "the work in the background does not end"


@contextmanager
def archiving_on_and_on(archive: Archive, topics: list[str]) -> Iterator[list[Obstacle]]:
    """Archive continuously in a thread, with short pauses, while the block runs; yields what was reported."""
    over = threading.Event()
    errors: list[Obstacle] = []

    def sleep(seconds: float) -> None:
        over.wait(min(seconds, _LONGEST_PAUSE_S))

    def work() -> None:
        exhausted(archive_continuously(archive, over.is_set, sleep, topics, errors.append))

    with in_background(work):
        try:
            yield errors
        finally:
            over.set()


@dataclass(frozen=True, slots=True)
class Processes:
    """``hop-archive`` as processes, on the local stack, in a namespace of its own."""

    directory: Path
    environ: Mapping[str, str]

    def run(self, *options: str) -> subprocess.Popen[str]:
        """Start ``hop-archive run`` on the namespace's topics; the caller ends it."""
        return self.start("run", "-H", "here", "-D", "here", "-S", "here", *options)

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start ``hop-archive``; the caller ends it."""
        return subprocess.Popen(
            command(*args),
            cwd=self.directory,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def to_the_end(self, *options: str) -> str:
        """Run until caught up; what it printed."""
        process = self.run("--until-caught-up", *options)
        told, errors = process.communicate(timeout=2 * DEADLINE_S)
        assert process.returncode == 0, f"{told}{errors}"
        return told + errors


def write_stanzas(directory: Path, namespace: str) -> None:
    """Stanzas ``here``: the namespace's topics, schema and prefix on the local stack, layouts by topic name."""
    (directory / "hop_archive.toml").write_text(
        f"""
        [source.here]
        type = "kafka"
        bootstrap_servers = "${{HOP_ARCHIVE_LOCAL_BOOTSTRAP_SERVERS}}"
        security = "plaintext"
        topics = ["{namespace}*"]
        veto = []
        [database.here]
        type = "postgres"
        url = "${{HOP_ARCHIVE_LOCAL_DATABASE_URL}}"
        schema = "{namespace}"
        [store.here]
        type = "s3"
        endpoint = "${{HOP_ARCHIVE_LOCAL_S3_ENDPOINT}}"
        region = "us-east-1"
        bucket = "${{HOP_ARCHIVE_LOCAL_BUCKET}}"
        prefix = "{namespace}"
        access_key_env = "HOP_ARCHIVE_LOCAL_S3_ACCESS_KEY"
        secret_key_env = "HOP_ARCHIVE_LOCAL_S3_SECRET_KEY"
        layouts = {{ "*{SEGMENTS}*" = "segment" }}
        """
    )


def processes_of(directory: Path, namespace: str, address: StackAddress) -> Processes:
    """Processes that archive the namespace's topics to its catalog schema and prefix, as archivers do."""
    write_stanzas(directory, namespace)
    return Processes(directory, {**environment(), **as_role("archiver", address).environment()})


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Make sure that a process is gone after the block."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def restartable(stack: LocalStack, *names: ServerName) -> LocalStack:
    """The stack, if these servers are its own to stop; skips where they were given to it."""
    for name in names:
        try:
            stack.pid(name)
        except UnavailableError:
            pytest.skip(f"{name} was given, not started by the tests: it cannot be stopped")
    return stack


def create_sample_topics(source: Source, namespace: str) -> list[str]:
    """Topics for sample alerts with the partitions that they have there; every other one is for segments."""
    names = [_sample_topic(namespace, topic.name) for topic in SAMPLE_TOPICS]
    for name, topic in zip(names, SAMPLE_TOPICS, strict=True):
        source.create_topic(name, topic.partitions)
    return names


def sample_alerts(namespace: str, count: int, seed: int = 0) -> list[Sample]:
    """Sample alerts of every kind, duplicates and collisions among them, for ``create_sample_topics``'s topics."""
    now_ms = int(time.time() * 1000)
    return [
        replace(sample, topic=_sample_topic(namespace, sample.topic))
        for sample in samples(count, seed=seed, now_ms=now_ms - count)
    ]


def _sample_topic(namespace: str, name: str) -> str:
    number = [topic.name for topic in SAMPLE_TOPICS].index(name)
    return f"{namespace}.{SEGMENTS if number % 2 else 'message'}.{name}"


def publish(source: Source, alerts: Iterable[Sample]) -> dict[Place, Sent]:
    """Publish, and tell what came to stand where."""
    sending = list(alerts)
    return dict(sent_by_place(sending, source.publish(sending)))


def plain(topic: str, count: int, size_bytes: int = 200, seed: int = 0, partitions: int = 1) -> list[Sample]:
    """Plain messages, spread over partitions in turn."""
    return [
        replace(sample, partition=number % partitions)
        for number, sample in enumerate(filler(count, size_bytes, topic=topic, seed=seed))
    ]


@dataclass(slots=True)
class Trickle:
    """Publishes sample alerts again and again while its block runs; then ``sent`` tells what and where."""

    source: Source
    namespace: str
    count: int = 40
    pause_s: float = 0.4
    sent: dict[Place, Sent] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            for seed in itertools.count(1):
                self.sent |= publish(self.source, sample_alerts(self.namespace, self.count, seed))
                if self._over.wait(self.pause_s):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again when the block ends
            self._failure = error


def assert_all_archived(archive: Archive, topics: Iterable[str], sent: Mapping[Place, Sent]) -> None:
    """What was sent is in the archive, once and the same; every offset is accounted for, once.

    Judged from what was sent, the ledger and the stored objects alone.
    """
    topics = sorted(topics)
    seen = survey(archive, topics)
    assert_ledger_is_sound(archive.catalog.ledger(topics))
    coverage = archive.catalog.coverage(topics)
    for partition_log, known in seen.knowledge.items():
        whole = OffsetSet.between(0, known.watermarks.stable)
        assert coverage.get(partition_log, EMPTY) == whole, (
            f"{partition_log}: {coverage.get(partition_log)} of {whole}"
        )
    for topic in topics:
        _assert_sums(archive, topic)
        assert_stored(archive, topic, seen.recognitions[topic].number, sent)
    assert_no_object_twice(archive)


def assert_stored(archive: Archive, topic: str, generation: int, sent: Mapping[Place, Sent]) -> None:
    """Each message sent to ``topic`` in this life of it has a row or is a duplicate, and its bytes are stored."""
    stored = {row.uuid: (row, message) for row, message in documents(archive, topic)}
    own = {(row.generation, row.partition, row.offset): message for row, message in stored.values()}
    copies = {
        (*partition_log[1:], d.offset): d.uuid for partition_log, d in archive.catalog.duplicates(topic)
    }
    assert not own.keys() & copies.keys(), "an offset is archived and a duplicate"
    for (at, offset), was in sent.items():
        if at.topic != topic:
            continue
        place = (generation, at.partition, offset)
        if place in own:
            assert not list(sent_received(was, own[place]))
            assert own[place].offset == offset
        else:
            _, kept = stored[copies[place]]
            assert (kept.key, kept.value, kept.headers) == (was.key, was.value, was.headers)


def documents(archive: Archive, topic: str) -> Iterator[tuple[Row, Message]]:
    """Every row of a topic with the message that is stored for it; the stored bytes are those of the row."""
    rows = list(archive.catalog.rows(topic))
    wanted = map(extent_of, rows)
    for row, body in zip(rows, archive.store.fetch(wanted), strict=True):
        assert (len(body), crc32(body)) == (row.size_bytes, row.crc32)
        document = decode(body)
        assert (document.uuid, document.digest) == (row.uuid, row.digest)
        yield row, document.message


@dataclass(frozen=True, slots=True)
class Life:
    """One life of two topics, one of each layout: what was sent in it.

    Attributes:
        topics: Their names.
        sent: What was sent, by where it stands.
        stop: Where each partition ends.
    """

    topics: list[str]
    sent: dict[Place, Sent]
    stop: int

    @property
    def partition_logs(self) -> list[PartitionLog]:
        """The offset sequences of a first life."""
        return [PartitionLog(topic, 1, partition) for topic in self.topics for partition in range(PARTITIONS)]


def begin_life(archive: Archive, namespace: str, seed: int, count: int = 400) -> Life:
    """Create the topics and publish ``count`` messages to each."""
    topics = [f"{namespace}.message", f"{namespace}.{SEGMENTS}"]
    for topic in topics:
        archive.source.create_topic(topic, PARTITIONS)
    alerts = [a for topic in topics for a in plain(topic, count, seed=seed, partitions=PARTITIONS)]
    return Life(topics, publish(archive.source, alerts), count // PARTITIONS)


def assert_first_life_is_accounted_for(archive: Archive, life: Life) -> int:
    """All that was seen is archived and the same, or recorded as lost with the topic; how much was archived."""
    seen = archive.catalog.observed(life.topics)
    lost = {entry for entry in archive.catalog.ledger(life.topics) if entry.outcome is Outcome.LOST}
    assert {entry.reason for entry in lost} <= {OUTLIVED}
    coverage = archive.catalog.coverage(life.topics)
    for partition_log in life.partition_logs:
        assert seen[partition_log].stable == life.stop
        assert coverage[partition_log] == OffsetSet.between(0, life.stop)
    gone = {(e.slice.topic, e.slice.partition, o) for e in lost for o in range(e.slice.start, e.slice.stop)}
    kept = {
        (at, offset): was
        for (at, offset), was in life.sent.items()
        if (at.topic, at.partition, offset) not in gone
    }
    for topic in life.topics:
        assert_stored(archive, topic, 1, kept)
    return len(kept)


def _assert_sums(archive: Archive, topic: str) -> None:
    entries = archive.catalog.ledger([topic])
    rows = sum(1 for _ in archive.catalog.rows(topic))
    copies = sum(1 for _ in archive.catalog.duplicates(topic))
    assert (sum(e.archived for e in entries), sum(e.duplicates for e in entries)) == (rows, copies)
    for summary in archive.catalog.summaries([topic]):
        assert (summary.messages, summary.duplicates) == (rows, copies)
