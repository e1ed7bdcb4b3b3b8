"""The page of a bench: what was measured beside what was to be reached, with bars. One HTML file with nothing to load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from hop_archive_tests.bench.report import (
    BASE,
    COMPARED,
    CONSUME,
    COPY,
    DEEP,
    LISTED,
    LISTING,
    MESSAGE,
    PRODUCE,
    PUT,
    READ,
    RESTORE,
    SEGMENT,
    SHALLOW,
    WHAT,
    ZSTD,
    Result,
    number,
    wanted,
)  # fmt: skip

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733 }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #dde3ea; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.reached { color: #17703a } .missed { color: #b3261e; font-weight: 600 }
svg text { font: 13px system-ui, sans-serif; fill: #1c2733 }
.wide { overflow-x: auto }
@media (prefers-color-scheme: dark) {
  body { background: #14191f; color: #dbe2ea } th, td { border-color: #2c3640 } svg text { fill: #dbe2ea }
  .reached { color: #6fd08c } .missed { color: #ff8a80 }
}
"""
_PLOTS: Mapping[str, tuple[str, Sequence[str]]] = {
    "Messages a second: small ones, many together": (
        "per_second",
        (CONSUME, COPY, SEGMENT, ZSTD, PRODUCE, RESTORE, COMPARED, DEEP, READ),
    ),
    "Objects a second": ("per_second", (PUT, MESSAGE, LISTED, SHALLOW, LISTING)),
    "Own CPU a message, µs": (
        "cpu_us",
        (CONSUME, COPY, SEGMENT, ZSTD, PRODUCE, RESTORE, COMPARED, DEEP, READ),
    ),
    "Servers' CPU a message, µs": ("servers_us", (CONSUME, COPY, SEGMENT, ZSTD, PRODUCE, RESTORE, COMPARED)),
    "Bytes stored a message of 1 KB": ("stored_bytes", (MESSAGE, SEGMENT, ZSTD)),
}


def html(found: Sequence[Result], circumstances: Mapping[str, Any]) -> str:
    """The page."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>hop_archive: bench</title>",
        "<meta name='viewport' content='width=device-width'>",
        f"<style>{_STYLE}</style><h1>What was measured, and what is to be reached</h1>",
        f"<p>{escape(', '.join(f'{name} {value}' for name, value in circumstances.items()))}. Everything ran on this machine: ",
        "servers, clients and what measures. Rates differ from machine to machine; what is compared took turns.</p>",
        *_goals(found),
        *(_plot(title, figure, names, found) for title, (figure, names) in _PLOTS.items()),
        *_figures(found),
    ]
    return "".join(parts)


def _goals(found: Sequence[Result]) -> Iterator[str]:
    judged = [(one, *each) for one in found for each in one.judged()]
    reached = sum(is_met for *_, is_met in judged)
    yield f"<h2>Goals: {reached} of {len(judged)} reached</h2><div class='wide'><table>"
    yield "<tr><th>what<th>goal<th class=n>measured<th></tr>"
    for one, goal, value, is_met in judged:
        measured = "nothing" if value is None else number(value)
        kind = "reached" if is_met else "missed"
        why = f"<br>{escape(one.failed)}" if one.failed else ""
        yield (
            f"<tr><td>{escape(one.name)}<td>{escape(wanted(goal))}<td class=n>{measured}"
            f"<td class={kind}>{kind}{why}</tr>"
        )
    yield "</table></div>"


def _plot(title: str, figure: str, names: Sequence[str], found: Sequence[Result]) -> str:
    """Bars to one scale, each with the number at its end, and a mark where a goal is."""
    shown = [
        (one, one.figures[figure])
        for name in names
        for one in found
        if one.name == name and figure in one.figures
    ]
    if not shown:
        return ""
    goals = {one.name: goal.bound for one, _ in shown for goal, _, _ in one.judged() if goal.figure == figure}
    most = max([value for _, value in shown] + [*goals.values()])
    row, left, wide = 24, 170, 560
    height = row * len(shown) + 6
    parts = [
        f"<h2>{escape(title)}</h2><div class='wide'><svg role='img' aria-label='{escape(title)}' width='860' height='{height}'>"
    ]
    for place, (one, value) in enumerate(shown):
        y, length = place * row + 4, value / most * wide
        color = "#8fa3b8" if one.name.startswith("raw") else "#2f6fb0"
        parts.append(
            f"<text x='{left - 8}' y='{y + 13}' text-anchor='end'>{escape(one.name)}</text>"
            f"<rect x='{left}' y='{y}' width='{length:.1f}' height='16' fill='{color}'/>"
            f"<text x='{left + length + 6:.1f}' y='{y + 13}'>{number(value)}</text>"
        )
        if one.name in goals:
            x = left + goals[one.name] / most * wide
            parts.append(
                f"<path d='M{x:.1f} {y - 3}v22' stroke='#d0671b' stroke-width='3'><title>goal</title></path>"
            )
    mark = "<p>The orange mark is the goal.</p>" if goals else ""
    return "".join((*parts, "</svg></div>", mark))


def _figures(found: Sequence[Result]) -> Iterator[str]:
    yield "<h2>All figures</h2><div class='wide'><table><tr><th>what<th>figures</tr>"
    for one in found:
        told = ", ".join(f"{escape(name)} {number(value)}" for name, value in one.figures.items())
        rounds = f"<br>a second, round by round: {', '.join(map(number, one.rounds))}" if one.rounds else ""
        base = f"<br>ratio to {escape(BASE[one.name])}" if one.ratios else ""
        failed = f"<br><span class=missed>failed: {escape(one.failed)}</span>" if one.failed else ""
        yield f"<tr><td>{escape(one.name)}<br><small>{escape(WHAT[one.name])}</small><td>{told}{rounds}{base}{failed}</tr>"
    yield "</table></div></html>"
