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
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
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
from hop_archive.upkeep.verify import objects as verifying
from hop_archive.upkeep.verify.notebook import Notebook, Pass, noted_pass, remembering
from hop_archive.upkeep.verify.objects import Verification
from hop_archive.upkeep.verify.scrub import reading_all

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


def verify_first(
    means: Means, topics: Collection[str] = (), *, deep: bool = False, checked: Progress | None = None
) -> Iterator[Finding]:
    """Look at objects, ledger, and the backup where there is one, and note what is found; ``deep``: at every document.

    Objects of which something was told are not read besides, as far as ``noting.remembering`` goes.

    Args:
        means: Catalog, store and backup.
        topics: Names or globs; empty: all.
        deep: Whether to read every document.
        checked: Where to count what is looked at.

    Raises:
        ConfigurationError: A topic means none.
        UnavailableError: A server does not answer. What was yielded is noted.
    """
    wanted = Verification(
        means.catalog,
        means.store,
        Query(tuple(topics)),
        checked=checked or Progress(),
        backup=means.backup,
        backup_grace_s=means.backup_grace_s,
    )
    notebook = Notebook(means.catalog)
    told: set[tuple[str, str]] = set()
    looks = {"objects": verifying.objects, "ledger": verifying.ledger}
    looks |= {"documents": lambda wanted: verifying.documents(wanted, told)} if deep else {}
    looks |= {"backup": verifying.backup_objects} if means.backup is not None else {}
    bucket = means.backup.bucket if means.backup is not None else ""
    for name, look in looks.items():
        spared = {key for _, key in told} if name == "documents" else ()
        of = Pass(name, topics or None, notebook.now(), wanted.grace_s, bucket, spared)
        found = noted_pass(notebook, lambda look=look: look(wanted), of)  # type: ignore[misc] # bound here
        if name == "documents":
            found = reading_all(wanted, notebook, found)
        yield from (finding for finding, is_open in remembering(found, told) if is_open)


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
