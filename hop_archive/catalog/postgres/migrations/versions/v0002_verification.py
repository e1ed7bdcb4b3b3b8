"""What verification asks for: objects in the order of their keys, and one row for each finding that it finds."""

from __future__ import annotations

from hop_archive.catalog.postgres.migrations.steps import Index, run

revision = "0002"
down_revision = "0001"

STEPS = (
    # Only objects that are one document: those of segments are found by offset. Byte order, as stores list.
    Index("messages_object_idx", "messages", '(topic, key COLLATE "C") WHERE position IS NULL'),
    # Which copies there were of a message: few rows, so the index costs next to nothing.
    Index("duplicates_uuid_idx", "duplicates", "(uuid)"),
    # What makes a finding the same finding when it is seen again. A collision is no finding, and is never resolved.
    Index(
        "findings_open_idx",
        "findings",
        """(kind, topic, coalesce(uuid::text, ''), coalesce(bucket, ''), coalesce(key, ''),
        coalesce(generation, 0), coalesce(partition, 0), coalesce(offsets, 'empty'))
        WHERE resolved_at IS NULL AND kind <> 'uuid_collision'""",
        unique=True,
    ),
)


def upgrade() -> None:
    """Add the indexes."""
    run(STEPS)
