"""What the store has and the catalog lacks, by listing: nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hop_archive.catalog.protocol import Catalog
from hop_archive.errors import ConfigurationError
from hop_archive.model.keys import is_segment_key, slice_of, topic_of
from hop_archive.model.slices import EMPTY
from hop_archive.model.topics import matches
from hop_archive.read.key_join import join_by_key
from hop_archive.store.protocol import ObjectInfo, Store

_YEAR = re.compile(r"-?\d+")


@dataclass(slots=True)
class TopicPlan:
    """What there is to do for one topic; counts only grow while it is listed.

    Attributes:
        objects: Objects under keys of ours.
        to_read: Those whose messages the catalog may lack.
        bytes_to_read: Their bytes.
    """

    topic: str
    objects: int = 0
    to_read: int = 0
    bytes_to_read: int = 0


def stored_topics(store: Store, patterns: Sequence[str] = ()) -> list[str]:
    """The topics, of those that names or globs mean, of which the store has objects under keys of ours; sorted.

    Without patterns all. Lists, and jumps over folders.

    Raises:
        ConfigurationError: A pattern means none.
    """
    # Documents alone are looked for in years, for a topic may be called as a folder with much else is.
    found = {
        topic
        for topic in _folders(store, "")
        if any(
            _is_of(info.key, topic, segments=False)
            for name in _folders(store, f"{topic}/")
            if _YEAR.fullmatch(name)
            for info in store.listing(f"{topic}/{name}/")
        )
    }
    found |= {
        topic
        for topic in _folders(store, "segments/")
        if any(_is_of(info.key, topic, segments=True) for info in store.listing(f"segments/{topic}/"))
    }
    for pattern in patterns:
        if not any(matches(topic, (pattern,)) for topic in found):
            raise ConfigurationError(
                f"Store {store.name} has no messages of a topic {pattern}.", topic=pattern, store=store.name
            )
    return sorted(topic for topic in found if not patterns or matches(topic, patterns))


def plan(catalog: Catalog, store: Store, topics: Sequence[str]) -> Iterator[TopicPlan]:
    """What would be read, topic by topic; changes nothing."""
    for topic in topics:
        planned = TopicPlan(topic)
        for _ in lacking(catalog, store, planned):
            pass
        yield planned


def lacking(catalog: Catalog, store: Store, listed: TopicPlan) -> Iterator[ObjectInfo]:
    """The objects of ``listed.topic`` whose messages the catalog may lack, in byte order of keys; those alone first.

    An object whose rows are there, to its last byte and with the ledger's numbers, is not read again.
    """
    topic = listed.topic
    miscounted = [miscount.slice for miscount in catalog.miscounts(topic) if miscount.slice is not None]
    coverage = catalog.coverage([topic])
    for segments in (False, True):
        prefix = f"segments/{topic}/" if segments else f"{topic}/"
        infos = (i for i in store.listing(prefix) if _is_of(i.key, topic, segments=segments))
        done = ""
        for record, info in join_by_key(catalog.recorded(topic, segments=segments), infos):
            if info is None or info.key == done:
                continue
            done = info.key
            listed.objects += 1
            where = slice_of(done)
            is_there = record is not None and record.end_bytes == info.size_bytes
            is_counted = where is None or not (
                where.offsets - coverage.get(where.partition_log, EMPTY)
                or any(
                    s.partition_log == where.partition_log and s.offsets & where.offsets for s in miscounted
                )
            )
            if not (is_there and is_counted):
                listed.to_read += 1
                listed.bytes_to_read += info.size_bytes
                yield info


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
