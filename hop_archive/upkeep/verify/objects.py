"""Whether the archive is as its catalog says, in every direction. Changes nothing.

Each direction streams: what is held at once does not grow with the archive. The archive may go on working meanwhile:
what it may be about to mend is looked at once more before it is told, but for what ``source``
says of the very moment.
"""

from __future__ import annotations

import datetime
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from hop_archive.archive import Archive, utc_now
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Outcome, Recorded, Row
from hop_archive.errors import ObjectMissingError
from hop_archive.ingest.collector import calm_collector
from hop_archive.ingest.obstacles import obstacle
from hop_archive.ingest.plan import lost, work
from hop_archive.ingest.survey import survey
from hop_archive.ingest.truncation import prove_tails
from hop_archive.model.document import crc32, encode
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.keys import OWN_FOLDER, is_own, is_segment_key, topic_of, uuid_of
from hop_archive.model.message import TopicPartition
from hop_archive.model.progress import Progress
from hop_archive.model.query import Order, Query
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.wording import counted
from hop_archive.read.check import prove
from hop_archive.read.fetch import Fetched, fetch_checked, fetch_documents
from hop_archive.read.side_by_side import side_by_side
from hop_archive.read.status import inner_holes
from hop_archive.store.protocol import ObjectInfo, Store
from hop_archive.upkeep.verify.sent import Place, Sent, sent_received

NOT_LOOKED_AT = "not looked at"
"""What the partitions and topics are counted as that the source could not show."""

_PATIENCE_S = 6.0
"""A step of a run that failed is tried again after 5 s; another of its steps may have gone on meanwhile."""

_COUNT_EVERY = 1_000
"""Objects and rows between two looks of whoever shows how far it is."""

_SEGMENTS = "segments/"

BACKUP_GRACE_S = 900.0
"""Objects younger than this may be on their way to the backup: so long S3 takes for one in 10,000 (Amazon S3 User Guide,
"Replication Time Control")."""

GRACE_S = 3600.0
"""Objects younger than this may belong to a batch that is about to be committed."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What to verify.

    Attributes:
        catalog: What there should be.
        store: What there is.
        query: Which messages. What is not fetched is selected by topic only.
        grace_s: How old an object has to be before it counts as one that no row names.
        checked: Where to count what was looked at, for people and for ``--json``: ``objects``, ``rows``, ``messages``
            (documents fetched), ``bytes``, ``batches``, ``offsets``.
        backup: The backup of the store; None where there is none.
        backup_grace_s: How old an object has to be before its copy counts as missing there.
        now: The clock on the wall.
        sleep: How to wait.
    """

    catalog: Catalog
    store: Store
    query: Query = field(default_factory=Query)
    grace_s: float = GRACE_S
    checked: Progress = field(default_factory=Progress)
    backup: Store | None = None
    backup_grace_s: float = BACKUP_GRACE_S
    now: Callable[[], datetime.datetime] = utc_now
    sleep: Callable[[float], None] = time.sleep

    def oldest_young_ms(self, grace_s: float | None = None) -> int:
        """What was created after this moment (milliseconds since 1970) is too young to be judged.

        Args:
            grace_s: How old it has to be; None: as ``Verification.grace_s`` says.
        """
        return int((self.now().timestamp() - (self.grace_s if grace_s is None else grace_s)) * 1000)

    def topics(self) -> Sequence[str]:
        """The topics that are meant, of those that the catalog knows.

        Raises:
            ConfigurationError: A name or glob means none.
        """
        return self.query.chosen_topics(self.catalog.known_topics())


# --- catalog <-> store, by listing


def objects(wanted: Verification) -> Iterator[Finding]:
    """Compare what the catalog records with what the store lists, in both directions, without fetching anything.

    Finds ``missing_object``, ``wrong_size``, ``orphan_object``, ``foreign_object``. Objects outside of the key scheme,
    and those of topics that the catalog does not know, are looked for only where all topics are meant.
    """
    topics = set(wanted.topics())
    for topic in sorted(topics):
        for segments in (False, True):
            yield from _objects_of(wanted, topic, topics, segments=segments)
    if not wanted.query.topics:
        yield from _elsewhere(wanted, topics, wanted.oldest_young_ms())


