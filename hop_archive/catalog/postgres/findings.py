"""Findings in Postgres."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import psycopg

from hop_archive.catalog.postgres import sql_findings
from hop_archive.catalog.postgres.session import Session, Tuple
from hop_archive.catalog.records import Looked
from hop_archive.model.findings import ACCEPTED, Finding, FindingRecord, Kind, OpenCount, distinct, remembered
from hop_archive.model.slices import Slice

_PAGE = 1_000


class PostgresFindings(Session):
    """The part of a catalog in Postgres that remembers findings."""

    def note_findings(self, findings: Sequence[Finding], seen_at: datetime.datetime) -> Sequence[bool]:
        """Remember findings that were seen; see ``Catalog.note_findings``."""
        if not findings:
            return []
        once = sorted(distinct(findings), key=_order)
        accepted = self._transact(lambda connection: _note(connection, once, seen_at))
        closed = {once[number - 1]._replace(detail="") for number in accepted}
        return [remembered(one)._replace(detail="") not in closed for one in findings]

    def findings(
        self,
        topics: Collection[str] | None = None,
        kinds: Collection[Kind] | None = None,
        *,
        open_only: bool = True,
        limit: int | None = None,
    ) -> Iterator[FindingRecord]:
        """The findings, a page at a time, in the order in which they were first noted."""
        wanted = {"topics": None if topics is None else list(topics), "kinds": _values(kinds)}
        after, left = 0, limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = self._fetch(
                sql_findings.FINDINGS, {**wanted, "open_only": open_only, "after": after, "limit": size}
            )
            yield from map(_finding, page)
            if len(page) < size:
                return
            after, left = page[-1][0], None if left is None else left - len(page)

    def open_findings(self, topics: Collection[str] | None = None) -> Sequence[OpenCount]:
        """How many findings are open, by topic and kind, sorted."""
        found = self._fetch(sql_findings.OPEN, {"topics": None if topics is None else list(topics)})
        return [OpenCount(topic, Kind(kind), count, since) for topic, kind, count, since in found]

    def resolve_findings(self, numbers: Collection[int], how: str, at: datetime.datetime) -> int:
        """Close these findings, with what became of them; returns how many were open."""
        wanted = {"numbers": list(numbers), "how": how, "at": at}
        return self._transact(lambda connection: connection.execute(sql_findings.RESOLVE, wanted).rowcount)

    def close_unseen(self, looked: Looked, how: str, at: datetime.datetime) -> int:
        """Close what a complete look did not see again; returns how many were open."""
        wanted = {
            "kinds": _values(looked.kinds),
            "topics": None if looked.topics is None else list(looked.topics),
            "bucket": looked.bucket,
            "not_bucket": looked.not_bucket,
            "spared": list(looked.spared),
            "since": looked.since,
            "of_no_message": looked.of_no_message,
            "young_since": looked.young_since,
            "how": how,
            "at": at,
        }
        return self._transact(
            lambda connection: connection.execute(sql_findings.CLOSE_UNSEEN, wanted).rowcount
        )


def _note(
    connection: psycopg.Connection, findings: Sequence[Finding], seen_at: datetime.datetime
) -> list[int]:
    """Note what was not accepted before; the numbers, from 1, of what was."""
    columns = [list(column) for column in zip(*map(_columns, findings), strict=True)]
    names = ("kinds", "topics", "generations", "partitions", "offsets", "uuids", "buckets", "keys", "details")
    given: dict[str, Any] = dict(zip(names, columns, strict=True))
    accepted = connection.execute(
        sql_findings.ACCEPTED_ONES, {**given, "accepted": f"{ACCEPTED}%"}
    ).fetchall()
    numbers = [number for (number,) in accepted]
    connection.execute(sql_findings.NOTE, {**given, "at": seen_at, "left_out": numbers})
    return numbers


def _columns(one: Finding) -> Tuple:
    where = one.slice
    place = (
        (where.generation, where.partition, f"[{where.start},{where.stop})")
        if where
        else (None, one.partition, None)
    )
    text = one.detail.replace("\0", "?")  # which Postgres takes in no text
    return (one.kind.value, one.topic, *place, one.uuid, one.bucket, one.object_key, text)


def _order(one: Finding) -> Tuple:
    where = one.slice
    place = (
        (where.generation, where.partition, where.start, where.stop)
        if where
        else (0, one.partition or 0, -1, -1)
    )
    return (one.kind.value, one.topic, str(one.uuid or ""), one.bucket, one.object_key, *place)


def _values(kinds: Collection[Kind] | None) -> list[str] | None:
    return None if kinds is None else [kind.value for kind in kinds]


def _finding(found: Tuple) -> FindingRecord:
    number, kind, topic, generation, partition, start, stop, own, bucket, key, detail, *when = found
    where = None if start is None else Slice(topic, generation, partition, start, stop)
    alone = partition if where is None else None
    return FindingRecord(number, Finding(Kind(kind), topic, detail, own, bucket, key, where, alone), *when)
