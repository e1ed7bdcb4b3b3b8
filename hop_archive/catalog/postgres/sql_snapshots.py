"""SQL of snapshots: how topics and consumer groups were set up. See `hop_archive.catalog.postgres.sql` for the rules.

``snapshots_pkey`` is (cluster_id, kind, name).
"""

from __future__ import annotations

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
