"""Kafka's password, the database's and the keys of S3 are all changed under Dagster's code server and daemon: nobody starts them again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus

from hop_archive.archive import Archive
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.orchestration.runs import FOLLOWING
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.dagster_services import CODE, DAEMON, Deployment, deployment
from hop_archive_tests.faults.real import assert_all_archived, plain, publish
from hop_archive_tests.faults.test_real_dagster_pairs import HASTE, end_workers, followers, status_of
from hop_archive_tests.kafka.changing_secrets import (
    REFUSALS,
    Secrets,
    buckets,
    catalog,
    environ,
    secrets,
    server,
    source,
    topic,
)

__all__ = ["buckets", "catalog", "environ", "secrets", "server", "source", "topic"]

pytestmark = [pytest.mark.kafka, pytest.mark.slow_kafka, pytest.mark.local, pytest.mark.timeout(2400)]

NAMED = "Source here,|database 'here'|Store here"
"""What each message begins with or has in it, where one of the three is in the way."""
LOOKING = ("kafka_offsets", "topic_partitions", "topic_pages", "dead_runs")
"""Sensors; the last one asks neither source nor catalog, and goes on whatever those refuse."""


@pytest.fixture
def services(environ: Mapping[str, str], tmp_path: Path) -> Iterator[Deployment]:
    """Code server and daemon, whose sensor has one run follow for an hour."""
    with deployment(tmp_path / "dagster", {**environ, **HASTE}, services=(CODE, DAEMON)) as made:
        yield made


@pytest.fixture
def instance(services: Deployment) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(services.home)) as made:
        yield made
        end_workers(made)


def ticks(instance: dg.DagsterInstance, sensor: str) -> list[InstigatorTick]:
    """The ticks of a sensor that are over, the newest first."""
    (state,) = [state for state in instance.all_instigator_state() if state.name == sensor]
    found = instance.get_ticks(state.instigator_origin_id, state.selector_id)
    return [tick for tick in found if tick.status is not TickStatus.STARTED]


def told_by_ticks(instance: dg.DagsterInstance, sensor: str) -> list[str]:
    """What the ticks that failed say, each of which is to be one message of ours, with nothing behind it."""
    told = []
    for tick in ticks(instance, sensor):
        if tick.status is TickStatus.FAILURE:
            assert tick.error
            said = tick.error.cause
            assert said, tick.error.to_string()
            assert said.cls_name == "Failure"
            assert (said.cause, said.context) == (None, None), said.to_string()
            told.append(said.message)
    return told


def told_by_runs(instance: dg.DagsterInstance) -> list[str]:
    """What the steps that failed say, likewise."""
    told = []
    for run in instance.get_runs():
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
            assert entry.dagster_event
            failed = entry.dagster_event.step_failure_data
            assert failed.user_failure_data, failed.error_display_string
            assert failed.error
            assert (failed.error.cause, failed.error.context) == (None, None), failed.error_display_string
            told.append(str(failed.user_failure_data.description))
    return told


def kept(instance: dg.DagsterInstance) -> bytes:
    """All that Dagster stored, and what its processes printed; and events and runs as they are shown."""
    files = [path for path in Path(instance.root_directory).rglob("*") if path.is_file()]
    assert {f"{CODE}.log", f"{DAEMON}.log"} <= {path.name for path in files}
    shown = [(run.run_config, run.tags, instance.all_logs(run.run_id)) for run in instance.get_runs()]
    ticked = [ticks(instance, sensor) for sensor in LOOKING]
    return b"".join(path.read_bytes() for path in files) + repr((shown, ticked)).encode()


def test_the_same_services_archive_on_when_all_their_secrets_are_changed(
    secrets: Secrets,
    source: KafkaSource,
    topic: str,
    catalog: PostgresCatalog,
    services: Deployment,
    instance: dg.DagsterInstance,
) -> None:
    def archived() -> int:
        return sum(found.messages for found in catalog.summaries([topic]))

    def refused(what: str) -> bool:
        # Ticks ask nothing of the store.
        told = told_by_runs(instance) if what == "store" else told_by_ticks(instance, "kafka_offsets")
        return any(re.search(REFUSALS[what], text) for text in told)

    sent = publish(source, plain(topic, 30, partitions=2))
    wait_for(lambda: archived() == 30, "a run archives by the old ones", 600)
    wait_for(lambda: followers(instance), "it follows", 600)
    (run,) = followers(instance)
    assert run.tags["dagster/sensor_name"] == "kafka_offsets"
    processes = dict(services.processes)
    secrets.change("new")
    sent |= publish(source, plain(topic, 30, seed=1, partitions=2))
    failed = dg.DagsterRunStatus.FAILURE
    wait_for(lambda: status_of(instance, run) is failed, "the run fails that followed", 600)
    for what in REFUSALS:
        wait_for(lambda what=what: refused(what), f"the old one of {what} is refused", 600)  # type: ignore[misc]
        assert archived() == 30
        secrets.hand_over(what)
    handed_over = time.time()
    wait_for(lambda: archived() == 60, "a run archives by the new ones", 900)
    wait_for(lambda: followers(instance), "it follows", 600)
    assert all(r.run_id != run.run_id and FOLLOWING in r.tags for r in followers(instance))
    for sensor in LOOKING:
        wait_for(lambda sensor=sensor: ticks(instance, sensor)[0].timestamp > handed_over, sensor, 600)  # type: ignore[misc]
        assert ticks(instance, sensor)[0].status is not TickStatus.FAILURE
        assert all(re.search(NAMED, text) for text in told_by_ticks(instance, sensor))
    assert not told_by_ticks(instance, "dead_runs")
    assert all(re.search(NAMED, text) for text in told_by_runs(instance))
    assert services.processes == processes
    assert [process.poll() for process in processes.values()] == [None, None]
    with closing(secrets.store()) as store:
        assert_all_archived(Archive(source, catalog, store), [topic], sent)
    haystack = kept(instance)
    assert topic.encode() in haystack
    assert not [number for number, secret in enumerate(secrets.made) if secret.encode() in haystack]
