"""What several modules of the catalog in Postgres say in SQL. What one module alone says stands beside its caller.

Only what Postgres 14 understands. Parameters are always bound. Tables are found through the search path that
each transaction is given (``SETTINGS``), so a statement names no schema. Each statement names the index that it relies on;
``migrations/versions`` makes them. Keys besides see to it that no UUID (``messages_uuid_idx``) and no offset
(``messages_place_idx``) is stored twice, and that no offset is in two ledger rows (``batches_slice_excl``).
Two serve archive-core's readers: ``messages_pkey`` (``messages.id`` is their bookmark) and ``messages_timestamp_id_idx``
((timestamp, id) with topic and public: they page through all topics in order of time).
"""

from __future__ import annotations

from hop_archive.catalog.records import COLUMNS

REVISION = "0013"
"""The migration that these statements need; ``migrations/versions`` ends with it."""

VERSION_TABLE = "hop_archive_alembic_version"
"""Alembic's own table. Its default name is taken by Dagster where both share a database."""

SETTINGS = """
    SELECT set_config('search_path', quote_ident(%(schema)s) || ', pg_temp', true),
           set_config('client_encoding', 'UTF8', true),
           set_config('timezone', 'UTC', true),
           set_config('datestyle', 'ISO, MDY', true),
           set_config('intervalstyle', 'postgres', true),
           set_config('bytea_output', 'hex', true),
           set_config('extra_float_digits', '1', true),
           set_config('standard_conforming_strings', 'on', true),
           set_config('array_nulls', 'on', true),
           set_config('lock_timeout', %(lock_ms)s, true),
           set_config('statement_timeout', %(statement_ms)s, true),
           set_config('idle_in_transaction_session_timeout', %(idle_ms)s, true),
           CASE WHEN current_setting('server_version_num')::int >= 170000
                THEN set_config('transaction_timeout', '0', true) END,
           CASE WHEN current_setting('synchronous_commit') = 'off'
                THEN set_config('synchronous_commit', 'on', true) END
"""
"""What statements, and the reading of their results, rest on, whatever the role, the database or a pooler's other clients
have set; for one transaction. Temporary tables are looked for last: one that somebody left behind in a pooler's session is
not taken for ours. A commit lasts: objects are deleted on the strength of it. A writer that hangs with a transaction open
is thrown out by the server, so that what it holds is free for those who took over its work."""

NO_IDLE_LIMIT = "SELECT set_config('idle_in_transaction_session_timeout', '0', true)"
"""In a transaction that streams: between two rows its reader may take its time."""

BY_INDEX = "SELECT set_config('enable_seqscan', 'off', true)"
"""For what is about one log. Its rows came some hundred at a time and stand together, which no statistics tell of an expression:
of a log with a sixth of 10 million rows the planner would read the whole table, 418,000 pages, where 119,000 hold it (2026-11-29)."""

HOLD = "INSERT INTO held (name) VALUES (%s) ON CONFLICT (name) DO UPDATE SET since = now()"
"""Index: held_pkey. Whoever holds the name in an open transaction is waited for. A row, and no advisory lock: those can
be held by whoever may connect."""

ROW_COLUMNS = ", ".join(f'"{name}"' if name == "offset" else name for name in COLUMNS)

IN_LOG = "topic = %(topic)s AND generation = %(generation)s AND partition = %(partition)s"
IN_SLICE = f'{IN_LOG} AND "offset" >= %(start)s AND "offset" < %(stop)s'


LOG_HASH = "hashtextextended(topic, generation::bigint << 32 | partition)"
"""Of the log that a row of ``messages`` stands in, null where it has no place: the first column of messages_place_idx. See
docs/decisions/0009-rows-by-the-hash-of-their-log.md."""


