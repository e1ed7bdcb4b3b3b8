"""``python -m hop_archive_tests.bench.sharing``: what two processes on one topic gain over one, where the servers are not the limit.

The store is slow and takes many puts at once, as a service far away: each put waits. So it is the process that is waited
for, and not the two cores that all share. Also measured: CPU, WAL and room in the database for a message.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import psycopg

from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.devkit.local.address import External, StackAddress
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.devkit.samples import filler
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.contract.store_fixtures import SlowProxy
from hop_archive_tests.faults.real import SEGMENTS, ended, processes_of

PARTITIONS = 16


@dataclass(frozen=True, slots=True)
class Load:
    """What is archived in each round.

    Attributes:
        messages: How many, over all partitions.
        size_bytes: Of a message.
        batch: Messages in a batch, which is a put and a commit.
        delay_s: For how long each put waits.
    """

    messages: int
    size_bytes: int
    batch: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class Took:
    """What it took.

    Attributes:
        elapsed_s: From the start of the first process to the end of the last.
        cpu_us: CPU of the processes for a message, start and end included.
        wal_bytes: Written by the database for a message, in a catalog that is empty at first.
        room_bytes: Taken in the database by a row of messages with its indexes.
        shares: Messages that each process archived.
        refused: Slices that were left to another process, which had them first.
    """

    elapsed_s: float
    cpu_us: float
    wal_bytes: float
    room_bytes: float
    shares: tuple[int, ...]
    refused: int


def measure(address: StackAddress, load: Load, processes: int) -> Took:
    """Archive one topic by so many processes, begun at one time; topic, catalog and prefix are new.

    Raises:
        RuntimeError: A process failed, or not all was archived, once.
    """
    schema = f"sharing{uuid.uuid4().hex[:8]}"
    topic = f"{schema}.{SEGMENTS}"
    migrate(address.database_url, schema=schema, name="bench")
    source = KafkaSource("bench", bootstrap_servers=address.bootstrap_servers, writable=True)
    with contextlib.closing(source):
        source.create_topic(topic, PARTITIONS)
        alerts = filler(load.messages, load.size_bytes, topic=topic)
        source.publish(replace(alert, partition=number % PARTITIONS) for number, alert in enumerate(alerts))
    with (
        tempfile.TemporaryDirectory() as directory,
        SlowProxy(address.s3_endpoint, load.delay_s).run() as slow,
        psycopg.connect(address.database_url, autocommit=True) as database,
        contextlib.ExitStack() as ending,
    ):
        started = processes_of(Path(directory), schema, replace(address, s3_endpoint=slow))
        before, began = _spent(database), time.monotonic()
        options = ("--until-caught-up", "--json", "--batch-messages", str(load.batch))
        running = [ending.enter_context(ended(started.run(*options))) for _ in range(processes)]
        told = [process.communicate() for process in running]
        elapsed_s, spent = time.monotonic() - began, _spent(database)
        ((room,),) = database.execute(
            "SELECT pg_total_relation_size(format('%%I.messages', %s::text))", [schema]
        ).fetchall()
    if any(process.returncode for process in running):
        raise RuntimeError(f"a process failed: {told}")
    said = [json.loads(output) for output, _ in told]
    shares = tuple(one["total"]["messages"] for one in said)
    if sum(shares) != load.messages:
        raise RuntimeError(f"{shares} of {load.messages} messages were archived")
    cpu_s, wal = (now - then for now, then in zip(spent, before, strict=True))
    return Took(
        elapsed_s,
        cpu_us=cpu_s / load.messages * 1e6,
        wal_bytes=wal / load.messages,
        room_bytes=room / load.messages,
        shares=shares,
        refused=sum(one["left_to_others"] for one in said),
    )


def _spent(database: psycopg.Connection) -> tuple[float, float]:
    """CPU seconds of processes of ours that ended, and bytes of WAL, so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ((written,),) = database.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchall()
    return used.ru_utime + used.ru_stime, float(written)


def compared(address: StackAddress, load: Load, rounds: int) -> Iterator[tuple[Took, Took]]:
    """One process and two, in turns."""
    for number in range(rounds):
        order = (1, 2) if number % 2 == 0 else (2, 1)
        taken = {count: measure(address, load, count) for count in order}
        yield taken[1], taken[2]


def as_object(load: Load, taken: list[tuple[Took, Took]]) -> dict[str, Any]:
    """What was measured, as JSON."""
    return {
        "load": asdict(load),
        "speedup": round(statistics.median(one.elapsed_s / two.elapsed_s for one, two in taken), 3),
        "one": [asdict(one) for one, _ in taken],
        "two": [asdict(two) for _, two in taken],
    }


@click.command()
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--messages", default=64_000, show_default=True)
@click.option("--size", "size_bytes", default=1_000, show_default=True, help="Bytes of a message.")
@click.option("--batch", default=500, show_default=True, help="Messages in a batch.")
@click.option("--delay", "delay_s", default=0.4, show_default=True, help="Seconds that each put waits.")
@click.option("--rounds", default=3, show_default=True)
def main(
    json_file: Path | None, messages: int, size_bytes: int, batch: int, delay_s: float, rounds: int
) -> None:
    """Measure one process and two on a topic of sixteen partitions, in turns, on a local stack of its own."""
    load = Load(messages, size_bytes, batch, delay_s)
    with tempfile.TemporaryDirectory(prefix="hop_archive-bench-") as directory:
        stack = LocalStack(Path(directory) / "stack", external=External.from_environment(os.environ))
        try:
            found = as_object(load, list(compared(stack.up(), load, rounds)))
        finally:
            stack.down(purge=True)
    click.echo(json.dumps(found, indent=2))
    click.echo(f"Two processes are {found['speedup']:.2f} times as fast as one.", err=True)
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
