"""What was looked at, and when: so that a scheduled look need not be at everything."""

from __future__ import annotations

from hop_archive.catalog.postgres.migrations.steps import run, statements

revision = "0012"
down_revision = "0011"

STEPS = (
    # Ranges of keys, in byte order, each looked at at one time. Those of one section do not overlap.
    statements(
        "table of what was looked at",
        """
        CREATE TABLE checked (
            bucket text NOT NULL,
            topic text NOT NULL,
            look text NOT NULL,
            after text COLLATE "C" NOT NULL,
            through text COLLATE "C" NOT NULL CHECK (after < through),
            checked_at timestamptz NOT NULL,
            took bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (bucket, topic, look, after)
        )
        """,
        # What is new is looked at soon. What is there was never looked at by this, and comes share by share.
        """
        INSERT INTO row_progress (job, done_to)
        SELECT job, (SELECT coalesce(max(id), 0) FROM messages)
        FROM unnest('{check-objects,check-copies}'::text[]) AS job
        ON CONFLICT DO NOTHING
        """,
    ),
)


def upgrade() -> None:
    """Add the table."""
    run(STEPS)
