"""Brings a database to the catalog that this version needs, with Alembic. Run again, it changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import DuplicateSchema, DuplicateTable, LockNotAvailable, UniqueViolation
from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from hop_archive.catalog.postgres.errors import DatabaseServer
from hop_archive.catalog.postgres.sequences import sequences
from hop_archive.catalog.postgres.sql import SETTINGS, VERSION_TABLE
from hop_archive.errors import ConfigurationError, ForbiddenError, MissingSettingError, UnavailableError
from hop_archive.model.conditions import ENCODING

_SCRIPTS = Path(__file__).parent / "migrations"
_CONNECT_S = 10.0
_LOCK_S = 10.0
"""How long a migration waits for a table that others use: as long, everybody else who wants that table waits behind it."""
_IDLE_S = 60.0

USERS = """
    SELECT DISTINCT pid, usename::text, application_name
    FROM pg_locks JOIN pg_stat_activity USING (pid)
         JOIN pg_class ON pg_class.oid = relation
         JOIN pg_database ON pg_database.oid = pg_locks.database AND pg_database.datname = current_database()
    WHERE granted AND relkind IN ('r', 'p') AND relnamespace = to_regnamespace(quote_ident(%s)) AND pid <> pg_backend_pid()
    ORDER BY pid LIMIT 5