def backup_objects(wanted: Verification) -> Iterator[Finding]:
    """Compare what the catalog records with what the backup lists; what the backup has beyond that is its own.

    Finds ``missing_object`` and ``wrong_size``, of the backup's bucket. A copy that may be on its way is not missing: one of
    an object that has not stood in the store for ``backup_grace_s`` yet. Those are counted, as "copies not due yet".
    """
    backup = wanted.backup
    assert backup is not None
    for topic, segments in itertools.product(wanted.topics(), (False, True)):
        young_ms = wanted.oldest_young_ms(wanted.backup_grace_s)
        recorded = wanted.catalog.recorded(topic, segments=segments)
        originals = _Ages(wanted.store, topic, segments=segments)
        for record, info in _joined(wanted, recorded, _listing(backup, topic, segments=segments)):
            finding = None if record is None else _compared(record, info)
            if record is None or finding is None:
                continue
            if info is None and originals.modified_ms(record.key) > young_ms:
                wanted.checked.counts["copies not due yet"] += 1
            elif _is_named(wanted, record):
                yield finding._replace(bucket=backup.bucket)


class _Ages:
    """When objects of a topic were stored, asked of in byte order of their keys.

    The store is listed from the first one that is asked of, and not at all where none is.
    """

    def __init__(self, store: Store, topic: str, *, segments: bool) -> None:
        self._store = store
        self._of = topic, segments
        self._last: ObjectInfo | None = None
        self._rest: Iterator[ObjectInfo] | None = None

    def modified_ms(self, key: str) -> int:
        """When it was stored; 0 where it is not there: then its copy is not on its way."""
        if self._rest is None:
            topic, segments = self._of
            self._rest = _listing(self._store, topic, segments=segments, start_after=key[:-1])
            self._last = next(self._rest, None)
        while self._last is not None and self._last.key < key:
            self._last = next(self._rest, None)
        return self._last.modified_ms if self._last is not None and self._last.key == key else 0


def recorded_objects(wanted: Verification, topic: str) -> Iterator[Finding]:
    """Compare the objects that a topic's rows name with what the store lists; what no row names is passed over.

    Finds ``missing_object`` and ``wrong_size``.
    """
    for segments in (False, True):
        recorded = wanted.catalog.recorded(topic, segments=segments)
        for record, info in _joined(wanted, recorded, _listing(wanted.store, topic, segments=segments)):
            finding = None if record is None else _compared(record, info)
            if record is not None and finding is not None and _still(wanted, record, finding):
                yield _with_bucket(finding, wanted.store.bucket)


def _objects_of(
    wanted: Verification, topic: str, topics: Collection[str], *, segments: bool
) -> Iterator[Finding]:
    # Taken before the rows are: what is archived while this goes on is young, however long it takes.
    young_ms = wanted.oldest_young_ms()
    recorded = wanted.catalog.recorded(topic, segments=segments)
    for record, info in _joined(wanted, recorded, _listing(wanted.store, topic, segments=segments)):
        if record is not None:
            finding = _compared(record, info)
            if finding is not None and _still(wanted, record, finding):
                yield _with_bucket(finding, wanted.store.bucket)
        elif info is not None and _is_for(info.key, topic, topics, segments=segments):
            yield from _unnamed(wanted, info, young_ms)


def _listing(store: Store, topic: str, *, segments: bool, start_after: str = "") -> Iterator[ObjectInfo]:
    """What stands in a topic's folder, less what others keep there where the topic is called as their folder is."""
    found = store.listing(f"segments/{topic}/" if segments else f"{topic}/", start_after)
    if segments or f"{topic}/" not in (_SEGMENTS, OWN_FOLDER):
        return found
    return (info for info in found if not (is_own(info.key) or is_segment_key(info.key)))


