"""Where the archive stands: what ``status`` shows. Changes nothing."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from dataclasses import dataclass

from hop_archive.archive import Archive
from hop_archive.catalog.records import VerifiedShare
from hop_archive.model.findings import Finding, OpenCount
from hop_archive.read.topic_facts import TopicFacts, gather

WINDOWS = {"last_24_hours": datetime.timedelta(hours=24), "last_hour": datetime.timedelta(hours=1)}
"""The windows of a status, besides all time: by when batches were committed."""


@dataclass(frozen=True, slots=True)
class Status:
    """Where the archive stands.

    Attributes:
        topics: By name: those that are archived now, and those that the catalog knows from before.
        at: When this was asked (UTC).
        source_error: Why lags are not known; '' where they are.
        findings: What is wrong or in the way and nobody has settled, by topic and kind.
        shares: How much of each topic was read and compared by scrubbing.
        obstacles: What could not be looked at, or may not be read, just now.
        unmet: Names and globs of the source's stanza of which nothing comes.
    """

    topics: tuple[TopicFacts, ...]
    at: datetime.datetime
    source_error: str = ""
    findings: tuple[OpenCount, ...] = ()
    shares: tuple[VerifiedShare, ...] = ()
    obstacles: tuple[Finding, ...] = ()
    unmet: tuple[str, ...] = ()


def status(archive: Archive, topics: Collection[str] | None = None, *, unasked: str = "") -> Status:
    """Ask the catalog, and the source where it answers; see `gather` for the arguments.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    facts = gather(archive, topics, unasked=unasked, windows=WINDOWS)
    return Status(
        facts.topics,
        facts.at,
        facts.source_error,
        tuple(archive.catalog.open_findings(topics)),
        tuple(archive.catalog.verified_shares(topics)),
        facts.obstacles,
        facts.unmet,
    )
