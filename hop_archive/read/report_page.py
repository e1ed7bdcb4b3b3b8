"""The report as one page of HTML, which loads nothing from anywhere and runs nothing: for browsers wide and narrow, light and dark."""

from __future__ import annotations

import datetime
import html
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from hop_archive.errors import ConfigurationError
from hop_archive.model.keys import report_key
from hop_archive.model.wording import counted, duration, size
from hop_archive.read.report import COLUMNS, Report, TopicReport, cells
from hop_archive.store.free_keys import create_free
from hop_archive.store.protocol import NewObject, Store

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #5d6778; --page: #fff; --panel: #f3f5f9; --line: #d5dae3;
  --bad: #b3152c; --good: #1d7a46; --blue: #3a6ea5; --green: #3f8a6d; --gold: #a97c0a; --red: #c03048; --violet: #7a5195 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ef; --dim: #9aa5b5; --page: #14181f; --panel: #1e242e;
  --line: #333c4a; --bad: #ff7a88; --good: #6fd39b; --blue: #6fa8dc; --green: #6fc3a2; --gold: #e0b34a; --red: #f0707f;
  --violet: #b794d4 } }
* { box-sizing: border-box }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1.2rem; max-width: 74rem; color: var(--ink);
  background: var(--page) }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem }
p { margin: .3rem 0 } .dim, figcaption { color: var(--dim) }
.head { border-left: .35rem solid var(--good); background: var(--panel); padding: .6rem .9rem; margin: .9rem 0; font-size: 1.05rem }
.head.red { border-color: var(--bad) } .bad { color: var(--bad); font-weight: 600 }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)); gap: .5rem; margin: 0 }
dl div { background: var(--panel); padding: .5rem .7rem } dt { color: var(--dim); font-size: .85rem } dd { margin: 0;
  font-size: 1.15rem; font-variant-numeric: tabular-nums }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 1rem }
figure { margin: 0 } figcaption b { color: var(--ink) }
.plot { display: grid; grid-template-columns: auto 1fr; gap: .1rem .4rem; font-size: .78rem; color: var(--dim) }
.y { display: flex; flex-direction: column; justify-content: space-between; text-align: right;
  font-variant-numeric: tabular-nums } .x { grid-column: 2; display: flex; justify-content: space-between }
.plot svg { width: 100%; height: 8.5rem; background: var(--panel); display: block }
.grid { stroke: var(--line); vector-effect: non-scaling-stroke }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th.text { text-align: left } td, th { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th { font-weight: 600 } td:first-child, th:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere;
  min-width: 9rem; position: sticky; left: 0; background: var(--page) }
