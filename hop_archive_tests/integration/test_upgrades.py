"""What older versions left behind (``hop_archive_tests/upgrades``) is opened by this one: migrated, verified, archived on, restored, rebuilt.

Each is brought into a database and buckets of the test's own. A version that this one's migrations know nothing of is refused, by every command.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._cli.instance import migrate_command

import hop_archive
from hop_archive.catalog.postgres.migrate import migrate, pending
from hop_archive.catalog.postgres.sql import VERSION_TABLE
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.samples import filler
from hop_archive.errors import ConfigurationError
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.source.kafka.source import KafkaSource
from hop_archive.source.mock.cluster import MockCluster
from hop_archive_tests.cli_helpers import DEADLINE_S, invoke, place, wait_for
from hop_archive_tests.contract.catalog_helpers import as_url, connect
from hop_archive_tests.orchestration.helpers import shared_config
from hop_archive_tests.orchestration.test_left_undone import why
from hop_archive_tests.upgrades.kept import DAGSTER_YAML, STANZAS, Kept, all_kept, dagster_environment

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)
pytestmark = pytest.mark.local

__all__ = ["place"]

STORED = """
    SELECT topic, generation, partition, "offset", timestamp, uuid, encode(digest, 'hex'), key, position, size, crc32, title, sender, retracted
    FROM messages ORDER BY topic, generation, partition, "offset"
"""
LEDGER = """
    SELECT topic, generation, partition, sum(upper(offsets) - lower(offsets)), sum(archived), sum(duplicates), sum(absent)
    FROM batches GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
READ_THROUGH = "gcn.notices"


@dataclass(frozen=True, slots=True)
class Opened:
    """What a version left behind, where this one can get at it."""

    kept: Kept
    url: str
    place: Path

    def ask(self, statement: str) -> list[Any]:
        with connect(self.url) as connection:
            return connection.execute(statement.encode()).fetchall()

    def count(self, topic: str) -> int:
        """How many messages of a topic are stored."""
        return sum(found == topic for found, *_ in self.ask(STORED))

    def do(self, *arguments: str) -> str:
        """Run a command, to success."""
        done = invoke(*arguments)
        assert done.exit_code == 0, f"{arguments}: {done.output}"
        return done.output

    def publish(self, count: int) -> None:
        cluster = MockCluster(directory=self.place / "source")
        for number in range(count):
            cluster.append(READ_THROUGH, b"new %d" % number, partition=number % 2)


@pytest.fixture(params=all_kept(), ids=str)
def opened(
    request: pytest.FixtureRequest,
    address: StackAddress,
    empty_database_url: str,
    place: Path,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Opened]:
    kept: Kept = request.param
    s3 = boto3.client(
        "s3",
        endpoint_url=address.s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=address.s3_access_key,
        aws_secret_access_key=address.s3_secret_key,
    )
    buckets = (namespace, f"{namespace}-backup")
    for bucket in buckets:
        s3.create_bucket(Bucket=bucket)
        for key, body in kept.objects():
            s3.put_object(Bucket=bucket, Key=key, Body=body)
    kept.fill(empty_database_url, "catalog", namespace)
    (place / "source").mkdir(mode=0o700)
    (place / "source" / "cluster.json").write_bytes(kept.read("source.json"))
    (place / "hop_archive.toml").write_text(
        STANZAS.format(directory=place, compressions='compressions = {"ztf.*" = "zstd"}')
    )
    for name, value in address.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOP_ARCHIVE_LOCAL_DATABASE_URL", as_url(empty_database_url))
    monkeypatch.setenv("HOP_ARCHIVE_LOCAL_BUCKET", namespace)
    for kind in ("SOURCE", "DATABASE", "STORE"):
        monkeypatch.setenv(f"HOP_ARCHIVE_{kind}", "kept")
    yield Opened(kept, empty_database_url, place)
    for bucket in buckets:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for entry in page.get("Contents", ()):
                s3.delete_object(Bucket=bucket, Key=entry["Key"])
        s3.delete_bucket(Bucket=bucket)


def test_what_a_version_left_behind_is_migrated_verified_archived_on_and_brought_back(opened: Opened) -> None:
    stored, ledger = opened.ask(STORED), opened.ask(LEDGER)
    assert len(stored) > 30
    read_on = opened.count(READ_THROUGH)
    if pending(opened.url):
        refused = invoke("status")
        assert (refused.exit_code, opened.ask(STORED)) == (2, stored)
        assert "hop-archive migrate" in refused.output
    opened.do("migrate")
    assert (opened.ask(STORED), opened.ask(LEDGER)) == (stored, ledger), "migrating changes no message"
    opened.do("verify", "--deep", "--direction", "objects", "--direction", "backup", "--direction", "ledger")
    # The topics are still the same: archiving goes on where the other version ended.
    opened.publish(6)
    opened.do("run", "--until-caught-up", "-q")
    now = opened.ask(STORED)
    assert {*stored} <= {*now}
    assert opened.count(READ_THROUGH) == read_on + 6
    opened.do("verify", "--deep")
    opened.do("verify", "--direction", "source", "--deep")
    opened.do("restore", "-T", READ_THROUGH, "--to-topic", "brought.back", "--to-source", "kept")
    # All that rows say comes back from what the other version stored, and its snapshot.
    with connect(opened.url) as connection:
        connection.execute("TRUNCATE messages, batches, duplicates, generations, logs, topics CASCADE")
    opened.do("rebuild-catalog", "--from-snapshot", "store", "--yes")
    opened.do("verify", "--deep")
    assert {row[5] for row in stored} <= {row[5] for row in opened.ask(STORED)}


