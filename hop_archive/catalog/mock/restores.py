"""What the mock catalog knows of restores."""

from __future__ import annotations

import fcntl
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from hop_archive.catalog.mock.select import selected
from hop_archive.catalog.mock.session import MockSession
from hop_archive.catalog.records import Measure, Restore
from hop_archive.errors import ConflictError
from hop_archive.model.message import TimestampType
from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog
from hop_archive.shared_state import usable

_RUNNING = "running"


class MockRestores(MockSession):
    """The part of the mock catalog that restoring needs; see ``Catalog`` for what its methods promise."""

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold a name for the length of a block: within the process, or by a lock on a file of the directory.

        Raises:
            ConflictError: Somebody else holds it.
        """
        with ExitStack() as ending:
            if not self._try_to_hold(name, ending):
                raise ConflictError(
                    f"database {self._name!r}: another process is at work on {name}.",
                    remedy="Wait until it is done, or end it; nothing was changed.",
                    held=name,
                )
            yield

    def _try_to_hold(self, name: str, ending: ExitStack) -> bool:
        if self._directory is None:
            lock = self._held.setdefault(name, threading.Lock())
            if not lock.acquire(blocking=False):
                return False
            ending.callback(lock.release)
            return True
        with usable(self._directory):
            digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
            file = ending.enter_context((self._directory / f"held-{digest}").open("ab"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def partition_logs(self, topic: str) -> Sequence[PartitionLog]:
        """The logs of which ``topic`` has rows, in order."""
        with self._state.read() as tables:
            return sorted(tables.offsets(topic))

    def measure(self, query: Query, *, timeout_s: float) -> Measure:
        """How much ``query`` means."""
        del timeout_s  # a mock takes no time
        with self._state.read() as tables:
            rows = selected(self._name, tables.rows.values(), replace(query, limit=None), tables.topics())
        times = [row.timestamp_ms for row in rows if row.timestamp_ms > 0]
        sizes = [row.size_bytes for row in rows]
        return Measure(
            len(rows),
            sum(sizes),
            max(sizes, default=0),
            min(times, default=None),
            max(times, default=None),
            sum(row.timestamp_ms == 0 for row in rows),
            sum(row.timestamp_type is TimestampType.APPEND for row in rows),
        )

    def begin_restore(self, fingerprint: str, target: str, request: Mapping[str, Any]) -> Restore:
        """The running restore of this fingerprint, or a new one."""
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
        """Note what is known by now of a restore; None leaves a part as it is."""
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
        """The latest restores, newest first."""
        with self._state.read() as tables:
            found = [
                one
                for one in tables.restores
                if (not running_only or one.outcome == _RUNNING) and fingerprint in ("", one.fingerprint)
            ]
        return found[::-1][:limit]
