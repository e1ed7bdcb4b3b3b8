"""``python -m hop_archive_tests.bench.scale``: what much larger streams would take, from measured figures; writes docs/scale.md.

``figures.json`` holds the figures with their sources. What ``make bench`` and ``hop_archive_tests.bench.sharing`` wrote as JSON takes
the place of some of them.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hop_archive.model.limits import Limits
from hop_archive_tests.bench.report import SEGMENT

FIGURES = Path(__file__).parent / "figures.json"
_KB, _GB = 1000, 1e9
_DAY_S, _MONTH_H = 86_400, 730


@dataclass(frozen=True, slots=True)
class Stream:
    """What is to be archived.

    Attributes:
        name: For people.
        messages_a_day: How many.
        busy_s: In how many seconds of a day they come.
        size_bytes: Of a message.
        partitions: Over which they come.
    """

    name: str
    messages_a_day: float
    busy_s: float
    size_bytes: float
    partitions: int

    @property
    def rate(self) -> float:
        """Messages a second while they come."""
        return self.messages_a_day / self.busy_s


RUBIN = Stream("Rubin, 10 M alerts a night of 82 KB", 1e7, 10 * 3600, 82 * 1024, 16)
"""The technical note DMTN-102, *LSST Alerts: Key Numbers* (dmtn-102.lsst.io, sections 2.2, 2.3): 10,000 alerts a visit on average and
1,000 visits a night, required; at most 82 KB of 1,024 bytes each, with twelve months of history and without the schema,
estimated. A night of ten hours and the number of partitions are assumed."""
MILLION = Stream("1,000,000 messages a second of 1 KB", 1e6 * _DAY_S, _DAY_S, _KB, 1024)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a stream takes, by the model.

    Attributes:
        tasks: Processes of a core each that keep up; sharing gives each at least one partition.
        databases: Catalogs, each on a server of its own: each with some of the topics.
        database_cores: Of all together.
        wal_bytes_s: Bytes of WAL a second in a large catalog.
        room_bytes_day: Bytes that the catalog grows in a day.
        connections: To databases, at most.
        in_flight: Requests to S3 at once, at most.
        bulk_puts: Puts a day where segments are full.
        following_puts: Puts a day a second behind: a segment a second and partition, or full ones.
        stored_bytes_day: Bytes that the store grows in a day.
    """

    tasks: int
    databases: int
    database_cores: int
    wal_bytes_s: float
    room_bytes_day: float
    connections: int
    in_flight: int
    bulk_puts: float
    following_puts: float
    stored_bytes_day: float

    def money(self, stream: Stream, figures: Mapping[str, float]) -> dict[str, float]:
        """Dollars a day of what goes on; of storage, dollars a month for each day that is kept."""
        hours = stream.busy_s / 3600
        return {
            "tasks, while messages come": self.tasks * hours * figures["task_usd"],
            "puts, full segments": self.bulk_puts * figures["put_usd"],
            "puts, a second behind": self.following_puts * figures["put_usd"],
            "puts, an object a message": stream.messages_a_day * figures["put_usd"],
            "database cores, all day": self.database_cores * 24 * figures["core_usd"],
            "a month of a day in S3": self.stored_bytes_day / _GB * figures["stored_usd"],
            "a month of a day's rows": self.room_bytes_day / _GB * figures["disk_usd"],
        }


