"""Messages that a broker has moved to its remote storage are archived like others, and told as lost where that forgets them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.records import Outcome
from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.survey import OVERTAKEN
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults.real import assert_all_archived, plain, publish
from hop_archive_tests.kafka.broker import ApacheKafka, find_kafkas_tests
from hop_archive_tests.kafka.conftest import kafka_or_skip
from hop_archive_tests.kafka.test_archive_on_kafka import assert_holds, summary
from hop_archive_tests.kafka.test_broker import Cluster
from hop_archive_tests.worlds import exhausted

pytestmark = [pytest.mark.kafka, pytest.mark.local, pytest.mark.timeout(900), pytest.mark.slow_kafka]

MIB = 2**20


@pytest.fixture
def tiered(tmp_path: Path) -> Iterator[ApacheKafka]:
    """A broker that moves closed segments to a folder, once they are asked to go."""
    kafka_or_skip()
    made = ApacheKafka(
        tmp_path / "kafka",
        {
            "remote.log.storage.system.enable": "true",
            "remote.log.storage.manager.class.name": "org.apache.kafka.server.log.remote.storage.LocalTieredStorage",
            "remote.log.storage.manager.impl.prefix": "rsm.config.",
            "rsm.config.dir": str(tmp_path / "remote"),
            "remote.log.metadata.manager.listener.name": "PLAINTEXT",
            "remote.log.metadata.manager.impl.prefix": "rlmm.config.",
            "rlmm.config.remote.log.metadata.topic.replication.factor": "1",
            "rlmm.config.remote.log.metadata.topic.num.partitions": "1",
            "remote.log.manager.task.interval.ms": "500",
        },
        classpath=find_kafkas_tests(),
    )
    if not made.owned:
        pytest.skip("HOP_ARCHIVE_TEST_KAFKA names a cluster that tests may not change")
    with made:
        yield made


def first_local(broker: ApacheKafka, topic: str) -> int:
    """The first offset that the broker has in its own log."""
    return min(int(file.stem) for file in (broker.log.parent / "data" / f"{topic}-0").glob("*.log"))


def test_what_only_the_remote_storage_has_is_archived_and_what_it_forgets_is_lost(
    open_archive: OpenArchive, tiered: ApacheKafka, namespace: str
) -> None:
    cluster = Cluster(tiered.bootstrap_servers)
    source = KafkaSource("tiered", bootstrap_servers=tiered.bootstrap_servers, writable=True)
    with closing(source):
        archive: Archive = replace(open_archive(), source=source)
        topic = cluster.new_topic(
            namespace,
            remote_storage_enable="true",
            local_retention_ms=100,
            retention_ms=-1,
            segment_bytes=MIB,
        )
        sent = publish(source, plain(topic, 20, size_bytes=300_000))
        wait_for(lambda: first_local(tiered, topic) > 10, "most of it is in the remote storage alone")
        assert cluster.offsets(topic).first == 0
        exhausted(catch_up(archive))
        assert_all_archived(archive, [topic], sent)
        assert_holds(archive, topic, delivered=20)
        publish(source, plain(topic, 20, size_bytes=300_000, seed=1))
        wait_for(lambda: first_local(tiered, topic) > 30, "of what came then, too")
        source.change_settings(topic, {"retention.bytes": str(MIB)})
        wait_for(lambda: cluster.offsets(topic).first > 25, "the remote storage has forgotten some")
        exhausted(catch_up(archive))
        (lost,) = [e for e in archive.catalog.ledger([topic]) if e.outcome is Outcome.LOST]
        assert (lost.slice.start, lost.reason) == (20, OVERTAKEN)
        assert summary(archive, topic).messages + len(lost.slice) == 40
