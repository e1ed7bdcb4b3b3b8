"""What processes do in a simulation, as the command line and Dagster do it."""

from __future__ import annotations

import contextlib
import datetime
import random
import uuid
from collections.abc import Callable
from functools import partial
from typing import TypeAlias, TypeVar

from hop_archive.devkit.faults import Faults
from hop_archive.errors import UnavailableError
from hop_archive.ingest.cluster_state import take_snapshot
from hop_archive.ingest.follow import catch_up, follow_for
from hop_archive.ingest.plan import units
from hop_archive.ingest.survey import plan_work
from hop_archive.ingest.write import commit_batches, store_slices
from hop_archive.model.query import Query
from hop_archive.upkeep.compact.compact import compact
from hop_archive.upkeep.compact.plan import Compaction
from hop_archive.upkeep.remove.clean_tests import clean_marked
from hop_archive.upkeep.remove.duplicates import deduplicate
from hop_archive.upkeep.remove.prune import Policy, prune
from hop_archive.upkeep.remove.suppress import suppress
from hop_archive.upkeep.repair.plan import Repair, Upstream
from hop_archive.upkeep.repair.repair import repair
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.scrub import scrub
from hop_archive.upkeep.verify.verification import Verification
from hop_archive.upkeep.verify.verify import verify
from hop_archive_tests.simulation.recovery import catalog_snapshot, reading, rebuilding, reporting, restored
from hop_archive_tests.simulation.world import TOPICS, SimulatedWorld
from hop_archive_tests.worlds import exhausted, layout_policy

Result = TypeVar("Result")
Deed: TypeAlias = Callable[[SimulatedWorld, Faults, int], object]


def archive(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """As ``hop-archive run --until-caught-up`` does it."""
    exhausted(catch_up(world.archive(faults, f"run-{choice}"), overlap=choice % 2))


def in_halves(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """As Dagster's steps do it: each half is tried again by itself."""
    own = world.archive(faults, f"run-{choice}")
    for unit in units(plan_work(own).plan.slices, 10):
        batches = _tried_again(partial(store_slices, own, list(unit)))
        _tried_again(partial(commit_batches, own, batches))


def follow(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """As a run of Dagster's that stays does it."""
    idle = 0
    for dones in follow_for(world.archive(faults, f"run-{choice}"), TOPICS, 1_000.0, lambda _: None):
        idle = 0 if dones else idle + 1
        if idle == 4:
            return


def look(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """Verify, in some directions, perhaps deep."""
    chance = _dice(choice)
    directions = chance.sample(("objects", "ledger", "source", "backup"), chance.randint(1, 4))
    wanted = verification(world, faults)
    exhausted(verify(wanted, recorder(world, wanted), directions, deep=chance.random() < 0.5))


def scrubbing(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """A night's scrub."""
    wanted = verification(world, faults)
    exhausted(scrub(wanted, recorder(world, wanted), 2.0))


def mend(world: SimulatedWorld, faults: Faults, choice: int) -> list[str]:
    """Repair what is found; what is said of each finding."""
    own = world.archive(faults)
    backup = faults.wrap(world.backup, "backup")
    asked = Repair(own.catalog, own.store, backup, Upstream(own), now=world.now)
    return [result.how for result in repair(asked, dry_run=False)]


def deduplicated(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """Take away what is there twice."""
    deduplicate(world.removing(faults))


def pruned(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """Take away what is older than some days."""
    chance = _dice(choice)
    policy = Policy((chance.choice(TOPICS),), datetime.timedelta(days=chance.choice((1, 20))))
    prune(world.removing(faults), policy, quiet_s=chance.choice((0.0, 600.0)))


def cleaned(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """Take away what is marked as a test."""
    clean_marked(world.removing(faults), Query())


def suppressed(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """Take away the content of a message for good."""
    rows = sorted(row.uuid for topic in TOPICS for row in world.catalog.rows(topic))
    if rows:
        suppress_one(world, faults, rows[choice % len(rows)])


def suppress_one(world: SimulatedWorld, faults: Faults, own: uuid.UUID) -> None:
    """Take away the content of this message for good; it counts as asked for once it is noted."""
    world.to_suppress.add(own)
    suppress(world.removing(faults), [own], "a court said so", grace_s=-1)


def compacted(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """Put small objects together, at once or when they are a day old."""
    chance = _dice(choice)
    age, grace = (datetime.timedelta(days=chance.choice((0, 1))) for _ in range(2))
    wanted = Compaction(
        layout_policy("zstd" if chance.random() < 0.5 else "segment"), age, grace=grace, everything=True
    )
    exhausted(compact(world.removing(faults), wanted))


def snapshot(world: SimulatedWorld, faults: Faults, choice: int) -> None:
    """Note what the cluster is like."""
    take_snapshot(world.archive(faults))


DEEDS: dict[str, Deed] = {
    "archive": archive,
    "halves": in_halves,
    "follow": follow,
    "verify": look,
    "scrub": scrubbing,
    "repair": mend,
    "deduplicate": deduplicated,
    "prune": pruned,
    "clean": cleaned,
    "suppress": suppressed,
    "compact": compacted,
    "snapshot": snapshot,
    "restore": restored,
    "rebuild": rebuilding,
    "catalog snapshot": catalog_snapshot,
    "read": reading,
    "report": reporting,
}

REMOVALS = ("deduplicate", "prune", "clean")
"""These take messages away."""

AGAIN = ("deduplicate", "prune", "clean", "compact", "rebuild", "restore")
"""Of these, one that failed is done again by the same command."""


def verification(world: SimulatedWorld, faults: Faults | None = None) -> Verification:
    """What a new process verifies."""
    own = world.archive(faults)
    return Verification(
        own.catalog, own.store, now=world.now, sleep=lambda _: None,
        backup=(faults or Faults()).wrap(world.backup, "backup"),
        open_archive=lambda: contextlib.nullcontext(own),
    )  # fmt: skip


def recorder(world: SimulatedWorld, wanted: Verification) -> FindingsRecorder:
    """What notes its findings."""
    return FindingsRecorder(wanted.catalog, now=world.now, monotonic=world.monotonic)


def _tried_again(step: Callable[[], Result]) -> Result:
    try:
        return step()
    except UnavailableError:
        return step()


def _dice(choice: int) -> random.Random:
    return random.Random(choice)
