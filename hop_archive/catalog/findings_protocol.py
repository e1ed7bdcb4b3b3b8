"""What a catalog remembers of the findings that verification finds: a part of its contract."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from hop_archive.model.findings import Finding, FindingRecord, Kind, OpenCount


@dataclass(frozen=True, slots=True)
class Looked:
    """What was looked at, whole: a finding that is of this and was not seen is there no more.

    Attributes:
        kinds: The kinds of finding that would have been seen.
        since: When the look began (UTC): what was seen at or after this moment was seen in it.
        topics: The topics looked at; None for all, and for what is of no topic.
        bucket: The one bucket whose objects were looked at; '' for any.
        not_bucket: A bucket whose objects were not looked at; '' for none.
        spared: Keys of objects that were left out.
        of_no_message: Only what is about no single message was looked at.
        young_since: Objects may have been too young to be judged; what was first seen since this moment stays open.
    """

    kinds: Collection[Kind]
    since: datetime.datetime
    topics: Collection[str] | None = None
    bucket: str = ""
    not_bucket: str = ""
    spared: Collection[str] = ()
    of_no_message: bool = False
    young_since: datetime.datetime | None = None


class FindingsCatalog(Protocol):
    """One row for each finding, however often it is seen."""

    def note_findings(self, findings: Sequence[Finding], seen_at: datetime.datetime) -> Sequence[bool]:
        """Remember findings that were seen; noting the same again, or by two at once, is one finding.

        A finding that was accepted before (``ACCEPTED``) is not opened again. What was resolved otherwise is: as a
        new finding.

        Args:
            findings: Some hundreds at a time; which are the same is as ``findings.remembered`` says.
            seen_at: When they were seen (UTC).

        Returns:
            Of each, in the order given, whether it is open now: False where it was accepted.

        Raises:
            ForbiddenError: The role may only read.
        """

    def findings(
        self,
        topics: Collection[str] | None = None,
        kinds: Collection[Kind] | None = None,
        *,
        open_only: bool = True,
        limit: int | None = None,
    ) -> Iterator[FindingRecord]:
        """The findings, streamed in the order in which they were first noted.

        Args:
            topics: Only of these; '' is the topic of what belongs to none. None: of all.
            kinds: Only these; None: all.
            open_only: Leave out what is resolved.
            limit: Most to come; None: no bound.
        """

    def open_findings(self, topics: Collection[str] | None = None) -> Sequence[OpenCount]:
        """How many findings are open, by topic and kind, sorted."""

    def resolve_findings(self, numbers: Collection[int], how: str, at: datetime.datetime) -> int:
        """Close these findings, with what became of them; those that are closed already are left as they are.

        Returns:
            How many were closed.
        """

    def close_unseen(self, looked: Looked, how: str, at: datetime.datetime) -> int:
        """Close what a complete look did not see again.

        Returns:
            How many were closed.
        """
