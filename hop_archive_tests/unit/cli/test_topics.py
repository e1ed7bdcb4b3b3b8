"""``hop-archive topics``: what it says of each topic of the source and of the catalog, and what is missing of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Batch, Outcome
from hop_archive.model.slices import Slice
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive_tests.cli_helpers import M, invoke, mocks, place

__all__ = ["place"]

POLICY = (
    'veto = ["*heartbeat"]\ntopics = ["a.*", "*heartbeat", "p"]\nprivate = ["p"]\ntest_topics = ["a.test"]'
)


class World:
    """Mocks of which the source has topics of every kind, the first of them archived."""

    def __init__(self, place: Path) -> None:
        self.directory = mocks(place, source=POLICY)
        for name, partitions in (("a.one", 2), ("a.test", 1), ("p", 1), ("heartbeat", 1), ("other", 1)):
            self.cluster.create_topic(name, partitions)
        self.cluster.create_topic("__consumer_offsets", 3)
        for number in range(10):
            self.cluster.append("a.one", b"%d" % number, partition=number % 2)
            self.cluster.append("heartbeat", b"")

    @property
    def cluster(self) -> MockCluster:
        return MockSource("m", directory=self.directory).cluster

    @property
    def catalog(self) -> MockCatalog:
        return MockCatalog("m", directory=self.directory)

    def run(self) -> None:
        assert invoke("run", *M, "--until-caught-up", "-q").exit_code == 0

    def commit(self, topic: str, start: int, stop: int, *why: Any, generation: int = 1) -> None:
        self.catalog.commit(Batch(Slice(topic, generation, 0, start, stop), *why))

    def topics(self, *args: str) -> dict[str, dict[str, Any]]:
        result = invoke("topics", *M, "--json", *args)
        assert result.exit_code == 0
        return {one["topic"]: one for one in json.loads(result.stdout)["topics"]}

    def gaps(self, topic: str) -> list[tuple[str, int, int, str]]:
        found = self.topics("--holes")[topic]["gaps"]
        return [(gap["kind"], gap["start"], gap["stop"], gap["reason"]) for gap in found]


@pytest.fixture
def world(place: Path) -> World:
    return World(place)


def test_each_topic_says_what_becomes_of_it(world: World) -> None:
    world.run()
    found = world.topics()
    assert {name: one["state"] for name, one in found.items()} == {
        "a.one": "archived",
        "a.test": "archived",
        "p": "archived",
        "heartbeat": "vetoed",
        "other": "left out",
    }
    assert [name for name, one in found.items() if one["test"]] == ["a.test"]
    assert [name for name, one in found.items() if one["private"]] == ["p"]


def test_a_topic_that_is_archived_says_how_far(world: World) -> None:
    world.run()
    world.cluster.append("a.one", b"new", partition=1)
    one = world.topics()["a.one"]
    assert (one["partitions"], one["generation"], one["held"], one["lag"]) == (2, 1, 11, 1)
    assert (one["messages"], one["covered"], one["holes"], one["lost"]) == (10, 10, 0, 0)
    assert one["topic_id"] == MockSource("m", directory=world.directory).topics()["a.one"].topic_id


def test_a_topic_that_is_not_archived_has_no_lag(world: World) -> None:
    one = world.topics()["heartbeat"]
    assert (one["held"], one["lag"], one["unrecorded"], one["generation"]) == (10, None, None, None)


def test_kafkas_own_topics_are_shown_only_if_asked_for(world: World) -> None:
    assert "__consumer_offsets" not in world.topics()
    assert world.topics("--all")["__consumer_offsets"]["partitions"] == 3


def test_only_topics_of_a_pattern_are_shown(world: World) -> None:
    assert world.topics("-T", "a.*").keys() == {"a.one", "a.test"}
    assert world.topics("-T", "a.t*", "-T", "other").keys() == {"a.test", "other"}


def test_a_pattern_that_means_no_topic_is_an_error_that_names_it(world: World) -> None:
    ran = invoke("topics", *M, "-T", "a.*", "-T", "axone")
    assert (ran.exit_code, "axone" in ran.stderr) == (2, True)


def test_a_pattern_that_is_none_is_an_error(world: World) -> None:
    result = invoke("topics", *M, "-T", "a.(one|two)")
    assert result.exit_code == 2
    assert "'a.(one|two)'" in result.stderr


def test_a_topic_that_the_source_has_no_more_is_gone(world: World) -> None:
    world.run()
    world.cluster.delete_topic("a.one")
    one = world.topics()["a.one"]
    assert (one["state"], one["messages"], one["covered"], one["generation"]) == ("gone", 10, 10, 1)
    assert [one[key] for key in ("partitions", "topic_id", "held", "held_back", "lag", "unrecorded")] == [
        None
    ] * 6


def test_status_and_topics_speak_alike_of_topics_of_which_nothing_comes_any_more(
    world: World, place: Path
) -> None:
    world.cluster.append("p", b"")
    world.run()
    world.cluster.delete_topic("a.one")
    file = place / "hop_archive.toml"
    file.write_text(file.read_text().replace('"*heartbeat", "p"]', '"*heartbeat"]'))
    found = {one["topic"]: one for one in json.loads(invoke("status", *M, "--json").stdout)["topics"]}
    for name, state in {"a.one": "gone", "p": "left out"}.items():
        assert found[name]["state"] == world.topics()[name]["state"] == state
        assert found[name]["lag"] is None
        for command in ("topics", "status"):
            (row, *_) = [
                line for line in invoke(command, *M).stdout.splitlines() if line.startswith(f"{name} ")
            ]
            assert "?" not in row
            assert "-" in row.split()
    assert "a.one: gone: archived once, no more on the source." in invoke("status", *M).stdout
    world.cluster.stop()
    (row, *_) = [line for line in invoke("status", *M).stdout.splitlines() if line.startswith("a.one")]
    assert row.split()[1] == "?"


def test_a_topic_that_was_made_anew_shows_its_present_life(world: World) -> None:
    world.run()
    world.cluster.delete_topic("a.one")
    world.cluster.create_topic("a.one")
    world.cluster.append("a.one", b"of the second life")
    world.run()
    one = world.topics()["a.one"]
    assert (one["generation"], one["held"], one["covered"]) == (2, 1, 11)


def test_an_open_transaction_holds_offsets_back(world: World) -> None:
    world.run()
    transaction = world.cluster.begin()
    for _ in range(3):
        world.cluster.append("a.one", b"", transaction=transaction)
    one = world.topics()["a.one"]
    assert (one["held"], one["held_back"], one["lag"]) == (10, 3, 0)
    assert "a.one: 3 offsets held back by an open transaction." in invoke("topics", *M).stdout


# --- holes


def test_a_hole_that_kafka_holds_is_what_the_next_run_fills(world: World) -> None:
    for start, stop in ((0, 1), (3, 4)):
        world.commit("a.one", start, stop, Outcome.SKIPPED, "for this test")
    assert world.topics()["a.one"]["holes"] == 2
    assert ("hole", 1, 3, "Kafka holds these: the next run archives them") in world.gaps("a.one")
    world.run()
    assert world.topics()["a.one"]["holes"] == 0


def test_a_hole_of_a_topic_that_is_left_out_now_is_not_awaited(world: World) -> None:
    for start, stop in ((0, 1), (3, 4)):
        world.commit("heartbeat", start, stop, Outcome.SKIPPED, "when it was archived")
    assert ("hole", 1, 3, "Kafka holds these: the stanza leaves the topic out now") in world.gaps("heartbeat")


def test_what_is_gone_and_not_recorded_is_no_hole(world: World) -> None:
    world.commit("a.one", 0, 1, Outcome.SKIPPED, "for this test")
    world.commit("a.one", 4, 5, Outcome.SKIPPED, "for this test")
    world.cluster.delete_records("a.one", 0, 3)
    one = world.topics()["a.one"]
    assert (one["holes"], one["unrecorded"], one["lost"]) == (1, 2, 0)
    assert [gap[:3] for gap in world.gaps("a.one")] == [
        ("skipped", 0, 1),
        ("gone", 1, 3),
        ("hole", 3, 4),
        ("skipped", 4, 5),
    ]
    assert "a.one: 2 offsets gone from Kafka, not recorded as lost yet." in invoke("topics", *M).stdout


def test_lost_and_skipped_slices_have_the_ledgers_reason(world: World) -> None:
    world.run()
    world.commit("a.one", 5, 8, Outcome.LOST, "retention")
    world.commit("a.one", 8, 9, Outcome.SKIPPED, "unreadable")
    one = world.topics()["a.one"]
    assert (one["lost"], one["skipped"]) == (3, 1)
    assert world.gaps("a.one") == [("lost", 5, 8, "retention"), ("skipped", 8, 9, "unreadable")]
    text = invoke("topics", *M, "--holes").stdout
    assert "a.one[0]@5-8 (generation 1)" in text
    assert "retention" in text


def test_a_hole_of_an_earlier_life_is_not_awaited(world: World) -> None:
    for start, stop in ((0, 1), (3, 4)):
        world.commit("a.one", start, stop, Outcome.SKIPPED, "for this test", generation=1)
    world.catalog.begin_generation("a.one", 1, "elsewhere", "x", "")
    assert ("hole", 1, 3, "of an earlier generation of the topic") in world.gaps("a.one")


def test_without_holes_that_is_said(world: World) -> None:
    world.run()
    assert "No holes, and nothing lost, skipped or pruned." in invoke("topics", *M, "--holes").stdout


# --- servers that do not answer


def test_while_the_source_is_down_the_catalogs_part_is_shown(world: World) -> None:
    world.run()
    for start, stop in ((10, 11), (13, 14)):
        world.commit("a.one", start, stop, Outcome.SKIPPED, "for this test")
    world.cluster.stop()
    found = world.topics("--holes")
    assert found.keys() == {"a.one"}
    one = found["a.one"]
    assert (one["state"], one["messages"], one["generation"]) == ("archived", 10, 1)
    assert (one["partitions"], one["held"], one["lag"]) == (None, None, None)
    assert "not known" in {gap["kind"]: gap["reason"] for gap in one["gaps"]}["hole"]
    result = invoke("topics", *M)
    assert result.exit_code == 0
    assert "The source's part is not known: Source m: mock cluster " in result.stdout
    assert "?" in result.stdout


# --- for people


def test_people_get_a_line_that_sums_up_and_a_table(world: World) -> None:
    world.run()
    lines = invoke("topics", *M).stdout.splitlines()
    assert lines[0] == "5 topics (3 archived, 1 left out, 1 vetoed): source m, database m"
    assert lines[2].split()[:4] == ["TOPIC", "STATE", "PARTITIONS", "GEN"]
    (test,) = [line for line in lines if line.startswith("a.test")]
    assert "archived, test" in test


def test_where_there_is_no_topic_that_is_said(place: Path) -> None:
    mocks(place)
    assert invoke("topics", *M).stdout == "No topic is known: source m, database m.\n"
