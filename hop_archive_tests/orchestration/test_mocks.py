"""With nothing configured: sample alerts of a mock, archived by ticks and runs that are processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.store.mock import MockStore

# Each is a process of its own, as the daemon's ticks and runs are.
TICK = """
from hop_archive.orchestration import sensors
with dg.build_sensor_context(
    instance=instance, instance_ref=instance.get_ref(), definitions=defs, resources=dict(defs.resources)
) as context:
    data = getattr(sensors, sys.argv[2]).evaluate_tick(context)
for request in data.dynamic_partitions_requests or ():
    instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
print(json.dumps([request.run_config for request in data.run_requests or ()]))
"""
RUN = """
job = defs.resolve_job_def("archive_quiet_topics")
job.execute_in_process(run_config=json.loads(sys.argv[2]), instance=instance)
"""
PROLOGUE = """
import json, sys
import dagster as dg
from hop_archive.orchestration.definitions import defs
instance = dg.DagsterInstance.local_temp(sys.argv[1], overrides={"telemetry": {"enabled": False}})
"""


def process(program: str, instance: dg.DagsterInstance, argument: str, environ: dict[str, str]) -> str:
    whole = f"import sys; sys.path += {sys.path!r}\n{PROLOGUE}{program}"
    found = subprocess.run(
        [sys.executable, "-c", whole, instance.root_directory, argument],
        env=environ,
        cwd=instance.root_directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def ticked(sensor: str, instance: dg.DagsterInstance, environ: dict[str, str]) -> list[dict[str, Any]]:
    out = process(TICK, instance, sensor, environ)
    found: list[dict[str, Any]] = json.loads(out.splitlines()[-1])
    return found


def archive_samples(instance: dg.DagsterInstance, environ: dict[str, str]) -> None:
    environ = {**environ, "HOP_ARCHIVE_LONGEST_WAIT_S": "0"}
    ticked("topic_partitions", instance, environ)
    for run_config in ticked("kafka_offsets", instance, environ):
        process(RUN, instance, json.dumps(run_config), environ)
    assert ticked("kafka_offsets", instance, environ) == []


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
