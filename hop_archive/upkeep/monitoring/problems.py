"""What is wrong with the archive at this moment, by one cheap look at catalog and source: the same for Dagster, ``run`` and ``watch``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hop_archive.archive import Archive
from hop_archive.catalog.records import Outcome, TopicSummary
from hop_archive.errors import HopArchiveError
from hop_archive.ingest.plan import work
from hop_archive.ingest.survey import BEFORE_FIRST_SIGHT, Survey, survey
from hop_archive.ingest.write import UNREADABLE
from hop_archive.model.findings import OBSTACLES, Kind, OpenCount
from hop_archive.model.wording import counted
from hop_archive.upkeep.monitoring.lags import Marks, Position, Positions, lag_s, marked
from hop_archive.upkeep.monitoring.telling import Problem, Seen

LOST, FINDING, LAG, DATABASE, SOURCE = "lost messages", "findings", "lag", "database", "source"

_HARMLESS = frozenset({Kind.ORPHAN_OBJECT, Kind.FOREIGN_OBJECT, Kind.NOT_ARCHIVED})
"""All is archived, and only something too much is there: yellow in the checks, and nothing to wake anybody for."""

_ARCHIVE_PAGE = "/assets/archive?view=checks"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is too much.

    Attributes:
        most_messages: Most messages of one topic that may wait.
        most_lag_s: Longest that one may wait.
        patience_s: For how long a server may not answer, and a topic be in the way of something, before that is told.
    """

    most_messages: int = 100_000
    most_lag_s: float = 900.0
    patience_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What a look needs of the looks before.

    Attributes:
        marks: Since when messages wait.
        losses: Of each topic with lost or skipped offsets: how many, and how many of them are to be told as lost. The ledger
            is read only where the former changed.
    """

    marks: Marks = field(default_factory=dict)
    losses: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def look(archive: Archive, bounds: Bounds, memory: Memory, *, unasked: bool = False) -> tuple[Seen, Memory]:
    """Look at catalog and source; changes nothing, and raises nothing where one of them does not answer: that is a problem.

    With ``unasked`` the source is left alone.
    """
    try:
        archive.catalog.check()
        summaries = archive.catalog.summaries()
        opened = archive.catalog.open_findings()
        losses = _losses(archive, summaries, memory.losses)
    except HopArchiveError as error:
        down = Problem(
            DATABASE,
            archive.catalog.name,
            f"it cannot be asked: {_sentence(error)} Nothing is archived meanwhile, and what is wrong besides is not known.",
            "See hop-archive doctor. What waits is archived once it answers, as long as Kafka holds it.",
            patience_s=bounds.patience_s,
        )
        return Seen((down,), frozenset({DATABASE})), memory
    problems = [*_lost(losses), *_found(opened, bounds)]
    sorts = {DATABASE, LOST, FINDING}
    if unasked:
        return Seen(tuple(problems), frozenset(sorts)), Memory(memory.marks, losses)
    try:
        seen = survey(archive)
    except HopArchiveError as error:
        problems.append(
            Problem(
                SOURCE,
                archive.source.name,
                f"it cannot be asked: {_sentence(error)} How far behind the archive is, is not known.",
                "See hop-archive doctor. What retention takes meanwhile is lost.",
                patience_s=bounds.patience_s,
            )
        )
        return Seen(tuple(problems), frozenset({*sorts, SOURCE})), Memory(memory.marks, losses)
    now_s = archive.now().timestamp()
    positions, held_back = positions_of(seen), held_back_of(seen)
    both = {topic: {**places, **held_back.get(topic, {})} for topic, places in positions.items()}
    marks = marked(memory.marks, both, now_s)
    problems += _behind(positions, held_back, marks, bounds, now_s)
    unknown = frozenset(Problem(LAG, topic, "", "").key for topic in seen.not_whole)
    return Seen(tuple(problems), frozenset({*sorts, SOURCE, LAG}), unknown), Memory(marks, losses)


def positions_of(seen: Survey) -> dict[str, dict[str, Position]]:
    """How far each topic is of which all could be looked at."""
    found: dict[str, dict[str, Position]] = {}
    hidden = seen.not_whole
    for at, known in seen.knowledge.items():
        if at.topic not in hidden:
            waits, end = work(known), max(known.watermarks.low, known.watermarks.stable)
            first = waits.ranges[0].start if waits else end
            found.setdefault(at.topic, {})[f"{at.generation}/{at.partition}"] = Position(
                end, waits.size, first
            )
    return found


def held_back_of(seen: Survey) -> dict[str, dict[str, Position]]:
    """What open transactions keep from readers, of the same topics: offsets from the last stable one to the end of the log."""
    found: dict[str, dict[str, Position]] = {}
    for at, known in seen.knowledge.items():
        marks = known.watermarks
        if at.topic not in seen.not_whole and marks.high > marks.stable:
            place = f"{at.generation}/{at.partition} held back"
            found.setdefault(at.topic, {})[place] = Position(
                marks.high, marks.high - marks.stable, marks.stable
            )
    return found


def _losses(
    archive: Archive, summaries: Sequence[TopicSummary], before: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """Of each topic that lacks offsets: how many, and how many were lost since the archive first saw it, or are unreadable."""
    lacking = {s.topic: s.lost + s.skipped for s in summaries if s.lost or s.skipped}
    changed = [topic for topic, number in lacking.items() if before.get(topic, (0, 0))[0] != number]
    told = dict.fromkeys(changed, 0)
    for entry in archive.catalog.ledger(changed) if changed else ():
        is_lost = entry.outcome is Outcome.LOST and entry.reason != BEFORE_FIRST_SIGHT
        if is_lost or (entry.outcome is Outcome.SKIPPED and entry.reason.startswith(UNREADABLE)):
            told[entry.slice.topic] = told.get(entry.slice.topic, 0) + len(entry.slice)
    return {
        topic: (number, told[topic] if topic in told else before[topic][1])
        for topic, number in lacking.items()
    }


def _lost(losses: Mapping[str, tuple[int, int]]) -> list[Problem]:
    return [
        Problem(
            LOST,
            topic,
            f"{counted(number, 'offset is', 'offsets are')} lost, or cannot be read: Kafka has them no more, or never gave them.",
            "See hop-archive topics TOPIC --holes for which and why. Whoever published them may have them still. Where "
            "retention was faster, lengthen it, or find what held the archive up.",
            f"/assets/archived_messages?partition={topic}",
            amount=number,
        )
        for topic, (_, number) in sorted(losses.items())
        if number
    ]


def _found(opened: Sequence[OpenCount], bounds: Bounds) -> list[Problem]:
    return [
        Problem(
            FINDING,
            f"{count.topic or '(no topic)'} {count.kind.value}",
            f"{count.number:,} open since {count.since:%Y-%m-%d %H:%M} UTC.",
            "See hop-archive findings for each. What is in the way of archiving has to be mended where it is, at Kafka or in "
            "its rights; the finding closes by itself then."
            if count.kind in OBSTACLES
            else "See hop-archive findings for each, and hop-archive repair (or the job repair) for what would mend it.",
            _ARCHIVE_PAGE,
            # Told again each time that there are twice as many: two are no news of a verification that goes on, a thousand are.
            amount=count.number.bit_length(),
            patience_s=bounds.patience_s if count.kind in OBSTACLES else 0.0,
        )
        for count in opened
        if count.kind not in _HARMLESS
    ]


def _behind(
    positions: Positions, held_back: Positions, marks: Marks, bounds: Bounds, now_s: float
) -> list[Problem]:
    found = []
    for topic, places in sorted(positions.items()):
        waited_s, waiting = lag_s(marks, topic, now_s), sum(at.waiting for at in places.values())
        held = sum(at.waiting for at in held_back.get(topic, {}).values())
        if waiting <= bounds.most_messages and waited_s <= bounds.most_lag_s:
            continue
        parts, remedy = [], ""
        if waiting:
            parts.append(counted(waiting, "message waits", "messages wait"))
            remedy = (
                "See whether runs start, and what they fail of: the page Runs, or the log of hop-archive run. "
                "hop-archive status tells how far behind each topic is."
            )
        if held:
            parts.append(f"{counted(held, 'offset is', 'offsets are')} held back by open transactions")
            remedy = remedy or (
                "Kafka gives them to nobody before the transaction ends. Whoever began it has to end it; kafka-transactions.sh "
                "finds such as hang, and aborts them. What retention takes meanwhile is lost."
            )
        since = f", the first for {waited_s / 60:,.0f} minutes" if waited_s >= 60 else ""
        found.append(
            Problem(
                LAG,
                topic,
                f"{'; '.join(parts)}{since}.",
                remedy,
                f"/assets/archived_messages?partition={topic}",
            )
        )
    return found


def _sentence(error: HopArchiveError) -> str:
    text = str(error)
    return text if text.endswith(".") else f"{text}."
