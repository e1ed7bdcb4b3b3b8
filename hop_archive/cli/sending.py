"""What the publishing commands share: sending until it is over or somebody asks to stop, shown as it goes on."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from hop_archive.cli.output import count, rate
from hop_archive.model.message import Receipt, TopicPartition
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.cli.stopping import Stop

LINE_EVERY_S = 5.0
"""At most one line of progress in this time, where there is no terminal."""


@dataclass(slots=True)
class Offsets:
    """What came to stand in one partition: how many messages, and the first and the last offset of them."""

    messages: int
    first: int
    last: int


@dataclass(slots=True)
class Sending:
    """Publishes, and keeps account of what was acknowledged.

    Attributes:
        total: Messages that there will be; None where there is no end.
        silent: Whether to show nothing while it goes on.
        monotonic: A clock in seconds.
        partitions: What came to stand where.
    """

    total: int | None
    silent: bool = False
    monotonic: Callable[[], float] = time.monotonic
    partitions: dict[TopicPartition, Offsets] = field(default_factory=dict)

    @property
    def messages(self) -> int:
        """How many messages were acknowledged."""
        return sum(one.messages for one in self.partitions.values())

    def by_topic(self) -> dict[str, int]:
        """How many in each topic, sorted by name."""
        counts = Counter[str]()
        for at, one in self.partitions.items():
            counts[at.topic] += one.messages
        return dict(sorted(counts.items()))

    def run(self, portions: Iterator[Sequence[Receipt]], stop: Stop) -> None:
        """Publish portion by portion; asked to stop, end after the one in hand."""
        with self._display() as show:
            for receipts in portions:
                self.add(receipts)
                show()
                if stop.requested:
                    break

    def add(self, receipts: Sequence[Receipt]) -> None:
        """Take in what was acknowledged."""
        for topic, partition, offset in receipts:
            at = TopicPartition(topic, partition)
            one = self.partitions.setdefault(at, Offsets(0, offset, offset))
            one.messages += 1
            one.last = offset

    def lines(self) -> Iterator[str]:
        """What was published, for people."""
        for topic, number in self.by_topic().items():
            yield f"{topic}: {count(number)}"
        yield f"Published {counted(self.messages, 'message')}."

    @contextmanager
    def _display(self) -> Iterator[Callable[[], None]]:
        if self.silent:
            yield lambda: None
        elif sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb"):
            with self._bar() as show:
                yield show
        else:
            yield _Lines(self).show

    @contextmanager
    def _bar(self) -> Iterator[Callable[[], None]]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("publishing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        hint = TextColumn("[dim]Ctrl-C ends it cleanly")
        with Progress(*columns, hint, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=self.total)
            yield lambda: bar.update(task, completed=self.messages)


class _Lines:
    """A line on the error output now and then."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending
        self._said_at = sending.monotonic()
        self._said = 0

    def show(self) -> None:
        """Say how far it is, if it is time."""
        passed = self._sending.monotonic() - self._said_at
        if passed < LINE_EVERY_S:
            return
        lately = rate((self._sending.messages - self._said) / passed)
        self._said, self._said_at = self._sending.messages, self._sending.monotonic()
        click.echo(f"Published {counted(self._said, 'message')}, {lately} lately.", err=True)
