"""``python -m hop_archive_tests.bench.under_dagster``: how far behind sensor and runs are, and what they cost.

On a local stack of its own with Dagster's code server and daemon, its storage in Postgres. Times are of this machine and of all
that runs there; CPU seconds, and events a message, differ less.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click
import dagster as dg
import psutil
import psycopg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.orchestration.runs import FOLLOWING
from hop_archive_tests.bench.brokers import apache_kafka
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.dagster_services import CODE, DAEMON, Deployment, deployment
from hop_archive_tests.faults.real import SEGMENTS, processes_of

_NAMESPACE = "bench"
_STANZAS = dict.fromkeys(("HOP_ARCHIVE_SOURCE", "HOP_ARCHIVE_DATABASE", "HOP_ARCHIVE_STORE"), "here")
_LOOK_S = 0.05
_OVERLAP_IDS = 20_000
"""Rows that were numbered earlier may be committed later."""
_DRAINED_S = 300.0


@dataclass(slots=True)
class Watcher:
    """Sees each message of the catalog within a twentieth of a second, and how long ago it had been published.

    Those only that were published since it was made.
    """

    url: str
    since_ms: float = field(default_factory=lambda: time.time() * 1000)
    waited_s: list[float] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        last = 0
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self._over.wait(_LOOK_S):
                rows = connection.execute(
                    f"SELECT id, timestamp FROM {_NAMESPACE}.messages WHERE id > %s", [last - _OVERLAP_IDS]
                ).fetchall()
                now = time.time()
                new = [(number, ms) for number, ms in rows if number not in self.seen]
                self.seen.update(number for number, _ in new)
                self.waited_s += [now - ms / 1000 for _, ms in new if ms >= self.since_ms]
                last = max([last, *(number for number, _ in new)])

    def stop(self) -> None:
        self._over.set()


@dataclass(frozen=True, slots=True)
class Bench:
    """A stack with topics, and Dagster's services on it."""

    address: StackAddress
    topics: Sequence[str]
    services: Deployment
    dagster_url: str
    instance: dg.DagsterInstance

    def publish(self, per_s: float, duration_s: float, seed: int = 0) -> int:
        """Publish at an even pace, to topics by chance; how many that was."""
        dice = random.Random(seed)
        producer = Producer({"bootstrap.servers": self.address.bootstrap_servers, "linger.ms": 5})
        began, sent = time.monotonic(), 0
        while (passed := time.monotonic() - began) < duration_s:
            while sent < passed * per_s:
                producer.produce(
                    dice.choice(self.topics), dice.randbytes(1_000), timestamp=time.time_ns() // 1_000_000
                )
                sent += 1
            producer.poll(0)
            time.sleep(0.01)
        producer.flush()
        return sent

    def has_begun(self) -> bool:
        """Whether something was archived: a run has started, and works."""
        with psycopg.connect(self.address.database_url) as connection:
            (rows,) = connection.execute(f"SELECT count(*) FROM {_NAMESPACE}.messages").fetchone() or (0,)
        return bool(rows)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far, of each service with the runs that it started."""
        found = {}
        for name, process in self.services.processes.items():
            own = psutil.Process(process.pid)
            # Children that are over are in their parent's times, once it has asked for what became of them.
            times = [one.cpu_times() for one in (own, *own.children(recursive=True))]
            found[name] = sum(t.user + t.system + t.children_user + t.children_system for t in times)
        return found

    def events(self) -> tuple[int, int]:
        """Rows in Dagster's log of events, and bytes of its database."""
        with psycopg.connect(self.dagster_url) as connection:
            (rows,) = connection.execute("SELECT count(*) FROM event_logs").fetchone() or (0,)
            (size,) = connection.execute("SELECT pg_database_size(current_database())").fetchone() or (0,)
        return rows, size

    def runs(self) -> Mapping[str, int]:
        """How many runs there were, and how many of them followed."""
        runs = self.instance.get_runs()
        return {"runs": len(runs), "following": sum(FOLLOWING in run.tags for run in runs)}


@contextmanager
def bench(topics: int, *, local_kafka: bool, **pacing: float) -> Iterator[Bench]:
    """Everything that it takes, ended with the block."""
    with (
        tempfile.TemporaryDirectory(prefix="hop_archive-bench-") as directory,
        apache_kafka(Path(directory) / "kafka", wanted=not local_kafka) as given,
    ):
        stack = LocalStack(Path(directory) / "stack", external=given.external)
        address = stack.up()
        try:
            migrate(address.database_url, schema=_NAMESPACE, name="bench")
            names = [f"{_NAMESPACE}.{SEGMENTS}.{number:04}" for number in range(topics)]
            admin = AdminClient({"bootstrap.servers": address.bootstrap_servers})
            for future in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
                future.result(120)
            url = _database(address.database_url)
            environ = {
                **processes_of(Path(directory), _NAMESPACE, address).environ,
                **_STANZAS,
                "HOP_ARCHIVE_TOML": str(Path(directory) / "hop_archive.toml"),
                **{f"HOP_ARCHIVE_{name.upper()}": f"{value:g}" for name, value in pacing.items()},
            }
            storage = (
                f"\nstorage: {{postgres: {{postgres_url: '{url.replace('://', '+psycopg2://', 1)}'}}}}\n"
            )
            home = Path(directory) / "dagster"
            with (
                deployment(home, environ, storage, (CODE, DAEMON)) as services,
                dg.DagsterInstance.from_config(str(home)) as instance,
            ):
                try:
                    yield Bench(address, names, services, url, instance)
                finally:
                    _end_runs(services)
        finally:
            stack.down(purge=True)


