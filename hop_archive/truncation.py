"""Whether a log is still the one that was archived: read again where the coverage ends, and compared. Changes nothing.

A log may lose its end (power loss, election of a replica that lagged behind) and grow past it again. Its topic id stays,
its watermarks tell nothing, and to read on where the coverage ends would skip what is new below. Kafka gives each new
leader an epoch (KIP-101), so only a partition whose epoch moved has to be looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hop_archive.archive import Archive
from hop_archive.catalog.protocol import Outcome, Standing
from hop_archive.deciding import decide
from hop_archive.errors import DataError, ForbiddenError, HopArchiveError, UnavailableError
from hop_archive.identity import digest
from hop_archive.message import Message
from hop_archive.planning import Knowledge
from hop_archive.reading import Reading, read_slices
from hop_archive.selecting import Query
from hop_archive.slices import EMPTY, Lineage, OffsetSet, Slice

log = logging.getLogger(__name__)

_MESSAGES = 5
"""So many of the last messages are read again: of a compacted topic the very last may be gone by now."""

_FARTHEST = 20_000
"""No offset so far from the end of the coverage is read: what follows is markers, or messages that were cleaned up."""

_STALL_S = 10.0


@dataclass(slots=True)
class Proof:
    """What reading the ends of logs again has shown.

    Attributes:
        same: The logs that are still those that were archived.
        other: Those that are not: the offsets from the first that is known to differ to the end of the coverage, and how.

    What is in neither could not be read to its end: it is for the next plan to prove.
    """

    same: set[Lineage] = field(default_factory=set)
    other: dict[Lineage, tuple[Slice, str]] = field(default_factory=dict)


@dataclass(slots=True)
class _Tail:
    """The end of one partition's coverage: what was archived there, and what Kafka delivers now.

    Attributes:
        slice: What there is to compare.
        is_all: Whether that reaches to the end of the coverage; an open transaction may stand before it.
        standing: What was archived, by offset.
        delivered: What Kafka delivers; None where the client cannot represent it.
        reached: Up to where it was read.
    """

    slice: Slice
    is_all: bool
    standing: Mapping[int, Standing]
    delivered: dict[int, Message | None] = field(default_factory=dict)
    reached: int = 0

    def take(self, reading: Reading) -> None:
        """Keep what was read."""
        self.reached = reading.slice.stop
        self.delivered.update((message.offset, message) for message in reading.messages)
        if reading.skipped:
            self.delivered[reading.slice.start] = None

    @property
    def is_read(self) -> bool:
        """Whether all of it was read."""
        return self.is_all and self.reached >= self.slice.stop


def prove_tails(archive: Archive, doubtful: Mapping[Lineage, Knowledge]) -> Proof:
    """Read again, of each partition, the last messages that were archived and all up to the end of its coverage.

    A message with another timestamp or digest, one where the ledger says that nothing stands, and none where one was
    archived (unless the topic is compacted) are differences. What retention has removed, what was skipped, pruned or
    lost, and what has no digest any more can't be compared, and is none.

    Args:
        archive: The source and the catalog.
        doubtful: Partitions with coverage.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    proof = Proof()
    standing = archive.catalog.tails(list(doubtful), _MESSAGES)
    tails: dict[Lineage, _Tail] = {}
    for lineage, known in doubtful.items():
        tail = _tail(lineage, known, standing.get(lineage, ()))
        if tail is None:
            proof.same.add(lineage)
        else:
            tails[lineage] = tail
    _read(archive, tails)
    for lineage, tail in tails.items():
        difference = _difference(archive, tail)
        if difference is not None:
            offset, how = difference
            proof.other[lineage] = (Slice(*lineage, offset, doubtful[lineage].coverage.stop), how)
        elif tail.is_read:
            proof.same.add(lineage)
        else:
            log.warning("Whether %s is what was archived could not be read; it waits", tail.slice)
    return proof


