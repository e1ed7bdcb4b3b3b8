"""Catalog and store, or its backup, against each other by listing both in one order. Nothing is fetched, nothing is changed.

Each look streams: what is held at once does not grow with the archive. The archive may go on working meanwhile: what it
may be about to mend is looked at once more before it is told.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TypeAlias

from hop_archive.catalog.checked import LAST_KEY, Look, Section
from hop_archive.catalog.records import Recorded
from hop_archive.errors import ConfigurationError, ObjectMissingError
from hop_archive.ingest.garbage_collection import fewer_collections
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.keys import OWN_FOLDER, is_own, is_segment_key, topic_of, uuid_of
from hop_archive.read.key_join import join_by_key
from hop_archive.store.protocol import ObjectInfo, Store
from hop_archive.upkeep.verify.verification import NOT_DUE, Verification

Step: TypeAlias = tuple[str, Finding | None, int]
"""Up to which key all was looked at, what is wrong there, and what it took, as ``REQUEST`` counts it."""

ROWS_IN_A_STEP = 20
"""Rows that are counted in the time that it takes to compare an object with its rows, about."""

REQUEST = 500
"""What asking for the first objects takes, in objects that are listed with others; or looking at a page of rows that name none."""

_COUNT_EVERY = 1_000
"""Objects and rows between two looks of whoever shows how far it is."""

_ASKED_TOGETHER = 500

_SEGMENTS = "segments/"


def objects(verification: Verification, took: dict[Section, int] | None = None) -> Iterator[Finding]:
    """Compare what the catalog records with what the store lists, in both directions, without fetching anything.

    Finds ``missing_object``, ``wrong_size``, ``orphan_object``, ``foreign_object``. What no row names and is younger than
    ``grace_s`` is no orphan yet: those are counted, as "objects too young to judge"; so are those that wait for the readers of
    before their documents were moved, as "objects waiting to be deleted". Objects outside of the key scheme,
    and those of topics that the catalog does not know, are looked for only where all topics are meant. ``took`` is given what
    each section took.
    """
    yield from not_waiting(verification, _compare(verification, took))


def not_waiting(verification: Verification, findings: Iterable[Finding]) -> Iterator[Finding]:
    """All but objects that no row names and that are to be deleted later, when nobody can be reading them any more."""
    unnamed: list[Finding] = []
    for finding in findings:
        if finding.kind is not Kind.ORPHAN_OBJECT:
            yield finding
            continue
        unnamed.append(finding)
        if len(unnamed) == _ASKED_TOGETHER:
            yield from _not_waiting(verification, unnamed)
            unnamed = []
    yield from _not_waiting(verification, unnamed)


def _not_waiting(verification: Verification, orphans: Sequence[Finding]) -> Iterator[Finding]:
    if not orphans:
        return
    keys = [finding.object_key for finding in orphans]
    waiting = verification.catalog.waiting_keys(verification.store.bucket, keys)
    verification.checked.counts["objects waiting to be deleted"] += len(waiting)
    yield from (finding for finding in orphans if finding.object_key not in waiting)


def _compare(verification: Verification, took: dict[Section, int] | None) -> Iterator[Finding]:
    bucket = verification.store.bucket
    topics = set(verification.topics())
    for topic, segments in itertools.product(sorted(topics), (False, True)):
        steps = objects_of(verification, topics, topic, segments=segments)
        yield from found_in(steps, Section(bucket, topic, look_at(segments=segments)), took)
    if not verification.query.topics:
        yield from found_in(outside_of_topics(verification, topics), Section(bucket, "", Look.OUTSIDE), took)


def found_in(steps: Iterable[Step], section: Section, took: dict[Section, int] | None) -> Iterator[Finding]:
    """What is found in all steps of a section; afterwards ``took`` is given what it took."""
    total = 0
    for _, finding, more in steps:
        total += more
        if finding is not None:
            yield finding
    if took is not None:
        took[section] = total


def look_at(*, segments: bool) -> Look:
    """What looks at segments, or at objects of one document."""
    return Look.SEGMENTS if segments else Look.ALONE


def _took(record: Recorded | None, info: ObjectInfo | None) -> int:
    """What it takes to compare them; rows of a segment are read, too."""
    if record is None:
        return REQUEST if info is None else 1
    return 1 + record.rows // ROWS_IN_A_STEP


def objects_of(
    verification: Verification, topics: Collection[str], topic: str, *, segments: bool, after: str = ""
) -> Iterator[Step]:
    """Compare a topic's objects whose keys come after one, those of one document or its segments, with its rows.

    Args:
        verification: Counts what is looked at.
        topics: All whose objects are looked at: what stands in a topic's folder and is of another one of them is for its look.
        topic: Which.
        segments: Which of its objects.
        after: Only what has a greater key; '' for all.
    """
    # Taken before the rows are: what is archived while this goes on is young, however long it takes.
    young_ms = verification.oldest_young_ms()
    pairs = _rows_and_objects(verification, verification.store, topic, segments=segments, after=after)
    for key, record, info in pairs:
        finding, took = None, _took(record, info)
        if record is not None:
            finding = compared(record, info)
            if finding is not None:
                finding = confirmed(verification, record, finding)
        elif info is not None:
            # Where a topic is called ``segments``, its messages of 2026 stand in the folder of the segments of a topic
            # ``2026``; what stands beside them, in folders of other topics' segments, is for the looks at those.
            of = topic_of(info.key)
            is_of_this_look = of == topic or of not in topics
            if of is None:
                is_of_this_look = segments or f"{topic}/" != _SEGMENTS
            if is_of_this_look:
                finding = _unnamed(verification, info, young_ms)
        yield key, finding, took


def recorded_objects(verification: Verification, topic: str) -> Iterator[Finding]:
    """Compare the objects that a topic's rows name with what the store lists; what no row names is passed over.

    Finds ``missing_object`` and ``wrong_size``.
    """
    for segments in (False, True):
        for _, record, info in _rows_and_objects(verification, verification.store, topic, segments=segments):
            if record is None or (finding := compared(record, info)) is None:
                continue
            if (finding := confirmed(verification, record, finding)) is not None:
                yield finding


def backup_objects(verification: Verification, took: dict[Section, int] | None = None) -> Iterator[Finding]:
    """Compare what the catalog records with what the backup lists; what the backup has beyond that is its own.

    Finds ``missing_object`` and ``wrong_size``, of the backup's bucket. A copy that may be on its way is not missing: one of
    an object that has not stood in the store for ``backup_grace_s`` yet. Those are counted, as "copies not due yet". ``took``
    is given what each section took.
    """
    backup = verification.backup
    if backup is None:
        raise ConfigurationError(
            f"Store {verification.store.name} has no backup_bucket.",
            remedy="Name it in the store's stanza, or leave --direction backup out.",
        )
    backup.check()
    for topic, segments in itertools.product(verification.topics(), (False, True)):
        steps = copies_of(verification, backup, topic, segments=segments)
        yield from found_in(steps, Section(backup.bucket, topic, look_at(segments=segments)), took)


def copies_of(
    verification: Verification, backup: Store, topic: str, *, segments: bool, after: str = ""
) -> Iterator[Step]:
    """As ``objects_of``, of a backup, and only of what rows name; copies that are not due yet are counted, and no finding."""
    young_ms = verification.oldest_young_ms(verification.backup_grace_s)
    originals = _ModificationTimes(verification.store, topic, segments=segments)
    folder = f"segments/{topic}/" if segments else f"{topic}/"
    for key, record, info in _rows_and_objects(verification, backup, topic, segments=segments, after=after):
        if record is not None and info is None and not record.key.startswith(folder):
            info = at(backup, record.key)
        took = _took(record, info)
        finding = None if record is None else compared(record, info)
        if record is not None and finding is not None:
            if info is None and originals.modified_ms(record.key) > young_ms:
                verification.checked.counts[NOT_DUE] += 1
                finding = None
            else:
                finding = finding._replace(bucket=backup.bucket) if is_named(verification, record) else None
        yield key, finding, took


class _ModificationTimes:
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


def _rows_and_objects(
    verification: Verification, store: Store, topic: str, *, segments: bool, after: str = ""
) -> Iterator[tuple[str, Recorded | None, ObjectInfo | None]]:
    """Rows and objects with the same key together, or alone, in order; and the key up to which all has come by then."""
    recorded = verification.catalog.recorded(topic, segments=segments, after=after)
    # The rows first: what is recorded by now is stored by then, so nothing recorded can be missing from the listing.
    recorded = itertools.chain(list(itertools.islice(recorded, 1)), recorded)
    misnamed: list[Recorded] = []
    if segments:
        recorded = _in_order(recorded, f"segments/{topic}/", misnamed)
    counts = verification.checked.counts
    listed = _listing(store, topic, segments=segments, start_after=after)
    objects = rows = 0
    last: ObjectInfo | None = None
    try:
        with fewer_collections():
            key = after
            for record, info in join_by_key(recorded, listed):
                while misnamed:
                    rows += misnamed[-1].rows
                    yield key, misnamed.pop(), None
                key = info.key if record is None and info is not None else record.key if record else key
                if record is not None and not record.rows:
                    record = None
                if info is not None and info is not last:  # two rows of one object come with it one by one
                    last = info
                    objects += 1
                if record is not None:
                    rows += record.rows
                if objects + rows >= _COUNT_EVERY:
                    counts["objects"] += objects
                    counts["rows"] += rows
                    objects = rows = 0
                yield key, record, info
            for record in misnamed:
                yield key, record, None
    finally:
        counts["objects"] += objects
        counts["rows"] += rows


def _in_order(recorded: Iterable[Recorded], folder: str, misnamed: list[Recorded]) -> Iterator[Recorded]:
    """Pass on what comes in order of keys in a folder; what does not, which only damage makes, is put into ``misnamed``."""
    last = folder
    for record in recorded:
        if record.key >= last and record.key.startswith(folder):
            last = record.key
            yield record
        else:
            misnamed.append(record)


def _listing(store: Store, topic: str, *, segments: bool, start_after: str = "") -> Iterator[ObjectInfo]:
    """What stands in a topic's folder, less what others keep there where the topic is called as their folder is."""
    folder = f"segments/{topic}/" if segments else f"{topic}/"
    found = store.listing(folder, start_after) if start_after <= folder + LAST_KEY else iter(())
    if segments or f"{topic}/" not in (_SEGMENTS, OWN_FOLDER):
        return found
    return (info for info in found if not (is_own(info.key) or is_segment_key(info.key)))


