"""What Kafka still holds of slices that were archived, or ought to have been; and reading it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hop_archive.archive import Archive
from hop_archive.ingest.read import Reading, read_slices
from hop_archive.ingest.survey import Survey, survey
from hop_archive.model.slices import EMPTY, OffsetSet, Slice


@dataclass(slots=True)
class Upstream:
    """The source as mending asks it; ``archive`` is None where it is not to be asked.

    What a topic holds is asked once, and remembered for the topic asked last.
    """

    archive: Archive | None
    _topic: str = ""
    _seen: Survey | None = field(default=None)

    @property
    def is_asked(self) -> bool:
        """Whether there is a source to ask."""
        return self.archive is not None

    def held(self, where: Slice) -> OffsetSet:
        """The offsets of a slice that Kafka holds now; none where its topic is another generation by now, or gone.

        Raises:
            UnavailableError: The source does not answer.
        """
        if self.archive is None:
            return EMPTY
        if self._seen is None or self._topic != where.topic:
            seen = survey(self.archive, [where.topic])
            seen.refuse_unseen()  # what is not known is not gone
            self._topic, self._seen = where.topic, seen
        seen = self._seen
        if where.topic not in seen.infos or seen.recognitions[where.topic].is_new:
            return EMPTY
        known = seen.knowledge.get(where.partition_log)
        if known is None or known.watermarks.low >= known.watermarks.stable:
            return EMPTY
        return where.offsets & OffsetSet.between(known.watermarks.low, known.watermarks.stable)

    def readings(self, slices: Sequence[Slice]) -> Iterator[Reading]:
        """What Kafka delivers for slices that it holds; what went meanwhile is left out.

        Raises:
            UnavailableError: The source does not answer.
        """
        if self.archive is None or not slices:
            return
        with self.archive.source.reader({}) as reader:
            yield from read_slices(reader, slices, self.archive.limits, self.archive.monotonic)


def runs(offsets: Iterable[int]) -> OffsetSet:
    """Offsets as a set of ranges."""
    return OffsetSet.of((offset, offset + 1) for offset in offsets)
