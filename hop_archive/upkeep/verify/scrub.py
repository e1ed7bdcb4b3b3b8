"""Reads every document again within some days, a share at a time, and remembers how far it is.

What was never looked at comes first, as much of it as is a day's share, then what is due, and then what is next, up to
that share: so each day has its share even after everything was read at once. Each portion is remembered once it is
compared and what was found is noted, so a scrub that was killed goes on where it was.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

from hop_archive.archive import utc_now
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Outcome, Row, VerifiedRange
from hop_archive.model.findings import Finding, FindingRecord, Kind
from hop_archive.model.query import Query
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice
from hop_archive.upkeep.verify.notebook import Notebook
from hop_archive.upkeep.verify.objects import Verification, documents, of_rows

DAYS = 30.0
"""Within so many days every document is read again, unless somebody says otherwise."""

_PORTION = 20_000
"""Offsets, or rows of another archiver, that are compared before it is remembered that they were."""


_DAY = datetime.timedelta(days=1)
_TODAY = _DAY / 2
"""What was read so short a time ago was read today: a daily run does not begin at the same second each day."""

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Scrub:
    """What to scrub.

    Attributes:
        wanted: Catalog, store, which topics, and where to count.
        days: Within how many days everything is to be read again, if it runs once a day.
        now: The clock on the wall.
        stop: Asked between portions; what is left is for the next time.
    """

    wanted: Verification
    days: float = DAYS
    now: Callable[[], datetime.datetime] = field(default=utc_now)
    stop: Callable[[], bool] = field(default=lambda: False)


def scrub(asked: Scrub, notebook: Notebook) -> Iterator[tuple[Finding, bool]]:
    """Read and compare what was never read and what was longest ago, a day's share, and all that is due.

    Run once a day, it has read everything within ``days``; where days were missed, it takes on more. Two at once
    compare some twice, and remember it once.

    Yields:
        What is found, once it is noted, with whether it is open.

    Raises:
        ConfigurationError: A topic means none.
        UnavailableError: A server does not answer. What was compared is remembered.
    """
    topics = asked.wanted.topics()
    for portion in _chosen(asked, topics):
        if asked.stop():
            return
        began = asked.now()
        yield from notebook.noted(documents(_narrowed(asked.wanted, portion)))
        _close_unseen(asked, portion, began)
        asked.wanted.catalog.note_verified(
            VerifiedRange(*portion.partition_log, portion.start, portion.stop, began)
        )
    for topic in topics:
        yield from _adopted(asked, topic, notebook)


def reading_all(
    wanted: Verification, notebook: Notebook, found: Iterable[tuple[Finding, bool]]
) -> Iterator[tuple[Finding, bool]]:
    """Pass on what a look at every document of whole topics finds; once it is over, they count as read when it began.

    So the next scrubs begin with what else is due. What was archived meanwhile does not count, whether it was read or not.
    """
    began = notebook.now()
    catalog = wanted.catalog
    ranges: list[VerifiedRange] = []
    for topic in wanted.topics():
        spans = [
            part
            for partition_log, some in _archived(catalog, topic).items()
            for part in partition_log.slices(some)
        ]
        ranges += [VerifiedRange(*one.partition_log, one.start, one.stop, began) for one in spans]
        adopted = catalog.adopted_span(topic)
        ranges += [VerifiedRange(topic, 0, 0, adopted[0], adopted[1] + 1, began)] if adopted else []
    yield from found
    notebook.note_read(ranges)


def _narrowed(wanted: Verification, portion: Slice) -> Verification:
    return replace(wanted, query=Query((portion.topic,), places=(portion,)))


# --- what is to be read


def _chosen(asked: Scrub, topics: Sequence[str]) -> list[Slice]:
    """What was never read, as much as is a day's share; what is due; and what is next, up to that share."""
    catalog = asked.wanted.catalog
    total = 0
    read: list[tuple[datetime.datetime, Slice]] = []
    never: list[Slice] = []
    known = {key: list(some) for key, some in groupby(catalog.verified(topics), key=lambda one: one[:3])}
    for topic in topics:
        for partition_log, archived in _archived(catalog, topic).items():
            total += archived.size
            ranges = known.get(tuple(partition_log), [])
            done = OffsetSet.of((one.start, one.stop) for one in ranges)
            never += partition_log.slices(archived - done)
            read += [
                (one.verified_at, part)
                for one in ranges
                for part in partition_log.slices(archived & OffsetSet.between(one.start, one.stop))
            ]
    ages = _by_age(asked, read)
    left = _share(asked, total, ages.last) - sum(map(len, ages.today))
    fresh = list(_first(_portions(never), left))
    left -= sum(map(len, fresh)) + sum(map(len, ages.due))
    return [*fresh, *_portions(ages.due), *_first(_portions(ages.next), left)]


class _Ages(NamedTuple, Generic[Part]):
    """What was read before, the longest ago first: what has to be read today, what need not be, what was already.

    So a scrub that is run again on the same day reads what is left of that day's share.
    """

    due: list[Part]
    next: list[Part]
    today: list[Part]
    last: datetime.datetime | None
    """When something was read last, before today; None where nothing was."""


