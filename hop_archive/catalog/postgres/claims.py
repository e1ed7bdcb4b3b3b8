"""Who archives what, in Postgres."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import psycopg

from hop_archive.catalog.postgres.session import Session, transaction
from hop_archive.catalog.records import Claim, Share
from hop_archive.catalog.sharing import fair_share, held_logs, share_of
from hop_archive.model.slices import PartitionLog

CLAIMING = "LOCK TABLE archivers IN SHARE ROW EXCLUSIVE MODE"
"""One claims after another: what is free is taken by one of them. It takes the right to change the table, which a reader has not."""

GIVEN_UP = """
    WITH gone AS (DELETE FROM archivers WHERE until <= now() RETURNING holder)
    DELETE FROM claims WHERE holder IN (SELECT holder FROM gone)
"""
"""By the same moment as ``CLAIMS``: whose lease ends in between stands in both, or what he holds would be taken while it is his.

Reads both tables where somebody is gone; they are as small as there are processes, and partitions that these want."""

PRESENT = """
    INSERT INTO archivers (holder, until) VALUES (%(holder)s, clock_timestamp() + %(lease_s)s * interval '1 second')
    ON CONFLICT (holder) DO UPDATE SET until = excluded.until
"""
"""Index: archivers_pkey."""

_GIVEN = "unnest(%(topics)s::text[], %(generations)s::integer[], %(partitions)s::integer[]) AS given (topic, generation, partition)"

WANT_NO_MORE = f"""
    DELETE FROM claims AS c WHERE holder = %(holder)s AND NOT EXISTS (
        SELECT FROM {_GIVEN}
        WHERE (given.topic, given.generation, given.partition) = (c.topic, c.generation, c.partition))
"""
"""Index: claims_pkey."""

WANT = f"""
    INSERT INTO claims (holder, topic, generation, partition) SELECT %(holder)s, given.* FROM {_GIVEN}
    ON CONFLICT DO NOTHING
"""
"""Index: claims_pkey."""

CLAIMS = """
    SELECT c.topic, c.generation, c.partition, c.holder, c.held
    FROM claims AS own
         JOIN claims AS c USING (topic, generation, partition)
         JOIN archivers AS a ON a.holder = c.holder AND a.until > now()
    WHERE own.holder = %(holder)s
"""
"""Index: claims_pkey, claims_log_idx, archivers_pkey."""

HOLD_LOGS = f"""
    UPDATE claims AS c SET held = NOT held
    WHERE holder = %(holder)s AND held <> EXISTS (
        SELECT FROM {_GIVEN}
        WHERE (given.topic, given.generation, given.partition) = (c.topic, c.generation, c.partition))
"""
"""Index: claims_pkey; claims_held_idx sees to it that no two hold the same."""

STILL_PRESENT = """
    WITH renewed AS (
        UPDATE archivers SET until = clock_timestamp() + %(lease_s)s * interval '1 second'
        WHERE holder = %(holder)s AND until > clock_timestamp() RETURNING holder
    )
    SELECT (SELECT count(*) FROM renewed),
           EXISTS (SELECT FROM archivers WHERE holder <> %(holder)s AND until > clock_timestamp())
"""
"""Index: archivers_pkey."""

ABSENT = """
    WITH gone AS (DELETE FROM archivers WHERE holder = %(holder)s)
    DELETE FROM claims WHERE holder = %(holder)s
"""
"""Index: archivers_pkey, claims_pkey."""


class PostgresClaims(Session):
    """The part of a catalog in Postgres that says who archives what."""

    @transaction
    def claim_logs(
        self, connection: psycopg.Connection, holder: str, wanted: Collection[PartitionLog], lease_s: float
    ) -> Share:
        values = {"holder": holder, "lease_s": lease_s, **_columns(wanted)}
        connection.execute(CLAIMING)
        for statement in (GIVEN_UP, PRESENT, WANT_NO_MORE, WANT):
            connection.execute(statement, values)
        claims = _claims(connection, holder)
        mine = fair_share(holder, claims)
        if mine != held_logs(holder, claims):
            connection.execute(HOLD_LOGS, {"holder": holder, **_columns(mine)})
        return share_of(holder, mine, claims)

    @transaction
    def renew_claims(self, connection: psycopg.Connection, holder: str, lease_s: float) -> bool:
        found = connection.execute(STILL_PRESENT, {"holder": holder, "lease_s": lease_s}).fetchone()
        if found is None or not found[0]:
            return True
        if not found[1]:
            return False
        claims = _claims(connection, holder)
        return not held_logs(holder, claims) <= fair_share(holder, claims)

    def drop_claims(self, holder: str) -> None:
        self._execute(ABSENT, {"holder": holder})


def _claims(connection: psycopg.Connection, holder: str) -> list[Claim]:
    """All claims of the logs that it wants."""
    found = connection.execute(CLAIMS, {"holder": holder}, binary=True)
    return [Claim(PartitionLog(*log), whose, held) for *log, whose, held in found]


def _columns(logs: Collection[PartitionLog]) -> dict[str, Any]:
    ordered = sorted(logs)
    return {
        "topics": [at.topic for at in ordered],
        "generations": [at.generation for at in ordered],
        "partitions": [at.partition for at in ordered],
    }
