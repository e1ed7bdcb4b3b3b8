"""A ledger that stays small by itself, and what keeps tables of billions of rows in order."""

from __future__ import annotations

from hop_archive.catalog.postgres.migrations.steps import analyze, run, statements

revision = "0008"
down_revision = "0007"

STEPS = (
    statements(
        "how late the batches of merged ledger rows were",
        "ALTER TABLE batches ADD COLUMN lag_ms bigint",
    ),
    # The defaults wait for a share of all rows: at a billion, for 200 million before the pages that index scans may skip are
    # marked, and for 100 million before the planner hears of the newest timestamps. Rows only come, so a vacuum reads but the
    # new pages. In the ledger what is merged leaves dead rows, as many as there are batches: it is vacuumed as they come.
    statements(
        "when tables are vacuumed and looked at",
        """
        ALTER TABLE messages SET (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_vacuum_scale_factor = 0.02,
                                  autovacuum_analyze_scale_factor = 0.02)
        """,
        """
        ALTER TABLE duplicates SET (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_vacuum_scale_factor = 0.02,
                                    autovacuum_analyze_scale_factor = 0.02)
        """,
        """
        ALTER TABLE batches SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000,
                                 autovacuum_analyze_scale_factor = 0.05)
        """,
    ),
    analyze("messages", "duplicates", "batches"),
)


def upgrade() -> None:
    """Add them."""
    run(STEPS)
