"""What those hold who would be in each other's way."""

from __future__ import annotations

from hop_archive.catalog.postgres.migrations.steps import run, statements

revision = "0004"
down_revision = "0003"

STEPS = (
    # Whoever has written a name in an open transaction holds it. Rows may be there, or not: they say nothing.
    statements(
        "table of names that are held",
        "CREATE TABLE held (name text PRIMARY KEY, since timestamptz NOT NULL DEFAULT now())",
    ),
)


def upgrade() -> None:
    """Add the table; takes a moment."""
    run(STEPS)
