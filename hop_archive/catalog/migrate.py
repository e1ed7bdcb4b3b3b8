"""Brings a database to the catalog that this version needs, with Alembic. Run again, it changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from hop_archive.catalog.postgres_errors import Server
from hop_archive.catalog.sql import VERSION_TABLE
from hop_archive.errors import ConfigurationError, ForbiddenError, MissingSettingError

_SCRIPTS = Path(__file__).parent / "migrations"
_LOCK = 0x686F705F617263
"""Advisory lock that a migration holds ("hop_arc")."""
_CONNECT_S = 10.0


def migrate(dsn: str, *, schema: str = "public", name: str = "") -> list[str]:
    """Make or complete the catalog; a catalog of archive-core is adopted in place, all that it holds kept.

    One transaction: it is done whole or not at all. Two at once go one after the other, and the second finds
    nothing to do. While archive-core's catalog is adopted, its tables are locked (about a minute for every
    hundred million rows, for the indexes).

    Args:
        dsn: Connection string of a user who may create tables.
        schema: Where the catalog is to be; made where it is not there.
        name: The stanza's name, for messages.

    Returns:
        The migrations that were run, in order; none where there was nothing to do.

    Raises:
        UnavailableError: The database did not answer.
        ForbiddenError: The user may not do what a migration does; the message says what.
        ConfigurationError: The database has tables under our names that are not ours, or a newer catalog.
    """
    with _connected(Server.of(name, dsn, _CONNECT_S), schema) as connection:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        _make_schema(connection, schema)
        wanted = _pending(connection, schema)
        if wanted:
            config = _config()
            config.attributes.update(connection=connection, schema=schema)
            command.upgrade(config, "head")
        return wanted


def pending(dsn: str, *, schema: str = "public", name: str = "") -> list[str]:
    """The migrations that ``migrate`` would run, in order; changes nothing.

    Raises:
        UnavailableError: The database did not answer.
        ForbiddenError: The credentials are wrong.
        ConfigurationError: The catalog is newer than this version knows.
    """
    with _connected(Server.of(name, dsn, _CONNECT_S), schema) as connection:
        return _pending(connection, schema)


@contextmanager
def _connected(server: Server, schema: str) -> Iterator[Connection]:
    """A connection with a transaction open, committed when the block ends and rolled back when it raises."""
    engine = create_engine("postgresql+psycopg://", creator=server.connect, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("SELECT set_config('search_path', quote_ident(%s), true)", (schema,))
            yield connection
    except DBAPIError as error:
        raise _refusal(server, error) from error
    finally:
        engine.dispose()


def _make_schema(connection: Connection, schema: str) -> None:
    """IF NOT EXISTS alone would ask for the right to make schemas even where there is nothing to make."""
    if connection.exec_driver_sql("SELECT to_regnamespace(quote_ident(%s))", (schema,)).scalar() is None:
        quoted = connection.exec_driver_sql("SELECT quote_ident(%s)", (schema,)).scalar_one()
        connection.exec_driver_sql(f"CREATE SCHEMA {quoted}")


def _pending(connection: Connection, schema: str) -> list[str]:
    scripts = ScriptDirectory.from_config(_config())
    options = {"version_table": VERSION_TABLE, "version_table_schema": schema}
    applied = MigrationContext.configure(connection, opts=options).get_current_heads()
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


def _refusal(server: Server, error: DBAPIError) -> Exception:
    cause = error.orig
    statement = error.statement or ""
    if not isinstance(cause, psycopg.Error):
        return error
    if statement.startswith("CREATE EXTENSION"):
        return _no_extension(server, cause)
    if isinstance(cause, psycopg.errors.DuplicateTable | psycopg.errors.DuplicateColumn):
        return ConfigurationError(
            f"{server} already has something under a name that the catalog needs: {cause.diag.message_primary}.",
            remedy="Take another schema or database for the catalog.",
            database=server.name,
        )
    return server.translated(cause)


def _no_extension(server: Server, cause: psycopg.Error) -> Exception:
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
