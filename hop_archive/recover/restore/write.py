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

from hop_archive.errors import ConflictError, CorruptError, DataError, GenerationChangedError, HopArchiveError
from hop_archive.model.document import Content
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
from hop_archive.recover.restore.request import Request
from hop_archive.source.protocol import Reader, Source
from hop_archive.store.protocol import Store

PORTION_MESSAGES = 20_000
PORTION_BYTES = 32 * 1024 * 1024
"""Most documents, and bytes of them, between two waits for all acknowledgements. One larger message exceeds it."""

TEST_HEADER = "_test"
"""Marks a message as a test by its presence (hop-client)."""

_MOST_TOLD = 1_000
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
        place: Where they go.
        journal: Told of every message that stands in the target.
        control: How fast, and until when.
        progress: Told how far it is.
    """

    def __init__(
        self,
        selection: ItemReader,
        store: Store,
        place: TargetTopic,
        journal: Journal,
        control: Control,
        progress: Progress,
    ) -> None:
        self._selection = selection
        self._store = store
        self._place = place
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

    @property
    def request(self) -> Request:
        """What is restored."""
        return self._selection.request

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
        self._needs_content = _needs_content(self.request, target)
        for portion in _portions(self._selection.items(target), self._control.most_at_once(PORTION_MESSAGES)):
            if self._control.stop():
                return self._written
            self._refuse_others()
            self._write_portion(portion)
            if self._error is not None:
                raise self._error
            if self._stopped:
                return self._written
        if any(self._left.values()):
            raise self._foreign(min(p for p, n in self._left.items() if n))
        self._refuse_others()
        self._written.complete = True
        return self._written

    def _write_portion(self, portion: Sequence[Item]) -> None:
        sent: list[_Sent] = []
        receipts = self._place.source.publish(self._outgoing(portion, sent))
        if not receipts:
            return
        for one, receipt in zip(sent, receipts, strict=True):
            self._acknowledge(one, receipt)
        self._control.notice(self._progress)

    def _outgoing(self, portion: Sequence[Item], sent: list[_Sent]) -> Iterator[_Outgoing]:
        """The messages to send; ends early, with an error to raise, at one that cannot be had."""
        for item, found in self._fetched(portion):
            if self._is_left_out(item, found):
                if self._error is not None:
                    return
                continue
            assert found.document is not None
            message = self._message(item, found.document)
            assert message.partition is not None
            content = self._digest(item, message)
            if self._left[message.partition] > 0:
                self._pass(_Sent(item, message.partition, content))
                continue
            self._refuse_what_is_not_ours(message.partition)
            size_bytes = _size_bytes(message)
            self._throttle.wait(size_bytes)
            if self._control.stop():
                self._stopped = True
                return
            self._refuse_others_after_a_pause(sent)
            self._progress.counts["size_bytes"] += size_bytes
            sent.append(_Sent(item, message.partition, content))
            yield message

    def _fetched(self, portion: Sequence[Item]) -> Iterator[tuple[Item, FetchedAs[Content]]]:
        """The items with their documents; those that stand in the target already, if their rows tell, are passed."""
        wanted = list(portion) if self._needs_content else [i for i in portion if not self._is_there(i)]
        return zip(wanted, fetch_checked(self._store, (i.row for i in wanted), check_content), strict=False)

    def _is_there(self, item: Item) -> bool:
        """Whether it stands in the target already; if so it is noted."""
        if item.row.digest is None or self._unsendable(item):
            return False
        if self._left[item.partition] <= 0:
            return False
        self._pass(_Sent(item, item.partition, item.row.digest))
        return True

    def _is_left_out(self, item: Item, found: FetchedAs[Content]) -> bool:
        """Whether a message is not to be written; where that is no choice of anybody's, ``_error`` says so."""
        if found.problems or found.document is None:
            self._cannot(item, "; ".join(found.problems), found.error, skip=self.request.skip_damaged)
            return True
        if not self.request.tests and any(name == TEST_HEADER for name, _ in found.document.headers):
            self._written.tests += 1
            return True
        if self._unsendable(item):
            why = "its timestamp is 0, for which the Kafka client sends the present time"
            self._cannot(item, why, None, skip=self.request.skip_unsendable)
            return True
        return False

    def _unsendable(self, item: Item) -> bool:
        return item.timestamp_ms == 0

    def _cannot(self, item: Item, why: str, error: DataError | None, *, skip: bool) -> None:
        if skip:
            self._written.leave_out(item, why)
            return
        option = "--skip-unsendable" if item.timestamp_ms == 0 and error is None else "--skip-damaged"
        row = item.row
        self._error = CorruptError(
            f"Message {row.uuid} of topic {row.topic} cannot be restored: {why or error}. Everything before it was written.",
            remedy=f"Mend it (hop-archive repair), or go on without it: {option}.",
            uuid=str(row.uuid),
            topic=row.topic,
            object_key=row.object_key,
        )

    def _message(self, item: Item, message: Content) -> _Outgoing:
        headers = message.headers if self.request.keep_archive_id else message.received_headers
        where = item.partition
        if self.request.by_key or item.partition_log is None:
            where = partition_of(message.key, item.partition, self._place.partitions)
        return _Outgoing(self._place.topic, message.key, message.value, headers, item.timestamp_ms, where)

    def _digest(self, item: Item, message: _Outgoing) -> bytes:
        if item.row.digest is not None and not self.request.keep_archive_id:
            return item.row.digest
        return digest(message.key, message.headers, message.value)

    def _pass(self, one: _Sent) -> None:
        self._left[one.partition] -= 1
        self._note(one)
        self._last_passed[one.partition] = one

    def _refuse_what_is_not_ours(self, partition: int) -> None:
        """Compare the last message that stands there already with what it should be, once, before going on."""
        last = self._last_passed.pop(partition, None)
        if last is None:
            return
        at = TopicPartition(self._place.topic, partition)
        offset = self._next_offset(partition) - 1
        with self._place.source.reader({at: offset}) as reader:
            found = next(messages(reader, at, 1, self._control), None)
        if found is None or digest(found.key, found.headers, found.value) != last.digest:
            raise self._not_ours(at, offset)

    def _acknowledge(self, one: _Sent, receipt: Receipt) -> None:
        wanted = self._next_offset(one.partition)
        if (receipt.partition, receipt.offset) != (one.partition, wanted):
            self._refuse_another_life()
            raise self._overtaken(one.partition, wanted, receipt.offset)
        self._progress.counts["sent"] += 1
        self._note(one)

    def _note(self, one: _Sent) -> None:
        row = one.item.row
        self._journal.add(
            Entry(
                row.topic,
                one.item.partition_log.generation if one.item.partition_log else None,
                one.item.partition_log.partition if one.item.partition_log else None,
                one.item.offset,
                row.uuid.bytes,
                one.item.timestamp_ms,
                one.digest,
                self._place.topic,
                one.partition,
                self._next_offset(one.partition),
            )
        )
        self._written.counts[one.partition] += 1
        self._progress.counts["there"] += 1

    def _next_offset(self, partition: int) -> int:
        return self._place.base.get(partition, 0) + self._written.counts[partition]

    def _refuse_others_after_a_pause(self, sent: Sequence[_Sent]) -> None:
        """Look again who else writes there, where this process was held up: it may have been given up meanwhile."""
        now = self._control.monotonic()
        if now - self._looked_at > _PAUSE_S:
            self._refuse_others(Counter(one.partition for one in sent))

    def _refuse_others(self, under_way: Mapping[int, int] | None = None) -> None:
        """Raise unless each partition ends where this restore left it, but for messages on their way.

        Raises:
            ConflictError: Another writer wrote to it; another process that goes on with this restore, for instance.
        """
        for partition, found in sorted(already_there(self._place).items()):
            least = self._written.counts[partition] + self._left[partition]
            if not least <= found <= least + (under_way or {}).get(partition, 0):
                end = self._place.base.get(partition, 0)
                raise self._overtaken(partition, end + least, end + found)
        self._looked_at = self._control.monotonic()

    def _refuse_another_life(self) -> None:
        place = self._place
        now = place.source.topics([place.topic]).get(place.topic)
        if now is None or now.topic_id != place.topic_id:
            raise deleted(place)

    def _overtaken(self, partition: int, wanted: int, found: int) -> ConflictError:
        at = TopicPartition(self._place.topic, partition)
        return ConflictError(
            f"Another writer wrote to {at} of source {self._place.source.name}: it was to end at offset {wanted}, "
            f"and ends at {found}.",
            remedy="End that writer; then restore to a topic of another name, or delete this one and begin anew.",
            topic=at.topic,
            partition=partition,
            offset=wanted,
        )

    def _not_ours(self, at: TopicPartition, offset: int) -> ConflictError:
        return ConflictError(
            f"{at} of source {self._place.source.name} holds something else at offset {offset} than this restore "
            "wrote there: another writer wrote to it, or the archive was changed since.",
            remedy="Restore to a topic of another name, or delete this one, and begin anew with --restart.",
            topic=at.topic,
            partition=at.partition,
            offset=offset,
        )

    def _foreign(self, partition: int) -> ConflictError:
        at = TopicPartition(self._place.topic, partition)
        return ConflictError(
            f"{at} of source {self._place.source.name} holds {self._left[partition]} more messages than were to be "
            "restored there: another writer wrote to it.",
            remedy="End that writer; then restore to a topic of another name, or delete this one and begin anew.",
            topic=at.topic,
            partition=partition,
        )


