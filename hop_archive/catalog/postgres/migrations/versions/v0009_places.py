"""Rows found by the hash of their log, narrower indexes, and statistics that know what goes together.

See docs/decisions/0009-rows-by-the-hash-of-their-log.md for what was measured.
"""

from __future__ import annotations

from sqlalchemy import Connection

from hop_archive.catalog.postgres.migrations.steps import (
    DropIndex,
    Index,
    MigrationWork,
    analyze,
    run,
    statements,
)

revision = "0009"
down_revision = "0008"

_IS_THERE = "SELECT to_regclass('messages_offset_idx') IS NOT NULL"
_NOTE_LOGS = """
    INSERT INTO logs (topic, generation, partition)
    WITH RECURSIVE found AS (
        (SELECT topic, generation, partition FROM messages ORDER BY topic, generation, partition LIMIT 1)
        UNION ALL
        SELECT following.* FROM found, LATERAL (
            SELECT m.topic, m.generation, m.partition FROM messages AS m
            WHERE (m.topic, m.generation, m.partition) > (found.topic, found.generation, found.partition)
            ORDER BY m.topic, m.generation, m.partition LIMIT 1) AS following
    ) SELECT topic, generation, partition FROM found WHERE generation IS NOT NULL
    ON CONFLICT DO NOTHING
"""


def _note_logs(connection: Connection) -> None:
    """One step in the old index a log; where that is gone by now, it was done before."""
    if connection.exec_driver_sql(_IS_THERE).scalar():
        connection.exec_driver_sql(_NOTE_LOGS)


STEPS = (
    # Which logs there may be rows of: no index has them by topic any more.
    statements(
        "table of logs",
        """
        CREATE TABLE IF NOT EXISTS logs (
            topic text NOT NULL,
            generation integer NOT NULL,
            partition integer NOT NULL,
            PRIMARY KEY (topic, generation, partition)
        )
        """,
    ),
    MigrationWork("the logs that have rows", _note_logs),
    # Two columns of eight bytes: wider ones, and texts, Postgres splits in the middle where a log grows (nbtsplitloc.c), and
    # half of each page stays empty.
    Index(
        "messages_place_idx",
        "messages",
        '(hashtextextended(topic, generation::bigint << 32 | partition), "offset")',
        unique=True,
    ),
    # Readers of archive-core count by it, without a look at the table, what is public.
    Index("messages_time_public_idx", "messages", "(timestamp, id) INCLUDE (public)"),
    DropIndex("messages_offset_idx", "messages"),
    DropIndex("messages_timestamp_id_idx", "messages"),
    statements(
        "names and statistics",
        # That of archive-core, whose own migrations look for it.
        "ALTER INDEX messages_time_public_idx RENAME TO messages_timestamp_id_idx",
        """
        CREATE STATISTICS messages_place_stats (ndistinct, dependencies, mcv)
        ON (hashtextextended(topic, generation::bigint << 32 | partition)), topic, generation, partition FROM messages
        """,
        "CREATE STATISTICS duplicates_place_stats (ndistinct, dependencies, mcv) ON topic, generation, partition FROM duplicates",
        "CREATE STATISTICS batches_place_stats (ndistinct, dependencies, mcv) ON topic, generation, partition FROM batches",
    ),
    analyze("messages", "duplicates", "batches"),
)


def upgrade() -> None:
    """Build the narrower indexes, then drop the wider ones: until then both take room, 85 bytes a message more."""
    run(STEPS)
