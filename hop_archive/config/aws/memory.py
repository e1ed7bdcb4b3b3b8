"""Remembering what AWS said for a minute.

Dagster's sensors open the archive every few seconds; without this each tick would cost requests that AWS charges for
and throttles. A minute is short enough for a password that was changed: what fails meanwhile is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")

KEPT_S = 60.0


class Memory(Generic[Value]):
    """Values by key, each for ``KEPT_S``. Thread-safe; two threads that miss the same one ask twice.

    Args:
        monotonic: A clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._kept: dict[Hashable, tuple[float, Value]] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return what is remembered, or what ``make`` returns; what it raises is not remembered."""
        known = self._kept.get(key)
        if known is not None and self._monotonic() < known[0]:
            return known[1]
        value = make()
        self._kept[key] = (self._monotonic() + KEPT_S, value)
        return value

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
