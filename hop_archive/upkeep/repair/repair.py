"""Mends what verification found, as far as it can be mended, after showing how.

Each finding is looked at anew before anything is done: what is not there any more is closed. What is mended is closed
with what was done; what cannot be mended stays open, and says why. A crash leaves at worst work for the next time.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from hop_archive.archive import utc_now
from hop_archive.catalog.protocol import Catalog
from hop_archive.errors import ConflictError, DataError
from hop_archive.model.findings import Finding, FindingRecord, Kind
from hop_archive.upkeep.repair.ledger import (
    leave_obstacle,
    leave_truncation,
    plan_count,
    plan_foreign,
    plan_hole,
    plan_lost,
    plan_orphan,
    plan_unarchived,
)
from hop_archive.upkeep.repair.objects import GoneError, Means, NotMendedError, Planned, plan_object

PLANS: Mapping[Kind, Callable[[Means, Finding], Planned]] = {
    Kind.MISSING_OBJECT: plan_object,
    Kind.WRONG_SIZE: plan_object,
    Kind.CORRUPT_OBJECT: plan_object,
    Kind.ROW_DIFFERS: plan_object,
    Kind.ORPHAN_OBJECT: plan_orphan,
    Kind.COVERAGE_HOLE: plan_hole,
    Kind.NOT_ARCHIVED: plan_unarchived,
    Kind.COUNT_MISMATCH: plan_count,
    Kind.LOST: plan_lost,
    Kind.FOREIGN_OBJECT: plan_foreign,
    Kind.LOG_TRUNCATED: leave_truncation,
    Kind.NO_LEADER: leave_obstacle,
    Kind.NOT_READABLE: leave_obstacle,
    Kind.NOT_SHOWN: leave_obstacle,
    Kind.LEFT_UNDONE: leave_obstacle,
}
"""How each kind is mended, in this order: what objects prove settles much of what is missing, and counts come last."""


class Fate(enum.Enum):
    """What becomes of a finding."""

    PLANNED = "planned"
    MENDED = "mended"
    GONE = "gone"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Mending:
    """One finding, and what becomes of it.

    Attributes:
        finding: The finding.
        fate: What becomes of it.
        how: What is to be done, was done, or why it is left; a sentence for people.
    """

    record: FindingRecord
    fate: Fate
    how: str


@dataclass(frozen=True, slots=True)
class Repair:
    """What to mend.

    Attributes:
        means: What with.
        topics: Findings of these topics only; None for all.
        kinds: Findings of these kinds only; None for all.
        now: The clock on the wall.
        stop: Asked between findings; what is left is for the next time.
    """

    means: Means
    topics: Collection[str] | None = None
    kinds: Collection[Kind] | None = None
    now: Callable[[], datetime.datetime] = field(default=utc_now)
    stop: Callable[[], bool] = field(default=lambda: False)

    @property
    def catalog(self) -> Catalog:
        """Whose findings."""
        return self.means.catalog


def repair(wanted: Repair, *, dry_run: bool = True) -> Iterator[Mending]:
    """Plan, or do, what mends each open finding; holds one of them, and its object, at a time.

    Running it again goes on with what is open. Two at once do no harm: each changes a row only as it was seen.

    Args:
        wanted: What to mend, and with what.
        dry_run: Change nothing; tell what would be done.

    Raises:
        UnavailableError: A server does not answer. What was yielded is done.
    """
    for kind in PLANS:
        if wanted.kinds is not None and kind not in wanted.kinds:
            continue
        for record in wanted.catalog.findings(wanted.topics, [kind]):
            if wanted.stop():
                return
            mending = _planned(wanted, record) if dry_run else _done(wanted, record)
            if mending.fate in (Fate.MENDED, Fate.GONE) and not dry_run:
                at = wanted.now()
                told = f"{mending.fate.value} on {at:%Y-%m-%d %H:%M} UTC: {mending.how}"
                wanted.catalog.resolve_findings([record.number], told, at)
            yield mending


_GONE = "it was not found any more"


def _planned(wanted: Repair, record: FindingRecord) -> Mending:
    try:
        return Mending(record, Fate.PLANNED, _plan(wanted, record).how)
    except GoneError:
        return Mending(record, Fate.GONE, _GONE)
    except (NotMendedError, DataError) as error:
        return Mending(record, Fate.LEFT, str(error))


def _done(wanted: Repair, record: FindingRecord) -> Mending:
    try:
        return Mending(record, Fate.MENDED, _plan(wanted, record).deed())
    except GoneError:
        return Mending(record, Fate.GONE, _GONE)
    except (NotMendedError, DataError, ConflictError) as error:
        return Mending(record, Fate.LEFT, str(error))


def _plan(wanted: Repair, record: FindingRecord) -> Planned:
    return PLANS[record.finding.kind](wanted.means, record.finding)
