"""``hop-archive connect``, with a program in the place of psql that writes down how it was called."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hop_archive.catalog.postgres.migrate import migrate
from hop_archive_tests.cli_helpers import DEADLINE_S, command, environment, place, toml, wait_for

__all__ = ["place"]

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)


SECRET = "p:a/s@s w'o\"rd"


FAKE = f"""#!{sys.executable}
import json, os, signal, sys
note = {{"argv": sys.argv, "environment": dict(os.environ)}}
with open(os.environ["NOTE"] + ".new", "w") as file:
    json.dump(note, file)
os.rename(os.environ["NOTE"] + ".new", os.environ["NOTE"])
if "--wait" in sys.argv:
    signal.signal(signal.SIGINT, lambda *_: sys.exit(42))
    print("waiting", flush=True)
    signal.pause()
sys.exit(int(os.environ.get("CODE", "0")))
"""


class Fake:
    """A directory of programs that note how they are called."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.programs = place / "bin"
        self.programs.mkdir()
        self.note = place / "note"

    def install(self, name: str) -> None:
        program = self.programs / name
        program.write_text(FAKE)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def environment(self, **more: str) -> dict[str, str]:
        return environment() | {"PATH": str(self.programs), "NOTE": str(self.note), "SECRET": SECRET} | more

    def call(self, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command("connect", "-D", "x", *args),
            cwd=self.place,
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def noted(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.note.read_text())
        return found


@pytest.fixture
def fake(place: Path) -> Fake:
    toml(
        place,
        """
        [database.x]
        type = "postgres"
        host = "db.example.org"
        port = 5433
        name = "archive of hop"
        user = "reader"
        password_env = "SECRET"
        schema = 'Odd "schema'
        [database.url]
        type = "postgres"
        url = "postgresql://[::1]:6000/d?sslmode=verify-full&options=-c%20jit%3Doff&keepalives=1"
        """,
    )
    return Fake(place)


def test_psql_gets_the_address_and_the_password_by_its_environment_alone(fake: Fake) -> None:
    fake.install("psql")
    ran = fake.call(
        "--read-only", "--", "-c", "select 1", PGSERVICE="other", PGHOSTADDR="10.0.0.1", PGUSER="me"
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    noted = fake.noted()
    assert noted["argv"] == [str(fake.programs / "psql"), "-c", "select 1"]
    told = {name: value for name, value in noted["environment"].items() if name.startswith("PG")}
    assert told == {
        "PGHOST": "db.example.org",
        "PGPORT": "5433",
        "PGDATABASE": "archive of hop",
        "PGUSER": "reader",
        "PGPASSWORD": SECRET,
        "PGCONNECT_TIMEOUT": "10",
        "PGAPPNAME": "hop-archive",
        "PGOPTIONS": '-c search_path="Odd\\ ""schema" -c default_transaction_read_only=on',
    }


def test_all_that_a_url_says_is_handed_on(fake: Fake) -> None:
    fake.install("psql")
    assert fake.call("-D", "url").returncode == 0
    told = {name: value for name, value in fake.noted()["environment"].items() if name.startswith("PG")}
    assert told == {
        "PGHOST": "::1",
        "PGPORT": "6000",
        "PGDATABASE": "d",
        "PGSSLMODE": "verify-full",
        "PGCONNECT_TIMEOUT": "10",
        "PGAPPNAME": "hop-archive",
        "PGOPTIONS": '-c jit=off -c search_path="public"',
    }


@pytest.mark.parametrize("url", ["postgresql://u:hunter2@[::1/db", "postgresql://u:hunter2%zz@h/db"])
def test_a_url_that_is_none_is_refused_without_its_password(fake: Fake, url: str) -> None:
    toml(fake.place, '[database.x]\ntype = "postgres"\nurl = "${DSN}"\n')
    fake.install("psql")
    ran = fake.call(DSN=url)
    assert ran.returncode == 2
    assert ran.stdout == ""
    (message,) = ran.stderr.splitlines()
    assert message.startswith(
        "Error: hop_archive.toml: [database.x]: its connection string is not one. Write postgresql://"
    )
    assert "hunter2" not in message
    assert not fake.note.exists()


def test_the_exit_code_is_psqls(fake: Fake) -> None:
    fake.install("psql")
    assert fake.call(CODE="3").returncode == 3


def test_pgcli_stands_in_where_there_is_no_psql(fake: Fake) -> None:
    fake.install("pgcli")
    assert fake.call().returncode == 0
    assert fake.noted()["argv"] == [str(fake.programs / "pgcli")]
    fake.install("psql")
    assert fake.call().returncode == 0
    assert fake.noted()["argv"] == [str(fake.programs / "psql")]


def test_without_either_it_says_what_to_install(fake: Fake) -> None:
    ran = fake.call()
    assert ran.returncode == 2
    assert ran.stderr.startswith("Error: There is no psql here")
    assert "postgresql-client" in ran.stderr
    assert SECRET not in ran.stderr


def test_ctrl_c_is_psqls(fake: Fake) -> None:
    fake.install("psql")
    with subprocess.Popen(
        command("connect", "-D", "x", "--", "--wait"),
        cwd=fake.place,
        env=fake.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as running:
        wait_for(fake.note.exists, "psql to start")
        assert running.stdout is not None
        assert running.stdout.readline() == b"waiting\n"
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(DEADLINE_S) == 42
        assert running.stderr is not None
        assert running.stderr.read() == b""


def test_a_missing_password_is_named(fake: Fake) -> None:
    fake.install("psql")
    ran = fake.call(SECRET="")
    assert ran.returncode == 2
    assert "SECRET" in ran.stderr
    assert not fake.note.exists()


@pytest.mark.skipif(shutil.which("psql") is None, reason="no psql is installed; the other tests need none")
def test_the_real_psql_finds_the_catalog(place: Path, empty_database_url: str) -> None:
    from psycopg.conninfo import conninfo_to_dict

    told = conninfo_to_dict(empty_database_url)
    schema = 'Odd "schema\\'
    migrate(empty_database_url, schema=schema)
    toml(
        place,
        f"""
        [database.x]
        type = "postgres"
        host = "{told["host"]}"
        port = {told["port"]}
        name = "{told["dbname"]}"
        user = "{told["user"]}"
        password_env = "SECRET"
        schema = '{schema}'
        """,
    )

    def ask(statement: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command("connect", "-D", "x", *options, "--", "-XAtc", statement),
            cwd=place,
            env=environment() | {"SECRET": str(told["password"])},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    assert ask("SELECT count(*) FROM messages").stdout == "0\n"
    refused = ask("DELETE FROM messages", "--read-only")
    assert refused.returncode == 1
    assert "read-only" in refused.stderr
    assert ask("DELETE FROM messages").returncode == 0
