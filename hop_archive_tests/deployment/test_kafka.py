"""Apache Kafka itself with what docker/ and deploy/ say of it: compose.yaml's settings, and the archiver's rights."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import (
    ResourcePatternType,
    ResourceType,
)  # where their types are; confluent_kafka.admin does not export them to mypy
from pydantic import SecretStr

from hop_archive.archive import Archive
from hop_archive.catalog.records import SnapshotKind
from hop_archive.devkit.local.machine import choose_ports
from hop_archive.devkit.samples import SAMPLE_TOPICS
from hop_archive.errors import ForbiddenError, HopArchiveError
from hop_archive.ingest.cluster_state import take_snapshot
from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.survey import survey
from hop_archive.model.credentials import KafkaAccess
from hop_archive.model.message import Committed, TopicPartition
from hop_archive.model.topics import TopicPolicy
from hop_archive.source.kafka.source import KafkaSource
from hop_archive.source.protocol import Source
from hop_archive.upkeep.doctor import Verdict, examine_source
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.deployment.image import CHECKOUT, compose
from hop_archive_tests.faults.real import create_sample_topics, publish, sample_alerts
from hop_archive_tests.kafka.broker import ApacheKafka, find_kafka, pinned_version
from hop_archive_tests.kafka.conftest import kafka_or_skip
from hop_archive_tests.worlds import World, exhausted

ACLS = CHECKOUT / "deploy" / "kafka" / "acls.sh"
KINDS: tuple[SnapshotKind, ...] = ("topic", "group")
JAAS = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_archiver="secret";'


def test_compose_s_kafka_is_the_release_that_the_tests_run_on() -> None:
    assert compose()["services"]["kafka"]["image"] == f"apache/kafka:{pinned_version()}"


def archived(source: Source) -> tuple[int, int]:
    """How many messages a mock world archives from a source, and how many are left."""
    archive: Archive = replace(World().archive(), source=source, topics=TopicPolicy(("t.*",)))
    exhausted(catch_up(archive))
    return sum(s.messages for s in archive.catalog.summaries()), sum(survey(archive).pending().values())


@pytest.mark.kafka
def test_the_archive_reads_a_broker_with_compose_s_settings(tmp_path: Path) -> None:
    kafka_or_skip()
    service = compose()["services"]["kafka"]
    # As the image's start-up does it: KAFKA_NODE_ID is node.id.
    given = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): v for name, v in service["environment"].items()
    }
    inside, outside, controller = choose_ports(3)
    places = {
        "kafka:9092": f"127.0.0.1:{inside}",
        "127.0.0.1:29092": f"127.0.0.1:{outside}",
        "kafka:9093": f"127.0.0.1:{controller}",
        "INSIDE://:9092": f"INSIDE://127.0.0.1:{inside}",
        "OUTSIDE://:29092": f"OUTSIDE://127.0.0.1:{outside}",
        "CONTROLLER://:9093": f"CONTROLLER://127.0.0.1:{controller}",
        "/var/lib/kafka/data": str(tmp_path / "data"),
    }
    for theirs, ours in places.items():
        given = {name: value.replace(theirs, ours) for name, value in given.items()}
    file = tmp_path / "server.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    with broker_of(file, outside):
        source = KafkaSource("compose", bootstrap_servers=f"127.0.0.1:{outside}", writable=True)
        create_sample_topics(source, "t")
        sent = publish(source, sample_alerts("t", 50))
        assert archived(source)[1] == 0
        assert len(sent) == 50
        source.close()


def broker_of(file: Path, port: int) -> ApacheKafka:
    """A broker with a file of its own, and none of the tests' settings."""

    class WithFile(ApacheKafka):
        def _write_properties(self) -> Path:
            return file

        def _format(self, java: str, kafka: object, settings: Path) -> None:
            command = [java, "-cp", find_kafka().classpath, "kafka.tools.StorageTool", "format"]
            arguments = ["--cluster-id=4L6g3nShT-eMCtK--X86sw", "--config", str(settings)]
            subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=300)

    made = WithFile(file.parent)
    made._ports = (port, 0)
    return made


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ApacheKafka, str]]:
    """A broker with an authorizer: who comes by the second listener is who he says, and may what ACLs say."""
    kafka_or_skip()
    port, plain, controller = choose_ports(3)
    made = ApacheKafka(
        tmp_path_factory.mktemp("guarded"),
        {
            "listeners": f"PLAINTEXT://127.0.0.1:{plain},LOGIN://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},LOGIN://127.0.0.1:{port},"
            f"CONTROLLER://127.0.0.1:{controller}",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,LOGIN:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.login.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.login.plain.sasl.jaas.config": JAAS,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        },
    )
    made._ports = (plain, controller)
    with made as running:
        yield running, f"127.0.0.1:{port}"


def archiver(server: str) -> KafkaSource:
    settings = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "archiver",
    }
    return KafkaSource(
        "guarded",
        bootstrap_servers=server,
        writable=True,
        group_id="hop_archive",
        access=KafkaAccess(settings, {"sasl.password": SecretStr("secret")}),
    )


