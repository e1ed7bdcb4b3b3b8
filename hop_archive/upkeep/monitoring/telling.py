"""What people are told, and what they were told already: each problem once when it comes, once when it is over. Pure.

What is new is *news*, and stays so until every service has taken it: one that is down is told later, all at once, and nothing
is lost. What comes and goes again within the time to settle is one problem. What could not be looked at is neither over nor new.
"""

from __future__ import annotations

import datetime
import enum
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

from hop_archive.model.notification import Notification
from hop_archive.model.wording import counted

_MOST_NEWS = 1_000
"""What is kept for services that did not take it."""
_MOST_LINES = 12
"""Of one sort of problem; how many there are more is said."""


class Problem(NamedTuple):
    """Something that is wrong now.

    Attributes:
        sort: What is wrong, as ``lost``: problems of one sort are told together.
        place: Of what: a topic, a job; '' where there is only one.
        what: One sentence, or two, for people.
        remedy: What to do.
        link: Where to look: a path of Dagster's UI, beginning with ``/``; '' for none.
        amount: What has been told is told again where this grows.
        patience_s: For how long it has to be seen before it is told.
    """

    sort: str
    place: str
    what: str
    remedy: str
    link: str = ""
    amount: int = 0
    patience_s: float = 0.0

    @property
    def key(self) -> str:
        """What tells one problem from another."""
        return f"{self.sort} {self.place}".strip()


class Seen(NamedTuple):
    """What one look saw.

    Attributes:
        problems: What is wrong.
        sorts: The sorts that were looked for: what is not among ``problems`` of these is over.
        unknown: Keys of such that could not be looked at all the same.
    """

    problems: tuple[Problem, ...]
    sorts: frozenset[str]
    unknown: frozenset[str] = frozenset()

    def __add__(self, other: object) -> Seen:
        if not isinstance(other, Seen):
            return NotImplemented
        return Seen(self.problems + other.problems, self.sorts | other.sorts, self.unknown | other.unknown)


class Tone(enum.Enum):
    """What has become of a problem."""

    RED = "red"
    STILL = "still red"
    GREEN = "green again"


class News(NamedTuple):
    """What is to be told.

    Attributes:
        left: Names of the services that have not taken it yet.
    """

    at_s: float
    tone: Tone
    problem: Problem
    left: tuple[str, ...]


class Known(NamedTuple):
    """A problem that was seen.

    Attributes:
        since_s: When it was seen first (seconds since 1970).
        told_s: When it was last made news; None where that is not due yet.
        absent_since_s: Since when it has not been seen any more; None where it was at the last look.
    """

    problem: Problem
    since_s: float
    told_s: float | None = None
    absent_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """When something is news.

    Attributes:
        settle_s: For how long a problem has to be gone before it is over.
        remind_s: After how long what is still wrong is told again; 0: never.
        is_patient: Whether what may pass is told once it has lasted, and not at once: for that, looks have to be remembered.
    """

    settle_s: float = 900.0
    remind_s: float = 0.0
    is_patient: bool = True