def needs(stream: Stream, figures: Mapping[str, float]) -> Needs:
    """What a stream takes."""
    own_us = figures["own_cpu_us"] + figures["own_cpu_ns_per_byte"] * max(0, stream.size_bytes - _KB) / 1000
    tasks = math.ceil(stream.rate * own_us / 1e6 / figures["busy"])
    cores = stream.rate * figures["database_cpu_us"] / 1e6 / figures["busy"]
    wal = stream.rate * figures["wal_bytes_large"]
    limits = Limits()
    batch = min(limits.batch_messages, max(1, limits.batch_bytes // stream.size_bytes))
    full = stream.messages_a_day / batch
    by_second = min(stream.messages_a_day, stream.partitions * stream.busy_s)
    return Needs(
        tasks=tasks,
        databases=max(math.ceil(wal / figures["wal_limit"]), math.ceil(cores / figures["database_cores"])),
        database_cores=max(2, math.ceil(cores)),
        wal_bytes_s=wal,
        room_bytes_day=stream.messages_a_day * figures["room_bytes"],
        connections=tasks * int(figures["database_connections"]),
        in_flight=tasks * int(figures["objects_in_flight"]),
        bulk_puts=full,
        following_puts=max(full, by_second),
        stored_bytes_day=stream.messages_a_day * stream.size_bytes * figures["stored_ratio"],
    )


def with_measured(
    figures: Mapping[str, dict[str, Any]], bench: dict[str, Any] | None, sharing: dict[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """The figures, those anew that were measured: by ``make bench`` with messages of 1 KB, and by ``bench.sharing``."""
    measured: dict[str, tuple[float, str]] = {}
    if bench is not None and (own_us := bench["measures"].get(SEGMENT, {}).get("cpu_us")) is not None:
        measured["own_cpu_us"] = (own_us, "make bench, layout segment")
    if sharing is not None:
        what = "python -m hop_archive_tests.bench.sharing"
        measured["speedup"] = (sharing["speedup"], what)
        for name, key in (("wal_bytes", "wal_bytes"), ("room_bytes", "room_bytes")):
            value = statistics.median(taken[key] for taken in sharing["one"])
            measured[name] = (round(value), f"{what}, batches of {sharing['load']['batch']}")
    return {
        name: {
            **figure,
            **({"value": measured[name][0], "source": measured[name][1]} if name in measured else {}),
        }
        for name, figure in figures.items()
    }


_HEAD = """\
# Much larger streams

A model, not a measurement: what two streams would take, by the figures below, which were measured on one small machine. Of Rubin the
technical note [DMTN-102](https://dmtn-102.lsst.io), *LSST Alerts: Key Numbers*, says: 10,000 alerts a visit on average and 1,000 visits a night (a requirement), of at most
82 KB of 1,024 bytes each (an estimate: twelve months of history, no schema, not compressed). Assumed are a night of ten hours and 16 partitions, and that the catalog is large, and written at its worst.
`python -m hop_archive_tests.bench.scale` writes this page; `--bench bench.json` (`make bench`) and `--sharing sharing.json`
(`python -m hop_archive_tests.bench.sharing`) put new measurements in, and `hop_archive_tests/bench/figures.json` has the rest, prices included.

## How many processes share one topic

Any number of `hop-archive run` with the same stanzas and topics divide what there is, partition by partition: claims in the catalog
([architecture.md](architecture.md), *Sharing*). So a topic is done by at most as many as it has partitions; a further one waits and takes over
what becomes free. Two processes on sixteen partitions, where the store is slow and not the machine, were **{speedup:.2f} times** as fast as one.

- *Kubernetes*: a Deployment of `hop-archive run -T TOPIC`, replicas as wanted, `terminationGracePeriodSeconds` of a minute: who is told to end finishes its
  batch and lets go, and the others have its partitions within some seconds. A pod that is killed is given up after fifteen seconds. A Job with
  `parallelism` and `--until-caught-up` is a first load: each ends, well, when all is done.
- *ECS*: a service with that many tasks, likewise; scaled by the lag that `hop-archive status --json` tells.
- *Dagster*: it starts one run a topic, and leaves a topic with a live run alone. Its runs take no part in sharing: where the processes above archive a topic,
  leave it out of the topics of Dagster's source. If both archive it all the same, one of them is refused and does it for nothing, and nothing is doubled.

## What they would take

"""


def page(figures: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """The page, line by line."""
    values = {name: float(figure["value"]) for name, figure in figures.items()}
    yield from _HEAD.format(speedup=values["speedup"]).splitlines()
    streams = (RUBIN, MILLION)
    found = [needs(stream, values) for stream in streams]
    yield f"| | {' | '.join(stream.name for stream in streams)} |"
    yield "|---|---|---|"
    for what, one, other in _rows(streams, found, values):
        yield f"| {what} | {one} | {other} |"
    yield from (
        "",
        "A night of Rubin is little but for its bytes: a task or two, one small database. A visit of 10,000 alerts comes at once and is to be done before the",
        "next one, about 32 s later (DMTN-102, section 2.4): a task more than the average wants has it done. A million a second is another matter: no single Postgres writes that much WAL.",
        "It takes several archives, each with some of the topics in a catalog of its own (a database stanza, a source stanza with those topics, one store), and a",
        "topic as large as that spread over more topics. Following puts a segment a second and partition: batches cost a hundredth in bulk, or once compacted.",
        "Connections to a database are more than it takes by itself beyond some hundreds: PgBouncer in transaction mode stands in between then.",
        "",
        "## The figures",
        "",
        "| figure | value | unit | source |",
        "|---|---|---|---|",
    )
    for name, figure in figures.items():
        yield f"| `{name}` | {figure['value']:g} | {figure['unit']} | {figure['source']} |"


def _rows(
    streams: tuple[Stream, Stream], found: list[Needs], values: Mapping[str, float]
) -> Iterator[tuple[str, str, str]]:
    def both(what: str, *numbers: float, unit: str = "", digits: int = 0) -> tuple[str, str, str]:
        one, other = (f"{number:,.{digits}f}{unit}" for number in numbers)
        return what, one, other

    yield both("messages a second, while they come", *(stream.rate for stream in streams))
    yield both("partitions", *(stream.partitions for stream in streams))
    yield both("tasks of one core", *(need.tasks for need in found))
    yield both("connections to databases, at most", *(need.connections for need in found))
    yield both("requests to S3 at once, at most", *(need.in_flight for need in found))
    yield both("catalogs, each on a server of its own", *(need.databases for need in found))
    yield both("cores of databases", *(need.database_cores for need in found))
    yield both("WAL, large catalog", *(need.wal_bytes_s / 1e6 for need in found), unit=" MB/s", digits=1)
    yield both("rows a day", *(need.room_bytes_day / _GB for need in found), unit=" GB", digits=1)
    yield both("objects a day", *(need.stored_bytes_day / _GB for need in found), unit=" GB")
    yield both("puts a day, full segments", *(need.bulk_puts for need in found))
    yield both("puts a day, a second behind", *(need.following_puts for need in found))
    costs = [need.money(stream, values) for need, stream in zip(found, streams, strict=True)]
    for what in costs[0]:
        one, other = (f"${cost[what]:,.2f}" for cost in costs)
        yield f"{what}", one, other


def kept(figures: Mapping[str, dict[str, Any]]) -> str:
    """Figures as JSON, a line each."""
    lines = [f"  {json.dumps(n)}: {json.dumps(f, ensure_ascii=False)}" for n, f in figures.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


@click.command()
@click.option("--bench", "bench_file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--sharing", "sharing_file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--keep", is_flag=True, help="Write the measured figures to figures.json.")
def main(bench_file: Path | None, sharing_file: Path | None, keep: bool) -> None:
    """Print docs/scale.md, from figures.json and what was measured since."""
    bench, sharing = (
        json.loads(file.read_text()) if file is not None else None for file in (bench_file, sharing_file)
    )
    figures = with_measured(json.loads(FIGURES.read_text()), bench, sharing)
    if keep:
        FIGURES.write_text(kept(figures))
    for line in page(figures):
        click.echo(line)


if __name__ == "__main__":
    main()
