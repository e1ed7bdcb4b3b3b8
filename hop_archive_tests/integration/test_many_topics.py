"""Hundreds of quiet topics and a busy one, through Dagster's sensor: what they cost is one run each tick."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import dagster as dg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from hop_archive.archive import Archive
from hop_archive.devkit.local.address import StackAddress
from hop_archive.model.message import TopicPartition
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.orchestration.pacing import Pacing, Waiting
from hop_archive.orchestration.reports import ARCHIVED_MESSAGES
from hop_archive.orchestration.sensors import kafka_offsets
from hop_archive_tests.conftest import Measured, OpenArchive
from hop_archive_tests.faults.real import assert_all_archived, plain, publish

pytestmark = [pytest.mark.local, pytest.mark.slow]

QUIET = 500
ASKED = 20
"""Of how many topics the offsets are asked for one by one, to compare with."""
BUSY_MESSAGES = 3_000
PACING = Pacing(busy_messages=2_000, enough_messages=1_000, longest_wait_s=600.0, follow_s=0.0)
LATER = datetime.timedelta(seconds=601)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def create_topics(address: StackAddress, names: Sequence[str]) -> None:
    """All in one request: waiting for each would take most of the test's time."""
    admin = AdminClient({"bootstrap.servers": address.bootstrap_servers})
    for future in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
        future.result(60)


@dataclass(frozen=True, slots=True)
class Ticks:
    """Evaluates the sensor, and says how long it took."""

    instance: dg.DagsterInstance
    measured: Measured
    took_s: dict[str, float] = field(default_factory=dict)

    def __call__(self, archive: Archive, cursor: str | None, what: str) -> dg.SensorResult:
        """One tick."""
        began = time.monotonic()
        result = tick(archive, self.instance, cursor)
        self.took_s[what] = time.monotonic() - began
        self.measured(f"{what}: {self.took_s[what]:.2f} s")
        return result


def tick(archive: Archive, instance: dg.DagsterInstance, cursor: str | None) -> dg.SensorResult:
    result = kafka_offsets(
        dg.build_sensor_context(instance=instance, cursor=cursor), archive=archive, pacing=PACING
    )
    assert isinstance(result, dg.SensorResult)
    for request in result.dynamic_partitions_requests or ():
        assert isinstance(request, dg.AddDynamicPartitionsRequest)
        instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
    return result


def asked_one_by_one_s(archive: Archive, topics: Sequence[str]) -> float:
    """What it takes to ask for the offsets of some topics with a request for each: what a tick must not cost."""
    began = time.monotonic()
    for topic in topics:
        archive.source.watermarks([TopicPartition(topic, 0)])
    return time.monotonic() - began


def execute(archive: Archive, instance: dg.DagsterInstance, request: dg.RunRequest) -> None:
    """Do what a run request asks for, in this process."""
    assert request.job_name
    job = build_definitions(archive=archive).resolve_job_def(request.job_name)
    result = job.execute_in_process(
        run_config=request.run_config,
        instance=instance,
        partition_key=request.partition_key,
        tags=dict(request.tags),
    )
    assert result.success


def materialized(instance: dg.DagsterInstance) -> list[str]:
    """The partitions of all materializations so far, one for each."""
    records = instance.fetch_materializations(ARCHIVED_MESSAGES, limit=10_000).records
    return sorted(str(record.partition_key) for record in records)


def test_five_hundred_quiet_topics_cost_one_run_and_an_idle_tick_asks_for_nothing(
    open_archive: OpenArchive,
    address: StackAddress,
    namespace: str,
    instance: dg.DagsterInstance,
    measured: Measured,
) -> None:
    archive = open_archive("segment")
    ticks = Ticks(instance, measured)
    quiet, busy = [f"{namespace}.{number:03}" for number in range(QUIET)], f"{namespace}.busy"
    create_topics(address, [*quiet, busy])
    sent = publish(archive.source, [a for topic in quiet for a in plain(topic, 2)])
    sent |= publish(archive.source, plain(busy, BUSY_MESSAGES))

    lately = Waiting(shared_at=time.time()).to_json()  # no lull, in which nothing waits
    first = ticks(archive, lately, f"tick over {QUIET + 1} topics")
    assert [(r.job_name, r.partition_key) for r in first.run_requests or ()] == [("archive_topic", busy)]

    later = replace(archive, now=lambda: datetime.datetime.now(datetime.UTC) + LATER)
    own, shared = ticks(later, first.cursor, "tick that asks for the quiet ones").run_requests or ()
    assert (own.job_name, own.partition_key) == ("archive_topic", busy)
    assert shared.job_name == "archive_quiet_topics"
    assert shared.run_config["ops"]["archive_topics"]["config"]["topics"] == quiet

    execute(archive, instance, shared)
    assert materialized(instance) == quiet
    execute(archive, instance, own)
    assert materialized(instance) == [*quiet, busy]
    assert_all_archived(archive, [*quiet, busy], sent)
    assert instance.get_runs_count() == 2

    idle = ticks(later, lately, "idle tick")
    assert not idle.run_requests
    assert idle.skip_reason
    assert "Everything" in str(idle.skip_reason.skip_message)
    one_by_one_s = asked_one_by_one_s(archive, quiet[:ASKED]) * QUIET / ASKED
    measured(f"asking for each of {QUIET} topics' offsets by itself: {one_by_one_s:.2f} s")
    assert ticks.took_s["idle tick"] < one_by_one_s, "a tick costs more than a request for each topic"

    sent |= publish(archive.source, [a for topic in quiet[:3] for a in plain(topic, 1, seed=1)])
    waiting = ticks(archive, idle.cursor, "tick that sees three waiting")
    assert not waiting.run_requests
    (again,) = ticks(later, waiting.cursor, "tick that asks for three").run_requests or ()
    execute(archive, instance, again)
    assert materialized(instance) == [*quiet, busy], "these were reported a moment ago"
    assert_all_archived(archive, quiet[:3], sent)
