"""An admin client that is closed, or has a login that is refused now, holds nobody up, however long librdkafka waits for it."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import ClassVar

import pytest

from hop_archive.errors import UnavailableError
from hop_archive.model.credentials import KafkaAccess
from hop_archive.source.kafka import admin, client
from hop_archive.source.kafka.admin import Admin
from hop_archive.source.kafka.client import Connection, Deadline
from hop_archive_tests.cli_helpers import DEADLINE_S, wait_for


class Waiting:
    """A client that is destroyed when the clock shows again what it had shown."""

    clock_is_right_again = threading.Event()
    destroyed: ClassVar[list[Waiting]] = []

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def poll(self, _: float) -> None: ...

    def list_topics(self, **_: object) -> SimpleNamespace:
        return SimpleNamespace(brokers={1: None})

    def __exit__(self, *_: object) -> None:
        self.destroyed.append(self)
        assert threading.current_thread().name == "kafka-closing", "whoever closes it waits himself"
        self.clock_is_right_again.wait(DEADLINE_S)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Admin:
    monkeypatch.setattr(client, "CLOSES_S", 0.01)
    monkeypatch.setattr(admin, "AdminClient", Waiting)
    monkeypatch.setattr(Waiting, "clock_is_right_again", threading.Event())
    monkeypatch.setattr(Waiting, "destroyed", [])
    made = Admin(Connection("s", "h:9092", KafkaAccess(), 1.0))
    made.metadata(made.deadline())
    return made


def test_one_that_is_closed(asked: Admin, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        asked.close()
    assert len(Waiting.destroyed) == 1
    assert "is not closed after 0.01 s" in caplog.text
    Waiting.clock_is_right_again.set()


def test_one_whose_login_is_refused_now(asked: Admin) -> None:
    asked.connection.renewals += 1
    asked.metadata(asked.deadline())
    wait_for(lambda: Waiting.destroyed, "it is let go")
    asked.metadata(asked.deadline())
    assert len(Waiting.destroyed) == 1, "the new one is kept"
    Waiting.clock_is_right_again.set()


def test_one_whose_login_is_refused_now_is_let_go_once_its_calls_are_over(asked: Admin) -> None:
    answer: Future[str] = Future()
    with pytest.raises(UnavailableError):
        asked.ask(lambda *_: {"": answer}, "asking", Deadline.after(-1.0))
    asked.connection.renewals += 1
    asked.metadata(asked.deadline())
    assert not Waiting.destroyed, "librdkafka would die"
    answer.set_result("late")
    wait_for(lambda: Waiting.destroyed, "it is let go")
    Waiting.clock_is_right_again.set()