"""


def migrate(dsn: str, *, schema: str = "public", name: str = "") -> list[str]:
    """Make or complete the catalog; a catalog of archive-core is adopted in place, all that it holds kept.

    One transaction: it is done whole or not at all. Two at once go one after the other, and the second finds
    nothing to do. While archive-core's catalog is adopted, its tables are locked (about a minute for every
    hundred million rows, for the indexes). Sequences that stand behind their tables are set right.

    Args:
        dsn: Connection string of a user who may create tables.
        schema: Where the catalog is to be; made where it is not there.
        name: The stanza's name, for messages.

    Returns:
        The migrations that were run, in order; none where there was nothing to do.

    Raises:
        UnavailableError: The database did not answer, or others use the tables; the message says who.
        ForbiddenError: The user may not do what a migration does; the message says what.
        ConfigurationError: The database has tables under our names that are not ours, or a newer catalog; or its
            encoding is none that can hold every message's names.
    """
    with _connected(DatabaseServer.of(name, dsn, _CONNECT_S), schema) as connection:
        missing = _pending(connection, schema)
        if missing:
            _make_schema(connection, schema)
            _alone(connection, schema)
            missing = _pending(connection, schema)
            config = _config()
            config.attributes.update(connection=connection, schema=schema)
            command.upgrade(config, "head")
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        for found in sequences(driver):
            if found.is_behind:
                driver.execute(found.remedy.encode())
        return missing


def pending(dsn: str, *, schema: str = "public", name: str = "") -> list[str]:
    """The migrations that ``migrate`` would run, in order; changes nothing.

    Raises:
        UnavailableError: The database did not answer.
        ForbiddenError: The credentials are wrong.
        ConfigurationError: The catalog is newer than this version knows.
    """
    with _connected(DatabaseServer.of(name, dsn, _CONNECT_S), schema) as connection:
        return _pending(connection, schema)


@contextmanager
def _connected(server: DatabaseServer, schema: str) -> Iterator[Connection]:
    """A connection with a transaction open, committed when the block ends and rolled back when it raises.

    What is set is set for the transaction alone: a pooler may stand in between.
    """
    engine = create_engine(
        "postgresql+psycopg://", creator=server.connect, poolclass=NullPool, isolation_level="READ COMMITTED"
    )
    limits = {"lock_ms": _LOCK_S, "statement_ms": 0, "idle_ms": _IDLE_S}
    settings = {name: str(round(limit * 1000)) for name, limit in limits.items()}
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(SETTINGS, {"schema": schema, **settings})
            encoding = connection.exec_driver_sql("SELECT current_setting('server_encoding')").scalar_one()
            if encoding != ENCODING:
                raise ConfigurationError(
                    f"{server} is encoded in {encoding}: topics and headers hold characters that it lacks, or that it"
                    " takes unchecked.",
                    remedy=f"Create a database for the catalog with ENCODING '{ENCODING}' TEMPLATE template0.",
                    database=server.name,
                    encoding=encoding,
                )
            yield connection
    except DBAPIError as error:
        raise _refusal(server, schema, error) from error
    except psycopg.Error as error:
        raise server.translated(error) from error
    finally:
        engine.dispose()


def _make_schema(connection: Connection, schema: str) -> None:
    """IF NOT EXISTS alone would ask for the right to make schemas even where there is nothing to make."""
    if connection.exec_driver_sql("SELECT to_regnamespace(quote_ident(%s))", (schema,)).scalar() is None:
        quoted = connection.exec_driver_sql("SELECT quote_ident(%s)", (schema,)).scalar_one()
        with _unless_just_made(connection):
            connection.exec_driver_sql(f"CREATE SCHEMA {quoted}")
    if connection.exec_driver_sql("SELECT current_schema() <> %s", (schema,)).scalar_one():
        # Else tables would be made in the next one that may be used, which is that of temporary tables.
        raise ForbiddenError(
            f"The user may not use the schema {schema}.",
            remedy="Let its owner GRANT USAGE, CREATE ON SCHEMA to the user, or take another schema for the catalog.",
            schema=schema,
        )


def _alone(connection: Connection, schema: str) -> None:
    """Wait until no other migration is under way, however long, and keep others away.

    By Alembic's own table, made for it where need be: to hold that takes the right to change it. An advisory lock can be
    held by whoever may connect.
    """
    connection.exec_driver_sql("SELECT set_config('lock_timeout', '0', true)")
    with _unless_just_made(connection):
        _context(connection, schema)._ensure_version_table()  # noqa: SLF001 (what upgrading does first, too)
    connection.exec_driver_sql(f"LOCK TABLE {VERSION_TABLE} IN SHARE UPDATE EXCLUSIVE MODE")
    connection.exec_driver_sql(f"SELECT set_config('lock_timeout', '{_LOCK_S * 1000:.0f}', true)")


@contextmanager
def _unless_just_made(connection: Connection) -> Iterator[None]:
    """What another migration makes at the same moment is waited for, and then is there."""
    try:
        with connection.begin_nested():
            yield
    except DBAPIError as error:
        if not isinstance(error.orig, UniqueViolation | DuplicateTable | DuplicateSchema):
            raise


def _context(connection: Connection, schema: str) -> MigrationContext:
    options = {"version_table": VERSION_TABLE, "version_table_schema": schema}
    return MigrationContext.configure(connection, opts=options)


def _pending(connection: Connection, schema: str) -> list[str]:
    scripts = ScriptDirectory.from_config(_config())
    applied = _context(connection, schema).get_current_heads()
    known = [script.revision for script in scripts.walk_revisions()]
    unknown = sorted(set(applied) - set(known))
    if unknown:
        raise ConfigurationError(
            f"The catalog is at migration {', '.join(unknown)}, which this version of hop_archive does not know.",
            remedy="Upgrade hop_archive: a newer version has migrated this catalog.",
        )
    return list(reversed(known[: known.index(applied[0])] if applied else known))


def _config() -> Config:
    """Alembic's settings, without its file: it then neither reads an ini file nor sets up logging."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _refusal(server: DatabaseServer, schema: str, error: DBAPIError) -> Exception:
    cause = error.orig
    statement = error.statement or ""
    if not isinstance(cause, psycopg.Error):
        return error
    if statement.startswith("CREATE EXTENSION"):
        return _no_extension(server, cause)
    if isinstance(cause, LockNotAvailable):
        with closing(server.connect()) as connection:
            found = connection.execute(USERS, [schema]).fetchall()
        users = [f"{program or 'a program'} of {role} (pid {pid})" for pid, role, program in found]
        return UnavailableError(
            f"{server}: a migration needs a table of the catalog for itself, and others use it:"
            f" {', '.join(users) or 'gone by now'}.",
            remedy="Nothing was changed. Wait until they are done, or end them, then run this again.",
            database=server.name,
        )
    if isinstance(cause, DuplicateTable | psycopg.errors.DuplicateColumn):
        return ConfigurationError(
            f"{server} already has something under a name that the catalog needs: {cause.diag.message_primary}.",
            remedy="Take another schema or database for the catalog.",
            database=server.name,
        )
    return server.translated(cause)


def _no_extension(server: DatabaseServer, cause: psycopg.Error) -> Exception:
    """The ledger's exclusion constraint needs btree_gist (contrib; trusted since Postgres 13)."""
    if isinstance(cause, psycopg.errors.InsufficientPrivilege):
        return ForbiddenError(
            f"{server}: user {server.user or 'by default'} may not create the extension btree_gist.",
            remedy="Let an administrator run CREATE EXTENSION btree_gist in this database (or GRANT CREATE ON"
            " DATABASE to the user), then run this again.",
            database=server.name,
        )
    if isinstance(cause, psycopg.errors.FeatureNotSupported | psycopg.errors.UndefinedFile):
        return MissingSettingError(
            f"{server}: the server does not have the extension btree_gist.",
            remedy="Install Postgres' contrib modules on the server, then run this again.",
            database=server.name,
        )
    return server.translated(cause)