def grant(directory: Path, server: str) -> None:
    """Do what the script asks of Kafka's program, which the broker here comes without, through the client."""
    record, program = directory / "record", directory / "kafka-acls.sh"
    program.write_text(f'#!/bin/sh\nset -f; echo "$*" >> {record}\n')
    program.chmod(0o755)
    environ = {**os.environ, "PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([str(ACLS), server, "archiver"], env=environ, check=True, timeout=600)
    client = AdminClient({"bootstrap.servers": server})
    for line in record.read_text().splitlines():
        for future in client.create_acls(list(bindings(line.split()))).values():
            future.result(20)


def bindings(words: list[str]) -> Iterator[AclBinding]:
    """What the program would make of its arguments."""
    value = dict(itertools.pairwise(words))
    kind = ResourceType.TOPIC if "--topic" in words else ResourceType.GROUP
    name = value["--topic" if "--topic" in words else "--group"]
    for option, operation in itertools.pairwise(words):
        if option == "--operation":
            yield AclBinding(
                kind,
                name,
                ResourcePatternType.LITERAL,
                value["--allow-principal"],
                "*",
                AclOperation[re.sub("(?<=[a-z])(?=[A-Z])", "_", operation).upper()],  # DescribeConfigs
                AclPermissionType.ALLOW,
            )


@pytest.mark.kafka
def test_with_the_script_s_rights_the_archiver_reads_and_does_nothing_else(
    guarded: tuple[ApacheKafka, str], tmp_path: Path
) -> None:
    broker, server = guarded
    administrator = KafkaSource("plain", bootstrap_servers=broker.bootstrap_servers, writable=True)
    create_sample_topics(administrator, "t")
    publish(administrator, sample_alerts("t", 50))
    # The first commit of all makes the cluster's coordinator of groups, which takes it a moment.
    administrator.set_group_offsets("another", {TopicPartition("t.message.gcn.notices", 0): Committed(0)})
    source = archiver(server)
    assert not source.topics()  # what may not be seen is not there
    assert source.group_access() == frozenset()
    grant(tmp_path, broker.bootstrap_servers)
    wait_for(lambda: len(source.topics()) >= len(SAMPLE_TOPICS), "the rights are known to the broker")
    messages, left = archived(source)
    assert messages > 40
    assert left == 0
    source.note_progress({TopicPartition("t.message.gcn.notices", 0): 1})
    client = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    groups = client.list_consumer_groups().result(20).valid
    assert "hop_archive" in {group.group_id for group in groups}  # progress that monitoring can see
    checks = list(examine_source(source, TopicPolicy(("t.*",)), writable=False, production=True))
    assert {check.verdict for check in checks} == {Verdict.OK}, checks
    with pytest.raises(ForbiddenError):  # the producer's set-up, before any message
        publish(source, sample_alerts("t", 1))
    with pytest.raises(HopArchiveError):
        source.create_topic("t.new", 1)
    for one in (source, administrator):
        one.close()


@pytest.mark.kafka
def test_a_snapshot_takes_what_the_script_s_rights_show_and_without_them_says_what_is_hidden(
    guarded: tuple[ApacheKafka, str], tmp_path: Path
) -> None:
    broker, server = guarded
    administrator = KafkaSource("plain", bootstrap_servers=broker.bootstrap_servers, writable=True)
    administrator.create_topic("u.alerts", 2, {"retention.ms": "1234567"})
    administrator.set_group_offsets("reader", {TopicPartition("u.alerts", 1): Committed(5)})
    grant(tmp_path, broker.bootstrap_servers)
    world, source = World(), archiver(server)
    archive = replace(world.archive(), source=source, topics=TopicPolicy(("u.*",)))
    wait_for(lambda: take_snapshot(archive).groups == 1, "the rights are known to the broker")
    taken = take_snapshot(archive)
    assert (taken.topics, taken.groups, taken.hidden) == (1, 1, ())
    before = [(one.name, one.content) for kind in KINDS for one in world.catalog.snapshots(kind)]
    assert before[0][1]["settings"] == {"retention.ms": "1234567"}
    withdraw(broker.bootstrap_servers)
    wait_for(lambda: take_snapshot(archive).hidden, "the rights are withdrawn")
    assert "reader" not in source.groups()
    with pytest.raises(ForbiddenError):
        source.settings(["u.alerts"])
    assert before == [(one.name, one.content) for kind in KINDS for one in world.catalog.snapshots(kind)]
    for one in (source, administrator):
        one.close()


def withdraw(server: str) -> None:
    """Take back what only snapshots want."""
    client = AdminClient({"bootstrap.servers": server})
    for kind, operation in (("TOPIC", "DESCRIBE_CONFIGS"), ("GROUP", "DESCRIBE")):
        anyone: Any = None  # what the client's types do not know
        which = AclBindingFilter(
            ResourceType[kind],
            anyone,
            ResourcePatternType.ANY,
            anyone,
            anyone,
            AclOperation[operation],
            AclPermissionType.ANY,
        )
        for future in client.delete_acls([which]).values():
            assert future.result(20)
