"""Since when the oldest message waits, as looks tell it."""

from __future__ import annotations

from hop_archive.upkeep.monitoring.lags import Mark, Marks, Position, Positions, lag_s, marked

T = "topic"
PLACE = "1/0"


def at(end: int, waiting: int, place: str = PLACE) -> Positions:
    """All that waits stands at the end."""
    return {T: {place: Position(end, waiting, end - waiting)}}


def test_a_message_waits_since_the_look_that_saw_it_first() -> None:
    marks: Marks = {}
    for now_s in (0.0, 60.0, 120.0):
        marks = marked(marks, at(10, 10), now_s)
    assert lag_s(marks, T, 120.0) == 120.0
    marks = marked(marks, at(10, 0), 180.0)
    assert marks == {}
    assert lag_s(marks, T, 180.0) == 0.0


def test_a_busy_topic_that_is_archived_all_the_time_lags_by_what_it_lags_and_no_more() -> None:
    marks: Marks = {}
    for minute in range(120):  # a hundred messages a minute, archived ten minutes after they came
        end = 100 * minute
        marks = marked(marks, at(end, min(end, 1_000)), 60.0 * minute)
    assert 540.0 <= lag_s(marks, T, 60.0 * 119) <= 600.0


def test_marks_are_bounded_and_the_oldest_stays() -> None:
    marks: Marks = {}
    for minute in range(1_000):
        marks = marked(marks, at(minute + 1, minute + 1), 60.0 * minute)
    assert len(marks[T][PLACE]) <= 24
    assert lag_s(marks, T, 60.0 * 1_000) == 60_000.0


def test_a_log_that_begins_anew_forgets_its_marks_and_an_unseen_topic_keeps_them() -> None:
    before = {T: {PLACE: (Mark(0.0, 1_000),)}, "other": {PLACE: (Mark(0.0, 5),)}}
    after = marked(before, at(3, 3), 60.0)
    assert after == {T: {PLACE: (Mark(60.0, 3),)}, "other": {PLACE: (Mark(0.0, 5),)}}


def test_what_is_stuck_is_not_hidden_by_what_goes_on_beside_it_or_behind_it() -> None:
    stuck: Marks = {}
    hole: Marks = {}
    for minute in range(60):
        end = 1_000 * (minute + 1)
        beside = {**at(10, 10)[T], **at(end, 0, "1/1")[T]}
        stuck = marked(stuck, {T: beside}, 60.0 * minute)
        hole = marked(hole, {T: {PLACE: Position(end, 7, 3)}}, 60.0 * minute)
    assert lag_s(stuck, T, 60.0 * 60) == 3_600.0
    assert lag_s(hole, T, 60.0 * 60) == 3_600.0


def test_a_new_generation_begins_anew() -> None:
    before = marked({}, at(10, 10), 0.0)
    assert lag_s(marked(before, at(500, 500, "2/0"), 600.0), T, 660.0) == 60.0
