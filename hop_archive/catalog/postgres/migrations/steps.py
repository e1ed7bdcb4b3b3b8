"""The steps of which migrations are made, so that a catalog of any size goes on being read and written meanwhile.

A migration lists its ``STEPS`` and runs them (``run``). Where the catalog is made new, all is one transaction. Where it stands
already, each migration is a transaction, but for ``Index``: one on a table that stood before is built concurrently, which is
outside of any transaction. So *what comes before an index is committed with it, before the migration is noted as done*, and is
run again after an interruption: it has to say by itself that it was done (``IF NOT EXISTS``). What comes after the last
index is committed with the note, and needs no such care.

A transaction on a table that is in use has to be short, whatever the size of the table: nullable columns without a default,
new tables, comments, settings; no rewriting, no reading of all rows once it holds a lock that keeps others out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import psycopg
from alembic import op
from sqlalchemy import Connection

from hop_archive.catalog.postgres.errors import DatabaseServer
from hop_archive.catalog.postgres.session import only
from hop_archive.errors import HopArchiveError

_LOOK_EVERY_S = 1.0

INDEX = """
    SELECT indisvalid FROM pg_index JOIN pg_class AS named ON named.oid = indexrelid
    WHERE indrelid = to_regclass(%s) AND named.relname = %s
"""
BUILDING = """
    SELECT phase, CASE WHEN phase LIKE '%%tuples%%' THEN tuples_done ELSE blocks_done END,
           CASE WHEN phase LIKE '%%tuples%%' THEN tuples_total ELSE blocks_total END,
           nullif(current_locker_pid, 0), coalesce(nullif(locker.application_name, ''), 'a program'), locker.usename
    FROM pg_stat_progress_create_index AS build
         LEFT JOIN pg_stat_activity AS locker ON locker.pid = current_locker_pid
    WHERE relid = to_regclass(%s)
"""
UNLIMITED = """
    SELECT set_config(name, '0', false) FROM pg_settings
    WHERE name IN ('lock_timeout', 'statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')
"""


class MigrationProgress(NamedTuple):
    """Where a migration is.

    Attributes:
        step: Which one, from 1 on, of ``steps``.
        what: What it does.
        detail: How far it is, or whom it waits for; '' where nothing is to be said.
    """

    step: int
    steps: int
    what: str
    detail: str = ""

    def __str__(self) -> str:
        return f"Step {self.step} of {self.steps}: {self.what}{self.detail and f' ({self.detail})'}"


class Running:
    """A run of migrations, for their steps.

    Args:
        server: Where.
        schema: The catalog's.
        standing: The tables that were there before the run: others may use them.
        steps: How many steps all migrations of the run have.
        tell: Called with what is going on; from another thread, too.
    """

    def __init__(
        self,
        server: DatabaseServer,
        schema: str,
        standing: frozenset[str],
        steps: int,
        tell: Callable[[MigrationProgress], None],
    ) -> None:
        self.schema = schema
        self.standing = standing
        self._server = server
        self._steps = steps
        self._tell = tell
        self._now = MigrationProgress(0, steps, "")

    def begin(self, what: str) -> None:
        """Say that the next step begins. Of one that builds or drops an index concurrently nothing is locked then."""
        self._now = MigrationProgress(self._now.step + 1, self._steps, what)
        self._tell(self._now)

    def say(self, detail: str) -> None:
        """Say how far the step is."""
        self._tell(self._now._replace(detail=detail))

    def building(self, connection: psycopg.Connection, table: str) -> str | None:
        """How far the server is with an index on ``table``; None where it builds none."""
        found = connection.execute(BUILDING, [table]).fetchone()
        if found is None:
            return None
        phase, done, total, pid, program, role = found
        if pid is not None:
            return f"{phase}: {program} of {role}, pid {pid}"
        return f"{phase}, {done * 100 // total} %" if total else str(phase)

    @contextmanager
    def watched(self, table: str) -> Iterator[None]:
        """Say now and then how far the server is with an index on ``table``, while the block waits for it."""
        done = threading.Event()

        def watch() -> None:
            try:
                with closing(self._server.connect()) as connection:
                    connection.autocommit = True
                    while not done.wait(_LOOK_EVERY_S):
                        if detail := self.building(connection, table):
                            self.say(detail)
            except (psycopg.Error, HopArchiveError):
                return  # it only tells

        watcher = threading.Thread(target=watch, name="migration-progress", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


@dataclass(frozen=True, slots=True)
class MigrationWork:
    """Something short, in the migration's transaction."""

    what: str
    do: Callable[[Connection], object]

    def run(self, running: Running) -> None:
        """Do it."""
        running.begin(self.what)
        self.do(op.get_bind())


