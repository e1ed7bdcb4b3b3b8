"""Histories of many seeds: processes interleaved call by call, with faults, and judged after every change and at the end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest

from hop_archive.devkit.faults import CrashError
from hop_archive.ingest import write
from hop_archive_tests.simulation.history import At, History, Process, shrunk
from hop_archive_tests.simulation.mutants import MUTANTS, ROOT, Mutant, mutated
from hop_archive_tests.simulation.run import failure, of_seed, play
from hop_archive_tests.simulation.stage import StuckError

SEEDS = 700
PORTION = 100


@pytest.mark.parametrize("first", range(0, SEEDS, PORTION))
def test_every_invariant_holds_whatever_happens(first: int) -> None:
    for seed in range(first, first + PORTION):
        history = of_seed(seed)
        why = failure(history)
        assert why is None, (
            f"{why}\n{history}\nShrink it: python -m hop_archive_tests.simulation --seed {seed} --count 1"
        )


def test_a_history_happens_again_the_same() -> None:
    for seed in range(20):
        (world, stage, _), (again, staged, _) = play(of_seed(seed)), play(of_seed(seed))
        assert stage.steps == staged.steps
        assert [*world.store.listing()] == [*again.store.listing()]
        assert world.catalog.ledger() == again.catalog.ledger()


def test_histories_reach_what_they_are_for() -> None:
    """Crashes, failures, switches and every deed and event come about, and not only on paper."""
    died = failed = switched = 0
    for seed in range(60):
        _, stage, players = play(of_seed(seed))
        died += sum(isinstance(player.error, CrashError) for player in players)
        failed += sum(player.error is not None for player in players)
        numbers = [step.split()[0] for step in stage.steps]
        switched += sum(a != b for a, b in pairwise(numbers))
    assert (died > 10, failed > 30, switched > 100) == (True, True, True)


def test_what_fails_is_shrunk_to_what_it_takes() -> None:
    history = of_seed(4)
    needed = At(7, "publish", 1)
    long = replace(
        history, events=(*history.events, needed), processes=(*history.processes, Process("verify", 1))
    )

    def fails(candidate: History) -> bool:
        return needed in candidate.events and any(p.deed == "verify" for p in candidate.processes)

    small = shrunk(long, fails)
    assert small.events == (needed,)
    assert [p.deed for p in small.processes] == ["verify"]
    assert (small.switches, small.blows, small.at_once, small.layout) == ((), (), 1, "message")


def test_a_seed_that_fails_of_a_mutant_fails_again_the_same_and_is_shrunk_to_what_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows are committed whose objects were never made: no process but one that archives is needed for that."""
    monkeypatch.setattr(write, "write_objects", lambda archive, group: list(group))
    history = next(of_seed(seed) for seed in range(50) if len(of_seed(seed).processes) > 3)
    why = failure(history)
    assert why is not None
    assert "which is not there" in why
    assert failure(of_seed(history.seed)) == why
    small = shrunk(history, lambda candidate: "which is not there" in (failure(candidate) or ""))
    assert (small.events, small.blows, small.switches, small.at_once) == ((), (), (), 1)
    assert len(small.processes) <= 1
    assert failure(small) == failure(small)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.why)
def test_each_mutant_can_be_put_into_the_code_as_it_is_now(mutant: Mutant) -> None:
    assert mutated(mutant, ROOT) != (ROOT / "hop_archive" / mutant.path).read_text()


def test_a_process_that_goes_round_in_circles_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hop_archive_tests.simulation.stage.MOST_STEPS", 5)
    with pytest.raises(StuckError, match="goes on without end"):
        play(of_seed(0))


def test_a_process_whose_calls_come_of_two_threads_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of two goes on no seed says; once in two thousand histories each waited for the other."""
    monkeypatch.setattr("hop_archive_tests.simulation.run.AtResult", ThreadPoolExecutor)
    history = next(
        h for h in map(of_seed, range(50)) if h.processes[0].deed == "archive" and h.processes[0].choice % 2
    )
    alone = replace(history, processes=history.processes[:1], switches=(), blows=(), events=(), at_once=1)
    with pytest.raises(AssertionError, match="in two threads"):
        play(alone)
