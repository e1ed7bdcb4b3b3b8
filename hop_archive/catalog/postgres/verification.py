"""What verification found, and what it looked at and when, in Postgres."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import psycopg

from hop_archive.catalog.checked import (
    CheckedRange,
    CheckedScope,
    Look,
    Section,
    VerifiedRange,
    VerifiedShare,
    with_checked,
)
from hop_archive.catalog.ledger import with_verified
from hop_archive.catalog.postgres.session import Session, Tuple, listed, transaction
from hop_archive.catalog.postgres.sql import IN_LOG, ROW_COLUMNS
from hop_archive.catalog.records import Row
from hop_archive.model.findings import ACCEPTED, Finding, FindingRecord, Kind, OpenCount, distinct, remembered
from hop_archive.model.slices import Slice

_PAGE = 1_000

_WANTED = """
    unnest(%(kinds)s::text[], %(topics)s::text[], %(generations)s::int[], %(partitions)s::int[], %(offsets)s::text[],
           %(uuids)s::uuid[], %(buckets)s::text[], %(keys)s::text[], %(details)s::text[])
    WITH ORDINALITY AS given (kind, topic, generation, partition, offsets, uuid, bucket, key, detail, number)
"""

ACCEPTED_ONES = f"""
    SELECT number FROM {_WANTED}
    WHERE (
        SELECT CASE WHEN given.offsets IS NULL THEN count(*) > 0
                    ELSE coalesce(range_agg(f.offsets) @> given.offsets::int8range, false) END
        FROM findings AS f
        WHERE f.topic = given.topic AND f.kind = given.kind AND f.resolution LIKE %(accepted)s
              AND f.uuid IS NOT DISTINCT FROM given.uuid AND coalesce(f.bucket, '') = given.bucket
              AND coalesce(f.key, '') = given.key
              AND (f.generation, f.partition) IS NOT DISTINCT FROM (given.generation, given.partition)
    )
"""
"""Index: findings_topic_idx. Ledger rows merge: what was accepted slice by slice is accepted as one, too."""

NOTE = f"""
    INSERT INTO findings (kind, topic, generation, partition, offsets, uuid, bucket, key, detail, first_seen, last_seen)
    SELECT kind, topic, generation, partition, offsets::int8range, uuid, bucket, key,
           jsonb_build_object('text', detail), %(at)s, %(at)s
    FROM {_WANTED} WHERE number <> ALL(%(left_out)s::bigint[]) ORDER BY number
    ON CONFLICT (kind, topic, coalesce(uuid::text, ''), coalesce(bucket, ''), coalesce(key, ''),
                 coalesce(generation, 0), coalesce(partition, 0), coalesce(offsets, 'empty'))
        WHERE resolved_at IS NULL AND kind <> 'uuid_collision'
    DO UPDATE SET last_seen = greatest(findings.last_seen, EXCLUDED.last_seen), detail = EXCLUDED.detail
"""
"""Index: findings_open_idx. Given in the order of that index, so that two who note the same wait in turn."""

FINDINGS = """
    SELECT id, kind, topic, generation, partition, lower(offsets), upper(offsets), uuid, coalesce(bucket, ''),
           coalesce(key, ''), coalesce(detail ->> 'text', detail::text), first_seen, last_seen, resolved_at, resolution
    FROM findings
    WHERE kind <> 'uuid_collision' AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
          AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s)) AND (NOT %(open_only)s OR resolved_at IS NULL)
          AND id > %(after)s
    ORDER BY id LIMIT %(limit)s
"""
"""Index: findings_pkey, a page at a time: nothing is held open while findings are being mended."""

OPEN = """
    SELECT topic, kind, count(*), min(first_seen) FROM findings
    WHERE resolved_at IS NULL AND kind <> 'uuid_collision' AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
    GROUP BY topic, kind ORDER BY topic COLLATE "C", kind
"""
"""Index: findings_open_idx, which holds open ones only."""

RESOLVE = """
    UPDATE findings SET resolved_at = %(at)s, resolution = %(how)s
    WHERE id = ANY(%(numbers)s::bigint[]) AND resolved_at IS NULL AND kind <> 'uuid_collision'
"""
"""Index: findings_pkey."""

CLOSE_UNSEEN = """
    UPDATE findings SET resolved_at = %(at)s, resolution = %(how)s
    WHERE resolved_at IS NULL AND kind <> 'uuid_collision' AND kind = ANY(%(kinds)s::text[])
          AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
          AND (%(bucket)s = '' OR bucket = %(bucket)s) AND (%(not_bucket)s = '' OR bucket IS DISTINCT FROM %(not_bucket)s)
          AND coalesce(key, '') <> ALL(%(spared)s::text[]) AND last_seen < %(since)s
          AND (NOT %(of_no_message)s OR uuid IS NULL)
          AND (%(young_since)s::timestamptz IS NULL OR first_seen < %(young_since)s)
          AND (%(after)s::text IS NULL OR (coalesce(key, '') COLLATE "C" > %(after)s AND coalesce(key, '') COLLATE "C" <= %(through)s))
