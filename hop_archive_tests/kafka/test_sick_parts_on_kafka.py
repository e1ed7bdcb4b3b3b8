"""One sick part of Apache Kafka stops nothing but itself: a broker of two that is down, or silent; a right taken away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
)

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.errors import ForbiddenError, UnavailableError
from hop_archive.ingest.follow import archive_continuously, catch_up
from hop_archive.model.findings import Kind
from hop_archive.model.message import TopicPartition
from hop_archive.model.topics import TopicPolicy
from hop_archive.source.kafka.source import KafkaSource
from hop_archive.store.mock import MockStore
from hop_archive_tests.contract.source_fixtures import RIGHTS, acl, until
from hop_archive_tests.kafka.broker import ApacheKafka
from hop_archive_tests.kafka.conftest import kafka_or_skip
from hop_archive_tests.stopping import stop_process
from hop_archive_tests.worlds import exhausted

pytestmark = [pytest.mark.kafka, pytest.mark.local]

BOTH, FIRST, SECOND, SHUT = "on.both", "on.first", "on.second", "shut"


@dataclass(frozen=True, slots=True)
class Pair:
    """A cluster of two brokers; the second has no vote, so that the first goes on without it."""

    first: ApacheKafka
    second: ApacheKafka

    def publish(self, *, to_first_alone: bool = False) -> None:
        """A message to each partition that has a leader, or to those that the first broker leads."""
        for kafka, places in (
            (self.first, [(BOTH, 0), (FIRST, 0), (SHUT, 0)]),
            (self.second, [(BOTH, 1), (SECOND, 0)]),
        ):
            if kafka is self.first or (kafka.pid is not None and not to_first_alone):
                producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
                for topic, partition in places:
                    producer.produce(topic, os.urandom(8), partition=partition)
                assert producer.flush(30) == 0

    def archive(self, catalog: MockCatalog) -> Archive:
        servers = f"{self.first.bootstrap_servers},{self.second.bootstrap_servers}"
        source = KafkaSource("pair", bootstrap_servers=servers, timeout_s=8)
        policy = TopicPolicy(topics=(BOTH, FIRST, SECOND, SHUT))
        return Archive(source=source, catalog=catalog, store=MockStore(), topics=policy)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    kafka_or_skip()
    folder: Path = tmp_path_factory.mktemp("pair")
    first = ApacheKafka(folder / "1", properties=RIGHTS)
    if not first.owned:
        pytest.skip("HOP_ARCHIVE_TEST_KAFKA names a cluster that tests may not change")
    with first, ApacheKafka(folder / "2", properties=RIGHTS, joins=first) as second:
        admin = AdminClient({"bootstrap.servers": first.bootstrap_servers})
        until(lambda: len(admin.list_topics(timeout=5).brokers) == 2, "both brokers are there")
        places = {BOTH: [[1], [2]], FIRST: [[1]], SECOND: [[2]], SHUT: [[1]]}
        made = admin.create_topics([NewTopic(n, len(a), replica_assignment=a) for n, a in places.items()])
        for answer in made.values():
            answer.result(30)
        yield Pair(first, second)


def counts(catalog: MockCatalog) -> dict[str, int]:
    return {one.topic: one.messages for one in catalog.summaries() if one.messages}


def in_the_way(catalog: MockCatalog) -> set[tuple[Kind, str, int | None]]:
    return {(f.finding.kind, f.finding.topic, f.finding.partition) for f in catalog.findings()}


def test_what_the_other_broker_leads_is_archived_while_one_is_silent_and_then_down(pair: Pair) -> None:
    catalog = MockCatalog()
    with closing(pair.archive(catalog)) as archive:
        pair.publish()
        exhausted(catch_up(archive))
        assert counts(catalog) == {BOTH: 2, FIRST: 1, SECOND: 1, SHUT: 1}
        silent = {TopicPartition(BOTH, 1), TopicPartition(SECOND, 0)}
        assert pair.second.pid is not None
        stop_process(pair.second.pid)
        try:
            found = archive.source.watermarks([*silent, TopicPartition(BOTH, 0), TopicPartition(FIRST, 0)])
            assert (set(found), set(found.untold)) == (
                {TopicPartition(BOTH, 0), TopicPartition(FIRST, 0)},
                silent,
            )
            for _ in range(20):  # the client asks either of them, and sticks to the one that it asked
                assert archive.source.cluster_id() == pair.first.cluster_id
            pair.publish(to_first_alone=True)
            with pytest.raises(UnavailableError, match="All else is archived"):
                exhausted(catch_up(archive))
            assert counts(catalog) == {BOTH: 3, FIRST: 2, SECOND: 1, SHUT: 2}
        finally:
            pair.second.kill()
        pair.publish()
        until(lambda: _no_leader(archive), "the cluster has seen that its second broker is down")
        with pytest.raises(UnavailableError, match="All else is archived"):
            exhausted(catch_up(archive))
        assert counts(catalog) == {BOTH: 4, FIRST: 3, SECOND: 1, SHUT: 3}
        assert in_the_way(catalog) == {(Kind.NO_LEADER, BOTH, 1), (Kind.NO_LEADER, SECOND, 0)}
        assert not any(one.lost for one in catalog.summaries())
        pair.second.start()
        pair.publish()
        until(lambda: not archive.source.watermarks(list(silent)).untold, "all have leaders again")
        exhausted(catch_up(archive))
        assert counts(catalog) == {BOTH: 6, FIRST: 4, SECOND: 2, SHUT: 4}
        assert in_the_way(catalog) == set()


def _no_leader(archive: Archive) -> bool:
    try:
        untold = archive.source.watermarks([TopicPartition(FIRST, 0), TopicPartition(SECOND, 0)]).untold
    except UnavailableError:
        return False
    return any("has no leader" in str(error) for error in untold.values())


def test_a_right_that_is_taken_away_while_following_ends_that_topic_alone(pair: Pair) -> None:
    catalog, admin = MockCatalog(), AdminClient({"bootstrap.servers": pair.first.bootstrap_servers})
    with closing(pair.archive(catalog)) as archive:
        exhausted(catch_up(archive))
        before = counts(catalog)
        following = archive_continuously(archive, stop=lambda: False, sleep=lambda _: None)
        next(following)
        rules = [(AclOperation.ALL, AclPermissionType.ALLOW), (AclOperation.READ, AclPermissionType.DENY)]
        for answer in admin.create_acls([acl(SHUT, *rule) for rule in rules]).values():
            answer.result(30)
        until(lambda: archive.source.topics([SHUT])[SHUT].readable is False, "the right is gone")
        pair.publish()
        # What a fetch that was waiting when the right was taken away is given of the topic is archived, too.
        wanted = {topic: number + (2 if topic == BOTH else 1) for topic, number in before.items()}
        until(
            lambda: (next(following), {**counts(catalog), SHUT: wanted.get(SHUT)} == {SHUT: None, **wanted})[
                1
            ],
            "all others are archived",
        )
        until(
            lambda: (next(following), in_the_way(catalog) == {(Kind.NOT_READABLE, SHUT, None)})[1],
            "what may not be read is named",
        )
        pair.publish()
        with pytest.raises(ForbiddenError, match=f"All else is archived.*{SHUT}"):
            exhausted(catch_up(archive))
