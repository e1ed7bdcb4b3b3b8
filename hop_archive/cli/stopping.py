"""Ending cleanly on SIGINT, SIGTERM and SIGHUP: the first asks, the second insists."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SLICE_S = 0.1
_SHOW_CURSOR = "\x1b[?25h"


class Stop:
    """Whether somebody asked this process to end.

    Not a ``threading.Event``: setting one in a signal handler while the same thread waits on it can deadlock.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def requested(self) -> bool:
        """Whether it was asked."""
        return self.signal is not None

    def __call__(self) -> bool:
        """Whether it was asked, for those who want a function."""
        return self.requested

    def sleep(self, seconds: float) -> None:
        """Sleep for so long, or until a tenth of a second after it is asked."""
        end = time.monotonic() + seconds
        while not self.requested and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE_S))

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Be asked by SIGINT and SIGTERM while the block runs; the second one ends the process at once.

        That does no harm: what is not committed is done by the next run. A terminal that goes asks by SIGHUP, unless it is
        ignored (``nohup``).
        """
        asking = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            asking.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._heed) for number in asking}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heed(self, number: int, _: FrameType | None) -> None:
        if self.requested:
            # Without waiting for threads, which might wait for a server; a terminal gets its cursor back.
            text = f"{_SHOW_CURSOR if sys.stderr.isatty() else ''}\nEnded at once.\n"
            with suppress(OSError):  # nobody is there to read it
                os.write(2, text.encode())
            os._exit(128 + number)
        self.signal = signal.Signals(number)