def compared(record: Recorded, info: ObjectInfo | None) -> Finding | None:
    """What is wrong with an object that rows name; None where nothing is.

    A segment may be longer than its last document: what was found to be a copy meanwhile has no row.
    """
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


def confirmed(verification: Verification, record: Recorded, finding: Finding) -> Finding | None:
    """The finding, where it is one now, too: a row may have been removed, and its object after it, meanwhile."""
    store = verification.store
    if not is_named(verification, record):
        return None
    again = compared(record, at(store, record.key))
    if again is None or again.kind is not finding.kind:
        return None
    if again.kind is Kind.MISSING_OBJECT and _is_readable(store, record.key):
        return None
    if finding.bucket == store.bucket:
        return finding
    # Where the catalog names another bucket than was looked in, that is most likely why: the wrong store was named.
    looked_in = f"in bucket {store.bucket}; the row says {finding.bucket or 'none'}"
    return finding._replace(detail=f"{finding.detail} {looked_in}")


def at(store: Store, key: str) -> ObjectInfo | None:
    """The object of this key, if it is there."""
    return next((info for info in store.listing(key) if info.key == key), None)


def _is_readable(store: Store, key: str) -> bool:
    """Whether it is there though it is not listed: listings of some servers lag behind."""
    try:
        store.etag(key)
    except ObjectMissingError:
        return False
    return True


