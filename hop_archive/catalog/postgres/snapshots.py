"""Snapshots of topics and consumer groups in Postgres."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from hop_archive.catalog.postgres.session import Session, listed
from hop_archive.catalog.records import Snapshot, SnapshotKind
from hop_archive.catalog.rules import refuse_odd

KEEP_SNAPSHOTS = """
    INSERT INTO snapshots (cluster_id, kind, name, content, taken_at)
    SELECT %(cluster_id)s, kind, name, content::jsonb, taken_at
    FROM unnest(%(kinds)s::text[], %(names)s::text[], %(contents)s::text[], %(times)s::timestamptz[])
         AS taken (kind, name, content, taken_at)
    ORDER BY kind, name
    ON CONFLICT (cluster_id, kind, name) DO UPDATE
    SET content = EXCLUDED.content, taken_at = EXCLUDED.taken_at
    WHERE snapshots.taken_at <= EXCLUDED.taken_at
"""
"""Index: snapshots_pkey. In order, so that two who do it at once wait for one another, and never in a circle."""

SNAPSHOTS = """
    SELECT cluster_id, kind, name, content, taken_at FROM snapshots
    WHERE kind = %(kind)s
      AND (%(cluster_id)s::text IS NULL OR cluster_id = %(cluster_id)s)
      AND (%(names)s::text[] IS NULL OR name = ANY(%(names)s))
    ORDER BY cluster_id COLLATE "C", name COLLATE "C"
"""
"""Index: snapshots_pkey, for a cluster's. Of all clusters it reads the table, which has a row for each thing."""


class PostgresSnapshots(Session):
    """The part of a catalog in Postgres that keeps snapshots."""

    def keep_snapshots(self, cluster_id: str, snapshots: Sequence[Snapshot]) -> None:
        refuse_odd(cluster_id, snapshots)
        values = {
            "cluster_id": cluster_id,
            "kinds": [snapshot.kind for snapshot in snapshots],
            "names": [snapshot.name for snapshot in snapshots],
            "contents": [json.dumps(snapshot.content) for snapshot in snapshots],
            "times": [snapshot.taken_at for snapshot in snapshots],
        }
        if snapshots:
            self._execute(KEEP_SNAPSHOTS, values)

    def snapshots(
        self, kind: SnapshotKind, names: Collection[str] | None = None, cluster_id: str | None = None
    ) -> Sequence[Snapshot]:
        found = self._fetch(SNAPSHOTS, {"kind": kind, "names": listed(names), "cluster_id": cluster_id})
        return [Snapshot(*row) for row in found]
