"""Every SQL statement of the catalog, by topic, each with the index it relies on.

Only what Postgres 14 understands. Parameters are always bound. Tables are found through the search path that
each transaction is given (``BEGIN``), so a statement names no schema.

Indexes, and who needs them:

=============================== ============================================================================
``messages_pkey``               (id): archive-core's readers; ``messages.id`` is its bookmark; ``SELECT_BY_ID``
``messages_uuid_idx``           (uuid) unique: ``KNOWN_BY_UUID``, ``FIND``, and that no UUID is stored twice
``messages_topic_timestamp_idx`` (topic, timestamp): a restore or a reader that selects by topic and time
``messages_offset_idx``         (topic, generation, partition, offset) unique: ``ROWS``, and that no offset is
                                stored twice
``messages_object_idx``         (topic, key in byte order) where the object is one document: ``RECORDED_ALONE``. Costs
                                nothing for rows in segments; others wait for a put anyway
``messages_adopted_idx``        (topic, timestamp, message_crc32) where there is no digest: ``KNOWN_ADOPTED``,
                                ``HAS_ADOPTED``; costs nothing for rows of our own
``messages_timestamp_id_idx``   (timestamp, id) with topic and public: archive-core's readers page through all
                                topics in order of time
``messages_retracted_idx``      (topic) where the message was taken back: ``SELECT_BY_PLACE`` of only those
``batches_pkey``                (id): ``MERGE`` deletes by it
``batches_slice_excl``          exclusion constraint, GiST: that no offset is in two ledger rows; ``HOLDERS``
``batches_lineage_idx``         (topic, generation, partition): ``COVERAGE``, ``LEDGER``, ``SUMMARIES``,
                                ``MERGE`` of some topics
``batches_created_idx``         (created_at): ``SUMMARIES`` of a window, ``MERGEABLE``
``duplicates_pkey``             (topic, generation, partition, offset): ``DUPLICATES``
``duplicates_uuid_idx``         (uuid): ``DUPLICATES_OF``
``findings_topic_idx``          (topic, kind): ``COLLISIONS``
``generations_pkey``, ``observed_pkey``, ``unique_topic`` are the keys of those tables
=============================== ============================================================================
"""

from __future__ import annotations

REVISION = "0005"
"""The migration that these statements need; ``migrations/versions`` ends with it."""

VERSION_TABLE = "hop_archive_alembic_version"
"""Alembic's own table. Its default name is taken by Dagster where both share a database."""

# --- sessions

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

BEGIN = f"BEGIN ISOLATION LEVEL READ COMMITTED; {SETTINGS}"
"""Each transaction begins with it. What waits for another's row has to see what that one made of it, whatever the role's
``default_transaction_isolation`` is. ``default_transaction_read_only`` stands: who sets it means it."""

NO_IDLE_LIMIT = "SELECT set_config('idle_in_transaction_session_timeout', '0', true)"
"""In a transaction that streams: between two rows its reader may take its time."""

HOLD = "INSERT INTO held (name) VALUES (%s) ON CONFLICT (name) DO UPDATE SET since = now()"
"""Index: held_pkey. Whoever holds the name in an open transaction is waited for. A row, and no advisory lock: those can
be held by whoever may connect."""

USERS = """
    SELECT DISTINCT pid, usename::text, application_name
    FROM pg_locks JOIN pg_stat_activity USING (pid)
         JOIN pg_class ON pg_class.oid = relation
         JOIN pg_database ON pg_database.oid = pg_locks.database AND pg_database.datname = current_database()
    WHERE granted AND relkind IN ('r', 'p') AND relnamespace = to_regnamespace(quote_ident(%s)) AND pid <> pg_backend_pid()
    ORDER BY pid LIMIT 5
"""

VERSION = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 (a constant)

# --- objects

