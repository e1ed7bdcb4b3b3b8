"""Of worker, code server, daemon and webserver any two are killed: topics go on, and a run that is dead is failed."""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.local.address import StackAddress
from hop_archive.ingest.survey import survey
from hop_archive.orchestration.runs import FOLLOWING, SIGNS
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.dagster_services import CODE, DAEMON, WEBSERVER, Deployment, deployment
from hop_archive_tests.faults.real import plain, processes_of, publish

pytestmark = [pytest.mark.local, pytest.mark.slow, pytest.mark.timeout(1200)]

PATIENCE_S = 6
STANZAS = dict.fromkeys(("HOP_ARCHIVE_SOURCE", "HOP_ARCHIVE_DATABASE", "HOP_ARCHIVE_STORE"), "here")
HASTE = {"HOP_ARCHIVE_LONGEST_WAIT_S": "0", "HOP_ARCHIVE_FOLLOW_S": "3600"}
WORKER = "worker"
PAIRS = (
    # While the code server lives that started the worker, it notices the worker's death.
    (WORKER, DAEMON),
    (WORKER, WEBSERVER),
    # From here on the worker is nobody's child, and works on.
    (CODE, DAEMON),
    (CODE, WEBSERVER),
    (DAEMON, WEBSERVER),
    # And nobody is left who would notice, but for the signs of life.
    (WORKER, CODE),
)


def impatient(directory: Path, environ: Mapping[str, str]) -> AbstractContextManager[Deployment]:
    """The services, which follow all topics and take a run for dead after some seconds."""
    here = {
        "HOP_ARCHIVE_TOML": str(directory / "hop_archive.toml"),
        "HOP_ARCHIVE_SIGN_OF_LIFE_S": str(PATIENCE_S),
    }
    return deployment(directory / "dagster", {**environ, **STANZAS, **HASTE, **here})


def followers(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs that follow, and show that they live."""
    showing = {key.rpartition("/")[0] for key in instance.get_dynamic_partitions(SIGNS)}
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    return [r for r in instance.get_runs(filters) if FOLLOWING in r.tags and r.run_id in showing]


def pid_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int:
    told = (re.search(r"process for run \(pid: (\d+)\)", e.message) for e in instance.all_logs(run.run_id))
    return next(int(found[1]) for found in told if found)


def status_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found
    return found.status


def assert_goes_on(archive: Archive, topic: str, seed: int) -> None:
    publish(archive.source, plain(topic, 5, seed=seed))
    wait_for(lambda: not survey(archive, [topic]).pending(), "what arrives is archived", 300)


def assert_pair_does_no_harm(made: Deployment, instance: dg.DagsterInstance, pair: Sequence[str]) -> str:
    """Kill two, start what a supervisor starts; a run whose worker was killed is failed.

    Returns:
        The run that followed.
    """
    wait_for(lambda: followers(instance), f"a run follows, before {pair} are killed", 300)
    run = followers(instance)[0]
    for name in pair:
        if name == WORKER:
            os.kill(pid_of(instance, run), signal.SIGKILL)
        else:
            made.kill(name)
    made.start_what_is_not_there()
    if WORKER in pair:
        failed = dg.DagsterRunStatus.FAILURE
        wait_for(lambda: status_of(instance, run) is failed, f"{pair}: its run is failed", 300)
    return run.run_id


def end_workers(instance: dg.DagsterInstance) -> None:
    for run in followers(instance):
        with suppress(ProcessLookupError):
            os.kill(pid_of(instance, run), signal.SIGKILL)


def test_topics_go_on_whichever_two_are_killed_and_a_dead_run_is_failed(
    open_archive: OpenArchive, namespace: str, address: StackAddress, tmp_path: Path
) -> None:
    archive, topic = open_archive(), f"{namespace}.message"
    archive.source.create_topic(topic, 1)
    environ = processes_of(tmp_path, namespace, address).environ
    with impatient(tmp_path, environ) as made, dg.DagsterInstance.from_config(str(made.home)) as instance:
        try:
            for number, pair in enumerate(PAIRS):
                run_id = assert_pair_does_no_harm(made, instance, pair)
                assert_goes_on(archive, topic, seed=number)
                run = instance.get_run_by_id(run_id)
                assert run
                assert run.is_finished == (WORKER in pair), pair
            (told,) = [e.message for e in instance.all_logs(run_id) if "No sign of life" in e.message]
            assert "the run's process is gone, or hangs" in told
        finally:
            end_workers(instance)


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_worker_that_is_stopped_is_killed_and_its_topics_go_on(
    open_archive: OpenArchive, namespace: str, address: StackAddress, tmp_path: Path
) -> None:
    archive, topic = open_archive(), f"{namespace}.message"
    archive.source.create_topic(topic, 1)
    environ = processes_of(tmp_path, namespace, address).environ
    with impatient(tmp_path, environ) as made, dg.DagsterInstance.from_config(str(made.home)) as instance:
        try:
            wait_for(lambda: followers(instance), "a run follows", 300)
            run = followers(instance)[0]
            worker = psutil.Process(pid_of(instance, run))
            worker.suspend()
            failed = dg.DagsterRunStatus.FAILURE
            try:
                wait_for(lambda: status_of(instance, run) is failed, "its run is failed", 300)
                wait_for(lambda: is_gone(worker), "its process is gone")
            finally:
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
            assert_goes_on(
                archive, topic, seed=0
            )  # the code server, whose child it was, starts runs as before
        finally:
            end_workers(instance)


def test_every_pair_is_killed() -> None:
    parts = (WORKER, CODE, DAEMON, WEBSERVER)
    assert {frozenset(pair) for pair in PAIRS} == {frozenset(p) for p in itertools.combinations(parts, 2)}