def _is_for(key: str, topic: str, topics: Collection[str], *, segments: bool) -> bool:
    """Whether this look at a topic is the one to tell of an object that no row of it names.

    Where a topic is called ``segments``, its messages of 2026 stand in the folder of the segments of a topic ``2026``;
    and what stands beside them, in folders of other topics' segments, is for the looks at those.
    """
    of = topic_of(key)
    if of is None:
        return segments or f"{topic}/" != _SEGMENTS
    return of == topic or of not in topics


def _joined(
    wanted: Verification, recorded: Iterator[Recorded], listed: Iterator[ObjectInfo]
) -> Iterator[tuple[Recorded | None, ObjectInfo | None]]:
    # The rows first: what is recorded by now is stored by then, so nothing recorded can be missing from the listing.
    first = list(itertools.islice(recorded, 1))
    counts = wanted.checked.counts
    objects = rows = 0
    last: ObjectInfo | None = None
    try:
        with calm_collector():
            for pair in side_by_side(itertools.chain(first, recorded), listed):
                record, info = pair
                if info is not None and info is not last:  # two rows of one object come with it one by one
                    last = info
                    objects += 1
                if record is not None:
                    rows += record.rows
                if objects + rows >= _COUNT_EVERY:
                    counts["objects"] += objects
                    counts["rows"] += rows
                    objects = rows = 0
                yield pair
    finally:
        counts["objects"] += objects
        counts["rows"] += rows


def _compared(record: Recorded, info: ObjectInfo | None) -> Finding | None:
    """A segment may be longer than its last document: what was found to be a copy meanwhile has no row."""
    if info is not None and (
        info.size_bytes == record.end_bytes or (record.is_segment and info.size_bytes > record.end_bytes)
    ):
        return None
    about = (record.uuid, record.bucket, record.key)
    if info is None:
        rows = "a message" if record.rows == 1 else f"{record.rows} messages"
        return Finding(
            Kind.MISSING_OBJECT, record.topic, f"{rows} should be in it, and it is not there", *about
        )
    wanted = f"{'at least ' if record.is_segment else ''}{record.end_bytes} bytes"
    return Finding(Kind.WRONG_SIZE, record.topic, f"{wanted} wanted, {info.size_bytes} found", *about)


def _with_bucket(finding: Finding, looked_in: str) -> Finding:
    """Where the catalog names another bucket than was looked in, that is most likely why: the wrong store was named."""
    if finding.bucket == looked_in:
        return finding
    return finding._replace(
        detail=f"{finding.detail} in bucket {looked_in}; the row says {finding.bucket or 'none'}"
    )


def _still(wanted: Verification, record: Recorded, finding: Finding) -> bool:
    """Whether a finding is one now, too: a row may have been removed, and its object after it, meanwhile."""
    if not _is_named(wanted, record):
        return False
    found = next((i for i in wanted.store.listing(record.key) if i.key == record.key), None)
    again = _compared(record, found)
    return again is not None and again.kind is finding.kind


def _is_named(wanted: Verification, record: Recorded) -> bool:
    """Whether the row that was first of those which name an object still does."""
    row = wanted.catalog.find(record.uuid)
    return row is not None and row.object_key == record.key


def _unnamed(wanted: Verification, info: ObjectInfo, young_ms: int) -> Iterator[Finding]:
    if is_own(info.key) or info.modified_ms > young_ms or _is_named_now(wanted, info):
        return
    topic = topic_of(info.key)
    kind = Kind.FOREIGN_OBJECT if topic is None else Kind.ORPHAN_OBJECT
    what = "no key of ours looks like this" if topic is None else "no row names it"
    bucket = wanted.store.bucket
    yield Finding(kind, topic or "", f"{what} ({info.size_bytes} bytes)", None, bucket, info.key)


