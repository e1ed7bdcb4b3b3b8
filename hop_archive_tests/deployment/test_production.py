"""Production's dagster.yaml for real: what compose.yaml starts, as processes, on the local Postgres, S3 and Kafka.

One story, told by the fixture: the one-shot services, then code location, webserver and daemon, alerts published,
sensor, run, catalog. The tests look at what it left; the last ones break it.
"""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import psycopg
import pytest
from psycopg import sql

from hop_archive.archive import Archive
from hop_archive.config.load import load, select
from hop_archive.config.open import open_archive
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.local.machine import choose_ports
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.ingest.survey import survey
from hop_archive.upkeep.verify.sent import Place, Sent
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.databases import drop_database
from hop_archive_tests.deployment.image import VERSION, Host, Image, build, ended
from hop_archive_tests.faults.real import (
    assert_all_archived,
    create_sample_topics,
    publish,
    sample_alerts,
)

pytestmark = [pytest.mark.local, pytest.mark.slow, pytest.mark.timeout(1800)]

ALERTS = 300
RUNS = """
{ runsOrError(filter: {statuses: [SUCCESS]}) { ... on Runs { results { runId jobName status runConfigYaml tags { key value } } } } }
"""
TICKS = """
query ($name: String!) {
  sensorOrError(sensorSelector: {
    repositoryLocationName: "hop_archive", repositoryName: "__repository__", sensorName: $name
  }) { ... on Sensor { sensorState { ticks { status error { message } } } } }
}
"""
DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"