"""
"""Index: findings_open_idx, which holds open ones only."""

VERIFIED = """
    SELECT topic, generation, partition, start, stop, verified_at FROM verified
    WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
    ORDER BY topic COLLATE "C", generation, partition, start
"""
"""Index: verified_pkey, for some topics."""

TOUCHING = f"""
    DELETE FROM verified
    WHERE {IN_LOG} AND start <= %(stop)s AND stop >= %(start)s
    RETURNING topic, generation, partition, start, stop, verified_at
"""
"""Index: verified_pkey."""

ADD_VERIFIED = """
    INSERT INTO verified (topic, generation, partition, start, stop, verified_at) VALUES (%s, %s, %s, %s, %s, %s)
"""
"""Index: verified_pkey."""

CHECKED = """
    SELECT bucket, topic, look, after, through, checked_at, took FROM checked
    WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
    ORDER BY bucket COLLATE "C", topic COLLATE "C", look, after
"""
"""Index: none is needed: some rows a topic."""

CHECKED_IN_THE_WAY = """
    DELETE FROM checked
    WHERE bucket = %s AND topic = %s AND look = %s AND after <= %s AND through >= %s
    RETURNING after, through, checked_at, took
"""
"""Index: checked_pkey."""

ADD_CHECKED = """
    INSERT INTO checked (bucket, topic, look, after, through, checked_at, took) VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
"""Index: checked_pkey."""

SHARES = """
    WITH ledger AS (
        SELECT topic, generation, partition, range_agg(offsets) AS covered FROM batches
        WHERE outcome = 'archived' AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
        GROUP BY topic, generation, partition
    ), seen AS (
        SELECT topic, generation, partition, range_agg(int8range(start, stop)) AS done, min(verified_at) AS oldest
        FROM verified WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
        GROUP BY topic, generation, partition
    )
    SELECT topic, sum(every.size)::bigint, sum(never.size)::bigint, min(oldest)
    FROM ledger LEFT JOIN seen USING (topic, generation, partition),
         LATERAL (SELECT coalesce(sum(upper(r) - lower(r)), 0) AS size FROM unnest(covered) AS r) AS every,
         LATERAL (SELECT coalesce(sum(upper(r) - lower(r)), 0) AS size
                  FROM unnest(covered - coalesce(done, '{}'::int8multirange)) AS r) AS never
    GROUP BY topic ORDER BY topic COLLATE "C"
"""
"""Index: batches_lineage_idx and verified_pkey, for some topics."""

ADOPTED_ROWS = f"""
    SELECT {ROW_COLUMNS} FROM messages
    WHERE topic = %s AND digest IS NULL AND timestamp >= %s ORDER BY timestamp
"""
"""Index: messages_adopted_idx, in its order."""


