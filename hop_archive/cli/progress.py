"""What a run shows of itself while it goes on: a table on a terminal, a line now and then elsewhere.

The archiving thread tells an `Activity`, which is cheap; who shows it looks there when it wants to. So
showing costs the archiving nothing but the interpreter's time for two small tables a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hop_archive.cli.fitting import folded_cell
from hop_archive.cli.output import count, duration, rate, size
from hop_archive.errors import HopArchiveError
from hop_archive.ingest.totals import TopicTotals, sum_totals, totals_of
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hop_archive.ingest.write import Done

log = logging.getLogger(__name__)

_WINDOW_S = 10.0
_SNAPSHOT_S = 0.5
_LEAST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 30.0
_MOST_ROWS = 20
_FIGURES_WIDTH = 4 * (9 + 3) + 2
_TABLE_CHROME = 9
"""Lines of the display that are not rows of topics."""


@dataclass(frozen=True, slots=True)
class TopicProgress:
    """One topic, as it is shown.

    Attributes:
        topic: Kafka topic name; of the total, its label.
        tally: What this run did.
        rate: Messages a second, lately.
        lag: Offsets not dealt with yet; None where that is not known.
    """

    topic: str
    tally: TopicTotals
    rate: float
    lag: int | None


@dataclass(slots=True)
class Activity:
    """What a run has done so far, topic by topic. Thread-safe.

    Attributes:
        monotonic: A clock in seconds.
        under_way: Messages fetched, and objects written, so far, also of batches that are not committed yet.
        started: When the run began, by that clock.
        note: What it is about at the moment, for people.
        alarming: Whether that is for somebody to mend.
        conflicts: Slices that another writer had archived first.
    """

    monotonic: Callable[[], float] = time.monotonic
    under_way: Callable[[], tuple[int, int]] = lambda: (0, 0)
    started: float = 0.0
    note: str = ""
    alarming: bool = False
    conflicts: int = 0
    _tallies: dict[str, TopicTotals] = field(default_factory=dict)
    _dealt: dict[str, int] = field(default_factory=dict)
    _pending: Mapping[str, int] | None = None
    _dealt_then: Mapping[str, int] = field(default_factory=dict)
    _said: tuple[int, int, int] = (0, 0, 0)
    _snapshots: deque[tuple[float, Mapping[str, int]]] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.started = self.monotonic()
        self._snapshots.append((self.started, {}))

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return self.monotonic() - self.started

    def add(self, dones: Iterable[Done]) -> None:
        """Take in what was stored."""
        batches = [batch for done in dones for batch in done.batches]
        if not batches:
            return
        new = totals_of(batches)
        with self._lock:
            self._tallies = sum_totals([self._tallies, new])
            for batch in batches:
                topic = batch.slice.topic
                self._dealt[topic] = self._dealt.get(topic, 0) + len(batch.slice)

    def dealt(self) -> Mapping[str, int]:
        """Offsets dealt with so far, by topic: what a survey that begins now may or may not see done."""
        with self._lock:
            return dict(self._dealt)

    def learn_pending(self, pending: Mapping[str, int] | None, dealt_then: Mapping[str, int]) -> None:
        """Take in what a survey found to be left; None where it failed.

        Args:
            pending: Offsets by topic.
            dealt_then: What `dealt` said when the survey was made.
        """
        with self._lock:
            self._pending, self._dealt_then = pending, dealt_then

    def total(self) -> TopicProgress:
        """All topics together."""
        rows = self.topics()
        whole = sum((row.tally for row in rows), TopicTotals("total"))
        lag = sum(row.lag for row in rows if row.lag is not None)
        return TopicProgress(
            "total", whole, sum(row.rate for row in rows), lag if self._pending is not None else None
        )

    def topics(self) -> list[TopicProgress]:
        """Each topic that had something to do, the busiest first."""
        with self._lock:
            now = self.monotonic()
            messages = {name: done.messages for name, done in self._tallies.items()}
            if now - self._snapshots[-1][0] >= _SNAPSHOT_S:
                self._snapshots.append((now, messages))
            while len(self._snapshots) > 2 and now - self._snapshots[1][0] > _WINDOW_S:
                self._snapshots.popleft()
            then, before = self._snapshots[0]
            passed = max(now - then, _SNAPSHOT_S)
            rows = []
            for name in {*self._tallies, *(self._pending or ())}:
                lag = None
                if self._pending is not None:
                    since = self._dealt.get(name, 0) - self._dealt_then.get(name, 0)
                    lag = max(0, self._pending.get(name, 0) - since)
                done = self._tallies.get(name, TopicTotals(name))
                rate_now = (done.messages - before.get(name, 0)) / passed
                rows.append(TopicProgress(name, done, rate_now, lag))
        return sorted(rows, key=lambda row: (-row.tally.messages, -(row.lag or 0), row.topic))

    def news(self) -> str:
        """How far the run is, in one line; '' where nothing was archived, fetched or written since it was last asked."""
        whole = self.total()
        done = whole.tally
        if (now := (done.messages, *self.under_way())) == self._said:
            return ""
        self._said = now
        left = "" if whole.lag is None else f"; {counted(whole.lag, 'offset')} left"
        archived = f"Archived {counted(done.messages, 'message')} ({size(done.size_bytes)})"
        return f"{archived}, {rate(whole.rate)} lately; {self.stages()}{left}."

    def stages(self) -> str:
        """What was done so far for batches, committed or not."""
        fetched, written = self.under_way()
        return f"fetched {fetched:,}, wrote {counted(written, 'object')}"


class LagWatch:
    """Keeps an activity's lags true, in a thread of its own, from surveys with pauses between.

    The pauses are twenty times as long as a survey took, up to half a minute, so that watching costs no more
    than a twentieth of one thread.
    """

    def __init__(self, activity: Activity, pending: Callable[[], Mapping[str, int]]) -> None:
        self._activity = activity
        self._ask = pending
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lag-watch", daemon=True)

    def __enter__(self) -> LagWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=2.0)

    def _watch(self) -> None:
        pause_s = 0.0
        while not self._over.wait(pause_s):
            began, dealt_then = time.monotonic(), self._activity.dealt()
            try:
                self._activity.learn_pending(self._ask(), dealt_then)
                pause_s = min(max(_LEAST_PAUSE_S, 20 * (time.monotonic() - began)), _LONGEST_PAUSE_S)
            except BaseException as error:  # in this thread nobody else would hear of it, and the run goes on
                log.debug("The lag is not known: %s", error, exc_info=not isinstance(error, HopArchiveError))
                self._activity.learn_pending(None, dealt_then)
                pause_s = _LEAST_PAUSE_S


def drawn(activity: Activity, title: str, hint: str, console: Console) -> RenderableType:
    """The table of a run as of now, as high as the terminal has room for."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows, whole = activity.topics(), activity.total()
    room = max(3, min(_MOST_ROWS, console.size.height - _TABLE_CHROME))
    head = Text.assemble((title, "bold"), f"   {duration(activity.elapsed_s)}, {activity.stages()}")
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    label = f"total of {counted(len(rows), 'topic')}"
    for_name = console.width - _FIGURES_WIDTH
    table.add_column("topic", label, footer_style="bold", min_width=min(28, for_name), no_wrap=True)
    for name, text in zip(("messages", "size", "rate", "lag"), _cells(whole), strict=True):
        table.add_column(name, text, footer_style="bold", justify="right", min_width=9, no_wrap=True)
    shown = 0
    for row in rows:
        lines = folded_cell(row.topic, for_name)
        if len(lines) > room and shown:
            break
        table.add_row("\n".join(lines), *_cells(row))
        shown, room = shown + 1, room - len(lines)
    if (left_out := len(rows) - shown) > 0:
        table.add_row(f"… and {left_out:,} more", style="dim")
    remarks = (_oddities(whole.tally), activity.note, hint)
    foot = Text(" · ".join(filter(None, remarks)), style="bold red" if activity.alarming else "dim")
    return Group(head, table, foot)


