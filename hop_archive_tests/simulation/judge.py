"""What has to hold: after every call, and when all processes have ended and the way is free again.

Each invariant of the design has a check of its own, and the history fails with what that says:

1. *Verbatim*: ``_verbatim``: what is stored is a message that was there, in each part, and encodes to the same bytes again.
2. *Accounted for, once*: ``_accounted_for``: slices are disjoint, and each one's sum is its length.
3. *Object before row, row before object*: ``no_row_points_at_nothing``, after each call.
4. *One transaction*: ``one_transaction_a_batch``, after each call that writes rows: the ledger counts just what is there.
5. *Crash anywhere*: ``finish.finish`` and ``finish.catch_up``: the same commands end, with nothing left.
6. *Two at once*: ``_nothing_twice``; and no object ever has other bytes than before: ``no_object_is_overwritten``, after each call.
7. *Same bytes again*: ``_verbatim``, and ``_under_its_key``: who encodes it again finds it there.
8. *Never silent*: ``_nothing_is_gone_silently`` and ``_what_is_there_is_archived``: whatever is not archived is told, with its
   reason; ``_every_loss_is_told``: what is lost for good is open among the findings.
9. *Bounded*: ``nobody_asks_for_too_much``, before each call.

A restore is judged where it is done (``recovery.judge_restored``), and so is a reader (``recovery.reading``).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from hop_archive.catalog.records import Batch, Outcome, Row
from hop_archive.model.document import crc32, decode, encode
from hop_archive.model.findings import Kind
from hop_archive.model.identity import digest
from hop_archive.model.keys import first_key, object_key
from hop_archive.model.message import Message
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog
from hop_archive.store.protocol import NewObject
from hop_archive_tests.invariants import assert_ledger_is_sound, fetched
from hop_archive_tests.simulation.calls import may_change_rows_or_objects
from hop_archive_tests.simulation.world import PARTITIONS, TINY, SimulatedWorld, objects_of

_LARGEST_BYTES = 2_000
"""More than the largest document has."""


class Scene:
    """A world as the stage sees it: with what has to hold before and after each call."""

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world
        self.happen = world.happen
        self.before = world.before
        self._bodies: dict[str, bytes] = {}

    def asked(self, deed: str, call: str, arguments: tuple[Any, ...]) -> None:
        """Nobody who archives asks for too much; and the world may refuse it."""
        if deed in ("archive", "halves", "follow"):
            nobody_asks_for_too_much(call, arguments)
        self._world.refuse(call)

    def changed(self, call: str) -> None:
        """What has to hold after a call that may have changed rows or objects."""
        if may_change_rows_or_objects(call):
            no_row_points_at_nothing(self._world, call)
            if call.startswith("catalog."):
                one_transaction_a_batch(self._world, call)
            else:
                no_object_is_overwritten(self._world, self._bodies, call)
        if call.startswith(("store.", "backup.")):
            self._world.remember()


def no_row_points_at_nothing(world: SimulatedWorld, call: str) -> None:
    """Invariant 3: each row's object is there, and long enough.

    Raises:
        AssertionError: One is not.
    """
    objects = objects_of(world.store)
    for row in world.rows():
        body = objects.get(row.object_key)
        if body is None and (row.uuid, row.object_key) in world.dangling:
            continue
        assert body is not None, f"after {call}, {row.uuid} points at {row.object_key}, which is not there"
        start, size = (
            (row.position or 0, row.size_bytes) if row.frame is None else (row.frame, row.frame_size or 0)
        )
        assert len(body[0]) >= start + size, (
            f"after {call}, {row.uuid} points beyond the end of {row.object_key}"
        )


def one_transaction_a_batch(world: SimulatedWorld, call: str) -> None:
    """Invariant 4: the ledger counts the rows and copies that are there, and there are none that it does not count.

    Raises:
        AssertionError: One was written without the other.
    """
    if world.lost:
        return  # an old catalog, or a rebuild under way, is put together in several transactions
    for topic in PARTITIONS:
        assert not (wrong := world.catalog.miscounts(topic)), f"after {call}, the ledger miscounts: {wrong}"
        assert not (rows := world.catalog.unledgered(topic)), f"after {call}, no ledger row is of {rows}"


def no_object_is_overwritten(world: SimulatedWorld, bodies: dict[str, bytes], call: str) -> None:
    """Invariant 6: under one key the same bytes stand, from when it was made until it is deleted; ``bodies`` is kept between calls.

    Raises:
        AssertionError: Others do.
    """
    now = {key: body for key, (body, _, _) in objects_of(world.store).items()}
    for key, body in bodies.items():
        assert now.get(key, body) == body, f"after {call}, {key} holds other bytes"
    bodies.clear()
    bodies.update(now)


def nobody_asks_for_too_much(call: str, arguments: tuple[Any, ...]) -> None:
    """Invariant 9: what is asked for, and what is written at once, keeps to the limits.

    Raises:
        AssertionError: It does not.
    """
    first = arguments[0] if arguments else None
    if call == "reader.poll" and isinstance(first, int):
        assert first <= TINY.poll_messages, f"{call} asks for {first} messages"
    if call == "catalog.commit" and isinstance(first, Batch):
        count = len(first.rows) + len(first.duplicates)
        assert count <= TINY.batch_messages, f"{call} of {count} messages"
    if call == "store.create" and first and isinstance(first[0], NewObject):
        weight = sum(len(new.body) for new in first)
        assert weight <= TINY.buffer_bytes + _LARGEST_BYTES, f"{call} of {weight} bytes"


class _Archived(NamedTuple):
    """What the catalog says, checked against the store.

    Attributes:
        held: What is archived at topic, generation, partition and offset; None where its content was suppressed.
        copies: Of what message each duplicate is one.
        told: What the ledger says is lost or left out.
        coverage: What it says anything of.
    """

    held: Mapping[Place, Message | None]
    copies: Mapping[Place, UUID]
    told: Mapping[PartitionLog, OffsetSet]
    coverage: Mapping[PartitionLog, OffsetSet]


Place: TypeAlias = tuple[str, int | None, int | None, int | None]
"""Topic, generation, partition and offset."""


def judge(world: SimulatedWorld) -> None:
    """The invariants, from outside.

    Raises:
        AssertionError: One does not hold.
    """
    _accounted_for(world)
    rows = [row for row in world.rows() if not _is_told_missing(world, row)]
    _nothing_twice(rows)
    held: dict[Place, Message | None] = {}
    for row in rows:
        _under_its_key(row)
        held[row.topic, row.generation, row.partition, row.offset] = _verbatim(world, row)
    copies: dict[Place, UUID] = {
        (*log, copy.offset): copy.uuid
        for topic in PARTITIONS
        for log, copy in world.catalog.duplicates(topic)
    }
    assert not held.keys() & copies.keys(), "an offset is archived and a duplicate"
    told: dict[PartitionLog, OffsetSet] = {}
    for entry in world.catalog.ledger():
        if entry.outcome is not Outcome.ARCHIVED:
            log = entry.slice.partition_log
            told[log] = told.get(log, EMPTY) | entry.slice.offsets
    archived = _Archived(held, copies, told, world.catalog.coverage())
    _nothing_is_gone_silently(world, archived, {row.uuid for row in rows})
    _what_is_there_is_archived(world, archived)
    _every_loss_is_told(world)
    _nothing_went_with_a_catalog(world, rows)


def _accounted_for(world: SimulatedWorld) -> None:
    assert_ledger_is_sound(world.catalog.ledger())
    for topic in world.catalog.topics():
        assert not (wrong := world.catalog.miscounts(topic)), wrong
        assert not (beyond := world.catalog.unledgered(topic)), beyond


def _nothing_twice(rows: list[Row]) -> None:
    extents = Counter(row.document_place for row in rows)
    assert not [extent for extent, count in extents.items() if count > 1], "two rows name the same bytes"
    places = Counter((row.topic, row.generation, row.partition, row.offset) for row in rows)
    assert not [place for place, count in places.items() if count > 1], "an offset has two rows"


def _under_its_key(row: Row) -> None:
    if row.position is None:
        ought = object_key(row.topic, row.timestamp_ms, row.uuid)
        assert first_key(row.object_key) == ought, (
            f"{row.uuid} stands under {row.object_key}, and not {ought}"
        )


def _verbatim(world: SimulatedWorld, row: Row) -> Message | None:
    """The message of a row; None where its content was suppressed."""
    body = fetched(world.store, row)
    document = decode(body)
    assert (len(body), crc32(body), encode(document)) == (row.size_bytes, row.crc32, body), (
        f"{row} has other bytes"
    )
    assert document.uuid == row.uuid
    assert bool(document.suppressed) == (row.uuid in world.to_suppress), (
        f"{row.uuid}: {document.suppressed!r}"
    )
    return None if document.suppressed else document.message


def _nothing_is_gone_silently(world: SimulatedWorld, archived: _Archived, by_uuid: set[UUID]) -> None:
    """Every message that ever was is archived as it was, a copy of one that is, or told to be gone; and nothing else is."""
    held, copies, told, coverage = archived
    ever: dict[Place, list[Message]] = {}
    for topic, generations in world.catalog.generations(list(PARTITIONS)).items():
        for generation, (topic_id, number) in itertools.product(generations, world.lives):
            if world.names[topic_id] != topic:
                continue
            where = PartitionLog(topic, generation.number, number)
            if generation.topic_id is None:  # of a rebuilt one nobody knows whose it was
                for offset, messages in world.lives[topic_id, number].items():
                    ever.setdefault((*where, offset), []).extend(messages)
                continue
            if topic_id != generation.topic_id:
                continue
            covered = coverage.get(where, EMPTY)
            is_cut = (topic_id, number) in world.cut  # what stood there then, nobody may have seen
            for offset, messages in world.lives[topic_id, number].items():
                place: Place = (*where, offset)
                ever.setdefault(place, []).extend(messages)
                if place in copies:
                    assert copies[place] in by_uuid, f"{place} is a duplicate of nothing"
                elif place not in held and not is_cut and (topic_id, number, offset) not in world.compacted:
                    dealt = offset in told.get(where, EMPTY) or offset not in covered
                    dealt = dealt or world.was_told(topic_id, number, offset)
                    if not dealt and world.rebuilt:  # no document tells of copies
                        there = [kept for at, kept in held.items() if at[0] == topic and kept is not None]
                        dealt = any(_content(kept) == _content(one) for kept in there for one in messages)
                    assert dealt, f"{place} counts as absent, and there was a message: {messages}"
    latest = latest_generations(world)
    for at, kept in held.items():
        if world.lost and at[1] != latest.get(at[0]):  # a rebuild cannot tell of which generation it was
            ever[at] = world.ever_at(at[0], at[2], at[3])
        assert at in ever, f"{at} is archived, and never was"
        assert kept is None or _is_one_of(kept, ever[at]), f"{at} is archived as {kept}"


def _what_is_there_is_archived(world: SimulatedWorld, archived: _Archived) -> None:
    """What the cluster holds now is archived as it is, or told why it is not."""
    held, copies, told, _ = archived
    latest = latest_generations(world)
    with world.cluster.read() as state:
        for topic, there in state.topics.items():
            for number, log in enumerate(there.logs):
                where = PartitionLog(topic, latest[topic], number)
                for message in log.read(log.low, log.stable - log.low)[0] if log.stable > log.low else ():
                    place: Place = (*where, message.offset)
                    if place in held:
                        kept = held[place]
                        assert kept is None or _is_one_of(kept, [message]), (
                            f"{place}: {kept} is not {message}"
                        )
                    elif place not in copies:
                        assert message.offset in told.get(where, EMPTY), (
                            f"{place} is neither archived nor told: {message}"
                        )


def latest_generations(world: SimulatedWorld) -> dict[str, int]:
    """The generation that each topic is now, by number; a rebuilt one of unknown origin may have a greater one."""
    known = world.catalog.generations(list(PARTITIONS))
    with world.cluster.read() as state:
        return {
            topic: [g.number for g in known[topic] if g.topic_id == there.topic_id][-1]
            for topic, there in state.topics.items()
        }


def _every_loss_is_told(world: SimulatedWorld) -> None:
    """What the ledger calls lost is open among the findings, for somebody to accept."""
    findings = [record.finding for record in world.catalog.findings(open_only=True)]
    told: dict[PartitionLog, OffsetSet] = {}
    for finding in findings:
        if finding.kind in (Kind.LOST, Kind.LOG_TRUNCATED) and finding.slice is not None:
            log = finding.slice.partition_log
            told[log] = told.get(log, EMPTY) | finding.slice.offsets
    for entry in world.catalog.ledger():
        if entry.outcome is Outcome.LOST:
            rest = entry.slice.offsets - told.get(entry.slice.partition_log, EMPTY)
            assert not rest, f"{rest} of {entry.slice} is lost, and no finding says so"


def _nothing_went_with_a_catalog(world: SimulatedWorld, rows: Iterable[Row]) -> None:
    """What was archived when a catalog was lost is so in the one that came after it, but for what was taken away since.

    It may have another UUID there, where two messages came with one: the catalog that began anew may have met the second alone. The
    first then has no row, as the rebuild tells, and its object stays.
    """
    if world.removes:
        return
    kept = {(row.topic, row.digest, own) for row in rows for own in (row.uuid, row.timestamp_ms)}
    stored = objects_of(world.store)
    for lost in world.lost:
        for topic in PARTITIONS:
            gone = {
                row.uuid: row.slice
                for row in lost.rows(topic)
                if not {(topic, row.digest, row.uuid), (topic, row.digest, row.timestamp_ms)} & kept
                and not (row.uuid in world.without_row and row.object_key in stored)
            }
            assert not gone, f"archived when the catalog was lost, and not now: {gone}"


def _is_told_missing(world: SimulatedWorld, row: Row) -> bool:
    """Whether its object went after the catalog was dumped that was put back, as a finding says."""
    if (row.uuid, row.object_key) not in world.dangling or row.object_key in objects_of(world.store):
        return False
    findings = world.catalog.findings(open_only=True)
    assert any(record.finding.object_key == row.object_key for record in findings), f"{row} is missing"
    return True


def _content(message: Message) -> bytes:
    return digest(message.key, message.headers, message.value)


def _is_one_of(message: Message, others: list[Message]) -> bool:
    return any(
        (m.key, m.value, m.headers, m.timestamp_ms, m.offset)
        == (message.key, message.value, message.headers, message.timestamp_ms, message.offset)
        for m in others
    )
