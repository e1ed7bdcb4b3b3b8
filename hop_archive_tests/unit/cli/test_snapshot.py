"""``hop-archive snapshot``: what it takes and shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.model.message import Committed, TopicPartition
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive_tests.cli_helpers import M, invoke, mocks, place

__all__ = ["place"]


@pytest.fixture
def cluster(place: Path) -> MockCluster:
    directory = mocks(place, samples=0, source='veto = ["*heartbeat"]')
    cluster = MockSource("m", directory=directory).cluster
    cluster.create_topic("alerts", 2, {"retention.ms": "1000"})
    cluster.create_topic("plain")
    cluster.create_topic("heartbeat")
    offsets = {TopicPartition("alerts", 0): Committed(4), TopicPartition("alerts", 1): Committed(7, "m")}
    MockSource(cluster=cluster).set_group_offsets("rea\x1bder", offsets)
    return cluster


def shown(*args: str) -> dict[str, Any]:
    ran = invoke("snapshot", "show", *M, "--json", *args)
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert isinstance(found, dict)
    return found


def test_a_snapshot_is_taken_and_shown(cluster: MockCluster) -> None:
    ran = invoke("snapshot", "take", *M)
    assert ran.exit_code == 0
    assert ran.stdout.startswith("Kept how 2 topics and 1 consumer group of cluster ")
    out = invoke("snapshot", "show", *M).stdout
    assert "retention.ms=1000" in out
    assert "0:4 1:7" in out
    assert "rea\\x1bder" in out  # nothing of a stranger's acts on the terminal
    assert "heartbeat" not in out


def test_topics_that_could_not_be_looked_at_are_named_with_why(cluster: MockCluster, place: Path) -> None:
    MockCatalog(directory=place / "mocks").begin_generation("plain", 1, "cluster", "id", "first seen")
    cluster.deny("plain", "describe")
    out = invoke("snapshot", "take", *M).stdout
    assert "Not looked at, and kept as they were last: plain." in out
    assert "do not allow to describe topic plain" in out
    assert (
        "do not allow to describe topic plain"
        in json.loads(invoke("snapshot", "take", *M, "--json").stdout)["topics_untold"]["plain"]
    )


def test_as_json_it_says_all(cluster: MockCluster) -> None:
    ran = invoke("snapshot", "take", *M, "--json")
    taken = json.loads(ran.stdout)
    assert (taken["topics"], taken["groups"], taken["groups_hidden"]) == (2, 1, None)
    found = shown()
    assert found["database"] == "m"
    assert {one["topic"]: (one["partitions"], one["settings"]) for one in found["topics"]} == {
        "alerts": (2, {"retention.ms": "1000"}),
        "plain": (1, {}),
    }
    (group,) = found["groups"]
    assert group["group"] == "rea\x1bder"
    assert group["offsets"][1] == {"topic": "alerts", "partition": 1, "offset": 7, "metadata": "m"}
    assert group["topic_ids"].keys() == {"alerts"}


def test_some_topics_or_groups_are_shown_alone(cluster: MockCluster) -> None:
    invoke("snapshot", "take", *M)
    assert [one["topic"] for one in shown("-T", "al*")["topics"]] == ["alerts"]
    assert shown("-T", "al*")["groups"] == []
    assert shown("-G", "rea*")["topics"] == []
    both = shown("-G", "rea*", "-T", "plain")
    assert len(both["topics"]) == len(both["groups"]) == 1


def test_what_changed_since_the_last_one_is_told(cluster: MockCluster) -> None:
    invoke("snapshot", "take", *M)
    MockSource(cluster=cluster).change_settings("plain", {"retention.ms": "5"})
    assert "Set up otherwise than before: plain." in invoke("snapshot", "take", *M).stdout


def test_a_name_that_nothing_has_is_told_and_an_empty_catalog_says_so(cluster: MockCluster) -> None:
    out = invoke("snapshot", "show", *M)
    assert (out.exit_code, "snapshot take" in out.stdout) == (0, True)
    invoke("snapshot", "take", *M)
    for option in ("-T", "-G"):
        ran = invoke("snapshot", "show", *M, option, "nothing*")
        assert ran.exit_code == 2
        assert "no snapshot of 'nothing*'" in ran.output


def test_a_source_that_does_not_answer_is_told_and_what_is_kept_is_shown(cluster: MockCluster) -> None:
    invoke("snapshot", "take", *M)
    cluster.stop()
    ran = invoke("snapshot", "take", *M)
    assert (ran.exit_code, "does not answer" in ran.output) == (3, True)
    assert len(shown()["topics"]) == 2
