"""``python -m hop_archive_tests.bench.growth``: what a commit costs in a catalog of a million rows, and of ten.

Rows as the archive makes them, with UUIDs by chance, are committed batch by batch, so that table and indexes grow as they do.
At 100 thousand, one million and ten million rows some batches are measured: CPU of Postgres and WAL for a row, with as many
full-page images as its checkpoints make just then; and how long the coverage of all topics takes, as each tick asks it.
CPU differs less than times with what else runs on the machine.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import psycopg

from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.catalog.records import Batch, Row
from hop_archive.devkit.local.address import External, StackAddress
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.model.annotations import Annotations
from hop_archive.model.keys import segment_key
from hop_archive.model.message import TimestampType
from hop_archive.model.slices import Slice
from hop_archive_tests.bench.measures import server_cpu_s

BATCH = 10_000
_MEASURED_BATCHES = 10
_TOPICS = 100
_SCHEMA = "growth"
_BEGAN_MS = 1_700_000_000_000
GOAL = 1.3
"""A commit at ten million rows costs at most so many times what one at 100 thousand does."""


def batches(seed: int = 0) -> Iterator[Batch]:
    """Batches of 10,000 rows without end, of a hundred topics in turns."""
    dice = random.Random(seed)
    notes = Annotations(media_type="application/json", sender="somebody")
    for number in itertools.count():
        topic, start = f"survey.{number % _TOPICS:03}", number // _TOPICS * BATCH
        where = Slice(topic, 1, 0, start, start + BATCH)
        key = segment_key(topic, 1, 0, where.start, where.stop, compressed=False)
        rows = [
            Row(
                topic, 1, 0, start + n, _BEGAN_MS + 1_000 * number + n, TimestampType.CREATE,
                uuid.UUID(bytes=dice.randbytes(16)), True, dice.randbytes(16), key, "bucket", 1_600 * n, 1_600,
                dice.getrandbits(32), dice.getrandbits(32), notes,
            )
            for n in range(BATCH)
        ]  # fmt: skip
        yield Batch(where, rows=rows, run_id="growth")


def measured(address: StackAddress, postgres: int, sizes: list[int]) -> Iterator[dict[str, float]]:
    """What a commit costs once the catalog holds so many rows, for each of these numbers, which ascend."""
    migrate(address.database_url, schema=_SCHEMA, name="bench")
    made = batches()
    held = 0
    topics = [f"survey.{n:03}" for n in range(_TOPICS)]
    with (
        closing(PostgresCatalog("bench", address.database_url, schema=_SCHEMA)) as catalog,
        psycopg.connect(
            address.database_url, autocommit=True, options=f"-c search_path={_SCHEMA}"
        ) as connection,
    ):
        for size in sizes:
            while held < size:
                catalog.commit(next(made))
                held += BATCH
            connection.execute("VACUUM (ANALYZE) messages")
            waiting = [next(made) for _ in range(_MEASURED_BATCHES)]
            before = server_cpu_s(postgres), _wal_bytes(connection), time.perf_counter()
            for batch in waiting:
                catalog.commit(batch)
            after = server_cpu_s(postgres), _wal_bytes(connection), time.perf_counter()
            held += _MEASURED_BATCHES * BATCH
            count = _MEASURED_BATCHES * BATCH
            cpu_s, wal, took_s = (now - then for now, then in zip(after, before, strict=True))
            ((room, table),) = connection.execute(
                "SELECT pg_total_relation_size('messages'), pg_relation_size('messages')"
            ).fetchall()
            yield {
                "rows": held - count,
                "commit_cpu_us": cpu_s / count * 1e6,
                "commit_us": took_s / count * 1e6,
                "wal_bytes": wal / count,
                "row_bytes": room / held,
                "index_bytes": (room - table) / held,
                "coverage_ms": statistics.median(
                    _timed_ms(lambda: catalog.coverage(topics)) for _ in range(5)
                ),
            }


def _wal_bytes(connection: psycopg.Connection) -> float:
    ((written,),) = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchall()
    return float(written)


def _timed_ms(work: Any) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def compared(found: list[dict[str, float]]) -> dict[str, Any]:
    """All, and what the last costs over the first."""
    ratio = found[-1]["commit_cpu_us"] / found[0]["commit_cpu_us"]
    return {
        "sizes": [{name: round(value, 2) for name, value in one.items()} for one in found],
        "commit_ratio": round(ratio, 3),
        "goal": f"<= {GOAL} times the CPU of Postgres a row",
        "reached": ratio <= GOAL,
    }


@click.command()
@click.option(
    "--rows", "sizes", multiple=True, type=click.IntRange(min=BATCH), default=(100_000, 1_000_000, 10_000_000), show_default=True
)  # fmt: skip
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write it here, too."
)
def main(sizes: tuple[int, ...], json_file: Path | None) -> None:
    """Let a catalog grow on a local stack of its own; ten million rows take 6 GB and ten minutes or more."""
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="hop_archive-bench-") as directory:
        stack = LocalStack(Path(directory) / "stack", external=External.from_environment(os.environ))
        try:
            address = stack.up()
            for one in measured(address, stack.pid("postgres"), sorted(sizes)):
                found.append(one)
                told = ", ".join(f"{name} {value:,.1f}" for name, value in one.items())
                click.echo(told, err=True)
        finally:
            stack.down(purge=True)
            if found and json_file is not None:  # also what was measured before something failed
                json_file.write_text(json.dumps(compared(found), indent=2) + "\n")
    click.echo(json.dumps(compared(found), indent=2))


if __name__ == "__main__":
    main()
