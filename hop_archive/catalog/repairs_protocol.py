"""What mending asks of a catalog: a part of its contract. Each call is one transaction, and refuses what has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from hop_archive.catalog.records import Batch, Duplicate, Row
from hop_archive.model.slices import PartitionLog, Slice


class Correction(NamedTuple):
    """A row as it stands, and as it ought to be."""

    was: Row
    now: Row


class RepairsCatalog(Protocol):
    """Corrections of rows, ledger and summary. None can hide that something is missing."""

    def correct_rows(self, corrections: Sequence[Correction]) -> None:
        """Put rows in the place of rows, all or none, each only if it stands exactly as it was seen.

        Raises:
            StaleDecisionError: Another row stands there by now, or none, or one with the same UUID or offset
                elsewhere; nothing was changed. Doing it again after it took effect says so too.
        """

    def put_back(self, batch: Batch) -> None:
        """Add rows and duplicates that the ledger counts and that are not there, all or none.

        The ledger is not changed: what would be more than it counts is refused.

        Args:
            batch: Rows and duplicates of offsets within its slice; its own counts of them mean nothing.

        Raises:
            StaleDecisionError: The ledger counts no more than is there, does not cover an offset, or a UUID or
                offset has a row already; nothing was changed.
        """

    def record_copy(self, at: PartitionLog, copy: Duplicate) -> None:
        """Record a copy at an offset that the ledger calls absent: one duplicate more, one absent offset less.

        Raises:
            StaleDecisionError: The ledger does not call it absent, or something is recorded there; nothing was changed.
        """

    def account(self, batch: Batch) -> None:
        """Cover a slice that no ledger row covers: by what stands there already, and by what is added.

        What is recorded as a duplicate of the very row at its own offset is taken away: no message repeats itself.

        Args:
            batch: The slice; rows and duplicates that are to be added to those that stand there.

        Raises:
            SliceTakenError: The ledger covers some of it by now; nothing was changed.
            StaleDecisionError: A UUID or offset has a row already; nothing was changed.
        """

    def recount_ledger(self, where: Slice) -> None:
        """Make a ledger row say what the rows are. Duplicates that repeat the row at their own offset are taken away.

        Raises:
            StaleDecisionError: No ledger row is exactly of this slice; nothing was changed.
            DataError: It would turn offsets into absent ones that it counts as archived, or it is of a slice that was
                never archived: something is missing, which counting anew would hide.
        """

    def recount_summary(self, topic: str) -> None:
        """Make a topic's summary say what the rows are. Reads every row of the topic; commits meanwhile are counted."""

    def duplicates_in(self, place: Slice, limit: int) -> Sequence[Duplicate]:
        """The first ``limit`` of the recorded duplicates in a slice, by offset."""
