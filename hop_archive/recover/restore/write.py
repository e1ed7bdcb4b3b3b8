"""Writing one target topic: from wherever an earlier try got to, in order, each message once.

Nothing is kept of how far it got but what the target itself says. When a restore begins, it notes where each partition
of the target ends (``base``). Whatever stands there beyond is of this restore, which is its only writer: so their number
says how many messages of the partition are done. Before it goes on it compares the last of them with what they should
be, and every receipt has to follow on the one before: another writer is noticed, and named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hop_archive.errors import ConflictError, CorruptError, GenerationChangedError, HopArchiveError
from hop_archive.model.document import Statement
from hop_archive.model.identity import digest
from hop_archive.model.message import Header, Message, Receipt, TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.read.check import check_content
from hop_archive.read.fetch import FetchedAs, fetch_checked
from hop_archive.recover.restore.control import Control, Throttle
from hop_archive.recover.restore.items import Item, ItemReader
from hop_archive.recover.restore.offset_map import Entry, Journal
from hop_archive.recover.restore.partitioner import partition_of
from hop_archive.recover.restore.plan import Target
from hop_archive.source.protocol import Reader, Source
from hop_archive.store.protocol import Store

PORTION_MESSAGES = 20_000
PORTION_BYTES = 32 * 1024 * 1024
"""Most documents, and bytes of them, between two waits for all acknowledgements. One larger message exceeds it."""

TEST_HEADER = "_test"
"""Marks a message as a test by its presence (hop-client)."""

_MOST_TOLD = 1_000
_END_THAT_WRITER = (
    "End that writer; then restore to a topic of another name, or delete this one and begin anew."
)
_PAUSE_S = 5.0
"""A process that was held up for longer may have been given up, and another may have taken its place."""


class LeftOut(NamedTuple):
    """A message that was not written.

    Attributes:
        uuid: Its UUID.
        topic: The archived topic.
        partition: Where it stood; None where nobody knows, as for ``offset``.
        offset: Where it stood.
        why: What is the matter with it, for people.
    """

    uuid: str
    topic: str
    partition: int | None
    offset: int | None
    why: str


@dataclass(slots=True)
class Written:
    """What stands in one target topic by now, of this restore.

    Attributes:
        counts: Messages by partition.
        left_out: The first of the messages that were left out because they cannot be had, or not be sent.
        left_out_count: How many there are.
        tests: How many test messages were left out, as was asked for.
        complete: Whether it is all; otherwise somebody asked to stop.
    """

    counts: Counter[int] = field(default_factory=Counter)
    left_out: list[LeftOut] = field(default_factory=list)
    left_out_count: int = 0
    tests: int = 0
    complete: bool = False

    def leave_out(self, item: Item, why: str) -> None:
        """Take down a message that is not written."""
        self.left_out_count += 1
        if len(self.left_out) < _MOST_TOLD:
            row = item.row
            partition = item.partition_log.partition if item.partition_log else None
            self.left_out.append(LeftOut(str(row.uuid), row.topic, partition, item.offset, why))


class _Outgoing(NamedTuple):
    """A message on its way; what ``Source.publish`` takes."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    timestamp_ms: int | None
    partition: int | None


class _Sent(NamedTuple):
    item: Item
    partition: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class TargetTopic:
    """Where a target topic is written to.

    Attributes:
        source: The cluster.
        topic: The topic's name.
        topic_id: Its id when the restore began; None where the broker gives none.
        partitions: How many partitions it has.
        base: Where each partition ended when the restore began.
    """

    source: Source
    topic: str
    topic_id: str | None
    partitions: int
    base: Mapping[int, int]


