"""The archive by topic and day: gathered from the catalog, and written as HTML that needs nothing else, or Markdown."""

from __future__ import annotations

import datetime
import html
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    totals = {one.topic: one.messages for one in catalog.summaries(topics)}
    shares = {
        one.topic: 1 - one.never / one.offsets for one in catalog.verified_shares(topics) if one.offsets
    }
    opened: Counter[str] = Counter()
    for found in catalog.open_findings(topics):
        opened[found.topic] += found.number
    names = sorted(totals.keys() | opened.keys() - {""})
    reports = [
        TopicReport(
            name,
            {one.day: one.messages for one in messages if one.topic == name},
            {one.day: one.size_bytes for one in messages if one.topic == name},
            {one.day: one.lag_s for one in ledger if one.topic == name and one.lag_s is not None},
            {one.day: one.lost for one in ledger if one.topic == name},
            {one.day: one.duplicates for one in ledger if one.topic == name},
            shares.get(name),
            opened[name],
            totals.get(name, 0),
        )
        for name in names
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
    head = f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}"
    return "\n".join(
        [head, *(f"| {' | '.join([_as_code(one.topic), *_cells(one)[1:]])} |" for one in report.topics)]
    )


def _as_code(name: str) -> str:
    """As code, a name such as www.example.org is no link; and neither a bar nor a backtick can end cell or code."""
    spelled = _NOT_IN_TOPIC_NAMES.sub(lambda found: f"\\u{ord(found[0]):04x}", name)
    return f"`{spelled}`"


def _cells(one: TopicReport) -> list[str]:
    lag = f"{max(one.lag_s.values()):,.1f}\N{NO-BREAK SPACE}s" if one.lag_s else "-"
    verified = "-" if one.verified is None else f"{one.verified:.1%}"
    sums = [sum(one.messages.values()), sum(one.size_bytes.values())]
    after = [sum(one.lost.values()), sum(one.duplicates.values())]
    return [
        one.topic,
        *(f"{n:,}" for n in sums),
        lag,
        *(f"{n:,}" for n in after),
        verified,
        f"{one.open_findings:,}",
        f"{one.total:,}",
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
    last = report.days[-1]
    title = f"The archive {html.escape(report.name)}, {report.days[0]} to {last}"
    plots = [
        ("Messages a day", _summed(report, "messages"), "#3a6ea5"),
        ("Bytes a day", _summed(report, "size_bytes"), "#4d9078"),
        ("Duplicates a day", _summed(report, "duplicates"), "#b8860b"),
        ("Lost offsets a day", _summed(report, "lost"), "#b00020"),
        ("Longest lag a day, seconds", _longest_lag(report), "#7a5195"),
    ]
    figures = "".join(_figure(name, report.days, values, color) for name, values, color in plots)
    header = "".join(f"<th>{name}</th>" for name in (*_COLUMNS, "messages by day"))
    rows = "".join(_row(report, one) for one in report.topics)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>As of {report.at:%Y-%m-%d %H:%M} UTC. Messages count for the day of their timestamp, the rest for that of "
        f"their record; verified is what was read again and compared.</p>{figures}"
        f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></body></html>\n"
    )


def _summed(report: Report, name: str) -> dict[datetime.date, float]:
    values: Counter[datetime.date] = Counter()
    for one in report.topics:
        values.update(getattr(one, name))
    return {day: float(number) for day, number in values.items()}


def _longest_lag(report: Report) -> dict[datetime.date, float]:
    return {
        day: max((one.lag_s[day] for one in report.topics if day in one.lag_s), default=0.0)
        for day in report.days
    }


def _row(report: Report, one: TopicReport) -> str:
    cells = [html.escape(cell) for cell in _cells(one)]
    bad = {4: sum(one.lost.values()), 7: one.open_findings}
    told = [
        f'<td class="bad">{cell}</td>' if bad.get(number) else f"<td>{cell}</td>"
        for number, cell in enumerate(cells)
    ]
    values = {day: float(count) for day, count in one.messages.items()}
    spark = _bars(report.days, values, "#3a6ea5", 180, 24)
    return f'<tr>{"".join(told)}<td><svg width="180" height="24">{spark}</svg></td></tr>'


def _figure(
    name: str, days: Sequence[datetime.date], values: Mapping[datetime.date, float], color: str
) -> str:
    most = max(values.values(), default=0.0)
    bars = _bars(days, values, color, _WIDTH, _HEIGHT)
    return (
        f"<figure><figcaption>{name} (most: {most:,.0f})</figcaption>"
        f'<svg width="{_WIDTH}" height="{_HEIGHT + 18}" role="img" aria-label="{name}">{bars}'
        f'<text x="0" y="{_HEIGHT + 14}" font-size="11">{days[0]}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 14}" font-size="11" text-anchor="end">{days[-1]}</text></svg></figure>'
    )


def _bars(
    days: Sequence[datetime.date], values: Mapping[datetime.date, float], color: str, width: int, height: int
) -> str:
    return "".join(_bar(days, values, color, width, height))


def _bar(
    days: Sequence[datetime.date], values: Mapping[datetime.date, float], color: str, width: int, height: int
) -> Iterator[str]:
    most = max(values.values(), default=0.0)
    step = width / len(days)
    for number, day in enumerate(days):
        value = values.get(day, 0.0)
        if most and value:
            tall = max(1.0, value / most * height)
            yield (
                f'<rect x="{number * step:.1f}" y="{height - tall:.1f}" width="{max(1.0, step - 1):.1f}" '
                f'height="{tall:.1f}" fill="{color}"><title>{day}: {value:,.0f}</title></rect>'
            )