RECORDED_ALONE = """
    SELECT key, bucket, topic, 1, size, false, uuid FROM messages
    WHERE position IS NULL AND topic = %s
    ORDER BY key COLLATE "C"
"""
"""Index: messages_object_idx. One row an object: two rows of one object, which only damage makes, come one by one."""

RECORDED_IN_SEGMENTS = """
    SELECT key, bucket, topic, count(*), max(position + size), min(uuid::text)::uuid FROM messages
    WHERE topic = %s AND generation = %s AND partition = %s AND position IS NOT NULL
    GROUP BY key, bucket, topic ORDER BY min("offset")
"""
"""Index: messages_offset_idx. Segments of one partition are named by their offsets: this is the order of keys. (Of
uuids there is no minimum before Postgres 18.)"""

MISCOUNTED_BATCHES = """
    SELECT generation, partition, lower(offsets), upper(offsets), archived, found.rows, duplicates, found.copies
    FROM batches AS b, LATERAL (
        SELECT (SELECT count(*) FROM messages AS m
                WHERE m.topic = b.topic AND m.generation = b.generation AND m.partition = b.partition
                  AND m."offset" >= lower(b.offsets) AND m."offset" < upper(b.offsets)) AS rows,
               (SELECT count(*) FROM duplicates AS d
                WHERE d.topic = b.topic AND d.generation = b.generation AND d.partition = b.partition
                  AND d."offset" >= lower(b.offsets) AND d."offset" < upper(b.offsets)) AS copies
    ) AS found
    WHERE topic = %s AND (archived, duplicates) IS DISTINCT FROM (found.rows, found.copies)
    ORDER BY generation, partition, lower(offsets)
"""
"""Index: batches_lineage_idx, messages_offset_idx, duplicates_pkey."""

MISCOUNTED_SUMMARY = """
    SELECT coalesce(said.n_messages, 0), found.rows, coalesce(said.n_bytes, 0), found.bytes
    FROM (SELECT count(*) AS rows, coalesce(sum(size), 0)::bigint AS bytes FROM messages WHERE topic = %(topic)s) AS found
    LEFT JOIN topics AS said ON said.topic = %(topic)s
"""
"""Index: messages_topic_timestamp_idx."""

ROWS_BY_LINEAGE = """
    SELECT generation, partition, count(*) FROM messages
    WHERE topic = %s AND generation IS NOT NULL GROUP BY generation, partition ORDER BY generation, partition
"""
"""Index: messages_offset_idx."""

ROWS_IN_LEDGER = """
    SELECT coalesce(sum((
        SELECT count(*) FROM messages AS m
        WHERE m.topic = b.topic AND m.generation = b.generation AND m.partition = b.partition
          AND m."offset" >= lower(b.offsets) AND m."offset" < upper(b.offsets))), 0)::bigint
    FROM batches AS b WHERE topic = %s AND generation = %s AND partition = %s
"""
"""Index: batches_lineage_idx, messages_offset_idx."""

UNLEDGERED = """
    SELECT min(m."offset"), max(m."offset") + 1
    FROM messages AS m
    WHERE m.topic = %s AND m.generation = %s AND m.partition = %s AND NOT EXISTS (
        SELECT FROM batches AS b
        WHERE b.topic = m.topic AND b.generation = m.generation AND b.partition = m.partition
          AND b.offsets @> m."offset")
"""
"""Index: messages_offset_idx, batches_slice_excl. Looks into the ledger for each row: asked only where counts differ."""

LINEAGES = """
    WITH RECURSIVE found AS (
        (SELECT generation, partition FROM messages WHERE topic = %(topic)s AND generation IS NOT NULL
         ORDER BY generation, partition LIMIT 1)
        UNION ALL
        SELECT following.generation, following.partition FROM found, LATERAL (
            SELECT m.generation, m.partition FROM messages AS m
            WHERE m.topic = %(topic)s AND (m.generation, m.partition) > (found.generation, found.partition)
            ORDER BY m.generation, m.partition LIMIT 1) AS following
    ) SELECT generation, partition FROM found
"""
"""Those that have rows, whatever the ledger says. Index: messages_offset_idx, one step in it a log."""

