"""The catalog, made new or around the tables of an archive-core catalog that is there already."""

from __future__ import annotations

from sqlalchemy import Connection

from hop_archive.catalog.postgres.migrations.steps import Index, MigrationWork, analyze, run
from hop_archive.errors import ConfigurationError

revision = "0001"
down_revision = None

# Names, types, defaults and not-null of archive-core, whose readers depend on them. So do names: where its own
# migrations run again later, their IF NOT EXISTS finds messages_uuid_idx, unique_topic, trigger_update_topics.
_MESSAGES = """
    CREATE TABLE IF NOT EXISTS messages (
        id bigserial PRIMARY KEY,
        topic text NOT NULL,
        timestamp bigint NOT NULL,
        uuid uuid NOT NULL CONSTRAINT messages_uuid_idx UNIQUE,
        size integer NOT NULL,
        key text NOT NULL,
        bucket text NOT NULL,
        crc32 bigint NOT NULL,
        is_client_uuid boolean NOT NULL,
        public boolean NOT NULL,
        direct_upload boolean NOT NULL,
        message_crc32 bigint NOT NULL,
        title text NOT NULL DEFAULT '',
        sender text NOT NULL DEFAULT '',
        media_type text NOT NULL DEFAULT '',
        file_name text NOT NULL DEFAULT '',
        originator text NOT NULL DEFAULT '',
        retracted boolean NOT NULL DEFAULT false
    )
"""
_ARCHIVE_CORE_COLUMNS = frozenset(
    [
        "id",
        "topic",
        "timestamp",
        "uuid",
        "size",
        "key",
        "bucket",
        "crc32",
        "is_client_uuid",
        "public",
        "direct_upload",
        "message_crc32",
        "title",
        "sender",
        "media_type",
        "file_name",
        "originator",
        "retracted",
    ]
)
_COLUMNS = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = 'messages'::regclass AND attnum > 0 AND NOT attisdropped
"""
_UNIQUE_UUID = """
    SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
    WHERE indrelid = 'messages'::regclass AND indisunique AND indnatts = 1 AND indpred IS NULL AND attname = 'uuid'
"""

# Null in adopted rows. Adding a column without a default rewrites nothing, however large the table.
_OUR_COLUMNS = """
    ALTER TABLE messages
        ADD COLUMN generation integer,
        ADD COLUMN partition integer,
        ADD COLUMN "offset" bigint,
        ADD COLUMN timestamp_type smallint,
        ADD COLUMN digest bytea,
        ADD COLUMN position bigint,
        ADD COLUMN batch bigint
"""
_COMMENT = """
    COMMENT ON COLUMN messages.batch IS
    'The batch as it was committed. Merging gives ledger rows new ids: find today''s by offset, not by this.'
"""
_BATCHES = """
    CREATE TABLE batches (
        id bigserial PRIMARY KEY,
        topic text NOT NULL,
        generation integer NOT NULL,
        partition integer NOT NULL,
        offsets int8range NOT NULL CHECK (NOT isempty(offsets) AND lower(offsets) >= 0),
        outcome text NOT NULL CHECK (outcome IN ('archived', 'lost', 'skipped')),
        reason text NOT NULL DEFAULT '',
        archived bigint NOT NULL DEFAULT 0,
        duplicates bigint NOT NULL DEFAULT 0,
        absent bigint NOT NULL DEFAULT 0,
        bytes bigint NOT NULL DEFAULT 0,
        first_timestamp bigint,
        last_timestamp bigint,
        run_id text NOT NULL DEFAULT '',
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT batches_accounted_for CHECK (archived + duplicates + absent
            = CASE outcome WHEN 'archived' THEN upper(offsets) - lower(offsets) ELSE 0 END),
        CONSTRAINT batches_slice_excl EXCLUDE USING gist
            (topic WITH =, generation WITH =, partition WITH =, offsets WITH &&)
    )
"""
_BATCH_INDEXES = (
    "CREATE INDEX batches_lineage_idx ON batches (topic, generation, partition)",
    "CREATE INDEX batches_created_idx ON batches (created_at)",
)

_DUPLICATES = """
    CREATE TABLE duplicates (
        topic text NOT NULL,
        generation integer NOT NULL,
        partition integer NOT NULL,
        "offset" bigint NOT NULL,
        timestamp bigint NOT NULL,
        uuid uuid NOT NULL,
        reason text NOT NULL,
        batch bigint NOT NULL,
        PRIMARY KEY (topic, generation, partition, "offset")
    )
