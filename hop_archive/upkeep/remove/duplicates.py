"""Messages that are in the archive twice: found by the catalog, confirmed document by document, moved to the duplicates.

Copies come from two archivers that wrote at once, from another archiver's own rows, and from a publisher's UUID that was
in use by other content when a message came, and came again. Two messages are the same where they are of one topic, have
the same key, headers (without the archive's own ``_id``) and value, and

- their publisher gave them a UUID, the same one (it is among the headers); or
- their publisher gave none, and their timestamps are the same: the same text an hour later is another message.

Across topics nothing is a copy; across generations and partitions it is. The oldest row stays.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from hop_archive.catalog.records import CopyOf, Row
from hop_archive.model.identity import client_uuid
from hop_archive.model.query import Query
from hop_archive.read.fetch import fetch_documents
from hop_archive.upkeep.failures import Failures
from hop_archive.upkeep.remove.remove import Removing, portions

COMMAND = "clean-duplicates"
FAILURES = partial(Failures, "topic", "could not be deduplicated")
REASON = "a copy, found in the archive"

MOST_SORTED = 2_000_000
"""Digests that a scheduled look sorts, of the smallest topics first: some five seconds. Of the others it reads those alone that archiving
itself may leave twice."""

_MOST_COMPARED = 20
"""Messages of one topic, timestamp and CRC-32 that differ all the same: beyond so many, the rest is left."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A message, the older row of the two, which stays; a copy of it; and why they are the same."""

    kept: Row
    copy: Row
    reason: str


def sorted_topics(removing: Removing, query: Query | None = None, most: int = MOST_SORTED) -> frozenset[str]:
    """The topics, the smallest first, whose messages are no more than ``most`` together."""
    messages = {summary.topic: summary.messages for summary in removing.catalog.summaries()}
    chosen = (query or Query()).chosen_topics(removing.catalog.known_topics())
    in_order = sorted(chosen, key=lambda topic: messages.get(topic, 0))
    totals = itertools.accumulate(messages.get(topic, 0) for topic in in_order)
    return frozenset(topic for topic, total in zip(in_order, totals, strict=True) if total <= most)


def find_copies(
    removing: Removing, query: Query | None = None, sorting: Collection[str] | None = None
) -> Iterator[Pair]:
    """The copies in the archive, confirmed; changes nothing. Reads all digests of each topic, and few documents.

    With ``sorting`` only those of these topics: of the others such as archiving itself may leave twice, as
    ``Catalog.likely_copies`` has it.

    What is missing, damaged or suppressed is no copy of anything: a document that can't be compared stays. Of ``query``
    the topics count; None for all.

    Raises:
        ConfigurationError: A topic is none; or the store is not the one whose bucket the rows name.
    """
    for topic in (query or Query()).chosen_topics(removing.catalog.known_topics()):
        yield from _copies_in(removing, topic, by_digest=sorting is None or topic in sorting)


def _copies_in(removing: Removing, topic: str, *, by_digest: bool) -> Iterator[Pair]:
    likely = removing.catalog.likely_copies(topic, by_digest=by_digest)
    # Messages of one digest, or of one timestamp and CRC-32.
    for _, group in groupby(likely, key=lambda candidate: candidate.group):
        seen: dict[tuple[object, ...], Row] = {}
        of_one_moment = False  # without a UUID of their publisher's, only such messages can be the same
        for candidate in group:
            if of_one_moment and not candidate.is_tied:
                continue
            row = removing.catalog.find(candidate.uuid)
            if row is None:
                continue  # moved, or removed, meanwhile
            (found,) = fetch_documents(removing.store, [removing.at_hand(row)])
            if found.document is None or found.problems or found.document.suppressed:
                continue
            message = found.document.message
            moment = message.timestamp_ms if client_uuid(message.headers) is None else None
            of_one_moment = moment is not None if not seen else of_one_moment
            # Headers are those received: decoding leaves out the archive's own ``_id``.
            content = (row.topic, message.key, message.headers, message.value, moment)
            if (kept := seen.get(content)) is not None:
                by_us = kept.digest == row.digest
                reason = "same content, stored twice" if by_us else "same content as another archiver's"
                yield Pair(kept, row, reason)
            elif len(seen) < _MOST_COMPARED:
                seen[content] = row


def deduplicate(removing: Removing, query: Query | None = None) -> None:
    """Make duplicates of all copies, rows first, objects after. Again: goes on.

    A topic of which something fails stops no other one; it is told once those are done.

    Raises:
        ForbiddenError: The store, or the role, does not let anything be deleted.
        ConfigurationError: As for ``find_copies``.
    """
    removal = removing.removal(COMMAND, REASON)
    with removing.command(COMMAND, None, FAILURES) as failures:
        for topic in (query or Query()).chosen_topics(removing.catalog.known_topics()):
            with failures.of(topic, removing.all_answer):
                for pairs in portions(_copies_in(removing, topic, by_digest=True)):
                    # A publisher takes back a message, not one of its copies.
                    back = [
                        pair.kept.uuid for pair in pairs if pair.copy.retracted and not pair.kept.retracted
                    ]
                    if back:
                        removing.catalog.retract(back, retracted=True)
                    copies = [CopyOf(pair.copy.uuid, pair.kept.uuid, pair.reason) for pair in pairs]
                    removing.count(removing.catalog.move_to_duplicates(copies, removal))
                    removing.delete_pending(COMMAND)
