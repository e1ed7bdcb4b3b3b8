"""No secret is in anything that Dagster keeps or shows."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import dagster as dg
import pytest

from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.samples import filler
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.orchestration.sensors import topic_partitions
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.aws import (
    client,
    forget,
    keys,
    make_instance,
    make_secret,
    moto,
    moto_endpoint,
    no_aws,
)
from hop_archive_tests.orchestration.conftest import TELLING_NOBODY
from hop_archive_tests.orchestration.helpers import AT_ONCE, launch, materialize_by_hand, tick

__all__ = ["keys", "moto", "moto_endpoint", "no_aws"]

pytestmark = pytest.mark.local

STANZAS = """
[source.here]
type = "kafka"
bootstrap_servers = "${{HOP_ARCHIVE_LOCAL_BOOTSTRAP_SERVERS}}"
security = "plaintext"
topics = ["{namespace}*"]
writable = true

[database.here]
type = "postgres"
url = "${{HOP_ARCHIVE_LOCAL_DATABASE_URL}}"
schema = "{namespace}"

[store.here]
type = "s3"
endpoint = "${{HOP_ARCHIVE_LOCAL_S3_ENDPOINT}}"
region = "us-east-1"
bucket = "${{HOP_ARCHIVE_LOCAL_BUCKET}}"
prefix = "{namespace}"
access_key_env = "HOP_ARCHIVE_LOCAL_S3_ACCESS_KEY"
secret_key_env = "HOP_ARCHIVE_LOCAL_S3_SECRET_KEY"
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """One that keeps all that it can, what steps print too."""
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home), overrides=TELLING_NOBODY) as made:
        yield made


@pytest.fixture
def secrets(address: StackAddress) -> list[str]:
    password = unquote(urlsplit(address.database_url).password or "")
    found = [secret for secret in (address.s3_secret_key, password) if secret]
    assert found
    assert min(map(len, found)) >= 8, "too short to be looked for"
    return found


