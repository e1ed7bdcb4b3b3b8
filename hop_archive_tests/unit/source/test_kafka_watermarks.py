"""Watermarks that a broker did not tell are untold of their partition: what depends on one partition goes by that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

from hop_archive.errors import UnavailableError
from hop_archive.model.credentials import KafkaAccess
from hop_archive.model.message import TopicPartition
from hop_archive.source.kafka.admin import Admin
from hop_archive.source.kafka.client import ClientErrors, Connection, Deadline
from hop_archive.source.kafka.watermarks import watermarks

SILENT, TOLD = TopicPartition("alerts", 0), TopicPartition("alerts", 1)


class Cluster:
    """An admin client of two brokers that lead a partition each; it counts requests for metadata.

    Attributes:
        leaders: The broker that leads each partition.
        offset: What is answered for a partition.
        asked: How often metadata were asked for.
    """

    connection = Connection("s", "h:9092", KafkaAccess(), 1.0)
    client_errors = ClientErrors()

    def __init__(
        self, leaders: Mapping[TopicPartition, int], offset: Callable[[TopicPartition], int]
    ) -> None:
        self.leaders = leaders
        self.offset = offset
        self.asked = 0

    def metadata(self, *_: object) -> SimpleNamespace:
        self.asked += 1
        partitions = {at.partition: SimpleNamespace(leader=leader) for at, leader in self.leaders.items()}
        topic = SimpleNamespace(error=None, partitions=partitions)
        return SimpleNamespace(cluster_id="c", brokers={1: None, 2: None}, topics={"alerts": topic})

    def ask_each(self, call: Any, _: str, deadline: Deadline, **__: object) -> tuple[Any, dict[Any, Any]]:
        return {at: future.result() for at, future in call(self, deadline.left_s).items()}, {}

    def list_offsets(self, places: Mapping[Any, Any], **_: object) -> dict[Any, Future[Any]]:
        answers = {place: Future[Any]() for place in places}
        for place, answer in answers.items():
            offset = self.offset(TopicPartition(place.topic, place.partition))
            answer.set_result(SimpleNamespace(offset=offset, leader_epoch=3))
        return answers


def test_what_a_broker_that_pauses_does_not_tell_names_its_partition() -> None:
    # librdkafka 2.16 says -1001 in its place.
    cluster = Cluster({SILENT: 1, TOLD: 2}, {SILENT: -1001, TOLD: 7}.__getitem__)
    found = watermarks(cast("Admin", cluster), [SILENT, TOLD], Deadline.after(0.4))
    assert found[TOLD].high == 7
    error = found.untold[SILENT]
    assert isinstance(error, UnavailableError)
    assert (error.facts["topic"], error.facts["partition"]) == ("alerts", 0)


def test_all_that_one_broker_tells_is_told_while_another_one_is_silent() -> None:
    told: list[TopicPartition] = []
    all_told = threading.Event()

    def offset(at: TopicPartition) -> int:
        if at == SILENT:
            assert all_told.wait(30), "the other broker was not asked for low, stable and high meanwhile"
            return -1001
        told.append(at)
        if len(told) == 3:
            all_told.set()
        return 7

    cluster = Cluster({SILENT: 1, TOLD: 2}, offset)
    found = watermarks(cast("Admin", cluster), [SILENT, TOLD], Deadline.after(0.2))
    assert (list(found), list(found.untold)) == ([TOLD], [SILENT])


def test_that_a_partition_has_no_leader_is_told_by_one_request() -> None:
    for leader in (-1, 3):  # the last is a broker that is there no more
        cluster = Cluster({SILENT: leader, TOLD: 2}, lambda _: 7)
        found = watermarks(cast("Admin", cluster), [SILENT, TOLD], Deadline.after(30))
        assert "no leader" in str(found.untold[SILENT])
        assert list(found) == [TOLD]
        assert cluster.asked == 1
