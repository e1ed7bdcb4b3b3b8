"""The main use case: slices of Kafka become objects, then rows, exactly once.

Order of deeds for a group of readings: decide what is new, create objects (only if absent), make sure the
topic is still the generation that was planned, commit each batch. So a crash anywhere leaves at worst objects
that no row names. Running it again does what is left, and nothing twice.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self, cast

from hop_archive.archive import Archive
from hop_archive.catalog.records import UNPROVEN, Batch, Collision, DocumentPlace, Duplicate, Outcome, Row
from hop_archive.errors import (
    ConflictError,
    HopArchiveError,
    ProofChangedError,
    SliceTakenError,
    StaleDecisionError,
)
from hop_archive.ingest.decide import Decision, decide
from hop_archive.ingest.garbage_collection import fewer_collections
from hop_archive.ingest.obstacles import GivenUp
from hop_archive.ingest.placing import place
from hop_archive.ingest.read import Reading, Refused, grouped, read_slices
from hop_archive.ingest.survey import OVERTAKEN
from hop_archive.model.arrivals import Arrival, arrivals
from hop_archive.model.document import Document, crc32, encode_message
from hop_archive.model.identity import Identity
from hop_archive.model.message import Message, TopicPartition
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive.source.protocol import Answers
from hop_archive.store.free_keys import create_free
from hop_archive.store.protocol import NewObject

_MOST_STALE = 5
"""How often in a row another writer may be first with a UUID before it is reported."""

UNREADABLE = "the message cannot be represented"
"""How the reason of a slice begins that holds one message which the Kafka client cannot represent."""

OVERLAP = 1
"""Groups being stored while the next is read and encoded; each more holds one more group in memory."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one reading.

    Attributes:
        slice: The offsets.
        batches: What was committed; empty where another writer or another generation was in the way.
        note: Why nothing was committed, for people; '' otherwise.
        disputed: Whether another writer was first with something, so that this was decided anew or not at all.
        taken: Whether another writer had archived offsets of the slice before.
        reading: What was read, for those who compare; None where only the ledger was told.
    """

    slice: Slice
    batches: tuple[Batch, ...] = ()
    note: str = ""
    disputed: bool = False
    taken: bool = False
    reading: Reading | None = None

    @property
    def archived(self) -> int:
        """Messages that were archived."""
        return sum(len(batch.rows) for batch in self.batches)

    @property
    def size_bytes(self) -> int:
        """Bytes of their documents."""
        return sum(batch.size_bytes for batch in self.batches)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A reading that is decided and encoded, ready to be stored, with the identities of the messages that are new.

    The batch will be committed, as far as the keys of its objects are free; the objects must be durable before.
    """

    reading: Reading
    batch: Batch
    objects: tuple[NewObject, ...]
    identities: tuple[Identity, ...]


