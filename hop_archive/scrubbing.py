"""Reads every document again within some days, a share at a time, and remembers how far it is.

What is due comes first, then what was never looked at. Each portion is remembered once it is compared and what was
found is noted, so a scrub that was killed goes on where it was.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from hop_archive.archive import utc_now
from hop_archive.catalog.protocol import Catalog, Outcome, Row
from hop_archive.catalog.scrubs_protocol import VerifiedRange
from hop_archive.findings import Finding, Kind, Trouble
from hop_archive.noting import Notebook
from hop_archive.selecting import Query
from hop_archive.slices import Lineage, OffsetSet, Slice
from hop_archive.verifying import Verification, documents, of_rows

DAYS = 30.0
"""Within so many days every document is read again, unless somebody says otherwise."""

_PORTION = 20_000
"""Offsets, or rows of another archiver, that are compared before it is remembered that they were."""


_DAY = datetime.timedelta(days=1)


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


def scrub(asked: Scrub, notebook: Notebook) -> Iterator[tuple[Trouble, bool]]:
    """Read and compare what is due, and a share of what was never looked at.

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
            VerifiedRange(*portion.lineage, portion.start, portion.stop, began)
        )
    for topic in topics:
        yield from _adopted(asked, topic, notebook)


def _narrowed(wanted: Verification, portion: Slice) -> Verification:
    return replace(wanted, query=Query((portion.topic,), places=(portion,)))


# --- what is to be read


def _chosen(asked: Scrub, topics: Sequence[str]) -> list[Slice]:
    """What is due, the longest ago first, then a share of what was never read; in portions."""
    catalog = asked.wanted.catalog
    total = 0
    due: list[tuple[datetime.datetime, Slice]] = []
    never: list[Slice] = []
    known = {key: list(some) for key, some in groupby(catalog.verified(topics), key=lambda one: one[:3])}
    for topic in topics:
        for lineage, archived in _archived(catalog, topic).items():
            total += archived.size
            ranges = known.get(tuple(lineage), [])
            done = OffsetSet.of((one.start, one.stop) for one in ranges)
            never += lineage.slices(archived - done)
            due += [
                (one.verified_at, part)
                for one in ranges
                if one.verified_at <= asked.now() - _DAY * max(0.0, asked.days - 1)
                for part in lineage.slices(archived & OffsetSet.between(one.start, one.stop))
            ]
    share = _share(
        asked, total, max((one.verified_at for some in known.values() for one in some), default=None)
    )
    due.sort()
    return [*_portions([part for _, part in due]), *_first(_portions(never), share)]


def _archived(catalog: Catalog, topic: str) -> dict[Lineage, OffsetSet]:
    """The offsets that may have documents: what was lost or skipped has none."""
    ranges: dict[Lineage, list[tuple[int, int]]] = {}
    for entry in catalog.ledger([topic]):
        if entry.outcome is Outcome.ARCHIVED:
            ranges.setdefault(entry.slice.lineage, []).append((entry.slice.start, entry.slice.stop))
    return {lineage: OffsetSet.of(some) for lineage, some in ranges.items()}


def _share(asked: Scrub, total: int, last: datetime.datetime | None) -> int:
    """So many offsets that were never read are taken on: those of one day, or of the days that were missed."""
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


def _adopted(asked: Scrub, topic: str, notebook: Notebook) -> Iterator[tuple[Trouble, bool]]:
    """Those that are due, by their timestamps, in portions that end between two milliseconds."""
    catalog = asked.wanted.catalog
    span = catalog.adopted_span(topic)
    if span is None:
        return
    before = asked.now() - _DAY * max(0.0, asked.days - 1)
    known = [one for one in catalog.verified([topic]) if one.generation == 0]
    fresh = [one for one in known if one.verified_at > before]
    for start, stop in _uncovered(span[0], span[1] + 1, fresh):
        rows = (row for row in catalog.adopted_rows(topic, start))
        for some in _by_moment(rows, stop):
            if asked.stop():
                return
            began = asked.now()
            yield from notebook.noted(of_rows(asked.wanted, some))
            ends = (some[0].timestamp_ms, some[-1].timestamp_ms + 1)
            catalog.note_verified(VerifiedRange(topic, 0, 0, *ends, began))


def _uncovered(start: int, stop: int, ranges: Sequence[VerifiedRange]) -> Iterator[tuple[int, int]]:
    """The parts of ``[start, stop)`` in none of ``ranges``; timestamps may be negative, as no offset is."""
    for one in sorted(ranges):
        if one.start > start:
            yield start, min(one.start, stop)
        start = max(start, one.stop)
    if start < stop:
        yield start, stop


def _by_moment(rows: Iterator[Row], stop: int) -> Iterator[list[Row]]:
    portion: list[Row] = []
    for row in rows:
        if row.timestamp_ms >= stop:
            break
        if len(portion) >= _PORTION and row.timestamp_ms != portion[-1].timestamp_ms:
            yield portion
            portion = []
        portion.append(row)
    if portion:
        yield portion


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


def _is_over(one: Finding, portion: Slice, began: datetime.datetime) -> bool:
    where = one.trouble.slice
    return (
        where is not None
        and bool(one.trouble.object_key)
        and where.lineage == portion.lineage
        and portion.start <= where.start < portion.stop
        and one.last_seen < began
    )
