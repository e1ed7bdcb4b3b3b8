"""The archive on three brokers of Apache Kafka: leaders that move or lose messages, restarts, quotas, rights, logins, hung transactions."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from hop_archive.archive import Archive
from hop_archive.catalog.records import Outcome
from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.survey import OVERTAKEN, survey
from hop_archive_tests.cli_helpers import DEADLINE_S, command, wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults.real import (
    Processes,
    Trickle,
    assert_all_archived,
    assert_stored,
    create_sample_topics,
    ended,
    plain,
    publish,
)
from hop_archive_tests.kafka.cluster import ANSWER_S, KafkaCluster, Three
from hop_archive_tests.kafka.listeners import PASSWORD, Listeners
from hop_archive_tests.kafka.test_archive_on_kafka import (
    assert_both_lives,
    assert_holds,
    publish_singly,
    summary,
)
from hop_archive_tests.kafka.test_broker import Cluster, Offsets
from hop_archive_tests.kafka.test_connections import LOGIN, source_of
from hop_archive_tests.worlds import exhausted

pytestmark = [pytest.mark.kafka, pytest.mark.local, pytest.mark.timeout(900), pytest.mark.slow_kafka]

HERE = ("-H", "here", "-D", "here", "-S", "here")


def called(processes: Processes, *args: str) -> subprocess.CompletedProcess[str]:
    """A command that was run to its end."""
    process = processes.start(*args)
    told, errors = process.communicate(timeout=240)
    return subprocess.CompletedProcess(args, process.returncode, told, errors)


def findings(processes: Processes) -> list[dict[str, Any]]:
    """The open findings, as the command tells them."""
    found: list[dict[str, Any]] = json.loads(called(processes, "findings", *HERE, "--json").stdout)[
        "findings"
    ]
    return found


# --- leaders


def test_a_leader_elected_without_what_another_had_is_noticed_and_both_logs_are_archived(
    on_three: OpenArchive, kafka: KafkaCluster, namespace: str
) -> None:
    archive = on_three()
    topic = kafka.create_topic(
        namespace, [[1, 2]], min_insync_replicas=1, unclean_leader_election_enable="true"
    )
    cluster = Cluster(kafka.bootstrap_servers)
    old = [b"old %d" % number for number in range(10)]
    for value in old[:6]:
        assert cluster.publish_one(topic, value) is None
    wait_for(lambda: kafka.in_sync([topic])[topic, 0] == {1, 2}, "the follower has all of it")
    kafka.broker(2).kill()
    wait_for(lambda: kafka.in_sync([topic])[topic, 0] == {1}, "the leader goes on alone")
    for value in old[6:]:
        assert cluster.publish_one(topic, value) is None
    exhausted(catch_up(archive))
    assert summary(archive, topic).messages == 10
    kafka.broker(1).kill()
    kafka.broker(2).start()
    wait_for(lambda: kafka.leaders([topic]) == {(topic, 0): 2}, "who lacks the end leads")
    kafka.broker(1).start()
    wait_for(lambda: kafka.in_sync([topic])[topic, 0] == {1, 2}, "who had it has cut it off")
    new = publish_singly(Cluster(kafka.bootstrap_servers), topic, "new", 8)
    exhausted(catch_up(archive, [topic]))
    assert_both_lives(archive, topic, old, new)


@pytest.mark.slow_kafka
def test_leaders_that_move_under_a_follower_lose_and_double_nothing(
    on_three: OpenArchive, kafka: KafkaCluster, processes: Processes, namespace: str, tmp_path: Path
) -> None:
    archive = on_three()
    topics = create_sample_topics(archive.source, namespace)
    wait_for(lambda: kafka.is_whole(topics), "all replicas are in sync")
    with ended(processes.run()) as follower:
        with Trickle(archive.source, namespace) as trickle:
            for _ in range(2):
                wait_for_more(archive, topics)
                before = kafka.leaders(topics)
                kafka.move_leaders(topics, tmp_path)
                wait_for(partial(others_lead, kafka, before), "another leads each partition")
            wait_for_more(archive, topics)
        wait_for(lambda: not survey(archive, topics).pending(), "all is archived")
        assert follower.poll() is None, follower.communicate()
    assert_all_archived(archive, topics, trickle.sent)
    assert {len(found) for found in archive.catalog.generations(topics).values()} == {1}
    assert not list(archive.catalog.findings(topics))


def others_lead(kafka: KafkaCluster, before: Mapping[tuple[str, int], int]) -> bool:
    now = kafka.leaders({topic for topic, _ in before})
    return all(now.get(at) not in (None, leader) for at, leader in before.items())


def wait_for_more(archive: Archive, topics: Sequence[str]) -> None:
    """Wait until more is archived than now."""

    def stored() -> int:
        return sum(found.messages for found in archive.catalog.summaries(topics))

    before = stored()
    wait_for(lambda: stored() > before, "more is archived")


@pytest.mark.slow_kafka
def test_brokers_restarted_one_after_another_end_no_follower_and_lose_nothing(
    on_three: OpenArchive, kafka: KafkaCluster, processes: Processes, namespace: str
) -> None:
    archive = on_three()
    topics = create_sample_topics(archive.source, namespace)
    wait_for(lambda: kafka.is_whole(topics), "all replicas are in sync")
    with ended(processes.run()) as follower:
        with Trickle(archive.source, namespace) as trickle:
            for broker in kafka.brokers:
                wait_for_more(archive, topics)
                broker.restart()
                wait_for(lambda: kafka.is_whole(topics), "all replicas are in sync again")
            wait_for_more(archive, topics)
        wait_for(lambda: not survey(archive, topics).pending(), "all is archived")
        assert follower.poll() is None, follower.communicate()
    assert_all_archived(archive, topics, trickle.sent)
    assert {len(found) for found in archive.catalog.generations(topics).values()} == {1}
    wait_for(lambda: not list(archive.catalog.findings(topics)), "nothing is in the way any more")


# --- quotas, rights, logins


def test_a_quota_makes_the_archive_slower_and_nothing_else(
    on_three: OpenArchive, kafka: KafkaCluster, namespace: str
) -> None:
    archive = on_three()
    topic = kafka.create_topic(namespace, [[1]])
    # In batches of one: more than a quota allows in two seconds no client is ever given.
    producer = Cluster(kafka.bootstrap_servers).producer(**{"batch.size": 1_000})
    for number in range(25):
        producer.produce(topic, b"%d" % number + bytes(50_000))
    assert producer.flush(ANSWER_S) == 0
    kafka.set_quota("hop_archive", 150_000)
    began = time.monotonic()
    try:
        exhausted(catch_up(archive))
    finally:
        kafka.set_quota("hop_archive", None)
    # A least time, which no busy machine makes shorter: it was the quota that was at work.
    assert time.monotonic() - began > 4
    assert_holds(archive, topic, delivered=25)
    assert not list(archive.catalog.findings([topic]))


@pytest.fixture
def logged_in(three: Three, kafka: KafkaCluster, processes: Processes, namespace: str) -> Processes:
    """The command line as programs, with a stanza ``login`` that comes as alice, over TLS."""
    set_password(kafka, PASSWORD)
    login_file(processes.directory, three, PASSWORD)
    stanzas = processes.directory / "hop_archive.toml"
    stanzas.write_text(
        stanzas.read_text()
        + f"""
        [source.login]
        type = "kafka"
        bootstrap_servers = "{three.login_servers}"
        hop_auth = "auth.toml"
        topics = ["{namespace}*"]
        """
    )
    return processes


def test_one_topic_of_several_that_may_not_be_read_is_named_and_caught_up_with_once_it_may(
    on_three: OpenArchive, kafka: KafkaCluster, three: Three, logged_in: Processes, namespace: str
) -> None:
    archive = on_three()
    topics = [f"{namespace}.{name}" for name in ("a", "b", "shut")]
    for topic in topics:
        kafka.create_topic(topic, [[1, 2, 3], [2, 3, 1]])
    sent = publish(archive.source, [m for topic in topics for m in plain(topic, 20, partitions=2)])
    shut = topics[-1]
    of_topic = (ResourceType.TOPIC, shut, ResourcePatternType.LITERAL)
    rules = [(AclOperation.ALL, AclPermissionType.ALLOW), (AclOperation.READ, AclPermissionType.DENY)]
    for answer in kafka.admin.create_acls(
        [AclBinding(*of_topic, "User:alice", "*", *rule) for rule in rules]
    ).values():
        answer.result(ANSWER_S)
    wait_for(lambda: all(not is_readable(found, shut) for found in three.logins), "it may not be read")
    as_alice = ("-H", "login", *HERE[2:])
    ran = called(logged_in, "run", *as_alice, "--until-caught-up")
    assert ran.returncode == 2, ran.stderr
    assert "All else is archived" in ran.stderr
    assert shut in ran.stderr
    assert [(one["kind"], one["topic"]) for one in findings(logged_in)] == [("not_readable", shut)]
    assert [summary(archive, topic).messages for topic in topics[:2]] == [20, 20]
    anybody: Any = None
    every = AclBindingFilter(*of_topic, anybody, anybody, AclOperation.ANY, AclPermissionType.ANY)
    for answer in kafka.admin.delete_acls([every]).values():
        answer.result(ANSWER_S)
    wait_for(lambda: all(is_readable(found, shut) for found in three.logins), "it may be read again")
    ran = called(logged_in, "run", *as_alice, "--until-caught-up")
    assert ran.returncode == 0, ran.stderr
    assert_all_archived(archive, topics, sent)
    assert findings(logged_in) == []


def is_readable(listeners: Listeners, topic: str) -> bool:
    """Whether alice may read a topic, as the broker of these listeners says to a client that knows of no other yet."""
    keys = {"security": "sasl-scram-sha-512", "ssl_ca": str(listeners.ca), **LOGIN}
    with closing(source_of(listeners.server("LOGIN"), **keys)) as source:
        return source.topics([topic])[topic].readable is not False


def test_a_password_that_is_changed_under_a_follower_is_taken_from_the_file_that_has_the_new_one(
    on_three: OpenArchive, three: Three, logged_in: Processes, kafka: KafkaCluster, namespace: str
) -> None:
    archive = on_three()
    topic = kafka.create_topic(namespace, [[1, 2, 3], [2, 3, 1], [3, 1, 2]])
    sent = publish(archive.source, plain(topic, 30, partitions=3))
    log = logged_in.directory / "told"
    with log.open("w") as told, ended(follower(logged_in, told, "-H", "login")) as process:
        wait_for(lambda: is_archived(archive, topic, 30), "the follower got in")
        set_password(kafka, "another-password")
        wait_for(lambda: "Authentication failed" in log.read_text(), "the old password is refused")
        sent |= publish(archive.source, plain(topic, 30, partitions=3, seed=1))
        login_file(logged_in.directory, three, "another-password")
        # It asks again after half a minute at the latest.
        wait_for(lambda: is_archived(archive, topic, 60), "the follower got in again", 2 * DEADLINE_S)
        assert process.poll() is None, log.read_text()
    assert_all_archived(archive, [topic], sent)
    assert PASSWORD not in log.read_text()
    assert "another-password" not in log.read_text()


def follower(processes: Processes, told: Any, *source: str) -> subprocess.Popen[str]:
    """A follower of that source, which tells all that it does to a file."""
    return subprocess.Popen(
        command("run", *HERE, *source),
        cwd=processes.directory,
        env=processes.environ,
        stdout=told,
        stderr=told,
        text=True,
    )


def is_archived(archive: Archive, topic: str, count: int) -> bool:
    return any(found.messages == count for found in archive.catalog.summaries([topic]))


def set_password(kafka: KafkaCluster, password: str) -> None:
    """Have alice log in by SCRAM with that password from now on."""
    login = UserScramCredentialUpsertion(
        "alice", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), password.encode()
    )
    kafka.admin.alter_user_scram_credentials([login])["alice"].result(ANSWER_S)


def login_file(directory: Path, three: Three, password: str) -> None:
    """hop-client's file, which appears whole."""
    new = directory / "auth.toml.new"
    new.write_text(
        f"""
        [[auth]]
        username = "alice"
        password = "{password}"
        mechanism = "SCRAM_SHA_512"
        protocol = "SASL_SSL"
        ssl_ca_location = "{three.logins[0].ca}"
        """
    )
    new.chmod(0o600)
    new.replace(directory / "auth.toml")


