"""Under which leader epoch a log was proven to be the one that is covered: a log that lost its end is told by it."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; takes a moment. Nothing is proven by it: the next plan reads the end of each log again."""
    op.get_bind().exec_driver_sql("ALTER TABLE observed ADD COLUMN leader_epoch integer")