@dataclass(frozen=True, slots=True)
class Told:
    """What was seen, and what is still to be told: what is kept from look to look.

    Attributes:
        known: The problems, by key.
        news: What some service has not taken yet, oldest first.
        dropped: News that went because there were too many; said with the next message.
    """

    known: Mapping[str, Known] = field(default_factory=dict)
    news: tuple[News, ...] = ()
    dropped: int = 0

    def after(self, seen: Seen, services: Collection[str], now_s: float, rules: Rules) -> Told:
        """The same after another look; news are for all ``services``. Those that are configured no more are left out."""
        known: dict[str, Known] = {}
        new: list[News] = []

        def tell(tone: Tone, problem: Problem) -> None:
            new.append(News(now_s, tone, problem, tuple(services)))

        for problem in seen.problems:
            before = self.known.get(problem.key) or Known(problem, now_s)
            told_s, amount = before.told_s, before.problem.amount
            patience_s = problem.patience_s if rules.is_patient else 0.0
            is_due = told_s is None and now_s - before.since_s >= patience_s
            if is_due or (told_s is not None and problem.amount > amount):
                tell(Tone.RED, problem)
                told_s = now_s
            elif told_s is not None and rules.remind_s and now_s - told_s >= rules.remind_s:
                tell(Tone.STILL, problem)
                told_s = now_s
            known[problem.key] = Known(problem, before.since_s, told_s)
        for key, before in self.known.items():
            if key in known:
                continue
            if before.problem.sort not in seen.sorts or key in seen.unknown:
                known[key] = before
                continue
            absent_s = before.absent_since_s if before.absent_since_s is not None else now_s
            if now_s - absent_s < rules.settle_s:
                known[key] = before._replace(absent_since_s=absent_s)
            elif before.told_s is not None:
                tell(Tone.GREEN, before.problem)
        left = [
            news._replace(left=tuple(name for name in news.left if name in services)) for news in self.news
        ]
        # What is new now, be it ever so much, goes only once it was offered: what of it comes first may be what matters most.
        left = [one for one in left if one.left]
        dropped = min(len(left), max(0, len(left) + len(new) - _MOST_NEWS))
        news = (*left[dropped:], *(one for one in new if one.left))
        return Told(known, news, self.dropped + dropped if news else 0)

    def for_service(self, name: str) -> list[News]:
        """What a service has not taken yet."""
        return [news for news in self.news if name in news.left]

    def taken(self, name: str, news: Collection[News]) -> Told:
        """The same after a service took these."""
        left = [
            one._replace(left=tuple(n for n in one.left if n != name)) if one in news else one
            for one in self.news
        ]
        kept = tuple(one for one in left if one.left)
        return replace(self, news=kept, dropped=self.dropped if kept else 0)

    def red(self) -> list[Known]:
        """What is wrong as far as is known, the oldest first."""
        return sorted((k for k in self.known.values() if k.told_s is not None), key=lambda k: k.since_s)

    @property
    def is_well(self) -> bool:
        """Whether nothing that was told is wrong still, as far as the last look could see."""
        return not any(k.told_s is not None and k.absent_since_s is None for k in self.known.values())

    def to_json(self) -> dict[str, object]:
        """For the next look; JSON-able."""
        return {
            "known": [[list(k.problem), *k[1:]] for k in self.known.values()],
            "news": [[n.at_s, n.tone.value, list(n.problem), list(n.left)] for n in self.news],
            "dropped": self.dropped,
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, object]) -> Self:
        """What ``to_json`` wrote; nothing known where that is empty.

        Raises:
            ValueError, TypeError, KeyError: It is something else.
        """
        if not kept:
            return cls()
        shape = json.loads(json.dumps(kept))
        known = [Known(Problem(*problem), *rest) for problem, *rest in shape["known"]]
        news = [
            News(at, Tone(tone), Problem(*problem), tuple(left)) for at, tone, problem, left in shape["news"]
        ]
        return cls({k.problem.key: k for k in known}, tuple(news), int(shape["dropped"]))


def message(news: Sequence[News], archive: str, ui: str = "", dropped: int = 0) -> Notification:
    """One message of all news: by sort, what is red first, with what to do and where to look.

    Args:
        news: Some.
        archive: Which archive it is, for the title.
        ui: Address of Dagster's web page; '' for none.
        dropped: News that there were, too.
    """
    now = {one.problem.key: one for one in news}  # of one problem the last word
    red = [one for one in now.values() if one.tone is not Tone.GREEN]
    over = [one for one in now.values() if one.tone is Tone.GREEN]
    parts = [counted(len(red), "problem")] if red else []
    parts += [f"{len(over)} over"] if over else []
    lines: list[str] = []
    for sort, found in itertools.groupby(
        sorted(red, key=lambda one: (one.problem.sort, one.at_s)), lambda one: one.problem.sort
    ):
        every = list(found)
        lines += [f"RED: {sort}"]
        for one in every[:_MOST_LINES]:
            when = datetime.datetime.fromtimestamp(one.at_s, datetime.UTC)
            still = "still: " if one.tone is Tone.STILL else ""
            place = f"{one.problem.place}: " if one.problem.place else ""
            lines.append(f"- {still}{place}{one.problem.what} (seen {when:%Y-%m-%d %H:%M} UTC)")
        lines += [f"- and {len(every) - _MOST_LINES:,} more"] if len(every) > _MOST_LINES else []
        for remedy in dict.fromkeys(one.problem.remedy for one in every):
            lines += [f"What to do: {remedy}"] if remedy else []
        links = list(dict.fromkeys(one.problem.link for one in every if one.problem.link))
        lines += [f"{ui.rstrip('/')}{link}" for link in links[:3] if ui]
        lines += [""]
    if over:
        lines += ["GREEN again:"]
        lines += [f"- {one.problem.key}" for one in over[:_MOST_LINES]]
        lines += [f"- and {len(over) - _MOST_LINES:,} more"] if len(over) > _MOST_LINES else []
        lines += [""]
    if dropped:
        lines += [f"{counted(dropped, 'older message')} could not be kept until the service answered.", ""]
    if ui:
        lines += [f"Dagster: {ui}"]
    return Notification(f"{archive}: {', '.join(parts)}", "\n".join(lines).strip(), bool(red))
