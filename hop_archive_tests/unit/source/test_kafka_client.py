"""What every client of Kafka shares, without one."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError, KafkaException

from hop_archive.model.credentials import KafkaAccess
from hop_archive.source.kafka import client
from hop_archive.source.kafka.admin import Admin
from hop_archive.source.kafka.client import Connection, let_go


def test_a_client_that_is_never_closed_is_left_and_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "CLOSES_S", 0.01)
    clock_is_right_again = threading.Event()
    try:
        with caplog.at_level(logging.WARNING):
            let_go(clock_is_right_again.wait)
        assert "is not closed after 0.01 s, as where the clock was set back" in caplog.text
    finally:
        clock_is_right_again.set()


def test_a_client_is_closed_by_the_time_that_it_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    closed = threading.Event()
    let_go(closed.set)
    assert closed.is_set()
    assert not caplog.text


class Destroyed:
    """An admin client that says when it is destroyed."""

    def __init__(self) -> None:
        self.at = threading.Event()

    def __exit__(self, *_: object) -> None:
        self.at.set()


def test_a_client_whose_login_is_refused_is_destroyed_once_its_calls_are_over() -> None:
    admin, made, answer = Admin(Connection("a", "b:1", KafkaAccess(), 5.0)), Destroyed(), Future[None]()
    admin._client, admin._calls = made, {answer: made}  # type: ignore[assignment, dict-item]  # stands for one
    for _ in range(10):
        admin.client_errors.note(KafkaError(KafkaError._AUTHENTICATION))
    admin.close()
    assert not made.at.wait(0.2)
    answer.set_result(None)
    assert made.at.wait(10)


def test_what_closing_raises_is_raised() -> None:
    def close() -> None:
        raise KafkaException("fatal")

    with pytest.raises(KafkaException, match="fatal"):
        let_go(close)
