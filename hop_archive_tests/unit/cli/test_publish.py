"""``hop-archive publish``, on mocks: what it sends, marks, records, refuses, asks and says."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hop_archive.cli import cli
from hop_archive.cli.publish import Sending
from hop_archive.cli.stopping import Stop
from hop_archive.config import open as opening
from hop_archive.devkit.known_set import known_set
from hop_archive.devkit.publish import TEST_HEADER
from hop_archive.errors import ConfigurationError
from hop_archive.model.message import Message, Receipt, TopicPartition
from hop_archive.source.mock.source import MockSource
from hop_archive.upkeep.verify.sent import read_sent
from hop_archive_tests.cli_helpers import (
    M,
    archived,
    invoke,
    mocks,
    place,
    toml,
)

__all__ = ["place"]

TOPIC = "sys.test"
WRITABLE = "writable = true\n"
KNOWN = [one.kind for one in known_set(TOPIC, now_ms=0)]


@pytest.fixture
def directory(place: Path) -> Path:
    """Mocks of which the source has test topics, and no topic yet."""
    return mocks(place, source=f'{WRITABLE}test_topics = ["*-test", "sys.test"]')


def publish(*args: str, **more: Any) -> Result:
    return CliRunner().invoke(
        cli, ["publish", *M, *args], catch_exceptions=False, prog_name="hop-archive", **more
    )


def told(*args: str) -> dict[str, Any]:
    result = publish("--json", *args)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def messages(directory: Path, topic: str = TOPIC) -> list[Message]:
    with MockSource("m", directory=directory).cluster.read() as state:
        logs = state.topics[topic].logs if topic in state.topics else []
        return [message for log in logs for message in log.messages]


def names(directory: Path) -> list[str]:
    """Names of the known set's cases in a topic of one partition, in order."""
    return [dict(one.headers)["_known_test_data"].decode() for one in messages(directory)]  # type: ignore[union-attr]


# --- the known set


def test_the_known_set_is_sent_where_nothing_else_is_asked_for(directory: Path) -> None:
    result = publish("--create")
    assert result.exit_code == 0
    assert names(directory) == KNOWN
    assert f"Published {len(KNOWN)} messages to topic sys.test of m, marked as tests" in result.stdout


def test_every_message_is_marked_as_a_test(directory: Path) -> None:
    publish("--create")
    publish("--count", "50")
    publish(__file__)
    assert len(messages(directory)) == len(KNOWN) + 51
    assert all(TEST_HEADER in one.headers for one in messages(directory))


def test_the_same_seed_sends_the_same_again_and_none_sends_new_ones(directory: Path) -> None:
    values = [one.value for one in known_set(TOPIC, now_ms=0, seed=5)]
    first = told("--create", "--seed", "5")
    assert first["seed"] == 5
    assert [one.value for one in messages(directory)] == values
    assert len({told()["seed"] for _ in range(3)}) == 3


def test_a_topic_that_is_made_has_as_many_partitions_as_asked_for(directory: Path) -> None:
    found = told("--create", "--partitions", "3")
    assert [one["partition"] for one in found["partitions"]] == [0, 1, 2]
    assert sum(one["messages"] for one in found["partitions"]) == found["published"] == len(KNOWN) + 2
    assert all((one["first"], one["last"]) == (0, one["messages"] - 1) for one in found["partitions"])


