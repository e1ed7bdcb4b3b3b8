"""Messages that are in the archive twice: found by the catalog, confirmed document by document, moved to the duplicates.

Copies come from two archivers that wrote at once, from another archiver's own rows, and from a publisher's UUID that was
in use by other content when a message came, and came again. Two messages are the same where they are of one topic, have
the same key, headers (without the archive's own ``_id``) and value, and

- their publisher gave them a UUID, the same one (it is among the headers); or
- their publisher gave none, and their timestamps are the same: the same text an hour later is another message.

Across topics nothing is a copy; across generations and partitions it is. The oldest row stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from hop_archive.catalog.records import Candidate, Copied, Row
from hop_archive.model.document import Document
from hop_archive.model.identity import client_uuid
from hop_archive.model.query import Query
from hop_archive.read.fetch import fetch_documents
from hop_archive.upkeep.remove.remove import Removing, portions

COMMAND = "clean-duplicates"
REASON = "a copy, found in the archive"

_MOST_COMPARED = 20
"""Messages of one topic, timestamp and CRC-32 that differ all the same: beyond so many, the rest is left."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A message and a copy of it.

    Attributes:
        kept: The older row, which stays.
        copy: The other one.
        reason: Why they are the same.
    """

    kept: Row
    copy: Row
    reason: str


class _Stored(NamedTuple):
    """A message as it is archived."""

    row: Row
    document: Document


def find_copies(removing: Removing, query: Query | None = None) -> Iterator[Pair]:
    """The copies in the archive, confirmed; changes nothing. Reads all digests of each topic, and few documents.

    What is missing, damaged or suppressed is no copy of anything: a document that can't be compared stays.

    Args:
        removing: Where rows and objects are.
        query: Of which topics; None for all.

    Raises:
        ConfigurationError: A topic is none; or the store is not the one whose bucket the rows name.
    """
    for topic in (query or Query()).chosen_topics(removing.catalog.known_topics()):
        likely = removing.catalog.likely_copies(topic)
        for _, group in groupby(likely, key=lambda candidate: candidate.group):
            yield from _of_group(removing, group)


def deduplicate(removing: Removing, query: Query | None = None) -> None:
    """Make duplicates of all copies, rows first, objects after. Again: goes on.

    Raises:
        ForbiddenError: The store, or the role, does not let anything be deleted.
        ConfigurationError: As for ``find_copies``.
    """
    deed = removing.deed(COMMAND, REASON)
    removing.delete_pending(COMMAND)
    for pairs in portions(find_copies(removing, query)):
        # A publisher takes back a message, not one of its copies.
        back = [pair.kept.uuid for pair in pairs if pair.copy.retracted and not pair.kept.retracted]
        if back:
            removing.catalog.retract(back, retracted=True)
        copies = [Copied(pair.copy.uuid, pair.kept.uuid, pair.reason) for pair in pairs]
        removing.count(removing.catalog.move_to_duplicates(copies, deed))
        removing.delete_pending(COMMAND)


def _of_group(removing: Removing, group: Iterable[Candidate]) -> Iterator[Pair]:
    """The copies among messages of one digest, or of one timestamp and CRC-32."""
    seen: list[_Stored] = []
    for candidate in group:
        # Without a UUID of their publisher's, only messages of the same moment can be the same.
        if seen and not candidate.is_tied and client_uuid(seen[0].document.message.headers) is None:
            continue
        row = removing.catalog.find(candidate.uuid)
        if row is None:
            continue  # moved, or removed, meanwhile
        (found,) = fetch_documents(removing.store, [removing.at_hand(row)])
        if found.document is None or found.problems or found.document.suppressed:
            continue
        stored = _Stored(row, found.document)
        kept = next((old.row for old in seen if _is_same(old, stored)), None)
        if kept is not None:
            by_us = kept.digest == row.digest
            reason = "same content, stored twice" if by_us else "same content as another archiver's"
            yield Pair(kept, row, reason)
        elif len(seen) < _MOST_COMPARED:
            seen.append(stored)


def _is_same(old: _Stored, new: _Stored) -> bool:
    """Headers are those received: decoding leaves out the archive's own ``_id``."""
    a, b = old.document.message, new.document.message
    if old.row.topic != new.row.topic or (a.key, a.headers, a.value) != (b.key, b.headers, b.value):
        return False
    return client_uuid(a.headers) is not None or a.timestamp_ms == b.timestamp_ms
