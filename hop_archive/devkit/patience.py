"""For how long something is waited for: as long as it moves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Patience:
    """Judges whether to go on waiting, by signs of progress rather than by the clock: a slow machine is no failure.

    Attributes:
        still_s: For how long nothing may move, in seconds.
        longest_s: For how long it may take in all, whatever moves.
        monotonic: A clock in seconds.
    """

    still_s: float
    longest_s: float
    monotonic: Callable[[], float] = time.monotonic
    _signs: object = None
    _began: float = field(init=False)
    _moved: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self._moved = self.monotonic()

    @property
    def waited_s(self) -> float:
        """Since when it is waited for, in seconds."""
        return self.monotonic() - self._began

    def is_over(self, signs: object) -> str:
        """Why to wait no longer; '' where to wait on. ``signs`` is whatever changes while there is progress."""
        now = self.monotonic()
        if signs != self._signs:
            self._signs, self._moved = signs, now
        if now - self._moved >= self.still_s:
            return f"nothing has moved for {now - self._moved:.0f} s"
        if now - self._began >= self.longest_s:
            return f"it is not done after {now - self._began:.0f} s"
        return ""