# --- condition

CONDITION = """
    SELECT clock_timestamp(), current_setting('server_version'), current_setting('server_version_num')::int,
           pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean, current_user::text,
           current_setting('server_encoding')
"""

SEQUENCES = """
    SELECT numbering.relnamespace::regnamespace || '.' || quote_ident(numbering.relname),
           numbered.relnamespace::regnamespace || '.' || quote_ident(numbered.relname),
           quote_ident(attname), coalesce(conname, ''),
           has_sequence_privilege(numbering.oid, 'SELECT')
    FROM pg_class AS numbered
         JOIN pg_attrdef ON adrelid = numbered.oid
         JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
         JOIN pg_depend ON classid = 'pg_attrdef'::regclass AND objid = pg_attrdef.oid
                           AND refclassid = 'pg_class'::regclass
         JOIN pg_class AS numbering ON numbering.oid = refobjid AND numbering.relkind = 'S'
         LEFT JOIN pg_constraint ON conrelid = numbered.oid AND contype = 'p' AND conkey = ARRAY[attnum]
    WHERE numbered.relnamespace = quote_ident(current_schema())::regnamespace AND numbered.relname = ANY(%s)
    ORDER BY 1
"""
"""By the columns' defaults, which a dump and logical replication keep, though not who owns the sequence."""

RIGHTS = """
    SELECT name, array_agg(right_) FILTER (WHERE has_table_privilege(name, right_))
    FROM unnest(%(tables)s::text[]) AS name,
         unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS right_
    GROUP BY name
"""

# --- generations

GENERATIONS = """
    SELECT topic, generation, cluster_id, topic_id, detected_at, reason
    FROM generations WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s) ORDER BY topic, generation
"""
"""Index: generations_pkey; of all topics, the whole table, which has a row for each life of each."""

BEGIN_GENERATION = """
    INSERT INTO generations (topic, generation, cluster_id, topic_id, reason)
    VALUES (%(topic)s, %(generation)s, %(cluster_id)s, %(topic_id)s, %(reason)s)
    ON CONFLICT (topic, generation) DO NOTHING
"""
"""Index: generations_pkey."""

GENERATION = """
    SELECT topic, generation, cluster_id, topic_id, detected_at, reason
    FROM generations WHERE topic = %(topic)s AND generation = %(generation)s
"""
"""Index: generations_pkey."""

# --- watermarks last seen

OBSERVE = """
    INSERT INTO observed (topic, generation, partition, low, stable, high)
    SELECT * FROM unnest(%b::text[], %b::int[], %b::int[], %b::bigint[], %b::bigint[], %b::bigint[])
    ON CONFLICT (topic, generation, partition) DO UPDATE
    SET low = EXCLUDED.low, stable = EXCLUDED.stable, high = EXCLUDED.high, observed_at = now()
    WHERE (observed.low, observed.stable, observed.high) <> (EXCLUDED.low, EXCLUDED.stable, EXCLUDED.high)
"""
"""Index: observed_pkey. What did not change is not written again: 1,000 quiet topics cost no write."""

OBSERVED = """
    SELECT topic, generation, partition, low, stable, high, leader_epoch
    FROM observed WHERE topic = ANY(%s)
"""
"""Index: observed_pkey."""

HOLD_TO_PROVE = """
    SELECT FROM observed JOIN unnest(%b::text[], %b::int[], %b::int[]) AS wanted (topic, generation, partition)
         USING (topic, generation, partition)
    ORDER BY topic, generation, partition FOR UPDATE OF observed
"""
"""Index: observed_pkey. Waits for who commits (``PROVEN``). In order, so that two who prove wait for one another, and not
each for the other."""

