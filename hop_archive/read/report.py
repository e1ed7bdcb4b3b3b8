"""The archive by topic and day: gathered from the catalog and, where it answers, the source; and written as Markdown."""

from __future__ import annotations

import datetime
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from hop_archive.archive import Archive
from hop_archive.catalog.records import LedgerDay, MessageDay
from hop_archive.model.wording import duration, size
from hop_archive.read.headline import headline
from hop_archive.read.topic_facts import Facts, TopicFacts, status

DAYS = 30
"""So many days at most, unless told."""

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TopicReport:
    """One topic, in the days of the report.

    Attributes:
        messages: By day of their timestamps.
        size_bytes: Likewise.
        lag_s: By day of commit, the longest time from a message to its commit.
        lost: Offsets by day of the record.
        duplicates: Likewise.
        behind: Offsets that Kafka holds and that are not dealt with; None where that is not known.
        verified: Which part of its archived offsets was read again and compared, of 1; None where none is archived.
        open_findings: What was found and nobody has settled.
        total: Messages of all time.
        total_bytes: Bytes of all time.
    """

    topic: str
    messages: Mapping[datetime.date, int] = field(default_factory=Counter)
    size_bytes: Mapping[datetime.date, int] = field(default_factory=Counter)
    lag_s: Mapping[datetime.date, float] = field(default_factory=dict)
    lost: Mapping[datetime.date, int] = field(default_factory=Counter)
    duplicates: Mapping[datetime.date, int] = field(default_factory=Counter)
    behind: int | None = None
    verified: float | None = None
    open_findings: int = 0
    total: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What the archive says of some days.

    Attributes:
        days: The days, one after another.
        facts: How it stands now.
        name: Of the catalog.
    """

    days: Sequence[datetime.date]
    topics: Sequence[TopicReport]
    facts: Facts
    name: str

    @property
    def headline(self) -> str:
        """What matters most, in one line."""
        return headline(self.facts)

    @property
    def is_red(self) -> bool:
        """Whether something is lost lately, in the way, or found and not settled."""
        lost = any(topic.windows["last_24_hours"].lost or topic.unrecorded for topic in self.facts.topics)
        return bool(lost or self.facts.obstacles or self.facts.findings)


def gather(
    archive: Archive, days: int = DAYS, topics: Collection[str] | None = None, *, unasked: str = ""
) -> Report:
    """Ask the catalog, and the source where it answers; costs as much as there is in the days. Changes nothing.

    The days end today, or, where the newest message is older than ``days``, with the day of that. They begin with the first
    message, and are ``days`` at most.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    catalog, facts = archive.catalog, status(archive, topics, unasked=unasked)
    shown = _days(facts.topics, facts.at, days)
    since = datetime.datetime.combine(shown[0], datetime.time(), datetime.UTC)
    until = datetime.datetime.combine(shown[-1], datetime.time(), datetime.UTC) + _DAY
    messages: defaultdict[str, list[MessageDay]] = defaultdict(list)
    for day in catalog.message_days(since, until, topics):
        messages[day.topic].append(day)
    ledger: defaultdict[str, list[LedgerDay]] = defaultdict(list)
    for dealt in catalog.ledger_days(since, topics):
        if dealt.day <= shown[-1]:
            ledger[dealt.topic].append(dealt)
    verified = {share.topic: 1 - share.never / share.offsets for share in facts.shares if share.offsets}
    opened: Counter[str] = Counter()
    for count in facts.findings:
        opened[count.topic] += count.number
    by_name = {topic.topic: topic for topic in facts.topics}
    reports = []
    for name in sorted(by_name.keys() | opened.keys() - {""}):
        known = by_name.get(name)
        reports.append(
            TopicReport(
                name,
                {day.day: day.messages for day in messages[name]},
                {day.day: day.size_bytes for day in messages[name]},
                {day.day: day.lag_s for day in ledger[name] if day.lag_s is not None},
                {day.day: day.lost for day in ledger[name]},
                {day.day: day.duplicates for day in ledger[name]},
                known.lag if known else None,
                verified.get(name),
                opened[name],
                known.total.messages if known else 0,
                known.total.size_bytes if known else 0,
            )
        )
    return Report(shown, reports, facts, catalog.name)


def _days(topics: Sequence[TopicFacts], at: datetime.datetime, most: int) -> list[datetime.date]:
    """The days to show. Timestamps are what producers say: those of the future, or before 1970, move nothing."""
    today = at.date()
    stamps = [(topic.total.first_timestamp_ms, topic.total.last_timestamp_ms) for topic in topics]
    now_ms = int(at.timestamp() * 1000)
    newest = max((min(last, now_ms) for _, last in stamps if last is not None and last > 0), default=now_ms)
    last = datetime.datetime.fromtimestamp(newest / 1000, datetime.UTC).date()
    if today - last < most * _DAY:
        last = today
    oldest = min((first for first, _ in stamps if first is not None), default=now_ms)
    first = last - (most - 1) * _DAY
    if oldest > 0:
        first = max(first, min(last, datetime.datetime.fromtimestamp(oldest / 1000, datetime.UTC).date()))
    return [first + n * _DAY for n in range((last - first).days + 1)]


# --- Markdown

COLUMNS = (
    "topic",
    "messages",
    "bytes",
    "most lag",
    "behind",
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
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for topic in report.topics:
        # As code, a name such as www.example.org is no link; and neither a bar nor a backtick can end cell or code.
        name = _NOT_IN_TOPIC_NAMES.sub(lambda found: f"\\u{ord(found[0]):04x}", topic.topic)
        lines.append(f"| {' | '.join([f'`{name}`', *cells(topic)[1:]])} |")
    return "\n".join(lines)


def cells(topic: TopicReport) -> list[str]:
    """What a table says of a topic, in the order of `COLUMNS`."""
    return [
        topic.topic,
        f"{sum(topic.messages.values()):,}",
        _unbroken(size(sum(topic.size_bytes.values()))),
        _unbroken(duration(max(topic.lag_s.values()))) if topic.lag_s else "-",
        "-" if topic.behind is None else f"{topic.behind:,}",
        f"{sum(topic.lost.values()):,}",
        f"{sum(topic.duplicates.values()):,}",
        "-" if topic.verified is None else f"{topic.verified:.1%}",
        f"{topic.open_findings:,}",
        f"{topic.total:,}",
    ]


def _unbroken(text: str) -> str:
    return text.replace(" ", "\N{NO-BREAK SPACE}")
