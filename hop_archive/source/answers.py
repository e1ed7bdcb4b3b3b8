"""What a source told of each thing that it was asked for, and why it told nothing of the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar, cast

from hop_archive.errors import HopArchiveError

Key = TypeVar("Key")
Value = TypeVar("Value", covariant=True)


class Answers(Mapping[Key, Value]):
    """A mapping of what was told; what does not exist is not in it.

    To look up what was not told raises the reason, so that it is never taken for what does not exist. Iterating passes over
    it: who does, and draws a conclusion from what is missing, asks ``untold`` first.

    Args:
        told: What was told.
        untold: What was asked for and not told, and why: `UnavailableError` where asking again later may help.
        cluster_id: The cluster that told it; None where that was not told in passing.
    """

    def __init__(
        self,
        told: Mapping[Key, Value],
        untold: Mapping[Key, HopArchiveError] | None = None,
        cluster_id: str | None = None,
    ) -> None:
        self._told = told
        self.untold: Mapping[Key, HopArchiveError] = untold or {}
        self.cluster_id = cluster_id

    def whole(self) -> Mapping[Key, Value]:
        """The same, for who can do nothing with a part.

        Raises:
            HopArchiveError: Why something was not told; the first reason.
        """
        for why in self.untold.values():
            raise why
        return self._told

    def __getitem__(self, key: Key) -> Value:
        if key in self.untold:
            raise self.untold[key]
        return self._told[key]

    def __contains__(self, key: object) -> bool:
        if key in self.untold:
            raise self.untold[cast("Key", key)]
        return key in self._told

    def __iter__(self) -> Iterator[Key]:
        return iter(self._told)

    def __len__(self) -> int:
        return len(self._told)

    def __repr__(self) -> str:
        return f"Answers({dict(self._told)!r}, untold={dict(self.untold)!r})"
