"""Databases that tests make for themselves, and drop."""

from __future__ import annotations

import psycopg
from psycopg import sql

END_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def drop_database(connection: psycopg.Connection, name: str) -> None:
    """Drop a database, if it is there, whoever is connected to it; over a connection that commits by itself.

    Not ``WITH (FORCE)``, which is refused to who is no superuser while an autovacuum worker looks at the database: without it,
    Postgres sends that away by itself, and waits for up to five seconds until the sessions that were ended have gone.
    """
    connection.execute(END_SESSIONS, [name])
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
