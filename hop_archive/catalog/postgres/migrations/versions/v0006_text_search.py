"""The text index, as archive-core has it for its readers, and how far jobs have come that go over all rows once."""

from __future__ import annotations

from hop_archive.catalog.postgres.migrations.steps import Index, run, statements

revision = "0006"
down_revision = "0005"

STEPS = (
    # Names and types of archive-core's migration 0004, which finds both where it runs again later. In a catalog of its, they
    # are there, with what it indexed.
    statements(
        "table of the text index",
        """
        CREATE TABLE IF NOT EXISTS message_ts (
            uuid uuid NOT NULL REFERENCES messages (uuid) ON DELETE CASCADE,
            text_data tsvector NOT NULL,
            text_fully_indexed boolean NOT NULL
        )
        """,
    ),
    Index("message_ts_idx", "message_ts", "USING gin (text_data)"),
    # Which messages are indexed; and whoever deletes a message finds its text. Not unique: archive-core's may hold some twice.
    Index("message_ts_uuid_idx", "message_ts", "(uuid)"),
    # All rows up to done_to are dealt with, and no other one can come there. next_to was the greatest id before the transaction
    # next_xid was numbered: once all with smaller numbers are over, no other row up to next_to can come.
    statements(
        "table of how far jobs have come",
        """
        CREATE TABLE row_progress (
            job text PRIMARY KEY,
            done_to bigint NOT NULL DEFAULT 0,
            next_to bigint,
            next_xid xid8
        )
        """,
    ),
)


def upgrade() -> None:
    """Add the tables."""
    run(STEPS)
