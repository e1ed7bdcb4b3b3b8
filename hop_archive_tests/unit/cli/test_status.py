"""``hop-archive status``: what it says of each topic, and what it still says while the source is down."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import TopicSummary
from hop_archive.cli.stopping import Stop
from hop_archive.config import open as opening
from hop_archive.errors import ForbiddenError, HopArchiveError, MissingSettingError, UnavailableError
from hop_archive.read.headline import headline
from hop_archive.read.topic_facts import WINDOWS, Facts, TopicFacts
from hop_archive.source.mock.source import MockSource
from hop_archive_tests.cli_helpers import M, archived, invoke, mocks, place
from hop_archive_tests.contract.catalog_helpers import adopted_row

__all__ = ["place"]

WINDOW = {
    "messages",
    "duplicates",
    "absent",
    "lost",
    "skipped",
    "pruned",
    "bytes",
    "first",
    "last",
    "last_batch",
}


def status(*args: str) -> dict[str, Any]:
    result = invoke("status", *M, "--json", *args)
    assert result.exit_code == 0
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_an_archive_that_is_empty_has_no_topics(place: Path) -> None:
    mocks(place)
    assert status()["topics"] == []
    assert "No topic has been archived, and the source has none that would be." in invoke("status", *M).stdout
    assert invoke("status", "-D", "m").stdout.splitlines()[-1] == "No topic has been archived."


def test_each_topic_says_how_far_it_is(place: Path) -> None:
    directory = mocks(place, archived=True)
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
    mocks(place, archived=True)
    found = status()
    moments = [found["at"], *(one[key] for one in found["topics"] for key in ("first", "last", "last_batch"))]
    assert all(moment.endswith("Z") and datetime.fromisoformat(moment) for moment in moments)


def test_what_is_not_archived_yet_is_lag(place: Path) -> None:
    directory = mocks(place, archived=True)
    MockSource("m", directory=directory).cluster.append("snews.alerts", b"one more")
    assert [one["lag"] for one in status("-T", "snews.alerts")["topics"]] == [1]


def test_while_the_source_is_down_lags_are_not_known_and_the_rest_is(place: Path) -> None:
    directory = mocks(place, archived=True)
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
    mocks(place, archived=True)
    assert [one["topic"] for one in status("-T", "gcn.notices")["topics"]] == ["gcn.notices"]


def test_people_get_a_table_with_a_total(place: Path) -> None:
    directory = mocks(place, archived=True)
    lines = invoke("status", *M).stdout.splitlines()
    assert lines[3].split()[:3] == ["TOPIC", "LAG", "MESSAGES"]
    (total,) = [line for line in lines if line.startswith("total")]
    assert total.split()[2] == str(archived(directory))


def test_offsets_that_a_transaction_holds_back_are_no_lag_and_are_shown(place: Path) -> None:
    directory = mocks(place, archived=True)
    cluster = MockSource("m", directory=directory).cluster
    transaction = cluster.begin()
    for _ in range(4):
        cluster.append("snews.alerts", b"", transaction=transaction)
    (one,) = status("-T", "snews.alerts")["topics"]
    assert (one["lag"], one["held_back"]) == (0, 4)
    lines = invoke("status", *M).stdout.splitlines()
    assert lines[0] == "All is archived; 4 offsets held back by open transactions."
    assert lines[-1] == "snews.alerts: 4 offsets held back by an open transaction."
    cluster.stop()
    assert {one["held_back"] for one in status()["topics"]} == {None}


# --- the first line

AT = datetime(2026, 11, 24, tzinfo=UTC)


def standing(
    lag: int | None = 0, *, ago: timedelta | None = timedelta(), lost: int = 0, error: str = "", gone: int = 0
) -> Facts:
    """A status of one topic: how far behind, how long since the last batch, what is lost."""
    total = TopicSummary("t", messages=9, last_batch_at=None if ago is None else AT - ago, lost=1000)
    windows = {window: TopicSummary("t", lost=lost) for window in WINDOWS}
    return Facts(
        (TopicFacts("t", total, windows, lag=lag, unrecorded=gone, generations=1, held_back=0),), AT, error
    )


def test_the_first_line_says_what_matters() -> None:
    told = {
        headline(standing()): "All is archived.",
        headline(standing(7)): "7 offsets behind, in 1 topic.",
        headline(Facts((), AT)): "There is nothing to archive so far.",
        headline(standing(3, ago=None)): "3 offsets behind, in 1 topic; no batch so far.",
        headline(standing(lost=2)): "All is archived; 2 offsets recorded as lost in the last 24 hours.",
        headline(standing(gone=1)): "All is archived; 1 offset gone from Kafka, not recorded as lost yet.",
    }
    assert list(told) == list(told.values())


def test_the_first_line_tells_a_quiet_source_from_an_archive_that_stands_still() -> None:
    day = timedelta(hours=26)
    assert headline(standing(ago=day)) == "All is archived; nothing has arrived for 26 h 0 min."
    assert headline(standing(5, ago=day)).endswith("; nothing was archived for 26 h 0 min.")
    assert headline(standing(ago=timedelta(minutes=59))) == "All is archived."


def test_the_first_line_says_that_the_source_is_down() -> None:
    text = headline(standing(None, error="No answer."))
    assert text == "How far behind the archive is, is not known."


def test_the_first_line_is_in_json_too(place: Path) -> None:
    directory = mocks(place, archived=True)
    MockSource("m", directory=directory).cluster.append("snews.alerts", b"one more")
    assert status()["headline"] == "1 offset behind, in 1 topic."


# --- watching


class Flickering(MockCatalog):
    """A database that answers every other time."""

    looks = 0
    error: type[HopArchiveError] = UnavailableError

    def check(self) -> None:
        Flickering.looks += 1
        if Flickering.looks % 2 == 0:
            raise Flickering.error("The database does not answer.")


def test_watching_goes_on_through_a_refusal(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mocks(place)
    monkeypatch.setattr(opening, "MockCatalog", Flickering)
    monkeypatch.setattr(Flickering, "error", ForbiddenError)
    monkeypatch.setattr(Flickering, "looks", 0)
    monkeypatch.setattr(Stop, "requested", property(lambda _: Flickering.looks >= 3))
    result = invoke("status", *M, "--watch", "0.1")
    assert result.exit_code == 0
    assert result.stdout.count("The database does not answer.") == 1


def test_watching_shows_that_the_database_is_down_and_what_was_known(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mocks(place)
    monkeypatch.setattr(opening, "MockCatalog", Flickering)
    monkeypatch.setattr(Flickering, "looks", 0)
    monkeypatch.setattr(Stop, "requested", property(lambda _: Flickering.looks >= 3))
    result = invoke("status", *M, "--watch", "0.1")
    assert result.exit_code == 0
    first, second, third = result.stdout.split("--- ")[1:]
    assert "There is nothing to archive so far." in first
    assert "The database does not answer.\nBefore that:\nThere is nothing to archive so far." in second
    assert third.split("\n", 1)[1].startswith("There is nothing")
    monkeypatch.setattr(Flickering, "looks", 1)
    found = [json.loads(line) for line in invoke("status", *M, "--json", "-w", "0.1").stdout.splitlines()]
    assert found[0]["error"] == "The database does not answer."
    assert found[1]["topics"] == []


def test_what_is_wrong_with_the_configuration_ends_watching(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unmigrated(MockCatalog):
        def check(self) -> None:
            raise MissingSettingError("No tables.", remedy="hop-archive migrate")

    mocks(place)
    monkeypatch.setattr(opening, "MockCatalog", Unmigrated)
    result = invoke("status", *M, "--watch")
    assert (result.exit_code, result.stderr) == (2, "Error: No tables. hop-archive migrate\n")


def test_a_database_without_a_source_is_shown_and_says_that_the_lag_is_not_known(place: Path) -> None:
    mocks(place, archived=True)
    ran = invoke("status", "-D", "m")
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.startswith("How far behind the archive is, is not known")
    assert "source not named" in ran.stdout
    told = json.loads(invoke("status", "-D", "m", "--json").stdout)
    assert told["source"]["error"]
    assert {one["lag"] for one in told["topics"]} == {None}


def test_what_another_archiver_stored_under_a_name_that_kafka_does_not_take_is_not_called_gone(
    place: Path,
) -> None:
    directory = mocks(place)
    MockCatalog("m", directory=directory).adopt([adopted_row(topic="gcn.notices+oversized")])
    lines = invoke("status", *M).stdout.splitlines()
    (why,) = [line for line in lines if line.startswith("gcn.notices+oversized: ")]
    assert "never on Kafka, which takes no topic of that name" in why
    assert "The ledger has no offsets so far." in lines


def test_a_topic_that_nobody_knows_is_an_error(place: Path) -> None:
    mocks(place)
    ran = invoke("status", *M, "-T", "no.such.topic")
    assert (ran.exit_code, "no.such.topic" in ran.stderr) == (2, True)


def test_what_is_in_the_way_is_listed_with_since_when_and_not_counted_as_archived(place: Path) -> None:
    directory = mocks(place, archived=True)
    MockSource("m", directory=directory).cluster.lose_leader("snews.alerts")
    result = invoke("run", *M, "--until-caught-up", "--json", "-q")
    assert json.loads(result.stdout)["caught_up"] is False
    found = status()
    (one,) = found["in_the_way"]
    assert (one["topic"], one["partition"], one["kind"]) == ("snews.alerts", 0, "no_leader")
    assert datetime.fromisoformat(one["since"])
    assert "no leader" in one["why"]
    assert {t["topic"]: t["lag"] for t in found["topics"]}["snews.alerts"] is None
    text = invoke("status", *M).stdout
    assert text.startswith(
        "All is archived that could be looked at; 1 topic with something in the way; 1 finding open"
    )
    assert "no_leader" in text
