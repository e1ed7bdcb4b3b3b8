"""``hop-archive uuids`` on mocks, and the options by which messages are selected."""

from __future__ import annotations

import datetime
import json
import uuid
from pathlib import Path
from typing import Any

import click
import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.cli.options import described, moment, without_where
from hop_archive.errors import ConfigurationError
from hop_archive.model.query import Query
from hop_archive.model.times import milliseconds, moment_of
from hop_archive_tests.cli_helpers import M, invoke, mocks, place

__all__ = ["place"]

NOW = datetime.datetime(2026, 11, 24, 12, 0, 30, tzinfo=datetime.UTC)


@pytest.fixture
def catalog(place: Path) -> MockCatalog:
    """What is archived of a mock's samples."""
    directory = mocks(place, archived=True)
    return MockCatalog("m", directory=directory)


def printed(*args: str) -> list[str]:
    result = invoke("uuids", *M, *args)
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def selected(catalog: MockCatalog, query: Query) -> list[str]:
    found = [str(row.uuid) for row in catalog.select(query)]
    assert found
    return found


def test_all_uuids_are_printed_one_a_line(catalog: MockCatalog) -> None:
    assert printed() == selected(catalog, Query())


def test_every_option_narrows_what_is_printed(catalog: MockCatalog) -> None:
    rows = list(catalog.select(Query()))
    middle_ms = sorted(row.timestamp_ms for row in rows)[len(rows) // 2]
    at = datetime.datetime.fromtimestamp(middle_ms / 1000, tz=datetime.UTC).isoformat(timespec="milliseconds")
    sender = next(row.annotations.sender for row in rows if row.annotations.sender)
    expected = {
        ("--topic", "gcn.*", "-T", "ztf.alerts"): Query(topics=("gcn.*", "ztf.alerts")),
        ("--since", at): Query(since_ms=middle_ms),
        ("--until", at): Query(until_ms=middle_ms),
        ("--sender", sender): Query(senders=(sender,)),
        ("--media-type", "application/json", "--media-type", "application/avro"): Query(
            media_types=("application/json", "application/avro")
        ),
        ("--limit", "7"): Query(limit=7),
    }
    for args, query in expected.items():
        assert printed(*args) == selected(catalog, query) != printed()
    assert printed("--limit", "0") == printed("--since", "9999-01-01") == []


def test_json_is_an_object_a_line(catalog: MockCatalog) -> None:
    objects: list[dict[str, Any]] = [json.loads(line) for line in printed("--json")]
    assert [one["uuid"] for one in objects] == selected(catalog, Query())
    row = next(catalog.select(Query()))
    assert objects[0]["topic"] == row.topic
    assert (objects[0]["partition"], objects[0]["offset"]) == (row.partition, row.offset)
    assert objects[0]["size"] == row.size_bytes
    at = datetime.datetime.fromisoformat(objects[0]["timestamp"])
    assert milliseconds(at) == objects[0]["timestamp_ms"] == row.timestamp_ms


def test_a_misspelt_topic_is_an_error_not_an_empty_answer(catalog: MockCatalog) -> None:
    result = invoke("uuids", *M, "-T", "gcn.ntices")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Did you mean gcn.notices?" in result.stderr


@pytest.mark.parametrize("args", [("--where", "true"), ("where true",), ("true",)])
def test_a_mock_says_that_it_knows_no_sql(place: Path, args: tuple[str, ...]) -> None:
    mocks(place)
    result = invoke("uuids", *M, *args)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: Database m is a mock")


def test_a_condition_is_given_once(place: Path) -> None:
    mocks(place)
    assert invoke("uuids", *M, "--where", "true", "where true").exit_code == 2


@pytest.mark.parametrize("args", [("--where", " "), ("where ",), ("--limit", "-1"), ("--timeout", "0")])
def test_what_makes_no_sense_is_a_usage_error(place: Path, args: tuple[str, ...]) -> None:
    mocks(place)
    result = invoke("uuids", *M, *args)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_the_word_where_may_come_first(place: Path) -> None:
    assert without_where("  WHERE size > 1") == " size > 1"
    assert without_where("where(size > 1)") == "(size > 1)"
    assert without_where("whereabouts = 1") == "whereabouts = 1"
    assert without_where(None) == ""


@pytest.mark.parametrize(
    "condition",
    ["uuid IN (SELECT uuid FROM messages WHERE size > 1)", "title = 'no where to go'", "not where"],
)
def test_the_word_where_anywhere_else_is_the_conditions_own(condition: str) -> None:
    assert without_where(condition) == condition
    assert without_where(f"WHERE {condition}") == f" {condition}"


def uuids(count: int) -> list[uuid.UUID]:
    return [uuid.uuid4() for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-24", "2026-11-24T00:00:00Z"),
        ("2026-11-24T06:00", "2026-11-24T06:00:00Z"),
        ("2026-11-24 06:00:00.250", "2026-11-24T06:00:00.250Z"),
        ("2026-11-24T06:00:00Z", "2026-11-24T06:00:00Z"),
        ("2026-11-24T06:00+01:00", "2026-11-24T05:00:00Z"),
        ("90s", "2026-11-24T11:59:00Z"),
        ("15m", "2026-11-24T11:45:30Z"),
        ("3h", "2026-11-24T09:00:30Z"),
        ("2d", "2026-11-22T12:00:30Z"),
        ("4w", "2026-10-27T12:00:30Z"),
    ],
)
def test_a_moment_is_a_date_a_time_or_how_long_ago(text: str, meant: str) -> None:
    assert moment_of(text, NOW) == datetime.datetime.fromisoformat(meant)


@pytest.mark.parametrize("text", ["", "yesterday", "5", "5x", "-5m", "9" * 30 + "w", "٣h", "2026-13-01"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="wanted a date or time"):
        moment(text)


def test_milliseconds_are_exact_before_1970_too() -> None:
    assert milliseconds(moment_of("1969-12-31T23:59:59.999", NOW)) == -1
    assert milliseconds(moment_of("2026-11-24T00:00:00.001999", NOW)) % 1000 == 1


def test_what_was_selected_can_be_told_again() -> None:
    assert described(Query()) == {}
    query = Query(topics=("a*",), since_ms=0, senders=("x",), condition="true", limit=0)
    assert described(query) == {
        "topics": ["a*"],
        "since": "1970-01-01T00:00:00.000Z",
        "senders": ["x"],
        "where": "true",
        "limit": 0,
    }


@pytest.mark.parametrize(
    "bounds",
    [{"topics": ("\x00",)}, {"limit": -1}, {"since_ms": 2, "until_ms": 1}, {"senders": ("\x00",)},
     {"condition": "x = '\udcff'"}],
)  # fmt: skip
def test_a_query_that_makes_no_sense_cannot_be_made(bounds: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Query(**bounds)


@pytest.mark.parametrize("name", ["a b", "["])
def test_a_name_that_kafka_would_not_take_is_refused_where_the_catalog_has_no_such_topic(name: str) -> None:
    with pytest.raises(ConfigurationError, match="Wanted"):
        Query(topics=(name,)).chosen_topics(["t"])
    assert Query(topics=("a b",)).chosen_topics(["a b", "t"]) == ["a b"]