class PostgresVerification(Session):
    """The part of a catalog in Postgres that remembers findings, and when what was verified."""

    def note_findings(self, findings: Sequence[Finding], seen_at: datetime.datetime) -> Sequence[bool]:
        if not findings:
            return []
        once = sorted(distinct(findings), key=_order)
        columns = [
            {
                "kinds": finding.kind.value,
                "topics": finding.topic,
                "generations": where.generation if (where := finding.slice) else None,
                "partitions": where.partition if where else finding.partition,
                "offsets": f"[{where.start},{where.stop})" if where else None,
                "uuids": finding.uuid,
                "buckets": finding.bucket,
                "keys": finding.object_key,
                "details": finding.detail.replace("\0", "?"),  # which Postgres takes in no text
            }
            for finding in once
        ]
        given: dict[str, Any] = {name: [cells[name] for cells in columns] for name in columns[0]}
        accepted = self._note(given, seen_at)
        closed = {once[number - 1]._replace(detail="") for number in accepted}
        return [remembered(finding)._replace(detail="") not in closed for finding in findings]

    @transaction
    def _note(
        self, connection: psycopg.Connection, given: dict[str, Any], seen_at: datetime.datetime
    ) -> list[int]:
        """Note what was not accepted before; the numbers, from 1, of what was."""
        accepted = connection.execute(ACCEPTED_ONES, {**given, "accepted": f"{ACCEPTED}%"}).fetchall()
        numbers = [number for (number,) in accepted]
        connection.execute(NOTE, {**given, "at": seen_at, "left_out": numbers})
        return numbers

    def findings(
        self,
        topics: Collection[str] | None = None,
        kinds: Collection[Kind] | None = None,
        *,
        open_only: bool = True,
        limit: int | None = None,
    ) -> Iterator[FindingRecord]:
        """A page at a time."""
        values = {"topics": listed(topics), "kinds": _values(kinds), "open_only": open_only}
        after, left = 0, limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = self._fetch(FINDINGS, {**values, "after": after, "limit": size})
            for number, kind, topic, generation, partition, start, stop, *described in page:
                message_uuid, bucket, key, detail, *when = described
                where = None if start is None else Slice(topic, generation, partition, start, stop)
                alone = partition if where is None else None
                finding = Finding(Kind(kind), topic, detail, message_uuid, bucket, key, where, alone)
                yield FindingRecord(number, finding, *when)
            if len(page) < size:
                return
            after, left = page[-1][0], None if left is None else left - len(page)

    def open_findings(self, topics: Collection[str] | None = None) -> Sequence[OpenCount]:
        found = self._fetch(OPEN, {"topics": listed(topics)})
        return [OpenCount(topic, Kind(kind), count, since) for topic, kind, count, since in found]

    def resolve_findings(self, numbers: Collection[int], how: str, at: datetime.datetime) -> int:
        return self._execute(RESOLVE, {"numbers": list(numbers), "how": how, "at": at})

    def close_unseen(self, scope: CheckedScope, how: str, at: datetime.datetime) -> int:
        values = {
            "kinds": _values(scope.kinds),
            "topics": listed(scope.topics),
            "bucket": scope.bucket,
            "not_bucket": scope.not_bucket,
            "spared": list(scope.spared),
            "since": scope.since,
            "of_no_message": scope.of_no_message,
            "young_since": scope.young_since,
            "after": scope.keys and scope.keys[0],
            "through": scope.keys and scope.keys[1],
            "how": how,
            "at": at,
        }
        return self._execute(CLOSE_UNSEEN, values)

    def verified(self, topics: Collection[str] | None = None) -> Sequence[VerifiedRange]:
        return self._fetch_as(VerifiedRange, VERIFIED, {"topics": listed(topics)})

    @transaction
    def note_verified(self, connection: psycopg.Connection, new: VerifiedRange) -> None:
        # Two who note what they verified come after one another; reading goes on.
        connection.execute("LOCK TABLE verified IN SHARE ROW EXCLUSIVE MODE")
        known = connection.execute(TOUCHING, new._asdict()).fetchall()
        with connection.cursor() as cursor:
            cursor.executemany(ADD_VERIFIED, with_verified(map(VerifiedRange._make, known), new))

    def checked(self, topics: Collection[str] | None = None) -> Sequence[CheckedRange]:
        found = self._fetch(CHECKED, {"topics": listed(topics)})
        return [
            CheckedRange(Section(bucket, topic, Look(look)), *done) for bucket, topic, look, *done in found
        ]

    @transaction
    def note_checked(self, connection: psycopg.Connection, new: Sequence[CheckedRange]) -> None:
        connection.execute("LOCK TABLE checked IN SHARE ROW EXCLUSIVE MODE")
        for done in new:
            bucket, topic, look = done.section
            place = (bucket, topic, look.value)
            touching = connection.execute(CHECKED_IN_THE_WAY, (*place, done.through, done.after)).fetchall()
            known = (CheckedRange(done.section, *row) for row in touching)
            with connection.cursor() as cursor:
                cursor.executemany(ADD_CHECKED, [(*place, *kept[1:]) for kept in with_checked(known, done)])

    def verified_shares(self, topics: Collection[str] | None = None) -> Sequence[VerifiedShare]:
        return self._fetch_as(VerifiedShare, SHARES, {"topics": listed(topics)})

    def adopted_span(self, topic: str) -> tuple[int, int] | None:
        # Index: messages_adopted_idx, a step at each of its ends.
        ((first, last),) = self._fetch(
            "SELECT min(timestamp), max(timestamp) FROM messages WHERE topic = %s AND digest IS NULL", [topic]
        )
        return None if first is None else (first, last)

    def adopted_rows(self, topic: str, since_ms: int) -> Iterator[Row]:
        return map(Row.of_cells, self._stream(ADOPTED_ROWS, [topic, since_ms]))


def _order(finding: Finding) -> Tuple:
    where = finding.slice
    place = (
        (where.generation, where.partition, where.start, where.stop)
        if where
        else (0, finding.partition or 0, -1, -1)
    )
    about = (str(finding.uuid or ""), finding.bucket, finding.object_key)
    return (finding.kind.value, finding.topic, *about, *place)


def _values(kinds: Collection[Kind] | None) -> list[str] | None:
    return None if kinds is None else [kind.value for kind in kinds]