def is_named(verification: Verification, record: Recorded) -> bool:
    """Whether the row that was first of those which name an object still does."""
    row = verification.catalog.find(record.uuid)
    return row is not None and row.object_key == record.key


def _unnamed(verification: Verification, info: ObjectInfo, young_ms: int) -> Finding | None:
    if is_own(info.key):
        return None
    if info.modified_ms > young_ms:
        verification.checked.counts["objects too young to judge"] += 1
        return None
    # By now a row may name it: of a crashed attempt, which was completed while we looked.
    message_uuid = uuid_of(info.key)
    row = None if message_uuid is None else verification.catalog.find(message_uuid)
    if row is not None and row.object_key == info.key:
        return None
    topic = topic_of(info.key)
    kind = Kind.FOREIGN_OBJECT if topic is None else Kind.ORPHAN_OBJECT
    what = "no key of ours looks like this" if topic is None else "no row names it"
    detail = f"{what} ({info.size_bytes} bytes)"
    return Finding(kind, topic or "", detail, None, verification.store.bucket, info.key)


def outside_of_topics(verification: Verification, topics: Collection[str], after: str = "") -> Iterator[Step]:
    """Look for objects in no folder of a topic that the catalog knows. What is in those folders is jumped over."""
    young_ms = verification.oldest_young_ms()
    passed: str | None = after
    while passed is not None:
        listing, passed = verification.store.listing(start_after=passed), None
        for info in listing:
            folder, slash, rest = info.key.partition("/")
            topic = folder
            if f"{folder}/" == _SEGMENTS and slash:
                topic = rest.partition("/")[0]
                folder = f"{folder}/{topic}"
            if not slash or topic not in topics:
                finding = None
                if topic_of(info.key) not in topics:
                    verification.checked.counts["objects"] += not is_own(info.key)
                    finding = _unnamed(verification, info, young_ms)
                # Else it is of a topic called as a folder with much else is: looked at with that topic.
                yield info.key, finding, 1
            elif info.key < f"{folder}/~":  # after all that keys of ours may have there
                passed = f"{folder}/~"
                yield passed, None, REQUEST
                break