# --- transactions, retention


def test_a_hung_transaction_is_told_and_one_that_times_out_is_passed_by(
    on_three: OpenArchive, kafka: KafkaCluster, processes: Processes, namespace: str
) -> None:
    archive = on_three()
    cluster = Cluster(kafka.bootstrap_servers)
    hung, timed_out = (kafka.create_topic(f"{namespace}.{name}", [[1, 2, 3]]) for name in ("hung", "late"))
    cluster.publish(hung, 2)
    producer = cluster.open_transaction(hung, 3)
    cluster.publish(hung, 4)
    assert "Caught up" in processes.to_the_end()
    (told,) = json.loads(called(processes, "status", *HERE, "-T", hung, "--json").stdout)["topics"]
    assert (told["messages"], told["lag"], told["held_back"]) == (2, 0, 7)
    assert f"{hung}: 7 offsets held back by an open transaction" in called(processes, "status", *HERE).stdout
    producer.abort_transaction(ANSWER_S)
    cluster.publish(timed_out, 2)
    left = cluster.producer(**{"transactional.id": namespace, "transaction.timeout.ms": 1_000})
    left.init_transactions(ANSWER_S)
    left.begin_transaction()
    left.produce(timed_out, b"never ended")
    assert left.flush(ANSWER_S) == 0
    cluster.publish(timed_out, 4)
    for topic, end in ((hung, 10), (timed_out, 8)):
        wait_for(partial(is_ended, cluster, topic, end), "the end of the transaction is marked")
    processes.to_the_end()
    assert (summary(archive, hung).messages, summary(archive, hung).absent) == (6, 4)
    assert (summary(archive, timed_out).messages, summary(archive, timed_out).absent) == (6, 2)
    for topic in (hung, timed_out):
        assert_holds(archive, topic, delivered=6)


