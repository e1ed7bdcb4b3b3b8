"""Reads every document again within some days, a share at a time, and remembers how far it is.

What was never looked at comes first, as much of it as is a day's share, then what is due, and then what is next, up to
that share: so each day has its share even after everything was read at once. Each portion is remembered once it is
compared and what was found is noted, so a scrub that was killed goes on where it was.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

from hop_archive.catalog.checked import VerifiedRange
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Outcome, Row
from hop_archive.model.findings import Finding
from hop_archive.model.query import Query
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice, offsets_by_log
from hop_archive.upkeep.verify.documents import KINDS, documents, of_rows
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.verification import Verification

DAYS = 30.0
"""Within so many days every document is read again, unless somebody says otherwise."""

_PORTION = 20_000
"""Offsets, or rows of another archiver, that are compared before it is remembered that they were."""

_DAY = datetime.timedelta(days=1)
_TODAY = _DAY / 2
"""What was read so short a time ago was read today: a daily run does not begin at the same second each day."""

Part = TypeVar("Part")


def scrub(
    verification: Verification,
    recorder: FindingsRecorder,
    days: float = DAYS,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Finding, bool]]:
    """Read and compare what was never read and what was longest ago, a day's share, and all that is due.

    Run once a day, it has read everything within ``days``; where days were missed, it takes on more. Two at once
    compare some twice, and remember it once. ``stop`` is asked between portions; what is left is for the next time.

    Yields:
        What is found, once it is noted, with whether it is open.

    Raises:
        ConfigurationError: A topic means none.
        UnavailableError: A server does not answer. What was compared is remembered.
    """
    catalog, topics = verification.catalog, verification.topics()
    for portion in _chosen(verification, topics, days):
        if stop():
            return
        began = verification.now()
        of_portion = replace(verification, query=Query((portion.topic,), places=(portion,)))
        yield from recorder.noted(documents(of_portion))
        # What was found in these documents before, and is there no more, is closed.
        numbers = [
            record.number
            for record in catalog.findings([portion.topic], KINDS)
            if record.finding.object_key
            and (where := record.finding.slice) is not None
            and where.partition_log == portion.partition_log
            and portion.start <= where.start < portion.stop
            and record.last_seen < began
        ]
        if numbers:
            at = verification.now()
            catalog.resolve_findings(numbers, f"not found any more on {at:%Y-%m-%d %H:%M} UTC", at)
        catalog.note_verified(VerifiedRange(*portion.partition_log, portion.start, portion.stop, began))
    for topic in topics:
        yield from _adopted(verification, topic, recorder, days, stop)


def all_documents(verification: Verification, began: datetime.datetime) -> list[VerifiedRange]:
    """What a look at every document of whole topics has read, if it ends; as of when it began.

    What is archived meanwhile does not count, whether it is read or not. Noted at the end of the look, the next scrubs begin
    with what else is due.
    """
    catalog = verification.catalog
    ranges: list[VerifiedRange] = []
    for topic in verification.topics():
        for log, offsets in _archived(catalog, topic).items():
            ranges += [VerifiedRange(*log, start, stop, began) for start, stop in offsets]
        if adopted := catalog.adopted_span(topic):
            ranges.append(VerifiedRange(topic, 0, 0, adopted[0], adopted[1] + 1, began))
    return ranges


def _chosen(verification: Verification, topics: Sequence[str], days: float) -> list[Slice]:
    """What was never read, as much as is a day's share; what is due; and what is next, up to that share."""
    total = 0
    read: list[tuple[datetime.datetime, Slice]] = []
    never: list[Slice] = []
    catalog, now = verification.catalog, verification.now()
    known = {key: list(some) for key, some in groupby(catalog.verified(topics), key=itemgetter(0, 1, 2))}
    for topic in topics:
        for log, archived in _archived(catalog, topic).items():
            total += archived.size
            ranges = known.get(tuple(log), [])
            never += log.slices(archived - OffsetSet.of((done.start, done.stop) for done in ranges))
            read += [
                (done.verified_at, part)
                for done in ranges
                for part in log.slices(archived & OffsetSet.between(done.start, done.stop))
            ]
    backlog = _by_age(read, now, days)
    left = _share(total, backlog.last, now, days) - sum(map(len, backlog.today))
    fresh = list(_first(_portions(never), left))
    left -= sum(map(len, fresh)) + sum(map(len, backlog.due))
    return [*fresh, *_portions(backlog.due), *_first(_portions(backlog.next), left)]


