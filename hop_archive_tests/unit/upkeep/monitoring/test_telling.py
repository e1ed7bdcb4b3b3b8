"""What is told, once, and what waits until a service takes it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest

from hop_archive.devkit.faults import Fault, Faults, When, fail
from hop_archive.model.notification import Notification
from hop_archive.upkeep.monitoring.alarm import Alarm, State, look_and_tell, tell
from hop_archive.upkeep.monitoring.telling import Problem, Rules, Seen, Told, Tone, message
from hop_archive_tests.worlds import awkward_world

RULES = Rules(settle_s=900)
LOSS = Problem("lost messages", "gcn", "5 offsets are lost.", "Look.", "/assets/x", amount=5)
DOWN = Problem("database", "db", "it cannot be asked.", "See doctor.", patience_s=300)


class Mailbox:
    """A service that takes messages, or does not."""

    def __init__(self, name: str = "box") -> None:
        self.name = name
        self.taken: list[Notification] = []
        self.why = ""

    def send(self, message: Notification) -> str:
        if not self.why:
            self.taken.append(message)
        return self.why


def seen(*problems: Problem, sorts: Sequence[str] = ("lost messages", "database")) -> Seen:
    return Seen(problems, frozenset(sorts))


def round_of(told: Told, at_s: float, *problems: Problem, box: Mailbox, rules: Rules = RULES) -> Told:
    told = told.after(seen(*problems), [box.name], at_s, rules)
    kept = Told.from_json(json.loads(json.dumps(told.to_json())))  # as a restart between would leave it
    return tell(Alarm("ops", (box,)), kept, "an archive")


def test_a_problem_is_told_once_and_that_it_is_over_once_it_has_settled() -> None:
    box, told = Mailbox(), Told()
    for at_s in (0, 60, 120):
        told = round_of(told, at_s, LOSS, box=box)
    assert [m.title for m in box.taken] == ["an archive: 1 problem"]
    assert box.taken[0].is_red
    assert "gcn: 5 offsets are lost." in box.taken[0].body
    assert "What to do: Look." in box.taken[0].body
    for at_s in (180, 600, 1079):
        told = round_of(told, at_s, box=box)
    assert len(box.taken) == 1
    told = round_of(told, 1081, box=box)
    assert box.taken[1].title == "an archive: 1 over"
    assert not box.taken[1].is_red
    assert told == Told()


def test_a_problem_that_comes_and_goes_is_one() -> None:
    box, told = Mailbox(), Told()
    for at_s in range(0, 6_000, 300):
        told = round_of(told, at_s, *([LOSS] if at_s % 600 == 0 else []), box=box)
    assert len(box.taken) == 1


def test_a_loss_that_grows_is_told_again_at_once() -> None:
    box, told = Mailbox(), Told()
    told = round_of(told, 0, LOSS, box=box)
    told = round_of(told, 60, LOSS._replace(amount=6, what="6 offsets are lost."), box=box)
    told = round_of(told, 120, LOSS._replace(amount=6, what="6 offsets are lost."), box=box)
    assert [m.body.count("6 offsets") for m in box.taken] == [0, 1]


def test_what_may_pass_is_told_after_its_time_of_patience() -> None:
    box, told = Mailbox(), Told()
    told = round_of(told, 0, DOWN, box=box)
    told = round_of(told, 299, DOWN, box=box)
    assert box.taken == []
    round_of(told, 300, DOWN, box=box)
    assert len(box.taken) == 1


def test_what_could_not_be_looked_at_is_not_over() -> None:
    box, told = Mailbox(), Told()
    told = round_of(told, 0, LOSS, box=box)
    for at_s in (5_000, 10_000, 15_000):
        told = told.after(Seen((DOWN,), frozenset({"database"})), [box.name], at_s, RULES)
        told = told.after(
            Seen((), frozenset({"lost messages"}), frozenset({LOSS.key})), [box.name], at_s, RULES
        )
    assert LOSS.key in told.known
    assert all(news.tone is not Tone.GREEN or news.problem.sort == "database" for news in told.news)


def test_a_service_that_is_down_hears_of_all_at_once_when_it_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, bad = Mailbox("good"), Mailbox("bad")
    bad.why = "no answer within 10 s"
    alarm, told = Alarm("ops", (good, bad)), Told()
    problems: list[Problem] = []
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            problems.append(LOSS._replace(place=f"t{number}"))
            told = told.after(seen(*problems), ["good", "bad"], number * 60.0, RULES)
            told = tell(alarm, told, "an archive")
    assert len(good.taken) == 3
    assert (
        caplog.messages[-1]
        == "Not told to bad, and tried again next time: no answer within 10 s. That is: 3 messages."
    )
    bad.why = ""
    told = tell(alarm, told, "an archive")
    assert [m.title for m in bad.taken] == ["an archive: 3 problems"]
    assert len(good.taken) == 3
    assert told.news == ()


def test_what_came_and_went_while_a_service_was_down_is_told_still() -> None:
    box, told = Mailbox(), Told()
    box.why = "down"
    told = round_of(told, 0, LOSS, box=box)
    told = round_of(told, 60, box=box)
    told = round_of(told, 2_000, box=box)
    box.why = ""
    round_of(told, 2_060, box=box)
    assert box.taken[0].body == "GREEN again:\n- lost messages gcn"


def test_what_is_still_wrong_is_told_again_only_where_that_is_wanted() -> None:
    box, told = Mailbox(), Told()
    for hour in range(49):
        told = round_of(told, hour * 3_600.0, LOSS, box=box, rules=Rules(remind_s=86_400))
    assert [m.body.count("still: ") for m in box.taken] == [0, 1, 1]


def test_a_thousand_topics_are_one_message_that_can_be_read() -> None:
    box = Mailbox()
    round_of(Told(), 0, *(LOSS._replace(place=f"topic-{n}") for n in range(1_000)), box=box)
    (only,) = box.taken
    assert only.title == "an archive: 1,000 problems"
    assert "- and 988 more" in only.body
    assert len(only.body) < 2_000


def test_news_for_a_service_that_stays_away_are_bounded_and_what_went_is_said() -> None:
    box, told = Mailbox(), Told()
    box.why = "down"
    for number in range(30):
        problems = (LOSS._replace(place=f"{number}-{n}") for n in range(100))
        told = round_of(told, number * 2_000.0, *problems, box=box)
    assert len(told.news) == 1_000
    box.why = ""
    told = tell(Alarm("ops", (box,)), told, "an archive")
    assert "older messages could not be kept" in box.taken[0].body
    assert told.dropped == 0


def test_a_message_links_to_where_to_look() -> None:
    told = Told().after(seen(LOSS), ["box"], 0, RULES)
    body = message(told.for_service("box"), "an archive", "https://dagster.example.org/").body
    assert "https://dagster.example.org/assets/x" in body


def test_a_state_that_cannot_be_read_is_none_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert State.from_json('{"told": [], "marks": 3}') == State()
    assert "told anew" in caplog.text
    state = State(Told().after(seen(LOSS), ["box"], 0, RULES))
    assert State.from_json(state.to_json()) == state


@pytest.mark.parametrize("wrapped", ["catalog", "source"])
def test_nobody_is_told_that_all_is_well_where_something_does_not_answer(wrapped: str) -> None:
    pinged: list[str] = []

    def ping() -> str:
        pinged.append("well")
        return ""

    archive = awkward_world().archive()
    alarm = Alarm("ops", (), ping=ping)
    look_and_tell(archive, alarm, State())
    assert pinged == ["well"]
    broken = Faults((Fault(1, When.BEFORE, fail),)).wrap(getattr(archive, wrapped), wrapped)
    look_and_tell(replace(archive, **{wrapped: broken}), alarm, State())
    assert pinged == ["well"]


def test_who_cannot_remember_waits_for_nothing_to_last() -> None:
    box = Mailbox()
    round_of(Told(), 0, DOWN, box=box, rules=Rules(is_patient=False))
    assert len(box.taken) == 1


def test_more_problems_at_once_than_are_kept_are_all_told_to_a_service_that_answers() -> None:
    box = Mailbox()
    lags = [Problem("lag", f"topic-{n}", "7 messages wait.", "") for n in range(1_200)]
    told = Told().after(seen(LOSS, *lags), [box.name], 0.0, RULES)
    told = tell(Alarm("ops", (box,)), told, "an archive")
    assert box.taken[0].title == "an archive: 1,201 problems"
    assert "gcn: 5 offsets are lost." in box.taken[0].body
    assert "could not be kept" not in box.taken[0].body
    assert told.news == ()
