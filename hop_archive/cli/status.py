"""``hop-archive status``: where the archive stands, topic by topic."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.options import Setup, StanzaOptions, json_option, stanza_options, topic_option
from hop_archive.cli.output import count, duration, moment, size, table, timestamp
from hop_archive.cli.scrub import age, sentence
from hop_archive.errors import ConfigurationError, HopArchiveError, MissingSettingError, UnavailableError
from hop_archive.model.topics import unmet_message
from hop_archive.model.wording import counted

if TYPE_CHECKING:
    from hop_archive.archive import Archive
    from hop_archive.catalog.records import TopicSummary
    from hop_archive.cli.stopping import Stop
    from hop_archive.model.findings import Finding, OpenCount
    from hop_archive.read.topic_facts import Facts, TopicFacts

_EPILOG = """\b
Examples:
  hop-archive status -H hop-local -D local-db
  hop-archive status -H hop-local -D local-db --watch
  hop-archive status -H hop-prod -D aws-prod-db -T gcn.notices --json

\b
The first line says what matters: how far behind the archive is, what was lost in the last 24 hours, whether
anything arrives. Of each topic:
  lag         offsets that Kafka holds, committed and not dealt with yet
  messages    archived
  duplicates  not stored again
  absent      offsets for which Kafka delivers nothing: markers, aborted, compacted away
  lost        gone from Kafka before they were archived
  skipped     left out on purpose, with a reason
  pruned      archived once, and taken away by a policy; told where there are any
Where the source does not answer, lags are not known (?, null) and the rest is shown all the same, exit 0; in
JSON, source.error says why; source.no_topic_for are names and globs of its stanza that mean none of its topics. A topic that the source has no more, or that is not archived any more, has no lag (-, null);
its state, below the table and in JSON, is that of hop-archive topics. A database that does not answer is an error: exit 3.

\b
What could not be looked at, or may not be read, is listed with the reason and since when: a partition without a leader, a
topic that may be seen and not read, or not even described (JSON: in_the_way, with topic, partition, kind, since and why).
The lag of such a topic is not known (null), unless it may only not be read.

