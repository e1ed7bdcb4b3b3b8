"""Kafka's password, the database's and the keys of S3 are all changed under one process, as after a break-in: it archives on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.cli_helpers import command, wait_for
from hop_archive_tests.faults.real import assert_all_archived, ended, plain, publish
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

pytestmark = [pytest.mark.kafka, pytest.mark.local, pytest.mark.timeout(900)]


@pytest.fixture
def follower(environ: Mapping[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """``hop-archive run``, which tells all that it does to ``told``."""
    with (tmp_path / "told").open("w") as told:
        started = subprocess.Popen(
            command("run", "--log", "debug"), cwd=tmp_path, env=environ, stdout=told, stderr=told, text=True
        )
        with ended(started) as process:
            yield process


def test_one_process_archives_on_when_all_its_secrets_are_changed_while_it_runs(
    secrets: Secrets,
    source: KafkaSource,
    topic: str,
    catalog: PostgresCatalog,
    follower: subprocess.Popen[str],
    tmp_path: Path,
) -> None:
    def told() -> str:
        return (tmp_path / "told").read_text()

    def archived() -> int:
        return sum(found.messages for found in catalog.summaries([topic]))

    sent = publish(source, plain(topic, 30, partitions=2))
    wait_for(lambda: archived() == 30, "it archives by the old ones")
    secrets.change("new")
    sent |= publish(source, plain(topic, 30, seed=1, partitions=2))
    # What stands behind another one is refused once that one lets in again.
    for what, refusal in REFUSALS.items():
        wait_for(
            lambda refusal=refusal: re.search(f"trying again: .*{refusal}", told()),  # type: ignore[misc]
            f"the old one of {what} is refused",
        )
        assert archived() == 30
        secrets.hand_over(what)
    wait_for(lambda: archived() == 60, "it archives by the new ones")
    wait_for(lambda: "All servers answer again" in told(), "it says so")
    assert follower.poll() is None
    os.kill(follower.pid, signal.SIGTERM)
    assert follower.wait(120) == 0, told()
    with closing(secrets.store()) as store:
        assert_all_archived(Archive(source, catalog, store), [topic], sent)
    assert not [number for number, secret in enumerate(secrets.made) if secret in told()]
