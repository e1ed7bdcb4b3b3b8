"""What an operator does once all is well again; then nothing is left that is neither mended nor told."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Collection, Sequence

from hop_archive.devkit.faults import Faults
from hop_archive.errors import (
    ConfigurationError,
    ConflictError,
    CorruptError,
    HopArchiveError,
    ObjectMissingError,
)
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog
from hop_archive.read.contents import ObjectContents
from hop_archive.upkeep.repair.orphans import called_lost, documents_of
from hop_archive.upkeep.verify.verify import verify
from hop_archive_tests.simulation.deeds import DEEDS, archive, mend, recorder, suppress_one, verification
from hop_archive_tests.simulation.judge import no_row_points_at_nothing
from hop_archive_tests.simulation.recovery import FINAL, rebuilding, restore_to
from hop_archive_tests.simulation.world import DAY_MS, PARTITIONS, SimulatedWorld, objects_of

TOLD = frozenset({Kind.LOST, Kind.LOG_TRUNCATED})
"""What no repair brings back: it stays open until a person accepts it."""

MOST_REPAIRS = 3
"""So many an operator makes, and looks after each."""


def finish(world: SimulatedWorld, undone: Sequence[tuple[str, int]]) -> None:
    """Make the catalog again if it was lost, archive what is left, do again what was not done, verify, repair.

    Args:
        world: Where.
        undone: What failed or died, with its choice.

    Raises:
        AssertionError: Something is left that is neither mended nor told.
    """
    world.heal()
    if world.lost:
        try:
            rebuilding(world, Faults(), world.seed)
        except (
            ConflictError
        ):  # of topics whose archiving began before the snapshot was taken in; it says what to do
            rebuilding(world, Faults(), world.seed, from_store_alone=True)
    catch_up(world)
    world.at_ms += 900_000  # pruning is refused of topics that were archived just now
    for deed, choice in undone:
        # What a restore began with may be gone, and then it is refused; so it is where its record was lost with the catalog.
        with contextlib.suppress(ConflictError, ConfigurationError, CorruptError):
            DEEDS[deed](world, Faults(), choice)
    refused = _suppressed(world, world.to_suppress)
    # What one repair brings back may show what another one has to settle, or that a log has another generation.
    for repairs in itertools.count():
        world.replicate()
        world.at_ms += 10 * DAY_MS
        world.removing().delete_pending("compact")
        left = _left(world)
        if not left and not refused:
            break
        assert repairs < MOST_REPAIRS, (
            f"still found after {repairs} repairs: {left}, not suppressed: {refused}"
        )
        told = mend(world, Faults(), 0)
        if any("hop-archive rebuild-catalog -T" in how for how in told):
            rebuilding(world, Faults(), world.seed, from_store_alone=True)
        no_row_points_at_nothing(world, f"repair {repairs + 1}")
        catch_up(world)
        refused = _suppressed(world, world.to_suppress)  # as repair says of orphans with such content
    # One more repair puts aside what a person may see to, and nothing else; what the last one did is seen as well.
    before = (world.rows(), world.catalog.ledger())
    mend(world, Faults(), 0)
    assert (world.rows(), world.catalog.ledger()) == before, "a repair changed what was well"
    left = _left(world)
    assert not left, f"found after the last repair: {left}"
    if world.restored:
        restore_to(world, Faults(), FINAL)


def _left(world: SimulatedWorld) -> list[Finding]:
    """What verification finds that is neither to be told only, nor for a person."""
    wanted = verification(world)
    found = verify(wanted, recorder(world, wanted), ("objects", "backup", "ledger", "source"), deep=True)
    return [f for f, is_open in found if is_open and f.kind not in TOLD and not _is_for_a_person(world, f)]


def _suppressed(world: SimulatedWorld, asked: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Suppress these.

    Returns:
        Those that are refused until it is repaired that their segment is not there: a snapshot or dump of the catalog that was
        put back is older than what the store has.
    """
    refused = set()
    for own in sorted(asked):
        try:
            suppress_one(world, Faults(), own)
        except CorruptError as error:
            # Another attempt's segment has what stood there before the log was truncated, too: it says what to do.
            if "Run hop-archive rebuild-catalog, then this again" not in str(error):
                raise
            DEEDS["rebuild"](world, Faults(), world.seed)
            suppress_one(world, Faults(), own)
        except ObjectMissingError:
            row = world.catalog.find(own)
            assert world.lost
            assert row is not None
            assert row.object_key not in objects_of(world.store)
            refused.add(own)
    return refused


def catch_up(world: SimulatedWorld) -> None:
    """Archive until nothing is left (invariant 5): all that the cluster holds is covered, in the generation that it has now.

    Raises:
        AssertionError: It never ends, or leaves something.
    """
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
            # A rebuilt generation, of which nobody knows where it came from, may have a greater number.
            own = [g for g in generations[topic] if g.topic_id == there.topic_id]
            assert own, f"{topic} is archived as {generations[topic]}"
            latest = own[-1]
            for number, log in enumerate(there.logs):
                where = PartitionLog(topic, latest.number, number)
                covered = world.catalog.coverage([topic]).get(where, EMPTY)
                if log.stable > log.low:
                    missing = OffsetSet.between(log.low, log.stable) - covered
                    assert not missing, f"{where}: {missing} is not covered"


def _is_for_a_person(world: SimulatedWorld, finding: Finding) -> bool:
    """Whether a person decides.

    Of an object alone that says nothing of which generation it is; of documents of before a catalog was lost, or of offsets that are
    called lost, whose UUIDs others have by now, as a rebuild tells; and of what went after a catalog was dumped that was put back.
    """
    if finding.kind is not Kind.ORPHAN_OBJECT:
        return bool(world.dangling) and finding.kind is Kind.MISSING_OBJECT
    several = len(world.catalog.generations([finding.topic]).get(finding.topic, ())) > 1
    if several and not finding.object_key.startswith("segments/"):
        return True
    held = ObjectContents(finding.object_key, world.body(finding.object_key))
    found = ((document, world.catalog.find(document.uuid)) for _, document in documents_of(held))
    coverage = world.catalog.coverage([finding.topic])
    return any(
        row is not None
        and (row.topic, row.digest) != (document.message.topic, document.digest)
        and (
            bool(world.lost)
            or any(
                document.message.offset in called_lost(world.catalog, log)
                for log in coverage
                if log.partition == document.message.partition
            )
        )
        for document, row in found
    )
