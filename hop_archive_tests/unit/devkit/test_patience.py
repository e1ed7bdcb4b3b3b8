"""Waiting goes on while something moves, and says why it ends."""

from __future__ import annotations

from hop_archive.devkit.patience import Patience


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_waiting_goes_on_as_long_as_something_moves() -> None:
    clock = Clock()
    patience = Patience(10, 1_000, clock)
    for left in range(50, 0, -1):
        assert patience.is_over(left) == ""
        clock.now += 9
    assert patience.waited_s == 450


def test_it_ends_when_nothing_has_moved_for_long() -> None:
    clock = Clock()
    patience = Patience(10, 1_000, clock)
    assert patience.is_over(5) == ""
    clock.now += 9
    assert patience.is_over(5) == ""
    clock.now += 1
    assert patience.is_over(5) == "nothing has moved for 10 s"


def test_it_ends_when_all_takes_too_long_though_something_moves() -> None:
    clock = Clock()
    patience = Patience(10, 30, clock)
    said = ""
    while not said:
        said = patience.is_over(clock.now)
        clock.now += 5
    assert said == "it is not done after 30 s"