def test_what_the_topic_does_not_take_is_left_out_and_said(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broker(MockSource):
        def publish(self, messages: Any) -> Any:
            if any((one.timestamp_ms or 0) > 4_000_000_000_000 for one in messages):
                raise ConfigurationError("INVALID_TIMESTAMP")
            return super().publish(messages)

    monkeypatch.setattr(opening, "MockSource", Broker)
    result = publish("--create")
    assert result.exit_code == 0
    assert "Left out: timestamp-in-2100: INVALID_TIMESTAMP." in result.stdout
    assert names(directory) == [name for name in KNOWN if name != "timestamp-in-2100"]
    assert told()["left_out"] == [{"name": "timestamp-in-2100", "why": "INVALID_TIMESTAMP"}]


# --- what it is for: comparing


@pytest.mark.parametrize("content", [(), ("--count", "300"), ("--count", "40", "--size", "2000"), ("files",)])
def test_the_command_that_it_names_archives_and_finds_no_differences(
    place: Path, directory: Path, content: tuple[str, ...]
) -> None:
    (place / "files").mkdir()
    for number in range(20):
        (place / "files" / f"{number}.bin").write_bytes(os.urandom(number * 100))
    found = told("--create", "--partitions", "2", "--record", "sent file.bson", *content)
    words = shlex.split(found["next"])
    assert words[:2] == ["hop-archive", "run"]
    result = invoke(*words[1:])
    assert result.exit_code == 0
    number = found["published"]
    assert (
        f"Compared {number} messages, {number} of them with what was sent: no differences." in result.stdout
    )
    assert archived(directory) >= number - 10


def test_the_command_is_shown_to_people_too(directory: Path) -> None:
    lines = publish("--create", "--record", "s").stdout.splitlines()
    wanted = "  hop-archive run -H m -D m -S m -T sys.test --until-caught-up --compare --sent s"
    assert wanted in lines


def test_a_mocks_own_default_is_a_mock(directory: Path) -> None:
    lines = invoke("publish", "-H", "m", "--create").stdout.splitlines()
    assert "  hop-archive run -H m -D mock-db -S mock-store -T sys.test --until-caught-up --compare" in lines


def test_a_record_has_what_was_acknowledged(directory: Path, place: Path) -> None:
    publish("--create", "--record", "sent.bson")
    sent = read_sent(place / "sent.bson")
    assert [(one.key, one.value, one.headers) for one in sent.values()] == [
        (one.key, one.value, one.headers) for one in messages(directory)
    ]


def test_a_record_that_cannot_be_written_is_found_out_before_anything_is_sent(
    directory: Path, place: Path
) -> None:
    result = publish("--create", "--record", str(place / "nowhere" / "sent.bson"))
    assert result.exit_code == 2
    assert "sent.bson cannot be written: No such file or directory." in result.stderr
    assert MockSource("m", directory=directory).topics() == {}


# --- files


def test_files_and_folders_are_sent_byte_for_byte(directory: Path, place: Path) -> None:
    (place / "in" / "deep").mkdir(parents=True)
    (place / "in" / "b.bin").write_bytes(b"\x00\xff")
    (place / "in" / "deep" / "a.json").write_bytes(b'{"a": 1}')
    (place / "c").write_bytes(b"")
    assert publish("--create", "c", "in").exit_code == 0
    assert [one.value for one in messages(directory)] == [b"", b"\x00\xff", b'{"a": 1}']
    assert dict(messages(directory)[2].headers)["_format"] == b"json"


def test_a_file_that_is_too_large_is_named_before_anything_is_sent(directory: Path, place: Path) -> None:
    (place / "small").write_bytes(bytes(10))
    (place / "large").write_bytes(bytes(11))
    result = publish("--create", "--largest", "10", "small", "large")
    assert result.exit_code == 2
    assert "large (11 bytes). Nothing was sent. --skip-too-large leaves them out" in result.stderr
    assert MockSource("m", directory=directory).topics() == {}
    skipped = publish("--create", "--largest", "10", "--skip-too-large", "small", "large")
    assert skipped.exit_code == 0
    assert "Left out: large: larger than 10 bytes." in skipped.stdout
    assert [len(one.value or b"") for one in messages(directory)] == [10]


def test_a_file_that_the_topic_refuses_is_named(directory: Path, place: Path) -> None:
    MockSource("m", directory=directory).create_topic(TOPIC, 1, {"max.message.bytes": "100"})
    for name, size in (("a", 10), ("b", 200), ("c", 20)):
        (place / name).write_bytes(bytes(size))
    result = publish("a", "b", "c")
    assert result.exit_code == 2
    assert "Error: b was refused: Source m: a message is larger than topic sys.test takes" in result.stderr
    assert "Published 1 message " in result.stdout
    assert publish("--skip-too-large", "b", "c").exit_code == 0
    assert [len(one.value or b"") for one in messages(directory)] == [10, 20]


def test_a_path_that_leads_nowhere_is_an_error(directory: Path) -> None:
    result = publish("--create", "nowhere.xml")
    assert result.exit_code == 2
    assert "nowhere.xml" in result.stderr


# --- generated alerts


def test_as_many_alerts_are_generated_as_asked_for(directory: Path) -> None:
    assert told("--create", "--count", "700")["published"] == 700
    assert len({one.value for one in messages(directory)}) > 600


def test_plain_messages_have_the_size_asked_for(directory: Path) -> None:
    told("--create", "--count", "20", "--size", "321")
    assert {len(one.value or b"") for one in messages(directory)} == {321}


def test_two_loads_of_plain_messages_are_not_each_others_duplicates(directory: Path) -> None:
    for _ in range(2):
        told("--create", "--count", "5", "--size", "16")
    assert len({one.value for one in messages(directory)}) == 10


def test_without_a_terminal_it_says_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 0.0, 0.0, 3.0, 6.0, 6.0, 7.0])
    sending = Sending(None, monotonic=lambda: next(times))
    sending.run(iter([[Receipt("t", 0, n)] for n in range(4)]), Stop())
    assert capsys.readouterr().err == "Published 3 messages, 0.5/s lately.\n"
    assert sending.partitions[TopicPartition("t", 0)].last == 3