def of_log(table: str, other: str) -> str:
    """The condition that a row of ``messages`` is of the same log as a row that has these columns, too.

    Index: messages_place_idx, whose first column is ``LOG_HASH``. The columns are compared as well:
    two logs may have one hash.

    Args:
        table: What ``messages`` is called.
        other: What the other is called; or ``%`` for the parameters topic, generation and partition.
    """
    names = ("topic", "generation", "partition")
    theirs = [f"%({name})s" if other == "%" else f"{other}.{name}" for name in names]
    same = [f"{table}.{name} = {their}" for name, their in zip(names, theirs, strict=True)]
    hashes = [
        f"hashtextextended({topic}, {generation}::bigint << 32 | {partition})"
        for topic, generation, partition in ([f"{table}.{name}" for name in names], theirs)
    ]
    return " AND ".join([*same, " = ".join(hashes)])


ROW_IN_LOG = of_log("messages", "%")
ROW_IN_SLICE = f'{ROW_IN_LOG} AND messages."offset" >= %(start)s AND messages."offset" < %(stop)s'
"""As ``IN_LOG`` and ``IN_SLICE`` of other tables. Index: messages_place_idx."""

LOGS = """
    SELECT topic, generation, partition FROM logs WHERE topic = %(topic)s
    UNION (
    WITH RECURSIVE dealt AS (
        (SELECT topic, generation, partition FROM batches WHERE topic = %(topic)s
         ORDER BY topic, generation, partition LIMIT 1)
        UNION ALL
        SELECT following.* FROM dealt, LATERAL (
            SELECT b.topic, b.generation, b.partition FROM batches AS b
            WHERE b.topic = %(topic)s AND (b.generation, b.partition) > (dealt.generation, dealt.partition)
            ORDER BY b.topic, b.generation, b.partition LIMIT 1) AS following
    ) SELECT topic, generation, partition FROM dealt)
"""
"""Those of a topic that may have rows. Index: logs_pkey; batches_lineage_idx, one step in it a log."""

ROWS_OF = f"""(SELECT count(*) FROM messages AS m WHERE {of_log("m", "b")}
        AND m."offset" >= lower(b.offsets) AND m."offset" < upper(b.offsets))"""
COPIES_OF = """(SELECT count(*) FROM duplicates AS d
        WHERE d.topic = b.topic AND d.generation = b.generation AND d.partition = b.partition
              AND d."offset" >= lower(b.offsets) AND d."offset" < upper(b.offsets))"""
"""How many rows, and duplicates, stand at the offsets of the ledger row ``b``. Index: messages_place_idx, duplicates_pkey."""

REFERRING = "LOCK TABLE duplicates IN ROW EXCLUSIVE MODE"
"""What inserting a duplicate takes anyway, before it is looked whether what it repeats is there: who takes messages away
waits for it, and it for him (``TAKING_AWAY``). It needs the right to insert: a reader, who could hold an
advisory lock, cannot hold this. Locking the rows themselves takes the right to change them, which no archiver needs.

Whoever changes what is there takes locks in one order, so that no two wait for each other: this one or ``TAKING_AWAY``
before any row; then ledger rows, by log and offset, all that are wanted; then messages and duplicates; the topic's
summary; pending deletes. Only who holds ``TAKING_AWAY`` may take rows in another order: it keeps all others out. A
commit has its own ledger row before: nobody waits for that one but who would commit the same offsets, and he holds nothing yet."""

TAKING_AWAY = "LOCK TABLE duplicates IN SHARE ROW EXCLUSIVE MODE"
"""See ``sql.REFERRING``: no duplicate is recorded of what is being taken away."""

TOPICS = """
    WITH RECURSIVE found AS (
        (SELECT topic FROM messages ORDER BY topic LIMIT 1)
        UNION ALL
        SELECT (SELECT m.topic FROM messages AS m WHERE m.topic > found.topic ORDER BY m.topic LIMIT 1)
        FROM found WHERE found.topic IS NOT NULL
    ) SELECT topic FROM found WHERE topic IS NOT NULL
"""
"""Those that have rows, whatever the summary says. Index: messages_topic_timestamp_idx, one step in it a topic."""