def _needs_content(request: Request, target: Target) -> bool:
    """Whether what a message is has to be known to tell where it belongs, and whether it belongs there at all."""
    chosen = request.by_key or request.duplicates or not request.tests
    chosen = chosen or request.skip_damaged or request.keep_archive_id
    return chosen or any(lane.partition_log is None for lane in target.lanes)


STALL_S = 30.0
"""After how long without a message a target is given up that should hold more, in seconds."""


def messages(reader: Reader, at: TopicPartition, count: int, control: Control) -> Iterator[Message]:
    """The next ``count`` messages of a partition; fewer where nothing comes any more for ``STALL_S``."""
    heard = control.monotonic()
    while count > 0 and control.monotonic() - heard < STALL_S:
        found = reader.poll(min(count, 10_000), 0.25)
        if found:
            heard = control.monotonic()
            count -= len(found)
        yield from found


def deleted(place: TargetTopic) -> GenerationChangedError:
    """The error of a target that is not there any more, or is another one."""
    return GenerationChangedError(
        f"Topic {place.topic} of source {place.source.name} was deleted, or deleted and made anew, during the restore.",
        remedy="The same command with --restart begins anew.",
        topic=place.topic,
    )


def _size_bytes(message: _Outgoing) -> int:
    headers = sum(len(name.encode()) + len(value or b"") for name, value in message.headers)
    return len(message.value or b"") + len(message.key or b"") + headers


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


def already_there(place: TargetTopic) -> dict[int, int]:
    """How many messages stand in each partition beyond where it ended when the restore began.

    Raises:
        ConflictError: A partition ends before that: what stood there is gone.
        GenerationChangedError: The topic was deleted, or made anew.
        UnavailableError: The target does not answer.
    """
    now = place.source.topics([place.topic]).get(place.topic)
    if now is None or now.topic_id != place.topic_id:
        raise deleted(place)
    partitions = [TopicPartition(place.topic, number) for number in range(place.partitions)]
    marks = place.source.watermarks(partitions)
    counts = {
        at.partition: marks[at].high - place.base.get(at.partition, 0) for at in partitions if at in marks
    }
    if any(count < 0 for count in counts.values()):
        raise deleted(place)
    return counts