class Writer:
    """One pass over a target: what is there already is passed over, the rest is written. A new one for each try.

    Args:
        selection: Where items come from.
        store: Where their documents are.
        target_topic: Where they go.
        journal: Told of every message that stands in the target.
        control: How fast, and until when.
        progress: Told how far it is.
    """

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
        self._request = selection.request
        self._store = store
        self._topic = target_topic
        self._journal = journal
        self._control = control
        self._progress = progress
        self._throttle = Throttle(control)
        self._written = Written()
        self._left: Counter[int] = Counter()
        self._error: HopArchiveError | None = None
        self._last_passed: dict[int, _Sent] = {}
        self._looked_at = control.monotonic()
        self._stopped = False
        self._needs_content = False

    def write(self, target: Target, already: Mapping[int, int]) -> Written:
        """Write what is not there yet.

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
        request = self._request
        # Whether what a message is has to be known to tell where it belongs, and whether it belongs there at all.
        chosen = request.by_key or request.duplicates or not request.tests
        chosen = chosen or request.skip_damaged or request.keep_archive_id
        self._needs_content = chosen or any(lane.partition_log is None for lane in target.lanes)
        for portion in _portions(self._selection.items(target), self._control.most_at_once(PORTION_MESSAGES)):
            if self._control.stop():
                return self._written
            self._refuse_others()
            sent: list[_Sent] = []
            if receipts := self._topic.source.publish(self._outgoing(portion, sent)):
                for message, receipt in zip(sent, receipts, strict=True):
                    self._acknowledge(message, receipt)
                self._control.notice(self._progress)
            if self._error is not None:
                raise self._error
            if self._stopped:
                return self._written
        if more := {partition: count for partition, count in self._left.items() if count}:
            at = TopicPartition(self._topic.topic, min(more))
            raise ConflictError(
                f"{at} of source {self._topic.source.name} holds {more[at.partition]} more messages than were to be "
                "restored there: another writer wrote to it.",
                remedy=_END_THAT_WRITER,
                topic=at.topic,
                partition=at.partition,
            )
        self._refuse_others()
        self._written.complete = True
        return self._written

    def _outgoing(self, portion: Sequence[Item], sent: list[_Sent]) -> Iterator[_Outgoing]:
        """The messages to send; ends early, with an error to raise, at one that cannot be had."""
        for item, found in self._fetched(portion):
            message = self._message(item, found)
            if message is None:
                if self._error is not None:
                    return
                continue
            assert message.partition is not None
            content = item.row.digest
            if content is None or self._request.keep_archive_id:
                content = digest(message.key, message.headers, message.value)
            outgoing = _Sent(item, message.partition, content)
            if self._left[message.partition] > 0:
                self._pass(outgoing)
                continue
            self._refuse_what_is_not_ours(message.partition)
            size_bytes = len(message.value or b"") + len(message.key or b"")
            size_bytes += sum(len(name.encode()) + len(value or b"") for name, value in message.headers)
            self._throttle.wait(size_bytes)
            if self._control.stop():
                self._stopped = True
                return
            # Where this process was held up it may have been given up meanwhile: who else writes there?
            if self._control.monotonic() - self._looked_at > _PAUSE_S:
                self._refuse_others(Counter(one.partition for one in sent))
            self._progress.counts["size_bytes"] += size_bytes
            sent.append(outgoing)
            yield message

    def _fetched(self, portion: Sequence[Item]) -> Iterator[tuple[Item, FetchedAs[Statement]]]:
        """The items with their documents; those that stand in the target already, if their rows tell, are passed."""
        items: list[Item] = []
        for item in portion:
            content = None if self._needs_content else item.row.digest
            if content is None or item.timestamp_ms == 0 or self._left[item.partition] <= 0:
                items.append(item)
            else:
                self._pass(_Sent(item, item.partition, content))
        rows = (item.row for item in items)
        return zip(items, fetch_checked(self._store, rows, check_content), strict=True)

    def _message(self, item: Item, found: FetchedAs[Statement]) -> _Outgoing | None:
        """The message to write; None where none is, and where that is no choice of anybody's, ``_error`` says so."""
        request, document, row = self._request, found.document, item.row
        option, skip, why = "--skip-damaged", request.skip_damaged, "; ".join(found.problems)
        if document is not None and not found.problems:
            if not request.tests and any(name == TEST_HEADER for name, _ in document.headers):
                self._written.tests += 1
                return None
            if item.timestamp_ms != 0:
                headers = document.headers if request.keep_archive_id else document.received_headers
                where = item.partition
                if request.by_key or item.partition_log is None:
                    where = partition_of(document.key, item.partition, self._topic.partitions)
                content = (document.key, document.value, headers)
                return _Outgoing(self._topic.topic, *content, item.timestamp_ms, where)
            option, skip = "--skip-unsendable", request.skip_unsendable
            why = "its timestamp is 0, for which the Kafka client sends the present time"
        if skip:
            self._written.leave_out(item, why)
            return None
        self._error = CorruptError(
            f"Message {row.uuid} of topic {row.topic} cannot be restored: {why or found.error}. "
            "Everything before it was written.",
            remedy=f"Mend it (hop-archive repair), or go on without it: {option}.",
            uuid=str(row.uuid),
            topic=row.topic,
            object_key=row.object_key,
        )
        return None

    def _pass(self, sent: _Sent) -> None:
        self._left[sent.partition] -= 1
        self._note(sent)
        self._last_passed[sent.partition] = sent

    def _refuse_what_is_not_ours(self, partition: int) -> None:
        """Compare the last message that stands there already with what it should be, once, before going on."""
        last = self._last_passed.pop(partition, None)
        if last is None:
            return
        at = TopicPartition(self._topic.topic, partition)
        offset = self._next_offset(partition) - 1
        with self._topic.source.reader({at: offset}) as reader:
            found = next(messages(reader, 1, self._control), None)
        if found is None or digest(found.key, found.headers, found.value) != last.digest:
            raise ConflictError(
                f"{at} of source {self._topic.source.name} holds something else at offset {offset} than this restore "
                "wrote there: another writer wrote to it, or the archive was changed since.",
                remedy="Restore to a topic of another name, or delete this one, and begin anew with --restart.",
                topic=at.topic,
                partition=at.partition,
                offset=offset,
            )

    def _acknowledge(self, sent: _Sent, receipt: Receipt) -> None:
        next_offset = self._next_offset(sent.partition)
        if (receipt.partition, receipt.offset) != (sent.partition, next_offset):
            refuse_another(self._topic)
            raise self._overtaken(sent.partition, next_offset, receipt.offset)
        self._progress.counts["sent"] += 1
        self._note(sent)

    def _note(self, sent: _Sent) -> None:
        row, partition_log = sent.item.row, sent.item.partition_log
        self._journal.add(
            Entry(
                row.topic,
                partition_log.generation if partition_log else None,
                partition_log.partition if partition_log else None,
                sent.item.offset,
                row.uuid.bytes,
                sent.item.timestamp_ms,
                sent.digest,
                self._topic.topic,
                sent.partition,
                self._next_offset(sent.partition),
            )
        )
        self._written.counts[sent.partition] += 1
        self._progress.counts["there"] += 1

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


def messages(reader: Reader, count: int, control: Control) -> Iterator[Message]:
    """The next ``count`` messages of a reader of one partition; fewer where nothing comes any more for ``STALL_S``."""
    heard = control.monotonic()
    while count > 0 and control.monotonic() - heard < STALL_S:
        found = reader.poll(min(count, 10_000), 0.25)
        if found:
            heard = control.monotonic()
            count -= len(found)
        yield from found


def _portions(items: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Items in portions, bounded by number and by bytes of their documents."""
    portion: list[Item] = []
    size_bytes = 0
    for item in items:
        if portion and (len(portion) >= most or size_bytes + item.row.size_bytes > PORTION_BYTES):
            yield portion
            portion, size_bytes = [], 0
        portion.append(item)
        size_bytes += item.row.size_bytes
    if portion:
        yield portion


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
