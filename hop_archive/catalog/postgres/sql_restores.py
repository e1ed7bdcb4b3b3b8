"""SQL of restores, each statement with the index it relies on; see ``sql.py``."""

from __future__ import annotations

AT_ONCE = "SET LOCAL lock_timeout = '100ms'"
"""For what is to be refused rather than waited for; a name that is just being let go of is."""

MEASURE_BY_PLACE = (
    """SELECT count(*), coalesce(sum(size), 0)::bigint, coalesce(max(size), 0),
              min(timestamp) FILTER (WHERE timestamp > 0), max(timestamp) FILTER (WHERE timestamp > 0),
              count(*) FILTER (WHERE timestamp = 0), count(*) FILTER (WHERE timestamp_type = 1)
       FROM messages WHERE generation IS NOT NULL""",
    "",
)
"""Of one place. Index: messages_offset_idx."""

MEASURE_ADOPTED = (
    MEASURE_BY_PLACE[0].replace("generation IS NOT NULL", "generation IS NULL AND digest IS NULL"),
    "",
)
"""Of one topic's adopted rows. Index: messages_adopted_idx."""

_COLUMNS = "id, fingerprint, target, request, progress, outcome, report, started_at, updated_at"

BEGIN = """
    INSERT INTO restores (fingerprint, target, request) VALUES (%(fingerprint)s, %(target)s, %(request)s)
    ON CONFLICT (fingerprint) WHERE outcome = 'running' DO NOTHING
"""
"""Index: restores_running_idx."""

RUNNING = f"SELECT {_COLUMNS} FROM restores WHERE fingerprint = %(fingerprint)s AND outcome = 'running'"  # noqa: S608
"""Index: restores_running_idx."""

NOTE = """
    UPDATE restores
    SET progress = progress || coalesce(%(progress)s::jsonb, '{}'), report = coalesce(%(report)s::jsonb, report),
        outcome = coalesce(%(outcome)s::text, outcome), updated_at = now(),
        ended_at = CASE WHEN coalesce(%(outcome)s::text, outcome) <> 'running' THEN now() END
    WHERE id = %(number)s
"""
"""Index: restores_pkey."""

LATEST = f"""
    SELECT {_COLUMNS} FROM restores
    WHERE (NOT %(running_only)s OR outcome = 'running') AND %(fingerprint)s IN ('', fingerprint)
    ORDER BY id DESC LIMIT %(limit)s
"""  # noqa: S608 (put together from constants)
"""Index: restores_pkey, in its order."""