NOTE_PROVEN = """
    UPDATE observed SET leader_epoch = proven.leader_epoch
    FROM unnest(%b::text[], %b::int[], %b::int[], %b::int[], %b::int[])
         AS proven (topic, generation, partition, leader_epoch, before)
    WHERE observed.topic = proven.topic AND observed.generation = proven.generation
          AND observed.partition = proven.partition AND observed.leader_epoch IS DISTINCT FROM proven.leader_epoch
          AND (%b OR observed.leader_epoch IS NOT DISTINCT FROM proven.before)
"""
"""Index: observed_pkey. After ``HOLD_TO_PROVE``."""

PROVEN = """
    SELECT leader_epoch FROM observed WHERE topic = %s AND generation = %s AND partition = %s FOR KEY SHARE
"""
"""Index: observed_pkey. First in its transaction: who waits here holds nothing. As a foreign key would, it lets others
note watermarks (``OBSERVE``) meanwhile, but not who proves (``HOLD_TO_PROVE``)."""

LEFT_BEHIND = """
    SELECT topic, generation, partition, lower(part), upper(part) FROM (
        SELECT topic, generation, partition, unnest(int8multirange(int8range(0, stable)) - (
            SELECT coalesce(range_agg(offsets), '{}'::int8multirange) FROM batches
            WHERE batches.topic = observed.topic AND batches.generation = observed.generation
                  AND batches.partition = observed.partition)) AS part
        FROM observed JOIN generations USING (topic, generation)
        WHERE observed.topic = ANY(%s) AND cluster_id = %s
    ) AS parts ORDER BY topic, generation, partition, part
"""
"""Index: observed_pkey, generations_pkey, and batches_lineage_idx or batches_slice_excl."""

TAILS = """
    SELECT wanted.*, tail.* FROM unnest(%(topics)b::text[], %(generations)b::int[], %(partitions)b::int[])
        AS wanted (topic, generation, partition), LATERAL (
        (SELECT m."offset", m.timestamp, m.digest FROM messages AS m
         WHERE m.topic = wanted.topic AND m.generation = wanted.generation AND m.partition = wanted.partition
         ORDER BY m."offset" DESC LIMIT %(most)s)
        UNION ALL
        (SELECT d."offset", d.timestamp, kept.digest FROM (
            SELECT * FROM duplicates AS copy
            WHERE copy.topic = wanted.topic AND copy.generation = wanted.generation
                  AND copy.partition = wanted.partition
            ORDER BY copy."offset" DESC LIMIT %(most)s
         ) AS d LEFT JOIN messages AS kept ON kept.uuid = d.uuid)
        ORDER BY 1 DESC LIMIT %(most)s
    ) AS tail
    ORDER BY wanted.topic, wanted.generation, wanted.partition, tail."offset"
"""
"""Index: messages_offset_idx, duplicates_pkey, messages_uuid_idx: a few steps from the end of each a log."""

# --- ledger

COVERAGE = """
    SELECT topic, generation, partition, lower(covered), upper(covered)
    FROM (
        SELECT topic, generation, partition, unnest(range_agg(offsets)) AS covered
        FROM batches WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
        GROUP BY topic, generation, partition
    ) AS logs
    ORDER BY topic, generation, partition, covered
"""
"""Index: batches_lineage_idx, for some topics. Postgres merges what touches: ranges come normalized."""

LEDGER = """
    SELECT topic, generation, partition, lower(offsets), upper(offsets), outcome, reason,
           archived, duplicates, absent, bytes, run_id, created_at
    FROM batches WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
    ORDER BY topic COLLATE "C", generation, partition, offsets
"""
"""Index: batches_lineage_idx, for some topics."""

ADD_BATCH = """
    INSERT INTO batches (topic, generation, partition, offsets, outcome, reason, archived, duplicates, absent,
                         bytes, first_timestamp, last_timestamp, run_id)
    VALUES (%s, %s, %s, int8range(%s, %s), %s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT ON CONSTRAINT batches_slice_excl DO NOTHING
    RETURNING id
"""
"""Index: batches_slice_excl. No row back: somebody holds a part of the slice. With ON CONFLICT two who come at
once wait for one another in order; a plain insert would let each wait for the other, a deadlock."""

