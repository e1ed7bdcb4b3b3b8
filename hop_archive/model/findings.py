"""What is wrong with the archive or in its way, as values. Pure."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from hop_archive.errors import ConfigurationError
from hop_archive.model.slices import Slice


class Kind(enum.Enum):
    """What is wrong. Most of it is what verification finds; ``OBSTACLES`` are what archiving itself meets."""

    MISSING_OBJECT = "missing_object"
    WRONG_SIZE = "wrong_size"
    CORRUPT_OBJECT = "corrupt_object"
    FROZEN_OBJECT = "frozen_object"
    ROW_DIFFERS = "row_differs"
    ORPHAN_OBJECT = "orphan_object"
    FOREIGN_OBJECT = "foreign_object"
    COVERAGE_HOLE = "coverage_hole"
    COUNT_MISMATCH = "count_mismatch"
    NOT_ARCHIVED = "not_archived"
    LOST = "lost"
    NO_LEADER = "no_leader"
    NOT_READABLE = "not_readable"
    NOT_SHOWN = "not_shown"
    LEFT_UNDONE = "left_undone"
    LOG_TRUNCATED = "log_truncated"


def kinds_of(names: Sequence[str]) -> list[Kind] | None:
    """The kinds of these names; None where none is named.

    Raises:
        ConfigurationError: There is no such kind.
    """
    known = {kind.value: kind for kind in Kind}
    if unknown := [name for name in names if name not in known]:
        raise ConfigurationError(
            f"There is no kind of finding called {unknown[0]}.", remedy=f"There are: {', '.join(known)}."
        )
    return [known[name] for name in names] or None


OBSTACLES = frozenset({Kind.NO_LEADER, Kind.NOT_READABLE, Kind.NOT_SHOWN, Kind.LEFT_UNDONE})
"""What keeps messages from being archived for now: closed by itself once it is in the way no more."""


class Finding(NamedTuple):
    """Something that is wrong, and where.

    Attributes:
        kind: What is wrong.
        topic: Of which topic; '' where that is not known.
        detail: What was wanted and what was found, one sentence for people.
        uuid: The message that it is about; None where it is about no single one.
        bucket: Bucket of ``object_key``; '' without one.
        object_key: The object that it is about; '' where it is about none.
        slice: The offsets that it is about; None where it is about none.
        partition: The Kafka partition, where it is about one and about no offsets; None otherwise.
    """

    kind: Kind
    topic: str
    detail: str
    uuid: UUID | None = None
    bucket: str = ""
    object_key: str = ""
    slice: Slice | None = None
    partition: int | None = None


class FindingRecord(NamedTuple):
    """A finding as the catalog remembers it: one record, however often it was seen.

    Attributes:
        finding: What is wrong, as it was last seen.
        first_seen: When it was found first (UTC).
        last_seen: When it was found last (UTC).
        resolved_at: When it was mended, accepted, or not found any more (UTC); None while it is open.
        resolution: What became of it; '' while it is open.
    """

    number: int
    finding: Finding
    first_seen: datetime.datetime
    last_seen: datetime.datetime
    resolved_at: datetime.datetime | None = None
    resolution: str = ""


class OpenCount(NamedTuple):
    """How many findings of one kind are open in one topic, and since when."""

    topic: str
    kind: Kind
    number: int
    since: datetime.datetime


ACCEPTED = "accepted: "
"""How the resolution of a finding begins with which a person decided to live: seen again, it is not opened again."""

_OF_OBJECTS = (Kind.MISSING_OBJECT, Kind.WRONG_SIZE)
"""An object is missing once, however many of its documents were asked for."""


def remembered(finding: Finding) -> Finding:
    """The finding as it is told from others: of an object that is missing or too short, whichever message told it."""
    if finding.kind in _OF_OBJECTS and finding.object_key:
        many = finding.object_key.startswith("segments/")
        return finding._replace(uuid=None if many else finding.uuid, slice=None)
    return finding


def distinct(findings: Iterable[Finding]) -> list[Finding]:
    """The findings as they are remembered, each once; where one was told in several ways, with all that was told."""
    found: dict[Finding, dict[str, None]] = {}
    for finding in map(remembered, findings):
        found.setdefault(finding._replace(detail=""), {})[finding.detail] = None
    return [
        finding._replace(
            detail="; ".join(details if finding.slice or not finding.object_key else list(details)[:1])
        )
        for finding, details in found.items()
    ]