@dataclass(frozen=True, slots=True)
class Deployment:
    """All that runs, and what was published."""

    host: Host
    archive: Archive
    topics: list[str]
    sent: dict[Place, Sent]
    logs_bucket: str
    port: int
    s3: Any
    as_built: dict[str, tuple[int, int]]

    def ask(self, query: str, **variables: str) -> Any:
        """Ask the webserver."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.loads(answer.read())
        assert "errors" not in found, found
        return found["data"]

    def runs(self) -> list[dict[str, Any]]:
        found = self.ask(RUNS)["runsOrError"]["results"]
        return [run for run in found if run["jobName"] == "archive_quiet_topics"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build(tmp_path_factory.mktemp("image"))


def new_database(address: StackAddress, name: str) -> str:
    """Make a database beside the stack's own; its address."""
    with psycopg.connect(address.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return urlsplit(address.database_url)._replace(path=f"/{name}").geturl()


def values_here(address: StackAddress, name: str, code_port: int, directory: Path) -> dict[str, str]:
    """What compose.yaml's variables are on this machine, and what a .env says."""
    dagster = urlsplit(new_database(address, f"{name}_dagster"))
    toml = directory / "hop_archive.toml"
    toml.write_text(
        f"""
        [source.here]
        type = "kafka"
        bootstrap_servers = "${{HOP_ARCHIVE_LOCAL_BOOTSTRAP_SERVERS}}"
        security = "plaintext"
        writable = true
        topics = ["{name}*"]
        veto = []
        """
    )
    return {
        **address.environment(),
        "HOP_ARCHIVE_LOCAL_DATABASE_URL": new_database(address, f"{name}_catalog"),
        "HOP_ARCHIVE_LOCAL_BUCKET": f"{name}-archive",
        "HOP_ARCHIVE_MOCK_DIR": str(directory / "mocks"),
        "HOP_ARCHIVE_TOML": str(toml),
        "HOP_ARCHIVE_SOURCE": "here",
        "HOP_ARCHIVE_DATABASE": "local-db",
        "HOP_ARCHIVE_STORE": "local-store",
        "HOP_ARCHIVE_LONGEST_WAIT_S": "1",
        "HOP_ARCHIVE_FOLLOW_S": "5",  # so that a run ends
        "DAGSTER_POSTGRES_HOST": str(dagster.hostname),
        "DAGSTER_POSTGRES_PORT": str(dagster.port),
        "DAGSTER_POSTGRES_USER": str(dagster.username),
        "DAGSTER_POSTGRES_PASSWORD": str(dagster.password),
        "DAGSTER_POSTGRES_DB": dagster.path.strip("/"),
        "DAGSTER_LOGS_BUCKET": f"{name}-logs",
        "DAGSTER_CODE_HOST": "127.0.0.1",
        "DAGSTER_CODE_PORT": str(code_port),
        "AWS_ENDPOINT_URL_S3": address.s3_endpoint,
        "AWS_ACCESS_KEY_ID": address.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": address.s3_secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.fixture(scope="module")
def deployment(
    image: Image, local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    address, directory = local_stack.up(), tmp_path_factory.mktemp("host")
    name = f"t{uuid.uuid4().hex[:12]}"
    code_port, port = choose_ports(2)
    environ = values_here(address, name, code_port, directory)
    words = {
        "/opt/dagster": str(image.home),
        "0.0.0.0": "127.0.0.1",
        "3000": str(port),
        "4000": str(code_port),
        "hop-archive": f"{name}-archive",
        "dagster-logs": f"{name}-logs",
    }
    configuration = load(environ=environ)
    archive = open_archive(configuration, select(configuration, environ=environ), environ)
    s3 = boto3.client(
        "s3",
        endpoint_url=address.s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=address.s3_access_key,
        aws_secret_access_key=address.s3_secret_key,
    )
    try:
        as_built = image.entries()
        with ended(Host(image, directory, environ, words)) as host:
            for service in ("buckets", "catalog", "dagster-storage"):
                host.complete(service)
            for service in ("code", "webserver", "daemon"):
                host.start(service)
            topics = create_sample_topics(archive.source, name)
            sent = publish(archive.source, sample_alerts(name, ALERTS))
            made = Deployment(host, archive, topics, sent, f"{name}-logs", port, s3, as_built)
            wait_for(lambda: is_archived(made), "all is archived", 600)
            wait_for(lambda: answers(made) and made.runs(), "a run has succeeded", 300)
            yield made
    finally:
        archive.close()
        with psycopg.connect(address.database_url, autocommit=True) as connection:
            for kind in ("catalog", "dagster"):
                drop_database(connection, f"{name}_{kind}")


def is_archived(made: Deployment) -> bool:
    for service, process in made.host.processes.items():
        assert process.poll() is None, f"{service} has ended"
    return not survey(made.archive, made.topics).pending()


def answers(made: Deployment) -> bool:
    try:
        return bool(made.ask("{ version }"))
    except OSError:
        return False


def test_what_is_published_is_found_by_the_sensor_and_archived_whole(deployment: Deployment) -> None:
    assert_all_archived(deployment.archive, deployment.topics, deployment.sent)


def test_the_webserver_tells_of_the_run_with_its_source_and_topics(deployment: Deployment) -> None:
    tags = {tag["key"]: tag["value"] for run in deployment.runs() for tag in run["tags"]}
    assert tags["hop_archive/source"] == "here"
    assert tags["dagster/sensor_name"] == "kafka_offsets"
    assert not [key for key in tags if key.startswith("topic/")], "a shared run names its topics once"
    configs = [run["runConfigYaml"] for run in deployment.runs()]
    assert all(any(topic in config for config in configs) for topic in deployment.topics)


@pytest.mark.parametrize("name", ["kafka_offsets", "topic_partitions", "topic_pages", "dead_runs"])
def test_no_tick_has_failed(deployment: Deployment, name: str) -> None:
    ticks = deployment.ask(TICKS, name=name)["sensorOrError"]["sensorState"]["ticks"]
    assert ticks
    assert [tick["error"] for tick in ticks if tick["status"] == "FAILURE"] == []


def test_the_log_of_the_run_is_in_s3_and_says_what_was_done(deployment: Deployment) -> None:
    run_id = deployment.runs()[0]["runId"]
    bucket = deployment.logs_bucket
    listed = deployment.s3.list_objects_v2(Bucket=bucket, Prefix=f"dagster-logs/storage/{run_id}/")
    keys = [entry["Key"] for entry in listed["Contents"]]
    text = b"".join(deployment.s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys).decode()
    assert "to archive: " in text
    assert "sign of life" not in text, "none failed to be shown"


def test_every_daemon_that_the_settings_ask_for_is_healthy(deployment: Deployment) -> None:
    found = deployment.ask(DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
    required = {daemon["daemonType"] for daemon in found if daemon["required"]}
    assert required >= {"SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR", "MONITORING", "EVENT_LOG_CONSUMER"}
    assert [daemon for daemon in found if daemon["required"] and not daemon["healthy"]] == []


def test_the_command_is_the_releases_and_reads_the_same_archive(deployment: Deployment) -> None:
    program = str(deployment.host.image.programs / "hop-archive")
    shown = deployment.host.run("code", [program, "--version"])
    assert shown.stdout.strip() == f"hop-archive {VERSION}"
    status = deployment.host.run("code", [program, "status", "--json"])
    assert status.returncode == 0, status.stderr
    assert {one["lag"] for one in json.loads(status.stdout)["topics"]} == {0}


def test_nothing_is_written_to_the_image_so_it_may_be_read_only(deployment: Deployment) -> None:
    """By root, too, whom no permission keeps out: so it is looked whether anything was."""
    assert deployment.host.image.entries() == deployment.as_built


def test_what_is_done_once_may_be_done_again(deployment: Deployment) -> None:
    for service in ("buckets", "catalog", "dagster-storage"):
        deployment.host.complete(service)


def test_health_checks_tell_the_living_from_the_dead(deployment: Deployment) -> None:
    """The last test: it ends all."""
    host = deployment.host
    services = ("code", "webserver", "daemon")
    assert [service for service in services if not host.healthy(service)] == []
    host.end_all()
    assert [service for service in ("code", "webserver") if host.healthy(service)] == []
    # Dagster adds the 30 s between two signs of life: dead after 5 s of silence, here.
    wait_for(lambda: not host.healthy("daemon", DAGSTER_DAEMON_HEARTBEAT_TOLERANCE="-25"), "it is dead")
