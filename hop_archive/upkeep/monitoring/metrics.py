"""Metrics for Prometheus and OpenMetrics: of the archive as it is, and of a process that archives.

Names follow Prometheus's conventions: base units at their ends, ``_total`` for what only grows, moments as timestamps. The number
of series is bounded: seven for a topic, of a thousand topics, and some hundred besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hop_archive.errors import ConfigurationError, needing_extra
from hop_archive.ingest.totals import totals_of
from hop_archive.ingest.write import Done
from hop_archive.model.findings import Kind
from hop_archive.upkeep.monitoring.measured import KINDS, STAGES
from hop_archive.upkeep.monitoring.numbers import Numbers

with needing_extra("monitoring"):
    from prometheus_client import (
        CollectorRegistry,
        Counter,
        Histogram,
        ProcessCollector,
        disable_created_metrics,
        start_http_server,
    )
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
    from prometheus_client.exposition import write_to_textfile
    from prometheus_client.metrics_core import Metric

_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

OF_TOPICS = {
    "hop_archive_topic_messages": "Messages of the topic that are archived.",
    "hop_archive_topic_bytes": "Bytes of their documents, before compression.",
    "hop_archive_topic_duplicates": "Offsets whose message was archived already, and not stored again.",
    "hop_archive_topic_lost_offsets": "Offsets that Kafka had no more before they were archived, those from before the archive began included.",
    "hop_archive_topic_last_batch_timestamp_seconds": "When the last batch of the topic was archived.",
}
OF_LAGS = {
    "hop_archive_topic_lag_messages": "Offsets that Kafka holds, and that are not dealt with. Absent where that is not known.",
    "hop_archive_topic_lag_seconds": "For how long the oldest of them has been seen to wait.",
}


class ArchiveMetrics:
    """A collector of what the archive is like; to be registered with a ``CollectorRegistry``.

    What could not be asked is down (``hop_archive_up``), and nothing is told of it: Prometheus marks the series as stale.
    """

    def __init__(self, latest: Callable[[], Numbers | None], version: str = "") -> None:
        self._latest = latest
        self._version = version

    def describe(self) -> Iterable[Metric]:
        """The metrics without their samples."""
        return self._families(None)

    def collect(self) -> Iterable[Metric]:
        """The metrics as of the latest look."""
        return self._families(self._latest())

    def _families(self, found: Numbers | None) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "hop_archive_build", "The version that tells this.", {"version": self._version}
        )
        up = GaugeMetricFamily(
            "hop_archive_up",
            "1 where the part could be asked at the latest look, 0 where not.",
            labels=["part"],
        )
        up.add_metric(["database"], float(found is not None and not found.database_error))
        if found is None or found.asked_source:
            up.add_metric(["source"], float(found is not None and not found.source_error))
        yield up
        is_known = found is not None and not found.database_error
        yield _gauge(
            "hop_archive_look_timestamp_seconds", "When the latest look was.", found.at_s if found else None
        )
        yield _gauge(
            "hop_archive_look_duration_seconds", "How long it took.", found.took_s if found else None
        )
        yield _gauge(
            "hop_archive_topics",
            "Topics that are archived, or were.",
            found.topics if found and is_known else None,
        )
        yield from _of_topics(found)
        opened = GaugeMetricFamily(
            "hop_archive_open_findings", "Findings that nobody has settled.", labels=["kind"]
        )
        for kind in Kind if found and is_known else ():
            opened.add_metric([kind.value], found.findings.get(kind.value, 0) if found else 0)
        yield opened
        share = 1 - found.never / found.offsets if found and is_known and found.offsets else None
        yield _gauge(
            "hop_archive_verified_ratio",
            "Share of the archived offsets that were read again and compared.",
            share,
        )
        yield _gauge(
            "hop_archive_oldest_verification_timestamp_seconds",
            "When the check was that is longest ago.",
            found.oldest_check_s if found else None,
        )


def _gauge(name: str, help_text: str, value: float | None) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _of_topics(found: Numbers | None) -> Iterator[Metric]:
    families = {
        name: GaugeMetricFamily(name, text, labels=["topic"])
        for name, text in {**OF_TOPICS, **OF_LAGS}.items()
    }
    for topic, summary in found.summaries.items() if found else ():
        at = summary.last_batch_at
        values = (
            summary.messages,
            summary.size_bytes,
            summary.duplicates,
            summary.lost,
            at.timestamp() if at else None,
        )
        for name, value in zip(OF_TOPICS, values, strict=True):
            if value is not None:
                families[name].add_metric([topic], value)
    for topic, lag in found.lags.items() if found else ():
        for name, value in zip(OF_LAGS, (lag.messages, lag.oldest_s), strict=True):
            if value is not None:
                families[name].add_metric([topic], value)
    yield from families.values()


class RunMetrics:
    """What a process that archives did since it began, and how long its stages took: a ``Meter``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, of when it began, which nobody asks for
        self._messages = Counter(
            "hop_archive_run_messages_total", "Messages that this process archived.", registry=registry
        )
        self._bytes = Counter("hop_archive_run_bytes_total", "Bytes of their documents.", registry=registry)
        self._duplicates = Counter(
            "hop_archive_run_duplicates_total", "Duplicates that it met.", registry=registry
        )
        self._lost = Counter(
            "hop_archive_run_lost_offsets_total", "Offsets that it recorded as lost.", registry=registry
        )
        self._retries = Counter(
            "hop_archive_run_retries_total",
            "Times that it began again since a server did not answer, or refused.",
            registry=registry,
        )
        self._stages = Histogram(
            "hop_archive_stage_duration_seconds",
            "Calls of each stage of archiving: read (with waiting for messages), decide, write_objects, commit; survey.",
            ["stage"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._errors = Counter(
            "hop_archive_call_errors_total",
            "Calls of source, catalog (Postgres) and store (S3) that failed, after what their clients tried again by themselves.",
            ["part", "kind"],
            registry=registry,
        )
        for stage in STAGES.values():
            self._stages.labels(stage)
        for part in ("source", "catalog", "store"):
            for kind in (*KINDS.values(), "bug"):
                self._errors.labels(part, kind)

    def stage(self, name: str, seconds: float) -> None:
        """Take in a call of a stage."""
        self._stages.labels(name).observe(seconds)

    def failed(self, part: str, kind: str) -> None:
        """Take in a call that failed."""
        self._errors.labels(part, kind).inc()

    def retried(self) -> None:
        """Take in that the process waits, and begins again."""
        self._retries.inc()

    def done(self, done: Done) -> None:
        """Take in what was archived."""
        for totals in totals_of(done.batches).values():
            self._messages.inc(totals.messages)
            self._bytes.inc(totals.size_bytes)
            self._duplicates.inc(totals.duplicates)
            self._lost.inc(totals.lost)


def registry_of(latest: Callable[[], Numbers | None], version: str = "") -> CollectorRegistry:
    """A registry with the archive's numbers and this process's own (memory, processor time, files)."""
    registry = CollectorRegistry()
    collector: Any = ArchiveMetrics(latest, version)
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


def serve(registry: CollectorRegistry, address: str) -> Callable[[], None]:
    """Serve ``/metrics``, in Prometheus's form or OpenMetrics as it is asked for; returns what ends it.

    Args:
        registry: What to serve.
        address: ``HOST:PORT`` or ``PORT``, of this machine alone then.

    Raises:
        ConfigurationError: The address is none, or cannot be had.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not int(port) < 65_536:
        raise ConfigurationError(
            f"{address!r} is no address to serve metrics at.",
            remedy="Wanted: PORT, or HOST:PORT; 0.0.0.0:9464 for all to see.",
        )
    try:
        server, thread = start_http_server(int(port), host.strip("[]") or "127.0.0.1", registry)
    except OSError as error:
        raise ConfigurationError(
            f"Metrics cannot be served at {address}: {error.strerror or error}.",
            remedy="Choose another port, or end what has it.",
        ) from error

    def end() -> None:
        server.shutdown()
        thread.join(timeout=5.0)
        server.server_close()

    return end


def write_textfile(registry: CollectorRegistry, path: Path) -> None:
    """Write the metrics for node-exporter's textfile collector: the file is as it was, or new as a whole.

    Raises:
        ConfigurationError: It cannot be written.
    """
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror or error}.",
            remedy="Name a file in the folder of node-exporter.",
        ) from error