\b
--watch goes on until Ctrl-C, exit 0, also through outages, which it shows. With --json it prints one object a line;
while the database does not answer, that is {"error": ..., "at": ...}.
"""

_NO_MORE = {
    "gone": "archived once, no more on the source",
    "vetoed": "the source's stanza vetoes it",
    "left out": "the source's stanza leaves it out",
}

WATCH_EVERY_S = 2.0
"""How long --watch waits between two looks, unless told."""


@click.command(epilog=_EPILOG)
@stanza_options
@topic_option("Only this topic. May be given again.")
@click.option(
    "-w",
    "--watch",
    metavar="[SECONDS]",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=WATCH_EVERY_S,
    help="Look again every so many seconds (2 unless given), until Ctrl-C.",
)
@json_option
def status(chosen: StanzaOptions, topics: tuple[str, ...], watch: float | None, *, as_json: bool) -> None:
    """Show where the archive stands: by topic, since its start, in the last 24 hours and the last hour.

    Reads the database, and asks the source how far it is; changes nothing.
    """
    setup = chosen.setup()
    with contextlib.closing(setup.open()) as archive:
        wanted = sorted(set(topics)) or None
        if watch is not None:
            _Watch(setup, archive, wanted, watch, as_json=as_json).go()
            return
        found = _look(setup, archive, wanted)
    if as_json:
        click.echo(json.dumps(as_object(found, setup), indent=2))
        return
    for line in _lines(found, setup):
        click.echo(line)


def _look(setup: Setup, archive: Archive, topics: Sequence[str] | None) -> Facts:
    from hop_archive.read import status as reporting

    archive.catalog.check()
    found = reporting.status(archive, topics, unasked=_why_unasked(setup))
    _refuse_unknown(found, topics or ())
    return found


def _why_unasked(setup: Setup) -> str:
    """Why the source is not asked; empty where it is."""
    asks = setup.selection.asks_source
    return "" if asks else "no source is named; name it with -H or HOP_ARCHIVE_SOURCE."


def _refuse_unknown(found: Facts, topics: Sequence[str]) -> None:
    unknown = sorted(set(topics) - {one.topic for one in found.topics})
    if not unknown:
        return
    names = ", ".join(unknown)
    nowhere = f"Neither the source nor the catalog has a topic named {names}."
    catalog = f"The catalog has no topic named {names}, and the source is not known."
    raise MissingSettingError(
        catalog if found.source_error else nowhere,
        remedy="-T takes exact names; see hop-archive topics.",
        topics=unknown,
    )


class _Watch:
    """Looks again and again, and shows what it saw: in place on a terminal, block after block elsewhere."""

    def __init__(
        self, setup: Setup, archive: Archive, topics: Sequence[str] | None, every_s: float, *, as_json: bool
    ) -> None:
        from hop_archive.cli.stopping import Stop

        self.setup = setup
        self.archive = archive
        self.topics = topics
        self.every_s = every_s
        self.as_json = as_json
        self.stop: Stop = Stop()
        self.shown: list[str] = []
        self.has_looked = False

    def go(self) -> None:
        """Watch until asked to stop."""
        with self.stop.on_signals(), self._display() as show:
            while not self.stop.requested:
                show(self._seen())
                self.stop.sleep(self.every_s)

    def _seen(self) -> list[str]:
        """What to show now. The last that was known stays below an error."""
        try:
            found = _look(self.setup, self.archive, self.topics)
        except (UnavailableError, ConfigurationError) as error:
            if not (self.has_looked or error.retryable):
                raise
            return self._of_outage(error)
        self.has_looked = True
        if self.as_json:
            return [json.dumps(as_object(found, self.setup))]
        self.shown = list(_lines(found, self.setup))
        return self.shown

    def _of_outage(self, error: HopArchiveError) -> list[str]:
        at = moment(self.archive.now())
        if self.as_json:
            return [json.dumps({"error": str(error), "at": at})]
        return [f"Not known at {at}: {error}", *(["Before that:", *self.shown] if self.shown else [])]

    @contextlib.contextmanager
    def _display(self) -> Iterator[Callable[[list[str]], None]]:
        if self.as_json:
            yield lambda lines: click.echo(lines[0])
        elif sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb"):
            with self._live() as show:
                yield show
        else:
            yield self._print

    @contextlib.contextmanager
    def _live(self) -> Iterator[Callable[[list[str]], None]]:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        hint = f"Looks again every {duration(self.every_s)}; Ctrl-C ends it."
        with Live(console=Console(), auto_refresh=False, vertical_overflow="crop") as live:
            self.setup.start_log()  # again, so that its lines go above the table, not into it

            def show(lines: list[str]) -> None:
                fitting = _fitting(lines, live.console.size.height - 2)
                text = Text("\n".join([*fitting, ""]), no_wrap=True, overflow="crop")
                live.update(text.append(hint, style="dim"), refresh=True)

            yield show
        self.setup.start_log()

    def _print(self, lines: list[str]) -> None:
        """A block of its own, under a line with the time."""
        click.echo(f"--- {moment(self.archive.now())}")
        for line in lines:
            click.echo(line)


def _fitting(lines: list[str], room: int) -> list[str]:
    """As many lines as there is room for, and how many there are besides."""
    if len(lines) <= room:
        return lines
    kept = lines[: max(1, room - 1)]
    return [*kept, f"… {len(lines) - len(kept)} more lines: a taller terminal shows them, and -T shows less."]


def as_object(found: Facts, setup: Setup) -> dict[str, Any]:
    """Return a status as JSON has it: sizes in bytes, moments as ISO 8601 in UTC, null for what is not known."""
    return {
        "headline": headline(found),
        "topics": [_topic_object(one) for one in found.topics],
        "in_the_way": [_obstacle_object(one, found) for one in found.obstacles],
        "findings": [_open_object(one) for one in found.findings],
        "scrub": age(found.shares),
        "source": {
            "name": setup.selection.source,
            "error": found.source_error or None,
            "no_topic_for": list(found.unmet),
        },
        "database": setup.selection.database,
        "at": moment(found.at),
    }


def _open_object(one: OpenCount) -> dict[str, Any]:
    return {"topic": one.topic, "kind": one.kind.value, "open": one.number, "since": moment(one.since)}


def _obstacle_object(one: Finding, found: Facts) -> dict[str, Any]:
    since = next((f.since for f in found.findings if (f.topic, f.kind) == (one.topic, one.kind)), None)
    named = {"topic": one.topic, "partition": one.partition, "kind": one.kind.value}
    return {**named, "since": moment(since), "why": one.detail}


def _topic_object(one: TopicFacts) -> dict[str, Any]:
    return {
        "topic": one.topic,
        "state": one.state.value,
        **_summary_object(one.total),
        "lag": one.lag,
        "held_back": one.held_back,
        "unrecorded": one.unrecorded,
        "generations": one.generations,
        **{name: _summary_object(window) for name, window in one.windows.items()},
    }


def _summary_object(summary: TopicSummary) -> dict[str, Any]:
    return {
        "messages": summary.messages,
        "duplicates": summary.duplicates,
        "absent": summary.absent,
        "lost": summary.lost,
        "skipped": summary.skipped,
        "pruned": summary.pruned,
        "bytes": summary.size_bytes,
        "first": timestamp(summary.first_timestamp_ms),
        "last": timestamp(summary.last_timestamp_ms),
        "last_batch": moment(summary.last_batch_at),
    }


def _lines(found: Facts, setup: Setup) -> Iterator[str]:
    chosen, stanzas = setup.selection, setup.configuration
    yield headline(found)
    source = f"{chosen.source} ({stanzas.source(chosen.source).resolved().describe()})"
    database = stanzas.database(chosen.database).resolved().describe()
    asked = "not named" if _why_unasked(setup) else source
    yield f"{moment(found.at)}: source {asked}, database {chosen.database} ({database})"
    if found.source_error:
        yield f"The lag is not known: {found.source_error}"
    if found.unmet:
        yield unmet_message(found.unmet, chosen.source)
    if not found.topics:
        yield "No topic has been archived, and the source has none that would be."
        return
    yield ""
    yield from _counts(found.topics, unknown="?" if found.source_error else "-")
    yield ""
    yield from _times(found.topics)
    yield from _in_the_way(found)
    yield from _open(found.findings)
    yield ""
    yield sentence(age(found.shares))
    yield from _remarks(found.topics)


def _in_the_way(found: Facts) -> Iterator[str]:
    since = {(one.topic, one.kind): one.since for one in found.findings}
    rows = [
        [
            one.topic,
            "-" if one.partition is None else str(one.partition),
            one.kind.value,
            moment(since.get((one.topic, one.kind))) or "now",
            one.detail,
        ]
        for one in found.obstacles
    ]
    if rows:
        yield ""
        yield from table(["NOT ARCHIVED", "PARTITION", "FOR", "SINCE", "WHY"], rows, right=[1])


def _open(findings: Sequence[OpenCount]) -> Iterator[str]:
    if findings:
        rows = [
            [one.topic or "-", one.kind.value, count(one.number), moment(one.since) or ""] for one in findings
        ]
        yield ""
        yield from table(["TOPIC", "FINDING", "OPEN", "SINCE"], rows, right=[2])


def headline(found: Facts) -> str:
    """What matters most, in one line."""
    parts = [*_progress(found), *_losses(found.topics)]
    if named := [one for one in found.unmet if one != "*"]:  # that there is no topic at all was said
        parts.append(f"the source has no topic for {', '.join(named)}")
    if known := sum(one.number for one in found.findings):
        parts.append(f"{counted(known, 'finding')} open")
    return f"{'; '.join(parts)}."


def _progress(found: Facts) -> Iterator[str]:
    lags = [one.lag for one in found.topics if one.lag]
    if found.source_error:
        yield "How far behind the archive is, is not known"
    elif lags:
        yield f"{counted(sum(lags), 'offset')} behind, in {counted(len(lags), 'topic')}"
    elif found.topics:
        yield "All is archived that could be looked at" if found.obstacles else "All is archived"
    else:
        yield "There is nothing to archive so far"
    if found.obstacles:
        names = sorted({one.topic for one in found.obstacles})
        yield f"{counted(len(names), 'topic')} with something in the way"
    yield from _arrivals(found, behind=bool(lags))


def _arrivals(found: Facts, *, behind: bool) -> Iterator[str]:
    """How long ago the last batch was, where that is long ago."""
    last = max((at for one in found.topics if (at := one.total.last_batch_at)), default=None)
    if last is None:
        if found.topics:
            yield "no batch so far"
        return
    age = found.at - last
    if age > datetime.timedelta(hours=1):
        what = "nothing was archived" if behind or found.source_error else "nothing has arrived"
        yield f"{what} for {duration(age.total_seconds())}"


def _losses(topics: tuple[TopicFacts, ...]) -> Iterator[str]:
    lately = sum(one.windows["last_24_hours"].lost for one in topics)
    unrecorded = sum(one.unrecorded or 0 for one in topics)
    held_back = sum(one.held_back or 0 for one in topics)
    if lately:
        yield f"{counted(lately, 'offset')} recorded as lost in the last 24 hours"
    if unrecorded:
        yield f"{counted(unrecorded, 'offset')} gone from Kafka, not recorded as lost yet"
    if held_back:
        yield f"{counted(held_back, 'offset')} held back by open transactions"


def _counts(topics: tuple[TopicFacts, ...], unknown: str) -> list[str]:
    header = ["TOPIC", "LAG", "MESSAGES", "24 H", "1 H", "DUPLICATES", "ABSENT", "LOST", "SKIPPED", "SIZE"]
    rows = [_count_cells(one, unknown) for one in topics]
    return table(header, [*rows, _sum_cells(topics, unknown)] if len(rows) > 1 else rows, right=range(1, 10))


def _count_cells(one: TopicFacts, unknown: str) -> list[str]:
    day, hour = one.windows["last_24_hours"], one.windows["last_hour"]
    whole = one.total
    numbers = (whole.messages, day.messages, hour.messages, *_oddities(whole))
    return [one.topic, _known(one.lag, unknown), *map(count, numbers), size(whole.size_bytes)]


def _known(lag: int | None, unknown: str) -> str:
    return unknown if lag is None else count(lag)


def _oddities(whole: TopicSummary) -> tuple[int, int, int, int]:
    return whole.duplicates, whole.absent, whole.lost, whole.skipped


def _sum_cells(topics: tuple[TopicFacts, ...], unknown: str) -> list[str]:
    lags = [one.lag for one in topics if one.lag is not None]
    numbers = (
        sum(one.total.messages for one in topics),
        sum(one.windows["last_24_hours"].messages for one in topics),
        sum(one.windows["last_hour"].messages for one in topics),
        *map(sum, zip(*(_oddities(one.total) for one in topics), strict=True)),
    )
    lag = _known(sum(lags) if lags else None, unknown)
    return ["total", lag, *map(count, numbers), size(sum(one.total.size_bytes for one in topics))]


def _times(topics: tuple[TopicFacts, ...]) -> list[str]:
    rows = [
        [
            one.topic,
            timestamp(one.total.first_timestamp_ms) or "-",
            timestamp(one.total.last_timestamp_ms) or "-",
            moment(one.total.last_batch_at) or "-",
        ]
        for one in topics
    ]
    return table(["TOPIC", "FIRST MESSAGE", "LAST MESSAGE", "LAST BATCH"], rows)


def _remarks(topics: tuple[TopicFacts, ...]) -> Iterator[str]:
    """Of whom nothing comes any more; what is gone and not recorded as lost until the next run; what is held back."""
    for one in topics:
        if why := _NO_MORE.get(one.state.value):
            yield f"{one.topic}: {one.state.value}: {why}."
        if one.unrecorded:
            yield f"{one.topic}: {counted(one.unrecorded, 'offset')} gone from Kafka, not recorded as lost yet."
        if one.total.pruned:
            yield f"{one.topic}: {counted(one.total.pruned, 'offset')} pruned."
        if one.held_back:
            yield f"{one.topic}: {counted(one.held_back, 'offset')} held back by an open transaction."