def is_ended(cluster: Cluster, topic: str, end: int) -> bool:
    return cluster.offsets(topic) == Offsets(0, end, end)


def test_what_retention_by_size_takes_before_it_was_archived_is_told_as_lost(
    on_three: OpenArchive, kafka: KafkaCluster, processes: Processes, namespace: str
) -> None:
    archive = on_three()
    topic = kafka.create_topic(
        namespace, [[1, 2, 3]], retention_bytes=2**20, segment_bytes=2**20, max_message_bytes=2_000_000
    )
    sent = publish(archive.source, plain(topic, 5, size_bytes=300_000))
    exhausted(catch_up(archive))
    sent |= publish(archive.source, plain(topic, 15, size_bytes=300_000, seed=1))
    cluster = Cluster(kafka.bootstrap_servers)
    wait_for(lambda: cluster.offsets(topic).first > 8, "retention has taken some")
    ran = called(processes, "run", *HERE, "--until-caught-up")
    assert ran.returncode == 0, ran.stderr
    (lost,) = [e for e in archive.catalog.ledger([topic]) if e.outcome is Outcome.LOST]
    assert (lost.slice.start, lost.reason) == (5, OVERTAKEN)
    assert summary(archive, topic).messages + len(lost.slice) == 20
    kept = {at: was for at, was in sent.items() if not lost.slice.start <= at[1] < lost.slice.stop}
    assert_stored(archive, topic, 1, kept)
    verified = called(processes, "verify", *HERE, "--direction", "ledger", "--direction", "source")
    assert verified.returncode == 1, verified.stdout
    assert "lost" in verified.stdout
