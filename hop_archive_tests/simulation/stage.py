"""Runs processes as threads of which one at a time goes on, and lets happen at each call what the history says."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, NamedTuple, Protocol

from hop_archive.devkit.faults import CrashError, Faults, When
from hop_archive.errors import HopArchiveError, UnavailableError
from hop_archive_tests.simulation.calls import awaited, can_befall
from hop_archive_tests.simulation.history import At, Blow, History

MOST_STEPS = 20_000
"""A history that takes more goes round in circles."""

_STUCK_S = 120.0
"""For how long no step is made before processes are said to wait for each other; a busy machine takes long for a history."""

_LATEST = 40
"""By how many steps what is late is late at most."""


class StuckError(AssertionError):
    """A process went on without end, or all waited for each other."""


class Scene(Protocol):
    """What surrounds the processes."""

    def happen(self, at: At) -> None:
        """Let an event happen."""

    def asked(self, deed: str, call: str, arguments: tuple[Any, ...]) -> None:
        """A process is about to make a call: refuse it where it cannot be answered now.

        Raises:
            UnavailableError: It cannot.
            AssertionError: It asks for more than anybody may.
        """

    def changed(self, call: str) -> None:
        """A call was made: what has to hold always?

        Raises:
            AssertionError: Something does not hold.
        """

    def before(self, part: object, versions: int) -> object:
        """A part as it was so many changes ago."""


class AtResult(Executor):
    """Does what it is given when it is asked for the result, and in the thread that asks: a process of a history has one."""

    def __init__(self, *_: object, **__: object) -> None:
        """As any executor is made."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        return _Asked(partial(work, *args, **more))


class _Asked(Future[Any]):
    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self._work = work

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            try:
                self.set_result(self._work())
            except BaseException as error:  # noqa: BLE001 - it is raised again, as by any future
                self.set_exception(error)
        return super().result(timeout)


class _Late(NamedTuple):
    step: int
    call: str
    effect: Callable[[], object]


