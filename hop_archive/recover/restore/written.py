"""What came of writing one target topic."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from hop_archive.catalog.stored import Stored
from hop_archive.recover.restore.items import Page

_MOST_TOLD = 1_000


class LeftOut(NamedTuple):
    """A message that was not written.

    Attributes:
        partition: Where it stood; None where nobody knows, as for ``offset``.
    """

    uuid: str
    topic: str
    partition: int | None
    offset: int | None
    why: str


@dataclass(slots=True)
class Written:
    """What stands in one target topic by now, of this restore.

    Attributes:
        counts: Messages by partition.
        left_out: The first of the messages that were left out because they cannot be had, or not be sent.
        tests: How many test messages were left out, as was asked for.
        caveats: How many may not be what Kafka carried, by in what.
    """

    counts: Counter[int] = field(default_factory=Counter)
    left_out: list[LeftOut] = field(default_factory=list)
    left_out_count: int = 0
    tests: int = 0
    caveats: Counter[str] = field(default_factory=Counter)
    complete: bool = False

    def leave_out(self, page: Page, stored: Stored, why: str) -> None:
        """Take down a message that is not written."""
        self.left_out_count += 1
        if len(self.left_out) < _MOST_TOLD:
            partition = page.partition_log.partition if page.partition_log else None
            place = (page.topic, partition, stored.offset)
            self.left_out.append(LeftOut(str(stored.message_uuid), *place, why))
