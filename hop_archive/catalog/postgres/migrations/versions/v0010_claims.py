"""Who archives what, so that processes with the same backlog share it."""

from __future__ import annotations

from hop_archive.catalog.postgres.migrations.steps import run, statements

revision = "0010"
down_revision = "0009"

STEPS = (
    # Who is there: an archiver that is not heard of until then is given up, and what it held is free.
    statements(
        "table of archivers",
        "CREATE TABLE archivers (holder text PRIMARY KEY, until timestamptz NOT NULL)",
    ),
    # What each of them wants to archive, and what it holds. No foreign keys: nothing rests on these rows.
    statements(
        "table of claims",
        """
        CREATE TABLE claims (
            holder text,
            topic text,
            generation integer,
            partition integer,
            held boolean NOT NULL DEFAULT false,
            PRIMARY KEY (holder, topic, generation, partition)
        )
        """,
        "CREATE INDEX claims_log_idx ON claims (topic, generation, partition)",
        "CREATE UNIQUE INDEX claims_held_idx ON claims (topic, generation, partition) WHERE held",
    ),
)


def upgrade() -> None:
    """Add the tables."""
    run(STEPS)
