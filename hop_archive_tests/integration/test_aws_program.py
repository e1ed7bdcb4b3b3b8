"""The command line as a process of its own, whose credentials an AWS elsewhere has."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from hop_archive.devkit.local.address import StackAddress
from hop_archive_tests.aws import client, keys, make_instance, make_secret, moto, moto_endpoint, no_aws
from hop_archive_tests.cli_helpers import DEADLINE_S, command, environment

__all__ = ["keys", "moto", "moto_endpoint", "no_aws"]

pytestmark = pytest.mark.local

STANZAS = """
[source.m]
type = "mock"
samples = 30
directory = "{place}/source"

[database.rds]
type = "postgres"
instance_id = "the-db"
region = "us-west-2"
host = "{host}"
port = {port}
sslmode = "{sslmode}"
schema = "{namespace}"

[store.chain]
type = "s3"
endpoint = "{endpoint}"
region = "us-east-1"
bucket = "{bucket}"
prefix = "{namespace}"
"""


@dataclass(frozen=True, slots=True)
class Program:
    """A directory to run the command line in, and what its environment says."""

    directory: Path
    environment: dict[str, str]
    stanzas: dict[str, object]

    def configure(self, **changes: object) -> None:
        (self.directory / "hop_archive.toml").write_text(STANZAS.format(**self.stanzas | changes))

    def call(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*args),
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )


@pytest.fixture
def program(address: StackAddress, moto: str, namespace: str, tmp_path: Path) -> Program:
    url = urlsplit(address.database_url)
    master = make_instance(
        "the-db",
        DBName=url.path.removeprefix("/"),
        MasterUsername=unquote(url.username or ""),
        ManageMasterUserPassword=True,
    )
    login = {"username": unquote(url.username or ""), "password": unquote(url.password or "")}
    make_secret(master["MasterUserSecret"]["SecretArn"], json.dumps(login))
    given = {
        "HOME": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": address.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": address.s3_secret_key,
    }
    stanzas: dict[str, object] = {
        "place": tmp_path,
        "host": url.hostname,
        "port": url.port,
        "sslmode": "disable",
        "namespace": namespace,
        "endpoint": address.s3_endpoint,
        "bucket": address.bucket,
    }
    made = Program(tmp_path, environment() | given, stanzas)
    made.configure()
    return made


CHOSEN = ("-H", "m", "-D", "rds", "-S", "chain")


def test_a_process_finds_its_database_its_password_and_its_keys(
    program: Program, address: StackAddress
) -> None:
    migrated = program.call("migrate", *CHOSEN)
    ran = program.call("run", *CHOSEN, "--until-caught-up", "--log", "debug")
    assert (migrated.returncode, ran.returncode) == (0, 0), migrated.stderr + ran.stderr
    assert "Caught up." in ran.stdout
    told = "".join((migrated.stdout, migrated.stderr, ran.stdout, ran.stderr))
    password = unquote(urlsplit(address.database_url).password or "")
    assert not [secret for secret in (password, address.s3_secret_key) if secret in told]


def test_a_secret_that_is_gone_ends_it_with_one_line(program: Program) -> None:
    for secret in client("secretsmanager").list_secrets()["SecretList"]:
        client("secretsmanager").delete_secret(SecretId=secret["ARN"], ForceDeleteWithoutRecovery=True)
    ran = program.call("status", *CHOSEN)
    assert ran.returncode == 2
    (message,) = ran.stderr.splitlines()
    assert "hop_archive.toml: [database.rds] instance_id: secret " in message
    assert "in region us-west-2" in message


def test_a_server_without_tls_is_not_talked_to_in_the_clear(program: Program) -> None:
    program.configure(sslmode="")
    ran = program.call("migrate", *CHOSEN)
    assert ran.returncode in (2, 3)
    assert "SSL" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
