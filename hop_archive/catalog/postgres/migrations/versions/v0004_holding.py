"""What those hold who would be in each other's way."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

_STATEMENTS = (
    # Whoever has written a name in an open transaction holds it. Rows may be there, or not: they say nothing.
    """
    CREATE TABLE held (
        name text PRIMARY KEY,
        since timestamptz NOT NULL DEFAULT now()
    )
    """,
)


def upgrade() -> None:
    """Add the table; takes a moment."""
    for statement in _STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