HOLDERS = """
    SELECT id, lower(offsets), upper(offsets), outcome, run_id, created_at
    FROM batches
    WHERE topic = %s AND generation = %s AND partition = %s AND offsets && int8range(%s, %s)
    ORDER BY offsets LIMIT 3
"""
"""Index: batches_slice_excl."""

_NEIGHBOURS = """
    SELECT *, lower(offsets) IS DISTINCT FROM lag(upper(offsets)) OVER (
        PARTITION BY topic, generation, partition, outcome, reason ORDER BY offsets) AS starts
"""
"""Rows that follow one another without a hole, of one outcome and reason; ``starts`` is where a run of them begins.
No other row can stand between two that touch: the exclusion constraint forbids it."""

MERGEABLE = f"""
    SELECT DISTINCT topic, generation, partition
    FROM ({_NEIGHBOURS} FROM batches WHERE created_at < %s) AS marked
    WHERE NOT starts
"""  # noqa: S608 (put together from constants)
"""Index: none; reads the ledger once, which merging keeps small."""

MERGE = f"""
    WITH locked AS MATERIALIZED (
        SELECT * FROM batches
        WHERE topic = %(topic)s AND generation = %(generation)s AND partition = %(partition)s
              AND created_at < %(before)s
        ORDER BY offsets FOR UPDATE
    ), marked AS ({_NEIGHBOURS} FROM locked
    ), numbered AS (
        SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY outcome, reason ORDER BY offsets) AS run
        FROM marked
    ), merged AS (
        SELECT topic, generation, partition, int8range(min(lower(offsets)), max(upper(offsets))) AS offsets,
               outcome, reason, sum(archived) AS archived, sum(duplicates) AS duplicates, sum(absent) AS absent,
               sum(bytes) AS bytes, min(first_timestamp) AS first_timestamp, max(last_timestamp) AS last_timestamp,
               CASE WHEN min(run_id) = max(run_id) THEN min(run_id) ELSE '' END AS run_id,
               max(created_at) AS created_at, array_agg(id) AS ids
        FROM numbered GROUP BY topic, generation, partition, outcome, reason, run HAVING count(*) > 1
    ), gone AS (
        DELETE FROM batches WHERE id IN (SELECT unnest(ids) FROM merged) RETURNING id
    ), added AS (
        INSERT INTO batches (topic, generation, partition, offsets, outcome, reason, archived, duplicates, absent,
                             bytes, first_timestamp, last_timestamp, run_id, created_at)
        SELECT topic, generation, partition, offsets, outcome, reason, archived, duplicates, absent,
               bytes, first_timestamp, last_timestamp, run_id, created_at
        FROM merged WHERE (SELECT count(*) FROM gone) > 0
        RETURNING id
    )
    SELECT (SELECT count(*) FROM gone) - (SELECT count(*) FROM added)
"""  # noqa: S608 (put together from constants)
"""Index: batches_lineage_idx, batches_pkey. Without FOR UPDATE, numbers that somebody changes meanwhile would be added up as
they were before. The count over ``gone`` makes the deletes come first; the exclusion
constraint then sees them as gone. A merge has no hole, so no slice that anybody may still commit overlaps it."""

# --- messages

MESSAGE_COLUMNS = {
    "topic": "text",
    "generation": "int4",
    "partition": "int4",
    '"offset"': "int8",
    "timestamp": "int8",
    "timestamp_type": "int2",
    "uuid": "uuid",
    "is_client_uuid": "bool",
    "digest": "bytea",
    "key": "text",
    "bucket": "text",
    "position": "int8",
    "size": "int4",
    "crc32": "int8",
    "message_crc32": "int8",
    "public": "bool",
    "direct_upload": "bool",
    "media_type": "text",
    "title": "text",
    "sender": "text",
    "file_name": "text",
    "originator": "text",
    "retracted": "bool",
}
"""What a Row is, column by column, with the types that a binary COPY has to state."""