def test_sending_ends_after_the_portion_in_hand() -> None:
    stop, sending = Stop(), Sending(None, silent=True)

    def portions() -> Iterator[list[Receipt]]:
        yield [Receipt("t", 0, 0)]
        stop.signal = signal.SIGINT
        yield [Receipt("t", 0, 1)]
        yield [Receipt("t", 0, 2)]

    sending.run(portions(), stop)
    assert sending.by_topic() == {"t": 2}


# --- asking


def test_asked_about_each_message_people_send_skip_and_quit(directory: Path) -> None:
    result = publish("--create", "--ask", input="s\nk\n\nq\n")
    assert result.exit_code == 0
    assert names(directory) == [KNOWN[0], KNOWN[2]]
    assert f"Left out: {KNOWN[1]}: you said so." in result.stdout
    assert "Ended by your answer" in result.stdout
    assert f"{KNOWN[0]}: an ordinary alert with _format voevent" in result.stderr


def test_all_sends_the_rest_unasked_and_nonsense_is_asked_again(directory: Path) -> None:
    result = publish("--create", "--ask", input="k\nwhat?\na\n")
    assert result.exit_code == 0
    assert names(directory) == KNOWN[1:]


def test_the_end_of_the_input_is_quit(directory: Path) -> None:
    assert told("--create", "--ask")["ended_by"] == "your answer"
    assert messages(directory) == []


def test_generated_alerts_are_asked_about_one_by_one(directory: Path) -> None:
    publish("--create", "--ask", "--count", "0", input="s\nk\ns\nq\n")
    assert len(messages(directory)) == 2


# --- where


def test_a_topic_that_is_not_there_is_an_error_that_says_what_to_do(directory: Path) -> None:
    result = publish()
    assert result.exit_code == 2
    assert "Source m has no topic sys.test. --create makes it" in result.stderr
    assert MockSource("m", directory=directory).topics() == {}


def test_another_test_topic_may_be_named(directory: Path) -> None:
    assert publish("-T", "my-test", "--create").exit_code == 0
    assert len(messages(directory, "my-test")) == len(KNOWN)


def test_a_topic_that_is_no_test_topic_has_to_be_named_twice(directory: Path) -> None:
    MockSource("m", directory=directory).create_topic("gcn.notices")
    result = publish("-T", "gcn.notices")
    assert result.exit_code == 2
    assert "Topic gcn.notices is not a test topic of source m" in result.stderr
    assert "--not-a-test-topic gcn.notices" in result.stderr
    assert messages(directory, "gcn.notices") == []
    assert publish("-T", "gcn.notices", "--not-a-test-topic", "gcn.notices").exit_code == 0
    assert len(messages(directory, "gcn.notices")) == len(KNOWN)


def test_the_second_name_has_to_be_the_topics(directory: Path) -> None:
    result = publish("-T", "gcn.notices", "--not-a-test-topic", "gcn.notice")
    assert result.exit_code == 2
    assert "--not-a-test-topic gcn.notice is not the topic, which is gcn.notices." in result.stderr


