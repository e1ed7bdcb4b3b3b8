"""Which of our errors a Postgres error is, by SQLSTATE and never by text; and where it happened.

No message made here holds a password: of a connection string, only host, port, database and user are shown.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hop_archive.errors import (
    ConfigurationError,
    ForbiddenError,
    HopArchiveError,
    MissingSettingError,
    UnavailableError,
)
from hop_archive.model.wording import said

NO_SESSION: Mapping[str, Any] = {"prepare_threshold": None}
"""How psycopg is told that a session of the server may not be ours alone: a pooler may stand in between."""

_WRONG_CREDENTIALS = ("28000", "28P01")
_NO_DATABASE = "3D000"
_NO_RIGHT = "42501"
_READ_ONLY = "25006"
_NO_TABLE = ("42P01", "42703", "42704", "3F000")
"""Undefined table, column, object (a constraint), schema: a catalog that was not migrated, or not far enough."""
_UNABLE = ("08", "40", "53", "57", "58", "55P03", "25P03", "25P04", _READ_ONLY)
"""Connection exceptions; rollbacks; out of resources; operator intervention; system error; a lock not to be
had; a session that was idle, or a transaction that took, too long; a server that only reads: a standby, or what was the
primary before a failover. (PostgreSQL 14, appendix A.)"""

_LOOK = "Look whether the server runs and can be reached from here, then run again."
_ONLY_READS = (
    "After a failover this passes. Else connect to the primary, with a role and a database whose"
    " default_transaction_read_only is off."
)

_WHO = "Check the user and the password that the stanza's credentials have."
_RIGHTS = (
    "Connect as one whose role may do it (archiver, reader, cleaner, repairer: deploy/postgres/roles.sql; for migrate, the owner of the"
    " tables, or of the empty database). After an upgrade, let the owner run that script again."
)

_ERROR_CODE = re.compile(rb'ErrorResponse\t.*?\bC "([0-9A-Z]{5})"')


@dataclass(slots=True)
class DatabaseServer:
    """The database behind a stanza: how to connect to it, and how to speak of it.

    Attributes:
        name: The stanza's name; '' where there is none.
        conninfo: Connection string; holds the password, so it is in no repr. Another one once ``connect`` was refused.
        timeout_s: Longest that connecting may take.
        renew: Asks for ``dsn`` anew, for a password may have been changed; None where nobody knows another one.
    """

    name: str
    conninfo: str
    timeout_s: float
    renew: Callable[[], str] | None = None

    @classmethod
    def of(
        cls, name: str, dsn: str, timeout_s: float, renew: Callable[[], str] | None = None
    ) -> DatabaseServer:
        """The server that ``dsn`` names, with what every connection of ours asks for.

        Raises:
            ConfigurationError: ``dsn`` is not a connection string.
        """
        ours: dict[str, Any] = {
            "application_name": "hop_archive",
            "client_encoding": "utf8",
            "connect_timeout": max(2, round(timeout_s)),  # libpq takes no less
            "tcp_user_timeout": round(timeout_s * 1000),  # a cut line is noticed, not waited on for minutes
        }
        try:
            return cls(name, make_conninfo("", **{**ours, **conninfo_to_dict(dsn)}), timeout_s, renew)
        except psycopg.ProgrammingError:
            # Its text quotes the string, password and all.
            raise ConfigurationError(
                f"The connection string of {_stanza(name)} is not one.",
                remedy="Write postgresql://USER@HOST:PORT/DATABASE, or host=… port=… dbname=… user=….",
            ) from None

    def __repr__(self) -> str:
        return f"DatabaseServer({self})"

    def __str__(self) -> str:
        return f"{_stanza(self.name)} ({self.address})"

    @property
    def address(self) -> str:
        """Host, port and database; the defaults of libpq where the connection string names none."""
        parts = conninfo_to_dict(self.conninfo)
        host = parts.get("host") or parts.get("hostaddr") or "the default host"
        return f"{host}:{parts.get('port') or 5432}/{parts.get('dbname') or parts.get('user') or ''}"

    @property
    def user(self) -> str:
        """Who connects; '' where the connection string does not say."""
        return str(conninfo_to_dict(self.conninfo).get("user") or "")

    @property
    def _facts(self) -> dict[str, str]:
        return {"database": self.name, "address": self.address}

    @property
    def migrate_command(self) -> str:
        """What to run so that the catalog has its tables."""
        return f"hop-archive migrate -D {self.name}" if self.name else "hop-archive migrate"

    def connect(self) -> psycopg.Connection:
        """A connection of one's own; statements open a transaction, as Python's database API has it.

        Where the credentials are refused they are asked for anew, and tried once more if they are others by now.

        Raises:
            UnavailableError, ForbiddenError, MissingSettingError: As ``refusal`` says.
        """
        refused = self.conninfo
        try:
            return psycopg.connect(refused, **NO_SESSION)
        except psycopg.OperationalError as error:
            reason = self.refusal(error)
            if not isinstance(reason, ForbiddenError) or self.renew is None:
                raise reason from error
            self.conninfo = DatabaseServer.of(self.name, self.renew(), self.timeout_s).conninfo
            if self.conninfo == refused:
                raise reason from error
        try:
            return psycopg.connect(self.conninfo, **NO_SESSION)
        except psycopg.OperationalError as error:
            raise self.refusal(error) from error

    def refusal(self, error: psycopg.OperationalError) -> HopArchiveError:
        """Why the server could not be connected to.

        libpq gives no SQLSTATE for a refused connection (``PQerrorMessage`` is all there is), so the attempt is
        made again with its protocol trace on, where the code stands.
        """
        if error.pgconn is not None and error.pgconn.needs_password:
            return self._forbidden("asks for a password, and none is given", _WHO)
        return self._by_code(error.sqlstate or _refusing_code(self), error) or self.unavailable(error)

    def translated(self, error: psycopg.Error) -> Exception:
        """Our error for ``error``; itself where it is none that anybody but a programmer can act on."""
        if error.sqlstate is None:
            return self.unavailable(error) if isinstance(error, psycopg.OperationalError) else error
        return self._by_code(error.sqlstate, error) or error

    def unavailable(self, error: object) -> UnavailableError:
        """The server did not answer, or cannot now."""
        code = (
            error.sqlstate if isinstance(error, psycopg.Error) else None
        )  # where the server itself said what is wrong
        return UnavailableError(
            f"{self} {'did not answer' if code is None else 'cannot do this now'}: {_first_line(error)}.",
            remedy=_ONLY_READS if code == _READ_ONLY else _LOOK,
            **self._facts,
        )

    def not_migrated(self, found: str) -> MissingSettingError:
        """The catalog lacks what this version needs."""
        return MissingSettingError(
            f"{self} has no catalog that this version can use: {found}.",
            remedy=f"Run: {self.migrate_command}",
            **self._facts,
        )

    def too_new(self, version: str) -> ConfigurationError:
        """A later version has migrated the catalog: what this one would do there, and miss, nobody knows."""
        return ConfigurationError(
            f"{self}: the catalog is at migration {version}, which this version of hop_archive does not know.",
            remedy="Upgrade hop_archive: a newer version has migrated this catalog.",
            **self._facts,
        )

    def closed(self, schema: str) -> ForbiddenError:
        """The role may not use the schema, whatever it may do with tables in it."""
        return self._forbidden(f"does not allow the use of schema {schema}", _RIGHTS)

    def _forbidden(self, what: str, remedy: str) -> ForbiddenError:
        return ForbiddenError(
            f"{self} {what} (user {self.user or 'by default'}).",
            remedy=remedy,
            **self._facts,
        )

    def _by_code(self, code: str | None, error: psycopg.Error) -> HopArchiveError | None:
        if code is None:
            return None
        if code in _WRONG_CREDENTIALS:
            return self._forbidden("refuses the credentials", _WHO)
        if code == _NO_RIGHT:
            return self._forbidden(f"does not allow this: {_first_line(error)}", _RIGHTS)
        if code == _NO_DATABASE:
            return MissingSettingError(
                f"{self}: the server has no such database.",
                remedy="Create it, or correct the stanza.",
                **self._facts,
            )
        if code in _NO_TABLE:
            return self.not_migrated(_first_line(error))
        return self.unavailable(error) if code.startswith(_UNABLE) else None


@contextmanager
def translating(server: DatabaseServer) -> Iterator[None]:
    """Raise Postgres errors within the block as ours.

    Raises:
        UnavailableError, ForbiddenError, MissingSettingError: As ``DatabaseServer.translated`` says.
    """
    try:
        yield
    except psycopg.Error as error:
        ours = server.translated(error)
        if ours is error:
            raise
        raise ours from error


def _stanza(name: str) -> str:
    return f"database {name!r}" if name else "the database"


def _first_line(error: object) -> str:
    return said(error) or type(error).__name__


def _refusing_code(server: DatabaseServer) -> str | None:
    """The SQLSTATE with which the server refuses a connection; None where there is none or it can't be known.

    The trace holds what the client says to prove who it is: it is kept in memory, and only here.
    """
    if not hasattr(os, "memfd_create"):  # libpq traces on Linux only, as far as psycopg goes
        return None
    trace = os.memfd_create("libpq-trace")
    try:
        attempt = pq.PGconn.connect_start(server.conninfo.encode())
        deadline = time.monotonic() + server.timeout_s
        try:
            attempt.trace(trace)
            attempt.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
            while time.monotonic() < deadline:
                state = attempt.connect_poll()
                if state == pq.PollingStatus.READING:
                    select.select([attempt.socket], [], [], 1.0)
                elif state == pq.PollingStatus.WRITING:
                    select.select([], [attempt.socket], [], 1.0)
                else:
                    break
            attempt.untrace()
        finally:
            attempt.finish()
        traced = os.pread(trace, 1 << 20, 0)
    except psycopg.Error:
        return None
    finally:
        os.close(trace)
    found = _ERROR_CODE.search(traced)
    return found[1].decode() if found else None
