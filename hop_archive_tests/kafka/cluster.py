"""Three Apache Kafka brokers for tests, each a controller with a vote: leaders move, and any one of them may be down."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import ElectionType, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from hop_archive.source.kafka.client import LOGGER
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.java import find_java
from hop_archive_tests.kafka.broker import (
    ApacheKafka,
    Seat,
    find_kafka,
    free_ports,
    java_command,
    new_cluster_id,
)
from hop_archive_tests.kafka.listeners import Listeners

SIZE = 3
ANSWER_S = 60.0
TOOL_S = 120.0

_PROPERTIES: Mapping[str, str] = {
    "default.replication.factor": str(SIZE),
    "offsets.topic.replication.factor": str(SIZE),
    "transaction.state.log.replication.factor": str(SIZE),
    "transaction.state.log.min.isr": "2",
    "auto.leader.rebalance.enable": "false",  # leaders move when a test says so
    # Quotas are measured over two seconds: over eleven otherwise, of which ten are free.
    "quota.window.num": "2",
}


class KafkaCluster:
    """Three brokers on 127.0.0.1. A context manager: leaving it stops them and removes nothing.

    Args:
        directory: Made when it is not there; each broker has a folder in it.
        properties: Of each broker, on top of its own.
    """

    def __init__(self, directory: Path, properties: Mapping[str, str] | None = None) -> None:
        cluster_id, ports = new_cluster_id(), free_ports(2 * SIZE)
        pairs = [*zip(ports[::2], ports[1::2], strict=True)]
        self.brokers = tuple(
            ApacheKafka(
                directory / str(number),
                {**_PROPERTIES, **(properties or {})},
                seat=Seat(cluster_id, number, pairs),
            )
            for number in range(1, SIZE + 1)
        )

    @property
    def owned(self) -> bool:
        """Whether tests may start and stop brokers here; false with ``HOP_ARCHIVE_TEST_KAFKA``."""
        return all(broker.owned for broker in self.brokers)

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect to."""
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    @cached_property
    def admin(self) -> AdminClient:
        """What asks any of the brokers that are up."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers}, logger=LOGGER)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with ThreadPoolExecutor(SIZE) as pool:
            list(pool.map(ApacheKafka.stop, self.brokers))

    def start(self) -> None:
        """Start those that are down, all at once: none answers before two are there."""
        with ThreadPoolExecutor(SIZE) as pool:
            list(pool.map(ApacheKafka.start, self.brokers))
        wait_for(
            lambda: len(self.admin.list_topics(timeout=ANSWER_S).brokers) == SIZE, "all brokers are there"
        )

    def broker(self, number: int) -> ApacheKafka:
        """The one with that id."""
        return self.brokers[number - 1]

    def create_topic(self, name: str, assignment: list[list[int]], **config: object) -> str:
        """Create a topic whose partitions have these replicas, the leader first; in settings ``_`` stands for a dot."""
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        new = NewTopic(name, len(assignment), replica_assignment=assignment, config=settings)
        self.admin.create_topics([new])[name].result(ANSWER_S)
        wait_for(lambda: len(self.leaders([name])) == len(assignment), f"{name} has leaders")
        return name

    def _partitions(self, topics: Collection[str]) -> dict[TopicPartition, Any]:
        found = self.admin.list_topics(timeout=ANSWER_S).topics
        return {
            TopicPartition(name, number): known
            for name in topics
            if name in found
            for number, known in found[name].partitions.items()
        }

    def leaders(self, topics: Collection[str]) -> dict[tuple[str, int], int]:
        """Who leads each partition that has a leader."""
        known = self._partitions(topics).items()
        return {(at.topic, at.partition): one.leader for at, one in known if one.leader > 0}

    def in_sync(self, topics: Collection[str]) -> dict[tuple[str, int], set[int]]:
        """Which replicas of each partition have all of it."""
        return {(at.topic, at.partition): {*one.isrs} for at, one in self._partitions(topics).items()}

    def is_whole(self, topics: Collection[str]) -> bool:
        """Whether each partition has all of its replicas in sync."""
        return all({*one.isrs} == {*one.replicas} for one in self._partitions(topics).values())

    def move_leaders(self, topics: Collection[str], directory: Path) -> None:
        """Have another broker lead each partition: its replicas are told in another order, and the first of them elected."""
        replicas = {at: [*known.replicas] for at, known in self._partitions(topics).items()}
        plan = directory / "reassignment.json"
        plan.write_text(
            json.dumps(
                {
                    "version": 1,
                    "partitions": [
                        {"topic": at.topic, "partition": at.partition, "replicas": [*old[1:], old[0]]}
                        for at, old in replicas.items()
                    ],
                }
            )
        )
        tool = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
        self.run_tool(tool, "--reassignment-json-file", str(plan), "--execute")
        wait_for(
            lambda: all(
                known.replicas == [*replicas[at][1:], replicas[at][0]]
                for at, known in self._partitions(topics).items()
            ),
            "replicas are in their new order",
        )
        self.admin.elect_leaders(ElectionType.PREFERRED, [*replicas]).result(ANSWER_S)

    def set_quota(self, client_id: str, consumer_byte_rate: int | None) -> None:
        """How many bytes a second clients of that id are given by each broker; None: as many as they take."""
        entity = ("--alter", "--entity-type", "clients", "--entity-name", client_id)
        name = "consumer_byte_rate"
        change = (
            ("--delete-config", name)
            if consumer_byte_rate is None
            else ("--add-config", f"{name}={consumer_byte_rate}")
        )
        self.run_tool("org.apache.kafka.tools.ConfigCommand", *entity, *change)

    def run_tool(self, main: str, *arguments: str) -> str:
        """Run one of Kafka's own tools, and return what it printed."""
        own = ("--bootstrap-server", self.bootstrap_servers, *arguments)
        done = subprocess.run(
            java_command(find_java(os.environ), find_kafka(), main, *own),
            capture_output=True,
            text=True,
            timeout=TOOL_S,
            check=False,
        )
        assert done.returncode == 0, f"{main} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout


@dataclass(frozen=True, slots=True)
class Three:
    """The cluster, and its listeners that want a login over TLS."""

    kafka: KafkaCluster
    logins: Sequence[Listeners]

    @property
    def login_servers(self) -> str:
        """Where clients connect to with a login."""
        return ",".join(found.server("LOGIN") for found in self.logins)