td.text { text-align: left; white-space: normal } tfoot td { font-weight: 600; border-bottom: 0 }
@media print { body { max-width: none } }
"""

_BAD = ' class="bad"'
_ENDING = ".html"
_PLOT_HEIGHT = 100
_SPARK_WIDTH, _SPARK_HEIGHT = 140, 22


def keep_in_store(report: Report, store: Store) -> str:
    """Put the page into the store, under the day that it is of; the key. Again on that day: under a name beside it.

    Raises:
        UnavailableError: The store does not answer.
        ForbiddenError: It takes no such object from these credentials.
    """
    new = NewObject(report_key(report.facts.at.date()), page(report).encode())
    (key,) = create_free(store, [new], _ENDING)
    return key


def keep_in_folder(report: Report, folder: Path) -> Path:
    """Put the page into a folder as ``archive.html``, whole, in the place of the one before; where it stands.

    Raises:
        ConfigurationError: The folder cannot be written.
    """
    path = folder / f"archive{_ENDING}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".new")
        aside.write_text(page(report), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"The report cannot be written to {path}: {error.strerror or error}.",
            remedy="Name a folder that may be written, or none: then it goes to the store.",
        ) from error
    return path


def page(report: Report) -> str:
    """Write the report. All that came from messages, topics or servers is escaped."""
    days = report.days
    title = f"The archive {html.escape(report.name)}"
    span = f"{days[0]} to {days[-1]}" if len(days) > 1 else f"{days[0]}"
    longest_lag = {
        day: max((topic.lag_s[day] for topic in report.topics if day in topic.lag_s), default=0.0)
        for day in days
    }
    plots = (
        ("Messages a day", _summed(topic.messages for topic in report.topics), "blue", _number),
        (
            "Bytes a day",
            _summed(topic.size_bytes for topic in report.topics),
            "green",
            lambda value: size(round(value)),
        ),
        ("Longest lag a day", longest_lag, "violet", duration),
        ("Lost offsets a day", _summed(topic.lost for topic in report.topics), "red", _number),
        ("Duplicates a day", _summed(topic.duplicates for topic in report.topics), "gold", _number),
    )
    none = [name.removesuffix(" a day").lower() for name, values, _, _ in plots if not any(values.values())]
    figures = "".join(
        _figure(name, days, values, f"var(--{color})", told) for name, values, color, told in plots
    )
    error = report.facts.source_error
    unknown = f"<p>The lag is not known: {html.escape(error)}</p>" if error else ""
    nothing = f'<p class="dim">In these days none: {", ".join(none)}.</p>' if none else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}, {span}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f'<p class="dim">{span}, as of {report.facts.at:%Y-%m-%d %H:%M} UTC</p>'
        f'<p class="head{" red" if report.is_red else ""}">{html.escape(report.headline)}</p>'
        f"{unknown}{_totals(report)}{_wrong(report)}"
        f'<h2>By day</h2><div class="plots">{figures}</div>'
        f"{nothing}"
        f"<h2>By topic</h2>{_table(report)}"
        '<p class="dim">Messages and bytes count for the day (UTC) of the message’s timestamp, the rest for that of its '
        "record; lag is from a message’s timestamp to its commit; verified is what was read again and compared "
        "(hop-archive scrub).</p></body></html>\n"
    )


def _totals(report: Report) -> str:
    """What there is since the archive's start, and how it stands."""
    facts, topics = report.facts, report.facts.topics
    lags = [topic.lag for topic in topics if topic.lag is not None]
    offsets = sum(share.offsets for share in facts.shares)
    last = max((at for topic in topics if (at := topic.total.last_batch_at)), default=None)
    lost = sum(topic.total.lost for topic in topics)
    findings = sum(kind.number for kind in facts.findings)
    told = (
        ("messages", f"{sum(topic.total.messages for topic in topics):,}", False),
        ("bytes", size(sum(topic.total.size_bytes for topic in topics)), False),
        ("topics", f"{len(topics):,}", False),
        ("behind", f"{sum(lags):,}" if lags else "not known", False),
        (
            "last batch",
            f"{duration(max(0.0, (facts.at - last).total_seconds()))} ago" if last else "none",
            False,
        ),
        ("lost", f"{lost:,}", bool(lost)),
        ("duplicates", f"{sum(topic.total.duplicates for topic in topics):,}", False),
        (
            "verified",
            f"{1 - sum(share.never for share in facts.shares) / offsets:.1%}" if offsets else "-",
            False,
        ),
        ("open findings", f"{findings:,}", bool(findings)),
    )
    entries = "".join(
        f"<div><dt>{name}</dt>{_element('dd', value, is_bad=is_bad)}</div>" for name, value, is_bad in told
    )
    return f"<dl>{entries}</dl>"


def _element(name: str, text: str, *, is_bad: bool) -> str:
    return f"<{name}{_BAD if is_bad else ''}>{html.escape(text)}</{name}>"


def _name(topic: str) -> str:
    """A topic's name, which may be broken after a dot and the like."""
    return re.sub(r"(?<=[._-])", "<wbr/>", html.escape(topic))


def _wrong(report: Report) -> str:
    """What is in the way and what was found, and what to do; '' where nothing is."""
    facts = report.facts
    rows = "".join(
        f"<tr><td>{_name(finding.topic)}</td><td class='text'>{finding.kind.value}</td><td class='text'></td>"
        f"<td class='text'>{html.escape(finding.detail)}</td></tr>"
        for finding in facts.obstacles
    )
    rows += "".join(
        f"<tr><td>{_name(kind.topic or 'all')}</td><td class='text'>{kind.kind.value}</td>"
        f"<td class='text'>{kind.since:%Y-%m-%d %H:%M}</td><td class='text'>{counted(kind.number, 'open finding')}</td></tr>"
        for kind in facts.findings
    )
    if not rows:
        return ""
    return (
        '<h2 class="bad">In the way, or found and not settled</h2><div class="scroll"><table><thead><tr><th>topic</th>'
        '<th class="text">what</th><th class="text">since</th><th class="text">which</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div><p>hop-archive findings lists each; hop-archive repair shows what it would mend, "
        "and mends it with --yes.</p>"
    )


