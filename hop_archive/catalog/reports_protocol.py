"""What a report asks of a catalog, by topic and day: a part of its contract."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol


class MessageDay(NamedTuple):
    """The messages of a topic whose timestamps are of one day (UTC)."""

    topic: str
    day: datetime.date
    messages: int
    size_bytes: int


class LedgerDay(NamedTuple):
    """What the ledger rows of a topic that were committed on one day (UTC) say.

    Attributes:
        topic: Of which topic.
        day: The day.
        duplicates: Offsets that were duplicates.
        lost: Offsets that were found to be lost.
        lag_s: The longest time from a batch's newest message to its commit; None where no batch had a message.
    """

    topic: str
    day: datetime.date
    duplicates: int
    lost: int
    lag_s: float | None


class ReportsCatalog(Protocol):
    """Numbers by topic and day. Costs as much as there is in the days asked for, however large the archive is."""

    def message_days(
        self, since: datetime.datetime, until: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[MessageDay]:
        """Messages and bytes by topic and day of their timestamps, in ``[since, until)``, sorted."""

    def ledger_days(
        self, since: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[LedgerDay]:
        """Duplicates, losses and lag by topic and day of commit, since a moment, sorted.

        Ledger rows that were merged count for the day of the last of them.
        """
