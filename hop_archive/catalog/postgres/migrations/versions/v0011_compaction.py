"""Documents that move into fewer objects, whose old objects stay for a while."""

from __future__ import annotations

from hop_archive.catalog.postgres.migrations.steps import run, statements

revision = "0011"
down_revision = "0010"

STEPS = (
    # From when on an object may be deleted; null: at once.
    statements("grace of pending deletes", "ALTER TABLE condemned ADD COLUMN due timestamptz"),
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