class Player(Faults):
    """A process: counts its calls on the stage, which decides who goes on. Once dead, each call of it dies again."""

    def __init__(self, number: int, name: str, stage: Stage) -> None:
        super().__init__()
        self.number, self.name = number, name
        self._stage = stage
        self.go = threading.Semaphore(0)
        self.thread: threading.Thread | None = None
        self.dead = False
        self.ended = False
        self.error: BaseException | None = None
        self.due: dict[int, At] = {}

    def begin(self, call: str, arguments: tuple[Any, ...] = ()) -> int:
        number = super().begin(call, arguments)
        self._stage.before(self, number, arguments)
        return number

    def befalls(self, number: int) -> Blow | None:
        """What befalls a call, if anything."""
        at = self.due.get(number)
        return None if at is None else Blow[at.what]

    @property
    def was_deceived(self) -> bool:
        """Whether a store told this process what is not so (any more)."""
        return any(Blow[at.what] in (Blow.TORN, Blow.STALE) for at in self.due.values())

    def reached(self, number: int, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.befalls(number) is not Blow.PART or not self.sizes[number - 1]:
            return arguments
        return (arguments[0][: len(arguments[0]) // 2], *arguments[1:])

    def perform(
        self, number: int, found: Callable[..., Any], arguments: tuple[Any, ...], more: dict[str, Any]
    ) -> Any:
        blow = self.befalls(number)
        effect = partial(found, *self.reached(number, arguments), **more)
        if blow is Blow.STALE:
            older = self._stage.scene.before(found.__self__, 1 + self.due[number].choice % 3)  # type: ignore[attr-defined]
            return getattr(older, found.__name__)(*arguments, **more)
        if blow in (Blow.LATE, Blow.TWICE):
            self._stage.later(self, number, effect)
        if blow is Blow.LATE:
            raise UnavailableError(f"told to give up {self.calls[number - 1]}.")
        return effect()

    def delivered(self, number: int, item: Any) -> Any:
        return item[: len(item) // 2] if self.befalls(number) is Blow.TORN else item

    def strike(self, number: int, when: When) -> None:
        self._stage.strike(self, number, when)


class Stage:
    """Where processes play, one call after the other.

    Args:
        history: What happens.
        play: Does a deed as a process; called in a thread of its own.
        scene: What surrounds them.
    """

    def __init__(self, history: History, play: Callable[[Player, str, int], object], scene: Scene) -> None:
        self._history = history
        self._play = play
        self.scene = scene
        self._switches = {at.step: at.choice for at in history.switches}
        self._blows = {at.step: at for at in history.blows}
        self._events: dict[int, list[At]] = {}
        for at in history.events:
            self._events.setdefault(at.step, []).append(at)
        self._waiting: Iterator[Player] = iter(())
        self._playing: list[Player] = []
        self._threads: list[threading.Thread] = []
        self._over = threading.Semaphore(0)
        self._late: list[_Late] = []
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
            reached = -1
            while not self._over.acquire(timeout=_STUCK_S):
                if self.step == reached:
                    raise StuckError(f"no process goes on after step {self.step}: {self.steps[-5:]}")
                reached = self.step
        for thread in self._threads:
            thread.join(120)
        if self._failure is None:
            with contextlib.suppress(CrashError):  # what it is raised for is raised below
                self._let_arrive(self._late)
        if self._failure is not None:
            raise self._failure
        return players

    def before(self, player: Player, number: int, arguments: tuple[Any, ...]) -> None:
        """A process is about to make a call: a step, at which others may go on first."""
        if player.dead or self._failure is not None:
            raise CrashError(f"{player.name} is dead")
        if threading.current_thread() is not player.thread:
            self._fail(
                AssertionError(f"{player.name} makes calls in two threads: nothing says which goes on")
            )
        self.step += 1
        if self.step > MOST_STEPS:
            self._fail(StuckError(f"{player.name} goes on without end: {self.steps[-12:]}"))
        call = player.calls[number - 1]
        self.steps.append(f"{player.number} {call}")
        if (blow := self._blows.pop(self.step, None)) is not None:
            if can_befall(Blow[blow.what], call):
                player.due[number] = blow
            else:  # it befalls the next call that it can befall
                self._blows.setdefault(self.step + 1, blow)
        self._let_arrive([late for late in self._late if late.step <= self.step])
        for at in self._events.pop(self.step, ()):
            if awaited(at) in ("", call):
                self.scene.happen(at)
            else:
                self._events.setdefault(self.step + 1, []).append(at)
        if (choice := self._switches.get(self.step)) is not None:
            self._hand_over(player, self._playing[choice % len(self._playing)])
        if player.dead or self._failure is not None:
            raise CrashError(f"{player.name} is dead")
        try:
            self.scene.asked(player.name, call, arguments)
        except AssertionError as error:
            self._fail(error)

    def later(self, player: Player, number: int, effect: Callable[[], object]) -> None:
        """Let a call take effect some steps from now."""
        step = self.step + 1 + player.due[number].choice % _LATEST
        self._late.append(_Late(step, player.calls[number - 1], effect))

    def strike(self, player: Player, number: int, when: When) -> None:
        """Let a call go wrong where that is due."""
        call = player.calls[number - 1]
        if when is When.AFTER:
            self._judge(call)
        blow = player.befalls(number)
        if when is When.BEFORE:
            if blow is Blow.FAIL_BEFORE:
                raise UnavailableError(f"told to fail before {call}.")
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

    def end_all(self) -> None:
        """Let all processes die that have begun: an operator ends them."""
        for player in self._playing:
            player.dead = player.dead or bool(player.calls)

    def _judge(self, call: str) -> None:
        try:
            self.scene.changed(call)
        except AssertionError as error:
            self._fail(error)

    def _let_arrive(self, late: list[_Late]) -> None:
        for one in [*late]:
            self._late.remove(one)
            with contextlib.suppress(HopArchiveError):
                one.effect()
            self._judge(one.call)

    def _enter(self) -> None:
        player = next(self._waiting, None)
        if player is not None:
            self._playing.append(player)
            player.thread = threading.Thread(target=self._perform, args=(player,), daemon=True)
            self._threads.append(player.thread)
            player.thread.start()

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
