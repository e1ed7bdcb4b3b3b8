"""Writing one target topic: from wherever an earlier try got to, in order, each message once.

Nothing is kept of how far it got but what the target itself says. When a restore begins, it notes where each partition
of the target ends (``base``). Whatever stands there beyond is of this restore, which is its only writer: so their number
says how many messages of the partition are done. Before it goes on it compares the last of them with what they should
be, and every receipt has to follow on the one before: another writer is noticed, and named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hop_archive.errors import ConflictError, GenerationChangedError, UnavailableError
from hop_archive.model.identity import digest
from hop_archive.model.message import ForPartition, Message, TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.recover.restore.control import Control, Throttle
from hop_archive.recover.restore.items import ItemReader
from hop_archive.recover.restore.offset_map import Journal
from hop_archive.recover.restore.plan import Target
from hop_archive.recover.restore.portion import Ahead, Portion, PortionReader, Run
from hop_archive.recover.restore.written import Written
from hop_archive.source.protocol import Reader, Source
from hop_archive.store.protocol import Store

PORTION_MESSAGES = 20_000
"""Most messages between two waits for all acknowledgements."""

_END_THAT_WRITER = (
    "End that writer; then restore to a topic of another name, or delete this one and begin anew."
)
_PAUSE_S = 5.0
"""A process that was held up for longer may have been given up, and another may have taken its place."""


@dataclass(frozen=True, slots=True)
class TargetTopic:
    """Where a target topic is written to.

    Attributes:
        topic_id: Its id when the restore began; None where the broker gives none.
        base: Where each partition ended when the restore began.
    """

    source: Source
    topic: str
    topic_id: str | None
    partitions: int
    base: Mapping[int, int]


class Writer:
    """One pass over a target: what is there already is passed over, the rest is written. A new one for each try."""

    def __init__(
        self,
        selection: ItemReader,
        store: Store,
        target_topic: TargetTopic,
        journal: Journal,
        control: Control,
        progress: Progress,
    ) -> None:
        self._selection = selection
        self._store = store
        self._topic = target_topic
        self._journal = journal
        self._control = control
        self._progress = progress
        self._throttle = Throttle(control)
        self._written = Written()
        self._left: Counter[int] = Counter()
        self._last_passed: dict[int, bytes] = {}
        self._looked_at = control.monotonic()
        self._stopped = False

    def write(self, target: Target, already: Mapping[int, int]) -> Written:
        """Write what is not there yet. While a portion is on its way, the next one is read.

        Args:
            target: What belongs there.
            already: How many messages of this restore stand in each partition.

        Raises:
            CorruptError: A document is missing or damaged: everything before it is written.
            ConflictError: Another writer wrote to the target meanwhile, or what is there is not of this restore.
            GenerationChangedError: The topic was deleted, or made anew.
            UnavailableError: Something does not answer; how far it got, the target tells.
        """
        self._left = Counter(already)
        what = (self._selection, self._store, target, already, self._written, self._topic.partitions)
        ahead = Ahead(PortionReader(*what).portions(self._control.most_at_once(PORTION_MESSAGES)))
        while (portion := ahead.take()) is not None:
            if self._control.stop():
                return self._written
            self._refuse_others()
            for run in portion.passed:
                self._note(run, len(run.stored))
                self._left[run.partition] -= len(run.stored)
                self._last_passed[run.partition] = run.digests[-1]
            if portion.runs:
                self._send(portion, ahead)
            if self._stopped:  # before all that goes before an error was sent
                return self._written
            if portion.error is not None:
                raise portion.error
        if more := {partition: count for partition, count in self._left.items() if count}:
            at = TopicPartition(self._topic.topic, min(more))
            raise ConflictError(
                f"{at} of source {self._topic.source.name} holds {more[at.partition]} more messages than were to be "
                "restored there: another writer wrote to it.",
                remedy=_END_THAT_WRITER,
                topic=at.topic,
                partition=at.partition,
            )
        for partition in [*self._last_passed]:
            self._refuse_what_is_not_ours(partition)
        self._refuse_others()
        self._written.complete = True
        return self._written

    def _send(self, portion: Portion, ahead: Ahead) -> None:
        """Send a portion, have the next one read meanwhile, and note where each message stands."""
        for partition in {run.partition for run in portion.runs}:
            self._refuse_what_is_not_ours(partition)
        sent = Counter[int]()

        def meanwhile() -> None:
            for run in portion.runs:
                run.outgoing.clear()  # the client has copied them
            if portion.error is None and not self._stopped:
                ahead.prepare()

        offsets = self._topic.source.append(self._topic.topic, self._outgoing(portion, sent), meanwhile)
        for partition, count in sent.items():
            expected = self._next_offset(partition)
            if (found := offsets.get(partition, ())) != [*range(expected, expected + count)] and count:
                refuse_another(self._topic)
                at = next(n for n, offset in enumerate(found) if offset != expected + n)
                raise self._overtaken(partition, expected + at, found[at])
        for run in portion.runs:
            count = min(sent[run.partition], len(run.stored))
            sent[run.partition] -= count
            self._progress.counts["sent"] += count
            self._progress.counts["size_bytes"] += sum(run.sizes[:count])
            self._note(run, count)
        self._control.notice(self._progress)

    def _outgoing(self, portion: Portion, sent: Counter[int]) -> Iterator[ForPartition]:
        """The messages to send; ``sent`` counts them by partition."""
        control = self._control
        for run in portion.runs:
            before = sent[run.partition]
            for number, (message, size_bytes) in enumerate(zip(run.outgoing, run.sizes, strict=True), before):
                self._throttle.wait(size_bytes)
                sent[run.partition] = number
                if control.stop():
                    self._stopped = True
                    return
                # Where this process was held up it may have been given up meanwhile: who else writes there?
                if control.monotonic() - self._looked_at > _PAUSE_S:
                    self._refuse_others(sent)
                yield message
            sent[run.partition] = before + len(run.outgoing)

    def _refuse_what_is_not_ours(self, partition: int) -> None:
        """Compare the last message that stands there already with what it should be, once: before more is added, or all is called done."""
        last = self._last_passed.pop(partition, None)
        if last is None:
            return
        at = TopicPartition(self._topic.topic, partition)
        offset = self._next_offset(partition) - 1
        with self._topic.source.reader({at: offset}) as reader:
            (found,) = next(polled(reader, 1, self._control), [None])
            reached = reader.position(at)
        if found is None and reached <= offset:
            raise UnavailableError(
                f"{at} of source {self._topic.source.name} holds a message at offset {offset}, and does not deliver it.",
                remedy="Run the same command again: it goes on from there.",
                topic=at.topic,
                partition=at.partition,
                offset=offset,
            )
        if found is None or digest(found.key, found.headers, found.value) != last:
            raise ConflictError(
                f"{at} of source {self._topic.source.name} holds something else at offset {offset} than this restore "
                "wrote there: another writer wrote to it, or the archive was changed since.",
                remedy="Restore to a topic of another name, or delete this one, and begin anew with --restart.",
                topic=at.topic,
                partition=at.partition,
                offset=offset,
            )

    def _note(self, run: Run, count: int) -> None:
        """Note the first messages of a run, which stand in the target now."""
        if not count:
            return
        at, first = TopicPartition(self._topic.topic, run.partition), self._next_offset(run.partition)
        some = (run.stored[:count], run.digests[:count])
        self._journal.add(run.page.topic, run.page.partition_log, at, first, *some)
        self._written.counts[run.partition] += count
        self._progress.counts["there"] += count

    def _next_offset(self, partition: int) -> int:
        return self._topic.base.get(partition, 0) + self._written.counts[partition]

    def _refuse_others(self, under_way: Mapping[int, int] | None = None) -> None:
        """Raise unless each partition ends where this restore left it, but for messages on their way.

        Raises:
            ConflictError: Another writer wrote to it; another process that goes on with this restore, for instance.
        """
        for partition, found in sorted(already_there(self._topic).items()):
            least = self._written.counts[partition] + self._left[partition]
            if not least <= found <= least + (under_way or {}).get(partition, 0):
                base = self._topic.base.get(partition, 0)
                raise self._overtaken(partition, base + least, base + found)
        self._looked_at = self._control.monotonic()

    def _overtaken(self, partition: int, expected: int, found: int) -> ConflictError:
        at = TopicPartition(self._topic.topic, partition)
        return ConflictError(
            f"Another writer wrote to {at} of source {self._topic.source.name}: it was to end at offset {expected}, "
            f"and ends at {found}.",
            remedy=_END_THAT_WRITER,
            topic=at.topic,
            partition=partition,
            offset=expected,
        )


STALL_S = 30.0
"""After how long without a message a target is given up that should hold more, in seconds."""


def polled(reader: Reader, count: int, control: Control) -> Iterator[Sequence[Message]]:
    """The next ``count`` messages of a reader of one partition, some at a time; fewer where nothing comes any more for ``STALL_S``."""
    heard = control.monotonic()
    while count > 0 and control.monotonic() - heard < STALL_S:
        found = reader.poll(min(count, 10_000), 0.25)
        if found:
            heard = control.monotonic()
            count -= len(found)
            yield found


def refuse_another(target: TargetTopic) -> None:
    """Raise where the topic is not the one any more that the restore began with.

    Raises:
        GenerationChangedError: It was deleted, or made anew.
        UnavailableError: The target does not answer.
    """
    now = target.source.topics([target.topic]).get(target.topic)
    if now is None or now.topic_id != target.topic_id:
        raise _deleted(target)


def already_there(target: TargetTopic) -> dict[int, int]:
    """How many messages stand in each partition beyond where it ended when the restore began.

    Raises:
        ConflictError: A partition ends before that: what stood there is gone.
        GenerationChangedError: The topic was deleted, or made anew.
        UnavailableError: The target does not answer.
    """
    refuse_another(target)
    partitions = [TopicPartition(target.topic, number) for number in range(target.partitions)]
    marks = target.source.watermarks(partitions)
    counts = {
        at.partition: marks[at].high - target.base.get(at.partition, 0) for at in partitions if at in marks
    }
    if any(count < 0 for count in counts.values()):
        raise _deleted(target)
    return counts


def _deleted(target: TargetTopic) -> GenerationChangedError:
    return GenerationChangedError(
        f"Topic {target.topic} of source {target.source.name} was deleted, or deleted and made anew, during the restore.",
        remedy="The same command with --restart begins anew.",
        topic=target.topic,
    )
