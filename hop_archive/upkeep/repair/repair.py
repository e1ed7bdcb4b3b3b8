"""Mends what verification found, as far as it can be mended, after showing how.

Each finding is looked at anew before anything is done: what is not there any more is closed. What is mended is closed
with what was done; what cannot be mended stays open, and says why. A crash leaves at worst work for the next time.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from hop_archive.errors import ConflictError, DataError, ObjectFrozenError
from hop_archive.model.findings import Finding, FindingRecord, Kind
from hop_archive.upkeep.repair.ledger import plan_count, plan_hole, plan_lost, plan_unarchived
from hop_archive.upkeep.repair.objects import plan_object
from hop_archive.upkeep.repair.orphans import plan_foreign, plan_orphan
from hop_archive.upkeep.repair.plan import GoneError, NotMendedError, Repair, RepairPlan


def _leave(why: str) -> Callable[[Repair, Finding], RepairPlan]:
    """There is nothing to mend in the archive, and this is why."""

    def refuse(_repair: Repair, _finding: Finding) -> RepairPlan:
        raise NotMendedError(why)

    return refuse


_LEAVE_OBSTACLE = _leave("the archive is not what is wrong: the next run that gets past it closes it")

PLANS: Mapping[Kind, Callable[[Repair, Finding], RepairPlan]] = {
    Kind.MISSING_OBJECT: plan_object,
    Kind.WRONG_SIZE: plan_object,
    Kind.CORRUPT_OBJECT: plan_object,
    Kind.FROZEN_OBJECT: plan_object,
    Kind.ROW_DIFFERS: plan_object,
    Kind.ORPHAN_OBJECT: plan_orphan,
    Kind.COVERAGE_HOLE: plan_hole,
    Kind.NOT_ARCHIVED: plan_unarchived,
    Kind.COUNT_MISMATCH: plan_count,
    Kind.LOST: plan_lost,
    Kind.FOREIGN_OBJECT: plan_foreign,
    # What the log held before and after is archived, each in its own generation.
    Kind.LOG_TRUNCATED: _leave(
        "Kafka lost messages that the archive has: look at the brokers, restore them if they are missed, and accept it"
    ),
    Kind.NO_LEADER: _LEAVE_OBSTACLE,
    Kind.NOT_READABLE: _LEAVE_OBSTACLE,
    Kind.NOT_SHOWN: _LEAVE_OBSTACLE,
    Kind.LEFT_UNDONE: _LEAVE_OBSTACLE,
}
"""How each kind is mended, in this order: what objects prove settles much of what is missing, and counts come last."""


class RepairOutcome(enum.Enum):
    """What becomes of a finding."""

    PLANNED = "planned"
    MENDED = "mended"
    GONE = "gone"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class RepairResult:
    """One finding, and what becomes of it: ``how`` is to be done, was done, or is why it is left, for people."""

    record: FindingRecord
    outcome: RepairOutcome
    how: str


def repair(asked: Repair, *, dry_run: bool = True) -> Iterator[RepairResult]:
    """Plan, or do unless it is a dry run, what mends each open finding; holds one of them, and its object, at a time.

    Running it again goes on with what is open. Two at once do no harm: each changes a row only as it was seen.

    Raises:
        UnavailableError: A server does not answer. What was yielded is done.
        ConflictError: Another process is in the way of planning.
    """
    told_of_finding: tuple[type[Exception], ...] = (NotMendedError, DataError, ObjectFrozenError)
    if not dry_run:
        told_of_finding += (ConflictError,)
    for kind, plan_for in PLANS.items():
        if asked.kinds is not None and kind not in asked.kinds:
            continue
        for record in asked.catalog.findings(asked.topics, [kind]):
            if asked.stop():
                return
            try:
                plan = plan_for(asked, record.finding)
                outcome = RepairOutcome.PLANNED if dry_run else RepairOutcome.MENDED
                how = plan.how if dry_run else plan.do() or plan.how
            except GoneError:
                outcome, how = RepairOutcome.GONE, "it was not found any more"
            except told_of_finding as error:
                outcome, how = RepairOutcome.LEFT, str(error)
            if outcome in (RepairOutcome.MENDED, RepairOutcome.GONE) and not dry_run:
                at = asked.now()
                resolution = f"{outcome.value} on {at:%Y-%m-%d %H:%M} UTC: {how}"
                asked.catalog.resolve_findings([record.number], resolution, at)
            yield RepairResult(record, outcome, how)
