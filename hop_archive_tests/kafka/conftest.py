"""What the tests on Apache Kafka share: one broker for as long as the session, or one worker of it, lasts; three for a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from hop_archive.archive import Archive
from hop_archive.devkit.local.address import StackAddress
from hop_archive.errors import MissingSettingError
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.contract.source_fixtures import RIGHTS
from hop_archive_tests.faults.real import Processes, processes_of
from hop_archive_tests.java import find_java
from hop_archive_tests.kafka.broker import ApacheKafka, find_kafka
from hop_archive_tests.kafka.cluster import KafkaCluster, Three
from hop_archive_tests.kafka.listeners import Listeners, add_listeners, add_scram_login


def kafka_or_skip() -> None:
    """Skip where Java, Kafka or Maven is missing, but not in CI."""
    try:
        if not os.environ.get("HOP_ARCHIVE_TEST_KAFKA"):
            find_java(os.environ)
            find_kafka()
    except MissingSettingError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """A broker that all tests of this tier use, each with topics of its own."""
    kafka_or_skip()
    made = ApacheKafka(tmp_path_factory.mktemp("kafka"))
    if made.owned:
        _LISTENERS[made] = add_listeners(made, tmp_path_factory.mktemp("tls"))
    with made as running:
        yield running


_LISTENERS: dict[ApacheKafka, Listeners] = {}


@pytest.fixture(scope="session")
def listeners(broker: ApacheKafka) -> Listeners:
    """The other listeners of that broker: TLS and logins."""
    if broker not in _LISTENERS:
        pytest.skip("HOP_ARCHIVE_TEST_KAFKA names a cluster whose listeners are not the tests' own")
    add_scram_login(broker)
    return _LISTENERS[broker]


@pytest.fixture
def own_broker(broker: ApacheKafka) -> ApacheKafka:
    """The same, for tests that stop, kill or restart it; it runs again when they end."""
    if not broker.owned:
        pytest.skip("HOP_ARCHIVE_TEST_KAFKA names a cluster that tests may not restart")
    return broker


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    kafka_or_skip()
    folder = tmp_path_factory.mktemp("three")
    # Brokers speak to each other without a login, before any of them knows who may do what. Rights are of those with one.
    kafka = KafkaCluster(folder, {**RIGHTS, "super.users": "User:ANONYMOUS"})
    if not kafka.owned:
        pytest.skip("HOP_ARCHIVE_TEST_KAFKA names a cluster that tests may not change")
    authority = trustme.CA()
    logins = [
        add_listeners(broker, tmp_path_factory.mktemp("tls"), ("LOGIN",), authority)
        for broker in kafka.brokers
    ]
    with kafka:
        yield Three(kafka, logins)


@pytest.fixture
def kafka(three: Three) -> KafkaCluster:
    """The cluster; a broker that an earlier test left dead is started again."""
    three.kafka.start()
    return three.kafka


@pytest.fixture
def on_three(open_archive: OpenArchive, kafka: KafkaCluster) -> Iterator[OpenArchive]:
    """Opens archives of the cluster in the local Postgres and S3."""
    sources: list[KafkaSource] = []

    def make(**options: object) -> Archive:
        source = KafkaSource("three", bootstrap_servers=kafka.bootstrap_servers, writable=True)
        sources.append(source)
        return replace(open_archive(**options), source=source)

    yield make
    for source in sources:
        source.close()


@pytest.fixture
def processes(tmp_path: Path, namespace: str, address: StackAddress, kafka: KafkaCluster) -> Processes:
    """The command line as programs, which archive the namespace's topics of the cluster."""
    return processes_of(tmp_path, namespace, replace(address, bootstrap_servers=kafka.bootstrap_servers))