def _is_named_now(wanted: Verification, info: ObjectInfo) -> bool:
    """Whether a row names the object by now: of a crashed attempt, which was completed while we looked."""
    own = uuid_of(info.key)
    row = None if own is None else wanted.catalog.find(own)
    return row is not None and row.object_key == info.key


def _elsewhere(wanted: Verification, topics: set[str], young_ms: int) -> Iterator[Finding]:
    """Objects in no folder of a topic that the catalog knows. What is in those folders is jumped over."""
    passed: str | None = ""
    while passed is not None:
        listing, passed = wanted.store.listing(start_after=passed), None
        for info in listing:
            known = _known_folder(info.key, topics)
            if known is None and topic_of(info.key) not in topics:
                wanted.checked.counts["objects"] += not is_own(info.key)
                yield from _unnamed(wanted, info, young_ms)
            elif known is None:
                continue  # of a topic called as a folder with much else is: looked at with that topic
            elif info.key < f"{known}~":  # after all that keys of ours may have there
                passed = f"{known}~"
                break


def _known_folder(key: str, topics: set[str]) -> str | None:
    first, slash, rest = key.partition("/")
    folder = f"{first}{slash}"
    if folder == _SEGMENTS:
        second = rest.partition("/")[0]
        return f"{folder}{second}/" if second in topics else None
    return folder if first in topics and slash else None


# --- catalog -> store, document by document


def documents(wanted: Verification, known: Collection[tuple[str, str]] = ()) -> Iterator[Finding]:
    """Fetch the document of each selected row and compare it with the row.

    Finds ``missing_object``, ``wrong_size``, ``corrupt_object`` (its bytes are not those that were stored) and
    ``row_differs``.

    Args:
        wanted: What to verify.
        known: Bucket and key of objects whose finding was told already: they are left out.
    """
    chosen = wanted.catalog.select(wanted.query, Order.PLACE)
    yield from of_rows(wanted, (row for row in chosen if (row.bucket, row.object_key) not in known))


def of_rows(wanted: Verification, rows: Iterable[Row]) -> Iterator[Finding]:
    """Fetch the document of each of these rows and compare it with the row; finds what ``documents`` finds."""
    with calm_collector():
        for found in fetch_checked(wanted.store, rows, prove):
            wanted.checked.counts["messages"] += 1
            wanted.checked.counts["bytes"] += len(found.body)
            if found.problems:
                yield from _still_of(wanted, found)


def _still_of(wanted: Verification, found: Fetched) -> Iterator[Finding]:
    """The finding of a row, unless the row is another one by now, or gone."""
    if wanted.catalog.find(found.row.uuid) == found.row:
        yield _about(found.row, _kind_of(found), "; ".join(found.problems))


def _kind_of(found: Fetched) -> Kind:
    """Which of the two is wrong, the object or the row: the checksum that the row has of the object tells.

    Where only that checksum differs, and the document is whole, it is the row that was changed.
    """
    row, document = found.row, found.document
    if found.error is not None:
        return Kind.MISSING_OBJECT if isinstance(found.error, ObjectMissingError) else Kind.WRONG_SIZE
    if len(found.body) != row.size_bytes:
        return Kind.WRONG_SIZE
    if crc32(found.body) == row.crc32:
        return Kind.ROW_DIFFERS
    is_whole = document is not None and len(found.problems) == 1 and encode(document) == found.body
    return Kind.ROW_DIFFERS if is_whole else Kind.CORRUPT_OBJECT


def _about(row: Row, kind: Kind, detail: str) -> Finding:
    place = None
    if row.generation is not None and row.partition is not None and row.offset is not None:
        place = Slice(row.topic, row.generation, row.partition, row.offset, row.offset + 1)
    return Finding(kind, row.topic, detail, row.uuid, row.bucket, row.object_key, place)


# --- what was sent -> store


