"""``run --compare``: judges each test message as sent, as received and as stored, while it is archived."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hop_archive.model.message import TopicPartition
from hop_archive.model.wording import counted
from hop_archive.upkeep.verify.sent import FieldDifference, Place, Sent, compare

if TYPE_CHECKING:
    from hop_archive.config.stanzas import SourceStanza
    from hop_archive.ingest.write import Done
    from hop_archive.store.protocol import Store


def compared_topics(stanza: SourceStanza) -> Callable[[str], bool]:
    """Tell which topics are compared: all; of a production source, where it would cost, its test topics."""
    policy = stanza.policy()
    return lambda topic: policy.test(topic) or not stanza.production


class Comparison:
    """Counts what was compared, and what differed.

    Attributes:
        messages: Messages compared as received and as stored, or found to be duplicates.
        with_sent: Those of them whose sending was recorded.
        differences: Fields that differed, and messages that did not come.
        given_up: Messages that were archived and could not be fetched to be compared.
    """

    def __init__(self, store: Store, compares: Callable[[str], bool], sent: Mapping[Place, Sent]) -> None:
        self._store = store
        self._compares = compares
        self._sent = sent
        self._offsets: defaultdict[TopicPartition, list[int]] = defaultdict(list)
        for partition, offset in sorted(sent):
            self._offsets[partition].append(offset)
        self.messages = self.with_sent = self.differences = self.given_up = 0

    @property
    def holds(self) -> bool:
        """Whether nothing differed; and, where messages were recorded as sent, some of them were compared."""
        return not self.differences and (self.with_sent > 0 or not self._sent)

    def check(self, done: Done) -> Iterator[FieldDifference]:
        """The differences of one reading; none where its topic is not compared, or nothing was archived.

        Raises:
            UnavailableError: The store does not answer; nothing of this reading was counted.
        """
        if done.reading is None or not done.batches or not self._compares(done.slice.topic):
            return
        found = list(compare(done, self._store, self._sent))
        topic, partition = done.slice.topic_partition
        received = {message.offset for message in done.reading.messages}
        offsets = self._offsets.get(done.slice.topic_partition, [])
        here = offsets[bisect_left(offsets, done.slice.start) : bisect_left(offsets, done.slice.stop)]
        for offset in here:
            if offset not in received:  # sent, and did not come
                what = ("sent/received", "message", "a message", "nothing")
                found.append(FieldDifference(topic, partition, offset, *what))
        self.with_sent += len(here)
        self.messages += len(done.reading.messages)
        self.differences += len(found)
        yield from found

    def give_up(self, done: Done) -> None:
        """Count a reading that could not be compared."""
        self.given_up += len(done.reading.messages) if done.reading else 0

    def summary(self) -> str:
        """What was compared, and with what result, in one line."""
        result = counted(self.differences, "difference") if self.differences else "no differences"
        recorded = f", {self.with_sent:,} of them with what was sent" if self._sent else ""
        unseen = len(self._sent) - self.with_sent
        aside = f" Of those recorded as sent, {unseen:,} were not compared in this run." if unseen else ""
        lacking = (
            f" {self.given_up:,} could not be compared: the store did not answer." if self.given_up else ""
        )
        return f"Compared {counted(self.messages, 'message')}{recorded}: {result}.{lacking}{aside}"

    def as_object(self) -> dict[str, Any]:
        """The same for ``--json``."""
        return {
            "compared": self.messages,
            "with_sent": self.with_sent,
            "recorded_as_sent": len(self._sent),
            "differences": self.differences,
            "not_compared": self.given_up,
            "holds": self.holds,
        }
