"""Things in portions of bounded weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Thing = TypeVar("Thing")


def portions(
    things: Iterable[Thing], most: int, most_weight: int, weight: Callable[[Thing], int]
) -> Iterator[list[Thing]]:
    """Things, some at a time: at most so many, and so much together, but for one thing that alone weighs more."""
    some: list[Thing] = []
    held = 0
    for thing in things:
        heavy = weight(thing)
        if some and (len(some) >= most or held + heavy > most_weight):
            yield some
            some, held = [], 0
        some.append(thing)
        held += heavy
    if some:
        yield some