"""
_GENERATIONS = """
    CREATE TABLE generations (
        topic text NOT NULL,
        generation integer NOT NULL,
        cluster_id text NOT NULL,
        topic_id text,
        detected_at timestamptz NOT NULL DEFAULT now(),
        reason text NOT NULL,
        PRIMARY KEY (topic, generation)
    )
"""
_OBSERVED = """
    CREATE TABLE observed (
        topic text NOT NULL,
        generation integer NOT NULL,
        partition integer NOT NULL,
        low bigint NOT NULL,
        stable bigint NOT NULL,
        high bigint NOT NULL,
        observed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (topic, generation, partition)
    )
"""
_FINDINGS = """
    CREATE TABLE findings (
        id bigserial PRIMARY KEY,
        kind text NOT NULL,
        topic text NOT NULL,
        generation integer,
        partition integer,
        offsets int8range,
        uuid uuid,
        bucket text,
        key text,
        detail jsonb NOT NULL DEFAULT '{}',
        first_seen timestamptz NOT NULL DEFAULT now(),
        last_seen timestamptz NOT NULL DEFAULT now(),
        resolved_at timestamptz,
        resolution text NOT NULL DEFAULT ''
    )
"""
_FINDINGS_INDEX = "CREATE INDEX findings_topic_idx ON findings (topic, kind)"

_TOPICS = """
    CREATE TABLE IF NOT EXISTS topics (
        topic text CONSTRAINT unique_topic UNIQUE,
        e_timestamp bigint,
        l_timestamp bigint,
        n_messages bigint
    )
"""
_TOPIC_BYTES = "ALTER TABLE topics ADD COLUMN n_bytes bigint NOT NULL DEFAULT 0"
# What a summary lacks is the same at any time once the triggers below count: rows and their count are committed together. So it
# is found with one look at one moment, however long that takes, and added later; nobody waits meanwhile. n_messages may be null.
_LACKING = """
    WITH found AS (
        SELECT topic, min(timestamp) AS first, max(timestamp) AS last, count(*) AS messages, sum(size) AS bytes
        FROM messages GROUP BY topic
    )
    SELECT topic, first, last, messages - coalesce(n_messages, 0), bytes - coalesce(n_bytes, 0)
    FROM found LEFT JOIN topics USING (topic) ORDER BY topic
"""
_COMPLETE_TOPIC = """
    INSERT INTO topics (topic, e_timestamp, l_timestamp, n_messages, n_bytes) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (topic) DO UPDATE
    SET e_timestamp = least(topics.e_timestamp, EXCLUDED.e_timestamp),
        l_timestamp = greatest(topics.l_timestamp, EXCLUDED.l_timestamp),
        n_messages = coalesce(topics.n_messages, 0) + EXCLUDED.n_messages,
        n_bytes = topics.n_bytes + EXCLUDED.n_bytes
"""

_DROP_ROW_TRIGGERS = """
    DO $do$
    DECLARE found record;
    BEGIN
        FOR found IN SELECT tgname FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
                     WHERE tgrelid = 'messages'::regclass AND NOT tgisinternal AND proname = 'update_topics'
        LOOP
            EXECUTE 'DROP TRIGGER ' || quote_ident(found.tgname) || ' ON messages';
        END LOOP;
    END
    $do$
"""
# Rows of our own are counted once a batch. An archive-core that still writes here knows nothing of that, so the
# rows it writes, which have no digest, are counted as it counts them; for ours the WHEN is all that is evaluated.
_COUNT_FOREIGN = """
    CREATE FUNCTION hop_archive_count_foreign() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $do$
    BEGIN
        INSERT INTO topics (topic, e_timestamp, l_timestamp, n_messages, n_bytes)
        VALUES (NEW.topic, NEW.timestamp, NEW.timestamp, 1, NEW.size)
        ON CONFLICT (topic) DO UPDATE
        SET e_timestamp = least(topics.e_timestamp, EXCLUDED.e_timestamp),
            l_timestamp = greatest(topics.l_timestamp, EXCLUDED.l_timestamp),
            n_messages = topics.n_messages + 1, n_bytes = topics.n_bytes + EXCLUDED.n_bytes;
        RETURN NULL;
    END
    $do$
