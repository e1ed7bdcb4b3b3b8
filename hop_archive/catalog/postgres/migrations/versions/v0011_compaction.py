"""Documents that move into fewer objects, whose old objects stay for a while."""

from __future__ import annotations

from hop_archive.catalog.postgres.migrations.steps import Index, run, statements

revision = "0011"
down_revision = "0010"

STEPS = (
    # From when on an object may be deleted; null: at once.
    statements("grace of pending deletes", "ALTER TABLE condemned ADD COLUMN IF NOT EXISTS due timestamptz"),
    # Old objects of a large compaction wait by the million: whoever looks for those that are due reads those alone.
    Index("condemned_due_idx", "condemned", "(bucket, command, (coalesce(due, '-infinity')), key)"),
    # How far each log was compacted, and how often rows of it were made to name other objects: a snapshot asks that.
    statements(
        "table of compacted logs",
        """
        CREATE TABLE compacted (
            topic text,
            generation integer,
            partition integer,
            done_to bigint NOT NULL DEFAULT 0,
            looked_to bigint NOT NULL DEFAULT 0,
            moves bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (topic, generation, partition)
        )
        """,
    ),
)


def upgrade() -> None:
    """Add the column and the table."""
    run(STEPS)
