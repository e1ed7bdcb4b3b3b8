"""The archive on topics whose older segments stand in a remote tier alone: what is there, what cannot be read, what retention takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.records import Outcome
from hop_archive.devkit.local.address import StackAddress
from hop_archive.errors import MissingSettingError
from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.survey import OVERTAKEN
from hop_archive.source.kafka.source import KafkaSource
from hop_archive.upkeep.verify.sent import Place, Sent
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults.real import (
    Processes,
    assert_all_archived,
    assert_stored,
    plain,
    processes_of,
    publish,
)
from hop_archive_tests.kafka.broker import ApacheKafka
from hop_archive_tests.kafka.conftest import kafka_or_skip
from hop_archive_tests.kafka.test_archive_on_kafka import summary
from hop_archive_tests.kafka.test_broker import Cluster
from hop_archive_tests.kafka.test_three_brokers import HERE, called
from hop_archive_tests.worlds import exhausted

pytestmark = [pytest.mark.kafka, pytest.mark.local, pytest.mark.timeout(900), pytest.mark.slow_kafka]

MIB = 2**20


@dataclass(frozen=True, slots=True)
class TieredKafka:
    """A broker whose closed segments go to a folder, and its data."""

    broker: ApacheKafka
    data: Path
    tier: Path

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.broker.bootstrap_servers)

    def first_at_hand(self, topic: str) -> int:
        """The first offset that the broker still has on its own disk."""
        return min(int(segment.stem) for segment in (self.data / f"{topic}-0").glob("*.log"))


@pytest.fixture(scope="module")
def tiered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TieredKafka]:
    kafka_or_skip()
    folder = tmp_path_factory.mktemp("tiered")
    tier = folder / "tier"
    properties = {
        "remote.log.storage.system.enable": "true",
        "remote.log.storage.manager.class.name": "org.apache.kafka.server.log.remote.storage.LocalTieredStorage",
        "remote.log.storage.manager.impl.prefix": "rsm.config.",
        "rsm.config.dir": str(tier),
        "remote.log.metadata.manager.impl.prefix": "rlmm.config.",
        "remote.log.metadata.manager.listener.name": "PLAINTEXT",
        "rlmm.config.remote.log.metadata.topic.replication.factor": "1",
        "rlmm.config.remote.log.metadata.topic.num.partitions": "1",
        "remote.log.manager.task.interval.ms": "500",
    }
    pom = Path(__file__).with_name("tiered-pom.xml")
    try:
        broker = ApacheKafka(folder, properties, pom=pom).start()
    except (
        MissingSettingError
    ) as error:  # Kafka is that of KAFKA_HOME, and there is no Maven to fetch this one
        pytest.skip(str(error))
    with broker:
        yield TieredKafka(broker, folder / "data", tier)


@pytest.fixture
def archive(open_archive: OpenArchive, tiered: TieredKafka) -> Iterator[Archive]:
    """An archive of the broker in the local Postgres and S3."""
    servers = tiered.broker.bootstrap_servers
    with closing(KafkaSource("tiered", bootstrap_servers=servers, writable=True)) as source:
        yield replace(open_archive(), source=source)


@pytest.fixture
def processes(tmp_path: Path, namespace: str, address: StackAddress, tiered: TieredKafka) -> Processes:
    return processes_of(
        tmp_path, namespace, replace(address, bootstrap_servers=tiered.broker.bootstrap_servers)
    )


def tiered_topic(tiered: TieredKafka, name: str) -> str:
    """A topic of which the last one or two segments are at hand, and all others in the tier."""
    config = {"segment_bytes": MIB, "local_retention_bytes": MIB, "max_message_bytes": MIB}
    return tiered.cluster.new_topic(name, remote_storage_enable="true", retention_bytes=-1, **config)


@pytest.fixture
def sent(archive: Archive, tiered: TieredKafka, namespace: str) -> dict[Place, Sent]:
    """What was published to a topic of that name, most of which is in the tier alone."""
    sent = publish(archive.source, plain(tiered_topic(tiered, namespace), 20, size_bytes=300_000))
    wait_for(lambda: tiered.first_at_hand(namespace) > 10, "most of it is in the tier alone")
    return sent


def test_what_stands_in_the_tier_alone_is_archived_and_verified(
    archive: Archive, processes: Processes, namespace: str, sent: dict[Place, Sent]
) -> None:
    assert called(processes, "run", *HERE, "--until-caught-up").returncode == 0
    assert_all_archived(archive, [namespace], sent)
    verified = called(processes, "verify", *HERE, "--direction", "source", "--direction", "ledger", "--deep")
    assert verified.returncode == 0, verified.stdout


def test_a_tier_that_cannot_be_read_is_told_and_nothing_of_it_is_called_lost(
    archive: Archive, tiered: TieredKafka, processes: Processes, namespace: str, sent: dict[Place, Sent]
) -> None:
    logs = [file for file in tiered.tier.rglob("*.log") if namespace in str(file)]
    assert logs
    for file in logs:
        file.rename(file.with_suffix(".away"))
    ran = called(processes, "run", *HERE, "--until-caught-up")
    for file in logs:
        file.with_suffix(".away").rename(file)
    assert ran.returncode not in (0, 130), ran.stderr
    assert f"Reading {namespace}[0] stands at offset 0" in ran.stderr
    assert "remote tier" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert {entry.outcome for entry in archive.catalog.ledger([namespace])} <= {Outcome.ARCHIVED}
    assert called(processes, "run", *HERE, "--until-caught-up").returncode == 0
    assert_all_archived(archive, [namespace], sent)


def test_what_retention_takes_from_the_tier_before_it_was_archived_is_told_as_lost(
    archive: Archive, tiered: TieredKafka, processes: Processes, namespace: str
) -> None:
    topic = tiered_topic(tiered, namespace)
    sent = publish(archive.source, plain(topic, 5, size_bytes=300_000))
    exhausted(catch_up(archive, [topic]))
    sent |= publish(archive.source, plain(topic, 20, size_bytes=300_000, seed=1))
    wait_for(lambda: tiered.first_at_hand(topic) > 15, "most of it is in the tier alone")
    archive.source.change_settings(topic, {"retention.bytes": str(3 * MIB)})
    wait_for(lambda: tiered.cluster.offsets(topic).first > 8, "retention has taken some from the tier")
    assert tiered.cluster.offsets(topic).first < tiered.first_at_hand(topic)
    assert called(processes, "run", *HERE, "--until-caught-up").returncode == 0
    (lost,) = [entry for entry in archive.catalog.ledger([topic]) if entry.outcome is Outcome.LOST]
    assert (lost.slice.start, lost.reason) == (5, OVERTAKEN)
    assert summary(archive, topic).messages + len(lost.slice) == 25
    kept = {at: was for at, was in sent.items() if not lost.slice.start <= at[1] < lost.slice.stop}
    assert_stored(archive, topic, 1, kept)
    verified = called(processes, "verify", *HERE, "--direction", "ledger", "--direction", "source")
    assert verified.returncode == 1, verified.stdout
    assert "lost" in verified.stdout