_ROW = ", ".join(MESSAGE_COLUMNS)

COPY_MESSAGES = f"COPY messages ({_ROW}, batch) FROM STDIN (FORMAT BINARY)"
"""Index: each of messages. A UUID or offset that is there already breaks messages_uuid_idx or
messages_offset_idx, and with it the transaction. Straight into the table is one pass less than by way of a
temporary table with ON CONFLICT, and makes no tables: one a second would be 86,400 a day in Postgres' own catalog."""

TAKEN_UUIDS = "SELECT uuid FROM messages WHERE uuid = ANY(%b) LIMIT 10"
"""Index: messages_uuid_idx."""

REFERRING = "LOCK TABLE duplicates IN ROW EXCLUSIVE MODE"
"""What inserting a duplicate takes anyway, before it is looked whether what it repeats is there: who takes messages away
waits for it, and it for him (``sql_removals.TAKING_AWAY``). It needs the right to insert: a reader, who could hold an
advisory lock, cannot hold this. Locking the rows themselves takes the right to change them, which no archiver needs.

Whoever changes what is there takes locks in one order, so that no two wait for each other: this one or ``TAKING_AWAY``
before any row; then ledger rows, by log and offset, all that are wanted; then messages and duplicates; the topic's
summary; pending deletes. Only who holds ``TAKING_AWAY`` may take rows in another order: it keeps all others out. A
commit has its own ledger row before: nobody waits for that one but who would commit the same offsets, and he holds nothing yet."""

REFERRED = "SELECT uuid FROM messages WHERE uuid = ANY(%b)"
"""Index: messages_uuid_idx."""

KNOWN_BY_UUID = """
    SELECT uuid, topic, timestamp, message_crc32, is_client_uuid, digest
    FROM messages WHERE uuid = ANY(%b)
"""
"""Index: messages_uuid_idx."""

HAS_ADOPTED = """
    SELECT topic FROM unnest(%s::text[]) AS wanted (topic)
    WHERE EXISTS (SELECT FROM messages WHERE messages.topic = wanted.topic AND digest IS NULL)
"""
"""Index: messages_adopted_idx: one probe a topic."""

KNOWN_ADOPTED = """
    SELECT uuid, topic, timestamp, message_crc32, is_client_uuid, digest
    FROM messages JOIN unnest(%b::text[], %b::bigint[], %b::bigint[]) AS wanted (topic, timestamp, message_crc32)
         USING (topic, timestamp, message_crc32)
    WHERE digest IS NULL
"""
"""Index: messages_adopted_idx."""

FIND = f"SELECT {_ROW} FROM messages WHERE uuid = %s"  # noqa: S608 (put together from constants)
"""Index: messages_uuid_idx."""

ROWS = f"""
    SELECT {_ROW} FROM messages WHERE topic = %s ORDER BY generation, partition, "offset"
"""  # noqa: S608 (put together from constants)
"""Index: messages_offset_idx, in its order; nulls, which adopted rows have, stand last."""

