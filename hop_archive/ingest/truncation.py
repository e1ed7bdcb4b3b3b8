"""Whether a log is still the one that was archived: read again where the coverage ends, and compared. Changes nothing.

A log may lose its end (power loss, election of a replica that lagged behind) and grow past it again. Its topic id stays,
its watermarks tell nothing, and to read on where the coverage ends would skip what is new below. Kafka gives each new
leader an epoch (KIP-101), so only a partition whose epoch moved has to be looked at.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hop_archive.archive import Archive
from hop_archive.catalog.records import Outcome, Standing
from hop_archive.errors import ConflictError, DataError, HopArchiveError, UnavailableError
from hop_archive.ingest.decide import decide
from hop_archive.ingest.plan import Knowledge
from hop_archive.ingest.read import Reading, read_slices
from hop_archive.model.identity import digest
from hop_archive.model.message import Message, TopicPartition
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice, offsets_by_log
from hop_archive.source.protocol import place_of

log = logging.getLogger(__name__)

_MESSAGES = 5
"""So many of the last messages are read again: of a compacted topic the very last may be gone by now."""

_MORE_MESSAGES = 500
"""So many, where none of those is there any more: compaction may have taken them all."""

_AT_ONCE = 100
"""So many partitions are read again at a time: after a restart of brokers all are doubtful."""

_FARTHEST = 20_000
"""No offset so far from the end of the coverage is read: what follows is markers, or messages that were cleaned up."""

_STALL_S = 10.0
"""How long the whole proof waits for what cannot be read, seconds, however many partitions there are."""

_LEAST_S = 0.5
"""With less than that left, nothing is begun to be read."""


@dataclass(slots=True)
class ProvenTails:
    """What reading the ends of logs again has shown.

    Attributes:
        same: The logs that are still those that were archived.
        other: Those that are not: the offsets from the first that is known to differ to the end of the coverage, and how.
        left: Why the others could not be read to their ends, or compared: they are for the next plan to prove.
    """

    same: set[PartitionLog] = field(default_factory=set)
    other: dict[PartitionLog, tuple[Slice, str]] = field(default_factory=dict)
    left: dict[PartitionLog, HopArchiveError] = field(default_factory=dict)


@dataclass(slots=True)
class _Tail:
    """The end of one partition's coverage, compared with what Kafka delivers; holds no message.

    Attributes:
        is_all: Whether that reaches to the end of the coverage; an open transaction may stand before it.
        standing: What was archived, by offset.
        same: The offsets of ``standing`` at which Kafka holds the same.
        differs: The first of them at which it holds something else.
        unexpected: The first offset at which it holds a message, and the ledger says that none was.
        reached: Up to where it was read.
        error: Why it could not be read further.
        archived: What the ledger says was archived of the partition, once that is asked.
    """

    slice: Slice
    is_all: bool
    standing: Mapping[int, Standing]
    same: set[int] = field(default_factory=set)
    differs: int | None = None
    unexpected: int | None = None
    reached: int = 0
    error: HopArchiveError | None = None
    archived: OffsetSet | None = None

    @classmethod
    def of(cls, partition_log: PartitionLog, known: Knowledge, standing: Sequence[Standing]) -> _Tail | None:
        """What of a partition is to be compared; None where Kafka holds nothing any more of what is covered."""
        marks, end = known.watermarks, known.coverage.stop
        first = max(marks.low, end - _FARTHEST)
        if first >= end:
            return None
        stop = min(end, marks.stable)  # another run may have archived what stands behind that since
        held = {message.offset: message for message in standing if first <= message.offset < stop}
        start = min(held, default=first)
        if start >= stop:  # all of it is behind an open transaction, which it was not when it was archived
            return cls(Slice(*partition_log, start, end), is_all=False, standing={})
        return cls(Slice(*partition_log, start, stop), stop == end, held)

    def take(self, archive: Archive, reading: Reading) -> None:
        """Compare what was read."""
        self.reached = reading.slice.stop
        delivered: dict[int, Message | None] = {message.offset: message for message in reading.messages}
        if reading.skipped:
            delivered[reading.slice.start] = None
        for offset, message in sorted(delivered.items()):
            standing = self.standing.get(offset)
            if standing is None:
                continue
            if (
                message is not None
                and message.timestamp_ms == standing.timestamp_ms
                and standing.digest in (None, digest(message.key, message.headers, message.value))
            ):
                self.same.add(offset)
            elif self.differs is None:
                self.differs = offset
        new = {offset: message for offset, message in delivered.items() if offset not in self.standing}
        if new and self.unexpected is None:
            if self.archived is None:
                # Of what was skipped, pruned or lost Kafka may well hold something.
                ledger = archive.catalog.ledger([self.slice.topic])
                archived = offsets_by_log(e.slice for e in ledger if e.outcome is Outcome.ARCHIVED)
                self.archived = archived.get(self.slice.partition_log, EMPTY)
            there = {offset: new[offset] for offset in sorted(new) if offset in self.archived}
            messages = [message for message in there.values() if message is not None]
            decisions = decide(messages, archive.catalog, archive.store) if messages else []
            # Copies are none: a catalog that was rebuilt counts those of segments as absent, which no document shows.
            copies = {d.message.offset for d in decisions if d.duplicate_of is not None}
            self.unexpected = min(there.keys() - copies, default=None)

    def pass_over(self, offset: int) -> None:
        """Go on after a message that is damaged: it, and what is behind it in its batch, can't be compared."""
        passed = max(offset, self.reached, self.slice.start)
        self.standing = {o: s for o, s in self.standing.items() if o in self.same or o > passed}
        self.reached = passed + 1

    @property
    def is_read(self) -> bool:
        """Whether all of it was read."""
        return self.is_all and self.reached >= self.slice.stop

    @property
    def difference(self) -> tuple[int, str] | None:
        """The first offset at which Kafka holds something that was not archived there, and how it differs; None: no such."""
        if self.differs is not None:
            return self.differs, f"Kafka holds another message at offset {self.differs} than was archived"
        if self.unexpected is not None:
            how = f"Kafka holds a message at offset {self.unexpected}, where none was when it was archived"
            return self.unexpected, how
        return None

    @property
    def missing(self) -> list[int]:
        """Where a message was archived and Kafka holds none, above all that is the same: a cut takes all that is above it."""
        proven = max(self.same, default=-1)
        return sorted(o for o in self.standing if proven < o < self.reached and o != self.differs)

    def what_is_missing(self, archive: Archive) -> tuple[int, str] | None:
        """The first offset of which Kafka holds nothing any more, where compaction is not why.

        Nothing stands there now, so there is nothing to archive there: only below may something be that was not archived,
        and not even there, where a message below is the same.

        Raises:
            UnavailableError: The source does not answer.
        """
        first, topic = self.missing[0], self.slice.topic
        try:
            settings = archive.source.settings([topic]).get(topic, {})
        except UnavailableError:
            raise
        except HopArchiveError:
            settings = {}
        policy = settings.get("cleanup.policy")  # None: it may not be seen
        if self.same if policy is None else "compact" in policy.value:
            log.warning(
                "Kafka holds nothing at offset %d of %s any more: compaction took it", first, self.slice
            )
            return None
        hidden = ", and whether the topic is compacted may not be seen" if policy is None else ""
        return first, f"Kafka holds nothing at offset {first}, of which a message was archived{hidden}"


