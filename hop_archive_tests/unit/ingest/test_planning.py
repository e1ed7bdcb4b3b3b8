from __future__ import annotations

import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.ingest.plan import Knowledge, Plan, lost, plan, work
from hop_archive.model.limits import Limits
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.watermarks import Watermarks
from hop_archive_tests.strategies import offset_sets, plain

watermarks = st.lists(st.integers(0, 30), min_size=3, max_size=3).map(lambda ends: Watermarks(*sorted(ends)))
knowledge = st.builds(Knowledge, watermarks, offset_sets, offset_sets)
partition_logs = st.builds(
    PartitionLog, st.sampled_from(["a", "b", "c"]), st.integers(1, 2), st.integers(0, 2)
)
situations = st.dictionaries(partition_logs, knowledge, max_size=6)
budgets = st.builds(Limits, run_messages=st.integers(0, 60))


def offsets_of(slices: tuple[Slice, ...], partition_log: PartitionLog) -> set[int]:
    return {o for s in slices if s.partition_log == partition_log for o in range(s.start, s.stop)}


def partition(number: int) -> PartitionLog:
    return PartitionLog("t", 1, number)


def untouched(*sizes: int) -> dict[PartitionLog, Knowledge]:
    return {partition(n): Knowledge(Watermarks(0, size, size)) for n, size in enumerate(sizes)}


def shares(found: Plan) -> dict[int, int]:
    divided: dict[int, int] = {}
    for s in found.slices:
        divided[s.partition] = divided.get(s.partition, 0) + len(s)
    return divided


@given(knowledge)
def test_work_loss_coverage_and_flight_share_no_offset_and_leave_none_out(known: Knowledge) -> None:
    to_do, gone = plain(work(known)), plain(lost(known))
    dealt_with = plain(known.coverage) | plain(known.in_flight)
    marks = known.watermarks
    assert not to_do & gone
    assert not (to_do | gone) & dealt_with
    assert to_do | gone | dealt_with >= set(range(marks.stable))
    assert to_do <= set(range(marks.low, marks.stable))
    assert gone <= set(range(marks.low))


def test_nothing_is_read_beyond_the_last_stable_offset() -> None:
    assert work(Knowledge(Watermarks(0, 5, 9))) == OffsetSet.between(0, 5)


def test_a_hole_anywhere_in_the_coverage_is_work() -> None:
    known = Knowledge(Watermarks(0, 100, 100), OffsetSet.of([(0, 40), (41, 100)]))
    assert work(known) == OffsetSet.between(40, 41)


def test_what_retention_removed_is_lost_unless_a_live_run_has_it() -> None:
    known = Knowledge(Watermarks(10, 20, 20), OffsetSet.between(0, 4), OffsetSet.between(4, 6))
    assert lost(known) == OffsetSet.between(6, 10)


def test_a_topic_that_holds_nothing_any_more_has_no_work() -> None:
    assert work(Knowledge(Watermarks(9, 9, 9))) == EMPTY
    assert work(Knowledge(Watermarks(9, 3, 9))) == EMPTY  # an open transaction that began before `low`


@pytest.mark.parametrize("marks", [(-1, 0, 0), (0, 5, 4), (0, -1, 0)])
def test_watermarks_out_of_order_are_refused(marks: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="not watermarks"):
        Watermarks(*marks)


@given(situations, budgets)
def test_a_plan_takes_work_only_and_tells_what_it_left(
    known: dict[PartitionLog, Knowledge], limits: Limits
) -> None:
    found = plan(known, limits)
    for partition_log, k in known.items():
        assert offsets_of(found.slices, partition_log) <= plain(work(k))
        assert offsets_of(found.lost, partition_log) == plain(lost(k))
    assert found.messages + found.left == sum(work(k).size for k in known.values())
    assert {s.partition_log for s in (*found.slices, *found.lost)} <= known.keys()


@given(situations, budgets)
def test_of_a_topic_that_may_not_be_read_nothing_is_work_and_what_is_gone_is_lost_all_the_same(
    known: dict[PartitionLog, Knowledge], limits: Limits
) -> None:
    shut = {min(partition_log.topic for partition_log in known)} if known else set()
    found = plan(known, limits, shut)
    rest = plan({at: k for at, k in known.items() if at.topic not in shut}, limits)
    assert (found.slices, found.left, found.lost) == (rest.slices, rest.left, plan(known, limits).lost)


