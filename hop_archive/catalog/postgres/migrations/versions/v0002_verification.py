"""What verification asks for: objects in the order of their keys, and one row for each finding that it finds."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

_STATEMENTS = (
    # Only objects that are one document: those of segments are found by offset. Byte order, as stores list.
    'CREATE INDEX messages_object_idx ON messages (topic, key COLLATE "C") WHERE position IS NULL',
    # Which copies there were of a message: few rows, so the index costs next to nothing.
    "CREATE INDEX duplicates_uuid_idx ON duplicates (uuid)",
    # What makes a finding the same finding when it is seen again. A collision is no finding, and is never resolved.
    """
    CREATE UNIQUE INDEX findings_open_idx ON findings (kind, topic, coalesce(uuid::text, ''), coalesce(bucket, ''), coalesce(key, ''),
        coalesce(generation, 0), coalesce(partition, 0), coalesce(offsets, 'empty'))
        WHERE resolved_at IS NULL AND kind <> 'uuid_collision'
    """,
)


def upgrade() -> None:
    """Add the indexes; on a catalog of a hundred million rows this takes minutes, and writers wait."""
    for statement in _STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