def sent(wanted: Verification, recorded: Mapping[Place, Sent]) -> Iterator[Finding]:
    """Compare messages as they were sent with what is stored of them, or of the message that each repeats.

    Places are those of the newest generation of each topic. Holds what was recorded, and the rows of one topic of it.
    Finds ``not_archived`` and ``corrupt_object``, besides what fetching a document may find.
    """
    for topic in sorted({at.topic for at, _ in recorded}):
        standing = _standing(wanted.catalog, topic, recorded)
        for at, offset in sorted(place for place in recorded if place[0].topic == topic):
            if (at, offset) not in standing:
                yield Finding(
                    Kind.NOT_ARCHIVED, topic, f"what was sent to {at} at offset {offset} has no row"
                )
        places = list(standing)
        for place, found in zip(places, fetch_documents(wanted.store, standing.values()), strict=True):
            wanted.checked.counts["messages"] += 1
            if found.problems:
                yield from _still_of(wanted, found)
            elif found.document is not None:
                yield from _unlike(recorded[place], found)


def _standing(catalog: Catalog, topic: str, recorded: Collection[Place]) -> dict[Place, Row]:
    """The row of each place that has one, or else the row of the message that it repeats."""
    newest = max((one.number for one in catalog.generations([topic]).get(topic, ())), default=0)
    rows = ((_place(row), row) for row in catalog.rows(topic) if row.generation == newest)
    places = {place: row for place, row in rows if place in recorded}
    copies = {
        (TopicPartition(topic, at.partition), one.offset): one.uuid
        for at, one in catalog.duplicates(topic)
        if at.generation == newest
    }
    kept = {place: catalog.find(own) for place, own in copies.items() if place in recorded}
    return {
        place: row
        for place in recorded
        if place[0].topic == topic and (row := places.get(place) or kept.get(place)) is not None
    }


def _place(row: Row) -> Place:
    assert row.partition is not None
    assert row.offset is not None
    return TopicPartition(row.topic, row.partition), row.offset


def _unlike(was: Sent, found: Fetched) -> Iterator[Finding]:
    assert found.document is not None
    message = found.document.message
    content = {"key", "value", "headers"}  # a message that repeats another may have another timestamp
    unlike = [str(one) for one in sent_received(was, message) if one.field in content]
    if unlike:
        yield _about(found.row, Kind.CORRUPT_OBJECT, f"not as it was sent: {'; '.join(unlike)}")


# --- the ledger


def ledger(wanted: Verification) -> Iterator[Finding]:
    """Compare the ledger with itself, with the rows and with the summary.

    Finds ``coverage_hole`` (offsets between dealt-with ones, or with rows, that no ledger row covers),
    ``count_mismatch`` and ``lost``.
    """
    catalog = wanted.catalog
    doubtful: dict[Slice, None] = {}
    for topic in wanted.topics():
        for entry in catalog.ledger([topic]):
            wanted.checked.counts["batches"] += 1
            wanted.checked.counts["offsets"] += len(entry.slice)
            wanted.checked.counts["skipped offsets"] += (entry.outcome is Outcome.SKIPPED) * len(entry.slice)
            wanted.checked.counts["pruned offsets"] += (entry.outcome is Outcome.PRUNED) * len(entry.slice)
            if entry.outcome is Outcome.LOST:
                yield _at(Kind.LOST, entry.slice, entry.reason)
        doubtful |= dict.fromkeys(_holes(catalog, topic))
        for one in catalog.miscounts(topic):
            where = "the ledger" if one.slice is not None else "the topic's summary"
            detail = f"{one.what}: {where} says {one.said}, the rows are {one.found}"
            yield Finding(Kind.COUNT_MISMATCH, topic, detail, slice=one.slice)
    for hole in _lasting(wanted, list(doubtful)):
        yield _at(Kind.COVERAGE_HOLE, hole, "no ledger row covers these")


def _lasting(wanted: Verification, holes: Sequence[Slice]) -> Iterator[Slice]:
    """What of the holes is there a little later, too: a run may have been about to fill them."""
    if holes:
        wanted.sleep(_PATIENCE_S)
    for topic, some in itertools.groupby(holes, key=lambda hole: hole.topic):
        before = list(some)
        yield from (now for now in _holes(wanted.catalog, topic) if any(_overlap(now, was) for was in before))