@given(situations, budgets)
def test_a_plan_uses_its_limit_to_the_full_and_no_more(
    known: dict[PartitionLog, Knowledge], limits: Limits
) -> None:
    found = plan(known, limits)
    assert found.messages == min(limits.run_messages, sum(work(k).size for k in known.values()))


@given(situations, budgets)
def test_slices_of_a_plan_are_disjoint_sorted_and_as_long_as_can_be(
    known: dict[PartitionLog, Knowledge], limits: Limits
) -> None:
    for slices in (plan(known, limits).slices, plan(known, limits).lost):
        assert list(slices) == sorted(slices)
        neighbours = itertools.pairwise(slices)
        assert all(
            one.partition_log != other.partition_log or one.stop < other.start for one, other in neighbours
        )


@given(situations, budgets)
def test_the_oldest_work_of_a_partition_comes_first(
    known: dict[PartitionLog, Knowledge], limits: Limits
) -> None:
    found = plan(known, limits)
    for partition_log, k in known.items():
        chosen = offsets_of(found.slices, partition_log)
        assert chosen == set(sorted(plain(work(k)))[: len(chosen)])


@given(situations, budgets)
def test_no_partition_gets_more_than_one_above_another_that_wants_more(
    known: dict[PartitionLog, Knowledge], limits: Limits
) -> None:
    found = plan(known, limits)
    got = {partition_log: len(offsets_of(found.slices, partition_log)) for partition_log in known}
    for partition_log, k in known.items():
        if got[partition_log] < work(k).size:
            assert got[partition_log] >= max(got.values()) - 1


@given(situations, budgets, st.randoms(use_true_random=False))
def test_the_same_knowledge_gives_the_same_plan_in_whatever_order_it_comes(
    known: dict[PartitionLog, Knowledge], limits: Limits, random: Random
) -> None:
    shuffled = list(known.items())
    random.shuffle(shuffled)
    assert plan(dict(shuffled), limits) == plan(known, limits)


@given(situations, st.integers(1, 20))
def test_plan_after_plan_all_work_gets_done_once(known: dict[PartitionLog, Knowledge], budget: int) -> None:
    done: dict[PartitionLog, set[int]] = {partition_log: set() for partition_log in known}
    now = known
    while (found := plan(now, Limits(run_messages=budget))).slices:
        for partition_log in known:
            new = offsets_of(found.slices, partition_log)
            assert not new & done[partition_log]
            done[partition_log] |= new
        now = {
            partition_log: Knowledge(k.watermarks, k.coverage | found_of(found, partition_log), k.in_flight)
            for partition_log, k in now.items()
        }
    assert done == {partition_log: plain(work(k)) for partition_log, k in known.items()}


def found_of(found: Plan, partition_log: PartitionLog) -> OffsetSet:
    return OffsetSet.of((s.start, s.stop) for s in found.slices if s.partition_log == partition_log)


def test_a_busy_partition_does_not_starve_the_quiet_ones() -> None:
    found = plan(untouched(1_000_000, 3, 5), Limits(run_messages=100))
    assert shares(found) == {0: 92, 1: 3, 2: 5}
    assert found.left == 1_000_000 - 92


def test_equal_partitions_get_equal_shares() -> None:
    assert shares(plan(untouched(50, 50, 50), Limits(run_messages=10))) == {0: 4, 1: 3, 2: 3}


def test_with_nothing_known_there_is_nothing_to_do() -> None:
    assert plan({}, Limits()) == Plan()
    assert plan(untouched(0, 0), Limits()) == Plan()


def test_loss_is_told_whatever_the_limit_on_reading() -> None:
    known = {partition(0): Knowledge(Watermarks(1_000, 1_000, 1_000))}
    assert plan(known, Limits(run_messages=0)).lost == (Slice("t", 1, 0, 0, 1_000),)


@given(st.integers(1, 2**40), st.integers(0, 4))
def test_limits_within_a_bound_add_up_to_no_more_than_it(memory_bytes: int, overlap: int) -> None:
    found = Limits.within(memory_bytes, overlap)
    groups = (overlap + 1) * 2 * found.batch_bytes
    segment, objects = found.batch_bytes, 3 * found.batch_bytes
    assert found.buffer_bytes + groups + segment + objects <= max(memory_bytes, 8 + 2 * overlap)
    assert found.batch_messages * 4096 <= max(found.batch_bytes, 4096)
    assert min(found.batch_bytes, found.buffer_bytes, found.batch_messages) >= 1


def test_limits_within_much_memory_hold_as_many_messages_as_without_a_bound() -> None:
    assert Limits.within(2**40).batch_messages == Limits().batch_messages
