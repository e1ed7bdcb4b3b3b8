"""With nothing configured: sample alerts of a mock, archived by ticks and runs that are processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.orchestration import sensors
from hop_archive.orchestration.definitions import defs
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.store.mock import MockStore
from hop_archive_tests.orchestration.conftest import quietly

RunConfig = Mapping[str, Any]


class Dagster:
    """Ticks and runs, each in a process of its own as the daemon's are, with an environment and an instance.

    They are forks of one that has imported everything and opened nothing: six times the imports were 19 s of processor time.
    """

    def __init__(self, instance: dg.DagsterInstance, environ: Mapping[str, str]) -> None:
        self._folder = instance.root_directory
        self._environ = {**environ, "HOP_ARCHIVE_LONGEST_WAIT_S": "0", "HOP_ARCHIVE_FOLLOW_S": "0"}

    def tick(self, *names: str) -> list[RunConfig]:
        """What the last of these sensors asks for."""
        asked: list[RunConfig] = self._alone(tick, names)
        return asked

    def run(self, run_config: RunConfig) -> None:
        self._alone(run, run_config)

    def _alone(self, work: Callable[[dg.DagsterInstance, Any], Any], argument: Any) -> Any:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(with_instance, self._folder, self._environ, work, argument).result(120)


def with_instance(
    folder: str, environ: Mapping[str, str], work: Callable[[dg.DagsterInstance, Any], Any], argument: Any
) -> Any:
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    tempfile.tempdir = None  # what it was in another environment
    with dg.DagsterInstance.local_temp(folder, overrides=quietly(folder)) as instance:
        return work(instance, argument)


def tick(instance: dg.DagsterInstance, names: Sequence[str]) -> list[RunConfig]:
    data = None
    for name in names:
        with dg.build_sensor_context(
            instance=instance,
            instance_ref=instance.get_ref(),
            definitions=defs,
            resources=dict(defs.resources or {}),
        ) as context:
            data = getattr(sensors, name).evaluate_tick(context)
        for request in data.dynamic_partitions_requests or ():
            instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
    assert data
    return [request.run_config for request in data.run_requests or ()]


def run(instance: dg.DagsterInstance, run_config: RunConfig) -> None:
    job = defs.resolve_job_def("archive_quiet_topics")
    job.execute_in_process(run_config=run_config, instance=instance)


def archive_samples(instance: dg.DagsterInstance, environ: Mapping[str, str]) -> None:
    dagster = Dagster(instance, environ)
    for run_config in dagster.tick("topic_partitions", "kafka_offsets"):
        dagster.run(run_config)
    assert dagster.tick("kafka_offsets") == []


def test_with_no_environment_sample_alerts_are_archived(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    archive_samples(instance, {"TMPDIR": str(tmp_path)})
    (mocks,) = tmp_path.glob("hop_archive-mock-*")
    summaries = MockCatalog(directory=mocks).summaries()
    held = sizes(MockCluster(directory=mocks))
    assert sum(held.values()) == 100
    assert {s.topic: s.messages + s.duplicates for s in summaries} == {
        topic: size for topic, size in held.items() if topic != "sys.heartbeat"
    }
    assert {s.topic for s in summaries} == set(instance.get_dynamic_partitions("topics"))


def sizes(cluster: MockCluster) -> dict[str, int]:
    with cluster.read() as state:
        return {name: sum(log.high for log in topic.logs) for name, topic in state.topics.items()}


def test_stanzas_that_are_mocks_share_the_directory_that_is_named(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    mocks = tmp_path / "mocks"
    environ = {
        "TMPDIR": str(tmp_path),
        "HOP_ARCHIVE_SOURCE": "mock-hop",
        "HOP_ARCHIVE_DATABASE": "mock-db",
        "HOP_ARCHIVE_STORE": "mock-segments",
        "HOP_ARCHIVE_MOCK_DIR": str(mocks),
    }
    archive_samples(instance, environ)
    catalog = MockCatalog(directory=mocks)
    rows = [row for one in catalog.summaries() for row in catalog.rows(one.topic)]
    keys = {row.object_key for row in rows}
    assert rows
    assert {key.partition("/")[0] for key in keys} == {"segments"}
    assert {found.key for found in MockStore(directory=mocks).listing("segments/")} == keys
