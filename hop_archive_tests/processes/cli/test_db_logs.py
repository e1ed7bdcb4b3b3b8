"""``hop-archive db-logs``: an RDS instance's log through the real client and a server that speaks for AWS."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from hop_archive.devkit.local.stack import LocalStack
from hop_archive_tests.aws import Answer, Answering, answering, keys, moto, moto_endpoint, no_aws, xml_refusal
from hop_archive_tests.aws import make_instance as made_by_moto
from hop_archive_tests.cli_helpers import invoke, place, toml

__all__ = ["keys", "moto", "moto_endpoint", "no_aws", "place"]
from hop_archive_tests.unit.cli.test_db_logs import ago, line, shown

RDS = """
[database.rds]
type = "postgres"
instance_id = "the-db"
region = "us-west-2"
"""


LOGS = {
    "error/postgresql.log.1": (ago(hours=4), [line(ago(hours=4), "four hours ago")]),
    "error/postgresql.log.3": (ago(minutes=1), [line(ago(minutes=1), f"LOG: {n} \N{SNOWMAN}") for n in range(7)]),
    "error/postgresql.log.2": (
        ago(hours=1),
        [
            "before any moment",
            line(ago(hours=3), "three hours ago"),
            "\tDETAIL: of three hours ago",
            line(ago(hours=1), "an hour ago"),
            "\tDETAIL: of an hour ago",
        ],
    ),
}  # fmt: skip


PORTION = 50


def rds(body: str) -> Answer:
    """RDS, with one file a page and fifty characters a portion."""
    asked = {name: values[0] for name, values in parse_qs(body).items()}
    action = asked["Action"]
    return 200, "text/xml", _wrapped(action, _files(asked) if "Describe" in action else _portion(asked))


def _files(asked: dict[str, str]) -> str:
    number = int(asked.get("Marker", 0))
    name, (at, lines) = list(LOGS.items())[number]
    marker = f"<Marker>{number + 1}</Marker>" if number + 1 < len(LOGS) else ""
    return (
        f"<DescribeDBLogFiles><DescribeDBLogFilesDetails><LogFileName>{name}</LogFileName>"
        f"<LastWritten>{int(at.timestamp() * 1000)}</LastWritten><Size>{len(chr(10).join(lines))}</Size>"
        f"</DescribeDBLogFilesDetails></DescribeDBLogFiles>{marker}"
    )


def _portion(asked: dict[str, str]) -> str:
    text, begin = "\n".join(LOGS[asked["LogFileName"]][1]), int(asked["Marker"])
    more = "true" if begin + PORTION < len(text) else "false"
    # The service's own parser of XML would take away a portion's line ends if they stood bare at its ends.
    data = text[begin : begin + PORTION].replace("\n", "&#10;").replace("\t", "&#9;")
    return (
        f"<LogFileData>{data}</LogFileData><Marker>{begin + PORTION}</Marker>"
        f"<AdditionalDataPending>{more}</AdditionalDataPending>"
    )


def _wrapped(action: str, result: str) -> bytes:
    return (
        f'<{action}Response xmlns="http://rds.amazonaws.com/doc/2014-10-31/"><{action}Result>{result}'
        f"</{action}Result></{action}Response>"
    ).encode()


@pytest.fixture
def instance(place: Path, keys: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    toml(place, RDS)
    with answering(rds) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_RDS", server.url)
        yield server


def test_the_newest_two_files_are_shown_whole_the_older_first(instance: Answering) -> None:
    assert shown("-D", "rds") == [*LOGS["error/postgresql.log.2"][1], *LOGS["error/postgresql.log.3"][1]]
    told = invoke("db-logs", "-D", "rds").stderr.splitlines()
    assert [one.split()[0] for one in told] == ["error/postgresql.log.2", "error/postgresql.log.3"]
    assert told[1].endswith(f"to {ago(minutes=1):%Y-%m-%dT%H:%M:%SZ})")


def test_what_was_written_since_a_moment_is_shown_with_what_belongs_to_it(instance: Answering) -> None:
    assert shown("-D", "rds", "--since", "2h") == [
        "before any moment",
        *LOGS["error/postgresql.log.2"][1][3:],
        *LOGS["error/postgresql.log.3"][1],
    ]
    assert len(shown("-D", "rds", "--since", "5h")) == 13
    nothing = invoke("db-logs", "-D", "rds", "--since", "5s")
    assert (nothing.stdout, nothing.stderr) == ("", "Nothing was written since then.\n")


def test_the_last_lines_may_be_asked_for(instance: Answering) -> None:
    assert shown("-D", "rds", "--lines", "8") == [
        LOGS["error/postgresql.log.2"][1][-1],
        *LOGS["error/postgresql.log.3"][1],
    ]
    assert shown("-D", "rds", "-n", "2", "--since", "2h") == LOGS["error/postgresql.log.3"][1][-2:]


def test_as_json_each_line_is_an_object_that_names_its_file(instance: Answering) -> None:
    lines = [json.loads(line) for line in shown("-D", "rds", "--lines", "8", "--json")]
    assert [one["line"] for one in lines] == shown("-D", "rds", "--lines", "8")
    assert [one["file"][-1] for one in lines] == ["2", *["3"] * 7]


def test_the_underscored_spelling_works_too(instance: Answering) -> None:
    assert "LOG: 6" in invoke("db_logs", "-D", "rds", "-n", "1").stdout


@pytest.mark.parametrize(
    ("code", "exit_code"), [("AccessDenied", 2), ("DBInstanceNotFound", 2), ("Throttling", 3)]
)
def test_a_refusal_is_one_message(
    place: Path, keys: None, monkeypatch: pytest.MonkeyPatch, code: str, exit_code: int
) -> None:
    toml(place, RDS)
    with answering(lambda _: xml_refusal(code)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        result = invoke("db-logs", "-D", "rds")
    assert result.exit_code == exit_code
    (message,) = result.stderr.splitlines()
    assert "[database.rds] instance_id: the log of RDS instance" in message
    assert '"the-db" in region us-west-2' in message
    if code == "AccessDenied":
        assert "rds:DescribeDBLogFiles" in message


def test_moto_lists_the_log_of_an_instance_that_it_knows(place: Path, moto: str) -> None:
    toml(place, RDS)
    assert "DBInstanceNotFound" in invoke("db-logs", "-D", "rds").stderr
    made_by_moto("the-db")
    assert (
        invoke("db-logs", "-D", "rds", "--since", "2099-01-01").stderr == "Nothing was written since then.\n"
    )


@pytest.mark.local
def test_the_stack_that_the_environment_names_is_found(
    place: Path, local_stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = invoke("local", "env", "--dir", str(local_stack.directory)).stdout.splitlines()
    assert exported[-1] == f"export HOP_ARCHIVE_LOCAL_DIR={shlex.quote(str(local_stack.directory))}"
    environment = local_stack.address().environment() | {"HOP_ARCHIVE_LOCAL_DIR": str(local_stack.directory)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert any("ready to accept connections" in one for one in shown("-D", "local-db"))
    assert "does not run" not in invoke("db-logs", "-D", "local-db").stderr
    monkeypatch.setenv("HOP_ARCHIVE_LOCAL_DATABASE_URL", "postgresql://u@127.0.0.1:1/d")
    assert invoke("db-logs", "-D", "local-db").exit_code == 2
