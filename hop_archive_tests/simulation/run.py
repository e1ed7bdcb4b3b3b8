"""Plays a history and judges it."""

from __future__ import annotations

from unittest.mock import patch

from hop_archive.ingest import write
from hop_archive.recover.restore import items
from hop_archive.recover.restore import write as writing
from hop_archive.upkeep.compact import plan as compaction
from hop_archive_tests.simulation.deeds import AGAIN, DEEDS, REMOVALS
from hop_archive_tests.simulation.finish import finish
from hop_archive_tests.simulation.history import History, history_of
from hop_archive_tests.simulation.judge import Scene, judge
from hop_archive_tests.simulation.stage import AtResult, Player, Stage
from hop_archive_tests.simulation.world import EVENTS, SimulatedWorld


def of_seed(seed: int) -> History:
    """The history of a seed."""
    return history_of(seed, tuple(DEEDS), EVENTS)


def play(history: History) -> tuple[SimulatedWorld, Stage, list[Player]]:
    """Let a history happen, and judge what it leaves.

    Raises:
        AssertionError: An invariant does not hold.
    """
    world = SimulatedWorld(history.seed, history.layout)
    world.removes = any(process.deed in REMOVALS for process in history.processes)
    stage = Stage(history, lambda player, deed, choice: DEEDS[deed](world, player, choice), Scene(world))
    world.resting.append(stage.rest)
    world.ending.append(stage.end_all)
    try:
        # Some dozens of messages make many calls, and small segments.
        with (
            patch.object(compaction, "LEAST_OBJECTS", 2),
            patch.object(writing, "PORTION_MESSAGES", 5),
            patch.object(items, "PAGE", 7),
            patch.object(write, "ThreadPoolExecutor", AtResult),
        ):
            players = stage.run()
            world.resting.clear()
            world.ending.clear()
            undone = [
                (player.name, history.processes[player.number].choice)
                for player in players
                if player.error is not None and player.name in AGAIN
            ]
            finish(world, undone)
        judge(world)
    finally:
        world.close()
    return world, stage, players


def failure(history: History) -> str | None:
    """Why a history fails; None where it does not."""
    try:
        play(history)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return f"{type(error).__name__}: {error}"
    return None
