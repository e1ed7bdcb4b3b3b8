"""Every command that asks a server, while that server is down: one message, an exit code, soon, and no secret."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.cli import COMMANDS
from hop_archive.errors import UnavailableError
from hop_archive.model.query import Query
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.cli_helpers import M, invoke, mocks, place, program
from hop_archive_tests.conftest import unavailable

__all__ = ["place"]

SECRET = "hunter2-is-not-to-be-seen"

SERVERLESS = {"list", "completion", "local", "schema", "alert", "metrics", "watch"}
"""They ask none of the three; ``local`` has the stack's own tests, ``metrics`` and ``watch`` say of a server that is down what they are for."""


@dataclass(frozen=True)
class Case:
    """How a command is called, and how it ends where a server that it asks does not answer.

    Attributes:
        args: Its own arguments; ``UUID`` stands for a message that is archived.
        exits: Exit code by what is down. What is not named here it does not ask.
        as_json: Whether it takes ``--json``.
    """

    args: tuple[str, ...]
    exits: dict[str, int]
    as_json: bool = True


CASES: dict[str, Case] = {
    "run": Case(("--until-caught-up",), {"source": 3, "database": 3, "store": 3}),
    "status": Case((), {"source": 0, "database": 3}),
    "uuids": Case((), {"database": 3}),
    "inspect": Case(("UUID",), {"database": 3, "store": 3}),
    "export": Case(("out",), {"database": 3, "store": 3}),
    "connect": Case((), {"database": 2}, as_json=False),
    "topics": Case((), {"source": 0, "database": 3}),
    "publish": Case(("--known", "--create", "-T", "x-test"), {"source": 3}),
    "verify": Case(("--deep", "--direction", "source"), {"source": 3, "database": 3, "store": 3}),
    "findings": Case((), {"database": 3}),
    "repair": Case((), {"database": 3, "store": 3}),
    "scrub": Case((), {"database": 3, "store": 3}),
    "report": Case(("out.html",), {"database": 3}, as_json=False),
    "restore": Case(
        ("--all-topics", "--to-source", "down", "--patience", "1"), {"source": 3, "database": 3, "store": 3}
    ),
    "snapshot": Case(("take",), {"source": 3, "database": 3}),
    "clean-tests": Case((), {"source": 3, "database": 3, "store": 3}),
    "clean-duplicates": Case((), {"database": 3, "store": 3}),
    "compact": Case(("--yes",), {"database": 3}),
    "prune": Case(("-T", "*", "--older-than", "9000d"), {"database": 3, "store": 3}),
    "retract": Case(("UUID",), {"database": 3}),
    "suppress": Case(("UUID", "--reason", "why"), {"database": 3, "store": 3}),
    "rebuild-catalog": Case((), {"database": 3, "store": 3}),
    "catalog-snapshot": Case(("out",), {"database": 3}),
    "index-text": Case((), {"database": 3, "store": 3}),
    "correct-media-types": Case((), {"database": 3, "store": 3}),
    "doctor": Case((), {"source": 1, "database": 1, "store": 1}),
    "migrate": Case((), {"database": 3}),
    "db-logs": Case((), {"AWS": 3}),
    "kube-logs": Case((), {"Kubernetes": 3}),
}
"""Of every command that asks a server."""

UNAVAILABLE = UnavailableError.exit_code
NOWHERE = "127.0.0.1:9"
"""Where nothing listens; whoever is told that it does not answer is told where, too."""

EVERY = [(name, down) for name, case in CASES.items() for down in case.exits]
OPTIONS = {"source": "-H", "database": "-D", "store": "-S"}

ALLOWED = "cleaning_allowed = true\ndeleting_allowed = true"
"""So that commands which take away get as far as a server."""

INDEXED = 'index_text = ["*"]'

