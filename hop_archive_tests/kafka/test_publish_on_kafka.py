"""Test data on Apache Kafka itself, which refuses what the local broker takes, and has transactions."""

from __future__ import annotations

import json
import shlex
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from hop_archive.cli import cli
from hop_archive.devkit.known_set import known_cases
from hop_archive.model.message import TopicPartition
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.contract.source_fixtures import until
from hop_archive_tests.kafka.broker import ApacheKafka

pytestmark = [pytest.mark.kafka]

NUMBER = len(known_cases(now_ms=0)) + 1
STANZAS = """
[source.apache]
type = "kafka"
bootstrap_servers = "{servers}"
security = "plaintext"
writable = true
test_topics = ["*-test"]
[database.m]
type = "mock"
directory = "mock"
cleaning_allowed = true
[store.m]
type = "mock"
directory = "mock/objects"
cleaning_allowed = true
"""
HERE = ("-H", "apache", "-D", "m", "-S", "m")


@pytest.fixture
def topic(broker: ApacheKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespace: str) -> str:
    monkeypatch.chdir(tmp_path)
    Path("hop_archive.toml").write_text(STANZAS.format(servers=broker.bootstrap_servers))
    return f"{namespace}-test"


def told(*args: str) -> dict[str, Any]:
    result = CliRunner().invoke(cli, [*args, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def compared(published: dict[str, Any]) -> str:
    return CliRunner().invoke(cli, shlex.split(published["next"])[1:], catch_exceptions=False).stdout


def create(broker: ApacheKafka, topic: str, **config: str) -> None:
    source = KafkaSource("apache", bootstrap_servers=broker.bootstrap_servers, writable=True)
    source.create_topic(topic, 1, {name.replace("_", "."): value for name, value in config.items()})
    source.close()


def test_what_kafka_refuses_is_left_out_and_the_rest_comes_back_as_it_was_sent(topic: str) -> None:
    found = told("publish", *HERE, "-T", topic, "--create", "--record", "sent")
    # message.timestamp.after.max.ms is an hour unless told otherwise (KIP-937; its default since Kafka 4.0).
    assert [one["name"] for one in found["left_out"]] == ["timestamp-in-2100"]
    assert found["published"] == NUMBER - 1
    assert (
        f"Compared {NUMBER - 1} messages, {NUMBER - 1} of them with what was sent: no differences."
        in compared(found)
    )


def test_a_topic_with_narrow_settings_gets_what_fits(broker: ApacheKafka, topic: str) -> None:
    create(broker, topic, max_message_bytes="100000", message_timestamp_before_max_ms="86400000")
    found = told("publish", *HERE, "-T", topic, "--record", "sent")
    left_out = {one["name"] for one in found["left_out"]}
    assert left_out >= {"large-value", "timestamp-in-2001", "timestamp-before-1970", "timestamp-in-2100"}
    assert left_out <= {
        "large-value",
        *(c.name for c in known_cases(now_ms=0) if c.name.startswith("timestamp-")),
    }
    assert "no differences." in compared(found)


def test_files_that_kafka_refuses_are_named(broker: ApacheKafka, topic: str, tmp_path: Path) -> None:
    create(broker, topic, max_message_bytes="5000")
    (tmp_path / "a.bin").write_bytes(bytes(10))
    (tmp_path / "b.bin").write_bytes(bytes(10_000))
    result = CliRunner().invoke(cli, ["publish", *HERE, "-T", topic, "a.bin", "b.bin"])
    assert result.exit_code == 2
    assert "Error: b.bin was refused: " in result.stderr
    assert "Published 1 message " in result.stdout


def test_an_open_transaction_holds_offsets_back(broker: ApacheKafka, topic: str) -> None:
    create(broker, topic)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic})
    producer.init_transactions()
    producer.begin_transaction()
    for _ in range(3):
        producer.produce(topic, b"not committed yet")
    producer.flush()
    for name in ("topics", "status"):
        (one,) = told(name, *HERE, "-T", topic)["topics"]
        assert (one["held_back"], one["lag"]) == (3, 0)
    producer.commit_transaction()

    def seen() -> tuple[int, int, int]:
        (one,) = told("topics", *HERE, "-T", topic)["topics"]
        return one["held"], one["held_back"], one["lag"]

    # The coordinator has the marker written after it has told the producer that all is committed.
    until(lambda: seen()[1] == 0, "the transaction's marker is in the log")
    assert seen() == (4, 0, 4)


def place(broker: ApacheKafka, topic: str) -> tuple[int, int, int]:
    """First offset that is held, end of the log, and the group's offset."""
    at = TopicPartition(topic, 0)
    with closing(KafkaSource("apache", bootstrap_servers=broker.bootstrap_servers)) as source:
        marks = source.watermarks([at])[at]
        return marks.low, marks.high, source.groups()["hop_archive"][at].offset


@pytest.mark.parametrize("delete", [True, False])
def test_a_test_topic_is_cleaned_to_its_end_in_kafka_too_where_that_is_asked_for(
    broker: ApacheKafka, topic: str, delete: bool
) -> None:
    told("publish", *HERE, "-T", topic, "--create")
    ran = CliRunner().invoke(cli, ["run", *HERE, "--until-caught-up", "-T", topic], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    told("publish", *HERE, "-T", topic)
    _, end, _ = place(broker, topic)
    (plan,) = told("clean-tests", *HERE, "-T", topic)["plan"]["topics"]
    assert 0 < plan["messages"] < end
    done = told("clean-tests", *HERE, "-T", topic, "--yes", *(["--delete-records"] if delete else []))
    assert done["removed"]["messages"] == plan["messages"]
    assert done["why_not_deleted"] == {}
    assert place(broker, topic) == (end if delete else 0, end, end)
    (one,) = told("status", *HERE, "-T", topic)["topics"]
    assert (one["messages"], one["lag"], one["lost"]) == (0, 0, 0)

    told("publish", *HERE, "-T", topic)
    ran = CliRunner().invoke(cli, ["run", *HERE, "--until-caught-up", "-T", topic], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    (one,) = told("status", *HERE, "-T", topic)["topics"]
    assert (one["messages"] + one["duplicates"], one["lag"], one["lost"]) == (NUMBER - 1, 0, 0)
