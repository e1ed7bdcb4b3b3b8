"""What goes wrong when in a soak, by its seed alone. Pure."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator
from typing import NamedTuple

from hop_archive.devkit.proxy import Trouble

NETWORKS = ("kafka", "postgres", "s3")
KILLED = ("worker", "code server", "daemon", "rival", "upkeep", "session", "postgres", "s3")
"""A worker is a process of a run, a session one process of Postgres'. Tansu keeps all in memory: its broker is frozen, never killed."""
FROZEN = ("worker", "code server", "daemon", "rival", "kafka", "postgres", "s3")
FILLED = ("postgres", "s3")


class Kind(enum.Enum):
    """What is done to a target: bytes go astray, SIGKILL and a start anew, SIGSTOP and SIGCONT, its disk is full, its clock jumps."""

    NETWORK = "network"
    KILL = "kill"
    FREEZE = "freeze"
    FILL = "fill"
    CLOCK = "clock"


class Deed(NamedTuple):
    """One thing to go wrong.

    Attributes:
        at_s: When, in seconds from the beginning.
        for_s: For how long; of what is killed, until it is started again.
        trouble: Of a network: which one, with its ``chance``.
        offset_s: Of a clock: by how much it is wrong from then on.
    """

    at_s: float
    kind: Kind
    target: str
    for_s: float
    trouble: Trouble | None = None
    chance: float = 0.0
    offset_s: int = 0


def schedule(seed: int, seconds: float, each_s: float = 2.5) -> list[Deed]:
    """Deeds in the order of their time, one each ``each_s`` seconds or so: each kind to each target once, then by chance.

    No two are done to one target at once, and the last is over at the end.
    """
    dice = random.Random(f"soak:{seed}")
    free_at: dict[tuple[str, str], float] = {}
    deeds: list[Deed] = []
    at_s = 3.0
    for deed in _without_end(dice):
        at_s += each_s * dice.uniform(0.5, 1.5)
        if at_s > seconds:
            break
        where = ("network" if deed.kind is Kind.NETWORK else "process", deed.target)
        begin = max(at_s, free_at.get(where, 0.0))
        if begin + deed.for_s <= seconds:
            free_at[where] = begin + deed.for_s + 1.0
            deeds.append(deed._replace(at_s=round(begin, 2)))
    return sorted(deeds, key=lambda deed: deed.at_s)


def _without_end(dice: random.Random) -> Iterator[Deed]:
    everything = [(Kind.NETWORK, target, trouble) for target in NETWORKS for trouble in Trouble]
    rest = [(Kind.KILL, target) for target in KILLED] + [(Kind.FREEZE, target) for target in FROZEN]
    rest += [(Kind.FILL, target) for target in FILLED] + [(Kind.CLOCK, "clock")]
    all_once: list[tuple[Kind, str, Trouble | None]] = [*everything, *((*pair, None) for pair in rest)]
    dice.shuffle(all_once)
    for kind, target, trouble in all_once:
        yield _deed(dice, kind, target, trouble)
    while True:
        if dice.random() < 0.5:
            yield _deed(dice, *dice.choice(everything))
        else:
            yield _deed(dice, *dice.choice(rest), None)


def _deed(dice: random.Random, kind: Kind, target: str, trouble: Trouble | None) -> Deed:
    for_s = round(dice.uniform(1.0, 8.0), 2)
    match kind:
        case Kind.NETWORK:
            often = trouble in (Trouble.REFUSE, Trouble.DELAY, Trouble.THROTTLE, Trouble.BLACKHOLE)
            return Deed(
                0.0,
                kind,
                target,
                for_s,
                trouble,
                dice.choice((0.5, 1.0)) if often else dice.choice((0.05, 0.3)),
            )
        case Kind.CLOCK:
            return Deed(0.0, kind, target, 4 * for_s, offset_s=dice.choice((-7200, -90, 90, 7200)))
        case Kind.FREEZE:
            return Deed(0.0, kind, target, 2 * for_s)
    return Deed(0.0, kind, target, for_s)
