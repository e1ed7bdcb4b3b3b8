"""Test data through real servers: published, archived, and compared as sent, as received and as stored."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hop_archive.catalog.postgres.migrate import migrate
from hop_archive.cli import cli
from hop_archive.devkit.known_set import known_cases
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.devkit.samples import SAMPLE_TOPICS
from hop_archive.model.message import TopicPartition
from hop_archive.source.kafka.source import KafkaSource

pytestmark = pytest.mark.local


class Place:
    """A working directory whose stanzas ``here`` are the local stack, with a schema of the test's own."""

    def __init__(self, address: StackAddress, namespace: str) -> None:
        self.topic = f"{namespace}-test"
        self.address = address
        migrate(address.database_url, schema=namespace, name="here")
        Path("hop_archive.toml").write_text(
            f"""
            [source.here]
            type = "kafka"
            bootstrap_servers = "{address.bootstrap_servers}"
            security = "plaintext"
            writable = true
            test_topics = ["{self.topic}", "*-test"]
            [database.here]
            type = "postgres"
            url = "${{HOP_ARCHIVE_LOCAL_DATABASE_URL}}"
            schema = "{namespace}"
            """
        )

    def call(self, *args: str) -> Result:
        return CliRunner().invoke(cli, args, catch_exceptions=False)

    def must(self, *args: str) -> str:
        result = self.call(*args)
        assert result.exit_code == 0, result.output
        return result.stdout

    def publish(self, *args: str, store: str = "local-store") -> list[str]:
        """Publish and record; the words of the command that archives and compares what was sent."""
        told = json.loads(
            self.must("publish", "-H", "here", "-D", "here", "-S", store, "--json", "--record", "sent", *args)
        )
        assert told["left_out"] == []
        words: list[str] = shlex.split(told["next"])[1:]
        return words


@pytest.fixture
def stack_place(
    tmp_path: Path, address: StackAddress, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> Place:
    monkeypatch.chdir(tmp_path)
    for name, value in address.environment().items():
        monkeypatch.setenv(name, value)
    return Place(address, namespace)


@pytest.mark.parametrize("store", ["local-store", "local-segments"])
def test_the_known_set_comes_back_as_it_was_sent(stack_place: Place, store: str) -> None:
    compare = stack_place.publish("--create", "--partitions", "2", store=store)
    number = len(known_cases(now_ms=0)) + 2
    told = stack_place.must(*compare)
    assert f"Compared {number} messages, {number} of them with what was sent: no differences." in told
    told = stack_place.must("topics", "-H", "here", "-D", "here", "-T", stack_place.topic, "--json")
    (topic,) = json.loads(told)["topics"]
    assert (topic["topic"], topic["partitions"], topic["test"]) == (stack_place.topic, 2, True)
    assert (topic["held"], topic["covered"], topic["messages"], topic["lag"]) == (
        number,
        number,
        number - 3,
        0,
    )


def test_real_alerts_in_a_folder_come_back_as_they_were_sent(stack_place: Place, corpus: Path) -> None:
    compare = stack_place.publish("--create", str(corpus))
    told = stack_place.must(*compare)
    assert "no differences." in told
    assert int(told.split("Compared ")[1].split()[0]) > 150


def test_what_is_published_in_batches_is_archived_to_the_last_message(stack_place: Place) -> None:
    compare = stack_place.publish("--create", "--count", "777", "--size", "100")
    assert "Compared 777 messages, 777 of them with what was sent: no differences." in stack_place.must(
        *compare
    )


def test_samples_of_the_local_stack_are_archived_to_the_last_message(
    stack_place: Place, local_stack: LocalStack
) -> None:
    told = stack_place.must("local", "publish", "--dir", str(local_stack.directory), "--count", "300")
    assert "Published 300 messages." in told
    topics = [topic.name for topic in SAMPLE_TOPICS]
    source = KafkaSource("here", bootstrap_servers=stack_place.address.bootstrap_servers)
    partitions = [TopicPartition(t.name, n) for t in SAMPLE_TOPICS for n in range(t.partitions)]
    held = sum(marks.high for marks in source.watermarks(partitions).values())
    source.close()
    named = [word for topic in topics for word in ("-T", topic)]
    compared = stack_place.must(
        "run", "-H", "here", "-D", "here", "-S", "mock-store", "--until-caught-up", "--compare", *named
    )
    assert f"Compared {held:,} messages: no differences." in compared
    assert held >= 300


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ((), "-D DATABASE -S STORE"),
        (("-S", "local-store"), "-D DATABASE -S local-store"),
        (("-D", "mock-db"), "-D mock-db -S STORE"),
    ],
)
def test_the_command_for_what_was_sent_to_a_server_names_no_mock_that_nobody_chose(
    stack_place: Place, monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...], told: str
) -> None:
    for variable in ("HOP_ARCHIVE_DATABASE", "HOP_ARCHIVE_STORE"):
        monkeypatch.delenv(variable, raising=False)
    result = stack_place.must("publish", "-H", "here", "--create", "--count", "1", *named)
    assert f"  hop-archive run -H here {told} -T {stack_place.topic} " in result
