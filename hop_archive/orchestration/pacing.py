"""Which topics get a run now: pure, so that the sensor only reads, asks here and returns requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Eagerness:
    """When a topic is archived.

    Attributes:
        enough_messages: At once with this many waiting.
        longest_wait_s: With fewer, after this many seconds.
        busy_messages: With this many, in a run of its own.
        most_own_runs: Runs of single topics asked for at once; the busiest first, the others wait a tick.
    """

    enough_messages: int
    longest_wait_s: float
    busy_messages: int
    most_own_runs: int


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What to ask for.

    Attributes:
        own: Topics that get a run each.
        shared: Topics that share one run.
        waiting_since: When each topic was first seen to wait, for the next time; seconds since 1970.
    """

    own: tuple[str, ...]
    shared: tuple[str, ...]
    waiting_since: Mapping[str, float]


def dispatch(
    pending: Mapping[str, int],
    in_flight: Collection[str],
    waiting_since: Mapping[str, float],
    now: float,
    eagerness: Eagerness,
) -> Dispatch:
    """Decide which topics get a run.

    Args:
        pending: Messages to be archived, by topic.
        in_flight: Topics with a run that is not over: left alone.
        waiting_since: As returned the last time.
        now: Seconds since 1970.
        eagerness: The rules.
    """
    idle = {topic: count for topic, count in pending.items() if topic not in in_flight}
    since = {topic: waiting_since.get(topic, now) for topic in idle}
    due = [
        topic
        for topic, count in idle.items()
        if count >= eagerness.enough_messages or now - since[topic] >= eagerness.longest_wait_s
    ]
    busy = sorted((t for t in due if idle[t] >= eagerness.busy_messages), key=lambda t: (-idle[t], t))
    own = busy[: eagerness.most_own_runs]
    shared = sorted(t for t in due if idle[t] < eagerness.busy_messages)
    gone = {*own, *shared}
    return Dispatch(tuple(own), tuple(shared), {t: s for t, s in since.items() if t not in gone})
