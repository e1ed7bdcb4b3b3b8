from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.catalog.records import Generation
from hop_archive.ingest.generations import Recognition, recognise
from hop_archive.model.slices import OffsetSet, PartitionLog
from hop_archive.model.watermarks import Watermarks
from hop_archive.source.protocol import TopicInfo


class Seen(NamedTuple):
    info: TopicInfo
    cluster_id: str
    watermarks: Mapping[int, Watermarks]


THEN = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)


def sighting(cluster: str = "A", topic_id: str | None = None, ends: Mapping[int, int] | None = None) -> Seen:
    """Topic t as the source shows it, with partitions that end (high watermark) as given."""
    ends = ends or {}
    marks = {partition: Watermarks(0, end, end) for partition, end in ends.items()}
    return Seen(TopicInfo("t", topic_id, max(1, len(marks))), cluster, marks)


def lives(*known: tuple[str, str | None]) -> list[Generation]:
    """Generations 1, 2, … by cluster and topic id."""
    return [
        Generation("t", number, cluster, topic_id, THEN, "told")
        for number, (cluster, topic_id) in enumerate(known, 1)
    ]


def covered(number: int, *stops: int) -> dict[PartitionLog, OffsetSet]:
    """Coverage from 0 of partitions 0, 1, … of one generation."""
    return {PartitionLog("t", number, p): OffsetSet.between(0, stop) for p, stop in enumerate(stops)}


def test_a_topic_never_seen_is_generation_1() -> None:
    found = recognise(*sighting(), [], {})
    assert found == Recognition("t", 1, "first seen")
    assert found.is_new


@pytest.mark.parametrize("topic_id", [None, "X"])
def test_a_topic_that_is_as_it_was_is_the_generation_it_was(topic_id: str | None) -> None:
    found = recognise(*sighting("A", topic_id, {0: 5}), lives(("A", topic_id)), covered(1, 5))
    assert found == Recognition("t", 1)
    assert not found.is_new


def test_another_topic_id_is_another_generation_however_far_its_log_reaches() -> None:
    found = recognise(*sighting("A", "Y", {0: 1_000}), lives(("A", "X")), covered(1, 5))
    assert found.number == 2
    assert "topic id Y, was X" in found.reason


def test_another_cluster_is_another_generation() -> None:
    found = recognise(*sighting("B", "X", {0: 1_000}), lives(("A", "X")), covered(1, 5))
    assert found.number == 2
    assert "cluster B, was on A" in found.reason


@pytest.mark.parametrize(("id_on_a", "id_on_b"), [("X", "Y"), (None, None), ("X", None), (None, "Y")])
def test_a_topic_that_moved_back_is_the_generation_it_was_there(
    id_on_a: str | None, id_on_b: str | None
) -> None:
    generations = lives(("A", id_on_a), ("B", id_on_b))
    coverage = {**covered(1, 5), **covered(2, 900)}
    found = recognise(*sighting("A", id_on_a, {0: 5}), generations, coverage)
    assert found == Recognition("t", 1)


def test_a_topic_that_moved_back_and_was_made_anew_there_is_the_next_generation() -> None:
    assert recognise(*sighting("A", "Z", {0: 5}), lives(("A", "X"), ("B", "Y")), {}).number == 3


def test_a_log_that_ends_before_what_was_read_of_it_is_another_generation() -> None:
    found = recognise(*sighting("A", "X", {0: 4}), lives(("A", "X")), covered(1, 5))
    assert found.number == 2
    assert "partition 0 ends at offset 4, but offsets up to 5" in found.reason


def test_a_setback_of_any_partition_counts() -> None:
    seen = sighting("A", None, {0: 5, 1: 4, 2: 9})
    found = recognise(*seen, lives(("A", None)), covered(1, 5, 5, 5))
    assert found.number == 2
    assert "partition 1" in found.reason


def test_after_a_setback_the_new_generation_is_recognised_by_its_own_coverage() -> None:
    generations = lives(("A", "X"), ("A", "X"))
    coverage = {**covered(1, 500), **covered(2, 3)}
    assert recognise(*sighting("A", "X", {0: 4}), generations, coverage) == Recognition("t", 2)
    assert recognise(*sighting("A", "X", {0: 2}), generations, coverage).number == 3


