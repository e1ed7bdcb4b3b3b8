"""Brings a database to the catalog that this version needs, with Alembic. Run again, it changes nothing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import DuplicateTable, LockNotAvailable
from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from hop_archive.catalog.postgres.errors import DatabaseServer
from hop_archive.catalog.postgres.migrations.steps import MigrationProgress, Running
from hop_archive.catalog.postgres.session import sequences
from hop_archive.catalog.postgres.sql import NO_IDLE_LIMIT, SETTINGS, VERSION_TABLE
from hop_archive.errors import ConfigurationError, ForbiddenError, MissingSettingError, UnavailableError
from hop_archive.model.conditions import ENCODING, OLDEST

_SCRIPTS = Path(__file__).parent / "migrations"
_CONNECT_S = 10.0
_LOCK_S = 0.75
"""How long a migration waits for a table that others use: as long, everybody else who wants that table waits behind it.

Less than Postgres' deadlock_timeout (1 s): where it and a reader of two tables wait for each other, it gives way.
"""
_PATIENCE_S = 120.0
_PAUSE_S = 5.0
_TURN_S = 0.5
_IDLE_S = 60.0

HOLD_VERSION_TABLE = f"LOCK TABLE {VERSION_TABLE} IN SHARE UPDATE EXCLUSIVE MODE"
"""Keeps other migrations away, as long as the transaction lasts. It takes the right to change that table; an advisory lock can
be held by whoever connects."""
NO_LOCK_LIMIT = "SELECT set_config('lock_timeout', '0', true)"
SCHEMA_STANDS = "SELECT to_regnamespace(quote_ident(%s))"
VERSION_TABLE_STANDS = "SELECT to_regclass(quote_ident(%s) || '.' || quote_ident(%s))"
STANDING = """
    SELECT relname FROM pg_class
    WHERE relkind IN ('r', 'p') AND relnamespace = to_regnamespace(quote_ident(%s))
"""
USERS = """
    SELECT DISTINCT pid, usename::text, application_name
    FROM pg_locks JOIN pg_stat_activity USING (pid)
         JOIN pg_class ON pg_class.oid = relation
         JOIN pg_database ON pg_database.oid = pg_locks.database AND pg_database.datname = current_database()
    WHERE granted AND relkind IN ('r', 'p') AND relnamespace = to_regnamespace(quote_ident(%s)) AND pid <> pg_backend_pid()
          AND relname <> %s
    ORDER BY pid LIMIT 5
"""
"""Whoever holds Alembic's table is a migration that waits for its turn, or has it."""


