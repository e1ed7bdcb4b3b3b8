"""Objects that wait to be deleted, by when they are due: a large compaction leaves a million that wait for a day."""

from __future__ import annotations

from hop_archive.catalog.postgres.migrations.steps import Index, run

revision = "0013"
down_revision = "0012"

STEPS = (Index("condemned_due_idx", "condemned", "(bucket, command, (coalesce(due, '-infinity')), key)"),)


def upgrade() -> None:
    """Add the index."""
    run(STEPS)