def _by_age(asked: Scrub, read: Iterable[tuple[datetime.datetime, Part]]) -> _Ages[Part]:
    now = asked.now()
    due_at = now - max(_TODAY, _DAY * (asked.days - 1))
    found: _Ages[Part] = _Ages([], [], [], None)
    for at, part in sorted(read, key=itemgetter(0)):
        if at > now - _TODAY:
            found.today.append(part)
            continue
        (found.due if at <= due_at else found.next).append(part)
        found = found._replace(last=at)
    return found


def _archived(catalog: Catalog, topic: str) -> dict[PartitionLog, OffsetSet]:
    """The offsets that may have documents: what was lost or skipped has none."""
    ranges: dict[PartitionLog, list[tuple[int, int]]] = {}
    for entry in catalog.ledger([topic]):
        if entry.outcome is Outcome.ARCHIVED:
            ranges.setdefault(entry.slice.partition_log, []).append((entry.slice.start, entry.slice.stop))
    return {partition_log: OffsetSet.of(some) for partition_log, some in ranges.items()}


def _share(asked: Scrub, total: int, last: datetime.datetime | None) -> int:
    """So many offsets are taken on that are not due: those of one day, or of the days that were missed."""
    missed = 1.0 if last is None else max(1.0, (asked.now() - last) / _DAY)
    return math.ceil(total / max(asked.days, 1.0) * min(missed, max(asked.days, 1.0)))


def _portions(parts: Sequence[Slice]) -> Iterator[Slice]:
    for part in parts:
        for start in range(part.start, part.stop, _PORTION):
            yield part.within(start, min(part.stop, start + _PORTION))


def _first(portions: Iterator[Slice], share: int) -> Iterator[Slice]:
    for portion in portions:
        if share <= 0:
            return
        taken = portion.within(portion.start, min(portion.stop, portion.start + share))
        share -= len(taken)
        yield taken


# --- rows of another archiver


def _adopted(asked: Scrub, topic: str, notebook: Notebook) -> Iterator[tuple[Finding, bool]]:
    """The same of them: by their timestamps, in portions that end between two milliseconds."""
    catalog = asked.wanted.catalog
    span = catalog.adopted_span(topic)
    if span is None:
        return
    known = [one for one in catalog.verified([topic]) if one.generation == 0]
    ages = _by_age(asked, ((one.verified_at, (one.start, one.stop)) for one in known))
    left = _share(asked, _adopted_rows(catalog, topic), ages.last)
    left -= sum(len(some) for part in ages.today for some, _ in _by_moment(catalog, topic, part))
    never = list(_uncovered(span[0], span[1] + 1, known))
    for parts, is_bounded in ((never, True), (ages.due, False), (ages.next, True)):
        for reached, stop in parts:
            while reached < stop and not (is_bounded and left <= 0):
                size = min(_PORTION, left) if is_bounded else _PORTION
                some, end = next(_by_moment(catalog, topic, (reached, stop), size))
                if asked.stop():
                    return
                began = asked.now()
                yield from notebook.noted(of_rows(asked.wanted, some))
                catalog.note_verified(VerifiedRange(topic, 0, 0, reached, end, began))
                reached = end
                left -= len(some)


def _adopted_rows(catalog: Catalog, topic: str) -> int:
    """How many there are: the rows that the topic's summary says, less those that its ledger does."""
    said = sum(one.messages for one in catalog.summaries([topic]))
    return max(0, said - sum(one.archived for one in catalog.ledger([topic])))


def _uncovered(start: int, stop: int, ranges: Sequence[VerifiedRange]) -> Iterator[tuple[int, int]]:
    """The parts of ``[start, stop)`` in none of ``ranges``; timestamps may be negative, as no offset is."""
    for one in sorted(ranges):
        if one.start > start:
            yield start, min(one.start, stop)
        start = max(start, one.stop)
    if start < stop:
        yield start, stop


def _by_moment(
    catalog: Catalog, topic: str, part: tuple[int, int], size: int = _PORTION
) -> Iterator[tuple[list[Row], int]]:
    """Portions of at least ``size`` rows, each with the moment at which the next begins; the last one ends with the part.

    Rows of one millisecond stay together.
    """
    start, stop = part
    portion: list[Row] = []
    for row in catalog.adopted_rows(topic, start):
        if row.timestamp_ms >= stop:
            break
        if len(portion) >= size and row.timestamp_ms != portion[-1].timestamp_ms:
            yield portion, row.timestamp_ms
            portion = []
        portion.append(row)
    yield portion, stop


# --- what is not found any more


def _close_unseen(asked: Scrub, portion: Slice, began: datetime.datetime) -> None:
    """Close what was found in these documents before, and is there no more."""
    kinds = (Kind.CORRUPT_OBJECT, Kind.ROW_DIFFERS)
    catalog = asked.wanted.catalog
    numbers = [
        one.number for one in catalog.findings([portion.topic], kinds) if _is_over(one, portion, began)
    ]
    if numbers:
        at = asked.now()
        catalog.resolve_findings(numbers, f"not found any more on {at:%Y-%m-%d %H:%M} UTC", at)


def _is_over(one: FindingRecord, portion: Slice, began: datetime.datetime) -> bool:
    where = one.finding.slice
    return (
        where is not None
        and bool(one.finding.object_key)
        and where.partition_log == portion.partition_log
        and portion.start <= where.start < portion.stop
        and one.last_seen < began
    )
