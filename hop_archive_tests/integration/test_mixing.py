"""Every source with every database and every store: each mixture archives and gives back what it was sent."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from hop_archive.archive import Archive
from hop_archive.config.load import load, select
from hop_archive.config.open import open_archive
from hop_archive.devkit.local.address import StackAddress
from hop_archive.devkit.local.stack import LocalStack
from hop_archive.devkit.prove import prove
from hop_archive.devkit.samples import SAMPLE_TOPICS, Sample, samples
from hop_archive.source.kafka.source import KafkaSource
from hop_archive.source.mock.source import MockSource
from hop_archive.source.protocol import Source
from hop_archive.upkeep.verify.sent import Place, Sent, sent_by_place
from hop_archive_tests.cli_helpers import invoke, place, toml

__all__ = ["place"]

pytestmark = pytest.mark.local

PREFIX = f"mix{uuid.uuid4().hex[:8]}."
"""One Kafka serves all mixtures, and other tests."""

STANZAS = """
[source.kafka]
type = "kafka"
bootstrap_servers = "${{HOP_ARCHIVE_LOCAL_BOOTSTRAP_SERVERS}}"
security = "plaintext"
topics = ["{prefix}*"]

[source.mock]
type = "mock"
samples = 0
directory = "{place}/source"

[database.postgres]
type = "postgres"
url = "${{HOP_ARCHIVE_LOCAL_DATABASE_URL}}"
schema = "{namespace}"

[database.mock]
type = "mock"
directory = "{place}/database"

[store.s3-messages]
type = "s3"
endpoint = "${{HOP_ARCHIVE_LOCAL_S3_ENDPOINT}}"
region = "us-east-1"
bucket = "${{HOP_ARCHIVE_LOCAL_BUCKET}}"
prefix = "{namespace}"
access_key_env = "HOP_ARCHIVE_LOCAL_S3_ACCESS_KEY"
secret_key_env = "HOP_ARCHIVE_LOCAL_S3_SECRET_KEY"

[store.s3-segments]
type = "s3"
endpoint = "${{HOP_ARCHIVE_LOCAL_S3_ENDPOINT}}"
region = "us-east-1"
bucket = "${{HOP_ARCHIVE_LOCAL_BUCKET}}"
prefix = "{namespace}"
access_key_env = "HOP_ARCHIVE_LOCAL_S3_ACCESS_KEY"
secret_key_env = "HOP_ARCHIVE_LOCAL_S3_SECRET_KEY"
layout = "segment"

[store.mock]
type = "mock"
directory = "{place}/store"
"""

MIXTURES = list(product(("kafka", "mock"), ("postgres", "mock"), ("s3-messages", "s3-segments", "mock")))


def published(source: Source) -> Mapping[Place, Sent]:
    """Two dozen samples, of many kinds, sent to topics of ours; what was sent, but for the topics left out."""
    for topic in SAMPLE_TOPICS:
        source.create_topic(PREFIX + topic.name, topic.partitions)
    now_ms = int(time.time() * 1000)
    alerts: list[Sample] = [replace(one, topic=PREFIX + one.topic) for one in samples(24, now_ms=now_ms - 24)]
    sent = dict(sent_by_place(alerts, source.publish(alerts)))
    return {at: one for at, one in sent.items() if "heartbeat" not in at[0].topic}


@pytest.fixture(scope="module")
def in_kafka(local_stack: LocalStack) -> Mapping[Place, Sent]:
    source = KafkaSource("k", bootstrap_servers=local_stack.up().bootstrap_servers, writable=True)
    sent = published(source)
    source.close()
    return sent


@pytest.fixture
def stanzas(place: Path, address: StackAddress, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    toml(place, STANZAS.format(prefix=PREFIX, place=place, namespace=namespace))
    for name, value in address.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def sent(
    request: pytest.FixtureRequest, stanzas: None, mixture: tuple[str, ...], place: Path
) -> Mapping[Place, Sent]:
    if mixture[0] == "kafka":
        found: Mapping[Place, Sent] = request.getfixturevalue("in_kafka")
        return found
    source = MockSource("mock", directory=place / "source", writable=True)
    return published(source)


@pytest.fixture
def archive(stanzas: None, mixture: tuple[str, str, str]) -> Iterator[Archive]:
    configuration = load()
    opened = open_archive(configuration, select(configuration, *mixture))
    yield opened
    opened.close()


@pytest.mark.parametrize("mixture", MIXTURES, ids=" ".join)
def test_each_mixture_archives_and_gives_back_what_was_sent(
    mixture: tuple[str, str, str], sent: Mapping[Place, Sent], archive: Archive
) -> None:
    source, database, store = mixture
    if database == "postgres":
        assert invoke("migrate", "-D", database).exit_code == 0
    ran = invoke("run", "-H", source, "-D", database, "-S", store, "--until-caught-up", "--quiet")
    assert (ran.exit_code, ran.output) == (0, "")
    topics = sorted({at.topic for at, _ in sent})
    proofs = prove(archive, topics, sent)
    assert [proof for proof in proofs if not proof.holds] == []
    assert sum(proof.archived + proof.duplicates for proof in proofs) == len(sent) > 15
    layouts = {row.position is None for topic in topics for row in archive.catalog.rows(topic)}
    assert layouts == {store != "s3-segments"}
