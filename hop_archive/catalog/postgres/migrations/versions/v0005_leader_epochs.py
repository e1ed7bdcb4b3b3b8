"""Under which leader epoch a log was proven to be the one that is covered: a log that lost its end is told by it."""

from __future__ import annotations

from hop_archive.catalog.postgres.migrations.steps import run, statements

revision = "0005"
down_revision = "0004"

STEPS = (statements("column for leader epochs", "ALTER TABLE observed ADD COLUMN leader_epoch integer"),)


def upgrade() -> None:
    """Add the column; takes a moment. Nothing is proven by it: the next plan reads the end of each log again."""
    run(STEPS)
