"""What is published in bulk leaves no gap that could have been noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from hop_archive.errors import UnavailableError
from hop_archive.model.credentials import KafkaAccess
from hop_archive.model.message import ForPartition
from hop_archive.source.kafka import publisher as publishing
from hop_archive.source.kafka.client import Connection
from hop_archive.source.kafka.publisher import Publisher
from hop_archive.source.protocol import TopicInfo


class Deaf:
    """A producer whose first message times out three seconds after it was sent; what is sent after it is not heard of."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._first: Callable[[KafkaError | None, Any], None] | None = None
        self.sent = 0

    def produce(self, *arguments: Any, **named: Any) -> None:
        self._first = self._first or named.get("on_delivery") or arguments[4]
        self.sent += 1

    def poll(self, _: float) -> None:
        if self._first is not None and self._now() > 3:
            self._first(KafkaError(KafkaError._MSG_TIMED_OUT), None)

    def flush(self, timeout_s: float) -> int:
        self.poll(timeout_s)
        return 0

    def __len__(self) -> int:
        return 1

    def purge(self) -> None: ...

    def close(self) -> None: ...


class To(Connection):
    """A connection whose client is given."""

    made: Any = None

    def client(self, *_: object) -> Any:
        return self.made


def test_of_a_message_that_timed_out_who_sends_slowly_hears_before_much_is_sent_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(publishing, "time", SimpleNamespace(monotonic=lambda: clock[0]), raising=False)

    def slowly() -> Iterator[ForPartition]:
        for _ in range(50):
            clock[0] += 1.0
            yield ForPartition(0, None, b"value", [], 1)

    connection = To("s", "127.0.0.1:9", KafkaAccess(), 1.0)
    connection.made = deaf = Deaf(lambda: clock[0])
    publisher = Publisher(connection, lambda _: {"t": TopicInfo("t", None, 1)})
    with pytest.raises(UnavailableError):
        publisher.append("t", slowly(), lambda: None)
    assert deaf.sent == 3
