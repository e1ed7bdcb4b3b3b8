"""How ledger rows are split and merged, and ranges put together: the same in every catalog. Pure.

A commit that begins another ten minutes than the one before it in its log merges what is older: so rows of the last ten minutes or so
are as they were committed, those of the last hour are one for ten minutes, of a day one for two hours, of a week one for a day
(UTC), and what is older is one. That is some thirty rows a log, however long the archive runs, and what was committed in the
last hour, in the last 24 hours or on a day is still told well.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from hop_archive.catalog.checked import VerifiedRange
from hop_archive.catalog.records import LedgerEntry, Outcome
from hop_archive.errors import DataError
from hop_archive.model.slices import OffsetSet, Slice

TEN_MINUTES = datetime.timedelta(minutes=10)
YOUNG = datetime.timedelta(minutes=2)
"""Rows younger than this are not merged: whoever commits once more, because an answer was lost, finds its own."""
PERIODS = (
    (datetime.timedelta(hours=1), TEN_MINUTES),
    (datetime.timedelta(hours=24), datetime.timedelta(hours=2)),
    (datetime.timedelta(days=7), datetime.timedelta(days=1)),
)
"""Up to which age rows are merged that were made in the same period, and how long that is."""
BLOCK = 10_000_000
"""Rows that begin in another block of so many offsets are not merged: whoever splits one counts what it keeps of it."""
_ORIGIN = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)


def period(at: datetime.datetime, now: datetime.datetime) -> datetime.datetime | None:
    """When the period begins in which ``at`` is, seen from ``now``; None for all that is older than a week."""
    for age, length in PERIODS:
        if at >= begin(now - age, length):
            return begin(at, length)
    return None


def begin(at: datetime.datetime, length: datetime.timedelta) -> datetime.datetime:
    """When the period of this length begins in which ``at`` is: at a whole multiple of it, UTC."""
    return at - (at - _ORIGIN) % length


def merged(entries: Iterable[LedgerEntry], kind: Callable[[LedgerEntry], object]) -> list[LedgerEntry]:
    """The rows of one log, those as one that follow one another without a hole and are of one outcome, reason, block and kind."""
    done: list[LedgerEntry] = []
    for entry in sorted(entries, key=lambda entry: entry.slice):
        last = done[-1] if done else None
        if (
            last
            and last.slice.stop == entry.slice.start
            and last.slice.start // BLOCK == entry.slice.start // BLOCK
            and (last.outcome, last.reason) == (entry.outcome, entry.reason)
            and kind(last) == kind(entry)
        ):
            done[-1] = _joined(last, entry)
        else:
            done.append(entry)
    return done


def _joined(left: LedgerEntry, right: LedgerEntry) -> LedgerEntry:
    first_ms, last_ms = ends_ms([left, right])
    lags = [lag for lag in (left.longest_lag_ms, right.longest_lag_ms) if lag is not None]
    return replace(
        left,
        slice=left.slice.within(left.slice.start, right.slice.stop),
        archived=left.archived + right.archived,
        duplicates=left.duplicates + right.duplicates,
        absent=left.absent + right.absent,
        size_bytes=left.size_bytes + right.size_bytes,
        run_id=left.run_id if left.run_id == right.run_id else "",
        created_at=max(left.created_at, right.created_at),
        first_timestamp_ms=first_ms,
        last_timestamp_ms=last_ms,
        lag_ms=max(lags, default=None),
    )


def ends_ms(entries: Sequence[LedgerEntry]) -> tuple[int | None, int | None]:
    """Least and greatest timestamp of what they archived; None where that is nothing."""
    firsts = [e.first_timestamp_ms for e in entries if e.first_timestamp_ms is not None]
    lasts = [e.last_timestamp_ms for e in entries if e.last_timestamp_ms is not None]
    return min(firsts, default=None), max(lasts, default=None)


class Numbers(NamedTuple):
    """What stands at some offsets: messages, duplicates, offsets with neither, bytes of the documents."""

    archived: int
    duplicates: int
    absent: int
    size_bytes: int

    def less(self, other: Numbers) -> Numbers:
        """What is left of these without ``other``; a number below 0 means that the ledger said too little."""
        return Numbers(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


def cut(whole: Slice, places: Sequence[Slice]) -> tuple[list[Slice], list[Slice]]:
    """What of ``whole`` is among ``places``, and what is not; both in order."""
    at = whole.partition_log
    chosen = OffsetSet.of((p.start, p.stop) for p in places if p.partition_log == at)
    taken = whole.offsets & chosen
    return at.slices(taken), at.slices(whole.offsets - taken)


def share(
    database: object, whole: Slice, kept: Sequence[Slice], left: Numbers, count: Callable[[Slice], Numbers]
) -> list[tuple[Slice, Numbers]]:
    """The parts that are kept of a ledger row, with their numbers.

    All are counted but the last one, whose numbers are what the others leave. So a number that was wrong before is wrong
    afterwards, in that last part, where verification goes on finding it. Counting all parts would make a lost row an absent
    offset, silently.

    Raises:
        DataError: The row says less than there is.
    """
    shares = [(part, count(part)) for part in kept[:-1]]
    for _, numbers in shares:
        left = left.less(numbers)
    shares += [(part, left) for part in kept[-1:]]
    for _, numbers in shares:
        refuse_too_little(database, whole, numbers)
    return shares


def with_verified(known: Iterable[VerifiedRange], new: VerifiedRange) -> list[VerifiedRange]:
    """The ranges of one log once ``new`` is noted.

    Those that touch and are of one day (UTC) are one, as old as its oldest part.
    """
    parts: list[VerifiedRange] = [new]
    for done in known:
        if done.start < new.start:
            parts.append(done._replace(stop=min(done.stop, new.start)))
        if done.stop > new.stop:
            parts.append(done._replace(start=max(done.start, new.stop)))
    merged: list[VerifiedRange] = []
    for done in sorted(parts):
        last = merged[-1] if merged else None
        if last and last.stop == done.start and last.verified_at.date() == done.verified_at.date():
            merged[-1] = last._replace(stop=done.stop, verified_at=min(last.verified_at, done.verified_at))
        else:
            merged.append(done)
    return merged


def refuse_too_little(database: object, whole: Slice, left: Numbers) -> None:
    """Raise DataError where a ledger row would be left with numbers below 0: it says less than there is."""
    if min(left) < 0:
        raise DataError(
            f"{database}: the ledger says less of {whole} than there is.",
            remedy="Nothing was changed. Run hop-archive verify, and mend the ledger first.",
            slice=str(whole),
        )


def refuse_to_hide(where: Slice, outcome: Outcome, said: int, found: int) -> None:
    """Raise DataError where counting anew would hide something.

    Less is there than the ledger row says, or more than its slice is long, or it was never archived.
    """
    if outcome is not Outcome.ARCHIVED:
        raise DataError(f"{where} is recorded as {outcome.value}, and {found} messages stand there.")
    if found < said:
        raise DataError(f"{where}: {said - found} messages that the ledger counts are not there.")
    if found > len(where):
        raise DataError(f"{where}: an offset of it stands there twice.")
