"""Snapshots in the mock catalog."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

from hop_archive.catalog.mock.session import MockSession
from hop_archive.catalog.records import Snapshot, SnapshotKind
from hop_archive.catalog.rules import refuse_odd


class MockSnapshots(MockSession):
    """The part of the catalog that keeps snapshots."""

    def keep_snapshots(self, cluster_id: str, snapshots: Sequence[Snapshot]) -> None:
        """Put snapshots in the place of earlier ones, all or none; see ``Catalog.keep_snapshots``."""
        refuse_odd(cluster_id, snapshots)
        # What JSON makes of them, as a database gives it back.
        kept = [replace(one, content=json.loads(json.dumps(one.content))) for one in snapshots]
        with self._state.change() as tables:
            for one in kept:
                there = tables.snapshots.get((cluster_id, one.kind, one.name))
                if there is None or there.taken_at <= one.taken_at:
                    tables.snapshots[cluster_id, one.kind, one.name] = one

    def snapshots(
        self, kind: SnapshotKind, names: Collection[str] | None = None, cluster_id: str | None = None
    ) -> Sequence[Snapshot]:
        """The snapshots of a kind, sorted by cluster and name."""
        with self._state.read() as tables:
            return [
                one
                for _, one in sorted(tables.snapshots.items())
                if one.kind == kind
                and (names is None or one.name in names)
                and (cluster_id is None or one.cluster_id == cluster_id)
            ]
