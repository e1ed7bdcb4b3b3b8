"""``make dev``: the local stack, a trickle of sample alerts, and ``dagster dev`` with its UI."""

from __future__ import annotations

import itertools
import random
import shlex
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click

from hop_archive.devkit.local.stack import LocalStack
from hop_archive.devkit.publish import publish
from hop_archive.devkit.samples import samples
from hop_archive.devkit.sampling import create_sample_topics
from hop_archive.devkit.workbench import INSTANCE_FILE, Workbench, set_up
from hop_archive.errors import HopArchiveError

_PORTION = 5_000


@click.command()
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), default=Path(".local-stack"), show_default=True
)
@click.option("--rate", default=5.0, show_default=True, help="Sample alerts a second.")
@click.option("--port", default=3000, show_default=True, help="Port of Dagster's UI.")
def main(directory: Path, rate: float, port: int) -> None:
    """Start everything for development; Ctrl-C stops Dagster and the alerts, and leaves the servers up."""
    try:
        bench = set_up(directory, Path(INSTANCE_FILE))
        threading.Thread(target=_trickle, args=(bench, rate), daemon=True).start()
        click.echo(f"Dagster's UI: http://127.0.0.1:{port}   (Ctrl-C ends it)")
        command = bench.command("dagster", "dev", *bench.code, "--host", "127.0.0.1", "--port", str(port))
        with subprocess.Popen(command, env=bench.environ, cwd=bench.dagster_home) as process:
            # Signals to end are for Dagster, which has to end its own children.
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            while True:
                with suppress(KeyboardInterrupt):
                    raise SystemExit(process.wait())
    except HopArchiveError as error:
        click.echo(str(error), err=True)
        raise SystemExit(error.exit_code) from error
    finally:
        with suppress(HopArchiveError):
            LocalStack(directory).address()
            down = f"hop-archive local down --dir {shlex.quote(str(directory))}"
            click.echo(f"Kafka, Postgres and S3 are still up. Stop them: make down (or: {down})")


def _trickle(bench: Workbench, rate: float) -> None:
    """Publish sample alerts for ever; each portion under a seed of its own, so that no stream repeats another."""
    archive = bench.archive()
    create_sample_topics(archive.source)
    for seed in itertools.count(random.SystemRandom().randrange(1 << 30)):
        # With the time at which each is asked for, so that the lags shown are real.
        alerts = (
            alert if alert.timestamp_ms is None else replace(alert, timestamp_ms=_now_ms())
            for alert in samples(_PORTION, seed=seed, now_ms=_now_ms())
        )
        for _ in publish(archive.source, alerts, rate=rate, sleep=time.sleep):
            pass


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
