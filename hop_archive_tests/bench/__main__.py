"""``python -m hop_archive_tests.bench``: measures all side by side; prints a table, writes JSON and a page."""

from __future__ import annotations

import datetime
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path

import click

from hop_archive.devkit.local.stack import SERVER_NAMES, LocalStack
from hop_archive.errors import UnavailableError
from hop_archive_tests.bench import page, report
from hop_archive_tests.bench.brokers import apache_kafka
from hop_archive_tests.bench.measures import Bench, Sizes, Speed, interleaved
from hop_archive_tests.bench.parts import PARTS, of_process
from hop_archive_tests.bench.report import Result, result_of

_SIZES = Sizes()
_LOAD = os.getloadavg()


@click.command()
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.")
@click.option("--page", "page_file", type=click.Path(dir_okay=False, path_type=Path), help="A page, too.")
@click.option(
    "--objects", default=_SIZES.objects, show_default=True, help="Objects put, and archived, in a round."
)
@click.option(
    "--messages", default=_SIZES.messages, show_default=True, help="Messages in segments in a round."
)
@click.option("--large", default=_SIZES.large, show_default=True, help="Messages of 5 MB in a round.")
@click.option(
    "--rounds", default=_SIZES.rounds, show_default=True, help="Rounds; what is compared takes turns."
)
@click.option(
    "--quick", is_flag=True, help="Little of each, in two minutes or so: whether it works, not how fast."
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(["rates", *(part.name for part in PARTS)]),
    help="These parts alone.",
)
def main(
    json_file: Path | None, page_file: Path | None, objects: int, messages: int, large: int, rounds: int,
    quick: bool, only: tuple[str, ...],
) -> None:  # fmt: skip
    """Measure the archive and what it is made of on local stacks of its own, or on given servers.

    Rates differ from machine to machine, and with all that runs there: compare the ratios. What cannot be measured is told of,
    the rest is measured all the same, and the exit code is 1; a goal that is missed does not change it.
    """
    logging.getLogger("hop_archive").setLevel(logging.ERROR)
    sizes = Sizes(50, 300, 3, 1) if quick else Sizes(objects, messages, large, rounds)
    began, found = time.monotonic(), []
    if not only or "rates" in only:
        found += _rates(sizes, quick=quick)
    for part in PARTS:
        if not only or part.name in only:
            click.echo(f"measuring {part.name} ...", err=True)
            found.append(of_process(part, quick=quick))
    circumstances = {
        "on": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPUs": os.cpu_count(),
        "Python": platform.python_version(),
        "seconds": round(time.monotonic() - began),
        "load before": f"{_LOAD[0]:.1f}",
        **({"quick": "yes, so no figure means anything"} if quick else {}),
    }
    click.echo(", ".join(f"{name}: {value}" for name, value in circumstances.items()))
    for line in report.lines(found):
        click.echo(line)
    if json_file is not None:
        made = {**circumstances, "sizes": asdict(sizes), "measures": report.as_object(found)}
        json_file.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    if page_file is not None:
        page_file.write_text(page.html(found, circumstances))
    sys.exit(any(one.failed for one in found))


def _rates(sizes: Sizes, *, quick: bool) -> list[Result]:
    """What is measured in this process; where its servers do not start, all of it has failed."""
    failures: dict[str, str] = {}

    def failed(name: str, error: BaseException) -> None:
        failures[name] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        click.echo(f"{name}: {failures[name]}", err=True)

    taken: dict[str, list[Speed]] = {}
    names = [name for name in report.WHAT if name not in {part.name for part in PARTS}]
    with (
        tempfile.TemporaryDirectory(prefix="hop_archive-bench-") as directory,
        apache_kafka(Path(directory) / "kafka", wanted=not quick) as given,
    ):
        stack = LocalStack(Path(directory) / "stack", external=given.external)
        try:
            address = stack.up()
            with closing(Bench(address, sizes, [*given.pids, *_servers(stack)])) as bench:
                bench.warm_up()
                for group in _groups(bench):
                    click.echo(f"measuring {', '.join(group)} ...", err=True)
                    taken |= interleaved(sizes.rounds, group, failed)
        except Exception as error:  # noqa: BLE001 (whatever it is, the other parts are measured)
            for name in names:
                if name not in taken:
                    failed(name, error)
        finally:
            stack.down(purge=True)
    return [result_of(name, taken, failures.get(name, "")) for name in names]


def _servers(stack: LocalStack) -> Iterator[int]:
    for name in SERVER_NAMES:
        with suppress(UnavailableError):  # it was given
            yield stack.pid(name)


def _groups(bench: Bench) -> Iterator[Mapping[str, Callable[[], Speed]]]:
    """What takes turns."""
    yield {report.PUT: bench.put, report.MESSAGE: bench.archive_by_message}
    yield {
        report.CONSUME: bench.consume,
        report.COPY: bench.copy,
        report.SEGMENT: bench.archive_by_segment,
        report.ZSTD: bench.archive_compressed,
    }
    yield {
        report.PRODUCE: bench.produce,
        report.RESTORE: bench.restore,
        report.COMPARED: bench.restore_and_compare,
    }
    yield {
        report.LISTED: bench.list_archived,
        report.SHALLOW: bench.verify_listing,
        report.LISTING: bench.listing,
    }
    yield {report.DEEP: bench.verify_deep, report.READ: bench.read}
    yield {
        report.LARGE_CONSUME: bench.consume_large,
        report.LARGE_PUT: bench.put_large,
        report.LARGE: bench.archive_large,
        report.LARGE_RESTORE: bench.restore_large,
    }
    yield {report.LARGE_RUN: bench.run_large}


if __name__ == "__main__":
    main()
