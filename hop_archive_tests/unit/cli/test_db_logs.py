"""``hop-archive db-logs``: the local stack's log from its files, and what can't be asked for."""

from __future__ import annotations

import datetime
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hop_archive.devkit.local.processes import ProcessMark
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.devkit.local.state import ServerState, StackState, write_state
from hop_archive_tests.aws import keys, moto, moto_endpoint, no_aws
from hop_archive_tests.cli_helpers import invoke, place, toml

__all__ = ["keys", "moto", "moto_endpoint", "no_aws", "place"]

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def ago(**since: int) -> datetime.datetime:
    return NOW - datetime.timedelta(**since)


def line(at: datetime.datetime, text: str) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC:10.0.0.1(5):u@d:[7]:{text}"


def shown(*args: str) -> list[str]:
    result = invoke("db-logs", *args)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


# --- here


def test_the_log_of_a_local_stack_is_shown_be_it_down(place: Path) -> None:
    stack = place / "stack"
    stack.mkdir()
    assert invoke("db-logs", "--dir", str(stack)).stderr == "There is no log.\n"
    (stack / "postgres.log").write_bytes(f"{line(ago(minutes=1), 'new')}\n".encode() + b"\xff\n")
    (stack / "postgres.log.1").write_text(f"{line(ago(minutes=2), 'old')}\n")
    os.utime(stack / "postgres.log.1", (0, 0))
    assert shown("--dir", str(stack)) == [line(ago(minutes=2), "old"), line(ago(minutes=1), "new"), "\\xff"]
    assert shown("--dir", str(stack), "--since", "1h", "-n", "9") == [line(ago(minutes=1), "new"), "\\xff"]


@pytest.mark.parametrize("directory", [True, False])
@pytest.mark.parametrize("name", ["mock-db", "other"])
def test_other_databases_have_no_logs_to_fetch(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, directory: bool
) -> None:
    toml(place, '[database.other]\ntype = "postgres"\nurl = "postgresql://u@db.example.org/d"\n')
    if directory and name == "mock-db":
        monkeypatch.setenv("HOP_ARCHIVE_LOCAL_DIR", str(place))
    result = invoke("db-logs", "-D", name)
    assert result.exit_code == 2
    assert "only RDS instances and the local stack have logs to fetch" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.fixture
def fallen(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a stack that was up, whose servers have ended; the shell has what local env said then."""
    stack = place / "my stack"
    stack.mkdir()
    ended = ProcessMark(None, ("no", "such", "program"))
    ports = {"s3": tuple(range(1, 9)), "kafka": (9,), "postgres": (10,)}
    servers = {name: ServerState(some, ended, settled=True) for name, some in ports.items()}
    write_state(stack, replace(StackState.new(), servers=servers))
    for name, value in LocalStack(stack).last_address().environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOP_ARCHIVE_LOCAL_DIR", str(stack))
    (stack / "postgres.log").write_text("PANIC\n")
    return stack


@pytest.mark.parametrize("named", [(), ("--dir", "my stack")])
def test_the_log_of_a_stack_that_is_down_is_shown_and_that_it_is_down_is_said_beside(
    fallen: Path, named: tuple[str, ...]
) -> None:
    result = invoke("db-logs", "-D", "local-db", *named)
    assert (result.exit_code, result.stdout) == (0, "PANIC\n")
    assert f"does not run now. Start it: hop-archive local up --dir '{fallen}'\n" in result.stderr


def test_the_log_of_a_stack_whose_state_is_damaged_is_shown_where_it_is_named(fallen: Path) -> None:
    (fallen / "stack.json").write_text("{")
    assert shown("--dir", str(fallen)) == ["PANIC"]
    assert "local down --dir" in invoke("db-logs", "-D", "local-db").stderr


@pytest.mark.parametrize("hosts", ["127.0.0.1:11", "127.0.0.1:10,127.0.0.1:11", "h:5432,i", "[::1"])
def test_another_servers_database_is_not_taken_for_the_stacks_that_is_down(
    fallen: Path, monkeypatch: pytest.MonkeyPatch, hosts: str
) -> None:
    monkeypatch.setenv("HOP_ARCHIVE_LOCAL_DATABASE_URL", f"postgresql://u:hunter2@{hosts}/d")
    result = invoke("db-logs", "-D", "local-db")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "hunter2" not in result.stderr
