"""What upkeep and restoring write down: what was verified, taken away, restored, and how topics were set up."""

from __future__ import annotations

from hop_archive.catalog.postgres.migrations.steps import Index, run, statements

revision = "0003"
down_revision = "0002"

_STATEMENTS = (
    # Slices whose messages a policy took away, rows and objects both: dealt with, so never read again.
    """
    ALTER TABLE batches DROP CONSTRAINT batches_outcome_check,
        ADD CONSTRAINT batches_outcome_check CHECK (outcome IN ('archived', 'lost', 'skipped', 'pruned'))
    """,
    # When the documents of a range of offsets were last read and compared with their rows. Ranges of one log do
    # not overlap. Adopted rows, which have no place, are one range of their topic: generation 0, partition 0.
    """
    CREATE TABLE verified (
        topic text NOT NULL,
        generation integer NOT NULL,
        partition integer NOT NULL,
        start bigint NOT NULL,
        stop bigint NOT NULL CHECK (start < stop),
        verified_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (topic, generation, partition, start)
    )
    """,
    # Messages whose content was removed for good: whatever comes back by restore, rebuild or repair is held to this.
    """
    CREATE TABLE suppressions (
        uuid uuid PRIMARY KEY,
        topic text NOT NULL,
        reason text NOT NULL,
        suppressed_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    # Objects that a transaction left without a row, to be deleted after it: by whoever finds them here, if need be. In a
    # backup's bucket the copies, too; recorded_bucket is what rows called the bucket. Claimed: somebody deletes it now, so no
    # row may name it any more. Empty when nothing is under way.
    """
    CREATE TABLE condemned (
        bucket text NOT NULL,
        key text NOT NULL,
        recorded_bucket text NOT NULL,
        topic text NOT NULL,
        command text NOT NULL,
        reason text NOT NULL,
        run_id text NOT NULL DEFAULT '',
        condemned_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        claimed boolean NOT NULL DEFAULT false,
        PRIMARY KEY (bucket, key)
    )
    """,
    # An adopted row has no place. Where it turned out to be a copy, its number among the messages stands for its offset.
    """
    COMMENT ON TABLE duplicates IS
    'Generation 0, partition 0: a row of another archiver that was a copy; its offset is the id it had in messages.'
    """,
    # One row a restore. Its fingerprint is of what was asked for: the same command finds its row, and goes on.
    """
    CREATE TABLE restores (
        id bigserial PRIMARY KEY,
        fingerprint text NOT NULL,
        target text NOT NULL,
        request jsonb NOT NULL,
        progress jsonb NOT NULL DEFAULT '{}',
        outcome text NOT NULL DEFAULT 'running' CHECK (outcome IN ('running', 'done', 'failed', 'abandoned')),
        report jsonb NOT NULL DEFAULT '{}',
        started_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        ended_at timestamptz
    )
    """,
    "CREATE UNIQUE INDEX restores_running_idx ON restores (fingerprint) WHERE outcome = 'running'",
    # The last good answer of a cluster about one thing: a topic's settings, a consumer group's offsets.
    """
    CREATE TABLE snapshots (
        cluster_id text NOT NULL,
        kind text NOT NULL CHECK (kind IN ('topic', 'group')),
        name text NOT NULL,
        content jsonb NOT NULL,
        taken_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (cluster_id, kind, name)
    )
    """,
)

STEPS = (
    # Which messages were taken back: few, so the index costs nothing. A snapshot of the catalog asks each time.
    Index("messages_retracted_idx", "messages", "(topic) WHERE retracted"),
    statements("tables of upkeep and restoring", *_STATEMENTS),
)


def upgrade() -> None:
    """Add them; what commits waits for one look at the ledger."""
    run(STEPS)
