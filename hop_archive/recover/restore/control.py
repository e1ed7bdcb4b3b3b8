"""How fast a restore may go, how far it is, and how it is told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hop_archive.model.progress import Progress


@dataclass(frozen=True, slots=True)
class Control:
    """How to go about it.

    Attributes:
        messages_per_s: Most messages a second; 0: no bound.
        bytes_per_s: Most bytes of key, value and headers a second; 0: no bound.
        patience_s: How long to wait for a target, or an archive, that does not answer, before giving up.
        check: Whether to read the target back.
        stop: Tells whether somebody asked to end.
        notice: Told how far it is: messages ``there`` in the target; of these ``sent`` by this process, with ``size_bytes`` of
            key, value and headers; and ``checked``, which were read back and compared.
        monotonic: A clock that never goes back, seconds.
    """

    messages_per_s: float = 0.0
    bytes_per_s: float = 0.0
    patience_s: float = 300.0
    check: bool = True
    stop: Callable[[], bool] = lambda: False
    notice: Callable[[Progress], None] = lambda _: None
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
        if not (control.messages_per_s or control.bytes_per_s):
            return
        cost_s = max(
            1 / control.messages_per_s if control.messages_per_s else 0.0,
            size_bytes / control.bytes_per_s if control.bytes_per_s else 0.0,
        )
        now = control.monotonic()
        self._due = max(self._due, now - _MOST_CREDIT_S)
        if self._due > now:
            control.sleep(self._due - now)
        self._due += cost_s
