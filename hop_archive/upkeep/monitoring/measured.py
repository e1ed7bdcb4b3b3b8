"""Source, catalog and store with a clock around the calls that are the stages of archiving, and a count of what fails.

It knows no metrics library: whoever measures gives what takes a duration and an error.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

from hop_archive.archive import Archive
from hop_archive.errors import ConfigurationError, ConflictError, DataError, UnavailableError

STAGES = {
    ("source", "watermarks"): "survey",
    ("reader", "poll"): "read",
    ("catalog", "known"): "decide",
    ("store", "create"): "write_objects",
    ("catalog", "commit"): "commit",
}
"""Which call is which stage. What a stage computes between its calls is not in it; reading has its waiting for messages in it."""

KINDS = {
    UnavailableError: "unavailable",
    ConfigurationError: "refused",
    ConflictError: "conflict",
    DataError: "data",
}
"""What a failed call is told as; what is none of these is ``bug``."""


class Meter(Protocol):
    """Takes what is measured; from several threads."""

    def stage(self, name: str, seconds: float) -> None:
        """A call of a stage took so long, whether it failed or not."""

    def failed(self, part: str, kind: str) -> None:
        """A call of ``source``, ``catalog`` or ``store`` failed."""


def measured(archive: Archive, meter: Meter) -> Archive:
    """The archive, with every call to its parts passed on and measured."""
    parts: dict[str, Any] = {
        name: _Measured(getattr(archive, name), name, name, meter) for name in ("source", "catalog", "store")
    }
    return replace(archive, **parts)


class _Measured:
    """Passes every call on; a reader that comes back is measured too, as is an iterator while it is gone through."""

    def __init__(self, target: Any, name: str, part: str, meter: Meter) -> None:
        self._target = target
        self._name = name
        self._part = part
        self._meter = meter

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._target, attribute)
        if attribute.startswith("_") or not callable(found):
            return found
        stage = STAGES.get((self._name, attribute))

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            try:
                result = found(*args, **kwargs)
            except Exception as error:
                self._failed(error)
                raise
            finally:
                if stage:
                    self._meter.stage(stage, time.monotonic() - began)
            if attribute == "reader":
                return _Measured(result, "reader", self._part, self._meter)
            return self._gone_through(result) if isinstance(result, Iterator) else result

        self.__dict__[attribute] = call  # found at once the next time
        return call

    def __enter__(self) -> Any:
        self._target.__enter__()
        return self

    def __exit__(self, *details: Any) -> Any:
        return self._target.__exit__(*details)

    def _gone_through(self, items: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from items
        except Exception as error:
            self._failed(error)
            raise

    def _failed(self, error: Exception) -> None:
        kind = next((name for sort, name in KINDS.items() if isinstance(error, sort)), "bug")
        self._meter.failed(self._part, kind)
