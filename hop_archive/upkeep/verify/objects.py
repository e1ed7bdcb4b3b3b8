"""Catalog and store, or its backup, against each other by listing both in one order. Nothing is fetched, nothing is changed.

Each look streams: what is held at once does not grow with the archive. The archive may go on working meanwhile: what it
may be about to mend is looked at once more before it is told.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hop_archive.catalog.records import Recorded
from hop_archive.ingest.collector import calm_collector
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.keys import OWN_FOLDER, is_own, is_segment_key, topic_of, uuid_of
from hop_archive.read.side_by_side import side_by_side
from hop_archive.store.protocol import ObjectInfo, Store
from hop_archive.upkeep.verify.verification import Verification

_COUNT_EVERY = 1_000
"""Objects and rows between two looks of whoever shows how far it is."""

_SEGMENTS = "segments/"


def objects(verification: Verification) -> Iterator[Finding]:
    """Compare what the catalog records with what the store lists, in both directions, without fetching anything.

    Finds ``missing_object``, ``wrong_size``, ``orphan_object``, ``foreign_object``. Objects outside of the key scheme,
    and those of topics that the catalog does not know, are looked for only where all topics are meant.
    """
    topics = set(verification.topics())
    for topic, segments in itertools.product(sorted(topics), (False, True)):
        # Taken before the rows are: what is archived while this goes on is young, however long it takes.
        young_ms = verification.oldest_young_ms()
        for record, info in _rows_and_objects(verification, verification.store, topic, segments=segments):
            finding = None
            if record is not None:
                finding = _compared(record, info)
                if finding is not None:
                    finding = _confirmed(verification, record, finding)
            elif info is not None:
                # Where a topic is called ``segments``, its messages of 2026 stand in the folder of the segments of a topic
                # ``2026``; what stands beside them, in folders of other topics' segments, is for the looks at those.
                of = topic_of(info.key)
                is_of_this_look = of == topic or of not in topics
                if of is None:
                    is_of_this_look = segments or f"{topic}/" != _SEGMENTS
                if is_of_this_look:
                    finding = _unnamed(verification, info, young_ms)
            if finding is not None:
                yield finding
    if not verification.query.topics:
        yield from _outside_of_topics(verification, topics)


def recorded_objects(verification: Verification, topic: str) -> Iterator[Finding]:
    """Compare the objects that a topic's rows name with what the store lists; what no row names is passed over.

    Finds ``missing_object`` and ``wrong_size``.
    """
    for segments in (False, True):
        for record, info in _rows_and_objects(verification, verification.store, topic, segments=segments):
            if record is None or (finding := _compared(record, info)) is None:
                continue
            if (finding := _confirmed(verification, record, finding)) is not None:
                yield finding


def backup_objects(verification: Verification) -> Iterator[Finding]:
    """Compare what the catalog records with what the backup lists; what the backup has beyond that is its own.

    Finds ``missing_object`` and ``wrong_size``, of the backup's bucket. A copy that may be on its way is not missing: one of
    an object that has not stood in the store for ``backup_grace_s`` yet. Those are counted, as "copies not due yet".
    """
    backup = verification.backup
    assert backup is not None
    for topic, segments in itertools.product(verification.topics(), (False, True)):
        young_ms = verification.oldest_young_ms(verification.backup_grace_s)
        originals = _ModificationTimes(verification.store, topic, segments=segments)
        for record, info in _rows_and_objects(verification, backup, topic, segments=segments):
            if record is None or (finding := _compared(record, info)) is None:
                continue
            if info is None and originals.modified_ms(record.key) > young_ms:
                verification.checked.counts["copies not due yet"] += 1
            elif _is_named(verification, record):
                yield finding._replace(bucket=backup.bucket)


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
    verification: Verification, store: Store, topic: str, *, segments: bool
) -> Iterator[tuple[Recorded | None, ObjectInfo | None]]:
    recorded = verification.catalog.recorded(topic, segments=segments)
    # The rows first: what is recorded by now is stored by then, so nothing recorded can be missing from the listing.
    recorded = itertools.chain(list(itertools.islice(recorded, 1)), recorded)
    counts = verification.checked.counts
    objects = rows = 0
    last: ObjectInfo | None = None
    try:
        with calm_collector():
            for pair in side_by_side(recorded, _listing(store, topic, segments=segments)):
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


def _listing(store: Store, topic: str, *, segments: bool, start_after: str = "") -> Iterator[ObjectInfo]:
    """What stands in a topic's folder, less what others keep there where the topic is called as their folder is."""
    found = store.listing(f"segments/{topic}/" if segments else f"{topic}/", start_after)
    if segments or f"{topic}/" not in (_SEGMENTS, OWN_FOLDER):
        return found
    return (info for info in found if not (is_own(info.key) or is_segment_key(info.key)))


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


def _confirmed(verification: Verification, record: Recorded, finding: Finding) -> Finding | None:
    """The finding, where it is one now, too: a row may have been removed, and its object after it, meanwhile."""
    store = verification.store
    if not _is_named(verification, record):
        return None
    again = _compared(record, next((i for i in store.listing(record.key) if i.key == record.key), None))
    if again is None or again.kind is not finding.kind:
        return None
    if finding.bucket == store.bucket:
        return finding
    # Where the catalog names another bucket than was looked in, that is most likely why: the wrong store was named.
    looked_in = f"in bucket {store.bucket}; the row says {finding.bucket or 'none'}"
    return finding._replace(detail=f"{finding.detail} {looked_in}")


def _is_named(verification: Verification, record: Recorded) -> bool:
    """Whether the row that was first of those which name an object still does."""
    row = verification.catalog.find(record.uuid)
    return row is not None and row.object_key == record.key


def _unnamed(verification: Verification, info: ObjectInfo, young_ms: int) -> Finding | None:
    if is_own(info.key) or info.modified_ms > young_ms:
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


def _outside_of_topics(verification: Verification, topics: set[str]) -> Iterator[Finding]:
    """Objects in no folder of a topic that the catalog knows. What is in those folders is jumped over."""
    young_ms = verification.oldest_young_ms()
    passed: str | None = ""
    while passed is not None:
        listing, passed = verification.store.listing(start_after=passed), None
        for info in listing:
            folder, slash, rest = info.key.partition("/")
            topic = folder
            if f"{folder}/" == _SEGMENTS and slash:
                topic = rest.partition("/")[0]
                folder = f"{folder}/{topic}"
            if not slash or topic not in topics:
                if topic_of(info.key) not in topics:
                    verification.checked.counts["objects"] += not is_own(info.key)
                    if finding := _unnamed(verification, info, young_ms):
                        yield finding
                # Else it is of a topic called as a folder with much else is: looked at with that topic.
            elif info.key < f"{folder}/~":  # after all that keys of ours may have there
                passed = f"{folder}/~"
                break