def migrate(
    dsn: str,
    *,
    schema: str = "public",
    name: str = "",
    tell: Callable[[MigrationProgress], None] = lambda _: None,
    patience_s: float = _PATIENCE_S,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Make or complete the catalog; a catalog of archive-core is adopted in place, all that it holds kept.

    A new one is made in one transaction, whole or not at all. One that stands goes on being read and written: what takes long
    locks nobody out, and for the rest a table is waited for less than a second at a time. Interrupted at any moment, it is
    completed by being run again. Two at once go one after the other, and the second finds nothing to do. Sequences that
    stand behind their tables are set right.

    Args:
        dsn: Connection string of a user who may create tables.
        schema: Where the catalog is to be; made where it is not there.
        name: The stanza's name, for messages.
        tell: Called with where it is, of a catalog that stands; from another thread, too.
        patience_s: How long to try again where others use a table.
        sleep: Waits between two attempts, in seconds.

    Returns:
        The migrations that were run, in order; none where there was nothing to do.

    Raises:
        UnavailableError: The database did not answer, or others use the tables; the message says who.
        ForbiddenError: The user may not do what a migration does; the message says what.
        ConfigurationError: The database has tables under our names that are not ours, or a newer catalog; or its
            encoding is none that can hold every message's names.
    """
    server = DatabaseServer.of(name, dsn, _CONNECT_S)
    made = _make_new(server, schema)
    if made is not None:
        return made
    with _connected(server, schema) as connection:
        _make_version_table(connection, schema)
    with _turn(server, schema):
        return _complete(server, schema, tell, max(1, round(patience_s / _PAUSE_S)), sleep)


def pending(dsn: str, *, schema: str = "public", name: str = "") -> list[str]:
    """The migrations that ``migrate`` would run, in order; changes nothing.

    Raises:
        UnavailableError: The database did not answer.
        ForbiddenError: The credentials are wrong.
        ConfigurationError: The catalog is newer than this version knows.
    """
    server = DatabaseServer.of(name, dsn, _CONNECT_S)
    with _connected(server, schema) as connection:
        return _pending(server, connection, schema)


def _make_new(server: DatabaseServer, schema: str) -> list[str] | None:
    """Make the catalog where there is none, in one transaction; None where one stands that lacks something."""
    with _connected(server, schema) as connection:
        missing = _pending(server, connection, schema)
        if missing and "messages" not in _standing(connection, schema):
            connection.exec_driver_sql(NO_LOCK_LIMIT)
            _make_schema(connection, schema)
            _make_version_table(connection, schema)
            connection.exec_driver_sql(HOLD_VERSION_TABLE)
            connection.exec_driver_sql(f"SELECT set_config('lock_timeout', '{_LOCK_S * 1000:.0f}', true)")
            missing = _pending(server, connection, schema)
        if missing and "messages" in _standing(connection, schema):
            return None
        if missing:
            _upgrade(connection, Running(server, schema, frozenset(), 0, lambda _: None))
        _set_sequences_right(connection)
        return missing


def _complete(
    server: DatabaseServer,
    schema: str,
    tell: Callable[[MigrationProgress], None],
    attempts: int,
    sleep: Callable[[float], None],
) -> list[str]:
    """Migrate a catalog that others use; where they keep a table from it, again from where it is by then."""
    with _connected(server, schema) as connection:
        missing = _pending(server, connection, schema)
        standing = frozenset(_standing(connection, schema))
    with _database(server, schema) as engine:
        for attempt in itertools.count(1):
            with engine.begin() as connection:
                left = _pending(server, connection, schema)
            running = Running(server, schema, standing, _steps(left), tell)
            try:
                with engine.connect() as connection:
                    _upgrade(connection, running)
                break
            except DBAPIError as error:
                if not isinstance(error.orig, LockNotAvailable) or attempt >= attempts:
                    raise
                running.say(
                    f"others use a table of the catalog: {_users(server, schema)}; it is tried again soon"
                )
                sleep(_PAUSE_S)
        with engine.begin() as connection:
            _set_sequences_right(connection)
    return missing


@contextmanager
def _turn(server: DatabaseServer, schema: str) -> Iterator[None]:
    """Keep other migrations away while the block runs, once none is under way; a catalog that was not begun keeps no trace of it.

    Asked for again and again: an index that the other one builds concurrently would wait for whoever waits with a snapshot.
    """
    with _database(server, schema) as engine, engine.connect() as connection:
        while not _is_held(connection):
            time.sleep(_TURN_S)
        connection.exec_driver_sql(NO_IDLE_LIMIT)
        try:
            yield
        except BaseException:
            if not _context(connection, schema).get_current_heads():
                connection.exec_driver_sql(f"DROP TABLE {VERSION_TABLE}")
                connection.commit()
            raise


def _is_held(connection: Connection) -> bool:
    try:
        connection.exec_driver_sql(f"{HOLD_VERSION_TABLE} NOWAIT")
    except DBAPIError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        connection.rollback()
        return False
    return True


def _upgrade(connection: Connection, running: Running) -> None:
    config = _config()
    config.attributes.update(connection=connection, running=running)
    command.upgrade(config, "head")


def _steps(revisions: Sequence[str]) -> int:
    """How many steps these migrations have."""
    scripts = ScriptDirectory.from_config(_config())
    return sum(len(scripts.get_revision(revision).module.STEPS) for revision in revisions)


def _standing(connection: Connection, schema: str) -> set[str]:
    return set(connection.exec_driver_sql(STANDING, (schema,)).scalars())


def _set_sequences_right(connection: Connection) -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    for found in sequences(driver):
        if found.is_behind:
            driver.execute(found.remedy.encode())


@contextmanager
def _connected(server: DatabaseServer, schema: str) -> Iterator[Connection]:
    """A connection with a transaction open, committed when the block ends and rolled back when it raises."""
    with _database(server, schema) as engine, engine.begin() as connection:
        number, version, encoding = connection.exec_driver_sql(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
            " current_setting('server_encoding')"
        ).one()
        if number < OLDEST * 10_000:
            raise ConfigurationError(
                f"{server} is Postgres {version}: the catalog needs {OLDEST} or newer.",
                remedy="Move the database to a newer server; nothing was changed in this one.",
                database=server.name,
                version=version,
            )
        if encoding != ENCODING:
            raise ConfigurationError(
                f"{server} is encoded in {encoding}: topics and headers hold characters that it lacks, or that it"
                " takes unchecked.",
                remedy=f"Create a database for the catalog with ENCODING '{ENCODING}' TEMPLATE template0.",
                database=server.name,
                encoding=encoding,
            )
        yield connection


@contextmanager
def _database(server: DatabaseServer, schema: str) -> Iterator[Engine]:
    """What connects to the database; errors of the block are ours.

    What is set is set for each transaction alone: a pooler may stand in between.
    """
    engine = create_engine(
        "postgresql+psycopg://", creator=server.connect, poolclass=NullPool, isolation_level="READ COMMITTED"
    )
    limits = {"lock_ms": _LOCK_S, "statement_ms": 0, "idle_ms": _IDLE_S}
    settings = {name: str(round(limit * 1000)) for name, limit in limits.items()}

    def begun(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.execute(SETTINGS, {"schema": schema, **settings})

    event.listen(engine, "begin", begun)
    try:
        yield engine
    except DBAPIError as error:
        raise _refusal(server, schema, error) from error
    except psycopg.Error as error:
        raise server.translated(error) from error
    finally:
        engine.dispose()


def _make_version_table(connection: Connection, schema: str) -> None:
    """Alembic's own table, by which migrations take turns."""
    connection.exec_driver_sql(NO_LOCK_LIMIT)
    with _unless_made_by_now(connection, VERSION_TABLE_STANDS, schema, VERSION_TABLE):
        _context(connection, schema)._ensure_version_table()  # noqa: SLF001 (what upgrading does first, too)


def _make_schema(connection: Connection, schema: str) -> None:
    """IF NOT EXISTS alone would ask for the right to make schemas even where there is nothing to make."""
    if connection.exec_driver_sql(SCHEMA_STANDS, (schema,)).scalar() is None:
        quoted = connection.exec_driver_sql("SELECT quote_ident(%s)", (schema,)).scalar_one()
        with _unless_made_by_now(connection, SCHEMA_STANDS, schema):
            connection.exec_driver_sql(f"CREATE SCHEMA {quoted}")
    if connection.exec_driver_sql("SELECT current_schema() <> %s", (schema,)).scalar_one():
        # Else tables would be made in the next one that may be used, which is that of temporary tables.
        raise ForbiddenError(
            f"The user may not use the schema {schema}.",
            remedy="Let its owner GRANT USAGE, CREATE ON SCHEMA to the user, or take another schema for the catalog.",
            schema=schema,
        )


@contextmanager
def _unless_made_by_now(connection: Connection, stands: str, *names: str) -> Iterator[None]:
    """What another migration makes at the same moment is waited for, and then is there.

    Which error tells of it hangs on how far the other one is: its table, its type, or a row of Postgres' own may be found first.
    """
    try:
        with connection.begin_nested():
            yield
    except DBAPIError:
        if connection.exec_driver_sql(stands, names).scalar() is None:
            raise


def _context(connection: Connection, schema: str) -> MigrationContext:
    options = {"version_table": VERSION_TABLE, "version_table_schema": schema}
    return MigrationContext.configure(connection, opts=options)


def _pending(server: DatabaseServer, connection: Connection, schema: str) -> list[str]:
    scripts = ScriptDirectory.from_config(_config())
    applied = _context(connection, schema).get_current_heads()
    known = [script.revision for script in scripts.walk_revisions()]
    unknown = sorted(set(applied) - set(known))
    if unknown:
        raise server.too_new(", ".join(unknown))
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
        # The ledger's exclusion constraint needs btree_gist (contrib; trusted since Postgres 13).
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
    if isinstance(cause, LockNotAvailable):
        return UnavailableError(
            f"{server}: a migration needs a table of the catalog for itself for a moment, and others use it:"
            f" {_users(server, schema)}.",
            remedy="Wait until they are done, or end them, then run this again: it goes on where it is.",
            database=server.name,
        )
    if isinstance(cause, DuplicateTable | psycopg.errors.DuplicateColumn):
        return ConfigurationError(
            f"{server} already has something under a name that the catalog needs: {cause.diag.message_primary}.",
            remedy="Take another schema or database for the catalog.",
            database=server.name,
        )
    return server.translated(cause)


def _users(server: DatabaseServer, schema: str) -> str:
    """Who uses tables of the catalog now, for a message."""
    with closing(server.connect()) as connection:
        found = connection.execute(USERS, [schema, VERSION_TABLE]).fetchall()
    return (
        ", ".join(f"{program or 'a program'} of {role} (pid {pid})" for pid, role, program in found)
        or "gone by now"
    )