def begins_as_archived(archive: Archive, lineage: Lineage, low: int) -> bool:
    """Whether the first message that Kafka holds of what was archived is still the same: then so was all below it.

    Args:
        archive: The source and the catalog.
        lineage: As it was archived.
        low: The first offset that Kafka holds now.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    covered = archive.catalog.coverage([lineage.topic]).get(lineage, EMPTY)
    if low >= covered.stop or lineage.topic not in archive.catalog.topics():
        return False
    place = Slice(*lineage, low, covered.stop)
    row = next(archive.catalog.select(Query((lineage.topic,), places=(place,))), None)
    if row is None or row.offset is None:
        return False
    standing = {row.offset: Standing(row.offset, row.timestamp_ms, row.digest)}
    head = _Tail(place.within(row.offset, row.offset + 1), is_all=True, standing=standing)
    _read(archive, {lineage: head})
    return row.offset in head.delivered and _difference(archive, head) is None


def _tail(lineage: Lineage, known: Knowledge, standing: Sequence[Standing]) -> _Tail | None:
    """What of a partition is to be compared; None where Kafka holds nothing any more of what is covered."""
    marks, end = known.watermarks, known.coverage.stop
    first = max(marks.low, end - _FARTHEST)
    if first >= end:
        return None
    held = {one.offset: one for one in standing if first <= one.offset < marks.stable}
    start, stop = min(held, default=first), min(end, marks.stable)
    if start >= stop:  # all of it is behind an open transaction, which it was not when it was archived
        return _Tail(Slice(*lineage, start, end), is_all=False, standing={})
    return _Tail(Slice(*lineage, start, stop), stop == end, held)


def _read(archive: Archive, tails: Mapping[Lineage, _Tail]) -> None:
    """Read as much of the tails as can be read; what is damaged is passed over, since no run will ever read it."""
    while slices := [
        tail.slice.within(max(tail.reached, tail.slice.start), tail.slice.stop)
        for tail in tails.values()
        if tail.is_all and tail.reached < tail.slice.stop
    ]:
        refused: list[HopArchiveError] = []
        try:
            with archive.source.reader({}) as reader:
                readings = read_slices(
                    reader, slices, archive.limits, archive.monotonic, _STALL_S, refused=refused.append
                )
                for reading in readings:
                    tails[reading.slice.lineage].take(reading)
        except UnavailableError as error:
            log.warning("Not all ends of logs could be read again: %s", error)
            return
        damaged = [error for error in refused if isinstance(error, DataError)]
        for other in refused:
            if other not in damaged:
                log.warning("The end of a log could not be read again: %s", other)
        if not damaged:
            return
        for damage in damaged:
            log.warning("A message that was archived can't be read again, and is not compared: %s", damage)
            facts = damage.facts
            for lineage, tail in tails.items():
                if (lineage.topic, lineage.partition) == (facts.get("topic"), facts.get("partition")):
                    tail.reached = int(str(facts["offset"])) + 1
                    tail.standing = {o: s for o, s in tail.standing.items() if o in tail.delivered}


def _difference(archive: Archive, tail: _Tail) -> tuple[int, str] | None:
    """The first offset at which Kafka holds something else than was archived, and how it differs; None: no such."""
    for offset, message in sorted(tail.delivered.items()):
        standing = tail.standing.get(offset)
        if standing is not None and not _is_same(message, standing):
            return offset, f"Kafka holds another message at offset {offset} than was archived"
    if (unexpected := _unexpected(archive, tail)) is not None:
        return (
            unexpected,
            f"Kafka holds a message at offset {unexpected}, where none was when it was archived",
        )
    missing = sorted(o for o in tail.standing if o not in tail.delivered and o < tail.reached)
    if missing and not (tail.standing.keys() & tail.delivered.keys() and _is_compacted(archive, tail.slice)):
        return missing[0], f"Kafka holds nothing at offset {missing[0]}, of which a message was archived"
    return None


def _unexpected(archive: Archive, tail: _Tail) -> int | None:
    """The first offset at which a message is delivered, and the ledger says that none was; None: there is no such.

    Copies are none: a catalog that was rebuilt counts those of segments as absent, which no document shows.
    """
    new = tail.delivered.keys() - tail.standing.keys()
    archived = _archived(archive, tail.slice) if new else EMPTY
    there = sorted(offset for offset in new if offset in archived)
    messages = [message for offset in there if (message := tail.delivered[offset]) is not None]
    copies = {
        one.message.offset
        for one in decide(messages, archive.catalog, archive.store)
        if one.duplicate_of is not None
    }
    return next((offset for offset in there if offset not in copies), None)


def _is_same(message: Message | None, standing: Standing) -> bool:
    if message is None or message.timestamp_ms != standing.timestamp_ms:
        return False
    return standing.digest in (None, digest(message.key, message.headers, message.value))


def _archived(archive: Archive, where: Slice) -> OffsetSet:
    """What the ledger says was read: of what was skipped, pruned or lost Kafka may well hold something."""
    entries = (one for one in archive.catalog.ledger([where.topic]) if one.outcome is Outcome.ARCHIVED)
    return OffsetSet.of(
        (one.slice.start, one.slice.stop) for one in entries if one.slice.lineage == where.lineage
    )


def _is_compacted(archive: Archive, where: Slice) -> bool:
    """Whether messages may go from between others; no, where that may not be seen: then they count as missing."""
    try:
        settings = archive.source.settings([where.topic]).get(where.topic, {})
    except ForbiddenError:
        return False
    return "cleanup.policy" in settings and "compact" in settings["cleanup.policy"].value
