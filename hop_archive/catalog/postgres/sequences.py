"""The sequences that number rows, beside the tables that they number.

A sequence stands behind its table where rows came in by another way than through it: a dump that was restored without its
``setval``, logical replication, a copy of tables. What is numbered next then breaks the primary key; or, where rows of
those numbers were taken away, it gets numbers that readers of archive-core, who remember how far they read, have passed.
"""

from __future__ import annotations

import psycopg

from hop_archive.model.conditions import TABLES, SequenceCondition

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


def sequences(connection: psycopg.Connection) -> list[SequenceCondition]:
    """Every sequence of the catalog's tables, sorted, and where it stands.

    To execute a condition's ``remedy`` lets a sequence go on, which takes the right to UPDATE it. Who is given a number at
    the same moment may be given one that is taken: then this is done once more.
    """
    found: list[SequenceCondition] = []
    for name, table, column, key, readable in connection.execute(SEQUENCES, [list(TABLES)]).fetchall():
        last = (
            f"(SELECT last_value - (NOT is_called)::int FROM {name})" if readable else "NULL::bigint"
        )  # (names, quoted)
        statement = f"SELECT {last}, coalesce(max({column}), 0) FROM {table}"
        ((number, greatest),) = connection.execute(statement.encode()).fetchall()
        found.append(SequenceCondition(name, table, column, key, number, greatest))
    return found
