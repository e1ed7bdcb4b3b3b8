"""``hop-archive status``: what it says of each topic, and what it still says while the source is down."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from hop_archive.source.mock import MockSource
from hop_archive_tests.unit.cli_helpers import M, archived, invoke, mocks, place

__all__ = ["place"]

WINDOW = {"messages", "duplicates", "absent", "lost", "skipped", "bytes", "first", "last", "last_batch"}


def status(*args: str) -> dict[str, Any]:
    result = invoke("status", *M, "--json", *args)
    assert result.exit_code == 0
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_an_archive_that_is_empty_has_no_topics(place: Path) -> None:
    mocks(place)
    assert status()["topics"] == []
    assert "No topic has been archived" in invoke("status", *M).stdout


def test_each_topic_says_how_far_it_is(place: Path) -> None:
    directory = mocks(place)
    invoke("run", *M, "--until-caught-up")
    topics = status()["topics"]
    assert [one["topic"] for one in topics] == sorted(one["topic"] for one in topics)
    assert sum(one["messages"] for one in topics) == archived(directory)
    assert {one["lag"] for one in topics} == {0}
    assert {one["generations"] for one in topics} == {1}
    assert all(one["bytes"] > 0 for one in topics)


def test_each_window_has_the_same_figures(place: Path) -> None:
    mocks(place)
    invoke("run", *M, "--until-caught-up")
    for one in status()["topics"]:
        assert set(one["last_hour"]) == set(one["last_24_hours"]) == WINDOW
        assert one["last_hour"]["messages"] == one["messages"]


def test_moments_are_iso_8601_in_utc(place: Path) -> None:
    mocks(place)
    invoke("run", *M, "--until-caught-up")
    found = status()
    moments = [found["at"], *(one[key] for one in found["topics"] for key in ("first", "last", "last_batch"))]
    assert all(moment.endswith("Z") and datetime.fromisoformat(moment) for moment in moments)


def test_what_is_not_archived_yet_is_lag(place: Path) -> None:
    directory = mocks(place)
    invoke("run", *M, "--until-caught-up")
    MockSource("m", directory=directory).cluster.append("snews.alerts", b"one more")
    assert [one["lag"] for one in status("-T", "snews.alerts")["topics"]] == [1]


def test_while_the_source_is_down_lags_are_not_known_and_the_rest_is(place: Path) -> None:
    directory = mocks(place)
    invoke("run", *M, "--until-caught-up")
    before = status()
    MockSource("m", directory=directory).cluster.stop()
    found = status()
    assert {one["lag"] for one in found["topics"]} == {None}
    assert [one["messages"] for one in found["topics"]] == [one["messages"] for one in before["topics"]]
    assert found["source"]["name"] == "m"
    assert "does not answer" in found["source"]["error"]
    assert before["source"]["error"] is None
    text = invoke("status", *M).stdout
    assert "The lag is not known: " in text
    assert "?" in text


def test_one_topic_may_be_asked_for(place: Path) -> None:
    mocks(place)
    invoke("run", *M, "--until-caught-up")
    assert [one["topic"] for one in status("-T", "gcn.notices")["topics"]] == ["gcn.notices"]


def test_people_get_a_table_with_a_total(place: Path) -> None:
    directory = mocks(place)
    invoke("run", *M, "--until-caught-up")
    lines = invoke("status", *M).stdout.splitlines()
    assert lines[3].split()[:3] == ["TOPIC", "LAG", "MESSAGES"]
    (total,) = [line for line in lines if line.startswith("total")]
    assert total.split()[2] == str(archived(directory))
