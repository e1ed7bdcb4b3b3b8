"""Which generation of a topic documents are of that do not say it. Pure.

Two messages in one place, of other content, are of two generations. Which is which is told by when their objects were
stored: nothing of a new generation is archived before the old one is over. Where a bucket was copied, all were stored at
once, and the messages' own timestamps decide, which publishers choose: the order may then be wrong, but each message
has a place of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hop_archive.catalog.records import UNKNOWN_CLUSTER, Generation
from hop_archive.recover.rebuild.spill import Unplaced


@dataclass(frozen=True, slots=True)
class KnownGenerations:
    """The generations of one topic, as far as they are known.

    Attributes:
        begun_ms: When each generation was first seen, by number; rebuilt ones, of which that is not known, are left out.
        newest: The greatest number that keys, rows or the catalog speak of; 0 where none does.
        boundaries: When the second, third, … message in one place was stored, at the earliest; ascending.
    """

    begun_ms: tuple[tuple[int, int], ...]
    newest: int
    boundaries: tuple[int, ...]

    @classmethod
    def of(
        cls, generations: Sequence[Generation], numbers: Iterable[int], found: Iterable[Unplaced]
    ) -> KnownGenerations:
        """The generations that the catalog and the documents tell of."""
        begun = [
            (g.number, int(g.detected_at.timestamp() * 1000))
            for g in generations
            if g.cluster_id != UNKNOWN_CLUSTER
        ]
        newest = max([*numbers, *(g.number for g in generations)], default=0)
        earliest: list[int] = []
        for _, at_place in itertools.groupby(found, key=lambda document: document.place):
            seen: dict[tuple[int, bytes], int] = {}
            for document in at_place:
                seen.setdefault(document.content, document.modified_ms)
            for rank, modified_ms in enumerate(list(seen.values())[1:]):
                if rank == len(earliest):
                    earliest.append(modified_ms)
                earliest[rank] = min(earliest[rank], modified_ms)
        return cls(tuple(begun), newest, tuple(sorted(earliest)))

    def most_likely(self, modified_ms: int) -> int:
        """The generation of a document that was stored then, if its place is free there."""
        if self.begun_ms:
            before = [number for number, begun_ms in self.begun_ms if begun_ms <= modified_ms]
            return max(before, default=max(1, self.begun_ms[0][0] - 1))
        layers = 1 + len(self.boundaries)
        layer = 1 + sum(boundary <= modified_ms for boundary in self.boundaries)
        return max(self.newest, layers) - layers + layer

    def placed(self, found: Iterable[Unplaced]) -> Iterator[tuple[int, int]]:
        """Number in the file, and generation, of each document; no two of other content get one place.

        Args:
            found: By place, in each as they were stored.
        """
        last = max(self.newest, 1 + len(self.boundaries))
        for _, at_place in itertools.groupby(found, key=lambda document: document.place):
            documents = list(at_place)
            given: dict[tuple[int, bytes], int] = {}
            left = len({document.content for document in documents})
            for document in documents:
                if document.content not in given:
                    left -= 1
                    likely = min(self.most_likely(document.modified_ms), max(1, last - left))
                    least = max(given.values(), default=0) + 1
                    # The likely one, or the nearest where no segment has another message in that place: lower ones first.
                    lower = range(max(likely, least), least - 1, -1)
                    nearest = itertools.chain(lower, itertools.count(lower.start))
                    given[document.content] = next(n for n in nearest if n not in document.taken)
                yield document.id, given[document.content]
