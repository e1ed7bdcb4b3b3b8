"""The archive by topic and day: gathered from the catalog, and written as HTML that needs nothing else, or Markdown."""

from __future__ import annotations

import datetime
import html
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hop_archive.catalog.protocol import Catalog

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TopicReport:
    """One topic, in the days of the report.

    Attributes:
        topic: Kafka topic name.
        messages: By day of their timestamps.
        size_bytes: Likewise.
        lag_s: By day of commit, the longest time from a message to its commit.
        lost: Offsets by day of the record.
        duplicates: Likewise.
        verified: Which part of its archived offsets was read again and compared, of 1; None where none is archived.
        open_findings: What verification found and nobody has settled.
        total: Messages of all time.
    """

    topic: str
    messages: Mapping[datetime.date, int] = field(default_factory=Counter)
    size_bytes: Mapping[datetime.date, int] = field(default_factory=Counter)
    lag_s: Mapping[datetime.date, float] = field(default_factory=dict)
    lost: Mapping[datetime.date, int] = field(default_factory=Counter)
    duplicates: Mapping[datetime.date, int] = field(default_factory=Counter)
    verified: float | None = None
    open_findings: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What the catalog says of some days.

    Attributes:
        days: The days, the last one is that of the report.
        topics: By name.
        at: When it was asked (UTC).
        name: Of the database.
    """

    days: Sequence[datetime.date]
    topics: Sequence[TopicReport]
    at: datetime.datetime
    name: str


def gather(
    catalog: Catalog, now: datetime.datetime, days: int = 30, topics: Collection[str] | None = None
) -> Report:
    """Ask the catalog; costs as much as there is in the days. Changes nothing.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    until = now.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY
    since = until - days * _DAY
    messages = catalog.message_days(since, until, topics)
    ledger = catalog.ledger_days(since, topics)
    totals = {summary.topic: summary.messages for summary in catalog.summaries(topics)}
    verified = {
        share.topic: 1 - share.never / share.offsets
        for share in catalog.verified_shares(topics)
        if share.offsets
    }
    opened: Counter[str] = Counter()
    for count in catalog.open_findings(topics):
        opened[count.topic] += count.number
    reports = [
        TopicReport(
            name,
            {day.day: day.messages for day in messages if day.topic == name},
            {day.day: day.size_bytes for day in messages if day.topic == name},
            {day.day: day.lag_s for day in ledger if day.topic == name and day.lag_s is not None},
            {day.day: day.lost for day in ledger if day.topic == name},
            {day.day: day.duplicates for day in ledger if day.topic == name},
            verified.get(name),
            opened[name],
            totals.get(name, 0),
        )
        for name in sorted(totals.keys() | opened.keys() - {""})
    ]
    return Report([(since + n * _DAY).date() for n in range(days)], reports, now, catalog.name)


# --- Markdown

_COLUMNS = (
    "topic",
    "messages",
    "bytes",
    "most lag",
    "lost",
    "duplicates",
    "verified",
    "findings",
    "all time",
)


_NOT_IN_TOPIC_NAMES = re.compile(r"[^A-Za-z0-9._-]")
"""Rows of another archiver may carry any text as their topic."""


