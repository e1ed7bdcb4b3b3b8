"""How far a command is, shown while it goes on: drawn anew on a terminal, said in a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from hop_archive.cli.output import count, say

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LINE_EVERY_S = 5.0
"""At most one line in this time, where there is no terminal."""


@dataclass(slots=True)
class Display:
    """Shows what it is given, on the error output or on the output.

    On a terminal it is drawn twice a second, by a thread of its own, and what is printed meanwhile scrolls by above;
    on the output it is drawn when `tick` is called. Elsewhere a line is said.

    Attributes:
        draw: What a terminal shows now.
        line: What is said now, elsewhere; '' where that is nothing. None: nothing is ever said.
        say: How.
        every_s: Seconds between two lines, at least.
        on_output: Whether it goes to the output.
        stays: Whether the last drawing stays.
        start_log: Called once drawing has begun, and once it ended: log lines go above the drawing then, not into it.
        monotonic: A clock in seconds.
    """

    draw: Callable[[Console], RenderableType]
    line: Callable[[], str] | None = None
    _: KW_ONLY
    say: Callable[[str], None] = lambda text: say(text, err=True)
    every_s: float = LINE_EVERY_S
    on_output: bool = False
    stays: bool = False
    start_log: Callable[[], None] = lambda: None
    monotonic: Callable[[], float] = time.monotonic
    _next: float = field(init=False)
    _refresh: Callable[[], None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._next = self.monotonic() + self.every_s

    def tick(self) -> None:
        """Something may have happened; called often, so cheap."""
        if self._refresh is not None:
            self._refresh()
            return
        if self.line is None or (now := self.monotonic()) < self._next:
            return
        self._next = now + self.every_s
        if text := self.line():
            self.say(text)

    @contextmanager
    def shown(self) -> Iterator[Display]:
        """Show it while the block runs."""
        stream = sys.stdout if self.on_output else sys.stderr
        if not stream.isatty() or os.environ.get("TERM", "") in ("", "dumb"):
            yield self
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=not self.on_output)
        with Live(
            get_renderable=lambda: self.draw(console),
            console=console,
            refresh_per_second=2,
            auto_refresh=not self.on_output,
            transient=not self.stays,
            vertical_overflow="crop",
            redirect_stdout=sys.stdout.isatty(),  # what goes to a file or a pipe goes there
        ) as live:
            self._refresh = live.refresh if self.on_output else lambda: None
            self.start_log()
            yield self
        self._refresh = None
        self.start_log()


def bar(what: str, done: int, total: int | None, *remarks: str) -> RenderableType:
    """A bar, with how much of how much is done; it moves to and fro where nobody knows how much there is."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 1))
    moving = ProgressBar(total or 100, done, width=40, pulse=not total)
    line.add_row(Text(what), moving, f"{count(done)}/{count(total)}", *(Text(remark) for remark in remarks))
    return line


def one_line(text: str) -> RenderableType:
    """A text that is cut where the line ends."""
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="crop")