@pytest.fixture
def selected(address: StackAddress, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A topic with messages on the local stack, whose stanzas are selected by the environment."""
    toml = tmp_path / "hop_archive.toml"
    toml.write_text(STANZAS.format(namespace=namespace))
    monkeypatch.setenv("HOP_ARCHIVE_TOML", str(toml))
    for kind in ("SOURCE", "DATABASE", "STORE"):
        monkeypatch.setenv(f"HOP_ARCHIVE_{kind}", "here")
    for name, value in address.environment().items():
        monkeypatch.setenv(name, value)
    migrate(address.database_url, schema=namespace, name="here")
    topic = f"{namespace}.alerts"
    source = KafkaSource("here", bootstrap_servers=address.bootstrap_servers, writable=True)
    source.create_topic(topic)
    source.publish(list(filler(20, 100, topic=topic)))
    source.close()
    return topic


OF_AWS = """
[source.here]
type = "kafka"
bootstrap_servers = "${{HOP_ARCHIVE_LOCAL_BOOTSTRAP_SERVERS}}"
security = "plaintext"
topics = ["{namespace}*"]

# What answers there speaks HTTP, so the login goes no further than the client.
[source.sasl]
type = "kafka"
bootstrap_servers = "{not_kafka}"
security = "sasl-scram-sha-512"
secret_name = "kafka-secret"
region = "us-west-2"
topics = ["{namespace}*"]

[database.here]
type = "postgres"
instance_id = "the-db"
secret_name = "db-secret"
region = "us-west-2"
host = "{host}"
port = {port}
sslmode = "disable"
schema = "{namespace}"

[store.here]
type = "s3"
endpoint = "${{HOP_ARCHIVE_LOCAL_S3_ENDPOINT}}"
region = "us-east-1"
bucket = "${{HOP_ARCHIVE_LOCAL_BUCKET}}"
prefix = "{namespace}"
"""

KAFKA_PASSWORD = "the-secret-of-kafka"


@pytest.fixture
def of_aws(
    selected: str,
    address: StackAddress,
    namespace: str,
    tmp_path: Path,
    moto: str,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """The same stanzas, with credentials from Secrets Manager and the default chain; returns the secrets."""
    url = urlsplit(address.database_url)
    (tmp_path / "hop_archive.toml").write_text(
        OF_AWS.format(
            namespace=namespace,
            host=url.hostname,
            port=url.port,
            not_kafka=urlsplit(address.s3_endpoint).netloc,
        )
    )
    for name in (
        "HOP_ARCHIVE_LOCAL_DATABASE_URL",
        "HOP_ARCHIVE_LOCAL_S3_ACCESS_KEY",
        "HOP_ARCHIVE_LOCAL_S3_SECRET_KEY",
    ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", address.s3_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", address.s3_secret_key)
    password = unquote(url.password or "")
    make_instance("the-db", DBName=url.path.removeprefix("/"), MasterUsername="not-the-secrets")
    make_secret("db-secret", json.dumps({"username": unquote(url.username or ""), "password": password}))
    make_secret("kafka-secret", json.dumps({"username": "archiver", "password": KAFKA_PASSWORD}))
    return [password, address.s3_secret_key, KAFKA_PASSWORD]


def kept(instance: dg.DagsterInstance) -> bytes:
    """All that Dagster stored: databases, compute logs, artifacts; and events and runs as they are shown."""
    files = [p for p in Path(instance.root_directory).rglob("*") if p.is_file()]
    shown: list[Any] = []
    for run in instance.get_runs():
        shown += [run.run_config, run.tags, *instance.all_logs(run.run_id)]
    return b"".join(p.read_bytes() for p in files) + repr(shown).encode()


def assert_none_in(secrets: list[str], haystack: bytes) -> None:
    assert not [number for number, secret in enumerate(secrets) if secret.encode() in haystack]


def test_ticks_runs_and_checks_keep_none(
    selected: str,
    secrets: list[str],
    instance: dg.DagsterInstance,
    capfd: pytest.CaptureFixture[str],
) -> None:
    defs = build_definitions(pacing=AT_ONCE)
    tick(defs, instance, topic_partitions)
    runs = launch(defs, instance, tick(defs, instance).run_requests)
    assert [run.success for run in runs] == [True]
    assert materialize_by_hand(defs, instance, selected).success
    assert defs.resolve_job_def("check_archive").execute_in_process(instance=instance).success
    haystack = kept(instance)
    assert selected.encode() in haystack
    assert_none_in(secrets, haystack)
    assert_none_in(secrets, "".join(capfd.readouterr()).encode())


def test_failures_tell_none(
    selected: str,
    secrets: list[str],
    address: StackAddress,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    defs = build_definitions(pacing=AT_ONCE)
    tick(defs, instance, topic_partitions)
    wrong = {
        "HOP_ARCHIVE_LOCAL_S3_SECRET_KEY": "wrong-but-secret-all-the-same",
        "HOP_ARCHIVE_LOCAL_DATABASE_URL": elsewhere(address.database_url),
    }
    for variable, value in wrong.items():
        with monkeypatch.context() as patched:
            patched.setattr(dg.RetryPolicy, "calculate_delay", lambda policy, attempt: 0)  # 15 s otherwise
            patched.setenv(variable, value)
            assert not materialize_by_hand(defs, instance, selected, raise_on_error=False).success
    haystack = kept(instance) + "".join(capfd.readouterr()).encode()
    assert_none_in([*secrets, wrong["HOP_ARCHIVE_LOCAL_S3_SECRET_KEY"]], haystack)


def elsewhere(url: str) -> str:
    """The same address at a port where nothing listens."""
    port = urlsplit(url).port
    assert port is not None
    return url.replace(f":{port}", ":1")


def test_secrets_that_aws_keeps_are_used_and_nowhere_kept(
    of_aws: list[str],
    selected: str,
    instance: dg.DagsterInstance,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.DEBUG, "hop_archive"):
        defs = build_definitions(pacing=AT_ONCE)
        tick(defs, instance, topic_partitions)
        runs = launch(defs, instance, tick(defs, instance).run_requests)
        assert [run.success for run in runs] == [True]
        assert materialize_by_hand(defs, instance, selected).success
        assert defs.resolve_job_def("check_archive").execute_in_process(instance=instance).success
    haystack = kept(instance) + "".join(capfd.readouterr()).encode() + caplog.text.encode()
    assert selected.encode() in haystack
    assert_none_in(of_aws, haystack)


def test_failures_tell_none_of_what_aws_keeps(
    of_aws: list[str],
    selected: str,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG, "hop_archive")
    defs = build_definitions(pacing=AT_ONCE)
    tick(defs, instance, topic_partitions)
    told = b""
    with monkeypatch.context() as patched:
        patched.setenv("HOP_ARCHIVE_SOURCE", "sasl")
        patched.setitem(
            KafkaSource.__init__.__kwdefaults__ or {}, "timeout_s", 1.0
        )  # of no avail, however long
        told += failing_tick(defs, instance)
    with monkeypatch.context() as patched:
        patched.setenv("AWS_SECRET_ACCESS_KEY", "wrong-but-secret-all-the-same")
        assert not materialize_by_hand(defs, instance, selected, raise_on_error=False).success
    for value in ("wrong-but-secret-all-the-same", '{"password": ["in-another-form"]}', ""):
        told += with_secret(defs, instance, selected, value)
    haystack = told + kept(instance) + "".join(capfd.readouterr()).encode() + caplog.text.encode()
    assert b'secret "db-secret" in region us-west-2' in haystack
    assert_none_in([*of_aws, "wrong-but-secret-all-the-same", "in-another-form"], haystack)


def with_secret(defs: dg.Definitions, instance: dg.DagsterInstance, topic: str, value: str) -> bytes:
    """What a tick says, after a run that failed, whose database secret has another value; an empty one stands for none."""
    manager = client("secretsmanager")
    if value:
        manager.put_secret_value(SecretId="db-secret", SecretString=value)
    else:
        manager.delete_secret(SecretId="db-secret", ForceDeleteWithoutRecovery=True)
    forget()
    assert not materialize_by_hand(defs, instance, topic, raise_on_error=False).success
    return failing_tick(defs, instance)


def failing_tick(defs: dg.Definitions, instance: dg.DagsterInstance) -> bytes:
    """The text of what a tick raises, with all that is behind it."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever Dagster makes of it: its text is what counts
        tick(defs, instance)
    return "".join(traceback.format_exception(caught.value)).encode()
