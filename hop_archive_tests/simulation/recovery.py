"""What processes do that read the archive, put messages back on a topic, or make the catalog again."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Row
from hop_archive.devkit.faults import Faults
from hop_archive.errors import ConfigurationError, CorruptError, ObjectMissingError
from hop_archive.model.findings import Kind
from hop_archive.model.identity import digest
from hop_archive.model.message import TopicPartition
from hop_archive.model.slices import PartitionLog
from hop_archive.read.browse import OpenArchive
from hop_archive.read.catalog_snapshot import CatalogSnapshot
from hop_archive.read.catalog_snapshot import snapshot as write_catalog_snapshot
from hop_archive.read.report import gather
from hop_archive.read.snapshot_locations import StoreLocation
from hop_archive.recover.rebuild.from_snapshot import take_in
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.prepare import Restoration
from hop_archive.recover.restore.request import Request
from hop_archive.recover.restore.run import restore
from hop_archive.source.mock.source import MockSource
from hop_archive_tests.invariants import committed
from hop_archive_tests.simulation.stage import Player
from hop_archive_tests.simulation.world import PARTITIONS, RestoreBegun, SimulatedWorld
from hop_archive_tests.worlds import exhausted

_TRIES = 2
"""So many restores there are, so that one goes on with what another began, or both are at work at once."""

FINAL = "final"
"""How the topics end to which all is restored once everything is over."""


def reading(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """Read all messages, as a service does: each that was there all the time comes, once, whole and in order."""
    own = world.archive(faults)
    before = world.catalog
    there = {row.uuid for row in world.rows()}
    newest_first = choice % 3 == 0
    opened = OpenArchive(own.catalog, own.store, now=world.now)
    try:
        seen = [archived.row for archived in opened.messages(newest_first=newest_first)]
    except (CorruptError, ObjectMissingError) as error:
        if isinstance(faults, Player) and faults.was_deceived:
            raise
        raise AssertionError(f"a reader was told: {error}") from error
    stayed = {row.uuid for row in world.rows()} & there if before is world.catalog else set[uuid.UUID]()
    counts = Counter(row.uuid for row in seen)
    assert not stayed - counts.keys(), f"a reader missed {stayed - counts.keys()}"
    assert not [own for own, count in counts.items() if count > 1], "a reader saw a message twice"
    places = [(row.topic, row.generation or 0, row.partition or 0, row.offset or 0) for row in seen]
    assert newest_first or places == sorted(places), "a reader saw messages out of order"


def reporting(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """Gather a report, of all or of what a process knows of one topic."""
    gather(world.archive(faults), days=1 + choice % 40)


def catalog_snapshot(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """Write a snapshot of the catalog into the store."""
    own = world.archive(faults)
    write_catalog_snapshot(
        CatalogSnapshot(own.catalog, StoreLocation(own.store), full=choice % 4 == 0, now=world.now)
    )


def rebuilding(world: SimulatedWorld, faults: Faults, choice: int, *, from_store_alone: bool = False) -> None:
    """Make the catalog again, as the command line does it: of the store, perhaps of a snapshot first."""
    chance = random.Random(choice)
    own = world.archive(faults)
    source = own.source if chance.random() < 0.7 else None
    work_dir = world.folder / "rebuild" if chance.random() < 0.5 else None
    wanted = Rebuild(
        own.catalog,
        own.store,
        source,
        work_dir=work_dir,
        run_id="rebuild",
        most_rows=5,
        monotonic=world.monotonic,
    )
    if chance.random() < 0.5 and not from_store_alone:
        alone = MockCatalog()
        with suppress(ConfigurationError, CorruptError):
            exhausted(take_in(Rebuild(alone, world.store), StoreLocation(world.store)))
        world.let_dangle(alone)
        try:
            exhausted(take_in(wanted, StoreLocation(own.store)))
        except (ConfigurationError, CorruptError) as error:  # there is none, or what is there is torn
            if wanted.failures.raised is not error and isinstance(error, CorruptError):
                raise
    world.rebuilt = True
    for finding in rebuild(wanted):
        if finding.kind is Kind.CORRUPT_OBJECT and finding.uuid is not None:
            world.without_row.add(finding.uuid)


def restored(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """Restore all to topics of another name; what is done is looked at by itself, too."""
    restore_to(world, faults, f"{choice % _TRIES}", duplicates=choice % _TRIES == 1)


def restore_to(world: SimulatedWorld, faults: Faults, name: str, *, duplicates: bool = False) -> None:
    """Restore all to topics whose names end so; on from wherever an earlier try got to."""
    begun = world.restored.get(name)
    rows = {row.uuid: row for row in world.rows()}
    if begun is None or begun.catalog is not world.catalog:
        begun = RestoreBegun(rows, frozenset(_suppressed(world.catalog, rows)), world.catalog)
        world.restored[name] = begun
    begun.rows.update((own, row) for own, row in rows.items() if own not in begun.rows)
    own = world.archive(faults)
    wanted = Restoration(
        catalog=own.catalog,
        store=own.store,
        target=faults.wrap(MockSource("target", cluster=world.target), "target"),
        request=Request(template=f"{{topic}}.{name}", duplicates=duplicates, set_topic_config=True),
        now=world.now,
    )
    control = Control(patience_s=0.0, sleep=world.sleep, monotonic=world.monotonic)
    outcome = restore(wanted, control, world.folder / f"restore-{name}")
    assert outcome.complete
    assert not outcome.differences, outcome.report
    assert not outcome.left_out, outcome.report
    if begun.catalog is world.catalog:
        judge_restored(world, name, begun, duplicates=duplicates, everything=name == FINAL)


def judge_restored(
    world: SimulatedWorld, name: str, begun: RestoreBegun, *, duplicates: bool, everything: bool
) -> None:
    """What was there from the beginning to the end is there, in order, and nothing twice; nothing that was suppressed before.

    Args:
        world: Where.
        name: How the topics end.
        begun: What was there at the beginning.
        duplicates: Whether duplicates were put back, too.
        everything: Whether nobody changed anything meanwhile: then nothing else is there.
    """
    now = {row.uuid: row for row in world.rows()}
    gone = begun.suppressed | _suppressed(world.catalog, now)
    with world.target.read() as state:
        counts = {
            t: len(state.topics[f"{t}.{name}"].logs) for t in PARTITIONS if f"{t}.{name}" in state.topics
        }
    for topic, partitions in counts.items():
        known = next((r for r in world.catalog.restores() if f"{topic}.{name}" in r.progress), None)
        if known is None:  # it was restored before the catalog was lost, and nothing of it was there since
            assert world.lost
            assert not any(
                row.topic == topic for own, row in begun.rows.items() if own in now and own not in gone
            )
            continue
        lanes = known.progress[f"{topic}.{name}"]["pin"]["lanes"]
        for number in range(partitions):
            there = [
                (digest(m.key, m.headers, m.value), m.timestamp_ms)
                for m in committed(world.target, TopicPartition(f"{topic}.{name}", number))
            ]
            logs = [
                (PartitionLog(topic, generation, partition), stop)
                for generation, partition, stop in lanes
                if partition == number
            ]
            kept = [*_content(now[own] for own, row in begun.rows.items() if own in now and own not in gone)]
            wanted = _in_lanes(logs, kept)
            assert _is_subsequence(wanted, there), f"{topic}.{name}[{number}] lacks {wanted} of {there}"
            if everything and not duplicates:
                assert wanted == there, f"{topic}.{name}[{number}] holds {there}, and not {wanted}"
            hidden = Counter(
                _in_lanes(logs, [*_content(begun.rows[own] for own in begun.suppressed if own in begun.rows)])
            )
            shown = Counter(
                _in_lanes(logs, [*_content(r for r in now.values() if r.uuid not in begun.suppressed)])
            )
            for content in hidden.keys() - shown.keys():
                assert content not in there, f"{topic}.{name}[{number}] holds what was suppressed before"


Placed = tuple[PartitionLog, int, bytes, int]


def _content(rows: Iterable[Row]) -> Iterator[Placed]:
    for row in rows:
        if row.slice is not None and row.digest is not None:
            yield row.slice.partition_log, row.slice.start, row.digest, row.timestamp_ms


def _in_lanes(logs: list[tuple[PartitionLog, int]], placed: list[Placed]) -> list[tuple[bytes, int]]:
    """Digest and timestamp of what stands in these logs below their stops, in order."""
    found = sorted(one for one in placed for log, stop in logs if one[0] == log and one[1] < stop)
    return [(content, timestamp_ms) for _, _, content, timestamp_ms in found]


def _is_subsequence(some: list[tuple[bytes, int]], every: list[tuple[bytes, int]]) -> bool:
    rest = iter(every)
    return all(one in rest for one in some)


def _suppressed(catalog: MockCatalog, rows: Iterable[uuid.UUID]) -> frozenset[uuid.UUID]:
    return frozenset(catalog.suppressed([*rows]))
