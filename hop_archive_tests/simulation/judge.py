"""What has to hold: after every call, and when all processes have ended and the way is free again."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias
from uuid import UUID

from hop_archive.catalog.records import Outcome, Row
from hop_archive.devkit.faults import Faults
from hop_archive.errors import ConfigurationError, ConflictError, HopArchiveError
from hop_archive.model.document import crc32, decode, encode
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.message import Message
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog
from hop_archive.upkeep.verify.verify import verify
from hop_archive_tests.invariants import assert_ledger_is_sound, fetched
from hop_archive_tests.simulation.deeds import DEEDS, archive, mend, recorder, suppress_one, verification
from hop_archive_tests.simulation.world import DAY_MS, PARTITIONS, SimulatedWorld

TOLD = frozenset({Kind.LOST, Kind.LOG_TRUNCATED})
"""What no repair brings back: it stays open until a person accepts it."""

_READS = (
    "source.", "reader.", "store.fetch", "store.listing", "store.check", "store.condition", "store.etag",
    "catalog.rows", "catalog.coverage", "catalog.known", "catalog.summaries", "catalog.ledger",
    "catalog.generations", "catalog.observe", "catalog.find", "catalog.topics", "catalog.recorded",
)  # fmt: skip


def always(world: SimulatedWorld, call: str) -> None:
    """No row points at nothing (invariant 3): asked after each call that may have changed catalog or store.

    Raises:
        AssertionError: One does.
    """
    if call.startswith(_READS) and not call.startswith("source.delete"):
        return
    objects = world.store._shelf._objects  # type: ignore[union-attr] # in memory it has these
    for row in _rows(world):
        body = objects.get(row.object_key)
        assert body is not None, f"after {call}, {row.uuid} points at {row.object_key}, which is not there"
        start, size = (
            (row.position or 0, row.size_bytes) if row.frame is None else (row.frame, row.frame_size or 0)
        )
        assert len(body[0]) >= start + size, (
            f"after {call}, {row.uuid} points beyond the end of {row.object_key}"
        )


def finish(world: SimulatedWorld, undone: Sequence[tuple[str, int]]) -> None:
    """What an operator does once all is well again: archive what is left, do again what was not done, verify, repair.

    Args:
        undone: Removals that failed or died, with their choices.

    Raises:
        AssertionError: Something is left that is neither mended nor told.
    """
    world.heal()
    _catch_up(world)
    for deed, choice in undone:
        with contextlib.suppress(ConflictError, ConfigurationError):
            DEEDS[deed](world, Faults(), choice)
    for own in sorted(world.to_suppress):
        suppress_one(world, Faults(), own)
    # What one repair brings back may show what another one has to settle, or that a log has another generation.
    for _ in range(3):
        world.replicate()
        world.at_ms += 10 * DAY_MS
        world.removing().delete_pending("compact")
        left = [f for f in _look(world) if f.kind not in TOLD and not _cannot_be_placed(world, f)]
        if not left:
            return
        mend(world, Faults(), 0)
        _catch_up(world)
    raise AssertionError(f"still found after repairs: {left}")


def _cannot_be_placed(world: SimulatedWorld, finding: Finding) -> bool:
    """Whether it is an object of a message that says nothing of which generation it is; a person decides."""
    several = len(world.catalog.generations([finding.topic]).get(finding.topic, ())) > 1
    return finding.kind is Kind.ORPHAN_OBJECT and several and not finding.object_key.startswith("segments/")


def judge(world: SimulatedWorld) -> None:
    """The invariants, from outside.

    Raises:
        AssertionError: One does not hold.
    """
    assert_ledger_is_sound(world.catalog.ledger())
    rows = _rows(world)
    for topic in {row.topic for row in rows}:
        assert not world.catalog.miscounts(topic)
        assert not world.catalog.unledgered(topic)
    extents = Counter(row.document_place for row in rows)
    assert not [extent for extent, count in extents.items() if count > 1], "two rows name the same bytes"
    places = Counter((row.topic, row.generation, row.partition, row.offset) for row in rows)
    assert not [place for place, count in places.items() if count > 1], "an offset has two rows"
    held = {(row.topic, row.generation, row.partition, row.offset): _sound(world, row) for row in rows}
    copies = {
        (*log, copy.offset): copy.uuid
        for topic in PARTITIONS
        for log, copy in world.catalog.duplicates(topic)
    }
    assert not held.keys() & copies.keys(), "an offset is archived and a duplicate"
    _judge_messages(world, held, copies)


def _catch_up(world: SimulatedWorld) -> None:
    refused: HopArchiveError | None = None
    for _ in range(6):
        try:
            archive(world, Faults(), 0)
            break
        except HopArchiveError as error:  # such as: not shown, lost only after a minute
            refused = error
            world.at_ms += 120_000
    else:
        raise AssertionError(f"archiving never ends: {refused}")
    generations = world.catalog.generations(list(PARTITIONS))
    with world.cluster.read() as state:
        for topic, there in state.topics.items():
            latest = generations[topic][-1]
            assert latest.topic_id == there.topic_id, f"{topic} is archived as {latest}"
            for number, log in enumerate(there.logs):
                where = PartitionLog(topic, latest.number, number)
                covered = world.catalog.coverage([topic]).get(where, EMPTY)
                if log.stable > log.low:
                    missing = OffsetSet.between(log.low, log.stable) - covered
                    assert not missing, f"{where}: {missing} is not covered"


def _look(world: SimulatedWorld) -> list[Finding]:
    wanted = verification(world)
    found = verify(wanted, recorder(world, wanted), ("objects", "backup", "ledger", "source"), deep=True)
    return [finding for finding, is_open in found if is_open]


def _rows(world: SimulatedWorld) -> list[Row]:
    return [row for topic in PARTITIONS for row in world.catalog.rows(topic)]


def _sound(world: SimulatedWorld, row: Row) -> Message | None:
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


Places: TypeAlias = Mapping[tuple[str, int | None, int | None, int | None], Message | None]
"""What is archived at topic, generation, partition and offset; None where its content was suppressed."""


def _judge_messages(
    world: SimulatedWorld, held: Places, copies: Mapping[tuple[str, int, int, int], UUID]
) -> None:
    """Every message that ever was is archived as it was, a copy of one that is, or told to be gone; and nothing else is."""
    told: dict[PartitionLog, OffsetSet] = {}
    for entry in world.catalog.ledger():
        if entry.outcome is not Outcome.ARCHIVED:
            log = entry.slice.partition_log
            told[log] = told.get(log, EMPTY) | entry.slice.offsets
    coverage = world.catalog.coverage()
    by_uuid = {row.uuid for row in _rows(world)}
    ever: dict[tuple[str | int | None, ...], list[Message]] = {}
    for topic, generations in world.catalog.generations(list(PARTITIONS)).items():
        for generation, (topic_id, number) in itertools.product(generations, world.lives):
            if topic_id == generation.topic_id:
                where = PartitionLog(topic, generation.number, number)
                covered = coverage.get(where, EMPTY)
                is_cut = (topic_id, number) in world.cut  # what stood there then, nobody may have seen
                for offset, messages in world.lives[topic_id, number].items():
                    place = (*where, offset)
                    ever[place] = messages
                    if place in copies:
                        assert copies[place] in by_uuid, f"{place} is a duplicate of nothing"
                    elif (
                        place not in held and not is_cut and (topic_id, number, offset) not in world.compacted
                    ):
                        dealt = offset in told.get(where, EMPTY) or offset not in covered
                        assert dealt, f"{place} counts as absent, and there was a message: {messages}"
    for at, kept in held.items():
        assert at in ever, f"{at} is archived, and never was"
        assert kept is None or _is_one_of(kept, ever[at]), f"{at} is archived as {kept}"
    _judge_what_is_there(world, held, copies, told)


def _judge_what_is_there(
    world: SimulatedWorld,
    held: Places,
    copies: Mapping[tuple[str, int, int, int], UUID],
    told: Mapping[PartitionLog, OffsetSet],
) -> None:
    """What the cluster holds now is archived as it is, or told why it is not."""
    latest = {name: found[-1] for name, found in world.catalog.generations(list(PARTITIONS)).items()}
    with world.cluster.read() as state:
        for topic, there in state.topics.items():
            for number, log in enumerate(there.logs):
                where = PartitionLog(topic, latest[topic].number, number)
                for message in log.read(log.low, log.stable - log.low)[0] if log.stable > log.low else ():
                    place = (*where, message.offset)
                    if place in held:
                        kept = held[place]
                        assert kept is None or _is_one_of(kept, [message]), (
                            f"{place}: {kept} is not {message}"
                        )
                    elif place not in copies:
                        assert message.offset in told.get(where, EMPTY), (
                            f"{place} is neither archived nor told: {message}"
                        )


def _is_one_of(message: Message, others: list[Message]) -> bool:
    return any(
        (m.key, m.value, m.headers, m.timestamp_ms, m.offset)
        == (message.key, message.value, message.headers, message.timestamp_ms, message.offset)
        for m in others
    )
