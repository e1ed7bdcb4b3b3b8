"""What the tests on Apache Kafka share: one broker for as long as the session, or one worker of it, lasts."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hop_archive.errors import MissingSettingError
from hop_archive_tests.kafka.broker import ApacheKafka, find_java, find_kafka


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
    with ApacheKafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture
def own_broker(broker: ApacheKafka) -> ApacheKafka:
    """The same, for tests that stop, kill or restart it; it runs again when they end."""
    if not broker.owned:
        pytest.skip("HOP_ARCHIVE_TEST_KAFKA names a cluster that tests may not restart")
    return broker