def _figure(
    name: str,
    days: Sequence[datetime.date],
    values: Mapping[datetime.date, float],
    color: str,
    told: Callable[[float], str],
) -> str:
    """A plot with its axes; '' where there is nothing to see."""
    most, total = max(values.values(), default=0), sum(values.values())
    if not most:
        return ""
    # The end of the axis: 1, 2, 4, 5 or 10 times a power of ten, so that its half is told in few digits, too.
    power = 10.0 ** math.floor(math.log10(most))
    top = next(factor * power for factor in (1, 2, 4, 5, 10) if factor * power >= most)
    places = sorted({0, (len(days) - 1) // 2, len(days) - 1})
    # A single day stands in the middle.
    centred = ' style="justify-content: center"' if len(places) == 1 else ""
    marks = "".join(f"<span>{days[place]:%b %-d}</span>" for place in places)
    lines = "".join(
        f'<line class="grid" x1="0" x2="{len(days)}" y1="{y}" y2="{y}"/>' for y in (0, _PLOT_HEIGHT // 2)
    )
    sums = "" if told is duration else f", {told(total)} in all"
    return (
        f"<figure><figcaption><b>{name}</b>: {told(most)} at most{sums}</figcaption>"
        f'<div class="plot"><div class="y"><span>{told(top)}</span><span>{told(top / 2)}</span><span>0</span></div>'
        f'<svg viewBox="0 0 {len(days)} {_PLOT_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{name}">'
        f'{lines}{_bars(days, values, top, color, told)}</svg><div class="x"{centred}>{marks}</div></div></figure>'
    )


def _bars(
    days: Sequence[datetime.date],
    values: Mapping[datetime.date, float],
    top: float,
    color: str,
    told: Callable[[float], str],
) -> str:
    bars = ""
    for number, day in enumerate(days):
        if value := values.get(day, 0):
            tall = max(1.0, value / top * _PLOT_HEIGHT)
            bars += (
                f'<rect x="{number + 0.1:.1f}" y="{_PLOT_HEIGHT - tall:.1f}" width="0.8" height="{tall:.1f}" '
                f'fill="{color}"><title>{day}: {told(value)}</title></rect>'
            )
    return bars


def _table(report: Report) -> str:
    header = "".join(f"<th>{name}</th>" for name in (*COLUMNS, "messages by day"))
    rows = ""
    for topic in report.topics:
        bad = {5: sum(topic.lost.values()), 8: topic.open_findings}
        name, *figures = cells(topic)
        row = "".join(
            _element("td", cell, is_bad=bool(bad.get(number))) for number, cell in enumerate(figures, start=1)
        )
        rows += f"<tr><td>{_name(name)}</td>{row}<td>{_spark(report.days, topic)}</td></tr>"
    foot = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(_total(report)))
    foot = f"<tfoot><tr>{foot}<td></td></tr></tfoot>" if len(report.topics) > 1 else ""
    table = f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody>{foot}</table>"
    return f'<div class="scroll">{table}</div>'


def _total(report: Report) -> TopicReport:
    """All topics together."""
    topics = report.topics
    lags = [topic.behind for topic in topics if topic.behind is not None]
    offsets = sum(share.offsets for share in report.facts.shares)
    lag_s: dict[datetime.date, float] = {}
    for topic in topics:
        for day, longest_s in topic.lag_s.items():
            lag_s[day] = max(longest_s, lag_s.get(day, 0.0))
    return TopicReport(
        "total",
        _summed(topic.messages for topic in topics),
        _summed(topic.size_bytes for topic in topics),
        lag_s,
        _summed(topic.lost for topic in topics),
        _summed(topic.duplicates for topic in topics),
        sum(lags) if lags else None,
        1 - sum(share.never for share in report.facts.shares) / offsets if offsets else None,
        sum(topic.open_findings for topic in topics),
        sum(topic.total for topic in topics),
        sum(topic.total_bytes for topic in topics),
    )


def _spark(days: Sequence[datetime.date], topic: TopicReport) -> str:
    """A topic's days as one small shape: with an element a day, 1,000 topics would be megabytes."""
    most = max(topic.messages.values(), default=0)
    if not most:
        return ""
    step = _SPARK_WIDTH / len(days)
    shape = ""
    for number, day in enumerate(days):
        if value := topic.messages.get(day, 0):
            tall = max(1.0, value / most * _SPARK_HEIGHT)
            shape += f"M{number * step:.1f} {_SPARK_HEIGHT}v{-tall:.1f}h{max(1.0, step - 1):.1f}v{tall:.1f}z"
    return (
        f'<svg width="{_SPARK_WIDTH}" height="{_SPARK_HEIGHT}"><path fill="var(--blue)" d="{shape}"/></svg>'
    )


def _summed(by_topic: Iterable[Mapping[datetime.date, int]]) -> Counter[datetime.date]:
    values: Counter[datetime.date] = Counter()
    for by_day in by_topic:
        values.update(by_day)
    return values


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