def _cells(row: TopicProgress) -> tuple[str, str, str, str]:
    done = row.tally
    return (
        count(done.messages),
        size(done.size_bytes),
        rate(row.rate) if row.rate >= 0.05 else "",
        count(row.lag),
    )


def summary(activity: Activity) -> str:
    """Return what a run did, in one line, for its end."""
    whole, elapsed_s = activity.total().tally, activity.elapsed_s
    busy = sum(1 for row in activity.topics() if row.tally.messages)
    oddities = _oddities(whole)
    return (
        f"Archived {counted(whole.messages, 'message')} ({size(whole.size_bytes)}) of {counted(busy, 'topic')} "
        f"in {duration(elapsed_s)}, {rate(whole.messages / max(elapsed_s, 1e-3))}"
        f"{f'; {oddities}' if oddities else ''}."
    )


def _oddities(whole: TopicTotals) -> str:
    """What became of offsets that were not plainly archived; '' where all were."""
    found = (
        counted(whole.duplicates, "duplicate") if whole.duplicates else "",
        f"{whole.absent:,} absent" if whole.absent else "",
        f"{whole.lost:,} lost" if whole.lost else "",
        f"{counted(whole.collisions, 'UUID')} in use by other content" if whole.collisions else "",
    )
    return ", ".join(filter(None, found))
