"""What is to happen in a simulated world, as values that a seed gives and that can be shrunk. Pure."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from hop_archive_tests.worlds import WorldLayout

LAYOUTS: tuple[WorldLayout, ...] = ("message", "segment", "zstd")


class Blow(enum.Enum):
    """What befalls a call.

    ``PART``: a half of what it was given takes effect, and then its answer is lost. ``LATE``: its client gives it up, and the
    server does it some calls later, of whomever. ``TWICE``: the server does it again some calls later, as where a client had
    sent it a second time. ``TORN``: a half of an object's bytes arrive. ``STALE``: a listing, or an object, is as it was some
    changes ago.

    What of these is in the contract: an answer that comes late or twice (``Store.create`` is conditional, a commit a
    transaction). S3 and its like are consistent since 2020, and an HTTP client tells a body that is cut: torn and stale
    answers are not to be had of them, and are played all the same, for nothing may be *lost* by one. Not played: a DELETE
    that comes late, which no condition guards; and reads of a replica of the database, which no stanza may name.
    """

    FAIL_BEFORE = "fails before"
    FAIL_AFTER = "fails after"
    PART = "is half done"
    LATE = "is given up, and takes effect later"
    TWICE = "takes effect, and once more later"
    TORN = "is answered by a half"
    STALE = "is answered as of before"
    CRASH_BEFORE = "is where the process dies, before"
    CRASH_AFTER = "is where the process dies, after"


class Process(NamedTuple):
    """A process that runs beside others: which deed it does, and the number that its choices follow from."""

    deed: str
    choice: int


class At(NamedTuple):
    """Something that happens at a step: one call of one process is one step."""

    step: int
    what: str
    choice: int


@dataclass(frozen=True, slots=True)
class History:
    """All that happens.

    Attributes:
        seed: Where it comes from; the world's first messages follow from it.
        layout: How objects are laid out.
        at_once: How many processes run at once; when one ends, the next of ``processes`` begins.
        processes: In the order in which they begin.
        switches: Steps before which another process goes on; ``choice`` says which.
        blows: Steps whose call goes wrong; ``what`` is the name of a `Blow`.
        events: What happens to the source, the clock or the objects at a step, or before the next call that it waits for
            (``calls.awaited``).
    """

    seed: int
    layout: WorldLayout
    at_once: int
    processes: tuple[Process, ...]
    switches: tuple[At, ...]
    blows: tuple[At, ...]
    events: tuple[At, ...]

    def __str__(self) -> str:
        lines = [f"history of seed {self.seed}: layout {self.layout}, {self.at_once} processes at once"]
        lines += [f"  process {n}: {p.deed} ({p.choice})" for n, p in enumerate(self.processes)]
        lines += [f"  step {at.step}: switch {at.choice}" for at in self.switches]
        lines += [f"  step {at.step}: the call {Blow[at.what].value}" for at in self.blows]
        lines += [f"  step {at.step}: {at.what} ({at.choice})" for at in self.events]
        return "\n".join(lines)


def history_of(seed: int, deeds: tuple[str, ...], events: tuple[str, ...]) -> History:
    """The history of a seed: the same seed and names give the same one."""
    chance = random.Random(seed)
    processes = tuple(
        # Mostly there is something archived before anything else is done with it.
        Process(
            "archive" if chance.random() < (0.3 if n else 0.8) else chance.choice(deeds),
            chance.getrandbits(30),
        )
        for n in range(chance.randint(2, 6))
    )
    reach = 120 * len(processes)

    def some(most: int, names: tuple[str, ...]) -> tuple[At, ...]:
        return tuple(
            sorted(
                At(_step(chance, reach), chance.choice(names), chance.getrandbits(30))
                for _ in range(chance.randint(0, most))
            )
        )

    layout, at_once = chance.choice(LAYOUTS), chance.choice((1, 2, 2, 3))
    switches, blows = some(14, ("switch",)), some(5, tuple(blow.name for blow in Blow))
    return History(seed, layout, at_once, processes, switches, blows, some(6, events))


def _step(chance: random.Random, reach: int) -> int:
    """Early steps more often than late ones: a process that dies early makes few."""
    return int(reach * chance.random() ** 1.5) + 1


def shrunk(history: History, fails: Callable[[History], bool]) -> History:
    """The same history without what it does not take to fail: nothing more can be left out of it."""
    went_on = True
    while went_on:
        went_on = False
        for smaller in _smaller(history):
            if fails(smaller):
                history, went_on = smaller, True
                break
    return history


def _smaller(history: History) -> Iterator[History]:
    for name in ("events", "blows", "processes", "switches"):
        listed = getattr(history, name)
        for size in (len(listed) // 2, 1):
            for start in range(0, len(listed), max(size, 1)) if size else ():
                yield replace(history, **{name: listed[:start] + listed[start + size :]})
    if history.at_once > 1:
        yield replace(history, at_once=history.at_once - 1)
    if history.layout != LAYOUTS[0]:
        yield replace(history, layout=LAYOUTS[0])
