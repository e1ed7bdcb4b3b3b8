"""``python -m hop_archive_tests.soak --minutes 5``: faults by a seeded schedule, then time to recover, then the checker."""

from __future__ import annotations

import heapq
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import psycopg

from hop_archive.devkit.patience import Patience
from hop_archive.devkit.workbench import interrupted_by_signals
from hop_archive_tests import ending
from hop_archive_tests.soak import checker
from hop_archive_tests.soak.producer import Publisher
from hop_archive_tests.soak.schedule import Deed, Kind, schedule
from hop_archive_tests.soak.world import PREFIX, TOPICS, World, built

STILL_S = 900.0
"""For so long nothing may move, neither the ledger nor Dagster's runs; that takes a run that never began for dead after five minutes."""
_LOOK_S = 0.25
_ASK_S = 2.0


@click.command()
@click.option("--minutes", type=float, default=5.0, show_default=True, help="For how long things go wrong.")
@click.option(
    "--seed", type=int, default=None, help="What goes wrong when; by chance where none is given, and told."
)
@click.option("--rate", type=float, default=80.0, show_default=True, help="Messages a second.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), default=Path(".soak"), show_default=True)
@click.option(
    "--json", "report", type=click.Path(path_type=Path), default=Path("soak.json"), show_default=True
)
def main(minutes: float, seed: int | None, rate: float, directory: Path, report: Path) -> None:
    """Archive while everything is killed, frozen and cut; then compare what is archived with what was sent."""
    chosen = int.from_bytes(os.urandom(3)) if seed is None else seed
    place = (directory / f"seed-{chosen}").resolve()
    if place.exists():
        raise click.ClickException(f"{place} is there from an earlier soak. Remove it, or give another SEED.")
    place.mkdir(parents=True)
    click.echo(f"Soak of {minutes:g} minutes, SEED={chosen}, in {place}.")
    ending.pytest_configure()
    try:
        with interrupted_by_signals(), built(place, chosen, minutes) as world:
            told = _soak(world, minutes, chosen, rate)
    finally:
        ending.pytest_unconfigure()
    report.write_text(json.dumps(told, indent=1))
    _print(told)
    if told["result"] != "passed":
        click.echo(f"Kept for a look: {place} (its servers: hop-archive local up --dir {place / 'stack'}).")
        raise SystemExit(1)
    shutil.rmtree(place)


def _soak(world: World, minutes: float, seed: int, rate: float) -> dict[str, Any]:
    """Let everything go wrong, then nothing any more; what came of it."""
    record = world.directory / "sent.bson"
    publisher = Publisher(world.servers.proxied.bootstrap_servers, TOPICS, record, seed=seed, per_s=rate)
    publisher.start()
    began = time.monotonic()
    _play(world, seed, minutes * 60)
    click.echo("Faults cease.")
    publisher.stop()
    why = _wait(world, lambda: (publisher.acknowledged, publisher.failed), lambda: not publisher.waiting())
    publisher.close_partitions()
    publisher.close()
    ceased = time.monotonic()
    click.echo(f"{publisher.acknowledged} messages were acknowledged; waiting for the archive.")
    why = why or _wait_for_archive(world, record)
    recovered_s = time.monotonic() - ceased
    world.end_archiving()
    click.echo(f"{'It is not complete: ' + why if why else 'Complete'}. Now the checker.")
    verified, verdict = world.final_look(), _judged(world, record)
    wrong = verdict["wrong"] or why or publisher.failed
    struck = [(name, proxy.struck.items()) for name, proxy in world.servers.proxies.items()]
    return {
        "seed": seed,
        "minutes": minutes,
        "result": "failed" if wrong else "passed",
        "incomplete": why,
        **verdict,
        "not sent": publisher.failed,
        "verify --deep": verified,
        "seconds": round(time.monotonic() - began),
        "recovered in seconds": round(recovered_s),
        "network faults": {f"{trouble.value}: {name}": n for name, some in struck for trouble, n in some},
        "done": dict(world.done),
        "came back by supervision": dict(world.came_back),
        "upkeep": dict(world.upkeep_runs),
        "runs": world.runs(),
        "left out": world.left_out,
    }


def _wait_for_archive(world: World, record: Path) -> str:
    """Wait until the ledger covers all that was acknowledged; why it was given up, '' where not."""
    ends = checker.read_record(record).ends()

    def signs() -> object:
        with suppress(psycopg.Error):
            return sorted(world.archived().items()), world.runs()
        return None

    def complete() -> bool:
        with suppress(psycopg.Error):
            covered = world.archived()
            return all(covered.get(log, 0) >= end for log, end in ends.items())
        return False

    return _wait(world, signs, complete)


def _judged(world: World, record: Path) -> dict[str, Any]:
    """What the checker says, a process that imports nothing of the archive."""
    address = world.servers.address
    where = checker.Where(
        str(record),
        address.database_url,
        address.s3_endpoint,
        address.s3_access_key,
        address.s3_secret_key,
        f"{PREFIX}/",
    )
    asked = json.dumps(asdict(where))
    program = [sys.executable, "-m", checker.__name__]
    judged = subprocess.run(program, input=asked, capture_output=True, text=True, check=False)
    if not judged.stdout:
        raise click.ClickException(f"The checker failed: {judged.stderr}")
    verdict: dict[str, Any] = json.loads(judged.stdout)
    return verdict


def _play(world: World, seed: int, seconds: float) -> None:
    """Do what the schedule says, and undo it in time."""
    began, number = time.monotonic(), itertools.count()
    due: list[tuple[float, int, Callable[[], None]]] = []
    for deed in schedule(seed, seconds):
        heapq.heappush(due, (deed.at_s, next(number), lambda deed=deed: begin(deed)))  # type: ignore[misc]

    busy_until: dict[tuple[bool, str], float] = {}

    def begin(deed: Deed) -> None:
        where, now = (deed.kind is Kind.NETWORK, deed.target), time.monotonic() - began
        if (free_at := busy_until.get(where, 0.0)) > now:  # the one before began late
            heapq.heappush(due, (free_at, next(number), lambda: begin(deed)))
            return
        busy_until[where] = now + deed.for_s
        heapq.heappush(due, (now + deed.for_s, next(number), world.begin(deed)))

    try:
        while time.monotonic() - began < seconds or due:
            world.supervise()
            while due and due[0][0] <= time.monotonic() - began:
                heapq.heappop(due)[2]()
            time.sleep(_LOOK_S)
    finally:
        for proxy in world.servers.proxies.values():
            proxy.calm()


def _wait(world: World, signs: Callable[[], object], done: Callable[[], bool]) -> str:
    """Wait for something, as long as there is progress, with everything kept running; why it was given up, '' where not."""
    patience = Patience(STILL_S, 3 * 3600.0)
    while not done():
        world.supervise()
        if why := patience.is_over(signs()):
            return why
        time.sleep(_ASK_S)
    return ""


def _print(told: dict[str, Any]) -> None:
    rows = [("seed", told["seed"]), ("minutes of faults", told["minutes"]), *told["figures"].items()]
    rows += [("network faults", sum(told["network faults"].values()))]
    for kind in ("kill", "freeze", "fill", "clock"):
        of = {name: n for name, n in told["done"].items() if name.startswith(f"{kind}:")}
        each = ", ".join(f"{name.partition(': ')[2]} {count}" for name, count in sorted(of.items()))
        rows += [(kind, f"{sum(of.values())} ({each})")]
    rows += [("ended by themselves", sum(told["came back by supervision"].values()))]
    rows += [
        ("runs of Dagster", sum(told["runs"].values())),
        ("upkeep", sum(told["upkeep"].values())),
        ("recovered in seconds", told["recovered in seconds"]),
    ]
    rows += [("last verify --deep, exit code", told["verify --deep"])]
    rows += [(f"left out: {what}", why) for what, why in told["left out"].items()]
    rows += [("result", told["result"])]
    for name, value in rows:
        click.echo(f"{name:32} {value}")
    for line in told["first"]:
        click.echo(f"  {line}")
    if told["incomplete"]:
        click.echo(f"  not complete: {told['incomplete']}")


if __name__ == "__main__":
    main()