def archive_slices(
    archive: Archive,
    slices: Sequence[Slice],
    overlap: int = OVERLAP,
    refused: Refused | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> Iterator[Done]:
    """Archive slices, reading ahead while objects and rows are being written.

    Slices are disjoint, those of one partition in order. Those whose offsets turn out to be gone, taken or another
    generation's are left: survey and plan again. So many groups as ``overlap`` says may be in the making at once; with 0 one
    thing is done after another. ``refused`` is told of each partition that could not be read, and why, after it was noted as
    a finding; without it, the first reason is raised when all others are archived. Once there is ``enough``, nothing more is
    read, and what was read is stored.

    Yields:
        What became of each reading, in the order stored.

    Raises:
        UnavailableError: Source, catalog or store does not answer. What was yielded is committed, the rest
            is work still.
    """
    if not slices:
        return
    with _reading(archive, slices) as (readings, given_up):
        wanted = itertools.takewhile(lambda _: not enough(), readings)
        yield from store_groups(archive, grouped(wanted, archive.limits), overlap)
    for error in given_up.errors:
        if refused is None:
            raise error
        refused(error)


@contextmanager
def _reading(archive: Archive, slices: Sequence[Slice]) -> Iterator[tuple[Iterator[Reading], GivenUp]]:
    """The readings of slices that are in order, of logs that are proven; partitions that could not be read are noted."""
    epochs = proven_epochs(archive, {s.partition_log for s in slices})
    with fewer_collections(), archive.source.reader({}) as reader:
        given_up = GivenUp(archive, {s.partition_log: s.start for s in reversed(slices)})
        readings = read_slices(
            reader, slices, archive.limits, archive.monotonic, epochs=epochs, refused=given_up
        )
        yield _void_of_others(archive, slices, readings), given_up


def _void_of_others(
    archive: Archive, slices: Sequence[Slice], readings: Iterable[Reading]
) -> Iterator[Reading]:
    """The readings; void are those of topics that were made anew after they were planned and before they were read.

    No batch of those would be committed. But their objects would be there before their generation has begun, and whoever rebuilds
    the catalog takes a document that stands alone for one of the generation of that time: of one that is over, of which it may
    just have been said that these offsets are lost. Asked once: a reader itself tells of a topic that is made anew under it.
    """
    others: set[str] | None = None
    for reading in readings:
        if others is None:
            topics = sorted({s.topic for s in slices})
            now, found = archive.source.topics(topics), archive.catalog.generations(topics)
            planned = {(s.topic, s.generation) for s in slices}
            ids = {t: {g.topic_id for g in found.get(t, ()) if (t, g.number) in planned} for t in now}
            others = {topic for topic, info in now.items() if info.topic_id not in ids[topic]}
        yield reading.void_if_of(others)


def store_slices(archive: Archive, slices: Sequence[Slice]) -> list[Batch]:
    """Read slices and create their objects; commits nothing. The first half, where halves run as steps.

    What it returns holds rows, not messages: its size is bounded by the number of offsets in ``slices``. A partition that
    may not be read, or does not answer, is left out, and noted as a finding.

    Raises:
        UnavailableError: Source, catalog or store does not answer. Running it again is harmless.
    """
    batches: list[Batch] = []
    expected: list[Identity] = []
    with _reading(archive, slices) as (readings, _):
        for group in grouped((r for r in readings if _may_be_stored(r)), archive.limits):
            stored = write_objects(archive, prepare(archive, group, expected))
            batches += (prepared.batch for prepared in stored)
            expected += (identity for prepared in stored for identity in prepared.identities)
    return batches


def commit_batches(archive: Archive, batches: Sequence[Batch]) -> list[Done]:
    """Commit batches whose objects are durable. The second half, where halves run as steps.

    From the first one on that another writer or another generation is in the way of, the rest is left: it may
    rest on what was not committed. What is left is work for the next plan.

    Raises:
        UnavailableError: The catalog does not answer. Running it again is harmless.
    """
    dones: list[Done] = []
    changed = changed_generations(archive, {batch.slice: batch.proven_epoch for batch in batches})
    if not changed and (together := _committed_together(archive, [(batch, None) for batch in batches])):
        return together
    for batch in batches:
        if batch.slice in changed:
            return [*dones, _left(batch.slice, changed[batch.slice])]
        try:
            dones.append(commit(archive, batch))
        except StaleDecisionError as error:
            dones.append(_left(batch.slice, str(error)))
        if dones[-1].disputed:
            break
    return dones


def store_groups(
    archive: Archive, groups: Iterable[Sequence[Reading]], overlap: int = OVERLAP
) -> Iterator[Done]:
    """Prepare, write and commit groups of readings; up to ``overlap`` of them while the next is read.

    An empty group is passed over. Raises what ``archive_slices`` raises.
    """
    with _Writer(archive) as writer:
        for group in groups:
            proven = [reading for reading in group if _may_be_stored(reading)]
            if proven and overlap:
                writer.submit(proven)
            elif proven:
                yield from write_group(archive, prepare(archive, proven))
            yield from (_left(r.slice, _changed(r.slice)) for r in group if r.is_void)
            yield from (
                _left(r.slice, _another_leader(r.slice)) for r in group if r.is_beyond_proof and not r.is_void
            )
            yield from writer.finished(overlap)
        yield from writer.finished(0)


def prepare(
    archive: Archive, readings: Sequence[Reading], expected: Iterable[Identity] = ()
) -> list[Prepared]:
    """Decide and encode; writes nothing. ``expected``: identities decided before, perhaps not committed yet."""
    messages = [m for reading in readings for m in reading.messages]
    if not messages:
        return [_prepared(archive, reading, [], []) for reading in readings]
    # Encoded before it is decided, in one pass: nearly all messages are new, under the UUID that they came with.
    arrived = [
        arrivals(reading.messages, public=not archive.topics.private(reading.slice.topic))
        for reading in readings
    ]
    identities = [arrival[0] for some in arrived for arrival in some]
    decisions = iter(decide(messages, archive.catalog, archive.store, expected, identities))
    return [
        _prepared(archive, reading, some, list(itertools.islice(decisions, len(some))))
        for reading, some in zip(readings, arrived, strict=True)
    ]


def write_group(archive: Archive, group: Sequence[Prepared]) -> list[Done]:
    """Create the objects of all, then commit all batches at once.

    Where something is in the way of one, they are committed one after another. Where another writer was first with a slice or a
    UUID, or a topic is another generation now, the rest is decided anew, one by one: it may rest on what was not committed.
    """
    stored = write_objects(archive, group)
    changed = changed_generations(archive, {p.reading.slice: p.reading.proven_epoch for p in stored})
    if changed:
        kept = [p.reading for p in stored if p.reading.slice not in changed]
        return [_left(s, note) for s, note in changed.items()] + [_settle(archive, r) for r in kept]
    if together := _committed_together(archive, [(p.batch, p.reading) for p in stored]):
        return together
    dones: list[Done] = []
    for position, prepared in enumerate(stored):
        try:
            dones.append(commit(archive, prepared.batch, prepared.reading))
        except StaleDecisionError:
            return dones + [_settle(archive, p.reading) for p in stored[position:]]
        if dones[-1].disputed:
            return dones + [_settle(archive, p.reading) for p in stored[position + 1 :]]
    return dones


def write_objects(archive: Archive, group: Sequence[Prepared]) -> list[Prepared]:
    """Create the objects of all prepared readings, many at a time; none is ever overwritten.

    Where other bytes stand under a key (a crashed attempt left them), the next free alternative is taken.

    Returns:
        The same, with rows that name the keys really used; every object they name is durable.
    """
    objects = {o.key: o for prepared in group for o in prepared.objects}
    final = dict(zip(objects, create_free(archive.store, list(objects.values())), strict=True))
    if all(key == used for key, used in final.items()):
        return list(group)
    return [
        replace(
            prepared,
            batch=replace(
                prepared.batch,
                rows=[row._replace(object_key=final[row.object_key]) for row in prepared.batch.rows],
            ),
        )
        for prepared in group
    ]


def proven_epochs(
    archive: Archive, partition_logs: Collection[PartitionLog]
) -> dict[PartitionLog, int | None]:
    """Under which leader epoch each log was proven to be the one that is covered; None where its broker tells none.

    ``UNPROVEN`` where nothing is remembered and the broker tells one, as after an upgrade or for slices that no plan made.

    Raises:
        UnavailableError: The catalog, or the source, does not answer.
    """
    noted = _noted_epochs(archive, {partition_log.topic for partition_log in partition_logs})
    untold = {at: TopicPartition(at.topic, at.partition) for at in partition_logs if noted.get(at) is None}
    marks = archive.source.watermarks([*untold.values()]) if untold else Answers({})
    doubtful = [
        at
        for at, place in untold.items()
        if place in marks.untold or ((now := marks.get(place)) is not None and now.leader_epoch is not None)
    ]
    return {**noted, **dict.fromkeys(doubtful, UNPROVEN)}


def changed_generations(archive: Archive, read: Mapping[Slice, int | None]) -> dict[Slice, str]:
    """The slices whose topic is not the generation any more that they were planned for, with what happened.

    Asked after reading and before committing: topic ids never come back, so a topic that has its
    generation's id now had it while it was read. Its log may have lost its end meanwhile: whoever planned since has proven
    it under another leader epoch than ``read`` has with each slice, or begun another generation.
    """
    topics = sorted({s.topic for s in read})
    now = archive.source.topics(topics)
    found = archive.catalog.generations(topics)
    epochs = _noted_epochs(archive, topics)
    changed = {}
    for s, epoch in read.items():
        if s.topic in now.untold:
            changed[s] = f"{s}: whose offsets these are cannot be told: {now.untold[s.topic]}"
            continue
        planned = next((g for g in found.get(s.topic, ()) if g.number == s.generation), None)
        if planned is None or s.topic not in now or now[s.topic].topic_id != planned.topic_id:
            changed[s] = _changed(s)
        elif any(
            later.number > s.generation
            and (later.cluster_id, later.topic_id) == (planned.cluster_id, planned.topic_id)
            for later in found[s.topic]
        ):
            changed[s] = f"{s}: the log lost its end while it was being read"
        elif epochs.get(s.partition_log) != epoch:
            changed[s] = _another_leader(s)
    return changed


def _noted_epochs(archive: Archive, topics: Collection[str]) -> dict[PartitionLog, int | None]:
    return {at: marks.leader_epoch for at, marks in archive.catalog.observed(topics).items()}


def _may_be_stored(reading: Reading) -> bool:
    return not (reading.is_void or reading.is_beyond_proof)


def _changed(s: Slice) -> str:
    return f"{s}: the topic was deleted or made anew while it was being read"


def _another_leader(s: Slice) -> str:
    return f"{s}: the partition may have another leader now; the next plan proves first that its log is still the same"


def commit(archive: Archive, batch: Batch, reading: Reading | None = None) -> Done:
    """Commit one batch whose objects are durable.

    Raises:
        StaleDecisionError: A UUID was catalogued meanwhile: decide anew.
        UnavailableError: The catalog does not answer; whether it was committed shows when it is tried again:
            a batch that this run has committed already counts as committed.
    """
    try:
        batches = _without_overtaken(archive, batch)
    except HopArchiveError as error:
        if error.facts.get("topic") != batch.slice.topic:
            raise
        return _left(batch.slice, f"{batch.slice}: where the log begins cannot be told: {error}")
    for part in batches:
        try:
            archive.catalog.commit(part)
        except SliceTakenError as error:
            holders = cast("Sequence[Mapping[str, Any]]", error.facts.get("holders", ()))
            # What holds the slice may be this very batch: committed before, its answer lost on the way, and merged since with
            # others of this run.
            if not _is_own(part, holders):
                runs = sorted({str(holder.get("run_id") or "another archiver") for holder in holders})
                return _left(part.slice, f"{part.slice}: already archived by {', '.join(runs)}", taken=True)
        except ProofChangedError:
            return _left(part.slice, _another_leader(part.slice))
    return Done(batch.slice, batches, reading=reading)


def _committed_together(archive: Archive, batches: Sequence[tuple[Batch, Reading | None]]) -> list[Done]:
    """Several batches in one transaction; none where something is in the way of one: each is committed by itself then.

    A transaction costs a dozen round trips and a write to disk, whatever it holds: those of 50 topics that are followed
    took longer than the second in which their messages had come.
    """
    if len(batches) < 2:
        return []
    try:
        parts = [_without_overtaken(archive, batch) for batch, _ in batches]
        archive.catalog.commit(*itertools.chain.from_iterable(parts))
    except ConflictError:
        return []
    except HopArchiveError as error:
        if error.facts.get("topic") is None:  # else where one log begins cannot be told
            raise
        return []
    return [
        Done(batch.slice, part, reading=reading)
        for (batch, reading), part in zip(batches, parts, strict=True)
    ]


def _is_own(batch: Batch, holders: Sequence[Mapping[str, Any]]) -> bool:
    if len(holders) != 1 or not batch.run_id:
        return False
    (holder,) = holders
    # What this run has called lost meanwhile, it has not archived.
    is_same = (holder["run_id"], holder["outcome"]) == (batch.run_id, batch.outcome.value)
    return is_same and bool(holder["start"] <= batch.slice.start and batch.slice.stop <= holder["stop"])


def _left(s: Slice, note: str, *, taken: bool = False) -> Done:
    return Done(s, note=note, disputed=True, taken=taken)


def _settle(archive: Archive, reading: Reading) -> Done:
    """Decide, write and commit one reading by itself, when what went before it is settled."""
    for attempt in itertools.count(1):
        stored = write_objects(archive, prepare(archive, [reading]))
        if changed := changed_generations(archive, {reading.slice: reading.proven_epoch}):
            return _left(reading.slice, changed[reading.slice])
        try:
            return replace(commit(archive, stored[0].batch, reading), disputed=True)
        except StaleDecisionError:
            if attempt == _MOST_STALE:
                raise
    raise AssertionError("count() does not end")


def _without_overtaken(archive: Archive, batch: Batch) -> tuple[Batch, ...]:
    """The batch; where it starts with offsets that retention took before they were read, those apart as lost.

    A reader that asks for an offset and is given a later one cannot tell absent from gone: the low watermark
    can. Offsets counted as lost that were absent are a false alarm; the reverse would be a silent loss.
    """
    whole = batch.slice
    if batch.outcome is not Outcome.ARCHIVED:
        return (batch,)
    first = min(batch.offsets, default=whole.stop)
    if first == whole.start:
        return (batch,)
    marks = archive.source.watermarks([whole.topic_partition]).get(whole.topic_partition)
    gone_to = min(first, marks.low) if marks else whole.start
    if gone_to <= whole.start:
        return (batch,)
    gone = Batch(
        whole.within(whole.start, gone_to),
        Outcome.LOST,
        OVERTAKEN,
        run_id=batch.run_id,
        proven_epoch=batch.proven_epoch,
    )
    if gone_to == whole.stop:
        return (gone,)
    return (gone, replace(batch, slice=whole.within(gone_to, whole.stop)))


class _Writer:
    """Writes groups in a thread of its own, in order, while the caller reads and encodes the next.

    Decisions about a group may rest on the groups before it. Where one of those was disputed, the groups
    that were decided before that was known are decided anew (``_epoch`` tells), and nothing is expected of it any more.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="archive-writer")
        self._pending: deque[tuple[list[Identity], Future[list[Done]]]] = deque()
        self._epoch = 0
        self._broken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, readings: Sequence[Reading]) -> None:
        epoch = self._epoch  # before what is expected: of what was disputed by then nothing is
        expected = [identity for identities, _ in self._pending for identity in identities]
        group = prepare(self._archive, readings, expected)
        identities = [identity for prepared in group for identity in prepared.identities]
        self._pending.append((identities, self._pool.submit(self._write, group, identities, epoch)))

    def finished(self, most_left: int) -> Iterator[Done]:
        """The results of the oldest groups, until at most ``most_left`` are in the making."""
        while len(self._pending) > most_left or (self._pending and self._pending[0][1].done()):
            yield from self._pending.popleft()[1].result()

    def _write(self, group: Sequence[Prepared], identities: list[Identity], epoch: int) -> list[Done]:
        if self._broken:
            return []  # The failure before it is on its way to the caller; this is work for the next run.
        try:
            if epoch == self._epoch:
                dones = write_group(self._archive, group)
            else:
                dones = [_settle(self._archive, p.reading) for p in group]
        except BaseException:
            self._broken = True
            raise
        if any(done.disputed for done in dones):
            identities.clear()  # what became of these the catalog alone knows
            self._epoch += 1
        return dones


def _prepared(
    archive: Archive, reading: Reading, arrived: Sequence[Arrival], decisions: Sequence[Decision]
) -> Prepared:
    if reading.skipped:
        batch = Batch(
            reading.slice,
            Outcome.SKIPPED,
            f"{UNREADABLE}: {reading.skipped}",
            run_id=archive.run_id,
            proven_epoch=reading.proven_epoch,
        )
        return Prepared(reading, batch, (), ())
    public = not archive.topics.private(reading.slice.topic)
    new: list[tuple[Message, Arrival]] = []
    for (message, identity, held_by, _, _), arrival in zip(decisions, arrived, strict=True):
        if held_by is None:
            if identity is not arrival[0]:  # it is archived under another UUID
                arrival = (identity, *encode_message(message, identity, public=public))
            new.append((message, arrival))
    placed = place(archive, reading.slice, new)
    generation, bucket = reading.slice.generation, archive.store.bucket
    batch = Batch(
        reading.slice,
        rows=[
            # What ``row_of`` returns, without a document made for it.
            tuple.__new__(Row, (
                topic, generation, partition, offset, timestamp_ms, clock, message_uuid, is_client_uuid, content,
                object_key, bucket, position, len(body), body_crc32, message_crc32, annotations, False, frame, frame_size,
            ))
            for (
                (topic, partition, offset, timestamp_ms, clock, _, _, _, _),
                ((message_uuid, is_client_uuid, _, _, content, message_crc32), body, body_crc32, annotations),
            ), (object_key, position, frame, frame_size) in zip(new, placed.places, strict=True)
        ],
        duplicates=[duplicate_of(d) for d in decisions if d.duplicate_of is not None],
        collisions=[
            Collision(d.message.offset, d.collided_with, d.identity.uuid)
            for d in decisions
            if d.collided_with is not None
        ],
        run_id=archive.run_id,
        proven_epoch=reading.proven_epoch,
    )  # fmt: skip
    return Prepared(reading, batch, placed.objects, tuple([arrival[0] for _, arrival in new]))


def row_of(generation: int | None, bucket: str, document: Document, body: bytes, place: DocumentPlace) -> Row:
    """The catalog row of a document that stands in a place in a bucket."""
    message = document.message
    return Row(
        topic=message.topic,
        generation=generation,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=message.timestamp_ms,
        timestamp_type=message.timestamp_type,
        uuid=document.uuid,
        is_client_uuid=document.is_client_uuid,
        digest=document.digest,
        object_key=place.object_key,
        bucket=bucket,
        position=place.position,
        size_bytes=len(body),
        crc32=crc32(body),
        message_crc32=document.message_crc32,
        annotations=document.described,
        frame=place.frame,
        frame_size=place.frame_size,
    )


def duplicate_of(decision: Decision) -> Duplicate:
    """What is recorded of a message that was decided to be a copy."""
    message = decision.message
    assert decision.duplicate_of is not None
    digest = decision.identity.digest
    return Duplicate(message.offset, message.timestamp_ms, decision.duplicate_of, decision.reason, digest)
