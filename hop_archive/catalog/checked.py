"""What was looked at, and when: for verification, which goes over an archive in shares. Pure."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from hop_archive.model.findings import Kind

FIRST_KEY, LAST_KEY = "", "\U0010ffff"
"""Before all keys, and after all: in byte order no character comes after the last."""


class Look(enum.Enum):
    """What a look compares.

    ``ALONE``: objects of one document each with their rows. ``SEGMENTS``: segments, likewise. ``OUTSIDE``: objects in no folder
    of a topic, of which no row should tell. ``LEDGER``: ledger rows with the rows that they count.
    """

    ALONE = "alone"
    SEGMENTS = "segments"
    OUTSIDE = "outside"
    LEDGER = "ledger"


class Section(NamedTuple):
    """What is looked at in one order of keys.

    Attributes:
        bucket: Where the objects are; '' for the ledger.
        topic: '' for what is outside of topics.
    """

    bucket: str
    topic: str
    look: Look


class CheckedRange(NamedTuple):
    """A part of a section that was looked at.

    Attributes:
        after: Keys greater than this one; for the ledger see ``ledger_key``.
        through: Up to and including this one.
        checked_at: When the look began (UTC): what came later may not have been seen.
        took: What it took, in objects that are listed with others; of a range that was divided, about.
    """

    section: Section
    after: str
    through: str
    checked_at: datetime.datetime
    took: int = 0


def ledger_key(generation: int, partition: int, stop: int) -> str:
    """Where a ledger row that ends at this offset stands in the section of its topic."""
    return f"{generation:010}/{partition:010}/{stop:020}"


def with_checked(known: Iterable[CheckedRange], new: CheckedRange) -> list[CheckedRange]:
    """The ranges of one section once ``new`` is noted, in order; those that touch and are of one look are one."""
    parts = [new]
    for done in known:
        is_divided = done.after < new.through and new.after < done.through
        left = max(0, done.took - new.took) if is_divided else done.took
        before, behind = done.after < new.after, done.through > new.through
        if before and behind:
            left //= 2
        if before:
            parts.append(done._replace(through=min(done.through, new.after), took=left))
        if behind:
            parts.append(done._replace(after=max(done.after, new.through), took=left))
    merged: list[CheckedRange] = []
    for done in sorted(parts, key=lambda done: done.after):
        last = merged[-1] if merged else None
        if last and last.through == done.after and last.checked_at == done.checked_at:
            merged[-1] = last._replace(through=done.through, took=last.took + done.took)
        else:
            merged.append(done)
    return merged


@dataclass(frozen=True, slots=True)
class CheckedScope:
    """What was looked at, whole: a finding that is of this and was not seen is there no more.

    Attributes:
        since: When the look began (UTC): what was seen at or after this moment was seen in it.
        topics: The topics looked at; None for all, and for what is of no topic.
        bucket: The one bucket whose objects were looked at; '' for any.
        not_bucket: A bucket whose objects were not looked at; '' for none.
        spared: Keys of objects that were left out.
        of_no_message: Only what is about no single message was looked at.
        young_since: Objects may have been too young to be judged; what was first seen since this moment stays open.
        keys: Only objects whose keys are greater than the first and not greater than the second were looked at; None: any.
    """

    kinds: Collection[Kind]
    since: datetime.datetime
    topics: Collection[str] | None = None
    bucket: str = ""
    not_bucket: str = ""
    spared: Collection[str] = ()
    of_no_message: bool = False
    young_since: datetime.datetime | None = None
    keys: tuple[str, str] | None = None


class VerifiedRange(NamedTuple):
    """Documents that were read and compared with their rows.

    Attributes:
        generation: Of which generation; 0, like the partition, for rows of another archiver, which have no place.
        start: First offset; for those, first timestamp in milliseconds. ``stop`` likewise.
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
        offsets: Offsets that the ledger says are archived, absent ones included.
        never: How many of them were never looked at.
        oldest: When the check that is longest ago was (UTC); None where there was none.
    """

    topic: str
    offsets: int
    never: int
    oldest: datetime.datetime | None
