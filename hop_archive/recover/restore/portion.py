"""What is written between two waits for all acknowledgements: read, and proven, ahead of its turn."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hop_archive.catalog.stored import Stored
from hop_archive.errors import CorruptError, HopArchiveError
from hop_archive.model.content import Content
from hop_archive.model.envelope import ID_HEADER, UUID_BYTES
from hop_archive.model.identity import digest
from hop_archive.model.message import ForPartition
from hop_archive.read.bulk import examined, fetch_bodies, proven
from hop_archive.read.fetch import NoBytes
from hop_archive.recover.restore.items import ItemReader, Page
from hop_archive.recover.restore.partitioner import partition_of
from hop_archive.recover.restore.plan import Target
from hop_archive.recover.restore.written import Written
from hop_archive.store.protocol import Store

PORTION_BYTES = 32 * 1024 * 1024
"""Most bytes of documents in a portion. One larger message exceeds it."""

TEST_HEADER = "_test"
"""Marks a message as a test by its presence (hop-client)."""

_ID_BYTES = len(ID_HEADER) + UUID_BYTES


class Run(NamedTuple):
    """Messages of one page that go to one partition of the target, in order.

    Attributes:
        partition: The target's.
        stored: What the catalog knows of each.
        digests: Of each, as it is written.
        outgoing: Each as it is sent, and how many bytes of key, value and headers those are; empty where they stand there.
    """

    page: Page
    partition: int
    stored: list[Stored]
    digests: list[bytes]
    outgoing: list[ForPartition]
    sizes: list[int]


@dataclass(slots=True)
class Portion:
    """A portion of a target.

    Attributes:
        passed: What stands in the target already, before what is to be sent.
        error: Why nothing may be sent after it.
    """

    passed: list[Run] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    error: HopArchiveError | None = None


class PortionReader:
    """Reads the portions of one target.

    Args:
        already: How many messages of this restore stand in each partition.
        written: Told of what is left out.
        partitions: How many the target has.
    """

    def __init__(
        self,
        selection: ItemReader,
        store: Store,
        target: Target,
        already: Mapping[int, int],
        written: Written,
        partitions: int,
    ) -> None:
        request = selection.request
        self._selection = selection
        self._request = request
        self._store = store
        self._target = target
        self._left = Counter(already)
        self._written = written
        self._partitions = partitions
        # Whether what a message is has to be known to tell where it belongs, and whether it belongs there at all.
        chosen = request.by_key or request.duplicates or not request.tests
        chosen = chosen or request.skip_damaged or request.keep_archive_id
        self._needs_content = chosen or any(lane.partition_log is None for lane in target.lanes)

    def portions(self, most: int) -> Iterator[Portion]:
        """The portions in turn, each of at most so many messages.

        Raises:
            UnavailableError: Catalog or store do not answer.
        """
        some: list[Page] = []
        count = size_bytes = 0
        for page in self._selection.pages(self._target):
            start = 0
            for at, stored in enumerate(page.messages):
                if count and (count >= most or size_bytes + stored.size_bytes > PORTION_BYTES):
                    some.append(page._replace(messages=page.messages[start:at]))
                    yield self._read(some)
                    some, start, count, size_bytes = [], at, 0, 0
                count += 1
                size_bytes += stored.size_bytes
            some.append(page._replace(messages=page.messages[start:]))
        if some:
            yield self._read(some)

    def _read(self, pages: Sequence[Page]) -> Portion:
        """A portion; it ends early, with an error to raise, at a message that cannot be had."""
        portion = Portion()
        rest = [self._pass_known(page, portion) for page in pages]
        bodies = itertools.chain.from_iterable(fetch_bodies(self._store, [s for some in rest for s in some]))
        for page, some in zip(pages, rest, strict=True):
            to_send: dict[int, Run] = {}
            passed: dict[int, Run] = {}
            is_plain = not self._needs_content and self._left[page.partition] <= 0
            if is_plain:
                to_send[page.partition] = Run(page, page.partition, [], [], [], [])
                _, partition, stored_there, digests, outgoing, sizes = to_send[page.partition]
            for stored, body in itertools.islice(bodies, len(some)):
                content = proven(stored, body) if isinstance(body, bytes) else None
                if content is None or stored.timestamp_ms == 0 or not self._request.tests or content.caveats:
                    content = self._considered(page, stored, body, content, portion)
                    if portion.error is not None:
                        break
                    if content is None:
                        continue
                content_digest = stored.digest
                if is_plain and content_digest is not None:  # as ``_place`` does it, in half of the time
                    _, _, key, value, headers, _, size_bytes, _ = content
                    stored_there.append(stored)
                    digests.append(content_digest)
                    message = (partition, key, value, headers, stored.timestamp_ms)
                    outgoing.append(tuple.__new__(ForPartition, message))
                    sizes.append(size_bytes)
                else:
                    self._place(page, stored, content, to_send, passed)
            portion.passed += passed.values()
            portion.runs += [run for run in to_send.values() if run.stored]
            if portion.error is not None:
                break
        return portion

    def _pass_known(self, page: Page, portion: Portion) -> list[Stored]:
        """Pass what stands in the target already, as far as its row tells what it is; what is left has to be read."""
        left = self._left[page.partition]
        if left <= 0 or self._needs_content:
            return [*page.messages]
        run, rest = Run(page, page.partition, [], [], [], []), []
        for stored in page.messages:
            if stored.digest is None or stored.timestamp_ms == 0 or len(run.stored) >= left:
                rest.append(stored)
            else:
                run.stored.append(stored)
                run.digests.append(stored.digest)
        if run.stored:
            portion.passed.append(run)
            self._left[page.partition] -= len(run.stored)
        return rest

    def _place(
        self, page: Page, stored: Stored, content: Content, to_send: dict[int, Run], passed: dict[int, Run]
    ) -> None:
        """Add a message to those that are sent to its partition, or stand there already."""
        _, _, key, value, headers, _, size_bytes, _ = content
        partition, digest_ = page.partition, stored.digest
        if self._request.keep_archive_id and content.made_id:
            headers, size_bytes = content.stored_headers, size_bytes + _ID_BYTES
            digest_ = None
        if self._request.by_key or page.partition_log is None:
            partition = partition_of(key, partition, self._partitions)
        is_there = self._left[partition] > 0
        runs = passed if is_there else to_send
        run = runs.get(partition)
        if run is None:
            run = runs[partition] = Run(page, partition, [], [], [], [])
        run.stored.append(stored)
        run.digests.append(digest_ or digest(key, tuple(headers), value))
        if is_there:
            self._left[partition] -= 1
        else:
            run.outgoing.append(ForPartition(partition, key, value, headers, stored.timestamp_ms))
            run.sizes.append(size_bytes)

    def _considered(
        self,
        page: Page,
        stored: Stored,
        body: bytes | NoBytes,
        content: Content | None,
        portion: Portion,
    ) -> Content | None:
        """What is to be sent of a message that is not as most are; None where it is left out, or an error says that it may not be."""
        request = self._request
        option, skip, why = "--skip-damaged", request.skip_damaged, ""
        if content is None:
            content, why = examined(self._selection.catalog, self._store, stored, body)
            if content is None and self._selection.catalog.suppressed([stored.message_uuid]):
                return None  # since its page was asked for: no later page has it
        if content is not None:
            if not request.tests and any(name == TEST_HEADER for name, _ in content.headers):
                self._written.tests += 1
                return None
            if stored.timestamp_ms != 0:
                self._written.caveats.update(content.caveats)
                return content
            option, skip = "--skip-unsendable", request.skip_unsendable
            why = "its timestamp is 0, for which the Kafka client sends the present time"
        if skip:
            self._written.leave_out(page, stored, why)
            return None
        portion.error = CorruptError(
            f"Message {stored.message_uuid} of topic {page.topic} cannot be restored: {why}. "
            "Everything before it was written.",
            remedy=f"Mend it (hop-archive repair), or go on without it: {option}.",
            uuid=str(stored.message_uuid),
            topic=page.topic,
            object_key=stored.object_key,
        )
        return None


class Ahead:
    """Portions one ahead of what was taken, where somebody finds the time to prepare it."""

    def __init__(self, portions: Iterator[Portion]) -> None:
        self._portions = portions
        self._prepared: list[Portion | None] = []
        self._error: HopArchiveError | None = None

    def prepare(self) -> None:
        """Have the next one read. What fails of it is raised when it is taken: what is on its way meanwhile has nothing to do with it."""
        try:
            self._prepared.append(next(self._portions, None))
        except HopArchiveError as error:
            self._error = error

    def take(self) -> Portion | None:
        """The next one; None where there is none any more.

        Raises:
            HopArchiveError: It could not be read.
        """
        if not self._prepared and self._error is None:
            self.prepare()
        if self._error is not None:
            raise self._error
        return self._prepared.pop()