def test_what_another_generation_covers_is_no_setback() -> None:
    generations = lives(("A", "X"), ("B", "Y"))
    assert recognise(*sighting("B", "Y", {0: 3}), generations, covered(1, 500)).number == 2


def test_a_high_watermark_at_the_coverage_is_no_setback_though_a_transaction_is_open() -> None:
    seen = Seen(TopicInfo("t", "X", 1), "A", {0: Watermarks(0, 3, 5)})
    assert recognise(*seen, lives(("A", "X")), covered(1, 5)).number == 1


def test_retention_that_removed_everything_is_no_setback() -> None:
    seen = Seen(TopicInfo("t", "X", 1), "A", {0: Watermarks(5, 5, 5)})
    assert recognise(*seen, lives(("A", "X")), covered(1, 5)).number == 1


def test_a_partition_without_a_leader_says_nothing() -> None:
    assert recognise(*sighting("A", "X", {1: 5}), lives(("A", "X")), covered(1, 100, 5)).number == 1


def test_a_partition_that_is_new_says_nothing() -> None:
    assert recognise(*sighting("A", "X", {0: 5, 1: 0}), lives(("A", "X")), covered(1, 5)).number == 1


@pytest.mark.parametrize(("was", "now"), [(None, "X"), ("X", None)])
def test_where_ids_appear_or_vanish_the_topic_is_read_again_rather_than_guessed_to_be_the_same(
    was: str | None, now: str | None
) -> None:
    assert recognise(*sighting("A", now, {0: 5}), lives(("A", was)), covered(1, 5)).number == 2


@pytest.mark.parametrize(("was", "now"), [(None, "X"), ("X", None), (None, None)])
def test_without_ids_to_compare_the_watermarks_decide(was: str | None, now: str | None) -> None:
    assert recognise(*sighting("A", now, {0: 4}), lives(("A", was)), covered(1, 5)).number == 2


def test_an_id_that_is_known_beats_a_later_generation_without_one() -> None:
    generations = lives(("A", "X"), ("A", None))
    assert recognise(*sighting("A", "X", {0: 5}), generations, covered(1, 5)).number == 1
    assert recognise(*sighting("A", "Y", {0: 5}), generations, covered(2, 5)).number == 3


def test_numbers_go_on_from_the_greatest() -> None:
    generations = lives(("A", "X"), ("B", "Y"), ("C", "Z"))
    assert recognise(*sighting("A", "W"), generations, {}).number == 4


ids = st.sampled_from([None, "X", "Y"])
clusters = st.sampled_from(["A", "B"])
histories = st.lists(st.tuples(clusters, ids), max_size=5).map(lambda known: lives(*known))


@given(st.builds(sighting, clusters, ids, st.dictionaries(st.integers(0, 2), st.integers(0, 9))), histories)
def test_a_topic_is_an_old_generation_of_its_cluster_or_the_next_with_a_reason(
    seen: Seen, generations: Sequence[Generation]
) -> None:
    coverage = {at: held for g in generations for at, held in covered(g.number, 5, 5).items()}
    found = recognise(*seen, generations, coverage)
    if found.is_new:
        assert found.number == len(generations) + 1
        return
    chosen = generations[found.number - 1]
    assert chosen.cluster_id == seen.cluster_id
    assert None in (chosen.topic_id, seen.info.topic_id) or chosen.topic_id == seen.info.topic_id
    assert all(marks.high >= 5 for partition, marks in seen.watermarks.items() if partition < 2)


@given(st.builds(sighting, clusters, ids, st.dictionaries(st.integers(0, 2), st.integers(0, 9))), histories)
def test_once_recorded_a_new_generation_is_recognised_ever_after(
    seen: Seen, generations: Sequence[Generation]
) -> None:
    coverage = {at: held for g in generations for at, held in covered(g.number, 5, 5).items()}
    first = recognise(*seen, generations, coverage)
    if first.is_new:
        made = Generation("t", first.number, seen.cluster_id, seen.info.topic_id, THEN, first.reason)
        assert recognise(*seen, [*generations, made], coverage) == Recognition("t", first.number)