def _overlap(one: Slice, other: Slice) -> bool:
    return one.partition_log == other.partition_log and one.start < other.stop and other.start < one.stop


def _at(kind: Kind, where: Slice, detail: str) -> Finding:
    return Finding(kind, where.topic, f"{counted(len(where), 'offset')}: {detail}", slice=where)


def _holes(catalog: Catalog, topic: str) -> list[Slice]:
    """Without the spaces between rows that stand beyond the coverage: those may well be absent offsets."""
    coverage = catalog.coverage([topic])
    inner = {Slice(*at, *hole) for at, covered in coverage.items() for hole in inner_holes(covered)}
    beyond = {
        Slice(*rows.partition_log, *hole)
        for rows in catalog.unledgered(topic)
        for hole in OffsetSet.between(rows.start, rows.stop) - coverage.get(rows.partition_log, EMPTY)
    }
    by_lineage: dict[PartitionLog, list[tuple[int, int]]] = {}
    for one in inner | beyond:
        by_lineage.setdefault(one.partition_log, []).append((one.start, one.stop))
    return [Slice(*at, *hole) for at, found in sorted(by_lineage.items()) for hole in OffsetSet.of(found)]


# --- source -> catalog


def source(wanted: Verification, archive: Archive) -> Iterator[Finding]:
    """Compare what Kafka holds now with the coverage. Finds ``not_archived``, and what is ``lost`` by now.

    What cannot be looked at is found, too (``no_leader``, ``not_readable``), and counted: no such look is complete. What
    arrived since the last run counts as not archived as well: right after a run there should be none. The last messages of
    the coverage are read again where the log is not proven under the leader that it has: ``log_truncated`` where Kafka holds
    others there. In a log that is proven, another message is damage of the catalog, which other looks find.
    """
    seen = survey(archive, topics_at(wanted, archive) if wanted.query.topics else None)
    yield from unseen(wanted, seen.obstacles)
    for partition_log, known in sorted(seen.knowledge.items()):
        wanted.checked.counts["offsets"] += max(0, known.watermarks.stable - known.watermarks.low)
        for start, stop in lost(known):
            yield _at(
                Kind.LOST, Slice(*partition_log, start, stop), "gone from Kafka, and not recorded as lost yet"
            )
        for start, stop in work(known):
            yield _at(Kind.NOT_ARCHIVED, Slice(*partition_log, start, stop), "Kafka holds them")
    unproven = seen.unproven()
    doubtful = {
        partition_log: known
        for partition_log, known in seen.workable().items()
        if partition_log in unproven or (known.coverage and known.watermarks.leader_epoch is None)
    }
    proof = prove_tails(archive, doubtful)
    yield from unseen(
        wanted,
        [obstacle(at.topic, why, at.partition) for at, why in sorted(proof.left.items(), key=itemgetter(0))],
    )
    for where, how in sorted(proof.other.values()):
        yield _at(Kind.LOG_TRUNCATED, where, f"{how}: the log lost its end, and the next run reads it anew")


def unseen(wanted: Verification, obstacles: Iterable[Finding]) -> Iterator[Finding]:
    """Pass on what could not be looked at, and count it."""
    for one in obstacles:
        wanted.checked.counts[NOT_LOOKED_AT] += 1
        yield one


def topics_at(wanted: Verification, archive: Archive) -> Sequence[str]:
    """The topics that are meant, whether the catalog knows them by now or not.

    A name means the topic, vetoed or not; a glob means those that are archived.
    """
    found = archive.source.topics()
    there = {*found, *found.untold}  # what could not be described is there, and a look at it says why
    plain = {name for name in there if name in wanted.query.topics}
    known = (
        {*wanted.catalog.known_topics()} | {name for name in there if archive.topics.archived(name)} | plain
    )
    return wanted.query.chosen_topics(known)