def _end_runs(services: Deployment) -> None:
    """Kill the runs that the services have started: each would outlive them."""
    for process in services.processes.values():
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()


def _database(url: str) -> str:
    """A database of Dagster's own on the same server."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE dagster_bench")
    return urlunsplit(urlsplit(url.replace("postgres://", "postgresql://"))._replace(path="/dagster_bench"))


def measured(made: Bench, per_s: float, duration_s: float) -> dict[str, Any]:
    """Publish for a while: from publishing to the catalog, and what it cost."""
    watcher = Watcher(made.address.database_url)
    thread = threading.Thread(target=watcher.run, daemon=True)
    thread.start()
    cpu, (rows, size), runs, began = made.cpu_s(), made.events(), made.runs(), time.monotonic()
    sent = made.publish(per_s, duration_s)
    took_s = time.monotonic() - began
    used = {name: seconds - cpu[name] for name, seconds in made.cpu_s().items()}
    new_rows, new_size = (now - then for now, then in zip(made.events(), (rows, size), strict=True))
    wait_for(lambda: len(watcher.waited_s) >= sent, "all that was published is in the catalog", _DRAINED_S)
    watcher.stop()
    thread.join()
    waited = sorted(watcher.waited_s)
    return {
        "messages": sent,
        "seconds": round(took_s, 1),
        "waited_s": {
            name: round(waited[min(len(waited) - 1, int(share * len(waited)))], 2)
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), ("most", 1.0))
        },
        "cores": {name: round(seconds / took_s, 3) for name, seconds in used.items()},
        "events_a_message": round(new_rows / sent, 3),
        "megabytes_an_hour": round(new_size / took_s * 3600 / 1e6, 1),
        **{name: count - runs[name] for name, count in made.runs().items()},
    }


def ticks(made: Bench, number: int) -> dict[str, Any]:
    """Ticks of ``kafka_offsets`` with nothing to do, in a process like the code server's."""
    from hop_archive.config.load import load, select
    from hop_archive.config.open import open_archive
    from hop_archive.orchestration.pacing import Pacing
    from hop_archive.orchestration.sensors import kafka_offsets

    environ = made.services.environ
    configuration = load(Path(environ["HOP_ARCHIVE_TOML"]), environ)
    took, used = [], []
    for _ in range(number):
        archive = open_archive(configuration, select(configuration, environ=environ), environ)
        wall, cpu = time.monotonic(), time.process_time()
        kafka_offsets(dg.build_sensor_context(instance=made.instance), archive=archive, pacing=Pacing())
        took.append(time.monotonic() - wall)
        used.append(time.process_time() - cpu)
        archive.close()
    return {"tick_s": round(statistics.median(took), 3), "tick_cpu_s": round(statistics.median(used), 3)}


_local_kafka = click.option(
    "--local-kafka", is_flag=True, help="On the local stack's own Kafka, though Apache's can be had."
)


@click.group()
def main() -> None:
    """Measure sensor and runs on a local stack; prints JSON."""


@main.command()
@click.option("--topics", default=50, show_default=True)
@click.option("--rate", default=700.0, show_default=True, help="Messages a second.")
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--follow-s", default=90.0, show_default=True, help="How long each run follows.")
@_local_kafka
def follow(topics: int, rate: float, minutes: float, follow_s: float, local_kafka: bool) -> None:
    """Follow through hand-overs from run to run."""
    with bench(topics, local_kafka=local_kafka, follow_s=follow_s) as made:
        made.publish(topics, 1)
        wait_for(made.has_begun, "a run follows", _DRAINED_S)
        click.echo(json.dumps(measured(made, rate, minutes * 60), indent=2))


@main.command()
@click.option("--every-s", default=31.0, show_default=True, help="Seconds from message to message.")
@click.option("--minutes", default=10.0, show_default=True)
@_local_kafka
def quiet(every_s: float, minutes: float, local_kafka: bool) -> None:
    """Messages of a quiet topic, with the default pacing."""
    with bench(1, local_kafka=local_kafka) as made:
        made.publish(1, 2)
        wait_for(made.has_begun, "the first are archived", _DRAINED_S)
        click.echo(json.dumps(measured(made, 1 / every_s, minutes * 60), indent=2))


@main.command()
@click.option("--topics", default=1_000, show_default=True)
@click.option("--minutes", default=10.0, show_default=True)
@click.option(
    "--follow-s", type=float, help="How long each run follows; by default as long as it does in production."
)
@click.option(
    "--warm-s", default=150.0, show_default=True, help="Published for so long before it is measured."
)
@_local_kafka
def many(topics: int, minutes: float, follow_s: float | None, warm_s: float, local_kafka: bool) -> None:
    """Topics with a message a minute each; then ticks with nothing to do."""
    with bench(
        topics, local_kafka=local_kafka, **({} if follow_s is None else {"follow_s": follow_s})
    ) as made:
        made.publish(topics / 60, warm_s)  # that each has been reported once
        found = measured(made, topics / 60, minutes * 60)
        click.echo(json.dumps({**found, **ticks(made, 7)}, indent=2))


if __name__ == "__main__":
    main()
