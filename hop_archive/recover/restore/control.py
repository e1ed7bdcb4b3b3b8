"""How fast a restore may go, how far it is, and how it is told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


def _never() -> bool:
    return False


def _unseen(_: Progress) -> None:
    return None


@dataclass(slots=True)
class Progress:
    """How far a restore is; counts only grow, but for what a broken connection makes it look at anew.

    Attributes:
        total: Messages that there are to write, at most.
        there: Messages that stand in the target, of this restore.
        sent: Of these, written by this process.
        size_bytes: Bytes of key, value and headers that this process wrote.
        checked: Messages that were read back and compared.
        topic: The target topic at hand.
    """

    total: int = 0
    there: int = 0
    sent: int = 0
    size_bytes: int = 0
    checked: int = 0
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Control:
    """How to go about it.

    Attributes:
        messages_per_s: Most messages a second; 0: no bound.
        bytes_per_s: Most bytes of key, value and headers a second; 0: no bound.
        patience_s: How long to wait for a target, or an archive, that does not answer, before giving up.
        check: Whether to read the target back.
        stop: Tells whether somebody asked to end.
        notice: Told how far it is.
        sleep: How to wait.
        monotonic: A clock that never goes back, seconds.
    """

    messages_per_s: float = 0.0
    bytes_per_s: float = 0.0
    patience_s: float = 300.0
    check: bool = True
    stop: Callable[[], bool] = _never
    notice: Callable[[Progress], None] = _unseen
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic

    def most_at_once(self, usual: int) -> int:
        """Messages between two looks around: those of about a second, where there is a bound on their rate."""
        return min(usual, max(1, round(self.messages_per_s))) if self.messages_per_s else usual


_MOST_CREDIT_S = 0.25
"""After a pause no more is made up for than this: a bound is a bound."""


@dataclass(slots=True)
class Throttle:
    """Keeps to the bounds of ``Control`` by waiting."""

    control: Control
    _due: float = field(default=0.0)

    def wait(self, size_bytes: int) -> None:
        """Wait until one more message of so many bytes may go."""
        control = self.control
        cost_s = max(
            1 / control.messages_per_s if control.messages_per_s else 0.0,
            size_bytes / control.bytes_per_s if control.bytes_per_s else 0.0,
        )
        if not cost_s:
            return
        now = control.monotonic()
        self._due = max(self._due, now - _MOST_CREDIT_S)
        if self._due > now:
            control.sleep(self._due - now)
        self._due += cost_s