def prove_tails(archive: Archive, doubtful: Mapping[PartitionLog, Knowledge]) -> ProvenTails:
    """Read again, of each partition, the last messages that were archived and all up to the end of its coverage.

    A message with another timestamp or digest, one where the ledger says that nothing stands, and none where one was
    archived (unless a later one is the same, or the topic is compacted) are differences. What retention has removed, what
    was skipped, pruned or lost, and what has no digest any more can't be compared, and is none. What is held meanwhile is
    bounded by the limits of reading, and what cannot be read is waited for ten seconds in all, whatever the number of
    partitions: those that there was no time for are ``left``, too. Which are read first is another matter each time. All
    that are ``doubtful`` have coverage.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    proof, patience = ProvenTails(), _Patience()
    remaining = sorted(doubtful)
    # Each time from elsewhere on, so that all have their turn, however many of the first cannot be read.
    turn = _AT_ONCE * (archive.now().microsecond % max(1, math.ceil(len(remaining) / _AT_ONCE)))
    remaining = remaining[turn:] + remaining[:turn]
    while some := {partition_log: doubtful[partition_log] for partition_log in remaining[:_AT_ONCE]}:
        remaining = remaining[_AT_ONCE:]
        patience.is_last = not remaining
        vanished = _prove(archive, some, _MESSAGES, proof, patience)
        if vanished:
            again = {partition_log: some[partition_log] for partition_log in vanished}
            _prove(archive, again, _MORE_MESSAGES, proof, patience)
    return proof


@dataclass(slots=True)
class _Patience:
    """How long may still be waited for what cannot be read: half of that for these, half for those after them, if any are."""

    left_s: float = _STALL_S
    is_last: bool = True

    @property
    def stall_s(self) -> float:
        """How long these may stand still."""
        return self.left_s if self.is_last else self.left_s / 2


def _prove(
    archive: Archive,
    doubtful: Mapping[PartitionLog, Knowledge],
    most: int,
    proof: ProvenTails,
    patience: _Patience,
) -> list[PartitionLog]:
    """Compare the last ``most`` messages of each; those of which none is left, and more have to be compared."""
    standing = archive.catalog.tails(list(doubtful), most)
    tails: dict[PartitionLog, _Tail] = {}
    for partition_log, known in doubtful.items():
        tail = _Tail.of(partition_log, known, standing.get(partition_log, ()))
        if tail is None:
            proof.same.add(partition_log)
        else:
            tails[partition_log] = tail
    _read(archive, tails, patience)
    vanished = []
    for partition_log, tail in tails.items():
        try:
            difference = tail.difference
            if difference is None and tail.missing:
                if most < _MORE_MESSAGES and not tail.same and tail.is_read:
                    vanished.append(partition_log)
                    continue
                difference = tail.what_is_missing(archive)
        except UnavailableError as error:
            proof.left[partition_log] = error
            continue
        if difference is not None:
            offset, how = difference
            proof.other[partition_log] = (
                Slice(*partition_log, offset, doubtful[partition_log].coverage.stop),
                how,
            )
        elif tail.is_read:
            proof.same.add(partition_log)
        else:
            where = tail.slice
            proof.left[partition_log] = tail.error or ConflictError(
                f"{where.topic_partition} has another leader, and whether {where} is still what was archived could not be "
                "read: an open transaction stands before it, or the log changed meanwhile. Nothing of the partition is "
                "archived until then.",
                remedy="The next run tries again. If it stays, look for a transaction that hangs.",
                topic=where.topic,
                partition=where.partition,
            )
    return vanished


def begins_as_archived(archive: Archive, partition_log: PartitionLog, low: int) -> bool:
    """Whether the first message, from ``low`` on, that Kafka holds of what was archived is still the same: then so was all below.

    Raises:
        UnavailableError: The catalog does not answer.
    """
    covered = archive.catalog.coverage([partition_log.topic]).get(partition_log, EMPTY)
    if low >= covered.stop or partition_log.topic not in archive.catalog.topics():
        return False
    place = Slice(*partition_log, low, covered.stop)
    rows = itertools.islice(archive.catalog.select(Query((partition_log.topic,), places=(place,))), _MESSAGES)
    standing = {
        row.offset: Standing(row.offset, row.timestamp_ms, row.digest)
        for row in rows
        if row.offset is not None
    }
    if not standing:
        return False
    head = _Tail(place.within(min(standing), max(standing) + 1), is_all=True, standing=standing)
    _read(archive, {partition_log: head}, _Patience())
    return bool(head.same) and (head.differs is None or min(head.same) < head.differs)


def _read(archive: Archive, tails: Mapping[PartitionLog, _Tail], patience: _Patience) -> None:
    """Read as much of the tails as can be read; what is damaged is passed over, since no run will ever read it."""
    at: dict[TopicPartition | None, _Tail] = {tail.slice.topic_partition: tail for tail in tails.values()}
    while slices := [
        tail.slice.within(max(tail.reached, tail.slice.start), tail.slice.stop)
        for tail in tails.values()
        if tail.is_all and tail.reached < tail.slice.stop and tail.error is None
    ]:
        if patience.left_s < _LEAST_S:
            for where in slices:
                tails[where.partition_log].error = UnavailableError(
                    f"{where.topic_partition} has another leader, and whether {where} is still what was archived was not "
                    "looked at: all the time that there is went by waiting for other partitions. Nothing of the partition is "
                    "archived until then.",
                    remedy="Look at the brokers that lead those; the next run tries again.",
                    topic=where.topic,
                    partition=where.partition,
                )
            return
        refused: list[HopArchiveError] = []
        moved_at = archive.monotonic()
        try:
            with archive.source.reader({}) as reader:
                readings = read_slices(
                    reader,
                    slices,
                    archive.limits,
                    archive.monotonic,
                    patience.stall_s,
                    refused=refused.append,
                )
                for reading in readings:
                    tails[reading.slice.partition_log].take(archive, reading)
                    moved_at = archive.monotonic()
        except UnavailableError as error:
            log.warning("Not all ends of logs could be read again: %s", error)
            for where in slices:
                if not tails[where.partition_log].is_read:
                    tails[where.partition_log].error = error
            return
        finally:
            if any(not tails[where.partition_log].is_read for where in slices):
                patience.left_s -= archive.monotonic() - moved_at
        for why in refused:
            if isinstance(why, DataError):
                log.warning("A message that was archived can't be read again, and is not compared: %s", why)
                at[place_of(why)].pass_over(int(str(why.facts["offset"])))
            else:
                log.warning("The end of a log could not be read again: %s", why)
                at[place_of(why)].error = why
        if not any(isinstance(why, DataError) for why in refused):
            return