class _Backlog(NamedTuple, Generic[Part]):
    """What was read before, the longest ago first: what has to be read today, what need not be, what was already.

    So a scrub that is run again on the same day reads what is left of that day's share.
    """

    due: list[Part]
    next: list[Part]
    today: list[Part]
    last: datetime.datetime | None
    """When something was read last, before today; None where nothing was."""


def _by_age(
    read: Iterable[tuple[datetime.datetime, Part]], now: datetime.datetime, days: float
) -> _Backlog[Part]:
    due_at = now - max(_TODAY, _DAY * (days - 1))
    in_order = sorted(read, key=itemgetter(0))
    earlier = [(at, part) for at, part in in_order if at <= now - _TODAY]
    return _Backlog(
        due=[part for at, part in earlier if at <= due_at],
        next=[part for at, part in earlier if at > due_at],
        today=[part for _, part in in_order[len(earlier) :]],
        last=earlier[-1][0] if earlier else None,
    )


def _archived(catalog: Catalog, topic: str) -> dict[PartitionLog, OffsetSet]:
    """The offsets that may have documents: what was lost or skipped has none."""
    return offsets_by_log(e.slice for e in catalog.ledger([topic]) if e.outcome is Outcome.ARCHIVED)


def _share(total: int, last: datetime.datetime | None, now: datetime.datetime, days: float) -> int:
    """So many offsets are taken on that are not due: those of one day, or of the days that were missed."""
    missed = 1.0 if last is None else max(1.0, (now - last) / _DAY)
    return math.ceil(total / max(days, 1.0) * min(missed, max(days, 1.0)))


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


def _adopted(
    verification: Verification,
    topic: str,
    recorder: FindingsRecorder,
    days: float,
    stop_asked: Callable[[], bool],
) -> Iterator[tuple[Finding, bool]]:
    """The same of another archiver's rows: by their timestamps, in portions that end between two milliseconds."""
    catalog, now = verification.catalog, verification.now()
    span = catalog.adopted_span(topic)
    if span is None:
        return
    known = sorted(done for done in catalog.verified([topic]) if done.generation == 0)
    backlog = _by_age(((done.verified_at, (done.start, done.stop)) for done in known), now, days)
    # How many there are: the rows that the topic's summary says, less those that its ledger does.
    rows = sum(summary.messages for summary in catalog.summaries([topic]))
    rows -= sum(entry.archived for entry in catalog.ledger([topic]))
    left = _share(max(0, rows), backlog.last, now, days)
    left -= sum(len(some) for part in backlog.today for some, _ in _by_moment(catalog, topic, part))
    never: list[tuple[int, int]] = []
    reached, stop = span[0], span[1] + 1
    for done in known:  # no set of offsets: timestamps may be negative
        if done.start > reached:
            never.append((reached, min(done.start, stop)))
        reached = max(reached, done.stop)
    if reached < stop:
        never.append((reached, stop))
    for parts, is_bounded in ((never, True), (backlog.due, False), (backlog.next, True)):
        for reached, stop in parts:
            while reached < stop and not (is_bounded and left <= 0):
                size = min(_PORTION, left) if is_bounded else _PORTION
                some, end = next(_by_moment(catalog, topic, (reached, stop), size))
                if stop_asked():
                    return
                began = verification.now()
                yield from recorder.noted(of_rows(verification, some))
                catalog.note_verified(VerifiedRange(topic, 0, 0, reached, end, began))
                reached = end
                left -= len(some)


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
