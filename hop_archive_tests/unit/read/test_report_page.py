"""The report: its numbers are the archive's, and what came from outside cannot act in a browser."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from hop_archive.model.findings import Finding, Kind
from hop_archive.read.report import Report, TopicReport, gather, markdown, page
from hop_archive_tests.cli_helpers import M, invoke, mocks, place
from hop_archive_tests.damaging import ruin
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET

__all__ = ["place"]

THEN = datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC) + datetime.timedelta(days=1)


def test_its_numbers_are_those_of_the_archive() -> None:
    sound = ruin("segment")
    sound.world.catalog.note_findings([Finding(Kind.LOST, BUSY, "x")], THEN)
    found = gather(sound.world.catalog, THEN, 7)
    busy, quiet = found.topics
    assert (busy.topic, quiet.topic) == (BUSY, QUIET)
    assert sum(busy.messages.values()) == busy.total == len(sound.rows(BUSY))
    assert sum(busy.size_bytes.values()) == sum(row.size_bytes for row in sound.rows(BUSY))
    assert (busy.verified, busy.open_findings, quiet.open_findings) == (0.0, 1, 0)
    assert len(found.days) == 7
    assert sum(gather(sound.world.catalog, THEN, 7, [QUIET]).topics[0].messages.values()) == len(
        sound.rows(QUIET)
    )
    assert f"| `{BUSY}` | {len(sound.rows(BUSY))} |" in markdown(found)


def test_the_page_is_whole_and_loads_nothing() -> None:
    days = [datetime.date(2026, 11, day) for day in range(1, 4)]
    one = TopicReport("<script>alert(1)</script>", {days[0]: 5}, {days[0]: 9}, {days[1]: 3.5}, {days[2]: 2})
    text = page(Report(days, [one], THEN, "<db>"))
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>").replace('<meta charset="utf-8">', ""))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text
    assert '<td class="bad">2</td>' in text


def test_the_command_writes_it(place: Path) -> None:
    mocks(place)
    assert invoke("run", *M, "--until-caught-up", "-q").exit_code == 0
    ran = invoke("report", "out.html", "-D", "m")
    assert ran.exit_code == 0, ran.output
    assert "ztf.alerts" in (place / "out.html").read_text()
    assert invoke("report", "no/such/folder.html", "-D", "m").exit_code == 2


@pytest.mark.parametrize(
    "name",
    [
        "a|b",
        "a\\|b",
        "`<script>alert(1)</script>`",
        "![x](https://evil.example/x.png)",
        "[click](javascript:alert(1))",
        "line\n\n# break",
        "www.evil.example",
        "<img src=x onerror=alert(1)>",
        "\x1b[31mred",
        "",
    ],
)
def test_a_topics_name_does_nothing_in_the_markdown_report(name: str) -> None:
    sound = ruin("message")
    found = gather(sound.world.catalog, THEN, 7)
    named = replace(found, topics=(replace(found.topics[0], topic=name), *found.topics[1:]))
    rendered = MarkdownIt("commonmark").enable("table").render(markdown(named))
    shown = ElementTree.fromstring(rendered)
    assert {element.tag for element in shown.iter()} == {
        *("table", "thead", "tbody", "tr", "th", "td"),
        *({"code"} if name or len(found.topics) > 1 else ()),
    }
    assert [len(row) for row in shown.iter("tr")] == [9] * (1 + len(found.topics))
