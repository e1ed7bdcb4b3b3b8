"""``python -m hop_archive_tests.bench.costs``: dollars a million messages, from measured figures and named prices; writes docs/costs.md.

``costs.json`` and ``figures.json`` hold the figures with their sources. What ``make bench`` wrote as JSON takes the place of some.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hop_archive_tests.bench.report import DEEP, MESSAGE, RESTORE, SEGMENT, ZSTD
from hop_archive_tests.bench.scale import FIGURES, kept

OWN_FIGURES = Path(__file__).parent / "costs.json"
_SHARED = ("room_bytes", "put_usd", "stored_usd", "task_usd", "disk_usd")
_MILLION, _GB, _HOUR_US = 1_000_000, 1e9, 3600e6
_MEASURED = {
    "stored_message": (MESSAGE, "stored_bytes"),
    "stored_segment": (SEGMENT, "stored_bytes"),
    "stored_zstd": (ZSTD, "stored_bytes"),
    "cpu_message": (MESSAGE, "cpu_us"),
    "cpu_segment": (SEGMENT, "cpu_us"),
    "cpu_zstd": (ZSTD, "cpu_us"),
    "cpu_deep": (DEEP, "cpu_us"),
    "cpu_restore": (RESTORE, "cpu_us"),
}


@dataclass(frozen=True, slots=True)
class Way:
    """A way to keep messages.

    Attributes:
        name: For people.
        stored: Figure that says the bytes stored a message; ``cpu``: that of archiving one.
        an_object: Messages in an object when it is written.
        compacted: Whether such objects become full segments afterwards, in frames of zstd where ``zstd``.
    """

    name: str
    stored: str
    cpu: str
    an_object: float
    compacted: bool = False
    zstd: bool = False


def ways(values: Mapping[str, float]) -> tuple[Way, ...]:
    """Those that the page compares."""
    full = values["batch"]
    return (
        Way("an object a message", "stored_message", "cpu_message", 1),
        Way("segments, full", "stored_segment", "cpu_segment", full),
        Way("segments of zstd, full", "stored_zstd", "cpu_zstd", full),
        Way("an object a message, compacted to zstd", "stored_message", "cpu_message", 1, True, True),
        Way("segments of 10 messages", "stored_segment", "cpu_segment", 10),
        Way("segments of 10 messages, compacted to zstd", "stored_segment", "cpu_segment", 10, True, True),
    )


def dollars(way: Way, values: Mapping[str, float]) -> dict[str, float]:
    """What a million messages cost: once, or for each time or month that the name says.

    The backup bucket is not in it: with one, puts and storage in S3 cost twice as much.
    """
    objects = _MILLION / way.an_object
    stored = values["stored_zstd" if way.zstd else way.stored] * _MILLION
    kept_objects = _MILLION / values["batch"] if way.compacted else objects
    gets = kept_objects * math.ceil(stored / kept_objects / values["span_bytes"])
    cpu_usd = values["task_usd"] / _HOUR_US * _MILLION  # for each µs a message
    compacting = 0.0
    if way.compacted:
        # Old objects are read, new ones are made and read back; deleting costs no request fee.
        puts = kept_objects * values["put_usd"]
        reads = (objects + gets) * values["get_usd"]
        compacting = puts + reads + 2 * values["cpu_deep"] * cpu_usd
    return {
        "archiving: puts": objects * values["put_usd"],
        "archiving: own CPU": values[way.cpu] * cpu_usd,
        "compacting, once": compacting,
        "storage in S3, a month": stored / _GB * values["stored_usd"],
        "rows in the database, a month": values["room_bytes"] * _MILLION / _GB * values["disk_usd"],
        "verify by listing, once": math.ceil(kept_objects / values["keys_a_page"]) * values["put_usd"],
        "scrub (all read again), once": gets * values["get_usd"] + values["cpu_deep"] * cpu_usd,
        "restore, once": gets * values["get_usd"] + values["cpu_restore"] * cpu_usd,
    }


def a_year(costs: Mapping[str, float]) -> float:
    """Archiving, keeping for twelve months, a listing every six hours as scheduled, and each document read four times."""
    once = costs["archiving: puts"] + costs["archiving: own CPU"] + costs["compacting, once"]
    months = 12 * (costs["storage in S3, a month"] + costs["rows in the database, a month"])
    looks = 4 * 365 * costs["verify by listing, once"] + 4 * costs["scrub (all read again), once"]
    return once + months + looks


_HEAD = """\
# What it costs

