"""Looking, telling, remembering: one round of it. Dagster's sensor, ``hop-archive run`` and ``hop-archive watch`` call it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, Self

from hop_archive.archive import Archive
from hop_archive.model.notification import Service
from hop_archive.model.wording import counted
from hop_archive.upkeep.monitoring.lags import Mark
from hop_archive.upkeep.monitoring.problems import DATABASE, SOURCE, Bounds, Memory, look
from hop_archive.upkeep.monitoring.telling import Rules, Seen, Told, message

log = logging.getLogger(__name__)

_MOST_AT_ONCE = 16


class Settings(Protocol):
    """What a stanza ``[alert.NAME]`` says of whom to tell what, beside its URLs."""

    @property
    def ui(self) -> str: ...  # noqa: D102 - the keys of the stanza, explained there
    @property
    def most_messages(self) -> int: ...  # noqa: D102
    @property
    def most_lag_minutes(self) -> float: ...  # noqa: D102
    @property
    def patience_minutes(self) -> float: ...  # noqa: D102
    @property
    def settle_minutes(self) -> float: ...  # noqa: D102
    @property
    def remind_hours(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Alarm:
    """Whom to tell, when, and of what: what one stanza ``[alert.NAME]`` says.

    Attributes:
        name: The stanza's.
        services: Who is told.
        bounds: What is too much.
        rules: When it is news.
        ui: Address of Dagster's web page; '' for none.
        ping: Asks for the URL that wants to hear that all is well, and tells why that failed; None without one.
    """

    name: str
    services: tuple[Service, ...]
    bounds: Bounds = field(default_factory=Bounds)
    rules: Rules = field(default_factory=Rules)
    ui: str = ""
    ping: Callable[[], str] | None = None

    @classmethod
    def of(
        cls, name: str, stanza: Settings, services: tuple[Service, ...], ping: Callable[[], str] | None
    ) -> Self:
        """The alarm that a stanza means; its text has its values."""
        bounds = Bounds(stanza.most_messages, stanza.most_lag_minutes * 60, stanza.patience_minutes * 60)
        rules = Rules(stanza.settle_minutes * 60, stanza.remind_hours * 3600)
        return cls(name, services, bounds, rules, stanza.ui, ping)


@dataclass(frozen=True, slots=True)
class State:
    """What is kept between rounds, wherever the caller keeps it. It is not kept in the catalog, which may be what is down.

    Attributes:
        told: What was seen and told.
        memory: What a look needs of earlier ones.
    """

    told: Told = field(default_factory=Told)
    memory: Memory = field(default_factory=Memory)

    def to_json(self) -> str:
        """For the next round."""
        marks = {
            topic: {place: [list(mark) for mark in found] for place, found in places.items()}
            for topic, places in self.memory.marks.items()
        }
        losses = {topic: list(numbers) for topic, numbers in self.memory.losses.items()}
        return json.dumps({"told": self.told.to_json(), "marks": marks, "losses": losses})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What ``to_json`` wrote. What is something else, as of another version, counts as nothing, with a warning."""
        if not text:
            return cls()
        try:
            kept = json.loads(text)
            marks = {
                topic: {place: tuple(Mark(*mark) for mark in found) for place, found in places.items()}
                for topic, places in kept["marks"].items()
            }
            losses = {topic: (int(all_), int(told)) for topic, (all_, told) in kept["losses"].items()}
            return cls(Told.from_json(kept["told"]), Memory(marks, losses))
        except (ValueError, TypeError, KeyError, AttributeError):
            log.warning(
                "What was told already cannot be read, as kept by another version: all that is wrong is told anew."
            )
            return cls()


def look_and_tell(
    archive: Archive, alarm: Alarm, state: State, others: Sequence[Seen] = (), *, unasked: bool = False
) -> State:
    """One round: look at the archive, take in what ``others`` saw, and tell what is new of it all.

    A service that is down is told at a later round; none is waited for longer than some seconds, and nothing is raised.
    """
    seen, memory = look(archive, alarm.bounds, state.memory, unasked=unasked)
    for other in others:
        seen += other
    told = state.told.after(
        seen, [service.name for service in alarm.services], archive.now().timestamp(), alarm.rules
    )
    told = tell(alarm, told, f"hop_archive {archive.source.name} → {archive.catalog.name}")
    # What does not answer may be told later only, and yet is what nobody could look at.
    has_looked = not any(problem.sort in (DATABASE, SOURCE) for problem in seen.problems)
    if alarm.ping is not None and has_looked and told.is_well and (why := alarm.ping()):
        log.warning("[alert.%s]: the ping_url was not told that all is well: %s.", alarm.name, why)
    return State(told, memory)


def tell(alarm: Alarm, told: Told, archive: str) -> Told:
    """Hand what is new to each service; what one does not take stays news for it."""
    due = [(service, news) for service in alarm.services if (news := told.for_service(service.name))]
    if not due:
        return told
    # At once: several that do not answer are waited for as long as one, and a tick of Dagster's has a minute.
    with ThreadPoolExecutor(max_workers=min(len(due), _MOST_AT_ONCE), thread_name_prefix="alert") as workers:
        answers = list(
            workers.map(lambda one: one[0].send(message(one[1], archive, alarm.ui, told.dropped)), due)
        )
    for (service, news), why in zip(due, answers, strict=True):
        if why:
            log.warning(
                "Not told to %s, and tried again next time: %s. That is: %s.",
                service.name,
                why,
                counted(len(news), "message"),
            )
            continue
        told = told.taken(service.name, news)
        for one in news:
            log.info("Told to %s: %s: %s", service.name, one.tone.value, one.problem.key)
    return told
