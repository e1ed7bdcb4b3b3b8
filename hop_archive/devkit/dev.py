"""``make dev``: the local stack, a trickle of sample alerts, and ``dagster dev`` with its UI."""

from __future__ import annotations

import itertools
import random
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click

from hop_archive.devkit.publish import publish
from hop_archive.devkit.samples import samples
from hop_archive.devkit.sampling import create_sample_topics
from hop_archive.devkit.workbench import INSTANCE_FILE, Workbench, interrupted_by_signals, set_up, still_up
from hop_archive.errors import HopArchiveError
from hop_archive.source.protocol import Source

_PORTION = 5_000
_PAUSE_S = 5.0


@click.command()
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), default=Path(".local-stack"), show_default=True
)
@click.option("--rate", default=5.0, show_default=True, help="Sample alerts a second.")
@click.option("--port", default=3000, show_default=True, help="Port of Dagster's UI.")
def main(directory: Path, rate: float, port: int) -> None:
    """Start everything for development; Ctrl-C or SIGTERM stops Dagster and the alerts, and leaves the servers up."""
    try:
        with interrupted_by_signals():
            bench = set_up(directory, Path(INSTANCE_FILE))
            threading.Thread(target=trickle, args=(bench, rate), daemon=True).start()
            click.echo("Starting Dagster: half a minute, or more on a busy machine.")
            # Its daemons say at INFO what each sensor does, every few seconds; what goes wrong they say louder.
            quiet = ("--log-level", "warning")
            place = ("--host", "127.0.0.1", "--port", str(port))
            with bench.running(*bench.command("dagster", "dev", *bench.code, *quiet, *place)) as process:
                threading.Thread(
                    target=_announce, args=(f"http://127.0.0.1:{port}", process), daemon=True
                ).start()
                code = process.wait()
    except KeyboardInterrupt:
        code = 0
    except HopArchiveError as error:
        click.echo(str(error), err=True)
        code = error.exit_code
    if told := still_up(directory):
        click.echo(told)
    raise SystemExit(code)


def _announce(url: str, process: subprocess.Popen[bytes]) -> None:
    """Say where the UI is once it answers, the last line then; ask no more once its process has ended."""
    while process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"{url}/server_info", timeout=5):  # noqa: S310 - our own server
            click.echo(f"Dagster's UI: {url}   (Ctrl-C ends it)")
            return
        time.sleep(0.5)


def trickle(bench: Workbench, rate: float) -> None:
    """Publish sample alerts for ever, once Kafka answers again, too: a broker that was restarted has lost its topics."""
    archive = bench.archive()
    seeds = itertools.count(random.SystemRandom().randrange(1 << 30))
    told = ""
    while True:
        try:
            create_sample_topics(archive.source)
            _publish(archive.source, rate, seeds)
        except HopArchiveError as error:
            if str(error) != told:
                click.echo(f"No sample alerts meanwhile: {error}", err=True)
            told = str(error)
            time.sleep(_PAUSE_S)


def _publish(source: Source, rate: float, seeds: Iterator[int]) -> None:
    """Publish until Kafka refuses; each portion under a seed of its own, so that no stream repeats another."""
    for seed in seeds:
        # With the time at which each is asked for, so that the lags shown are real.
        alerts = (
            alert if alert.timestamp_ms is None else replace(alert, timestamp_ms=time.time_ns() // 1_000_000)
            for alert in samples(_PORTION, seed=seed, now_ms=time.time_ns() // 1_000_000)
        )
        for _ in publish(source, alerts, rate=rate, sleep=time.sleep):
            pass


if __name__ == "__main__":
    main()