def test_a_production_source_wants_a_word_more_but_for_its_test_topics(place: Path) -> None:
    directory = mocks(place, source=f'{WRITABLE}production = true\ntest_topics = ["sys.test"]')
    twice = ("-T", "x", "--not-a-test-topic", "x", "--create")
    result = publish(*twice)
    assert result.exit_code == 2
    assert "--production" in result.stderr
    assert publish(*twice, "--production").exit_code == 0
    assert publish("--create").exit_code == 0
    assert len(messages(directory)) == len(messages(directory, "x")) == len(KNOWN)


def test_without_a_test_topic_in_the_stanza_a_topic_has_to_be_named(place: Path) -> None:
    mocks(place, source=WRITABLE)
    result = publish()
    assert result.exit_code == 2
    assert "Say -T NAME: source m names no test topic in its stanza." in result.stderr


def test_a_topic_that_the_archive_leaves_out_is_pointed_out(place: Path) -> None:
    mocks(place, source=f'{WRITABLE}test_topics = ["sys.test"]\nveto = ["sys.*"]')
    result = publish("--create", "--record", "s")
    assert "The stanza of m leaves sys.test out of the archive" in result.stderr
    assert "no differences" in invoke(*shlex.split(told("--record", "s")["next"])[1:]).stdout


def test_a_mock_in_memory_is_pointed_out_and_needs_no_topic(place: Path) -> None:
    toml(place, '[source.m]\ntype = "mock"\nwritable = true\ntest_topics = ["sys.test"]')
    result = invoke("publish", "-H", "m")
    assert result.exit_code == 0
    assert "gone when this command ends" in result.stderr
    assert "hop-archive run" not in result.stdout


def test_a_broker_that_is_not_there_ends_it_with_3_and_says_that_nothing_was_sent(place: Path) -> None:
    directory = mocks(place, source=f'{WRITABLE}test_topics = ["sys.test"]')
    source = MockSource("m", directory=directory)
    source.create_topic(TOPIC)
    source.cluster.stop()
    result = publish()
    assert result.exit_code == 3
    assert "does not answer" in result.stderr
    assert result.stdout == ""


def test_what_was_sent_before_an_outage_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(MockSource):
        def publish(self, messages: Any) -> Any:
            receipts = super().publish(messages)
            if receipts[-1].offset == 9:
                self.cluster.stop()
            return receipts

    monkeypatch.setattr(opening, "MockSource", Failing)
    result = publish("--create", "--json")
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert found["published"] == 10
    assert "does not answer" in found["error"]


# --- showing, and contradictions


def test_a_dry_run_shows_every_case_and_connects_to_nothing(directory: Path) -> None:
    result = publish("--dry-run")
    assert result.exit_code == 0
    shown = [line.split()[0] for line in result.stdout.splitlines()[3:]]
    assert shown == KNOWN
    assert not directory.exists()


def test_a_dry_run_as_json_has_names_sizes_and_headers(directory: Path, place: Path) -> None:
    (place / "a.json").write_bytes(b"{}")
    (one,) = told("--dry-run", "a.json")["messages"]
    assert (one["name"], one["key_bytes"], one["value_bytes"]) == ("a.json", None, 2)
    assert one["headers"] == ["title", "file_name", "_id", "_sender", "_format", "_test"]
    assert told("--dry-run", "--partitions", "2", "--create")["total"] == len(KNOWN) + 1


def test_a_dry_run_of_much_shows_some_and_counts_the_rest(directory: Path) -> None:
    assert "… and 900 more." in publish("--dry-run", "--count", "1000").stdout
    assert "… and so on, until it is stopped." in publish("--dry-run", "--count", "0").stdout


@pytest.mark.parametrize(
    "args",
    [
        ("--known", "--count", "3"),
        ("--known", "."),
        ("--count", "3", "."),
        ("--size", "20"),
        ("--partitions", "2"),
    ],
)
def test_options_that_contradict_each_other_are_refused(directory: Path, args: tuple[str, ...]) -> None:
    assert publish(*args).exit_code == 2
    assert not directory.exists()
