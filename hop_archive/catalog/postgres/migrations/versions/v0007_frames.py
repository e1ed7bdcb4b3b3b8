"""Where the document of a message stands in a compressed segment: its zstd frame."""

from __future__ import annotations

from hop_archive.catalog.postgres.migrations.steps import run, statements

revision = "0007"
down_revision = "0006"

STEPS = (
    statements(
        "columns for zstd frames",
        "ALTER TABLE messages ADD COLUMN frame bigint, ADD COLUMN frame_size integer",
    ),
)


def upgrade() -> None:
    """Add the columns; takes a moment, for they are null in all rows that are there."""
    run(STEPS)
