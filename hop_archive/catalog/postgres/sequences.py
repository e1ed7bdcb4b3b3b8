"""The sequences that number rows, beside the tables that they number.

A sequence stands behind its table where rows came in by another way than through it: a dump that was restored without its
``setval``, logical replication, a copy of tables. What is numbered next then breaks the primary key; or, where rows of
those numbers were taken away, it gets numbers that readers of archive-core, who remember how far they read, have passed.
"""

from __future__ import annotations

import psycopg

from hop_archive.catalog.postgres import sql
from hop_archive.model.conditions import TABLES, SequenceCondition


def sequences(connection: psycopg.Connection) -> list[SequenceCondition]:
    """Every sequence of the catalog's tables, sorted, and where it stands."""
    found = connection.execute(sql.SEQUENCES, [list(TABLES)]).fetchall()
    return [_examined(connection, *row) for row in found]


def _examined(
    connection: psycopg.Connection, name: str, table: str, column: str, key: str, readable: bool
) -> SequenceCondition:
    last = f"(SELECT last_value - (NOT is_called)::int FROM {name})" if readable else "NULL::bigint"  # noqa: S608 (names, quoted)
    statement = f"SELECT {last}, coalesce(max({column}), 0) FROM {table}"  # noqa: S608 (likewise)
    ((number, greatest),) = connection.execute(statement.encode()).fetchall()
    return SequenceCondition(name, table, column, key, number, greatest)


def advance(connection: psycopg.Connection, behind: SequenceCondition) -> None:
    """Let a sequence go on after the greatest number of its table.

    Who is given a number at the same moment may be given one that is taken: then this is done once more.

    Raises:
        psycopg.errors.InsufficientPrivilege: The role may not UPDATE the sequence.
    """
    connection.execute(behind.remedy.encode())
