"""The fixtures of the tests of sources: each broker there is, and a source of it. A plugin, imported by pytest alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hop_archive.source.protocol import Source
from hop_archive_tests.contract.source_fixtures import (
    ApacheBroker,
    Broker,
    KafkaBroker,
    MockBroker,
    TansuBroker,
    needs,
    start_or_skip,
)


@pytest.fixture(scope="session")
def tansu() -> Iterator[TansuBroker]:
    broker = TansuBroker()
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheBroker]:
    broker = ApacheBroker(tmp_path_factory.mktemp("apache"))
    start_or_skip(broker)
    yield broker
    if broker.kafka.owned:
        broker.stop()


def over(*, kafka_only: bool = False) -> list[Any]:
    mocks = [] if kafka_only else ["mock", "mock in a directory"]
    return [
        *mocks,
        pytest.param("tansu", marks=pytest.mark.local),
        pytest.param("apache", marks=pytest.mark.kafka),
    ]


def the_broker(request: pytest.FixtureRequest) -> Broker:
    if request.param == "mock":
        return MockBroker()
    if request.param == "mock in a directory":
        return MockBroker(request.getfixturevalue("tmp_path"))
    broker: Broker = request.getfixturevalue(request.param)
    return broker


@pytest.fixture(params=over())
def broker(request: pytest.FixtureRequest) -> Broker:
    return the_broker(request)


@pytest.fixture(params=over(kafka_only=True))
def kafka(request: pytest.FixtureRequest) -> KafkaBroker:
    found = the_broker(request)
    assert isinstance(found, KafkaBroker)
    return found


@pytest.fixture
def mortal(request: pytest.FixtureRequest, broker: Broker) -> Iterator[Broker]:
    """A broker that may be stopped; it runs again for the next test."""
    needs(broker, "stopping")
    if isinstance(broker, TansuBroker):
        broker = TansuBroker()  # another one, for it would forget what other tests are about
        broker.start()
    yield broker
    broker.start()
    if isinstance(broker, TansuBroker):
        broker.stop()


@pytest.fixture
def source(broker: Broker) -> Iterator[Source]:
    opened = broker.source()
    yield opened
    opened.close()
