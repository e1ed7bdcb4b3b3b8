"""Sample alerts in a source: what a mock holds from the start and is sent later, and what a demonstration publishes."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Self

from hop_archive.config.stanzas import MockSourceStanza, SourceStanza
from hop_archive.devkit.publish import publish
from hop_archive.devkit.samples import KINDS, SAMPLE_TOPICS, Sample, SampleTopic, samples
from hop_archive.source.mock.source import MockSource
from hop_archive.source.protocol import Source


def create_sample_topics(source: Source) -> None:
    """Create the topics of sample alerts, with their partitions; those that exist are left as they are.

    Raises:
        ForbiddenError: The source is not writable.
        UnavailableError: It does not answer.
    """
    for topic in SAMPLE_TOPICS:
        source.create_topic(topic.name, topic.partitions)


def everything_in(topic: str, partitions: int) -> SampleTopic:
    """One topic for sample alerts of every kind, but for heartbeats and what takes two topics."""
    return SampleTopic(topic, partitions, tuple(k for k in KINDS if k not in ("heartbeat", "cross-posted")))


def sample_stream(
    count: int, *, seed: int = 0, now_ms: int | None = None, topics: Sequence[SampleTopic] | None = None
) -> Iterator[Sample]:
    """Sample alerts as of ``samples``; a ``count`` of 0 means without end.

    Without ``now_ms`` the last is of now, or the first where there is no end.
    """
    start_ms = time.time_ns() // 1_000_000 - count if now_ms is None else now_ms
    return samples(count or sys.maxsize, seed=seed, now_ms=start_ms, topics=topics)


def fill(source: Source, stanza: SourceStanza) -> int:
    """Publish to a mock that has no topic yet what its stanza says it holds, and count that; leave other sources alone."""
    mock = _writable(source)
    if mock is None or not isinstance(stanza, MockSourceStanza) or not stanza.samples or mock.topics():
        return 0
    create_sample_topics(mock)
    return sum(map(len, publish(mock, sample_stream(stanza.samples), sleep=time.sleep)))


class Arrivals:
    """Publishes sample alerts to a mock, at the rate of its stanza, while the block runs; to others nothing."""

    def __init__(self, source: Source, stanza: SourceStanza) -> None:
        self._source = _writable(source)
        self._rate = stanza.rate if isinstance(stanza, MockSourceStanza) else 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._publish, name="sample-arrivals", daemon=True)

    def __enter__(self) -> Self:
        if self._source is not None and self._rate > 0:
            create_sample_topics(self._source)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _publish(self) -> None:
        assert self._source is not None
        # A stream of another seed than the one that the mock was filled from: else all would be duplicates.
        alerts = itertools.takewhile(lambda _: not self._over.is_set(), sample_stream(0, seed=1))
        arriving = publish(self._source, alerts, rate=self._rate, sleep=self._over.wait)
        for _ in itertools.takewhile(lambda _: not self._over.is_set(), arriving):
            pass


def _writable(source: Source) -> MockSource | None:
    """The same mock cluster, to write to: who made it up may fill it, whatever the stanza says of others."""
    return MockSource(source.name, cluster=source.cluster) if isinstance(source, MockSource) else None
