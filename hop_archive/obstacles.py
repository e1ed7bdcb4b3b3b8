"""What is in archiving's way and stays there: remembered as findings, and closed once it is seen no more."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from hop_archive.archive import Archive
from hop_archive.catalog.findings_protocol import Looked
from hop_archive.errors import ForbiddenError
from hop_archive.findings import Kind, Trouble

log = logging.getLogger(__name__)


def note_obstacles(
    archive: Archive, topics: Collection[str] | None, kinds: Collection[Kind], troubles: Sequence[Trouble]
) -> None:
    """Make the open findings of ``kinds`` in ``topics`` those that a complete look has just seen.

    Since when each has been there is its finding's ``first_seen``. Where nothing was seen and nothing was open, nothing is
    written: the look of every few seconds costs one query. A role that may only read remembers nothing, and is told so in
    the log.

    Args:
        archive: Whose catalog.
        topics: What was looked at; None for all.
        kinds: Kinds of obstacle that the look would have seen.
        troubles: What it saw.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    at = archive.now()
    was_open = any(one.kind in kinds for one in archive.catalog.open_findings(topics))
    try:
        if troubles:
            archive.catalog.note_findings(troubles, at)
        if was_open:
            how = f"not in the way any more on {at:%Y-%m-%d %H:%M} UTC"
            archive.catalog.close_unseen(Looked(kinds, at, topics), how, at)
    except ForbiddenError as error:
        log.warning("What is in the way is not remembered: %s", error)
