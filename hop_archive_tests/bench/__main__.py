"""``python -m hop_archive_tests.bench``: measures, prints one table, writes it as JSON if asked to."""

from __future__ import annotations

import json
import logging
import os
import platform
import tempfile
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hop_archive.devkit.local.address import External
from hop_archive.devkit.local.stack import LocalStack
from hop_archive_tests.bench import report
from hop_archive_tests.bench.measures import Bench, Sizes, Speed, interleaved


@click.command()
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write it here, too."
)
@click.option("--objects", default=6_000, show_default=True, help="Objects put, and archived, in a round.")
@click.option("--messages", default=60_000, show_default=True, help="Messages in segments in a round.")
@click.option("--size", "size_bytes", default=1_000, show_default=True, help="Bytes of a message.")
@click.option("--rounds", default=4, show_default=True, help="Rounds; what is compared takes turns.")
def main(json_file: Path | None, objects: int, messages: int, size_bytes: int, rounds: int) -> None:
    """Measure rates of the raw parts and of the archive on a local stack of its own, or on given servers.

    Rates differ from machine to machine, and with all that runs there: compare the ratios.
    """
    logging.getLogger("hop_archive").setLevel(logging.ERROR)
    sizes = Sizes(objects, messages, size_bytes, rounds)
    found = report.results(_measured(sizes))
    for line in report.lines(found):
        click.echo(line)
    if json_file is not None:
        json_file.write_text(
            json.dumps({**_circumstances(sizes), "measures": report.as_object(found)}, indent=2)
        )


def _measured(sizes: Sizes) -> dict[str, list[Speed]]:
    with tempfile.TemporaryDirectory(prefix="hop_archive-bench-") as directory:
        stack = LocalStack(Path(directory) / "stack", external=External.from_environment(os.environ))
        address = stack.up()
        try:
            with closing(Bench(address, sizes)) as bench:
                return _rates(bench, sizes.rounds)
        finally:
            stack.down(purge=True)


def _rates(bench: Bench, rounds: int) -> dict[str, list[Speed]]:
    bench.warm_up()
    one_by_one = list(interleaved(rounds, bench.put, bench.archive_by_message))
    in_bulk = list(interleaved(rounds, bench.consume, bench.archive_by_segment))
    back = list(interleaved(rounds, bench.produce, bench.restore, bench.restore_and_compare))
    verified = list(interleaved(rounds, bench.list_archived, bench.verify_listing))
    return {
        report.LISTED: [listed for listed, _ in verified],
        report.SHALLOW: [shallow for _, shallow in verified],
        report.DEEP: [bench.verify_deep() for _ in range(rounds)],
        report.PUT: [put for put, _ in one_by_one],
        report.MESSAGE: [archived for _, archived in one_by_one],
        report.LISTING: [bench.listing() for _ in range(rounds)],
        report.CONSUME: [consumed for consumed, _ in in_bulk],
        report.SEGMENT: [archived for _, archived in in_bulk],
        report.PRODUCE: [produced for produced, _, _ in back],
        report.RESTORE: [restored for _, restored, _ in back],
        report.COMPARED: [compared for _, _, compared in back],
    }


def _circumstances(sizes: Sizes) -> dict[str, Any]:
    return {"sizes": asdict(sizes), "cpus": os.cpu_count(), "python": platform.python_version()}


if __name__ == "__main__":
    main()