"""
_COUNT_FOREIGN_TRIGGER = """
    CREATE TRIGGER trigger_update_topics AFTER INSERT ON messages
    FOR EACH ROW WHEN (NEW.digest IS NULL) EXECUTE FUNCTION hop_archive_count_foreign()
"""
# Once a statement, whoever deletes. The range of timestamps stays as wide as it was: too wide is harmless.
_COUNT_DELETED = """
    CREATE FUNCTION hop_archive_count_deleted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $do$
    BEGIN
        UPDATE topics SET n_messages = n_messages - gone.messages, n_bytes = n_bytes - gone.bytes
        FROM (SELECT topic, count(*) AS messages, sum(size) AS bytes FROM deleted GROUP BY topic) AS gone
        WHERE topics.topic = gone.topic;
        RETURN NULL;
    END
    $do$
"""
_COUNT_DELETED_TRIGGER = """
    CREATE TRIGGER hop_archive_count_deleted AFTER DELETE ON messages REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION hop_archive_count_deleted()
"""


_IS_BEGUN = "SELECT to_regprocedure('hop_archive_count_deleted()') IS NOT NULL"
"""Whether an interrupted run made the tables: all in one transaction, and this is the last of it."""


def upgrade() -> None:
    """Make the catalog; what archive-core made stays as it is, with our columns beside its own.

    Its tables are locked for the moment that new columns and triggers take. All that goes over its rows keeps nobody waiting.
    """
    run(STEPS)


def downgrade() -> None:
    """Refused: going back would drop the ledger, which nothing else holds."""
    raise ConfigurationError("the catalog has no way back: restore the database from its backup instead.")


def _make_tables(connection: Connection) -> None:
    """What others wait for comes last: ``messages``, then what a transaction that writes to it writes after it."""
    if connection.exec_driver_sql(_IS_BEGUN).scalar_one():
        return
    _execute(connection, "CREATE EXTENSION IF NOT EXISTS btree_gist", _MESSAGES)
    _refuse_unfit_messages(connection)
    _execute(
        connection,
        _BATCHES,
        *_BATCH_INDEXES,
        _DUPLICATES,
        _GENERATIONS,
        _OBSERVED,
        _FINDINGS,
        _FINDINGS_INDEX,
    )
    _execute(connection, _OUR_COLUMNS, _COMMENT, _DROP_ROW_TRIGGERS, _TOPICS, _TOPIC_BYTES)
    _execute(connection, _COUNT_FOREIGN, _COUNT_FOREIGN_TRIGGER, _COUNT_DELETED, _COUNT_DELETED_TRIGGER)


def _complete_topics(connection: Connection) -> None:
    """Read all rows, then correct a row a topic, in order; those are held until the end, which is at once."""
    lacking = connection.exec_driver_sql(_LACKING).all()
    for topic in lacking:
        connection.exec_driver_sql(_COMPLETE_TOPIC, tuple(topic))


def _execute(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)


def _refuse_unfit_messages(connection: Connection) -> None:
    """A table ``messages`` that was there before has to be archive-core's, with all of its own migrations."""
    found = set(connection.exec_driver_sql(_COLUMNS).scalars())
    missing = sorted(_ARCHIVE_CORE_COLUMNS - found)
    if missing or connection.exec_driver_sql(_UNIQUE_UUID).first() is None:
        what = f"has no {', '.join(missing)}" if missing else "has no unique index on uuid"
        raise ConfigurationError(
            f"the database has a table messages that {what}.",
            remedy="If archive-core made it, run archive-core's newest migrations first; else take another schema.",
        )


STEPS = (
    MigrationWork("tables, columns and triggers of the catalog", _make_tables),
    Index("messages_topic_timestamp_idx", "messages", "(topic, timestamp)"),
    Index("messages_offset_idx", "messages", '(topic, generation, partition, "offset")', unique=True),
    Index("messages_adopted_idx", "messages", "(topic, timestamp, message_crc32) WHERE digest IS NULL"),
    Index("messages_timestamp_id_idx", "messages", "(timestamp, id) INCLUDE (topic, public)"),
    analyze("messages"),  # so that the planner knows at once how many rows have no digest
    MigrationWork("the summary of each topic", _complete_topics),
)
