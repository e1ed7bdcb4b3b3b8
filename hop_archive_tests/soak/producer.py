"""Publishes messages of every kind, and writes down each before it is sent and once Kafka has acknowledged it."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bson
from confluent_kafka import KafkaError, Message, Producer

from hop_archive.devkit.known_set import known_set
from hop_archive.devkit.samples import Sample, SampleTopic, filler, samples

_ROUND = 600
"""Samples of one seed: a third of them are odd, the first of each kind of each topic."""
_BIG_BYTES = 700_000
_PATIENCE_MS = 3_600_000


class Publisher:
    """A thread that publishes until it is told to stop, and waits for what is under way.

    Attributes:
        sent: How many messages were handed to the client; ``acknowledged``: of how many Kafka said where they stand.
        failed: How many the client gave up.
    """

    def __init__(
        self, bootstrap: str, topics: Sequence[SampleTopic], record: Path, *, seed: int, per_s: float
    ) -> None:
        self.sent = self.acknowledged = self.failed = 0
        self._topics = topics
        self._seed = seed
        self._per_s = per_s
        self._record = record.open("ab", buffering=0)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        # Not idempotent: what was sent again for want of an answer is there twice, as publishers do it.
        settings = {
            "bootstrap.servers": bootstrap,
            "message.timeout.ms": _PATIENCE_MS,
            "request.timeout.ms": 5_000,
            "socket.timeout.ms": 10_000,
            "reconnect.backoff.max.ms": 500,
            "linger.ms": 5,
            "log_level": 0,
        }
        self._producer = Producer(settings)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Publish no more."""
        self._over.set()
        self._thread.join()

    def waiting(self) -> int:
        """How many messages are under way."""
        return self._producer.flush(1)

    def close_partitions(self) -> None:
        """Publish a last message to each partition, by itself: Tansu tells of no more than the first of the last batch of a log."""
        for topic in self._topics:
            for partition in range(topic.partitions):
                value = f"the end of {topic.name}/{partition}, seed {self._seed}".encode()
                self._publish(Sample(topic.name, None, value, (), None, partition, "end"))
                while self._producer.flush(1):
                    pass

    def close(self) -> None:
        """Write down nothing more; nothing is under way any more."""
        self._record.close()

    def _run(self) -> None:
        began = time.monotonic()
        for sample in self._all():
            while not self._over.is_set() and self.sent > (time.monotonic() - began) * self._per_s:
                self._producer.poll(0.01)
            if self._over.is_set():
                return
            self._publish(sample)
            self._producer.poll(
                0
            )  # also where the rate is not reached: else nothing would count as acknowledged

    def _all(self) -> Iterator[Sample]:
        now_ms = int(time.time() * 1000)
        for number, topic in enumerate(self._topics):
            cases = known_set(
                topic.name, now_ms=now_ms, seed=self._seed + number, partitions=topic.partitions
            )
            # A broker may refuse what is far from its clock; those cases have tests of their own.
            yield from (case for case in cases if not case.kind.startswith("timestamp-"))
        for turn in itertools.count():
            dice = random.Random(f"{self._seed}:{turn}")
            now_ms = int(time.time() * 1000)
            yield from samples(_ROUND, seed=dice.getrandbits(40), now_ms=now_ms, topics=self._topics)
            topic = dice.choice(self._topics)
            yield from filler(2, _BIG_BYTES, topic=topic.name, seed=dice.getrandbits(40))
            yield from filler(500, 300, topic=topic.name, seed=dice.getrandbits(40))

    def _publish(self, sample: Sample) -> None:
        number = self.sent
        self.sent += 1
        self._write(
            number=number,
            topic=sample.topic,
            key=sample.key,
            value=sample.value,
            headers=[list(header) for header in sample.headers],
            timestamp=sample.timestamp_ms,
        )
        more: dict[str, Any] = {"headers": list(sample.headers)} if sample.headers else {}
        if sample.timestamp_ms is not None:
            more["timestamp"] = sample.timestamp_ms
        if sample.partition is not None:
            more["partition"] = sample.partition

        def told(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.failed += 1
                return
            _, timestamp_ms = message.timestamp()
            self._write(
                number=number,
                topic=sample.topic,
                partition=message.partition(),
                offset=message.offset(),
                timestamp=timestamp_ms,
            )
            self.acknowledged += 1

        while True:
            try:
                return self._producer.produce(
                    sample.topic, sample.value, sample.key, on_delivery=told, **more
                )
            except BufferError:
                self._producer.poll(0.1)

    def _write(self, **entry: Any) -> None:
        with self._lock:
            self._record.write(bson.encode(entry))
