"""A server stops in the middle of a Dagster run: the run fails and says which; the next tick's run completes the work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.local.address import ServerName, StackAddress
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.ingest.survey import survey
from hop_archive.orchestration.definitions import build_definitions
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults import impatient
from hop_archive_tests.faults.real import (
    assert_all_archived,
    begin_life,
    ended,
    processes_of,
    restartable,
)
from hop_archive_tests.faults.test_real_dagster_kill import dagster_home, requested, run_in_a_process
from hop_archive_tests.faults.test_real_outages import SERVERS, address_of, without

pytestmark = [pytest.mark.local, pytest.mark.slow]

ONE_ATTEMPT: Mapping[str, Any] = {"config": {"retries": {"disabled": {}}}}
"""Steps are not tried again: that, after pauses, would only make the test longer."""


def stopped_in_mid_run(
    archive: Archive,
    stack: LocalStack,
    name: ServerName,
    request: dg.RunRequest,
    directory: Path,
    environ: Mapping[str, str],
) -> None:
    """Run what was requested in a process; stop the server when the first objects are there, until it has ended."""
    with ended(run_in_a_process(directory, environ, request, impatient.__name__)) as process:

        def has_begun() -> bool:
            assert process.poll() is None, process.communicate()
            return next(archive.store.listing(), None) is not None

        wait_for(has_begun, "the run creates its first object")
        with without(stack, name):
            told, _ = process.communicate(timeout=100)
    assert process.returncode != 0, told


def failure(instance: dg.DagsterInstance) -> str:
    """What the one run that there was says it failed with."""
    (run,) = instance.get_runs()
    assert run.status is dg.DagsterRunStatus.FAILURE
    failed = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    events = [entry.dagster_event for entry in failed if entry.dagster_event]
    return "\n".join(str(event.step_failure_data.user_failure_data) for event in events)


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_stops_in_mid_run_fails_the_run_by_name_and_the_next_tick_completes_the_work(
    open_archive: OpenArchive,
    namespace: str,
    address: StackAddress,
    local_stack: LocalStack,
    tmp_path: Path,
    name: ServerName,
) -> None:
    stack = restartable(local_stack, name)
    archive = open_archive()
    life = begin_life(archive, namespace, seed=1, count=1_500)
    stanzas = dict.fromkeys(("HOP_ARCHIVE_SOURCE", "HOP_ARCHIVE_DATABASE", "HOP_ARCHIVE_STORE"), "here")
    home = tmp_path / "dagster"
    environ = {**processes_of(tmp_path, namespace, address).environ, **stanzas, "DAGSTER_HOME": str(home)}
    with dagster_home(home) as instance:
        (request,) = requested(archive, instance)
        config = {**request.run_config, "execution": ONE_ATTEMPT}
        request = dg.RunRequest(job_name=request.job_name, run_config=config, tags=request.tags)
        stopped_in_mid_run(archive, stack, name, request, tmp_path, environ)
        told = failure(instance)
        assert "here" in told
        assert address_of(address, name) in told
        after = open_archive()
        assert survey(after, life.topics).pending(), "it stopped too late to matter"
        (again,) = requested(after, instance)
        job = build_definitions(archive=after).resolve_job_def(str(again.job_name))
        assert job.execute_in_process(run_config=again.run_config, instance=instance).success
        assert not requested(after, instance)
    assert_all_archived(after, life.topics, life.sent)
