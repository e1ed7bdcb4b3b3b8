"""How a run that goes on and on tells of servers that do not answer: once when it begins, once when it ends."""

from __future__ import annotations

import logging

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.cli.progress import Activity
from hop_archive.cli.run import Outage
from hop_archive.errors import ForbiddenError, UnavailableError
from hop_archive.ingest.write import Done
from hop_archive.model.slices import Slice
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """An archive of mocks, a clock to turn, and what was logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self.clock = Clock()
        self.source = MockSource()
        self.activity = Activity(self.clock)
        self.outage = Outage(Archive(self.source, MockCatalog(), MockStore()), self.activity)

    def said(self) -> list[str]:
        return [message.partition(":")[0] for message in self._caplog.messages]

    def fail(self, text: str = "Kafka does not answer.") -> None:
        self.outage.report(UnavailableError(text))

    def look(self, *dones: Done, after_s: float = 0.0) -> None:
        self.clock.now += after_s
        self.outage.look(dones)


@pytest.fixture
def scene(caplog: pytest.LogCaptureFixture) -> Scene:
    return Scene(caplog)


DONE = Done(Slice("t", 1, 0, 0, 1))
WAITING = "Waiting, and trying again"


def test_while_all_is_well_nothing_is_said(scene: Scene) -> None:
    scene.look()
    scene.look(DONE, after_s=100)
    assert scene.said() == []


def test_the_same_failure_again_is_not_told_again(scene: Scene) -> None:
    for _ in range(5):
        scene.fail()
        scene.look()
    assert scene.said() == [WAITING]


def test_another_server_that_fails_meanwhile_is_told(scene: Scene) -> None:
    scene.fail()
    scene.fail("Postgres does not answer.")
    assert scene.said() == [WAITING, WAITING]


def test_the_end_is_told_once_something_was_committed(scene: Scene) -> None:
    scene.fail()
    scene.look(DONE, after_s=7)
    scene.look(DONE)
    assert scene.said() == [WAITING, "All servers answer again, after 7.0 s."]


def test_the_end_is_told_where_nothing_arrives_once_all_servers_answer(scene: Scene) -> None:
    scene.source.cluster.stop()
    scene.fail()
    scene.look(after_s=60)
    assert scene.said() == [WAITING]
    scene.source.cluster.start()
    scene.look(after_s=60)
    assert scene.said() == [WAITING, "All servers answer again, after 2 min 0 s."]


def test_servers_are_not_asked_all_the_time(scene: Scene) -> None:
    scene.fail()
    scene.look(after_s=1)
    assert scene.said() == [WAITING]


def test_the_next_outage_is_told_like_the_first(scene: Scene) -> None:
    scene.fail()
    scene.look(DONE)
    scene.fail()
    assert scene.said().count(WAITING) == 2


def test_people_see_that_a_run_waits(scene: Scene) -> None:
    scene.fail()
    assert scene.activity.note
    scene.look(DONE)
    assert not scene.activity.note


def refuse(scene: Scene, text: str = "The store refused: AccessDenied.") -> None:
    scene.outage.report(ForbiddenError(text))


def test_a_refusal_is_shown_with_its_reason_and_in_red(scene: Scene) -> None:
    refuse(scene)
    assert "AccessDenied" in scene.activity.note
    assert scene.activity.alarming
    scene.look(DONE)
    assert (scene.activity.note, scene.activity.alarming, scene.outage.refusal) == ("", False, None)


def test_what_is_refused_goes_on_being_refused_until_something_was_stored_or_a_minute_passed(
    scene: Scene,
) -> None:
    # A put may be refused where every server answers when asked.
    refuse(scene)
    scene.look(after_s=30)
    assert scene.outage.refusal
    scene.look(after_s=31)
    assert not scene.outage.refusal


def test_what_lasts_is_told_again_every_ten_minutes(scene: Scene) -> None:
    for _ in range(30):
        refuse(scene)
        scene.look(after_s=30)
    assert scene.said() == [WAITING, WAITING]
