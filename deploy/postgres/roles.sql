-- Who may do what in the catalog's database: archiver, reader, cleaner, repairer. None of them owns a table.
--
-- Run it in that database after hop-archive migrate, and again after an upgrade that has migrations, as an administrator, or
-- as the owner of the tables (who runs hop-archive migrate) if that one may create roles or the four are there already. It
-- changes nothing that is right already:
--
--   psql --set ON_ERROR_STOP=1 --single-transaction --file deploy/postgres/roles.sql "$CATALOG"
--
-- The roles cannot log in. Give each program a login of its own that has one:
--
--   CREATE ROLE hop_archive_prod LOGIN PASSWORD '...' IN ROLE hop_archive_archiver;
--
-- The tables are taken to be in the first schema of the search path (public, unless you say otherwise:
-- PGOPTIONS='--search_path=NAME').

DO $do$
DECLARE wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['hop_archive_archiver', 'hop_archive_reader', 'hop_archive_cleaner',
                                  'hop_archive_repairer'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO hop_archive_archiver, hop_archive_reader, hop_archive_cleaner,'
                   ' hop_archive_repairer', current_schema());
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());
    -- All may read all, Alembic's table too: each program looks there whether the catalog is what it needs.
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO hop_archive_archiver, hop_archive_reader,'
                   ' hop_archive_cleaner, hop_archive_repairer', current_schema());
    -- And who numbers rows may set right a sequence that stands behind its table, as after a dump was restored.
    EXECUTE format('GRANT SELECT ON ALL SEQUENCES IN SCHEMA %I TO hop_archive_archiver, hop_archive_reader,'
                   ' hop_archive_cleaner, hop_archive_repairer', current_schema());
    EXECUTE format('GRANT UPDATE ON ALL SEQUENCES IN SCHEMA %I TO hop_archive_archiver, hop_archive_cleaner,'
                   ' hop_archive_repairer', current_schema());
END
$do$;

-- The archiver adds. It counts what it added (topics), notes what it last saw (observed) and what it found, and
-- merges neighbouring rows of the ledger, which puts one row in the place of several. It cannot take away a
-- message, nor what says that one is a duplicate, nor change either.
GRANT INSERT ON messages, duplicates, generations, logs TO hop_archive_archiver;
GRANT INSERT, UPDATE ON topics, observed, findings TO hop_archive_archiver;
GRANT INSERT, UPDATE, DELETE ON batches TO hop_archive_archiver;

-- It also writes down what was verified and restored, and how topics and consumer groups were set up.
GRANT INSERT, DELETE ON verified, checked TO hop_archive_archiver;
GRANT INSERT, UPDATE ON restores, snapshots TO hop_archive_archiver;

-- Two that would be in each other's way take turns by a row of held, or by a lock of a table that takes the right to change it:
-- a reader has neither, and holds nobody up.
GRANT INSERT, UPDATE ON held TO hop_archive_archiver;

-- Archivers that work at the same time say who archives what, so that nobody does the same again. It guards nothing.
GRANT INSERT, UPDATE, DELETE ON archivers, claims TO hop_archive_archiver;

-- It fills the text index, and notes how far it is, as it does of looks at new messages. Whose content was removed has no text: what a rebuild notes of that takes it away.
GRANT INSERT, DELETE ON message_ts TO hop_archive_archiver;
GRANT INSERT, UPDATE ON row_progress TO hop_archive_archiver;

-- Where the catalog has to be rebuilt from the store, it says of a generation where it turned out to come from, and notes
-- whose content was removed.
GRANT UPDATE (cluster_id, topic_id, reason) ON generations TO hop_archive_archiver;
GRANT INSERT ON suppressions TO hop_archive_archiver;

-- The cleaner takes away: test messages, what a policy prunes, duplicates that slipped in, content that must go. The
-- ledger says so in the place of what it said before; objects to be deleted are written down until they are. It adds no
-- message, and changes of one only where its document is, and what described a content that is gone. The trigger that
-- counts deleted messages acts as who deletes, hence topics.
GRANT DELETE ON messages, duplicates TO hop_archive_cleaner;
GRANT UPDATE (retracted, key, position, frame, frame_size, size, crc32, title, sender, file_name, originator) ON messages
    TO hop_archive_cleaner;
GRANT INSERT, UPDATE ON duplicates, findings TO hop_archive_cleaner;
GRANT UPDATE ON topics TO hop_archive_cleaner;
GRANT INSERT, UPDATE, DELETE ON batches, condemned TO hop_archive_cleaner;
GRANT INSERT ON suppressions TO hop_archive_cleaner;

-- It moves documents into fewer objects, some at a time, while nobody else does, and notes how far it is.
GRANT INSERT, UPDATE ON compacted, held TO hop_archive_cleaner;
GRANT DELETE ON message_ts TO hop_archive_cleaner;

-- Reading a test topic dry records what it skips, and so what is known of the topic.
GRANT INSERT ON generations TO hop_archive_cleaner;
GRANT INSERT, UPDATE ON observed TO hop_archive_cleaner;

-- The repairer mends what verification found: it corrects rows, puts back those that the ledger counts, and makes
-- ledger and summary right. It takes away no message; of duplicates only what repeats the row at its own offset.
GRANT INSERT, UPDATE ON messages TO hop_archive_repairer;
GRANT INSERT, DELETE ON duplicates TO hop_archive_repairer;
GRANT INSERT ON logs TO hop_archive_repairer;
-- Before it puts aside what rows name elsewhere, it calls a log gone that another generation followed: no run commits to it then.
GRANT UPDATE (leader_epoch) ON observed TO hop_archive_repairer;
GRANT INSERT, UPDATE ON batches, topics, findings TO hop_archive_repairer;
GRANT INSERT, DELETE ON verified, checked TO hop_archive_repairer;

-- It corrects the media types of all rows, some at a time; and a text goes with the UUID that turned out to be another.
GRANT INSERT, UPDATE ON held, row_progress TO hop_archive_repairer;
GRANT DELETE ON message_ts TO hop_archive_repairer;
