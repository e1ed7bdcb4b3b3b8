"""No secret is in anything that Dagster keeps or shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import dagster as dg
import pytest

from hop_archive.catalog.migrate import migrate
from hop_archive.local.address import StackAddress
from hop_archive.local.samples import filler
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.orchestration.sensors import topic_partitions
from hop_archive.source.kafka import KafkaSource
from hop_archive_tests.orchestration.helpers import AT_ONCE, launch, materialize_by_hand, tick

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
            patched.setenv(variable, value)
            assert not materialize_by_hand(defs, instance, selected, raise_on_error=False).success
    haystack = kept(instance) + "".join(capfd.readouterr()).encode()
    assert_none_in([*secrets, wrong["HOP_ARCHIVE_LOCAL_S3_SECRET_KEY"]], haystack)


def elsewhere(url: str) -> str:
    """The same address at a port where nothing listens."""
    port = urlsplit(url).port
    assert port is not None
    return url.replace(f":{port}", ":1")
