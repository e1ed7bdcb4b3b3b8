"""The main use case: slices of Kafka become objects, then rows, exactly once.

Order of deeds for a group of readings: decide what is new, create objects (only if absent), make sure the
topic is still the generation that was planned, commit each batch. So a crash anywhere leaves at worst objects
that no row names. Running it again does what is left, and nothing twice.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self, TypeAlias, cast

from hop_archive.archive import Archive
from hop_archive.catalog.records import UNPROVEN, Batch, Collision, Duplicate, Outcome, Row
from hop_archive.errors import (
    HopArchiveError,
    ProofChangedError,
    SliceTakenError,
    StaleDecisionError,
)
from hop_archive.ingest.collector import calm_collector
from hop_archive.ingest.decide import Decision, decide
from hop_archive.ingest.obstacles import GivenUp
from hop_archive.ingest.read import Reading, Refused, grouped, read_slices
from hop_archive.ingest.survey import OVERTAKEN
from hop_archive.model.annotations import annotate
from hop_archive.model.document import Document, crc32, encode
from hop_archive.model.identity import Identity
from hop_archive.model.keys import object_key, segment_key
from hop_archive.model.message import TopicPartition
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
    """A reading that is decided and encoded, ready to be stored.

    Attributes:
        reading: What was read.
        batch: What will be committed, as far as the keys of its objects are free.
        objects: What must be durable before.
        identities: Of the messages that are new.
    """

    reading: Reading
    batch: Batch
    objects: tuple[NewObject, ...]
    identities: tuple[Identity, ...]


def archive_slices(
    archive: Archive, slices: Sequence[Slice], overlap: int = OVERLAP, refused: Refused | None = None
) -> Iterator[Done]:
    """Archive slices, reading ahead while objects and rows are being written.

    Slices whose offsets turn out to be gone, taken or another generation's are left: survey and plan again.

    Args:
        archive: Where from and where to.
        slices: Disjoint; those of one partition in order.
        overlap: Groups that may be in the making at once; 0 does one thing after another.
        refused: Told of each partition that could not be read, and why, after it was noted as a finding; without it, the
            first reason is raised when all others are archived.

    Yields:
        What became of each reading, in the order stored.

    Raises:
        UnavailableError: Source, catalog or store does not answer. What was yielded is committed, the rest
            is work still.
    """
    if not slices:
        return
    epochs = proven_epochs(archive, {s.partition_log for s in slices})
    with calm_collector(), archive.source.reader({}) as reader:
        given_up = GivenUp(archive, _starts(slices))
        readings = read_slices(
            reader, slices, archive.limits, archive.monotonic, epochs=epochs, refused=given_up
        )
        yield from store_groups(archive, grouped(readings, archive.limits), overlap)
    for error in given_up.errors:
        if refused is None:
            raise error
        refused(error)


def _starts(slices: Sequence[Slice]) -> dict[PartitionLog, int]:
    """The first offset of each log, of slices that are in order."""
    return {s.partition_log: s.start for s in reversed(slices)}


def store_slices(archive: Archive, slices: Sequence[Slice]) -> list[Batch]:
    """Read slices and create their objects; commits nothing. The first half, where halves run as steps.

    What it returns holds rows, not messages: its size is bounded by the number of offsets in ``slices``. A partition that
    may not be read, or does not answer, is left out, and noted as a finding.

    Raises:
        UnavailableError: Source, catalog or store does not answer. Running it again is harmless.
    """
    batches: list[Batch] = []
    expected: list[Identity] = []
    epochs = proven_epochs(archive, {s.partition_log for s in slices})
    with calm_collector(), archive.source.reader({}) as reader:
        given_up = GivenUp(archive, _starts(slices))
        readings = read_slices(
            reader, slices, archive.limits, archive.monotonic, epochs=epochs, refused=given_up
        )
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
    decisions = deque(decide(messages, archive.catalog, archive.store, expected)) if messages else deque()
    return [_prepared(archive, r, [decisions.popleft() for _ in r.messages]) for r in readings]


def write_group(archive: Archive, group: Sequence[Prepared]) -> list[Done]:
    """Create the objects of all, then commit one batch after another.

    Where another writer was first with a slice or a UUID, or a topic is another generation now, the rest is
    decided anew, one by one: it may rest on what was not committed.
    """
    return commit_group(archive, write_objects(archive, group))


def commit_group(archive: Archive, stored: Sequence[Prepared]) -> list[Done]:
    """Commit batches whose objects are durable; the second half of ``write_group``."""
    changed = changed_generations(archive, {p.reading.slice: p.reading.proven_epoch for p in stored})
    if changed:
        kept = [p.reading for p in stored if p.reading.slice not in changed]
        return [_left(s, note) for s, note in changed.items()] + [_settle(archive, r) for r in kept]
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
    it under another leader epoch, or begun another generation.

    Args:
        archive: The source and the catalog.
        read: Slices, with the leader epoch under which the log had been proven when they were read.
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
            holders = cast("Sequence[Mapping[str, object]]", error.facts.get("holders", ()))
            # What holds the slice may be this very batch: committed before, its answer lost on the way.
            same = {"run_id": part.run_id, "start": part.slice.start, "stop": part.slice.stop}
            if not part.run_id or [same] != [{key: holder.get(key) for key in same} for holder in holders]:
                runs = sorted({str(holder.get("run_id") or "another archiver") for holder in holders})
                return _left(part.slice, f"{part.slice}: already archived by {', '.join(runs)}", taken=True)
        except ProofChangedError:
            return _left(part.slice, _another_leader(part.slice))
    return Done(batch.slice, batches, reading=reading)


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
    that were decided before that was known are decided anew (``_epoch`` tells).
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
        expected = [identity for identities, _ in self._pending for identity in identities]
        epoch = self._epoch
        group = prepare(self._archive, readings, expected)
        identities = [identity for prepared in group for identity in prepared.identities]
        self._pending.append((identities, self._pool.submit(self._write, group, epoch)))

    def finished(self, most_left: int) -> Iterator[Done]:
        """The results of the oldest groups, until at most ``most_left`` are in the making."""
        while len(self._pending) > most_left or (self._pending and self._pending[0][1].done()):
            yield from self._pending.popleft()[1].result()

    def _write(self, group: Sequence[Prepared], epoch: int) -> list[Done]:
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
        self._epoch += any(done.disputed for done in dones)
        return dones


Placed: TypeAlias = tuple[str, int | None]
"""Key of the object that a document is in, and its position there (None: it is the whole object)."""


def _prepared(archive: Archive, reading: Reading, decisions: Sequence[Decision]) -> Prepared:
    if reading.skipped:
        batch = Batch(
            reading.slice,
            Outcome.SKIPPED,
            f"{UNREADABLE}: {reading.skipped}",
            run_id=archive.run_id,
            proven_epoch=reading.proven_epoch,
        )
        return Prepared(reading, batch, (), ())
    new = [d for d in decisions if d.duplicate_of is None]
    documents = [
        Document(
            message=d.message,
            uuid=d.identity.uuid,
            is_client_uuid=d.identity.is_client_uuid,
            digest=d.identity.digest,
            message_crc32=d.identity.message_crc32,
            annotations=annotate(
                d.message.headers, d.message.value, public=not archive.topics.private(d.message.topic)
            ),
        )
        for d in new
    ]
    bodies = [encode(document) for document in documents]
    places, objects = _placed(archive, reading.slice, documents, bodies)
    batch = Batch(
        reading.slice,
        rows=[
            row_of(reading.slice.generation, archive.store.bucket, *parts)
            for parts in zip(documents, bodies, places, strict=True)
        ],
        duplicates=[duplicate_of(d) for d in decisions if d.duplicate_of is not None],
        collisions=[
            Collision(d.message.offset, d.collided_with, d.identity.uuid)
            for d in new
            if d.collided_with is not None
        ],
        run_id=archive.run_id,
        proven_epoch=reading.proven_epoch,
    )
    return Prepared(reading, batch, tuple(objects), tuple(d.identity for d in new))


def _placed(
    archive: Archive, s: Slice, documents: Sequence[Document], bodies: Sequence[bytes]
) -> tuple[list[Placed], list[NewObject]]:
    """Where each document goes by the layout of its topic, and the objects that this makes."""
    if archive.layouts.layout_for(s.topic) != "segment":
        keys = [object_key(d.message.topic, d.message.timestamp_ms, d.uuid) for d in documents]
        return [(key, None) for key in keys], [NewObject(*pair) for pair in zip(keys, bodies, strict=True)]
    if not bodies:
        return [], []
    key = segment_key(s.topic, s.generation, s.partition, s.start, s.stop)
    positions = itertools.accumulate((len(body) for body in bodies[:-1]), initial=0)
    return [(key, position) for position in positions], [NewObject(key, b"".join(bodies))]


def row_of(generation: int, bucket: str, document: Document, body: bytes, place: Placed) -> Row:
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
        object_key=place[0],
        bucket=bucket,
        position=place[1],
        size_bytes=len(body),
        crc32=crc32(body),
        message_crc32=document.message_crc32,
        annotations=document.annotations,
    )


def duplicate_of(decision: Decision) -> Duplicate:
    """What is recorded of a message that was decided to be a copy."""
    message = decision.message
    assert decision.duplicate_of is not None
    return Duplicate(message.offset, message.timestamp_ms, decision.duplicate_of, decision.reason)
