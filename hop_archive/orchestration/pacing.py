"""Which topics get a run now: pure, so that the sensor only reads, asks here and returns requests."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Self

from hop_archive.errors import ConfigurationError

_VARIABLE = "HOP_ARCHIVE_{}"

OBSTRUCTED_AGAIN_S = 600.0
"""What was not archived, for damage, want of a right or another reason, is tried again after so long: each try is a run that
fails, and the same for a minute-long fault as for one of weeks. A person who mends it waits no longer than this."""

IN_VAIN_AGAIN_S = 60.0
"""Where two shared runs one after another failed, and archived nothing, the next one is asked for so long after. Ticks ask nothing of
the store: while its keys were refused a run failed every 17 s, 200 an hour (2026-11-30)."""

_LULL = 2
"""After so many times the longest wait without a shared run, messages wait no longer: there is nothing to share it with. With
1,000 topics and a message a minute each, there is one more often than that (every 19 s, 2026-11-28)."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """When a topic is archived, and by what kind of run.

    Attributes:
        enough_messages: At once with this many waiting.
        longest_wait_s: With fewer, after this many seconds; at once, where no shared run was asked for in twice that time.
        busy_messages: With this many, in a run of its own; the others share one.
        most_own_runs: Runs of single topics asked for at once; the busiest first, the others wait a tick.
        follow_s: With more than 0 there is always one run that has all topics but those with a run of their
            own, and that archives what arrives about a second after it was published, for so many seconds. With 0 a run is
            started whenever messages wait: every twenty seconds, where topics are never quiet for long.
    """

    enough_messages: int = 1_000
    longest_wait_s: float = 10.0
    busy_messages: int = 20_000
    most_own_runs: int = 10
    follow_s: float = 600.0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """What HOP_ARCHIVE_ENOUGH_MESSAGES, HOP_ARCHIVE_LONGEST_WAIT_S … say; the defaults where they say nothing.

        Raises:
            ConfigurationError: One of them is no number, or a negative one.
        """
        names = [(each.name, _VARIABLE.format(each.name.upper())) for each in fields(cls)]
        given = {name: number(environ[v], v) for name, v in names if environ.get(v)}
        whole = {name: int(value) for name, value in given.items() if not name.endswith("_s")}
        return cls(**{**given, **whole})  # type: ignore[arg-type]  # each has its field's type now


def number(text: str, variable: str, least: float = 0) -> float:
    """The number that a variable of the environment holds, ``least`` or greater.

    Raises:
        ConfigurationError: It holds something else.
    """
    try:
        value = float(text)
    except ValueError:
        value = least - 1
    if not least <= value < float("inf"):
        raise ConfigurationError(
            f"{variable} has to be a number, {least:g} or greater; found {text!r}.",
            remedy="Set it to one, or unset it to have the default.",
            variable=variable,
        )
    return value


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the sensor remembers from tick to tick, in seconds since 1970.

    Attributes:
        since: When each topic was first seen to wait.
        shared_at: When a shared run was last asked for; 0 for never.
    """

    since: Mapping[str, float] = field(default_factory=dict)
    shared_at: float = 0.0

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What ``to_json`` wrote, or the times alone, as an earlier version did; nothing where that is empty."""
        kept = json.loads(text or "{}")
        return cls(**kept) if isinstance(kept.get("since"), dict) else cls(kept)

    def to_json(self) -> str:
        """For the next tick."""
        return json.dumps({"since": self.since, "shared_at": self.shared_at})


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What to ask for.

    Each topic in ``own`` gets a run; those in ``shared`` share one: where one of them is due, all that are not busy.
    ``waiting`` is for the next time.
    """

    own: tuple[str, ...]
    shared: tuple[str, ...]
    waiting: Waiting


def dispatch(
    pending: Mapping[str, int],
    in_flight: Collection[str],
    waiting: Waiting,
    now: float,
    pacing: Pacing,
    *,
    obstructed: Mapping[str, int] | None = None,
    shared_is_starting: bool = False,
) -> Dispatch:
    """Decide which topics get a run.

    Args:
        pending: Messages to be archived, by topic.
        in_flight: Topics with a run that is not over: left alone.
        waiting: As returned the last time.
        now: Seconds since 1970.
        pacing: The rules.
        obstructed: Topics with a partition that is not archived for now, though it was tried, and how many of their messages
            wait in others. Each try is a run that fails: they are due again ``OBSTRUCTED_AGAIN_S`` after the last one, or
            where in their other partitions alone a run of its own is worth it, so that nothing piles up there.
        shared_is_starting: Whether a shared run has been asked for that has not begun. Then no other is: what
            becomes due meanwhile shares the next one, so a slow machine gets fewer and larger runs.
    """
    obstructed = obstructed or {}
    idle = {topic: count for topic, count in pending.items() if topic not in in_flight}
    # A clock that was set back leaves times that are to come: those wait from now on.
    since = {topic: min(waiting.since.get(topic, now), now) for topic in idle}
    shared_at = min(waiting.shared_at, now)
    is_lull = now - shared_at >= _LULL * pacing.longest_wait_s
    waits = {topic: now - begin for topic, begin in since.items()}
    again_s = max(OBSTRUCTED_AGAIN_S, pacing.longest_wait_s)
    held = {
        topic
        for topic in idle
        if topic in obstructed and waits[topic] < again_s and obstructed[topic] < pacing.busy_messages
    }
    due = {
        topic
        for topic, count in idle.items()
        if topic not in held
        and (is_lull or count >= pacing.enough_messages or waits[topic] >= pacing.longest_wait_s)
    }
    # Those that fail have no run before others.
    busy = sorted(
        (t for t in due if idle[t] >= pacing.busy_messages), key=lambda t: (t in obstructed, -idle[t], t)
    )
    own = busy[: pacing.most_own_runs]
    quiet = sorted(t for t in idle if idle[t] < pacing.busy_messages and t not in held)
    # Who waits already comes along: the run costs the same, and the topics do not fall out of step.
    shared = quiet if due.intersection(quiet) and not shared_is_starting else []
    gone = {*own, *shared}
    left = {topic: begin for topic, begin in since.items() if topic not in gone}
    return Dispatch(tuple(own), tuple(shared), Waiting(left, now if shared else shared_at))


def followed(
    decided: Dispatch, archived: Collection[str], in_flight: Collection[str], obstructed: Collection[str] = ()
) -> tuple[str, ...]:
    """The topics that a following run takes on: all but those that have, or now get, another run, or are obstructed.

    All, not those where something waits: two followers would each hold a place among the runs for as long as
    they stay, and a message would wait until its topic's turn came. What is obstructed would make each of them fail.
    """
    return tuple(sorted(set(archived) - set(in_flight) - set(decided.own) - set(obstructed)))
