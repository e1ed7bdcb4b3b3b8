"""Plays a history and judges it."""

from __future__ import annotations

from unittest.mock import patch

from hop_archive.upkeep.compact import plan as compaction
from hop_archive_tests.simulation.deeds import DEEDS, REMOVALS
from hop_archive_tests.simulation.history import History, history_of
from hop_archive_tests.simulation.judge import always, finish, judge
from hop_archive_tests.simulation.stage import Player, Stage
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
    stage = Stage(
        history,
        lambda player, deed, choice: DEEDS[deed](world, player, choice),
        world.happen,
        lambda call: always(world, call),
    )
    world.resting.append(stage.rest)
    with patch.object(compaction, "LEAST_OBJECTS", 2):
        players = stage.run()
    world.resting.clear()
    undone = [
        (player.name, history.processes[player.number].choice)
        for player in players
        if player.error is not None and player.name in REMOVALS
    ]
    finish(world, undone)
    judge(world)
    return world, stage, players


def failure(history: History) -> str | None:
    """Why a history fails; None where it does not."""
    try:
        play(history)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return f"{type(error).__name__}: {error}"
    return None
