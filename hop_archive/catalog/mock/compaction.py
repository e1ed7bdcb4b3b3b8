"""The part of the mock catalog that lets documents move into fewer objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter

from hop_archive.catalog.compaction import Compacted, ObjectShare
from hop_archive.catalog.mock.removals import MockRemovals, strike_out_made
from hop_archive.catalog.records import Correction, Removal, Row
from hop_archive.catalog.refusals import about_to_be_deleted, moved_meanwhile
from hop_archive.model.slices import PartitionLog, Slice


class MockCompaction(MockRemovals):
    """The part of a mock catalog for compaction."""

    def objects_in(self, place: Slice, most: int) -> Sequence[ObjectShare]:
        with self._state.read() as tables:
            rows = sorted(tables.rows_in(place), key=attrgetter("offset"))[:most]
        found: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            found.setdefault((row.bucket, row.object_key), []).append(row)
        return [_share(some) for some in found.values()]

    def move_documents(self, moves: Sequence[Correction], removal: Removal) -> None:
        with self._state.change() as tables:
            for was, _ in moves:
                row = tables.rows.get(was.uuid)
                if row is None or _document(row) != _document(was):
                    raise moved_meanwhile(self._named, was.topic)
            bucket, key = moves[0].was.bucket, moves[0].now.object_key
            pending = tables.condemned.get((bucket, key))
            if pending is not None and pending.reason != removal.reason:
                raise about_to_be_deleted(key, bucket)
            strike_out_made(tables, bucket, key, removal)
            for was, now in moves:
                tables.rows[was.uuid] = tables.rows[was.uuid]._replace(
                    object_key=now.object_key,
                    position=now.position,
                    frame=now.frame,
                    frame_size=now.frame_size,
                )
            self.note_pending(tables, {(was.bucket, was.object_key) for was, _ in moves}, removal)
            at = moves[0].was.slice
            assert at is not None
            before = tables.compacted.get(at.partition_log, Compacted(at.partition_log))
            tables.compacted[at.partition_log] = before._replace(moves=before.moves + 1)

    def compacted(self, topics: Collection[str] | None = None) -> Mapping[PartitionLog, Compacted]:
        with self._state.read() as tables:
            return {
                at: known for at, known in tables.compacted.items() if topics is None or at.topic in topics
            }

    def note_compacted(self, at: PartitionLog, *, done_to: int, looked_to: int) -> None:
        with self._state.change() as tables:
            before = tables.compacted.get(at, Compacted(at))
            tables.compacted[at] = before._replace(
                done_to=max(done_to, before.done_to), looked_to=max(looked_to, before.looked_to)
            )


def _share(rows: Sequence[Row]) -> ObjectShare:
    ends = [row.frame + (row.frame_size or 0) for row in rows if row.frame is not None]
    size_bytes = sum(row.size_bytes for row in rows)
    offsets = [row.offset for row in rows if row.offset is not None]
    stored_bytes = max(ends, default=size_bytes)
    newest_ms = max(row.timestamp_ms for row in rows)
    names = (rows[0].object_key, rows[0].bucket)
    return ObjectShare(*names, len(rows), size_bytes, stored_bytes, offsets[0], offsets[-1], newest_ms)


def _document(row: Row) -> tuple[object, ...]:
    """What a row says of where its document is, and which bytes those are."""
    return (
        row.slice,
        row.bucket,
        row.object_key,
        row.position,
        row.frame,
        row.frame_size,
        row.size_bytes,
        row.crc32,
    )
