"""What every client of Kafka shares, without one."""

from __future__ import annotations

import logging
import threading

import pytest
from confluent_kafka import KafkaException

from hop_archive.source.kafka import client
from hop_archive.source.kafka.client import let_go


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


def test_what_closing_raises_is_raised() -> None:
    def close() -> None:
        raise KafkaException("fatal")

    with pytest.raises(KafkaException, match="fatal"):
        let_go(close)
