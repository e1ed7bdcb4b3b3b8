"""``hop-archive status``: where the archive stands, topic by topic."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from hop_archive.cli.display import Display
from hop_archive.cli.options import Setup, StanzaOptions, json_option, stanza_options, topic_option
from hop_archive.cli.output import (
    count,
    duration,
    fitted,
    moment,
    print_json,
    print_lines,
    size,
    table,
    timestamp,
)
from hop_archive.cli.scrub import age, sentence
from hop_archive.cli.stopping import Stop
from hop_archive.errors import ConfigurationError, MissingSettingError, UnavailableError
from hop_archive.model.topics import is_topic_name, unmet_message
from hop_archive.model.wording import counted
from hop_archive.read.headline import headline

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hop_archive.archive import Archive
    from hop_archive.catalog.records import TopicSummary
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

_COLUMNS = (
    *("TOPIC", "LAG", "MESSAGES", "24 H", "1 H", "DUPLICATES", "ABSENT", "LOST", "SKIPPED", "SIZE"),
    *("FIRST MESSAGE", "LAST MESSAGE", "LAST BATCH"),
)
_OPTIONAL = (
    *(
        "FIRST MESSAGE",
        "ABSENT",
        "SKIPPED",
        "DUPLICATES",
        "LAST MESSAGE",
        "1 H",
        "24 H",
        "LAST BATCH",
        "LOST",
    ),
    "SIZE",
)
"""What a narrow terminal lacks, first to last."""

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
        names = sorted(set(topics)) or None
        if watch is not None:
            _Watch(setup, archive, names, watch, as_json=as_json).go()
            return
        found = _look(setup, archive, names)
    if as_json:
        print_json(as_object(found, setup))
    else:
        print_lines(_lines(found, setup))


def _look(setup: Setup, archive: Archive, topics: Sequence[str] | None) -> Facts:
    from hop_archive.read.topic_facts import status

    archive.catalog.check()
    found = status(archive, topics, unasked=why_unasked(setup))
    if unknown := sorted(set(topics or ()) - {topic.topic for topic in found.topics}):
        names = ", ".join(unknown)
        nowhere = f"Neither the source nor the catalog has a topic named {names}."
        catalog = f"The catalog has no topic named {names}, and the source is not known."
        raise MissingSettingError(
            catalog if found.source_error else nowhere,
            remedy="-T takes exact names; see hop-archive topics.",
            topics=unknown,
        )
    return found


def why_unasked(setup: Setup) -> str:
    """Why the source is not asked; empty where it is."""
    asks = setup.selection.asks_source
    return "" if asks else "no source is named; name it with -H or HOP_ARCHIVE_SOURCE."


class _Watch:
    """Looks again and again, and shows what it saw: in place on a terminal, block after block elsewhere."""

    def __init__(
        self, setup: Setup, archive: Archive, topics: Sequence[str] | None, every_s: float, *, as_json: bool
    ) -> None:
        self.setup = setup
        self.archive = archive
        self.topics = topics
        self.every_s = every_s
        self.as_json = as_json
        self.stop: Stop = Stop()
        self.lines: list[str] = []
        self.shown: list[str] = []
        self.has_looked = False

    def go(self) -> None:
        """Watch until asked to stop."""
        display = Display(
            self._draw,
            lambda: "\n".join([f"--- {moment(self.archive.now())}", *self.lines]),
            say=click.echo,
            every_s=0,
            on_output=True,
            stays=True,
            start_log=self.setup.start_log,
        )
        with self.stop.on_signals(), contextlib.nullcontext() if self.as_json else display.shown():
            while not self.stop.requested:
                self.lines = self._seen()
                if self.as_json:
                    click.echo(self.lines[0])
                else:
                    display.tick()
                self.stop.sleep(self.every_s)

    def _seen(self) -> list[str]:
        """What to show now. The last that was known stays below an error."""
        try:
            found = _look(self.setup, self.archive, self.topics)
        except (UnavailableError, ConfigurationError) as error:
            if not (self.has_looked or error.retryable):
                raise
            at = moment(self.archive.now())
            if self.as_json:
                return [json.dumps({"error": str(error), "at": at})]
            return [
                *fitted([f"Not known at {at}: {error}"]),
                *(["Before that:", *self.shown] if self.shown else []),
            ]
        self.has_looked = True
        if self.as_json:
            return [json.dumps(as_object(found, self.setup))]
        self.shown = list(fitted(_lines(found, self.setup)))
        return self.shown

    def _draw(self, console: Console) -> RenderableType:
        from rich.text import Text

        lines, room = self.lines, console.size.height - 2
        if len(lines) > room:
            kept = lines[: max(1, room - 1)]
            left_out = len(lines) - len(kept)
            lines = [*kept, f"… {left_out} more lines: a taller terminal shows them, and -T shows less."]
        text = Text("\n".join([*lines, ""]), no_wrap=True, overflow="crop")
        hint = f"Looks again every {duration(self.every_s)}; Ctrl-C ends it."
        return text.append(hint, style="dim") if self.lines else text


def as_object(found: Facts, setup: Setup) -> dict[str, Any]:
    """Return a status as JSON has it: sizes in bytes, moments as ISO 8601 in UTC, null for what is not known."""
    since = {(kind.topic, kind.kind): kind.since for kind in found.findings}
    return {
        "headline": headline(found),
        "topics": [
            {
                "topic": topic.topic,
                "state": topic.state.value,
                **_summary_object(topic.total),
                "lag": topic.lag,
                "held_back": topic.held_back,
                "unrecorded": topic.unrecorded,
                "generations": topic.generations,
                **{name: _summary_object(window) for name, window in topic.windows.items()},
            }
            for topic in found.topics
        ],
        "in_the_way": [
            {
                "topic": finding.topic,
                "partition": finding.partition,
                "kind": finding.kind.value,
                "since": moment(since.get((finding.topic, finding.kind))),
                "why": finding.detail,
            }
            for finding in found.obstacles
        ],
        "findings": [
            {"topic": kind.topic, "kind": kind.kind.value, "open": kind.number, "since": moment(kind.since)}
            for kind in found.findings
        ],
        "scrub": age(found.shares),
        "source": {
            "name": setup.selection.source,
            "error": found.source_error or None,
            "no_topic_for": list(found.unmet),
        },
        "database": setup.selection.database,
        "at": moment(found.at),
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
    asked = "not named" if why_unasked(setup) else source
    yield f"{moment(found.at)}: source {asked}, database {chosen.database} ({database})"
    if found.source_error:
        yield f"The lag is not known: {found.source_error}"
    if found.unmet:
        yield unmet_message(found.unmet, chosen.source)
    if not found.topics:
        yield "No topic has been archived" + (
            "." if found.source_error else ", and the source has none that would be."
        )
        return
    yield ""
    yield from _table(found.topics, "?" if found.source_error else "-")
    yield from _obstacle_lines(found)
    yield ""
    yield sentence(age(found.shares))
    for topic in found.topics:
        why = _NO_MORE.get(topic.state.value, "")
        if topic.state.value == "gone" and not is_topic_name(topic.topic):
            why = "never on Kafka, which takes no topic of that name: another archiver stored its messages"
        if why:
            yield f"{topic.topic}: {topic.state.value}: {why}."
        if topic.unrecorded:
            yield f"{topic.topic}: {counted(topic.unrecorded, 'offset')} gone from Kafka, not recorded as lost yet."
        if topic.total.pruned:
            yield f"{topic.topic}: {counted(topic.total.pruned, 'offset')} pruned."
        if topic.held_back:
            yield f"{topic.topic}: {counted(topic.held_back, 'offset')} held back by an open transaction."


def _obstacle_lines(found: Facts) -> Iterator[str]:
    """What is not archived, and what was found and is open."""
    since = {(kind.topic, kind.kind): kind.since for kind in found.findings}
    if found.obstacles:
        rows = [
            [
                finding.topic,
                "-" if finding.partition is None else str(finding.partition),
                finding.kind.value,
                moment(since.get((finding.topic, finding.kind))) or "now",
                finding.detail,
            ]
            for finding in found.obstacles
        ]
        yield ""
        yield from table(["NOT ARCHIVED", "PARTITION", "FOR", "SINCE", "WHY"], rows, right=[1])
    if found.findings:
        rows = [
            [kind.topic or "-", kind.kind.value, count(kind.number), moment(kind.since) or ""]
            for kind in found.findings
        ]
        yield ""
        yield from table(["TOPIC", "FINDING", "OPEN", "SINCE"], rows, right=[2])


def _table(topics: tuple[TopicFacts, ...], unknown: str) -> list[str]:
    """A row by topic, with a last one of their sums where there are several."""
    numbers = []
    for topic in topics:
        day, hour, whole = topic.windows["last_24_hours"], topic.windows["last_hour"], topic.total
        oddities = (whole.duplicates, whole.absent, whole.lost, whole.skipped)
        numbers.append([whole.messages, day.messages, hour.messages, *oddities, whole.size_bytes])
    lags = [topic.lag for topic in topics]
    rows = [
        [
            topic.topic,
            count(topic.lag, unknown),
            *map(count, counts),
            size(size_bytes),
            timestamp(topic.total.first_timestamp_ms) or "-",
            timestamp(topic.total.last_timestamp_ms) or "-",
            moment(topic.total.last_batch_at) or "-",
        ]
        for topic, (*counts, size_bytes) in zip(topics, numbers, strict=True)
    ]
    if len(topics) > 1:
        known = [lag for lag in lags if lag is not None]
        *counts, size_bytes = [sum(column) for column in zip(*numbers, strict=True)]
        lag = count(sum(known) if known else None, unknown)
        rows.append(["total", lag, *map(count, counts), size(size_bytes), "", "", ""])
    return table(_COLUMNS, rows, right=range(1, 10), optional=_OPTIONAL)
