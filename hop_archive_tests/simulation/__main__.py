"""``python -m hop_archive_tests.simulation --seconds 60``: histories of one seed after another; what fails is shrunk."""

from __future__ import annotations

import logging
import re
import time
import traceback

import click

from hop_archive_tests.simulation.history import History, shrunk
from hop_archive_tests.simulation.run import failure, of_seed, play


@click.command()
@click.option("--seconds", type=float, default=60.0, show_default=True, help="How long to try new seeds.")
@click.option("--seed", type=int, default=1, show_default=True, help="The first one.")
@click.option("--count", type=int, help="How many, however long it takes.")
@click.option("--as-it-is", is_flag=True, help="Do not shrink what fails.")
def main(seconds: float, seed: int, count: int | None, *, as_it_is: bool) -> None:
    """Simulate histories of many seeds; one that fails is shrunk and told, and ends it."""
    logging.disable()
    until, first = time.monotonic() + seconds, seed
    while seed < first + count if count is not None else time.monotonic() < until:
        history = of_seed(seed)
        why = failure(history)
        if why is not None:
            click.echo(f"Seed {seed} fails: {why}")
            if as_it_is:
                raise SystemExit(1)
            click.echo("Shrinking.")
            kind = _kind(why)
            small = shrunk(history, lambda h, kind=kind: _kind(failure(h) or "") == kind)  # type: ignore[misc]
            _tell(small)
            raise SystemExit(1)
        seed += 1
    click.echo(f"{seed - first} histories, seeds {first} to {seed - 1}: every invariant held.")


def _kind(why: str) -> str:
    """What is the same in two failures of one fault: not the places and numbers."""
    return " ".join(re.findall(r"[a-z]{3,}", why)[:7])


def _tell(history: History) -> None:
    click.echo(str(history))
    click.echo(repr(history))
    try:
        play(history)
    except Exception:  # noqa: BLE001 - to be shown
        click.echo(traceback.format_exc())


if __name__ == "__main__":
    main()