def markdown(report: Report) -> str:
    """The sums by topic, as a table. Names act in no way: each is code, and what Kafka allows in none is spelled out."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    for topic in report.topics:
        # As code, a name such as www.example.org is no link; and neither a bar nor a backtick can end cell or code.
        name = _NOT_IN_TOPIC_NAMES.sub(lambda found: f"\\u{ord(found[0]):04x}", topic.topic)
        lines.append(f"| {' | '.join([f'`{name}`', *_cells(topic)[1:]])} |")
    return "\n".join(lines)


def _cells(topic: TopicReport) -> list[str]:
    return [
        topic.topic,
        f"{sum(topic.messages.values()):,}",
        f"{sum(topic.size_bytes.values()):,}",
        f"{max(topic.lag_s.values()):,.1f}\N{NO-BREAK SPACE}s" if topic.lag_s else "-",
        f"{sum(topic.lost.values()):,}",
        f"{sum(topic.duplicates.values()):,}",
        "-" if topic.verified is None else f"{topic.verified:.1%}",
        f"{topic.open_findings:,}",
        f"{topic.total:,}",
    ]


# --- HTML

_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 72em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .2em .8em; text-align: right }
td:first-child, th:first-child { text-align: left } tr:nth-child(even) { background: #f4f4f7 }
svg { background: #fafafc } .bad { color: #b00020; font-weight: bold } figure { margin: 1em 0 }
"""
_WIDTH, _HEIGHT = 900, 140


def page(report: Report) -> str:
    """The report as HTML that loads nothing from anywhere; all that came from messages or topics is escaped."""
    days = report.days
    title = f"The archive {html.escape(report.name)}, {days[0]} to {days[-1]}"
    longest_lag = {
        day: max((topic.lag_s[day] for topic in report.topics if day in topic.lag_s), default=0.0)
        for day in days
    }
    figures = ""
    for name, values, color in (
        ("Messages a day", _summed(topic.messages for topic in report.topics), "#3a6ea5"),
        ("Bytes a day", _summed(topic.size_bytes for topic in report.topics), "#4d9078"),
        ("Duplicates a day", _summed(topic.duplicates for topic in report.topics), "#b8860b"),
        ("Lost offsets a day", _summed(topic.lost for topic in report.topics), "#b00020"),
        ("Longest lag a day, seconds", longest_lag, "#7a5195"),
    ):
        figures += (
            f"<figure><figcaption>{name} (most: {max(values.values(), default=0.0):,.0f})</figcaption>"
            f'<svg width="{_WIDTH}" height="{_HEIGHT + 18}" role="img" aria-label="{name}">'
            f"{_bars(days, values, color, _WIDTH, _HEIGHT)}"
            f'<text x="0" y="{_HEIGHT + 14}" font-size="11">{days[0]}</text>'
            f'<text x="{_WIDTH}" y="{_HEIGHT + 14}" font-size="11" text-anchor="end">{days[-1]}</text></svg></figure>'
        )
    rows = ""
    for topic in report.topics:
        bad = {4: sum(topic.lost.values()), 7: topic.open_findings}
        rows += "<tr>"
        for number, cell in enumerate(_cells(topic)):
            rows += '<td class="bad">' if bad.get(number) else "<td>"
            rows += f"{html.escape(cell)}</td>"
        spark = _bars(days, topic.messages, "#3a6ea5", 180, 24)
        rows += f'<td><svg width="180" height="24">{spark}</svg></td></tr>'
    header = "".join(f"<th>{name}</th>" for name in (*_COLUMNS, "messages by day"))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>As of {report.at:%Y-%m-%d %H:%M} UTC. Messages count for the day of their timestamp, the rest for that of "
        f"their record; verified is what was read again and compared.</p>{figures}"
        f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></body></html>\n"
    )


def _summed(by_topic: Iterable[Mapping[datetime.date, int]]) -> Counter[datetime.date]:
    values: Counter[datetime.date] = Counter()
    for by_day in by_topic:
        values.update(by_day)
    return values


def _bars(
    days: Sequence[datetime.date], values: Mapping[datetime.date, float], color: str, width: int, height: int
) -> str:
    most = max(values.values(), default=0)
    step = width / len(days)
    bars = ""
    for number, day in enumerate(days):
        value = values.get(day, 0)
        if most and value:
            tall = max(1.0, value / most * height)
            bars += (
                f'<rect x="{number * step:.1f}" y="{height - tall:.1f}" width="{max(1.0, step - 1):.1f}" '
                f'height="{tall:.1f}" fill="{color}"><title>{day}: {value:,.0f}</title></rect>'
            )
    return bars
