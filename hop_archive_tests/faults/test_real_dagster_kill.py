"""A Dagster run's process is killed in mid-run: the next tick after Dagster has noticed asks for what is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.local.address import StackAddress
from hop_archive.ingest.survey import survey
from hop_archive.orchestration.definitions import build_definitions
from hop_archive.orchestration.pacing import Pacing
from hop_archive.orchestration.sensors import kafka_offsets
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults.real import (
    Life,
    assert_all_archived,
    begin_life,
    ended,
    processes_of,
)

pytestmark = [pytest.mark.local, pytest.mark.slow]

BATCH_MESSAGES = 10
AT_ONCE = Pacing(enough_messages=1, longest_wait_s=0.0, follow_s=0.0)


def run_in_a_process(
    directory: Path,
    environ: Mapping[str, str],
    request: dg.RunRequest,
    module: str = "hop_archive.orchestration.definitions",
) -> subprocess.Popen[str]:
    """What a run launcher does: a process of its own, that reports to the instance's event log."""
    config: dict[str, Any] = {
        **request.run_config,
        "resources": {"archive": {"config": {"batch_messages": BATCH_MESSAGES}}},
    }
    (directory / "run.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "dagster", "job", "execute", "-c", "run.yaml"]
    command += ["--tags", json.dumps(dict(request.tags))]
    return subprocess.Popen(
        [*command, "-m", module, "-j", str(request.job_name)],
        cwd=directory,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def dagster_home(directory: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose event log is in files, as the killed process must leave it behind."""
    directory.mkdir()
    with dg.DagsterInstance.local_temp(str(directory)) as instance:
        (directory / "dagster.yaml").write_text(
            f"telemetry:\n  enabled: false\nstorage:\n  sqlite:\n    base_dir: {directory}\n"
        )
        yield instance


def requested(archive: Archive, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    result = kafka_offsets(dg.build_sensor_context(instance=instance), archive=archive, pacing=AT_ONCE)
    assert isinstance(result, dg.SensorResult)
    return list(result.run_requests or ())


def killed_in_mid_run(process: subprocess.Popen[str], archive: Archive, life: Life) -> None:
    def has_begun() -> bool:
        assert process.poll() is None, process.communicate()
        return bool(archive.catalog.ledger(life.topics))

    wait_for(has_begun, "the run commits its first batch")
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert survey(archive, life.topics).pending(), "it was killed too late to matter"


def test_what_a_killed_run_left_is_asked_for_again_and_completed(
    open_archive: OpenArchive, namespace: str, address: StackAddress, tmp_path: Path
) -> None:
    archive = open_archive()
    life = begin_life(archive, namespace, seed=1, count=1_500)
    stanzas = dict.fromkeys(("HOP_ARCHIVE_SOURCE", "HOP_ARCHIVE_DATABASE", "HOP_ARCHIVE_STORE"), "here")
    home = tmp_path / "dagster"
    environ = {**processes_of(tmp_path, namespace, address).environ, **stanzas, "DAGSTER_HOME": str(home)}
    with dagster_home(home) as instance:
        (request,) = requested(archive, instance)
        with ended(run_in_a_process(tmp_path, environ, request)) as process:
            killed_in_mid_run(process, archive, life)
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.STARTED
        assert not requested(archive, instance), "its topics are left alone until it is known to be dead"
        instance.report_run_failed(run)  # as run monitoring does when the process is gone
        (again,) = requested(archive, instance)
        job = build_definitions(archive=archive).resolve_job_def(str(again.job_name))
        assert job.execute_in_process(run_config=again.run_config, instance=instance).success
        assert not requested(archive, instance)
    assert_all_archived(archive, life.topics, life.sent)
