from __future__ import annotations

import io
import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from hop_archive.config import logs
from hop_archive.config.stanzas import ConsoleLogStanza, FileLogStanza
from hop_archive.errors import ConfigurationError, UnavailableError
from hop_archive.model.slices import PartitionLog, Slice

MOMENT = 1767225600.0  # 2026-01-01T00:00:00Z
log = logging.getLogger("hop_archive.ingest.write")


@pytest.fixture(autouse=True)
def _as_if_nothing_had_been_configured() -> Iterator[None]:
    level = logging.getLogger().level
    logs.note_run("")  # a command that archived in this process noted its own
    yield
    logs.note_run("")
    logs.remove_former()
    logging.getLogger().setLevel(level)


def record(message: str = "stored %d", *arguments: object) -> logging.LogRecord:
    made = logging.LogRecord("hop_archive.ingest.write", logging.INFO, "", 0, message, arguments, None)
    made.created = MOMENT
    return made


def test_a_plain_line_has_the_time_in_utc_level_logger_and_message() -> None:
    line = logs.PlainFormatter().format(record("stored %d", 3))
    assert line == "2026-01-01T00:00:00.000Z INFO hop_archive.ingest.write: stored 3"


def test_a_json_line_has_the_same_as_an_object() -> None:
    assert json.loads(logs.JsonFormatter().format(record("stored %d", 3))) == {
        "time": "2026-01-01T00:00:00.000Z",
        "level": "INFO",
        "logger": "hop_archive.ingest.write",
        "message": "stored 3",
    }


def json_line(message: str, *arguments: object, **extra: object) -> dict[str, object]:
    made = record(message, *arguments)
    vars(made).update(extra)
    found: dict[str, object] = json.loads(logs.JsonFormatter().format(made))
    return found


def test_a_json_line_says_of_which_run_topic_and_slice_it_is() -> None:
    place = {"topic": "gcn", "partition": 2}
    logs.note_run("host-1")
    try:
        of_slice = json_line("%s: recorded as %s", Slice("gcn", 1, 2, 5, 9), "lost")
    finally:
        logs.note_run("")
    assert of_slice["run"] == "host-1"
    assert {name: of_slice[name] for name in ("topic", "partition", "slice")} == {
        **place,
        "slice": "gcn[2]@5-9 (generation 1)",
    }
    assert json_line("%s is tidied", PartitionLog("gcn", 1, 2)).items() >= place.items()
    assert (
        json_line("Given up: %s", UnavailableError("no", topic="gcn", partition=2)).items() >= place.items()
    )
    assert json_line("Topic %s changed", "gcn", topic="gcn")["topic"] == "gcn"
    assert json_line("left", slice=Slice("gcn", 1, 2, 5, 9))["slice"] == "gcn[2]@5-9 (generation 1)"
    assert json_line("stored %d", 3).keys() == {"time", "level", "logger", "message"}


def test_a_json_line_is_one_line_whatever_the_message_and_the_traceback() -> None:
    stream = io.StringIO()
    logs.configure(ConsoleLogStanza(format="json"), stream=stream)
    try:
        raise UnavailableError("no\nanswer", topic="a\N{LINE SEPARATOR}b")
    except UnavailableError:
        log.exception("two\r\nlines\x85 and\N{LINE SEPARATOR}more")
    (line,) = stream.getvalue().splitlines()
    written = json.loads(line)
    assert written["message"] == "two\r\nlines\x85 and\N{LINE SEPARATOR}more"
    assert "UnavailableError: no\nanswer" in written["exception"]
    assert written["facts"] == {"topic": "a\N{LINE SEPARATOR}b"}


def test_facts_given_to_a_call_are_in_the_json_line() -> None:
    stream = io.StringIO()
    logs.configure(ConsoleLogStanza(format="json"), stream=stream)
    log.info("stored", extra={"facts": {"topic": "a", "path": Path("p")}})
    assert json.loads(stream.getvalue())["facts"] == {"topic": "a", "path": "p"}


def test_a_plain_line_carries_the_traceback() -> None:
    stream = io.StringIO()
    logs.configure(ConsoleLogStanza(), stream=stream)
    try:
        raise UnavailableError("no answer")
    except UnavailableError:
        log.exception("gave up")
    first, *_, last = stream.getvalue().splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ERROR hop_archive\.ingest\.write: gave up", first
    )
    assert last.endswith("UnavailableError: no answer")


def test_the_level_is_for_our_loggers_and_others_are_heard_from_warning_on() -> None:
    stream = io.StringIO()
    logs.configure(ConsoleLogStanza(level="debug", levels={"chatty": "error"}), stream=stream)
    log.debug("ours")
    logging.getLogger("botocore.auth").debug("Authorization: hunter2")
    logging.getLogger("botocore.auth").warning("theirs")
    logging.getLogger("chatty").warning("quietened")
    assert [line.split(": ")[1] for line in stream.getvalue().splitlines()] == ["ours", "theirs"]


def test_configuring_again_replaces_lines_and_levels_of_the_first_time() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure(ConsoleLogStanza(levels={"hop_archive.ingest.write": "error"}), stream=first)
    logs.configure(ConsoleLogStanza(), stream=second)
    log.info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_handlers_of_others_stay() -> None:
    stream = io.StringIO()
    theirs = logging.StreamHandler(stream)
    logging.getLogger().addHandler(theirs)
    try:
        logs.configure(ConsoleLogStanza(), stream=io.StringIO())
        logs.configure(ConsoleLogStanza(), stream=io.StringIO())
        log.info("heard")
    finally:
        logging.getLogger().removeHandler(theirs)
    assert stream.getvalue() == "heard\n"


def test_a_console_writes_to_the_error_output(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(ConsoleLogStanza())
    log.info("here")
    written = capsys.readouterr()
    assert "here" in written.err
    assert written.out == ""


def test_a_file_is_added_to_and_found_again_after_it_was_moved_away(tmp_path: Path) -> None:
    path, moved = tmp_path / "a.log", tmp_path / "a.log.1"
    path.write_text("before\n")
    logs.configure(FileLogStanza(path=str(path)))
    log.info("one \N{SNOWMAN}")
    path.rename(moved)
    log.info("two")
    assert moved.read_text(encoding="utf-8").startswith("before\n")
    assert "one \N{SNOWMAN}" in moved.read_text(encoding="utf-8")
    assert "two" in path.read_text(encoding="utf-8")


def test_a_file_that_cannot_be_opened_is_a_configuration_error_and_changes_nothing(tmp_path: Path) -> None:
    stream = io.StringIO()
    logs.configure(ConsoleLogStanza(), stream=stream)
    with pytest.raises(
        ConfigurationError, match=r"absent/a\.log cannot be opened: No such file or directory"
    ):
        logs.configure(FileLogStanza(path=str(tmp_path / "absent" / "a.log")))
    log.info("still here")
    assert "still here" in stream.getvalue()


def test_librdkafkas_own_lines_are_ours() -> None:
    stream = io.StringIO()
    logs.configure(ConsoleLogStanza(), stream=stream)
    settings = {"bootstrap.servers": "127.0.0.1:1", "group.id": "nobody", "error_cb": lambda _error: None}
    consumer = Consumer(settings, logger=logging.getLogger(logs.LIBRDKAFKA))
    try:
        deadline = time.monotonic() + 20
        while "hop_archive.librdkafka: " not in stream.getvalue() and time.monotonic() < deadline:
            consumer.poll(0.05)
    finally:
        consumer.close()
    assert re.search(r"Z ERROR hop_archive\.librdkafka: .*127\.0\.0\.1:1", stream.getvalue())
