"""What the store has and the catalog lacks, by listing: nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Miscount, Recorded
from hop_archive.errors import ConfigurationError
from hop_archive.model.keys import is_segment_key, slice_of, topic_of
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.topics import matches
from hop_archive.read.side_by_side import side_by_side
from hop_archive.store.protocol import ObjectInfo, Store

_YEAR = re.compile(r"-?\d+")


class TopicPlan(NamedTuple):
    """What there is to do for one topic.

    Attributes:
        topic: Which.
        objects: Objects under keys of ours.
        to_read: Those whose messages the catalog may lack.
        bytes_to_read: Their bytes.
    """

    topic: str
    objects: int
    to_read: int
    bytes_to_read: int


@dataclass(slots=True)
class ListingCounts:
    """What was met in listing a topic; counts only grow."""

    objects: int = 0
    to_read: int = 0
    bytes_to_read: int = 0


def stored_topics(store: Store, patterns: Sequence[str] = ()) -> list[str]:
    """The topics of which the store has objects under keys of ours, sorted; a listing that jumps over folders.

    Args:
        store: Where to look.
        patterns: Names or globs, any of which; empty: all.

    Raises:
        ConfigurationError: A pattern means none.
    """
    found = {name for name in _folders(store, "") if _has_messages(store, name)}
    found |= {name for name in _folders(store, "segments/") if _has_segments(store, name)}
    for pattern in patterns:
        if not any(matches(topic, (pattern,)) for topic in found):
            raise ConfigurationError(
                f"Store {store.name} has no messages of a topic {pattern}.", topic=pattern, store=store.name
            )
    return sorted(topic for topic in found if not patterns or matches(topic, patterns))


def plan(catalog: Catalog, store: Store, topics: Sequence[str]) -> Iterator[TopicPlan]:
    """What would be read, topic by topic; changes nothing."""
    for topic in topics:
        listed = ListingCounts()
        for _ in lacking(catalog, store, topic, listed):
            pass
        yield TopicPlan(topic, listed.objects, listed.to_read, listed.bytes_to_read)


def lacking(catalog: Catalog, store: Store, topic: str, listed: ListingCounts) -> Iterator[ObjectInfo]:
    """The objects of a topic whose messages the catalog may lack, in byte order of keys; those alone first.

    An object whose rows are there, to its last byte and with the ledger's numbers, is not read again.
    """
    state = _State.of(catalog, topic)
    for segments in (False, True):
        prefix = f"segments/{topic}/" if segments else f"{topic}/"
        infos = (i for i in store.listing(prefix) if _is_of(i.key, topic, segments=segments))
        done = ""
        for record, info in side_by_side(catalog.recorded(topic, segments=segments), infos):
            if info is None:
                continue
            if done != info.key:
                listed.objects += 1
            if done != info.key and (record is None or not state.has(record, info)):
                listed.to_read += 1
                listed.bytes_to_read += info.size_bytes
                yield info
            done = info.key


@dataclass(frozen=True, slots=True)
class _State:
    """What the ledger says of a topic."""

    coverage: dict[PartitionLog, OffsetSet]
    miscounts: list[Slice] = field(default_factory=list)

    @classmethod
    def of(cls, catalog: Catalog, topic: str) -> _State:
        wrong = [one.slice for one in catalog.miscounts(topic) if _is_of_ledger(one)]
        return cls(dict(catalog.coverage([topic])), [one for one in wrong if one is not None])

    def has(self, record: Recorded, info: ObjectInfo) -> bool:
        if record.end_bytes != info.size_bytes:
            return False
        where = slice_of(info.key)
        return where is None or self._accounts_for(where)

    def _accounts_for(self, where: Slice) -> bool:
        if where.offsets - self.coverage.get(where.partition_log, EMPTY):
            return False
        return not any(
            w.partition_log == where.partition_log and w.offsets & where.offsets for w in self.miscounts
        )


def _is_of_ledger(one: Miscount) -> bool:
    return one.slice is not None


def _is_of(key: str, topic: str, *, segments: bool) -> bool:
    return topic_of(key) == topic and is_segment_key(key) == segments


def _folders(store: Store, prefix: str) -> Iterator[str]:
    """The names of folders right below a prefix, each once; what is in them is jumped over."""
    passed: str | None = ""
    seen = ""
    while passed is not None:
        listing, passed = store.listing(prefix, passed), None
        for info in listing:
            name, slash, _ = info.key.removeprefix(prefix).partition("/")
            if not slash:
                continue
            if name != seen:
                yield name
                seen = name
            if info.key < f"{prefix}{name}/~":  # after all that keys of ours may have there
                passed = f"{prefix}{name}/~"
                break


def _has_messages(store: Store, topic: str) -> bool:
    """Whether there are documents alone; looked for in years, for a topic may be called as a folder with much else is."""
    return any(
        _is_of(info.key, topic, segments=False)
        for name in _folders(store, f"{topic}/")
        if _YEAR.fullmatch(name)
        for info in store.listing(f"{topic}/{name}/")
    )


def _has_segments(store: Store, topic: str) -> bool:
    return any(_is_of(info.key, topic, segments=True) for info in store.listing(f"segments/{topic}/"))
