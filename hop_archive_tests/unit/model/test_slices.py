from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.model.message import TopicPartition
from hop_archive.model.slices import EMPTY, OffsetRange, OffsetSet, PartitionLog, Slice
from hop_archive_tests.strategies import GREATEST_INT64, offset_sets, plain, small_ranges


@given(st.lists(small_ranges))
def test_a_set_holds_the_union_of_the_ranges_it_was_made_of(ranges: list[tuple[int, int]]) -> None:
    assert plain(OffsetSet.of(ranges)) == {offset for ends in ranges for offset in range(*ends)}


@given(st.lists(small_ranges))
def test_ranges_are_sorted_apart_and_not_empty(ranges: list[tuple[int, int]]) -> None:
    found = list(OffsetSet.of(ranges))
    assert all(start < stop for start, stop in found)
    assert all(before.stop < after.start for before, after in itertools.pairwise(found))


@given(offset_sets, offset_sets)
def test_sets_are_equal_just_when_they_hold_the_same_however_they_were_made(
    one: OffsetSet, other: OffsetSet
) -> None:
    assert (one == other) == (plain(one) == plain(other))
    assert OffsetSet.of((offset, offset + 1) for offset in plain(one)) == one


@given(offset_sets, offset_sets)
def test_union_difference_and_intersection_are_those_of_sets(one: OffsetSet, other: OffsetSet) -> None:
    assert plain(one | other) == plain(one) | plain(other)
    assert plain(one - other) == plain(one) - plain(other)
    assert plain(one & other) == plain(one) & plain(other)


@given(offset_sets, offset_sets)
def test_results_are_normalized_as_if_made_anew(one: OffsetSet, other: OffsetSet) -> None:
    for found in (one | other, one - other, one & other, one.first(7)):
        assert found == OffsetSet.of(found)


@given(offset_sets, offset_sets, offset_sets)
def test_algebra_has_its_laws(a: OffsetSet, b: OffsetSet, c: OffsetSet) -> None:
    assert a - (b | c) == (a - b) - c
    assert a - (b & c) == (a - b) | (a - c)
    assert (a & b) | (a - b) == a
    assert (a | b) | c == a | (b | c)


@given(offset_sets)
def test_size_truth_and_end_are_those_of_the_set(found: OffsetSet) -> None:
    offsets = plain(found)
    assert found.size == len(offsets)
    assert bool(found) == bool(offsets)
    assert found.stop == max(offsets, default=-1) + 1


@given(offset_sets, st.integers(-1, 40))
def test_an_offset_is_in_a_set_just_when_its_range_holds_it(found: OffsetSet, offset: int) -> None:
    assert (offset in found) == (offset in plain(found))


@given(offset_sets, st.integers(-3, 40))
def test_the_first_offsets_are_the_smallest(found: OffsetSet, count: int) -> None:
    wanted = sorted(plain(found))[: max(0, count)]
    assert found.first(count) == OffsetSet.of((offset, offset + 1) for offset in wanted)


def test_neighbouring_ranges_become_one_and_empty_ones_nothing() -> None:
    assert OffsetSet.of([(5, 8), (3, 5), (9, 9)]).ranges == (OffsetRange(3, 8),)
    assert OffsetSet.of([(4, 4)]) == EMPTY == OffsetSet.between(0, 0)


@pytest.mark.parametrize("ends", [(3, 2), (-1, 2), (-2, -1)])
def test_a_range_backwards_or_below_zero_is_refused(ends: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not an offset range"):
        OffsetSet.of([ends])
    with pytest.raises(ValueError, match="not an offset range"):
        Slice("t", 1, 0, *ends)


def test_sets_reach_to_the_greatest_offset() -> None:
    everything = OffsetSet.between(0, GREATEST_INT64)
    assert (everything - OffsetSet.between(5, 6)).ranges == ((0, 5), (6, GREATEST_INT64))
    assert everything.size == everything.stop == GREATEST_INT64


def test_the_ends_of_a_long_range_take_no_memory_by_its_length() -> None:
    assert list(OffsetRange(0, 10**15)) == [0, 10**15]


def test_an_empty_slice_is_refused() -> None:
    with pytest.raises(ValueError, match="empty slice"):
        Slice("t", 1, 0, 4, 4)


def test_a_slice_tells_its_length_lineage_partition_and_offsets() -> None:
    found = Slice("gcn", 2, 3, 10, 15)
    assert len(found) == 5
    assert found.partition_log == PartitionLog("gcn", 2, 3)
    assert found.topic_partition == TopicPartition("gcn", 3)
    assert found.offsets == OffsetSet.between(10, 15)
    assert str(found) == "gcn[3]@10-15 (generation 2)"


def test_another_range_of_a_slices_partition_keeps_its_lineage() -> None:
    assert Slice("gcn", 2, 3, 10, 15).within(11, 12) == Slice("gcn", 2, 3, 11, 12)


def test_slices_sort_by_topic_generation_partition_and_offset() -> None:
    some = [
        Slice("a", 1, 0, 0, 9),
        Slice("a", 1, 0, 10, 11),
        Slice("a", 1, 9, 0, 1),
        Slice("a", 1, 10, 0, 1),
        Slice("a", 2, 0, 0, 1),
        Slice("b", 1, 0, 0, 1),
    ]
    assert sorted([*some[3:], *some[:3]]) == some


@given(offset_sets)
def test_the_slices_of_a_lineage_are_the_ranges_of_its_offsets(found: OffsetSet) -> None:
    partition_log = PartitionLog("t", 1, 0)
    slices = partition_log.slices(found)
    assert {s.partition_log for s in slices} <= {partition_log}
    assert OffsetSet.of((s.start, s.stop) for s in slices) == found
    assert len(slices) == len(found.ranges)
    assert slices == sorted(slices)
