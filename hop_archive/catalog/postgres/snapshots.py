"""Snapshots in Postgres."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from hop_archive.catalog.postgres import sql_snapshots as sql
from hop_archive.catalog.postgres.session import Session
from hop_archive.catalog.records import Snapshot, SnapshotKind
from hop_archive.catalog.rules import refuse_odd


class PostgresSnapshots(Session):
    """The part of the catalog that keeps snapshots."""

    def keep_snapshots(self, cluster_id: str, snapshots: Sequence[Snapshot]) -> None:
        """Put snapshots in the place of earlier ones, all or none; see ``Catalog.keep_snapshots``."""
        refuse_odd(cluster_id, snapshots)
        values = {
            "cluster_id": cluster_id,
            "kinds": [one.kind for one in snapshots],
            "names": [one.name for one in snapshots],
            "contents": [json.dumps(one.content) for one in snapshots],
            "times": [one.taken_at for one in snapshots],
        }
        if snapshots:
            self._transact(lambda connection: connection.execute(sql.KEEP_SNAPSHOTS, values))

    def snapshots(
        self, kind: SnapshotKind, names: Collection[str] | None = None, cluster_id: str | None = None
    ) -> Sequence[Snapshot]:
        """The snapshots of a kind, sorted by cluster and name."""
        wanted = {"kind": kind, "names": None if names is None else list(names), "cluster_id": cluster_id}
        return [Snapshot(*row) for row in self._fetch(sql.SNAPSHOTS, wanted)]
