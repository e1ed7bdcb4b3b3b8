"""What a catalog remembers of which documents were read and compared, and when: a part of its contract."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from hop_archive.catalog.records import Row


class VerifiedRange(NamedTuple):
    """Documents that were read and compared with their rows.

    Attributes:
        topic: Of which topic.
        generation: Of which generation; 0 for rows of another archiver, which have no place.
        partition: Of which partition; 0 for those.
        start: First offset; for those, first timestamp in milliseconds.
        stop: Offset after the last; likewise.
        verified_at: When (UTC); of a range that was put together, when the first of it was.
    """

    topic: str
    generation: int
    partition: int
    start: int
    stop: int
    verified_at: datetime.datetime


class VerifiedShare(NamedTuple):
    """How much of a topic was read and compared.

    Attributes:
        topic: Of which topic.
        offsets: Offsets that the ledger says are archived, absent ones included.
        never: How many of them were never looked at.
        oldest: When the check that is longest ago was (UTC); None where there was none.
    """

    topic: str
    offsets: int
    never: int
    oldest: datetime.datetime | None


class ScrubsCatalog(Protocol):
    """When which range was verified. Ranges of one log do not overlap."""

    def verified(self, topics: Collection[str] | None = None) -> Sequence[VerifiedRange]:
        """The ranges that were verified, sorted by place; some for each log and day of scrubbing."""

    def note_verified(self, new: VerifiedRange) -> None:
        """Remember that a range was verified, in the place of what was known of it; neighbours of one day are merged."""

    def verified_shares(self, topics: Collection[str] | None = None) -> Sequence[VerifiedShare]:
        """How much of each topic was verified, sorted by topic. Reads the ledger once."""

    def adopted_span(self, topic: str) -> tuple[int, int] | None:
        """Least and greatest timestamp (milliseconds) of a topic's rows that another archiver wrote; None without any."""

    def adopted_rows(self, topic: str, since_ms: int) -> Iterator[Row]:
        """Those rows, from a timestamp on, streamed by timestamp."""


def with_verified(known: Iterable[VerifiedRange], new: VerifiedRange) -> list[VerifiedRange]:
    """The ranges of one log once ``new`` is noted. Pure, and the same for every catalog.

    Those that touch and are of one day (UTC) are one, as old as its oldest part.
    """
    parts: list[VerifiedRange] = [new]
    for one in known:
        if one.start < new.start:
            parts.append(one._replace(stop=min(one.stop, new.start)))
        if one.stop > new.stop:
            parts.append(one._replace(start=max(one.start, new.stop)))
    merged: list[VerifiedRange] = []
    for one in sorted(parts):
        last = merged[-1] if merged else None
        if last and last.stop == one.start and last.verified_at.date() == one.verified_at.date():
            merged[-1] = last._replace(stop=one.stop, verified_at=min(last.verified_at, one.verified_at))
        else:
            merged.append(one)
    return merged
