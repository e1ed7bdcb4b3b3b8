"""The report: its numbers are the archive's, its days those of its data, and what came from outside cannot act in a browser."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from hop_archive.archive import Archive
from hop_archive.catalog.records import TopicSummary
from hop_archive.errors import ConfigurationError
from hop_archive.model.findings import Finding, Kind, OpenCount
from hop_archive.model.keys import is_own
from hop_archive.read.report import Report, TopicReport, gather, markdown
from hop_archive.read.report_page import keep_in_folder, keep_in_store, page
from hop_archive.read.topic_facts import WINDOWS, Facts, TopicFacts
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent
from hop_archive_tests.cli_helpers import invoke, mocks, place
from hop_archive_tests.damaging import Ruin, ruin
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET

__all__ = ["place"]

NOW = datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC)
THEN = NOW + datetime.timedelta(days=1)
DAY_MS = 86_400_000


def at(sound: Ruin, then: datetime.datetime = THEN) -> Archive:
    """The archive, looked at then."""
    return replace(sound.world.archive(), now=lambda: then)


def report_of(
    topics: Sequence[TopicReport], *, then: datetime.datetime = THEN, findings: Sequence[OpenCount] = ()
) -> Report:
    """A report of three days."""
    days = [datetime.date(2026, 11, day) for day in range(1, 4)]
    facts = [
        TopicFacts(
            topic.topic,
            TopicSummary(topic.topic, topic.total),
            {window: TopicSummary(topic.topic) for window in WINDOWS},
            lag=topic.behind,
        )
        for topic in topics
    ]
    return Report(days, topics, Facts(tuple(facts), then, findings=tuple(findings)), "<db>")


def tree(text: str) -> ElementTree.Element:
    """The page as a tree: it is well-formed."""
    for void in (
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
    ):
        assert void in text
        text = text.replace(void, "")
    return ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))


def test_its_numbers_are_those_of_the_archive() -> None:
    sound = ruin("segment")
    sound.world.catalog.note_findings([Finding(Kind.LOST, BUSY, "x")], THEN)
    found = gather(at(sound), 7)
    busy, quiet = found.topics
    assert (busy.topic, quiet.topic) == (BUSY, QUIET)
    assert sum(busy.messages.values()) == busy.total == len(sound.rows(BUSY))
    assert (
        sum(busy.size_bytes.values()) == sum(row.size_bytes for row in sound.rows(BUSY)) == busy.total_bytes
    )
    assert (busy.verified, busy.open_findings, quiet.open_findings) == (0.0, 1, 0)
    assert (busy.behind, quiet.behind) == (0, 0)
    assert sum(gather(at(sound), 7, [QUIET]).topics[0].messages.values()) == len(sound.rows(QUIET))
    assert f"| `{BUSY}` | {len(sound.rows(BUSY))} |" in markdown(found)


def test_how_far_it_is_behind_stands_at_its_head_and_by_topic() -> None:
    sound = ruin("segment")
    sound.world.cluster.append(BUSY, b"one more")
    text = page(gather(at(sound)))
    assert "1 offset behind, in 1 topic" in text
    told = gather(at(sound), unasked="no source is named.")
    assert told.topics[0].behind is None
    assert "How far behind the archive is, is not known" in page(told)
    assert "The lag is not known: no source is named." in page(told)


def test_what_is_red_stands_at_its_head_and_what_to_do_below() -> None:
    one = TopicReport("a", {}, {}, total=3)
    assert 'class="head red"' not in page(report_of([one]))
    text = page(report_of([one], findings=[OpenCount("a", Kind.LOST, 2, THEN)]))
    assert 'class="head red"' in text
    assert "2 findings open" in text
    assert "hop-archive repair" in text


def test_its_days_begin_with_the_data_and_end_today() -> None:
    sound = ruin("segment")
    stamps = [row.timestamp_ms for topic in (BUSY, QUIET) for row in sound.rows(topic)]
    first = datetime.datetime.fromtimestamp(min(stamps) / 1000, datetime.UTC).date()
    found = gather(at(sound), 3000)
    assert (found.days[0], found.days[-1]) == (first, THEN.date())
    assert [*gather(at(sound), 2).days][-1] == THEN.date()


def test_of_an_old_archive_its_last_days_are_shown_and_not_empty_ones() -> None:
    sound = ruin("segment")
    newest = max(row.timestamp_ms for topic in (BUSY, QUIET) for row in sound.rows(topic))
    last = datetime.datetime.fromtimestamp(newest / 1000, datetime.UTC).date()
    found = gather(at(sound, NOW + datetime.timedelta(days=900)), 30)
    assert found.days[-1] == last
    assert sum(sum(topic.messages.values()) for topic in found.topics) > 0


def test_days_are_gone_through_once_however_many_topics_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = ruin("segment")
    found = gather(at(sound), 7)
    for name in ("message_days", "ledger_days"):
        asked = getattr(sound.world.catalog, name)
        monkeypatch.setattr(sound.world.catalog, name, lambda *args, asked=asked: iter(asked(*args)))
    assert gather(at(sound), 7).topics == found.topics


def test_the_page_is_whole_and_loads_nothing() -> None:
    days = [datetime.date(2026, 11, day) for day in range(1, 4)]
    one = TopicReport("<script>alert(1)</script>", {days[0]: 5}, {days[0]: 9}, {days[1]: 3.5}, {days[2]: 2})
    text = page(report_of([one], findings=[OpenCount("<b>", Kind.LOST, 1, THEN)]))
    shown = tree(text)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text
    assert '<td class="bad">2</td>' in text
    assert {element.tag for element in shown.iter()} >= {"figure", "svg", "rect", "table"}


def test_each_plot_has_its_axes_and_what_is_nothing_but_zeros_has_none() -> None:
    days = [datetime.date(2026, 11, day) for day in range(1, 4)]
    one = TopicReport("a", {days[0]: 1_234, days[2]: 7}, {days[0]: 5_300_000}, {days[1]: 90.0})
    text = page(report_of([one]))
    plots = {}
    for figure in tree(text).iter("figure"):
        (caption,) = figure.iter("figcaption")
        plots["".join(caption.itertext())] = ["".join(span.itertext()) for span in figure.iter("span")]
    assert plots == {
        "Messages a day: 1,234 at most, 1,241 in all": ["2,000", "1,000", "0", "Nov 1", "Nov 2", "Nov 3"],
        "Bytes a day: 5.3 MB at most, 5.3 MB in all": ["10.0 MB", "5.0 MB", "0", "Nov 1", "Nov 2", "Nov 3"],
        "Longest lag a day: 1 min 30 s at most": ["1 min 40 s", "50.0 s", "0", "Nov 1", "Nov 2", "Nov 3"],
    }
    assert "In these days none: lost offsets, duplicates." in text


def test_a_page_of_a_thousand_topics_stays_small() -> None:
    days = [datetime.date(2026, 11, day) for day in range(1, 4)]
    many = [
        TopicReport(f"topic.{n:04}", dict.fromkeys(days, n + 1), dict.fromkeys(days, n)) for n in range(1000)
    ]
    assert len(page(report_of(many))) < 600_000


def test_it_is_for_dark_windows_and_narrow_ones_too() -> None:
    text = page(report_of([TopicReport("a")]))
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_the_command_writes_it(place: Path) -> None:
    mocks(place, archived=True)
    ran = invoke("report", "out.html", "-D", "m", "-H", "m")
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.splitlines()[-1] == "All is archived."
    text = (place / "out.html").read_text()
    assert "ztf.alerts" in text.replace("<wbr/>", "")
    assert "All is archived." in text
    assert "is not known" in invoke("report", "out.html", "-D", "m").stdout
    assert invoke("report", "no/such/folder.html", "-D", "m").exit_code == 2


def test_in_the_store_a_page_stands_under_its_day_and_the_next_one_beside_it() -> None:
    store = MockStore()
    then = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.UTC)
    first = keep_in_store(report_of([TopicReport("a")], then=then), store)
    second = keep_in_store(report_of([TopicReport("b")], then=then), store)
    assert (first, second) == ("hop_archive/reports/2026-11-29.html", "hop_archive/reports/2026-11-29.1.html")
    assert is_own(first), "verification takes it for no orphan"
    (body,) = store.fetch([Extent(second)])
    assert bytes(body).startswith(b"<!DOCTYPE html>")


def test_in_a_folder_the_last_page_stands_whole(tmp_path: Path) -> None:
    keep_in_folder(report_of([TopicReport("before")]), tmp_path / "new")
    path = keep_in_folder(report_of([TopicReport("after")]), tmp_path / "new")
    assert [entry.name for entry in path.parent.iterdir()] == ["archive.html"]
    assert "after" in path.read_text()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be written to"):
        keep_in_folder(report_of([]), tmp_path / "file" / "below")


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
    found = gather(at(sound), 7)
    named = replace(found, topics=(replace(found.topics[0], topic=name), *found.topics[1:]))
    rendered = MarkdownIt("commonmark").enable("table").render(markdown(named))
    shown = ElementTree.fromstring(rendered)
    assert {element.tag for element in shown.iter()} == {
        *("table", "thead", "tbody", "tr", "th", "td"),
        *({"code"} if name or len(found.topics) > 1 else ()),
    }
    assert [len(row) for row in shown.iter("tr")] == [10] * (1 + len(found.topics))
