"""Where the archive stands: what ``status`` shows. Changes nothing."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from dataclasses import replace

from hop_archive.archive import Archive
from hop_archive.read.topic_facts import Facts, gather

WINDOWS = {"last_24_hours": datetime.timedelta(hours=24), "last_hour": datetime.timedelta(hours=1)}
"""The windows of a status, besides all time: by when batches were committed."""


def status(archive: Archive, topics: Collection[str] | None = None, *, unasked: str = "") -> Facts:
    """Ask the catalog, and the source where it answers; see `gather` for the arguments.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    return replace(
        gather(archive, topics, unasked=unasked, windows=WINDOWS),
        findings=tuple(archive.catalog.open_findings(topics)),
        shares=tuple(archive.catalog.verified_shares(topics)),
    )
