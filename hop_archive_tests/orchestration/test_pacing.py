"""Which topics get a run now."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.errors import ConfigurationError
from hop_archive.orchestration.pacing import Dispatch, Pacing, Waiting, dispatch, followed

PACING = Pacing(enough_messages=100, longest_wait_s=10.0, busy_messages=1_000, most_own_runs=2)
NOW = 1_000.0
LATELY = NOW - 19.0
"""A shared run was asked for less than twice the longest wait ago."""


def decide(
    pending: dict[str, int],
    in_flight: tuple[str, ...] = (),
    since: dict[str, float] | None = None,
    *,
    obstructed: dict[str, int] | None = None,
    shared_is_starting: bool = False,
) -> Dispatch:
    return dispatch(
        pending,
        in_flight,
        Waiting(since or {}, LATELY),
        NOW,
        PACING,
        obstructed=obstructed,
        shared_is_starting=shared_is_starting,
    )


@pytest.mark.parametrize(
    ("pending", "in_flight", "since", "own", "shared", "waiting"),
    [
        pytest.param({}, (), {}, (), (), {}, id="nothing waits"),
        pytest.param({"a": 1}, (), {}, (), (), {"a": NOW}, id="first seen: waits from now on"),
        pytest.param({"a": 1}, (), {"a": 995.0}, (), (), {"a": 995.0}, id="not long enough yet"),
        pytest.param({"a": 1}, (), {"a": 990.0}, (), ("a",), {}, id="long enough"),
        pytest.param(
            {"a": 1}, (), {"a": NOW + 3600}, (), (), {"a": NOW}, id="the clock was set back an hour"
        ),
        pytest.param({"a": 100}, (), {}, (), ("a",), {}, id="enough messages"),
        pytest.param({"a": 99}, (), {}, (), (), {"a": NOW}, id="one too few"),
        pytest.param({"a": 1_000}, (), {}, ("a",), (), {}, id="busy: a run of its own"),
        pytest.param({"a": 999}, (), {}, (), ("a",), {}, id="not quite busy"),
        pytest.param({"a": 5_000}, ("a",), {}, (), (), {}, id="in a run: left alone"),
        pytest.param({"a": 1}, ("a",), {"a": 1.0}, (), (), {}, id="in a run: its wait is over"),
        pytest.param({"b": 1}, (), {"a": 1.0}, (), (), {"b": NOW}, id="who waits no more is forgotten"),
        pytest.param(
            {"a": 1_000, "b": 3_000, "c": 2_000},
            (),
            {},
            ("b", "c"),
            (),
            {"a": NOW},
            id="so many own runs at once: the busiest first",
        ),
        pytest.param(
            {"q": 100, "b": 1_000, "w": 2, "f": 100},
            ("f",),
            {},
            ("b",),
            ("q", "w"),
            {},
            id="one is due: those that wait come along",
        ),
        pytest.param(
            {"b": 1_000, "w": 2}, (), {}, ("b",), (), {"w": NOW}, id="a busy one takes nobody along"
        ),
    ],
)
def test_a_topic_gets_a_run_when_enough_waits_or_has_waited_enough(
    pending: dict[str, int],
    in_flight: tuple[str, ...],
    since: dict[str, float],
    own: tuple[str, ...],
    shared: tuple[str, ...],
    waiting: dict[str, float],
) -> None:
    assert decide(pending, in_flight, since) == Dispatch(own, shared, left(shared, waiting))


def left(shared: tuple[str, ...], since: dict[str, float]) -> Waiting:
    return Waiting(since, NOW if shared else LATELY)


@pytest.mark.parametrize(
    ("shared_at", "shared"),
    [
        pytest.param(0.0, ("a",), id="there was none yet"),
        pytest.param(NOW - 20.0, ("a",), id="the last one was a while ago"),
        pytest.param(NOW - 19.9, (), id="or not"),
        pytest.param(NOW + 3_600.0, (), id="the clock was set back an hour: from now on"),
    ],
)
def test_where_no_shared_run_was_asked_for_lately_nothing_waits(
    shared_at: float, shared: tuple[str, ...]
) -> None:
    decided = dispatch({"a": 1}, (), Waiting({}, shared_at), NOW, PACING)
    assert decided.shared == shared
    assert decided.waiting == Waiting({} if shared else {"a": NOW}, NOW if shared else min(shared_at, NOW))


def test_a_lull_is_no_reason_to_try_again_what_could_not_be_archived() -> None:
    decided = dispatch({"a": 1, "b": 1}, (), Waiting({"a": 500.0}), NOW, PACING, obstructed={"a": 0})
    assert decided.shared == ("b",)


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, NOW)), st.floats(0, NOW))
def test_what_waits_is_read_again_as_it_was_written(since: dict[str, float], shared_at: float) -> None:
    waiting = Waiting(since, shared_at)
    assert Waiting.from_json(waiting.to_json()) == waiting


@pytest.mark.parametrize("text", ["", "{}"])
def test_the_first_tick_of_all_remembers_nothing(text: str) -> None:
    assert Waiting.from_json(text) == Waiting()


def test_the_cursor_of_an_earlier_version_is_times_alone() -> None:
    assert Waiting.from_json('{"a": 5.0, "since": 7.0}') == Waiting({"a": 5.0, "since": 7.0})


def test_while_a_shared_run_is_starting_what_becomes_due_waits_for_the_next() -> None:
    decided = decide({"a": 500, "b": 2_000}, (), {"a": 900.0}, shared_is_starting=True)
    assert decided == Dispatch(("b",), (), left((), {"a": 900.0}))


@pytest.mark.parametrize(
    ("pending", "obstructed", "since", "own", "shared", "waiting"),
    [
        pytest.param({"a": 5_000}, {"a": 0}, {}, (), (), {"a": NOW}, id="waits, however much there is"),
        pytest.param({"a": 1}, {"a": 0}, {"a": 401.0}, (), (), {"a": 401.0}, id="for ten minutes"),
        pytest.param({"a": 1}, {"a": 0}, {"a": 400.0}, (), ("a",), {}, id="and no longer"),
        pytest.param(
            {"a": 5_000}, {"a": 0}, {"a": 400.0}, ("a",), (), {}, id="much: then in a run of its own"
        ),
        pytest.param(
            {"a": 1, "b": 1},
            {"a": 0},
            {"a": 500.0, "b": 990.0},
            (),
            ("b",),
            {"a": 500.0},
            id="it does not come along",
        ),
        pytest.param(
            {"a": 1, "b": 1}, {"a": 0}, {"a": 400.0}, (), ("a", "b"), {}, id="others come along with it"
        ),
        pytest.param(
            {"a": 5_000, "b": 2_000, "c": 1_500},
            {"a": 0},
            {"a": 400.0},
            ("b", "c"),
            (),
            {"a": 400.0},
            id="it takes no place from others",
        ),
        pytest.param(
            {"a": 5_000}, {"a": 1_000}, {}, ("a",), (), {}, id="much in partitions that nothing is wrong with"
        ),
        pytest.param({"a": 5_000}, {"a": 999}, {}, (), (), {"a": NOW}, id="not quite much"),
        pytest.param({"a": 1}, {}, {"a": 500.0}, (), ("a",), {}, id="settled: at once"),
    ],
)
def test_what_could_not_be_archived_is_tried_again_every_ten_minutes_and_delays_nothing_else(
    pending: dict[str, int],
    obstructed: dict[str, int],
    since: dict[str, float],
    own: tuple[str, ...],
    shared: tuple[str, ...],
    waiting: dict[str, float],
) -> None:
    assert decide(pending, (), since, obstructed=obstructed) == Dispatch(own, shared, left(shared, waiting))


def test_with_a_longer_wait_for_all_what_could_not_be_archived_waits_no_less() -> None:
    slow = Pacing(longest_wait_s=3_600.0)
    assert not dispatch({"a": 1}, (), Waiting({"a": 0.0}), 3_599.0, slow, obstructed={"a": 0}).shared
    assert dispatch({"a": 1}, (), Waiting({"a": 0.0}), 3_600.0, slow, obstructed={"a": 0}).shared == ("a",)


COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 3_000))
OBSTRUCTED = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3_000))


@given(
    COUNTS,
    st.sets(st.sampled_from("abcdef")),
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0, NOW)),
    OBSTRUCTED,
)
def test_every_waiting_topic_is_asked_for_once_or_goes_on_waiting_or_is_in_a_run(
    pending: dict[str, int], in_flight: set[str], since: dict[str, float], obstructed: dict[str, int]
) -> None:
    decided = dispatch(pending, in_flight, Waiting(since, LATELY), NOW, PACING, obstructed=obstructed)
    named = [*decided.own, *decided.shared, *decided.waiting.since]
    assert sorted(named) == sorted(pending.keys() - in_flight)


@given(COUNTS, OBSTRUCTED)
def test_nothing_waits_for_ever_and_what_is_well_waits_for_nothing_that_is_not(
    pending: dict[str, int], obstructed: dict[str, int]
) -> None:
    todo, ticks = dict(pending), 0
    waiting = Waiting()
    while todo:
        decided = dispatch(todo, (), waiting, NOW + ticks * 5, PACING, obstructed=obstructed)
        todo = {t: n for t, n in todo.items() if t not in {*decided.own, *decided.shared}}
        waiting, ticks = decided.waiting, ticks + 1
        assert ticks <= 6 or todo.keys() <= obstructed.keys()
        assert ticks <= 124


def test_a_follower_takes_all_topics_but_those_that_have_or_get_a_run_of_their_own() -> None:
    decided = Dispatch(own=("b",), shared=("q",), waiting=Waiting({"w": NOW}))
    assert followed(decided, {"b", "f", "idle", "q", "w"}, {"f"}) == ("idle", "q", "w")


def test_a_follower_takes_on_nothing_of_which_it_would_fail() -> None:
    decided = Dispatch(own=(), shared=("q",), waiting=Waiting({"w": NOW}))
    assert followed(decided, {"idle", "q", "w"}, (), {"q", "w"}) == ("idle",)


def test_with_no_environment_the_defaults_hold() -> None:
    assert Pacing.from_environment({}) == Pacing()


def test_the_environment_sets_each_value() -> None:
    environ = {
        "HOP_ARCHIVE_ENOUGH_MESSAGES": "5",
        "HOP_ARCHIVE_LONGEST_WAIT_S": "2.5",
        "HOP_ARCHIVE_BUSY_MESSAGES": "50",
        "HOP_ARCHIVE_MOST_OWN_RUNS": "3",
        "HOP_ARCHIVE_FOLLOW_S": "600",
    }
    assert Pacing.from_environment(environ) == Pacing(5, 2.5, 50, 3, 600.0)
    assert isinstance(Pacing.from_environment(environ).most_own_runs, int)


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert Pacing.from_environment({"HOP_ARCHIVE_FOLLOW_S": ""}) == Pacing()


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "1e999"])
def test_a_value_that_is_no_number_is_named_with_its_variable(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"HOP_ARCHIVE_FOLLOW_S has to be a number, 0 or greater"
    ) as e:
        Pacing.from_environment({"HOP_ARCHIVE_FOLLOW_S": text})
    assert repr(text) in str(e.value)