DOWN = f"""
[source.down]
type = "kafka"
bootstrap_servers = "127.0.0.1:9"
security = "sasl-scram-sha-512"
username_env = "TEST_USER"
password_env = "TEST_PASSWORD"
test_topics = ["*-test"]
writable = true
[database.down]
{INDEXED}
cleaning_allowed = true
deleting_allowed = true
type = "postgres"
url = "postgresql://somebody@127.0.0.1:9/none"
password_env = "TEST_PASSWORD"
[database.AWS]
type = "postgres"
instance_id = "the-db"
region = "us-west-2"
[store.down]
cleaning_allowed = true
deleting_allowed = true
type = "s3"
endpoint = "http://127.0.0.1:9"
region = "us-east-1"
bucket = "none"
access_key_env = "TEST_USER"
secret_key_env = "TEST_PASSWORD"
"""

KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
    "users": [{"name": "c", "user": {"token": SECRET}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c", "namespace": "archive"}}],
}


@pytest.fixture
def archived(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An archive of mocks, stanzas that nothing answers for, and their secrets; the UUID of a message."""
    directory = mocks(place, samples=5)
    stanzas = place / "hop_archive.toml"
    allowing = stanzas.read_text()
    for kind in ("database", "store"):
        allowing = allowing.replace(f"[{kind}.m]", f"[{kind}.m]\n{ALLOWED}")
    allowing = allowing.replace("[database.m]", f"[database.m]\n{INDEXED}")
    stanzas.write_text(allowing + DOWN)
    (place / "kubeconfig").write_text(yaml.safe_dump(KUBECONFIG))
    secrets = {"TEST_PASSWORD": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET}
    told = {
        "TEST_USER": "somebody",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }
    for name, value in {**secrets, **told, "KUBECONFIG": str(place / "kubeconfig")}.items():
        monkeypatch.setenv(name, value)
    # That a source gives up after ten seconds is tested with the sources; here that would be a minute of waiting.
    defaults = KafkaSource.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout_s", 2.0)
    invoke("run", *M, "--until-caught-up", "--quiet")
    return str(next(MockCatalog("m", directory=directory).select(Query())).uuid)


def words(name: str, down: str, own: str) -> list[str]:
    """The command line, with mocks for all but what is down."""
    args = [own if word == "UUID" else word for word in CASES[name].args]
    if name == "kube-logs":
        return [name, *args]
    if down == "AWS":
        return [name, *args, "-D", "AWS"]
    chosen = {option: "down" if kind == down else "m" for kind, option in OPTIONS.items()}
    return [name, *args, *(word for pair in chosen.items() for word in pair)]


def test_every_command_is_here() -> None:
    assert set(CASES) | SERVERLESS == set(COMMANDS)
    assert not set(CASES) & SERVERLESS


@pytest.mark.timeout(90)  # and not for ever
@pytest.mark.parametrize(("name", "down"), [one for one in EVERY if one[0] != "connect"])
def test_a_server_that_is_down_is_one_message_and_soon(archived: str, name: str, down: str) -> None:
    case = CASES[name]
    told = invoke(*words(name, down, archived), *(("--json",) if case.as_json else ()))
    assert told.exit_code == case.exits[down], told.output
    _says_it_once(told)
    if case.as_json and told.stdout:
        json.loads(told.stdout)  # whole, or nothing


def _says_it_once(told: Result) -> None:
    assert SECRET not in told.output
    assert "Traceback" not in told.output
    errors = [line for line in told.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == (told.exit_code == UNAVAILABLE), told.stderr
    said = errors[0] if errors else told.stdout
    assert NOWHERE in said, said


@pytest.mark.timeout(90)  # and not for ever
def test_psql_says_by_itself_that_its_server_is_down(archived: str, place: Path) -> None:
    if not shutil.which("psql"):
        unavailable("there is no psql")
    ran = program("connect", "-D", "down", "--", "-c", "SELECT 1", cwd=place)
    assert (ran.returncode, ran.stdout) == (CASES["connect"].exits["database"], "")
    assert "refused" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert SECRET not in ran.stderr


def test_what_suppress_did_is_told_though_kafka_cannot_be_asked(archived: str) -> None:
    ran = invoke("suppress", archived, "-H", "down", "-D", "m", "-S", "m", "--reason", "request 17", "--yes")
    assert ran.exit_code == 1
    assert "has no content any more" in ran.stdout
    assert "Whether Kafka still holds it is not known: Source down" in ran.stdout
