"""How a restore is shown while it is at work, and what it says at its end."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.output import count, duration, rate, size
from hop_archive.errors import CorruptError
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.model.progress import Progress
    from hop_archive.recover.restore.run import RestoreResult


def tell(outcome: RestoreResult, progress: Progress, elapsed_s: float, *, as_json: bool) -> None:
    """Say what came of it."""
    if as_json:
        click.echo(json.dumps(outcome.report, indent=2, ensure_ascii=False))
        return
    report = outcome.report
    for note in report["notes"]:
        click.echo(f"Note: {note}")
    for name, one in sorted(report["topics"].items()):
        compared = "not compared" if one["compared"] is None else f"{count(one['compared'])} compared"
        left = f", {count(one['left_out_count'])} left out" if one["left_out_count"] else ""
        click.echo(
            f"{one['source_topic']} -> {name}: {counted(one['messages'], 'message')} in "
            f"{counted(len(one['partitions']), 'partition')}, {compared}{left}"
        )
        for group in one["groups"]:
            click.echo(
                f"  consumer group {group['group']} set in {counted(len(group['offsets']), 'partition')}"
            )
    speed = rate(progress.counts["sent"] / max(elapsed_s, 1e-3))
    ended = "" if outcome.complete else " Stopped as asked: the same command goes on."
    click.echo(
        f"Restore {outcome.number} to source {report['target']}: {counted(report['messages'], 'message')} there, "
        f"{count(progress.counts['sent'])} written now ({size(progress.counts['size_bytes'])}, {speed}) in {duration(elapsed_s)}.{ended}"
    )
    if outcome.complete:
        click.echo(f"The report is in the store: {report['report']}")


def refuse_what_is_wrong(outcome: RestoreResult) -> int:
    """Raise what is not as it should be at the end; else the exit code: 1 where something is not as it was.

    Raises:
        CorruptError: The target differs from what was written, or messages were left out because of damage.
    """
    if outcome.differences:
        first = next(d for one in outcome.report["topics"].values() for d in one["differences"])
        raise CorruptError(
            f"{counted(outcome.differences, 'message')} of the target not as they should be; the first: "
            f"{first['topic']}[{first['partition']}] offset {first['offset']}: {first['what']}.",
            remedy="See the report for the others. Most often another writer, or retention, was at work there.",
        )
    if outcome.left_out:
        first = next(d for one in outcome.report["topics"].values() for d in one["left_out"])
        raise CorruptError(
            f"{counted(outcome.left_out, 'message')} left out; the first: {first['uuid']} of {first['topic']}: "
            f"{first['why']}.",
            remedy="Everything else is there. See the report for the others.",
        )
    return 1 if outcome.unrestored else 0


@contextlib.contextmanager
def shown(began: float) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal; a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines(began).show
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking…", total=None)

        def show(now: Any) -> None:
            what, done = (
                ("comparing", now.counts["checked"])
                if now.counts["checked"]
                else ("writing", now.counts["there"])
            )
            bar.update(task, description=f"{what} {now.topic[:40]}", total=now.total, completed=done)

        yield show


class _Lines:
    """A line on the error output every few seconds."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._next = began + 5.0

    def show(self, now: Progress) -> None:
        """Say how far it is, if it is time."""
        at = time.monotonic()
        if at < self._next:
            return
        self._next = at + 5.0
        share = f" of {count(now.total)}"
        left_s = (at - self._began) * (now.total - now.counts["there"]) / max(now.counts["there"], 1)
        click.echo(
            f"{now.topic}: {count(now.counts['there'])}{share} there, {count(now.counts['checked'])} compared, "
            f"{rate(now.counts['sent'] / max(at - self._began, 1e-3))}, about {duration(max(left_s, 0))} left.",
            err=True,
        )
