"""Runs processes as threads of which one at a time goes on, and lets happen at each call what the history says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from hop_archive.devkit.faults import CrashError, Faults, When
from hop_archive.errors import HopArchiveError, UnavailableError
from hop_archive_tests.simulation.history import At, Blow, History

MOST_STEPS = 20_000
"""A history that takes more goes round in circles."""


class StuckError(AssertionError):
    """A process went on without end, or all waited for each other."""


class Player(Faults):
    """A process: counts its calls on the stage, which decides who goes on. Once dead, each call of it dies again."""

    def __init__(self, number: int, name: str, stage: Stage) -> None:
        super().__init__()
        self.number, self.name = number, name
        self._stage = stage
        self.go = threading.Semaphore(0)
        self.dead = False
        self.ended = False
        self.error: BaseException | None = None
        self._part: dict[int, bool] = {}

    def begin(self, call: str, arguments: tuple[Any, ...] = ()) -> int:
        number = super().begin(call, arguments)
        self._stage.before(self, number)
        return number

    def reached(self, number: int, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self._part.get(number) or not self.sizes[number - 1]:
            return arguments
        return (arguments[0][: len(arguments[0]) // 2], *arguments[1:])

    def half(self, number: int) -> None:
        """Let only a half of what this call is given take effect."""
        self._part[number] = True

    def strike(self, number: int, when: When) -> None:
        self._stage.strike(self, number, when)


class Stage:
    """Where processes play, one call after the other.

    Args:
        history: What happens.
        play: Does a deed as a process; called in a thread of its own.
        happen: Lets an event happen.
        changed: Called after each call that may have changed something, with its name: what has to hold always.
    """

    def __init__(
        self,
        history: History,
        play: Callable[[Player, str, int], None],
        happen: Callable[[At], None],
        changed: Callable[[str], None],
    ) -> None:
        self._history = history
        self._play, self._happen, self._changed = play, happen, changed
        self._switches = {at.step: at.choice for at in history.switches}
        self._blows = {at.step: Blow[at.what] for at in history.blows}
        self._events: dict[int, list[At]] = {}
        for at in history.events:
            self._events.setdefault(at.step, []).append(at)
        self._waiting: Iterator[Player] = iter(())
        self._playing: list[Player] = []
        self._threads: list[threading.Thread] = []
        self._over = threading.Semaphore(0)
        self._due: dict[tuple[int, int], Blow] = {}
        self._failure: BaseException | None = None
        self._current: Player | None = None
        self.step = 0
        self.steps: list[str] = []

    def run(self) -> list[Player]:
        """Let all processes play to their ends.

        Raises:
            AssertionError: Something that has to hold always did not, or a process went round in circles.
        """
        players = [Player(n, p.deed, self) for n, p in enumerate(self._history.processes)]
        self._waiting = iter(players)
        for _ in range(self._history.at_once):
            self._enter()
        if self._playing:
            self._release(self._playing[0])
            if not self._over.acquire(timeout=120):
                raise StuckError(f"no process goes on after step {self.step}: {self.steps[-5:]}")
        for thread in self._threads:
            thread.join(120)
        if self._failure is not None:
            raise self._failure
        return players

    def before(self, player: Player, number: int) -> None:
        """A process is about to make a call: a step, at which others may go on first."""
        if player.dead or self._failure is not None:
            raise CrashError(f"{player.name} is dead")
        self.step += 1
        if self.step > MOST_STEPS:
            self._fail(StuckError(f"{player.name} goes on without end: {self.steps[-12:]}"))
        self.steps.append(f"{player.number} {player.calls[number - 1]}")
        if (blow := self._blows.get(self.step)) is not None:
            self._due[player.number, number] = blow
        for at in self._events.get(self.step, ()):
            self._happen(at)
        if (choice := self._switches.get(self.step)) is not None:
            self._hand_over(player, self._playing[choice % len(self._playing)])

    def strike(self, player: Player, number: int, when: When) -> None:
        """Let a call go wrong where that is due."""
        call = player.calls[number - 1]
        if when is When.AFTER:
            try:
                self._changed(call)
            except AssertionError as error:
                self._fail(error)
        blow = self._due.get((player.number, number))
        if blow is None:
            return
        if when is When.BEFORE:
            if blow is Blow.FAIL_BEFORE:
                raise UnavailableError(f"told to fail before {call}.")
            if blow is Blow.PART:
                player.half(number)
            if blow is Blow.CRASH_BEFORE:
                player.dead = True
                raise CrashError(call)
        else:
            if blow in (Blow.FAIL_AFTER, Blow.PART):
                raise UnavailableError(f"told to fail after {call}.")
            if blow is Blow.CRASH_AFTER:
                player.dead = True
                raise CrashError(call)

    def rest(self) -> None:
        """The process that plays waits for a while: the next one goes on."""
        player = self._current
        if player is not None and len(self._playing) > 1 and not player.dead:
            self._hand_over(player, self._next(player))

    def _enter(self) -> None:
        player = next(self._waiting, None)
        if player is not None:
            self._playing.append(player)
            thread = threading.Thread(target=self._perform, args=(player,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _perform(self, player: Player) -> None:
        player.go.acquire()
        try:
            self._play(player, player.name, self._history.processes[player.number].choice)
        except (CrashError, HopArchiveError) as error:
            player.error = error
        except BaseException as error:  # noqa: BLE001 - whatever it is, the judge has to tell
            self._failure = self._failure or error
        player.ended = True
        self._playing = [other for other in self._playing if other is not player]
        self._enter()
        if self._playing:
            self._release(self._playing[0])
        else:
            self._current = None
            self._over.release()

    def _hand_over(self, player: Player, other: Player) -> None:
        if other is not player:
            self._release(other)
            player.go.acquire()
            if player.dead or self._failure is not None:
                raise CrashError(f"{player.name} is dead")

    def _next(self, player: Player) -> Player:
        numbers = [other.number for other in self._playing]
        return self._playing[(numbers.index(player.number) + 1) % len(numbers)]

    def _release(self, player: Player) -> None:
        self._current = player
        player.go.release()

    def _fail(self, error: AssertionError) -> None:
        self._failure = self._failure or error
        raise CrashError("the history is over")