# --- messages that meet a query

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
"""  # noqa: S608 (put together from constants)
"""Index: besides, batches_lineage_idx, one step in it a topic; the two other tables are of a row a topic or so."""

SELECTED = {
    "topic": "topic = %(topic)s",
    "topics": "topic = ANY(%(topics)s)",
    "since_ms": "timestamp >= %(since_ms)s",
    "until_ms": "timestamp < %(until_ms)s",
    "senders": "sender = ANY(%(senders)s)",
    "media_types": "media_type = ANY(%(media_types)s)",
    "uuids": "uuid = ANY(%(uuids)s)",
    "generation": "generation = %(generation)s",
    "partition": "partition = %(partition)s",
    "start": '"offset" >= %(start)s',
    "stop": '"offset" < %(stop)s',
    "retracted": "retracted = %(retracted)s",
    "adopted": "(generation IS NULL) = %(adopted)s",
}
"""What each bound of a query adds to the condition of the following three, which are joined to them by AND."""

SELECT_BY_PLACE = (
    f"SELECT {_ROW} FROM messages WHERE generation IS NOT NULL",  # noqa: S608 (put together from constants)
    'ORDER BY generation, partition, "offset" LIMIT %(limit)s',
)
"""Of one topic. Index: messages_offset_idx, in its order, so that the first row comes at once."""

SELECT_ADOPTED = (
    f"SELECT {_ROW} FROM messages WHERE generation IS NULL AND digest IS NULL",  # noqa: S608 (likewise)
    "ORDER BY timestamp, id LIMIT %(limit)s",
)
"""Of one topic: the adopted rows, which have no place. Index: messages_adopted_idx; only rows of one millisecond are
sorted."""

SELECT_UUIDS_BY_PLACE = (
    f"SELECT {_ROW} FROM messages WHERE true",  # noqa: S608 (likewise)
    'ORDER BY topic COLLATE "C", generation, partition, "offset", timestamp, id LIMIT %(limit)s',
)
"""Of all topics at once, where UUIDs are named: those are what has to be sorted. Index: messages_uuid_idx."""

SELECT_BY_ID = (
    f"SELECT {_ROW} FROM messages WHERE true",  # noqa: S608 (likewise)
    "ORDER BY id LIMIT %(limit)s",
)
"""Index: messages_pkey, in its order."""

SELECT_SETTINGS = """
    SELECT set_config('transaction_read_only', 'on', true),
           set_config('statement_timeout', %(statement_ms)s, true),
           set_config('idle_in_transaction_session_timeout', '0', true),
           set_config('standard_conforming_strings', 'on', true),
           set_config('cursor_tuple_fraction', %(fraction)s, true)
"""
"""For one transaction, which cannot be made writable again once it has read. The timeout bounds each page of rows that is fetched, not the whole stream."""

VOLATILE = "SELECT DISTINCT proname::text FROM pg_catalog.pg_proc WHERE proname = ANY(%s::text[]) AND provolatile = 'v'"
"""Which of these names a function has that may do something. Index: pg_proc_proname_args_nsp_index."""

CONDITION_CHECKS = (
    ("SELECT FROM messages WHERE (\n", "\n)"),
    ("SELECT FROM messages WHERE ARRAY[\n", "\n] IS NOT NULL"),
)
"""What a user's condition is put between to be parsed, and not run. What closes the parenthesis of the first closes
none in the second, and the other way round: both parse only where the condition stays within."""

# --- what else is known of one message

DUPLICATES_OF = """
    SELECT generation, partition, "offset", timestamp, uuid, reason, count(*) OVER ()
    FROM duplicates WHERE topic = %s AND uuid = %s AND generation > 0 ORDER BY generation, partition, "offset" LIMIT %s
"""
"""Index: duplicates_uuid_idx."""

COLLISIONS_OF = """
    SELECT topic, generation, partition, lower(offsets), (detail ->> 'client_uuid')::uuid, uuid, count(*) OVER ()
    FROM findings WHERE kind = %(kind)s AND (uuid = %(uuid)s OR detail @> jsonb_build_object('client_uuid', %(uuid)s::uuid))
    ORDER BY topic COLLATE "C", generation, partition, offsets LIMIT %(limit)s
