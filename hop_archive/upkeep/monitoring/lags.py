"""How long the oldest message has been waiting that is not archived, by looking again and again. Pure.

Kafka does not tell when an offset was written. So each look marks where a partition's log ends: what is still waiting below an
earlier mark has been waiting since then, or longer. A look that comes every minute is wrong by a minute at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_MOST_MARKS = 24
"""Of a partition that is behind by more looks than that, every other mark goes: it is then told to a twelfth of its lag."""


class Position(NamedTuple):
    """How far a partition is.

    Attributes:
        end: Where its log ends (last stable offset).
        waiting: Offsets below that are not dealt with.
        first: The least of them; ``end`` where there is none.
    """

    end: int
    waiting: int
    first: int


class Mark(NamedTuple):
    """That a log ended at ``end`` at ``at_s``, in seconds since 1970."""

    at_s: float
    end: int


Positions = Mapping[str, Mapping[str, Position]]
"""By topic, and by generation and partition: ``1/0``. Over all of a topic, what goes on would hide what is stuck."""
Marks = Mapping[str, Mapping[str, tuple[Mark, ...]]]
"""Likewise."""


def marked(marks: Marks, positions: Positions, now_s: float) -> dict[str, dict[str, tuple[Mark, ...]]]:
    """The marks after another look. Topics that it could not see are left as they are; those without a lag have none."""
    kept = {topic: {**places} for topic, places in marks.items() if topic not in positions}
    for topic, places in positions.items():
        before = marks.get(topic, {})
        found = {
            place: some for place, at in places.items() if (some := _of(before.get(place, ()), at, now_s))
        }
        if found:
            kept[topic] = found
    return kept


def _of(before: tuple[Mark, ...], at: Position, now_s: float) -> tuple[Mark, ...]:
    found = [mark for mark in before if at.first < mark.end <= at.end]
    if at.waiting and (not found or found[-1].end < at.end):
        found.append(Mark(now_s, at.end))
    return tuple([*found[:-1:2], found[-1]] if len(found) > _MOST_MARKS else found)


def lag_s(marks: Marks, topic: str, now_s: float) -> float:
    """For how long the oldest waiting message of a topic has been seen to wait; 0 where none is."""
    since = min((found[0].at_s for found in marks.get(topic, {}).values()), default=now_s)
    return max(0.0, now_s - since)
