"""What the tests on Apache Kafka share: one broker for as long as the session, or one worker of it, lasts."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hop_archive.errors import MissingSettingError
from hop_archive_tests.kafka.broker import ApacheKafka, find_java, find_kafka
from hop_archive_tests.kafka.listeners import Listeners, add_listeners, add_scram_login


def kafka_or_skip() -> None:
    """Skip where Java, Kafka or Maven is missing, but not in CI."""
    try:
        if not os.environ.get("HOP_ARCHIVE_TEST_KAFKA"):
            find_java()
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
