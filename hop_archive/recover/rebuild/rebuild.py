"""The use case: topic by topic, what the store holds and the catalog lacks becomes rows and ledger again.

Only what is missing is added. Running it again, after it was killed anywhere or beside another one, does what is left.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.keys import attempt_of, slice_of
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.read.topic_facts import inner_holes
from hop_archive.recover.rebuild.claim import claim
from hop_archive.recover.rebuild.commit import COPY, Committer, offset_of, without
from hop_archive.recover.rebuild.cut import cut, disjoint
from hop_archive.recover.rebuild.evidence import Evidence, Found, gather
from hop_archive.recover.rebuild.failures import Failures
from hop_archive.recover.rebuild.generations import KnownGenerations
from hop_archive.recover.rebuild.plan import ListingCounts, lacking, stored_topics
from hop_archive.recover.rebuild.spill import Placed, Spill, file_name, usable
from hop_archive.source.protocol import Source
from hop_archive.store.protocol import ObjectInfo, Store

_MOST_ROWS = 10_000
"""Rows in one transaction."""
_MOST_FOUND = 2_000
"""Documents that are written to the file in one transaction, if their objects are small."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What to rebuild, and how.

    Attributes:
        catalog: What is to be completed.
        store: Where documents are.
        source: Where the topics came from, to be asked whether they are still those; None: nobody is asked.
        topics: Names or globs of topics; empty: all.
        work_dir: Where files are kept until a topic is done, so that a run that was killed goes on; None: somewhere
            temporary.
        run_id: Noted in the ledger, for people.
        most_rows: Most rows in one transaction.
        progress: Where to count ``topics`` that are done, ``objects`` listed, and of these ``read`` with ``read_bytes``;
            messages ``added`` and offsets ``covered`` that were not there, ``duplicates`` recorded as such, and topics
            ``claimed``: the source was proven to have what is archived.
        notice: Called now and then.
        failures: The topics that could not be done.
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
                with usable(path), Spill(path, topic, wanted.store.bucket) as spill:
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
        yield from self._gather()
        self._tell_lives()
        self._spill.choose()
        yield from self._others()
        for partition_log in self._spill.partition_logs():
            self._to.know_generation(partition_log.generation)
            yield from self._commit_lineage(partition_log)
        self._cover_rows()
        self._cover_duplicates()
        self._claim()
        self._settle_untold()
        self._catalog.recount(self._topic)

    # --- reading

    def _gather(self) -> Iterator[Finding]:
        """Read what the catalog lacks into the file, some objects in each transaction."""
        listed = ListingCounts()
        found = lacking(self._catalog, self._wanted.store, self._topic, listed)
        unread = (info for info in found if not self._spill.has(info))
        evidence = gather(self._wanted.store, unread)
        before = self._counts["objects"]
        for some in _portions(evidence):
            yield from self._take(some)
            self._counts["objects"] = before + listed.objects
            self._wanted.notice(self._wanted.progress)
        self._counts["objects"] = before + listed.objects

    def _take(self, some: Sequence[list[Evidence]]) -> Iterator[Finding]:
        foreign: list[Row] = []
        findings: list[Finding] = []
        with self._spill.adding():
            for parts in some:
                findings += self._take_object(parts, foreign)
        if foreign:
            self._counts["added"] += self._catalog.adopt(foreign)
        yield from findings

    def _take_object(self, parts: list[Evidence], foreign: list[Row]) -> Iterator[Finding]:
        info = parts[0].info
        where = slice_of(info.key)
        self._spill.forget(info.key)
        problems = 0
        for part in parts:
            found, doubts = _fitting(part, where)
            doubts += part.problems
            foreign += (self._foreign(info, one) for one in found if not one.document.digest)
            own = [one for one in found if one.document.digest]
            self._spill.add(part._replace(found=own), where.partition_log if where else None)
            problems += len(doubts)
            for doubt in doubts:
                yield self._to.finding(Kind.CORRUPT_OBJECT, info.key, doubt)
        named = (where.partition_log, where.start, where.stop) if where else None
        self._spill.end(info, attempt_of(info.key), named, problems)
        self._counts["read"] += 1
        self._counts["read_bytes"] += info.size_bytes

    def _foreign(self, info: ObjectInfo, found: Found) -> Row:
        """The row of a document of another archiver, as that one leaves it."""
        document = found.document
        return Row(
            topic=self._topic,
            generation=None,
            partition=None,
            offset=None,
            timestamp_ms=document.message.timestamp_ms,
            timestamp_type=None,
            uuid=document.uuid,
            is_client_uuid=document.is_client_uuid,
            digest=None,
            object_key=info.key,
            bucket=self._wanted.store.bucket,
            position=found.position,
            size_bytes=found.size_bytes,
            crc32=found.crc32,
            message_crc32=document.message_crc32,
            annotations=document.annotations,
        )

    # --- placing

    def _tell_lives(self) -> None:
        generations = self._catalog.generations([self._topic]).get(self._topic, ())
        rows = (one.generation for one in self._catalog.unledgered(self._topic))
        covered = (one.generation for one in self._catalog.coverage([self._topic]))
        self._spill.know_generations()
        keys = (one.generation for one in self._spill.named())
        numbers = [*rows, *covered, *keys]
        lives = KnownGenerations.of(generations, numbers, self._spill.homeless())
        self._spill.place(lives.placed(self._spill.homeless()))

    def _others(self) -> Iterator[Finding]:
        """Documents of a place that another document took."""
        for key, own, is_same, chosen in self._spill.others():
            if is_same:
                yield self._to.finding(Kind.ORPHAN_OBJECT, key, f"{chosen} holds the same message", own)
            else:
                detail = f"{chosen} says that another message stood in its place"
                yield self._to.finding(Kind.CORRUPT_OBJECT, key, detail, own)

    # --- committing

    def _commit_lineage(self, partition_log: PartitionLog) -> Iterator[Finding]:
        claims = disjoint(self._spill.claims(partition_log))
        rows = self._spill.rows(partition_log)
        for start, stop, items in cut(claims, rows, self._wanted.most_rows):
            where = Slice(*partition_log, start, stop)
            placed = [one for _, one in items]
            strangers = [one for one in placed if not (one.is_first or one.is_same)]
            for one in strangers:
                yield self._to.in_use(one.row)
            wanted = [one for one in placed if one.is_first or one.is_same]
            removed = self._removed(wanted)
            self._note_suppressed(wanted)
            for one in wanted:
                if one.row.uuid in removed:
                    yield self._to.finding(
                        Kind.ORPHAN_OBJECT,
                        one.row.object_key,
                        "its content was removed for good",
                        one.row.uuid,
                    )
            batch = self._batch(where, [one for one in wanted if one.row.uuid not in removed])
            left_out = [
                offset_of(one.row)
                for one in (*strangers, *wanted)
                if one in strangers or one.row.uuid in removed
            ]
            for part in without(batch, left_out):
                yield from self._to.commit(part)
            self._wanted.notice(self._wanted.progress)

    def _batch(self, where: Slice, placed: Sequence[Placed]) -> Batch:
        rows = [one.row for one in placed if one.is_first]
        copies = [one.row for one in placed if not one.is_first]
        return Batch(
            where,
            rows=rows,
            duplicates=[Duplicate(offset_of(row), row.timestamp_ms, row.uuid, COPY) for row in copies],
            collisions=[
                Collision(offset_of(one.row), one.collided_with, one.row.uuid)
                for one in placed
                if one.is_first and one.collided_with is not None
            ],
            run_id=self._wanted.run_id,
        )

    def _cover_rows(self) -> None:
        """Rows that were there all along and that no ledger row covers: each run of them is archived."""
        for beyond in self._catalog.unledgered(self._topic):
            self._to.know_generation(beyond.generation)
            covered = self._catalog.coverage([self._topic]).get(beyond.partition_log, EMPTY)
            for start, stop in OffsetSet.between(beyond.start, beyond.stop) - covered:
                rows = self._catalog.select(Query(places=(beyond.within(start, stop),)))
                for one in cut((), ((offset_of(row), None) for row in rows), self._wanted.most_rows):
                    self._to.add(Batch(beyond.within(one.start, one.stop), run_id=self._wanted.run_id))

    def _cover_duplicates(self) -> None:
        """Recorded copies that no ledger row covers: those were there, too."""
        coverage = self._catalog.coverage([self._topic])
        copies = itertools.groupby(self._catalog.duplicates(self._topic), key=lambda pair: pair[0])
        for partition_log, some in copies:
            covered = coverage.get(partition_log, EMPTY)
            open_ones = ((one.offset, None) for _, one in some if one.offset not in covered)
            for start, stop, _ in cut((), open_ones, self._wanted.most_rows):
                self._to.know_generation(partition_log.generation)
                where = Slice(self._topic, partition_log.generation, partition_log.partition, start, stop)
                self._to.add(Batch(where, run_id=self._wanted.run_id))

    # --- what stays open

    def _claim(self) -> None:
        """Find out whether the newest generation is what the source has now, where there is one to ask."""
        if self._wanted.source is not None and (newest := self._rebuilt()) is not None:
            self._counts["claimed"] += claim(self._wanted.source, self._catalog, newest)

    def _rebuilt(self) -> Generation | None:
        """The newest generation, if nobody knows where it came from."""
        known = self._catalog.generations([self._topic]).get(self._topic, ())
        return known[-1] if known and known[-1].cluster_id == UNKNOWN_CLUSTER else None

    def _settle_untold(self) -> None:
        """Of generations that nothing will be read of again, holes are explained; of others they are work."""
        known = self._catalog.generations([self._topic]).get(self._topic, ())
        over = {one.number for one in known if one.cluster_id == UNKNOWN_CLUSTER}
        for partition_log, covered in self._catalog.coverage([self._topic]).items():
            for start, stop in inner_holes(covered) if partition_log.generation in over else ():
                where = Slice(*partition_log, start, stop)
                with contextlib.suppress(SliceTakenError):
                    self._catalog.commit(Batch(where, Outcome.SKIPPED, UNTOLD, run_id=self._wanted.run_id))

    # --- content that was removed

    def _removed(self, placed: Sequence[Placed]) -> frozenset[uuid.UUID]:
        """Messages whose content was removed, and whose document here still has it."""
        whole = [one.row.uuid for one in placed if one.suppressed is None]
        return self._catalog.suppressed(whole) & frozenset(whole) if whole else frozenset()

    def _note_suppressed(self, placed: Sequence[Placed]) -> None:
        by_reason: dict[str, dict[uuid.UUID, str]] = {}
        for one in placed:
            if one.suppressed is not None:
                by_reason.setdefault(one.suppressed, {})[one.row.uuid] = self._topic
        for reason, own in by_reason.items():
            self._catalog.suppress(own, reason)


def _portions(evidence: Iterable[Evidence]) -> Iterator[list[list[Evidence]]]:
    """Whole objects, some at a time: what is found of one is kept whole or not at all."""
    some: list[list[Evidence]] = []
    held = 0
    for _, parts in itertools.groupby(evidence, key=lambda one: one.info.key):
        some.append(list(parts))
        held += sum(len(part.found) for part in some[-1])
        if held >= _MOST_FOUND:
            yield some
            some, held = [], 0
    if some:
        yield some


def _fitting(evidence: Evidence, where: Slice | None) -> tuple[list[Found], list[str]]:
    """Documents that may stand where they do, and why others may not."""
    if where is None:
        return list(evidence.found), []
    found: list[Found] = []
    doubts: list[str] = []
    for one in evidence.found:
        message = one.document.message
        if message.partition == where.partition and where.start <= message.offset < where.stop:
            found.append(one)
        else:
            doubts.append(
                f"at byte {one.position}: a message of partition {message.partition}, offset {message.offset}"
            )
    return found, doubts