@dataclass(frozen=True, slots=True)
class Index:
    """An index. One that an interrupted build left invalid is dropped, and built again; one that is there is left.

    Attributes:
        on: What follows the table's name in CREATE INDEX: method, columns, INCLUDE, WHERE.
    """

    name: str
    table: str
    on: str
    unique: bool = False

    @property
    def what(self) -> str:
        """What is told of it."""
        return f"index {self.name} on {self.table}"

    def run(self, running: Running) -> None:
        """Build it; concurrently on a table that others may use, which they then go on reading and writing."""
        create = f"CREATE {'UNIQUE ' * self.unique}INDEX"
        if self.table not in running.standing:
            running.begin(self.what)
            op.get_bind().exec_driver_sql(f"{create} {self.name} ON {self.table} {self.on}")
            return
        with _outside(running) as (connection, schema):
            running.begin(self.what)
            table = f"{schema}.{self.table}"
            self._wait_for_another(connection, running, table)
            found = connection.execute(INDEX, [table, self.name]).fetchone()
            if found == (True,):
                return
            if found is not None:
                running.say("an interrupted build left it incomplete: it is dropped first")
                connection.execute(f"DROP INDEX CONCURRENTLY {schema}.{self.name}".encode())
            with running.watched(table):
                connection.execute(f"{create} CONCURRENTLY {self.name} ON {table} {self.on}".encode())

    def _wait_for_another(self, connection: psycopg.Connection, running: Running, table: str) -> None:
        """A server goes on with what a killed client had it do: what it builds may well become our index."""
        while detail := running.building(connection, table):
            running.say(f"an interrupted run has the server build an index still: {detail}")
            time.sleep(_LOOK_EVERY_S)


@dataclass(frozen=True, slots=True)
class DropIndex:
    """An index goes, if it is there; nobody waits."""

    name: str
    table: str

    @property
    def what(self) -> str:
        """What is told of it."""
        return f"drop index {self.name} of {self.table}"

    def run(self, running: Running) -> None:
        """Drop it; concurrently where others may use its table."""
        if self.table not in running.standing:
            running.begin(self.what)
            op.get_bind().exec_driver_sql(f"DROP INDEX IF EXISTS {self.name}")
            return
        with _outside(running) as (connection, schema):
            running.begin(self.what)
            connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema}.{self.name}".encode())


Step: TypeAlias = MigrationWork | Index | DropIndex


def statements(what: str, *sql: str) -> MigrationWork:
    """A step of short statements, one after another, in the migration's transaction."""

    def do(connection: Connection) -> None:
        for statement in sql:
            connection.exec_driver_sql(statement)

    return MigrationWork(what, do)


def analyze(*tables: str) -> MigrationWork:
    """So that the planner knows at once what came. Samples the tables; nobody waits but a VACUUM."""
    return statements(f"statistics of {', '.join(tables)}", *(f"ANALYZE {table}" for table in tables))


def run(steps: Sequence[Step]) -> None:
    """Run the steps of a migration."""
    context = op.get_context().config
    assert context is not None
    running: Running = context.attributes["running"]
    for step in steps:
        step.run(running)


@contextmanager
def _outside(running: Running) -> Iterator[tuple[psycopg.Connection, str]]:
    """The connection outside of any transaction, and the schema's name as SQL has it; what was done is committed.

    No setting of a transaction holds then, nor does a search path. Those of the session are changed only where it is our own:
    a pooler would hand it on to others, and shows itself by telling a pid that is not the server's. There, limits of
    the role (``statement_timeout``) stand.
    """
    with op.get_context().autocommit_block():
        driver = op.get_bind().connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        named = driver.execute("SELECT pg_backend_pid(), quote_ident(%s)", [running.schema])
        pid, schema = only(named.fetchone())
        is_ours = pid == driver.info.backend_pid
        if is_ours:
            driver.execute(UNLIMITED)
        try:
            yield driver, schema
        finally:
            if is_ours and not driver.broken:
                driver.execute("RESET ALL")
