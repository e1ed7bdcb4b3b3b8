"""The use case: topic by topic, what the store holds and the catalog lacks becomes rows and ledger again.

Only what is missing is added. Running it again, after it was killed anywhere or beside another one, does what is left.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import (
    UNKNOWN_CLUSTER,
    UNTOLD,
    Batch,
    Collision,
    Duplicate,
    Generation,
    Outcome,
    Row,
)
from hop_archive.errors import SliceTakenError
from hop_archive.ingest.read import read_slices
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.identity import digest
from hop_archive.model.keys import attempt_of, slice_of
from hop_archive.model.limits import Limits
from hop_archive.model.message import TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.read.topic_facts import inner_holes
from hop_archive.recover.portions import portions
from hop_archive.recover.rebuild.commit import COPY, Committer, offset_of, without
from hop_archive.recover.rebuild.cut import cut, disjoint
from hop_archive.recover.rebuild.evidence import Evidence, Found, gather
from hop_archive.recover.rebuild.generations import KnownGenerations
from hop_archive.recover.rebuild.plan import TopicPlan, lacking, stored_topics
from hop_archive.recover.rebuild.spill import Spill, file_name, usable
from hop_archive.source.protocol import Source
from hop_archive.store.protocol import Store
from hop_archive.upkeep.failures import Failures

_MOST_ROWS = 10_000
"""Rows in one transaction."""
_MOST_FOUND = 2_000
"""Documents that are written to the file in one transaction, if their objects are small."""

_WINDOW = 1_000
"""Offsets in which the last row is looked for at first."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What to rebuild, and how.

    Attributes:
        source: Where the topics came from, to be asked whether they are still those; None: nobody is asked.
        topics: Names or globs of topics; empty: all.
        work_dir: Where files are kept until a topic is done, so that a run that was killed goes on; None: somewhere
            temporary.
        progress: Where to count ``topics`` that are done, ``objects`` listed, and of these ``read`` with ``read_bytes``;
            messages ``added`` and offsets ``covered`` that were not there, ``duplicates`` recorded as such, and topics
            ``claimed``: the source was proven to have what is archived.
        monotonic: A clock that never goes back, seconds.
    """

    catalog: Catalog
    store: Store
    source: Source | None = None
    topics: tuple[str, ...] = ()
    work_dir: Path | None = None
    run_id: str = ""
    most_rows: int = _MOST_ROWS
    progress: Progress = field(default_factory=Progress)
    notice: Callable[[Progress], None] = lambda _: None
    failures: Failures = field(default_factory=Failures)
    monotonic: Callable[[], float] = time.monotonic

    def all_answer(self) -> None:
        """Ask each server.

        Raises:
            UnavailableError: One does not answer.
        """
        self.catalog.check()
        self.store.check()
        if self.source is not None:
            self.source.cluster_id()


def rebuild(wanted: Rebuild) -> Iterator[Finding]:
    """Add to the catalog what the store holds and it lacks.

    Yields:
        What could not be believed, or has no place of its own: ``corrupt_object`` for what does not prove itself,
        ``orphan_object`` for what another object holds as well or was removed on purpose.

    A topic that cannot be rebuilt does not stop the others; it is told once these are done. Topics that failed before
    (``Rebuild.failures``) are left out.

    Raises:
        ConfigurationError: A topic means nothing in the store, or the folder cannot be used.
        ConflictError: Another rebuild is at work in the folder, or another writer was in the way each time.
        DataError: Several topics could not be rebuilt, for several reasons.
        UnavailableError: Catalog or store do not answer. What is done stays.
    """
    with ExitStack() as ending:
        folder = wanted.work_dir
        if folder is None:
            folder = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="hop_archive-rebuild-")))
        else:
            folder.mkdir(parents=True, exist_ok=True)
        for topic in stored_topics(wanted.store, wanted.topics):
            if topic in wanted.failures:
                continue
            wanted.progress.topic = topic
            path = folder / file_name(topic)
            with wanted.failures.of(topic, wanted.all_answer):
                with usable(path), Spill(path, topic) as spill:
                    yield from _TopicRebuild(wanted, topic, spill).run()
                    spill.remove()
                wanted.progress.counts["topics"] += 1
            wanted.notice(wanted.progress)
    wanted.failures.raise_any()


class _TopicRebuild:
    """One topic on its way back into the catalog."""

    def __init__(self, wanted: Rebuild, topic: str, spill: Spill) -> None:
        self._wanted = wanted
        self._catalog = wanted.catalog
        self._topic = topic
        self._spill = spill
        self._counts = wanted.progress.counts
        bucket = wanted.store.bucket
        self._to = Committer(wanted.catalog, topic, bucket, wanted.run_id, wanted.progress)

    def run(self) -> Iterator[Finding]:
        catalog, topic, spill = self._catalog, self._topic, self._spill
        yield from self._gather()
        # Say which generation documents are of, and choose one document of each place; the others are found.
        logs = [
            *(rows.partition_log for rows in catalog.unledgered(topic)),
            *catalog.coverage([topic]),
            *spill.named(),
        ]
        generations = catalog.generations([topic]).get(topic, ())
        spill.know_generations()
        known = KnownGenerations.of(generations, (log.generation for log in logs), spill.unplaced())
        spill.place(known.placed(spill.unplaced()))
        spill.choose()
        for key, message_uuid, is_same, chosen in spill.others():
            kind, detail = Kind.ORPHAN_OBJECT, f"{chosen} holds the same message"
            if not is_same:
                kind, detail = Kind.CORRUPT_OBJECT, f"{chosen} says that another message stood in its place"
            yield self._to.finding(kind, key, detail, message_uuid)
        for partition_log in spill.partition_logs():
            self._to.know_generation(partition_log.generation)
            yield from self._commit_log(partition_log)
        self._cover()
        self._to.doubt_again()
        # Claim the newest generation, where the source has it. Of others whose origin nobody knows nothing will be read
        # again, so holes are explained; holes of generations that are known are work.
        newest = catalog.generations([topic]).get(topic, ())[-1:]
        if self._wanted.source is not None and newest and newest[0].cluster_id == UNKNOWN_CLUSTER:
            self._counts["claimed"] += claim(self._wanted.source, catalog, newest[0], self._wanted.monotonic)
        generations = catalog.generations([topic]).get(topic, ())
        over = {generation.number for generation in generations if generation.cluster_id == UNKNOWN_CLUSTER}
        for partition_log, covered in catalog.coverage([topic]).items():
            for start, stop in inner_holes(covered) if partition_log.generation in over else ():
                where = Slice(*partition_log, start, stop)
                with contextlib.suppress(SliceTakenError):
                    catalog.commit(Batch(where, Outcome.SKIPPED, UNTOLD, run_id=self._wanted.run_id))
        catalog.recount(topic)

    def _gather(self) -> Iterator[Finding]:
        """Read what the catalog lacks into the file, some objects in each transaction."""
        listed = TopicPlan(self._topic)
        found = lacking(self._catalog, self._wanted.store, listed)
        unread = (info for info in found if not self._spill.has(info))
        before = self._counts["objects"]
        evidence = itertools.groupby(gather(self._wanted.store, unread), key=lambda part: part.info.key)
        objects = (list(parts) for _, parts in evidence)  # what is found of one is kept whole or not at all
        for some in portions(
            objects, _MOST_FOUND, _MOST_FOUND, lambda parts: sum(len(p.found) for p in parts)
        ):
            foreign: list[Row] = []
            findings: list[Finding] = []
            with self._spill.adding():
                for parts in some:
                    findings += self._take_object(parts, foreign)
            if foreign:
                self._counts["added"] += self._catalog.adopt(foreign)
            yield from findings
            self._counts["objects"] = before + listed.objects
            self._wanted.notice(self._wanted.progress)
        self._counts["objects"] = before + listed.objects

    def _take_object(self, parts: list[Evidence], foreign: list[Row]) -> Iterator[Finding]:
        """Add the documents of an object to the file, those of another archiver to ``foreign``."""
        info = parts[0].info
        where = slice_of(info.key)
        self._spill.forget(info.key)
        problems = 0
        for part in parts:
            fitting: list[Found] = []
            doubts: list[str] = []
            for found in part.found:
                row = found.row
                if where is None or (
                    row.partition == where.partition and where.start <= offset_of(row) < where.stop
                ):
                    fitting.append(found)
                else:
                    in_frame = "" if row.frame is None else f"in the frame at byte {row.frame}, "
                    doubts.append(
                        f"{in_frame}at byte {row.position}: a message of partition {row.partition}, offset {row.offset}"
                    )
            doubts += part.problems
            foreign += (
                found.row._replace(
                    generation=None, partition=None, offset=None, timestamp_type=None, digest=None
                )
                for found in fitting
                if not found.row.digest
            )
            self._spill.add(part._replace(found=[found for found in fitting if found.row.digest]))
            problems += len(doubts)
            for doubt in doubts:
                yield self._to.finding(Kind.CORRUPT_OBJECT, info.key, doubt)
        self._spill.end(info, attempt_of(info.key), where, problems)
        self._counts["read"] += 1
        self._counts["read_bytes"] += info.size_bytes

    def _commit_log(self, partition_log: PartitionLog) -> Iterator[Finding]:
        claims = disjoint(self._spill.claims(partition_log))
        for start, stop, items in cut(claims, self._spill.rows(partition_log), self._wanted.most_rows):
            placed = [message for _, message in items]
            in_use = [message.row for message in placed if not (message.is_first or message.is_same)]
            for row in in_use:
                yield self._to.in_use(row)
            placed = [message for message in placed if message.is_first or message.is_same]
            # Content that was removed for good stays away, whatever documents still have it; and the catalog is told of what
            # their documents alone say that it was.
            whole = [message.row.uuid for message in placed if message.suppressed is None]
            gone = self._catalog.suppressed(whole) & frozenset(whole) if whole else frozenset[uuid.UUID]()
            by_reason: dict[str, dict[uuid.UUID, str]] = {}
            for message in placed:
                if message.suppressed is not None:
                    by_reason.setdefault(message.suppressed, {})[message.row.uuid] = self._topic
            for reason, uuids in by_reason.items():
                self._catalog.suppress(uuids, reason)
            removed = [message.row for message in placed if message.row.uuid in gone]
            for row in removed:
                detail = "its content was removed for good"
                yield self._to.finding(Kind.ORPHAN_OBJECT, row.object_key, detail, row.uuid)
            placed = [message for message in placed if message.row.uuid not in gone]
            copies = [message.row for message in placed if not message.is_first]
            batch = Batch(
                Slice(*partition_log, start, stop),
                rows=[message.row for message in placed if message.is_first],
                duplicates=[Duplicate(offset_of(row), row.timestamp_ms, row.uuid, COPY) for row in copies],
                collisions=[
                    Collision(offset_of(message.row), message.collided_with, message.row.uuid)
                    for message in placed
                    if message.is_first and message.collided_with is not None
                ],
                run_id=self._wanted.run_id,
            )
            for part in without(batch, [offset_of(row) for row in (*in_use, *removed)]):
                yield from self._to.commit(part)
            self._wanted.notice(self._wanted.progress)

    def _cover(self) -> None:
        """Rows, and recorded copies, that were there all along and that no ledger row covers: each run of them is archived."""
        for beyond in self._catalog.unledgered(self._topic):
            self._to.know_generation(beyond.generation)
            covered = self._catalog.coverage([self._topic]).get(beyond.partition_log, EMPTY)
            for start, stop in OffsetSet.between(beyond.start, beyond.stop) - covered:
                rows = self._catalog.select(Query(places=(beyond.within(start, stop),)))
                self._add_runs(beyond.partition_log, (offset_of(row) for row in rows))
        coverage = self._catalog.coverage([self._topic])
        copies = itertools.groupby(self._catalog.duplicates(self._topic), key=lambda pair: pair[0])
        for partition_log, some in copies:
            covered = coverage.get(partition_log, EMPTY)
            self._add_runs(partition_log, (copy.offset for _, copy in some if copy.offset not in covered))

    def _add_runs(self, partition_log: PartitionLog, offsets: Iterable[int]) -> None:
        for start, stop, _ in cut((), ((offset, None) for offset in offsets), self._wanted.most_rows):
            self._to.know_generation(partition_log.generation)
            self._to.add(Batch(Slice(*partition_log, start, stop), run_id=self._wanted.run_id))


def claim(
    source: Source,
    catalog: Catalog,
    rebuilt: Generation,
    monotonic: Callable[[], float] = time.monotonic,
) -> bool:
    """Say where a rebuilt generation came from, if that is proven: told by content, never guessed.

    To take a topic that was made anew for the archived one would skip messages unnoticed. To take the archived one for
    another costs no more than reading once more what Kafka still holds: all of it is found to be copies.

    It is where the topic ends no sooner than what was archived of it, and the first and the last archived message of
    each partition that Kafka still holds is there as it is archived; there must be at least one. Changes nothing
    otherwise.

    Raises:
        UnavailableError: The source or the catalog does not answer.
    """
    topic = rebuilt.topic
    cluster_id, before = source.cluster_id(), source.topics([topic]).get(topic)
    if before is None:
        return False
    proven = 0
    for partition_log, covered in catalog.coverage([topic]).items():
        if partition_log.generation != rebuilt.number:
            continue
        at = TopicPartition(topic, partition_log.partition)
        marks = source.watermarks([at]).get(at)
        if marks is None or marks.high < covered.stop:
            return False
        stop = min(marks.stable, covered.stop)
        if marks.low >= stop:
            continue
        first = [*catalog.select(Query(places=(Slice(*partition_log, marks.low, stop),), limit=1))]
        last: list[Row] = []
        width = _WINDOW
        while first and not last:
            window = Slice(*partition_log, max(marks.low, stop - width), stop)
            last = [*deque(catalog.select(Query(places=(window,))), maxlen=1)]
            width *= 2
        for row in (*first, *last):
            assert row.offset is not None
            place = Slice(*partition_log, row.offset, row.offset + 1)
            with source.reader({}) as reader:
                readings = read_slices(reader, [place], Limits(), monotonic)
                there = next((message for reading in readings for message in reading.messages), None)
            if there is None or there.timestamp_ms != row.timestamp_ms:
                return False
            if digest(there.key, there.headers, there.value) != row.digest:
                return False
            proven += 1
    if not proven or source.topics([topic]).get(topic) != before:
        return False
    reason = "rebuilt from the store; the topic holds the first and the last message that are archived of it"
    return catalog.claim_generation(topic, rebuilt.number, cluster_id, before.topic_id, reason)
