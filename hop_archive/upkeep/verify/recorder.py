"""Remembering what verification finds: noted in batches, and closed where a complete look did not see it again."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hop_archive.archive import utc_now
from hop_archive.catalog.checked import CheckedRange, CheckedScope, VerifiedRange
from hop_archive.catalog.protocol import Catalog
from hop_archive.errors import ForbiddenError
from hop_archive.model.findings import Finding
from hop_archive.model.wording import counted

log = logging.getLogger(__name__)

_TOGETHER = 500
"""Findings noted in one transaction, at most."""

_SOON_S = 0.5
"""A finding that comes so long after the last were noted, in seconds, is noted and told at once."""


@dataclass(slots=True)
class FindingsRecorder:
    """Writes findings into the catalog while they are found.

    A role that may only read is told once that nothing is remembered, and verification goes on.

    Attributes:
        keeps: Whether anything is written: False from the start where that is wanted, or after it was refused.
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
            rest = self._note(pending)
        yield from rest

    def close(self, scope: CheckedScope) -> None:
        """Close what a complete look did not see again."""
        if not self.keeps:
            return
        at = self.now()
        try:
            self.catalog.close_unseen(scope, f"not found any more on {at:%Y-%m-%d %H:%M} UTC", at)
        except ForbiddenError as error:
            self._give_up(error)

    def resolve(self, numbers: Collection[int]) -> None:
        """Close these, as not found any more."""
        if not self.keeps or not numbers:
            return
        at = self.now()
        try:
            self.catalog.resolve_findings(numbers, f"not found any more on {at:%Y-%m-%d %H:%M} UTC", at)
        except ForbiddenError as error:
            self._give_up(error)

    def note_checked(self, ranges: Sequence[CheckedRange]) -> None:
        """Remember what was looked at, and when."""
        try:
            if self.keeps and ranges:
                self.catalog.note_checked(ranges)
        except ForbiddenError as error:
            self._give_up(error)

    def note_read(self, ranges: Iterable[VerifiedRange]) -> None:
        """Remember which documents were read and compared, and when."""
        try:
            for verified in ranges:
                if self.keeps:
                    self.catalog.note_verified(verified)
        except ForbiddenError as error:
            self._give_up(error)

    def refuse_to_forget(self, found: int) -> None:
        """Refuse to go on to what works on noted findings, where so many were found and none could be noted.

        Raises:
            ForbiddenError: So it is.
        """
        if found and not self.keeps:
            raise ForbiddenError(
                f"{counted(found, 'finding')} found, and the catalog did not let any be noted: nothing is planned or mended of them.",
                remedy="Repair as the role hop_archive_repairer of roles.sql; hop-archive verify tells what they are.",
            )

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
