"""Remembering what verification finds: noted in batches, and closed where a complete look did not see it again."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from hop_archive.archive import utc_now
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Looked, VerifiedRange
from hop_archive.errors import ForbiddenError
from hop_archive.model.findings import Finding, Kind

log = logging.getLogger(__name__)

KINDS_OF = {
    "objects": (Kind.MISSING_OBJECT, Kind.WRONG_SIZE, Kind.ORPHAN_OBJECT, Kind.FOREIGN_OBJECT),
    "backup": (Kind.MISSING_OBJECT, Kind.WRONG_SIZE),
    "documents": (Kind.CORRUPT_OBJECT, Kind.ROW_DIFFERS),
    "ledger": (Kind.COVERAGE_HOLE, Kind.COUNT_MISMATCH, Kind.LOST),
    "source": (Kind.NOT_ARCHIVED,),
}
"""The kinds of finding that a complete look in each direction would see, and that are therefore gone if it does not."""

_TOGETHER = 500
"""Findings noted in one transaction, at most."""

_SOON_S = 0.5
"""A finding that comes so long after the last were noted, in seconds, is noted and told at once."""


MOST_TOLD = 100_000
"""So many objects with a finding are told only once where they are read as well; beyond, twice. Some 30 MB."""


@dataclass(slots=True)
class Notebook:
    """Writes findings into the catalog while they are found.

    A role that may only read is told once that nothing is remembered, and verification goes on.

    Attributes:
        catalog: Where to.
        now: The clock on the wall.
        keeps: Whether anything is written: False from the start where that is wanted, or after it was refused.
        monotonic: A clock that never goes back, in seconds.
        accepted: How many of the findings had been accepted before: these are no longer anybody's work.
    """

    catalog: Catalog
    now: Callable[[], datetime.datetime] = utc_now
    keeps: bool = True
    monotonic: Callable[[], float] = time.monotonic
    accepted: int = 0

    def noted(self, findings: Iterable[Finding]) -> Iterator[tuple[Finding, bool]]:
        """Pass findings on once they are noted, each with whether it is open: False where it was accepted."""
        pending: list[Finding] = []
        noted_at = float("-inf")
        try:
            for finding in findings:
                pending.append(finding)
                if len(pending) >= _TOGETHER or self.monotonic() - noted_at > _SOON_S:
                    some, pending = pending, []
                    yield from self._note(some)
                    noted_at = self.monotonic()
        finally:  # who interrupts a look of hours keeps what it found
            rest = list(self._note(pending))
        yield from rest

    def close(self, looked: Looked) -> int:
        """Close what a complete look did not see again; how many findings that was."""
        if not self.keeps:
            return 0
        at = self.now()
        try:
            return self.catalog.close_unseen(looked, f"not found any more on {at:%Y-%m-%d %H:%M} UTC", at)
        except ForbiddenError as error:
            self._give_up(error)
            return 0

    def note_read(self, ranges: Iterable[VerifiedRange]) -> None:
        """Remember which documents were read and compared, and when."""
        try:
            for one in ranges:
                if self.keeps:
                    self.catalog.note_verified(one)
        except ForbiddenError as error:
            self._give_up(error)

    def _note(self, some: list[Finding]) -> list[tuple[Finding, bool]]:
        opened = [True] * len(some)
        if self.keeps and some:
            try:
                opened = list(self.catalog.note_findings(some, self.now()))
            except ForbiddenError as error:
                self._give_up(error)
        self.accepted += len(opened) - sum(opened)
        return list(zip(some, opened, strict=True))

    def _give_up(self, error: ForbiddenError) -> None:
        log.warning("What is found is not remembered: %s", error)
        self.keeps = False


def noted_pass(
    notebook: Notebook,
    look: Callable[[], Iterable[Finding]],
    of: Pass,
    *,
    whole: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[Finding, bool]]:
    """Note what one look finds, each with whether it is open; what a look did not see again is closed at its end, if it was whole."""
    yield from notebook.noted(look())
    if whole():
        for looked in of.looked():
            notebook.close(looked)


def remembering(
    found: Iterable[tuple[Finding, bool]], told: set[tuple[str, str]]
) -> Iterator[tuple[Finding, bool]]:
    """Pass findings on, and remember bucket and key of their objects in ``told``, up to ``MOST_TOLD`` of them."""
    for finding, is_open in found:
        if finding.object_key and len(told) < MOST_TOLD:
            told.add((finding.bucket, finding.object_key))
        yield finding, is_open


@dataclass(frozen=True, slots=True)
class Pass:
    """One direction's complete look over some topics.

    Attributes:
        direction: A key of ``KINDS_OF``.
        topics: The topics looked at; None for all.
        began: When (UTC).
        grace_s: How old an object had to be to be judged.
        backup_bucket: The bucket of the backup; '' where there is none.
        spared: Keys of objects whose documents were left out.
    """

    direction: str
    topics: Collection[str] | None
    began: datetime.datetime
    grace_s: float = 0.0
    backup_bucket: str = ""
    spared: Collection[str] = ()

    def looked(self) -> Iterator[Looked]:
        """What it has looked at, as the catalog is told."""
        orphans = (Kind.ORPHAN_OBJECT, Kind.FOREIGN_OBJECT)
        kinds = KINDS_OF[self.direction]
        if self.direction == "backup":
            yield Looked(kinds, self.began, self.topics, bucket=self.backup_bucket)
            return
        young = self.began - datetime.timedelta(seconds=self.grace_s)
        others = [kind for kind in kinds if kind not in orphans]
        # What Kafka was found to hold otherwise names no object: only reading it again could tell.
        spared = (*self.spared, "") if self.direction == "documents" else self.spared
        yield Looked(
            others,
            self.began,
            self.topics,
            not_bucket=self.backup_bucket,
            spared=spared,
            of_no_message=self.direction == "source",
        )
        if len(others) < len(kinds):
            yield Looked(orphans, self.began, self.topics, young_since=young)