KAFKA = """
[source.kept]
type = "kafka"
bootstrap_servers = "${{HOP_ARCHIVE_LOCAL_BOOTSTRAP_SERVERS}}"
security = "plaintext"
topics = ["{topic}"]
"""


def test_an_old_archiver_works_on_while_the_catalog_is_migrated_and_a_new_one_beside_it(
    opened: Opened, address: StackAddress, namespace: str, tmp_path: Path
) -> None:
    if not pending(opened.url):
        pytest.skip("this version asks nothing else of a catalog than that one")
    code = tmp_path / "code"
    code.mkdir()
    if not opened.kept.export(code):
        pytest.skip("the history that is here does not reach back to that version")
    # One configuration for both: without the keys that the old version does not know.
    stanzas = STANZAS.format(directory=opened.place, compressions="").partition("[database.kept]")
    (opened.place / "hop_archive.toml").write_text(KAFKA.format(topic=namespace) + "".join(stanzas[1:]))
    kafka = KafkaSource("hop-local", bootstrap_servers=address.bootstrap_servers, writable=True)
    kafka.create_topic(namespace, 1)

    def publish() -> int:
        kafka.publish(filler(6, 100, topic=namespace, seed=len(published)))
        published.append(6)
        return sum(published)

    published: list[int] = []
    old = [sys.executable, "-m", "hop_archive.cli"]
    environ = {**os.environ, "PYTHONPATH": str(code)}
    log = tmp_path / "log"
    with log.open("wb") as output:
        running = subprocess.Popen([*old, "run"], stdout=output, stderr=output, cwd=opened.place, env=environ)

    def is_archived(count: int) -> bool:
        assert running.poll() is None, log.read_text()
        return opened.count(namespace) == count

    try:
        wait_for(partial(is_archived, publish()), "the old version archives")
        opened.do("migrate")
        wait_for(partial(is_archived, publish()), "the old version archives on")
        # Started anew, it refuses; the new one works beside the one that still runs.
        refused = subprocess.run(
            [*old, "status"], check=False, capture_output=True, text=True, cwd=opened.place, env=environ
        )
        assert (refused.returncode, "migration" in refused.stderr) == (2, True), refused.stderr
        total = publish()
        opened.do("run", "--until-caught-up", "-q")
        wait_for(partial(is_archived, total), "one of them archives")
        running.send_signal(signal.SIGTERM)
        assert running.wait(DEADLINE_S) == 0
    finally:
        running.kill()
        running.wait()
        kafka.close()
    opened.do("verify", "--deep")
    opened.do("verify", "--direction", "source", "--deep")


def test_runs_of_dagster_of_an_older_version_are_still_there_once_its_storage_is_migrated(
    opened_dagster: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = CliRunner().invoke(migrate_command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with dg.DagsterInstance.get() as instance:
        runs = {run.job_name: run for run in instance.get_runs()}
        assert {run.status for run in runs.values()} == {dg.DagsterRunStatus.SUCCESS}
        assert "verify" in runs
        assert [event for run in runs.values() for event in instance.all_logs(run.run_id)]
        found = instance.fetch_materializations(dg.AssetKey("archived_messages"), limit=5)
        assert [record.partition_key for record in found.records] == ["icecube.tracks"]
        assert instance.get_dynamic_partitions("topics") == ["icecube.tracks"]
        assert all(instance.get_job_snapshot(str(run.job_snapshot_id)) for run in runs.values())


@pytest.fixture(params=all_kept(), ids=str)
def opened_dagster(
    request: pytest.FixtureRequest, empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Kept:
    """Dagster's storage as a version left it, which the environment names."""
    kept: Kept = request.param
    kept.fill(empty_database_url, "dagster")
    (tmp_path / "dagster.yaml").write_text(DAGSTER_YAML)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    for name, value in dagster_environment(empty_database_url).items():
        monkeypatch.setenv(name, value)
    return kept


REFUSING = (
    ("run", "--until-caught-up"),
    ("status",),
    ("doctor",),
    ("verify",),
    ("prune", "-T", "*", "--older-than", "1d"),
    ("uuids",),
    ("migrate",),
)


@pytest.fixture
def newer(
    empty_database_url: str, address: StackAddress, place: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The URL of a catalog that a later version has migrated."""
    migrate(empty_database_url)
    with connect(empty_database_url) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'".encode())
    (place / "hop_archive.toml").write_text(STANZAS.format(directory=place, compressions=""))
    for name, value in address.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOP_ARCHIVE_LOCAL_DATABASE_URL", as_url(empty_database_url))
    for kind in ("SOURCE", "DATABASE", "STORE"):
        monkeypatch.setenv(f"HOP_ARCHIVE_{kind}", "kept")
    return empty_database_url


def test_a_catalog_of_a_later_version_is_refused_by_each_kind_of_command(newer: str) -> None:
    for command in REFUSING:
        done = invoke(*command)
        assert done.exit_code == (1 if command == ("doctor",) else 2), command
        assert "9999" in done.output
        assert "Upgrade hop_archive" in done.output, command
        assert "hop-archive migrate" not in done.output, "which would not help"


def test_dagster_refuses_a_catalog_of_a_later_version_and_archives_nothing(newer: str) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_definitions().resolve_job_def("archive_quiet_topics")
        run = job.execute_in_process(
            instance=instance, run_config=shared_config(["gcn.notices"]), raise_on_error=False
        )
    assert not run.success
    assert "Upgrade hop_archive" in why(run)
    with connect(newer) as connection:
        assert connection.execute("SELECT count(*) FROM batches").fetchall() == [(0,)]


def test_python_refuses_a_catalog_of_a_later_version(newer: str) -> None:
    with (
        hop_archive.open(database="kept", store="kept") as archive,
        pytest.raises(ConfigurationError, match="Upgrade hop_archive"),
    ):
        archive.count()
