"""``hop-archive doctor`` where it asks real servers: those of a local stack, and such as are down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.samples import filler
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.cli_helpers import invoke, place, toml

__all__ = ["place"]


DOWN = """
[source.x]
type = "kafka"
bootstrap_servers = "127.0.0.1:9"
security = "plaintext"
[database.x]
type = "postgres"
url = "postgresql://nobody@127.0.0.1:9/none"
[store.x]
type = "s3"
endpoint = "http://127.0.0.1:9"
region = "us-east-1"
bucket = "none"
"""


def test_servers_that_are_down_are_each_told_and_json_says_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    toml(place, DOWN)
    ran = invoke("doctor", "-H", "x", "-D", "x", "-S", "x", "--json")
    assert ran.exit_code == 1
    found = json.loads(ran.stdout)
    assert found["ok"] is False
    assert {(one["part"], one["verdict"]) for one in found["checks"]} == {
        ("source", "failed"),
        ("database", "failed"),
        ("store", "failed"),
    }
    assert all(one["detail"] and one["remedy"] for one in found["checks"])


@pytest.mark.local
def test_a_local_stack_is_well_once_it_is_migrated_and_has_a_message(
    place: Path, address: StackAddress, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in address.environment().items():
        monkeypatch.setenv(name, value)
    toml(
        place,
        f"""
        [source.x]
        type = "kafka"
        bootstrap_servers = "{address.bootstrap_servers}"
        security = "plaintext"
        topics = ["{namespace}*"]
        [database.x]
        type = "postgres"
        url = "${{HOP_ARCHIVE_LOCAL_DATABASE_URL}}"
        schema = "{namespace}"
        """,
    )
    chosen = ("doctor", "-H", "x", "-D", "x", "-S", "local-store", "--json")
    before = json.loads(invoke(*chosen).stdout)["checks"]
    assert "hop-archive migrate -D x" in next(c["remedy"] for c in before if c["part"] == "database")
    migrate(address.database_url, schema=namespace, name="x")
    source = KafkaSource("x", bootstrap_servers=address.bootstrap_servers, writable=True)
    source.create_topic(f"{namespace}.t")
    source.publish(filler(1, 100, topic=f"{namespace}.t"))
    source.close()
    ran = invoke(*chosen)
    found = {(one["part"], one["what"]): one["verdict"] for one in json.loads(ran.stdout)["checks"]}
    assert ran.exit_code == 0, ran.output
    assert found["source", "reads"] == "ok"
    assert found["database", "may write"] == "ok"
    assert found["store", "may create objects"] == "ok"
    assert {found["clock", "database"], found["clock", "store"]} == {"ok"}
