"""What the mock catalog knows of restores."""

from __future__ import annotations

import fcntl
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from hop_archive.catalog.mock.session import MockSession
from hop_archive.catalog.records import Restore
from hop_archive.catalog.refusals import held_by_another
from hop_archive.shared_state import usable

_RUNNING = "running"


class MockRestores(MockSession):
    """The part of a mock catalog that restoring needs."""

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Within the process, or by a lock on a file of the directory."""
        with ExitStack() as ending:
            if self._directory is None:
                lock = self._held.setdefault(name, threading.Lock())
                is_free = lock.acquire(blocking=False)
                if is_free:
                    ending.callback(lock.release)
            else:
                digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
                with usable(self._directory):
                    file = ending.enter_context((self._directory / f"held-{digest}").open("ab"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    is_free = True
                except BlockingIOError:
                    is_free = False
            if not is_free:
                raise held_by_another(self._named, name)
            yield

    def begin_restore(self, fingerprint: str, target: str, request: Mapping[str, Any]) -> Restore:
        with self._state.change() as tables:
            for known in tables.restores:
                if (known.fingerprint, known.outcome) == (fingerprint, _RUNNING):
                    return known
            now = self._clock()
            number = len(tables.restores) + 1
            new = Restore(number, fingerprint, target, dict(request), {}, _RUNNING, {}, now, now)
            tables.restores.append(new)
            return new

    def note_restore(
        self,
        number: int,
        *,
        progress: Mapping[str, Any] | None = None,
        outcome: str | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        with self._state.change() as tables:
            known = tables.restores[number - 1]
            tables.restores[number - 1] = replace(
                known,
                progress={**known.progress, **(progress or {})},
                outcome=outcome or known.outcome,
                report=known.report if report is None else dict(report),
                updated_at=self._clock(),
            )

    def restores(
        self, *, fingerprint: str = "", running_only: bool = False, limit: int = 100
    ) -> Sequence[Restore]:
        with self._state.read() as tables:
            found = [
                restore
                for restore in tables.restores
                if (not running_only or restore.outcome == _RUNNING)
                and fingerprint in ("", restore.fingerprint)
            ]
        return found[::-1][:limit]