Dollars a million messages of about 1 KB, by how they are kept: a calculation from measured figures and list prices, both below. Nothing here was billed, and
what AWS asks for changes by region and year: put your own prices in. `python -m hop_archive_tests.bench.costs` writes this page; `--bench bench.json`
(`make bench`) puts new measurements in, and `--keep` keeps them in `hop_archive_tests/bench/costs.json`.

"""
_TAIL = """
- *Objects, not bytes, are what small messages cost.* A put of one message costs as much as keeping its bytes for ten years; a listing request asks for a thousand objects, of
  however many messages. A follower of a quiet topic writes small segments (a segment a second and partition, at most); `compact` makes full ones of those.
- *Compacting* reads each old object once, writes the new ones and reads them back. It pays within the year for messages that stand alone, if they are listed and read as scheduled.
- *A year* is: archived, kept twelve months, listed every six hours, and each document read again four times.
- Not in it: the cores of the database and of Kafka, which cost what they cost however many messages there are ([scale.md](scale.md) has the database); a backup bucket,
  which doubles puts and storage; what leaves the region; minimum charges of cheaper storage classes (128 KB an object in Standard-IA), which rule those out for single messages.
- Larger messages: bytes count then, and the ways differ by compression alone.

## The figures
"""


def page(own: Mapping[str, dict[str, Any]], shared: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """The page, line by line."""
    figures = {**own, **{name: shared[name] for name in _SHARED}}
    values = {name: float(figure["value"]) for name, figure in figures.items()}
    yield from _HEAD.splitlines()
    compared = ways(values)
    costs = [dollars(way, values) for way in compared]
    yield f"| | {' | '.join(way.name for way in compared)} |"
    yield f"|---{'|---:' * len(compared)}|"
    for what in costs[0]:
        yield f"| {what} | {' | '.join(_money(cost[what]) for cost in costs)} |"
    yield f"| **a year of all that** | {' | '.join(f'**{_money(a_year(cost))}**' for cost in costs)} |"
    yield from _TAIL.splitlines()
    yield from ("", "| figure | value | unit | source |", "|---|---|---|---|")
    for name, figure in figures.items():
        yield f"| `{name}` | {figure['value']:g} | {figure['unit']} | {figure['source']} |"


def _money(usd: float) -> str:
    """Dollars, to two places that count."""
    if usd == 0:
        return "–"
    return f"${usd:.2f}" if usd >= 0.1 else f"${usd:.{1 - math.floor(math.log10(usd))}f}"


def with_measured(
    own: Mapping[str, dict[str, Any]], bench: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """The figures, those anew that ``make bench`` measured; what it could not measure stays."""
    found = {name: dict(figure) for name, figure in own.items()}
    for name, (row, figure) in _MEASURED.items():
        value = (bench or {}).get("measures", {}).get(row, {}).get(figure)
        if bench is not None and value is not None:
            found[name] |= {"value": round(value, 1), "source": f"make bench, {row}, {bench['on'][:10]}"}
    return found


@click.command()
@click.option("--bench", "bench_file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--keep", is_flag=True, help="Write the measured figures to costs.json.")
def main(bench_file: Path | None, keep: bool) -> None:
    """Print docs/costs.md, from costs.json, figures.json and what was measured since."""
    bench = json.loads(bench_file.read_text()) if bench_file is not None else None
    own = with_measured(json.loads(OWN_FIGURES.read_text()), bench)
    if keep:
        OWN_FIGURES.write_text(kept(own))
    for line in page(own, json.loads(FIGURES.read_text())):
        click.echo(line)


if __name__ == "__main__":
    main()
