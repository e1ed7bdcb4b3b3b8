"""Watermarks that a broker did not tell are untold of their partition: what depends on one partition goes by that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from hop_archive.errors import UnavailableError
from hop_archive.message import TopicPartition
from hop_archive.source.kafka_admin import Admin
from hop_archive.source.kafka_client import Connection, Deadline, Troubles
from hop_archive.source.kafka_watermarks import _ask_brokers

SILENT, TOLD = TopicPartition("alerts", 0), TopicPartition("alerts", 1)


class Answering:
    """An admin client of two brokers, one of which pauses: librdkafka 2.16 then says -1001 in its place."""

    connection = Connection("s", "h:9092", {}, {}, 1.0)
    troubles = Troubles()

    def ask_each(self, *_: object, **__: object) -> tuple[dict[TopicPartition, Any], dict[Any, Any]]:
        offsets = {SILENT: -1001, TOLD: 7}
        return {at: SimpleNamespace(offset=offset, leader_epoch=3) for at, offset in offsets.items()}, {}


def test_what_a_broker_that_pauses_does_not_tell_names_its_partition() -> None:
    found = _ask_brokers(cast(Admin, Answering()), {SILENT: 1, TOLD: 2}, Deadline.after(1.0))
    assert found[TOLD].high == 7
    error = found.untold[SILENT]
    assert isinstance(error, UnavailableError)
    assert (error.facts["topic"], error.facts["partition"]) == ("alerts", 0)