KNOWN_TOPICS = f"""
    ({TOPICS}) UNION (
    WITH RECURSIVE dealt AS (
        (SELECT topic FROM batches ORDER BY topic LIMIT 1)
        UNION ALL
        SELECT (SELECT b.topic FROM batches AS b WHERE b.topic > dealt.topic ORDER BY b.topic LIMIT 1)
        FROM dealt WHERE dealt.topic IS NOT NULL
    ) SELECT topic FROM dealt WHERE topic IS NOT NULL)
    UNION SELECT topic FROM generations UNION SELECT topic FROM topics WHERE topic IS NOT NULL
"""
"""Index: besides, batches_lineage_idx, one step in it a topic; the two other tables are of a row a topic or so."""

NOTE_LOG = "INSERT INTO logs (topic, generation, partition) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
"""Index: logs_pkey."""

WITH_ROWS = """
    SELECT topic FROM unnest(%s::text[]) AS wanted (topic)
    WHERE EXISTS (SELECT FROM messages WHERE messages.topic = wanted.topic)
"""
"""Index: messages_topic_timestamp_idx: one probe a topic."""

HAS_ADOPTED = """
    SELECT topic FROM unnest(%s::text[]) AS wanted (topic)
    WHERE EXISTS (SELECT FROM messages WHERE messages.topic = wanted.topic AND digest IS NULL)
"""
"""Index: messages_adopted_idx: one probe a topic."""

PERIOD_ORIGIN = "timestamptz '2000-01-01 00:00+00'"

ADD_BATCH = f"""
    INSERT INTO batches (topic, generation, partition, offsets, outcome, reason, archived, duplicates, absent,
                         bytes, first_timestamp, last_timestamp, run_id)
    SELECT topic, generation, partition, int8range(start, stop), outcome, reason, archived, duplicates, absent,
           bytes, first_timestamp, last_timestamp, run_id
    FROM unnest(%s::text[], %s::int[], %s::int[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[],
                %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[])
         AS new (topic, generation, partition, start, stop, outcome, reason, archived, duplicates, absent,
                 bytes, first_timestamp, last_timestamp, run_id)
    ON CONFLICT ON CONSTRAINT batches_slice_excl DO NOTHING
    RETURNING id, topic, generation, partition, lower(offsets), created_at, EXISTS (
        SELECT FROM batches AS b
        WHERE b.topic = batches.topic AND b.generation = batches.generation AND b.partition = batches.partition
              AND b.offsets @> lower(batches.offsets) - 1
              AND b.created_at < date_bin('10 minutes', batches.created_at, {PERIOD_ORIGIN}))
"""
"""Some rows, in the order of their slices; of each, when it was committed, and whether the row before it in its log is of earlier
ten minutes. Index: batches_slice_excl. One does not come back: somebody holds a part of its slice. With ON CONFLICT two who
come at once wait for one another in order; a plain insert would let each wait for the other, a deadlock."""

ADD_PART = """
    INSERT INTO batches (topic, generation, partition, offsets, outcome, reason, archived, duplicates, absent, bytes,
                         first_timestamp, last_timestamp, run_id, created_at)
    VALUES (%s, %s, %s, int8range(%s, %s), %s, %s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, clock_timestamp()))
"""
"""Index: each of batches. The row that it is a part of was deleted in the same transaction, by a statement of its own:
the exclusion constraint has to see that one gone."""

STANDING = f"""
    SELECT count(*), coalesce(sum(size), 0)::bigint, min(timestamp), max(timestamp),
           (SELECT count(*) FROM duplicates WHERE {IN_SLICE})
    FROM messages WHERE {ROW_IN_SLICE}
"""
"""Index: messages_place_idx, duplicates_pkey."""

COLLISION = "uuid_collision"
"""The kind of finding that a collision is."""