"""
"""Index: none; reads the collisions, which are few."""

# --- summary by topic, as archive-core's readers know it

ADD_TO_TOPIC = """
    INSERT INTO topics (topic, e_timestamp, l_timestamp, n_messages, n_bytes) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (topic) DO UPDATE
    SET e_timestamp = least(topics.e_timestamp, EXCLUDED.e_timestamp),
        l_timestamp = greatest(topics.l_timestamp, EXCLUDED.l_timestamp),
        n_messages = topics.n_messages + EXCLUDED.n_messages,
        n_bytes = topics.n_bytes + EXCLUDED.n_bytes
"""
"""Index: unique_topic. Last in its transaction: other partitions of the topic wait for this row."""

SUMMARIES = """
    SELECT topic, coalesce(n_messages, 0), coalesce(duplicates, 0), coalesce(absent, 0), coalesce(lost, 0),
           coalesce(skipped, 0), coalesce(n_bytes, 0), e_timestamp, l_timestamp, last_batch_at,
           coalesce(pruned, 0)
    FROM (
        SELECT topic, sum(duplicates)::bigint AS duplicates, sum(absent)::bigint AS absent,
               sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'lost')::bigint AS lost,
               sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'skipped')::bigint AS skipped,
               sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'pruned')::bigint AS pruned,
               max(created_at) AS last_batch_at
        FROM batches WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
        GROUP BY topic
    ) AS dealt_with
    FULL JOIN (
        SELECT topic, n_messages, n_bytes,
               CASE WHEN n_messages > 0 THEN e_timestamp END AS e_timestamp,
               CASE WHEN n_messages > 0 THEN l_timestamp END AS l_timestamp
        FROM topics WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
    ) AS archived USING (topic)
    ORDER BY topic COLLATE "C"
"""
"""Index: batches_lineage_idx and unique_topic, for some topics."""

SUMMARIES_SINCE = """
    SELECT topic, sum(archived)::bigint, sum(duplicates)::bigint, sum(absent)::bigint,
           coalesce(sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'lost'), 0)::bigint,
           coalesce(sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'skipped'), 0)::bigint,
           sum(bytes)::bigint, min(first_timestamp), max(last_timestamp), max(created_at),
           coalesce(sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'pruned'), 0)::bigint
    FROM batches
    WHERE created_at >= %(since)s AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
    GROUP BY topic ORDER BY topic COLLATE "C"
"""
"""Index: batches_created_idx."""

# --- duplicates and findings

DUPLICATE_COLUMNS = {
    "topic": "text",
    "generation": "int4",
    "partition": "int4",
    '"offset"': "int8",
    "timestamp": "int8",
    "uuid": "uuid",
    "reason": "text",
}

COPY_DUPLICATES = f"COPY duplicates ({', '.join(DUPLICATE_COLUMNS)}, batch) FROM STDIN (FORMAT BINARY)"
"""Index: duplicates_pkey."""

DUPLICATES = """
    SELECT generation, partition, "offset", timestamp, uuid, reason
    FROM duplicates WHERE topic = %s AND generation > 0 ORDER BY generation, partition, "offset"
"""
"""Index: duplicates_pkey, in its order. Generation 0 is of adopted copies, which have no place."""

COLLISION = "uuid_collision"
"""The kind of finding that a collision is."""

ADD_COLLISION = """
    INSERT INTO findings (kind, topic, generation, partition, offsets, uuid, detail, resolved_at, resolution)
    VALUES (%(kind)s, %(topic)s, %(generation)s, %(partition)s, int8range(%(offset)s, %(offset)s, '[]'),
            %(archived_as)s,
            jsonb_build_object('client_uuid', %(client_uuid)s::uuid, 'archived_as', %(archived_as)s::uuid),
            now(), 'archived under a UUID derived from its content')
"""
"""Index: findings_topic_idx. Resolved as it is made: the archive holds both messages."""

COLLISIONS = """
    SELECT generation, partition, lower(offsets), (detail ->> 'client_uuid')::uuid, (detail ->> 'archived_as')::uuid
    FROM findings WHERE topic = %s AND kind = %s ORDER BY generation, partition, offsets
"""
"""Index: findings_topic_idx."""
