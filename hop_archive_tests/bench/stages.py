"""``python -m hop_archive_tests.bench.stages``: own CPU time of archiving a message, stage by stage, without servers.

Each stage does in a process what it does between servers: messages as Kafka's client hands them out are converted, cut into
readings, decided, encoded and placed, and written as COPY takes them. What the clients' own threads do is not in it. CPU time
differs with what else runs on the machine, too, by a factor of two: compare stages of one run, or take turns with another
version (``PYTHONPATH``), and look at the least.
"""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import click
import confluent_kafka

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.postgres.binary_rows import binary_rows
from hop_archive.catalog.stored import Stored
from hop_archive.devkit.samples import filler
from hop_archive.ingest.garbage_collection import fewer_collections
from hop_archive.ingest.read import Reading, read_slices
from hop_archive.ingest.write import Prepared, prepare
from hop_archive.model.identity import Identity, Known, digest
from hop_archive.model.limits import Limits
from hop_archive.model.message import Header, Message, TopicPartition
from hop_archive.model.slices import Slice
from hop_archive.model.topics import LayoutPolicy
from hop_archive.recover.restore.items import ItemReader, Page
from hop_archive.recover.restore.plan import Target
from hop_archive.recover.restore.portion import PortionReader
from hop_archive.recover.restore.request import Request
from hop_archive.recover.restore.written import Written
from hop_archive.source.kafka.reader import KafkaReader
from hop_archive.source.mock.source import MockSource
from hop_archive.source.protocol import Reader
from hop_archive.store.mock import MockStore

_TOPIC = TopicPartition("bench.stages", 0)
_SENDER: Header = ("_sender", b"someone-12345678")


class _Converting(KafkaReader):
    """A reader that asks nobody: it converts what it is given."""

    def __init__(self) -> None:
        self._source = MockSource("bench")
        self._next = {_TOPIC: 0}
        self._assigned = {_TOPIC}
        self._errors = deque()


class _Empty(MockCatalog):
    """A catalog that holds nothing, and says so at once."""

    def known(self, identities: Sequence[Identity]) -> Sequence[Known]:
        return []


class _Given(Reader):
    """A reader of messages that are there."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._at = 0

    def __exit__(self, *_: object) -> None: ...

    def add(self, starts: Mapping[TopicPartition, int]) -> None: ...

    def release(self, partitions: Collection[TopicPartition]) -> None: ...

    def poll(self, max_messages: int, timeout_s: float) -> Sequence[Message]:
        polled = self._messages[self._at : self._at + max_messages]
        self._at += len(polled)
        return polled

    def position(self, partition: TopicPartition) -> int:
        return self._at


def _blobs(count: int, size_bytes: int) -> Iterator[tuple[bytes, list[Header]]]:
    """What ``make bench`` sends: random bytes, and two headers."""
    for one in filler(count, size_bytes, topic=_TOPIC.topic):
        yield one.value or b"", list(one.headers)


def _alerts(count: int, size_bytes: int) -> Iterator[tuple[bytes, list[Header]]]:
    """JSON with the headers that hop-client sends."""
    dice = random.Random(1)
    for number in range(count):
        text = json.dumps({"event": number, "ra": dice.random(), "notes": "x" * (size_bytes - 60)})
        yield text.encode(), [("_id", dice.randbytes(16)), _SENDER, ("_test", b"true"), ("_format", b"json")]


def _native(messages: Iterator[tuple[bytes, list[Header]]]) -> list[Any]:
    """As Kafka's client hands them out."""
    return [
        confluent_kafka.Message(
            topic=_TOPIC.topic,
            partition=_TOPIC.partition,
            offset=offset,
            key=None,
            value=value,
            headers=[*headers],
            error=None,
            timestamp=(confluent_kafka.TIMESTAMP_CREATE_TIME, 1_700_000_000_000 + offset),
            leader_epoch=1,
        )
        for offset, (value, headers) in enumerate(messages)
    ]


def measured(native: Sequence[Any]) -> dict[str, float]:
    """Own CPU time of each stage for a message, in µs."""
    archive = Archive(MockSource("bench"), _Empty(), MockStore(), layouts=LayoutPolicy("segment"))
    took: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.thread_time()
        found = work()
        took[name] = (time.thread_time() - began) / len(native) * 1e6
        return found

    with fewer_collections():
        messages: list[Message] = timed("convert", lambda: _Converting()._convert(native))
        timed(
            "(digest's own hash)",
            lambda: [blake2b(m.value or b"", digest_size=16).digest() for m in messages],
        )
        whole = Slice(_TOPIC.topic, 1, _TOPIC.partition, 0, len(messages))
        read: list[Reading] = timed(
            "read", lambda: list(read_slices(_Given(messages), [whole], Limits(), time.monotonic))
        )
        prepared: list[Prepared] = timed(
            "prepare", lambda: [one for reading in read for one in prepare(archive, [reading])]
        )
        timed("copy", lambda: [len(block) for one in prepared for block in binary_rows(one.batch.rows, 1)])
        stored = [Stored.of(row) for one in prepared for row in one.batch.rows]
        for one in prepared:
            archive.store.create([*one.objects])
        timed(
            "restore: read, prove",
            lambda: _restored(archive, Page(_TOPIC.topic, whole.partition_log, stored)),
        )
        timed("restore: compare", lambda: [digest(m.key, m.headers, m.value) for m in messages])
    return took


@dataclass(frozen=True)
class _OnePage(ItemReader):
    """Messages that are known."""

    page: Page

    def pages(self, target: Target) -> Iterator[Page]:
        yield self.page


def _restored(archive: Archive, page: Page) -> int:
    """Read and prove what is to be sent; how many messages that is."""
    reader = PortionReader(
        _OnePage(archive.catalog, Request(), page), archive.store, Target("", "", (), 1), {}, Written(), 1
    )
    return sum(len(run.outgoing) for portion in reader.portions(20_000) for run in portion.runs)


@click.command()
@click.option("--messages", default=20_000, show_default=True, help="Messages in a round.")
@click.option("--size", "size_bytes", default=1_000, show_default=True, help="Bytes of a message.")
@click.option("--rounds", default=7, show_default=True, help="Rounds; the least of all is told.")
@click.option("--json", "as_json", is_flag=True, help="As JSON: µs by kind of message and stage.")
def main(messages: int, size_bytes: int, rounds: int, as_json: bool) -> None:
    """Measure what archiving and restoring a message costs this process, stage by stage."""
    found = {}
    for name, made in (("blob", _blobs), ("json", _alerts)):
        taken = [measured(_native(made(messages, size_bytes))) for _ in range(rounds)]
        found[name] = {stage: round(min(one[stage] for one in taken), 3) for stage in taken[0]}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name, stages in found.items():
        for stage, us in stages.items():
            click.echo(f"{name}  {stage:20} {us:6.2f} µs")


if __name__ == "__main__":
    main()
