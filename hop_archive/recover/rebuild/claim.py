"""Whether a rebuilt generation is what Kafka has now: told by content, never guessed.

To take a topic that was made anew for the archived one would skip messages unnoticed. To take the archived one for
another costs no more than reading once more what Kafka still holds: all of it is found to be copies.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Generation, Row
from hop_archive.ingest.read import read_slices
from hop_archive.model.identity import digest
from hop_archive.model.limits import Limits
from hop_archive.model.message import TopicPartition
from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive.source.protocol import Source

_WINDOW = 1_000
"""Offsets in which the last row is looked for at first."""


def claim(source: Source, catalog: Catalog, rebuilt: Generation) -> bool:
    """Say where a rebuilt generation came from, if that is proven.

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
        rows = _first_and_last(catalog, Slice(*partition_log, marks.low, stop)) if marks.low < stop else ()
        for row in rows:
            if not _is_there(source, partition_log, row):
                return False
            proven += 1
    if not proven or source.topics([topic]).get(topic) != before:
        return False
    reason = "rebuilt from the store; the topic holds the first and the last message that are archived of it"
    return catalog.claim_generation(topic, rebuilt.number, cluster_id, before.topic_id, reason)


def _first_and_last(catalog: Catalog, place: Slice) -> Iterator[Row]:
    first = [*catalog.select(Query(places=(place,), limit=1))]
    yield from first
    last: list[Row] = []
    width = _WINDOW
    while first and not last:
        window = place.within(max(place.start, place.stop - width), place.stop)
        last = [*deque(catalog.select(Query(places=(window,))), maxlen=1)]
        width *= 2
    yield from last


def _is_there(source: Source, partition_log: PartitionLog, row: Row) -> bool:
    assert row.offset is not None
    place = Slice(*partition_log, row.offset, row.offset + 1)
    with source.reader({}) as reader:
        for reading in read_slices(reader, [place], Limits(), time.monotonic):
            for message in reading.messages:
                content = digest(message.key, message.headers, message.value)
                return (message.timestamp_ms, content) == (row.timestamp_ms, row.digest)
    return False
