"""The contract of a catalog where it keeps snapshots, over the mock, the mock in a directory, and Postgres."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable
from typing import Any

import pytest

from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Snapshot, SnapshotKind
from hop_archive.model.message import TopicPartition

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

NOON = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)


def taken(name: str, kind: SnapshotKind = "topic", at: datetime.datetime = NOON, **content: Any) -> Snapshot:
    return Snapshot("cluster", kind, name, content, at)


def test_what_was_kept_is_told_as_it_was_sorted_by_cluster_and_name(catalog: Catalog) -> None:
    topic = taken(
        "b", topic_id=None, partitions=3, settings={"retention.ms": "-1", "é": '"\\'}, settings_known=True
    )
    group = taken("b", "group", offsets=[["t", 0, 2**40], ["t", 1, 0]], topic_ids={"t": "x"})
    catalog.keep_snapshots("cluster", [topic, group, taken("a-b"), taken("a.b"), taken("A")])
    other = Snapshot("another", "topic", "b", {}, NOON)
    catalog.keep_snapshots("another", [other])
    assert [one.name for one in catalog.snapshots("topic")] == ["b", "A", "a-b", "a.b", "b"]
    assert catalog.snapshots("topic", ["b"]) == [other, topic]
    assert catalog.snapshots("topic", ["b", "c"], "cluster") == [topic]
    assert catalog.snapshots("group") == [group]
    assert group.offsets == {TopicPartition("t", 0): 2**40, TopicPartition("t", 1): 0}
    assert catalog.snapshots("topic", []) == []
    assert catalog.snapshots("topic", None, "nowhere") == []


def test_a_later_snapshot_takes_the_place_of_an_earlier_one_and_leaves_others(catalog: Catalog) -> None:
    catalog.keep_snapshots("cluster", [taken("a", partitions=1), taken("b", partitions=1)])
    later = taken("a", at=NOON + HOUR, partitions=2)
    catalog.keep_snapshots("cluster", [later])
    catalog.keep_snapshots("cluster", [])
    assert catalog.snapshots("topic") == [later, taken("b", partitions=1)]


def test_a_snapshot_taken_before_the_one_that_is_there_does_not_replace_it(catalog: Catalog) -> None:
    catalog.keep_snapshots("cluster", [taken("a", partitions=2)])
    catalog.keep_snapshots("cluster", [taken("a", at=NOON - HOUR, partitions=1), taken("b", at=NOON - HOUR)])
    assert [one.content.get("partitions") for one in catalog.snapshots("topic")] == [2, None]
    catalog.keep_snapshots(
        "cluster", [taken("a", partitions=3)]
    )  # of the same moment: the answer was lost, say
    assert catalog.snapshots("topic", ["a"])[0].content == {"partitions": 3}


@pytest.mark.parametrize(
    "odd",
    [[Snapshot("another", "topic", "a", {}, NOON)], [taken("a"), taken("b"), taken("a")]],
    ids=["of another cluster", "twice the same thing"],
)
def test_what_does_not_belong_together_is_refused_whole(catalog: Catalog, odd: list[Snapshot]) -> None:
    with pytest.raises(ValueError, match="cluster"):
        catalog.keep_snapshots("cluster", odd)
    assert catalog.snapshots("topic") == []


def test_a_topic_and_a_group_may_have_one_name(catalog: Catalog) -> None:
    catalog.keep_snapshots("cluster", [taken("a"), taken("a", "group", offsets=[])])
    assert len(catalog.snapshots("topic")) == len(catalog.snapshots("group")) == 1


def test_two_who_keep_the_same_at_once_end_with_the_later_of_each(
    make_postgres: Callable[..., PostgresCatalog],
) -> None:
    names = [f"topic-{number}" for number in range(200)]

    def keep(hours: int, order: list[str]) -> None:
        catalog = make_postgres()
        for number in range(5):
            at = NOON + (hours + 2 * number) * HOUR
            catalog.keep_snapshots("cluster", [taken(name, at=at, hour=hours + 2 * number) for name in order])

    one = threading.Thread(target=keep, args=(0, names))
    one.start()
    keep(1, names[::-1])
    one.join()
    assert {found.content["hour"] for found in make_postgres().snapshots("topic")} == {9}
