"""Failures on order: tells a source, catalog or store to fail, delay or crash at its n-th call.

``Faults.wrap`` puts a layer around any implementation, mock or real. A fault strikes before the call (it
took no effect) or after it (it took effect, and its answer was lost): the two ways in which networks and
processes fail. A call that is given many things may also have done a part of them.
"""

from __future__ import annotations

import enum
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from hop_archive.errors import UnavailableError

Target = TypeVar("Target")


class CrashError(BaseException):
    """The process died here. Not an Exception: no handler of the program's may catch it."""


class When(enum.Enum):
    """On which side of a call a fault strikes."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to go wrong.

    Attributes:
        call: Which call it strikes, counted from 1 over everything that shares the ``Faults``, or over those of one name.
        when: Before the call takes effect, or after.
        act: Raises, or sleeps; ``crash`` and ``fail`` are the usual ones.
        items: With ``When.AFTER``, of a call whose first argument is a sequence: how many of it take effect
            before the fault strikes. None, or as many as there are: all of them.
        name: Only calls of this name are counted; '' counts all, whose order only one thread makes the same each time.
    """

    call: int
    when: When
    act: Callable[[str], object]
    items: int | None = None
    name: str = ""


def crash(call: str) -> None:
    """Die at this call."""
    raise CrashError(call)


def fail(call: str) -> None:
    """Answer as a server does that cannot now."""
    raise UnavailableError(f"told to fail at {call}.")


@dataclass(slots=True)
class Faults:
    """A script of what is to go wrong, and the calls made so far.

    Attributes:
        calls: The calls made, by name, in order: the n-th is number n.
        sizes: How many things each call was given at once; 0 where its first argument is no sequence.
    """

    script: tuple[Fault, ...] = ()
    calls: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    _turns: list[int] = field(default_factory=list)
    """Of each call, which of its name it is, from 1."""
    _counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wrap(self, target: Target, name: str) -> Target:
        """``target`` with every public method counted under ``name`` and subject to the script."""
        return cast("Target", _Faulty(target, name, self))

    def begin(self, call: str, arguments: tuple[Any, ...] = ()) -> int:
        """Count a call; its number."""
        first = arguments[0] if arguments else ()
        with self._lock:  # else two threads could be given one number, and none the number before
            self._counts[call] += 1
            self._turns.append(self._counts[call])
            self.sizes.append(len(first) if _is_many(first) else 0)
            self.calls.append(call)
            return len(self.calls)

    def reached(self, number: int, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """What of a call's arguments takes effect: all, or of a sequence as much as a fault lets pass."""
        limits = [fault.items for fault in self._due(number) if fault.items is not None]
        if not limits or not arguments or not _is_many(arguments[0]):
            return arguments
        return (arguments[0][: min(limits)], *arguments[1:])

    def perform(
        self, number: int, found: Callable[..., Any], arguments: tuple[Any, ...], more: dict[str, Any]
    ) -> Any:
        """Let a call take effect, of what of its arguments ``reached`` lets pass."""
        return found(*self.reached(number, arguments), **more)

    def delivered(self, number: int, item: Any) -> Any:
        """What arrives of an item that an iterator gives."""
        return item

    def strike(self, number: int, when: When) -> None:
        """Let those faults happen that are due on this side of call ``number``."""
        for fault in self._due(number):
            if fault.when is when:
                fault.act(f"{self.calls[number - 1]} (call {number}, {when.value})")

    def _due(self, number: int) -> list[Fault]:
        name, turn = self.calls[number - 1], self._turns[number - 1]
        return [
            f for f in self.script if (f.call == turn if f.name == name else not f.name and f.call == number)
        ]


class _Faulty:
    """Passes every call on, with faults around it; what comes back as a reader or iterator is wrapped too."""

    def __init__(self, target: Any, name: str, faults: Faults) -> None:
        self._target = target
        self._name = name
        self._faults = faults

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._target, attribute)
        if attribute.startswith("_") or not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            number = self._faults.begin(f"{self._name}.{attribute}", args)
            self._faults.strike(number, When.BEFORE)
            result = self._faults.perform(number, found, args, kwargs)
            self._faults.strike(number, When.AFTER)
            if attribute == "reader":
                return _Faulty(result, "reader", self._faults)
            return self._iterate(attribute, result) if isinstance(result, Iterator) else result

        return call

    def __enter__(self) -> Any:
        self._target.__enter__()
        return self

    def __exit__(self, *details: Any) -> Any:
        return self._target.__exit__(*details)

    def _iterate(self, attribute: str, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            number = self._faults.begin(f"{self._name}.{attribute} item")
            self._faults.strike(number, When.BEFORE)
            yield self._faults.delivered(number, item)
            self._faults.strike(number, When.AFTER)


def _is_many(argument: object) -> bool:
    is_one = isinstance(argument, str | bytes) or hasattr(argument, "_fields")  # as a NamedTuple has
    return isinstance(argument, Sequence) and not is_one
