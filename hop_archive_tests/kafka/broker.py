"""One Apache Kafka broker for tests: found or fetched, started, stopped, killed and restarted.

Kafka is taken from the first of these that is there:

1. ``HOP_ARCHIVE_TEST_KAFKA``: bootstrap servers of a cluster that is running already. Nothing is started,
   and it cannot be stopped, killed or given properties (`ForbiddenError`).
2. ``KAFKA_HOME``: an installation; its ``libs`` folder is the class path.
3. Maven Central, through the ``pom.xml`` beside this module, into ``$HOP_ARCHIVE_CACHE`` or
   ``~/.cache/hop_archive``. That happens once; afterwards neither Maven nor a network is needed.
"""

from __future__ import annotations

import base64
import os
import random
import re
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from xml.etree import ElementTree

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from hop_archive.errors import ForbiddenError, MissingSettingError, UnavailableError
from hop_archive_tests.java import QUICK_JVM, find_jars, find_java

POM = Path(__file__).with_name("pom.xml")
START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 30.0
# Below the range that Linux and macOS hand out to outgoing connections: while the broker is down, a client's own
# connection can't be given the broker's port, nor a client that keeps trying end up connected to itself. And not where the
# local stack chooses, nor where another process of the tests does: it was given the port of a broker that was down, once.
PORTS = range(12_000, 20_000)[
    int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) :: int(
        os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    )
]
HEAP = ("-Xms128m", "-Xmx512m")
SMALL_HEAP = ("-Xms64m", "-Xmx256m")
"""Of one of three."""

# Small and quick rather than safe or fast: one replica, one partition, housekeeping every second or less.
DEFAULT_PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "message.max.bytes": str(25 * 2**20),
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "transaction.max.timeout.ms": "900000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    "log.initial.task.delay.ms": "500",  # 30 s otherwise, before retention first looks
    "log.retention.check.interval.ms": "1000",
    # A broker that had to be killed forgets deletions since the last checkpoint (60 s otherwise).
    "log.flush.start.offset.checkpoint.interval.ms": "500",
    "log.segment.delete.delay.ms": "500",
    "log.cleaner.backoff.ms": "200",
    "log.cleaner.dedupe.buffer.size": str(4 * 2**20),  # 128 MB otherwise, a quarter of the heap
    # A killed broker may not register again before its session has ended (9 s otherwise).
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


@dataclass(frozen=True, slots=True)
class KafkaInstallation:
    """A Kafka that can be run.

    Attributes:
        classpath: What ``java -cp`` takes.
        version: The release, read from the name of its main jar.
        origin: Where it came from, for people.
    """

    classpath: str
    version: str
    origin: str


def find_kafka(environment: Mapping[str, str] | None = None, pom: Path = POM) -> KafkaInstallation:
    """Return the Kafka of ``KAFKA_HOME``, or else that of ``pom.xml``, fetched when it is not in the cache.

    Where another ``pom`` is given it is that one's, whatever ``KAFKA_HOME`` says.

    Fetching takes a minute or so, once; two processes may do it at the same time, and one of the results stays.

    Args:
        environment: Read instead of the process's own.
        pom: Names the release.

    Raises:
        MissingSettingError: ``KAFKA_HOME`` holds no Kafka, or Kafka must be fetched and ``mvn`` is not there.
        UnavailableError: Maven failed.
    """
    env = os.environ if environment is None else environment
    if pom == POM and (home := env.get("KAFKA_HOME")):
        return _installation(Path(home) / "libs", f"KAFKA_HOME={home}")
    folder = find_jars(pom, f"kafka-{pinned_version(pom)}", env)
    return _installation(folder, f"Maven artifacts in {folder}")


def pinned_version(pom: Path = POM) -> str:
    """Return the Kafka release that ``pom.xml`` names."""
    version = ElementTree.parse(pom).findtext(".//{*}kafka.version")
    assert version
    return version


@dataclass(frozen=True, slots=True)
class Seat:
    """The place of a broker in a cluster whose brokers are controllers, too, each with a vote.

    Attributes:
        number: Its id: 1 for the first.
        ports: Of all of them, in the order of their ids: the broker's, and the controller's.
    """

    cluster_id: str
    number: int
    ports: Sequence[tuple[int, int]]


class ApacheKafka:
    """One broker, its own controller, on 127.0.0.1, with its data in ``directory``.

    Nothing runs before `start`. A context manager: leaving it stops the broker and removes nothing, so that a
    second one on the same directory finds the first one's topics. Ports stay the same over restarts.
    The output of all its lives is in ``directory/broker.log``.

    Not thread-safe. A test process that is itself killed by SIGKILL leaves its broker running.

    Args:
        directory: Made when it is not there.
        properties: Broker settings, on top of `DEFAULT_PROPERTIES`.
        environment: Read instead of the process's own.
        joins: A broker whose cluster this one is the second of, without a vote; None makes a cluster of one.
        seat: Its place among several that all have a vote (`KafkaCluster`); it starts only with most of the others.
        pom: Names the release. Another than the tests' own is never that of a cluster that is running already.
    """

    def __init__(
        self,
        directory: Path,
        properties: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        joins: ApacheKafka | None = None,
        seat: Seat | None = None,
        pom: Path = POM,
    ) -> None:
        self._directory = directory
        self._joins = joins
        self._seat = seat
        known = joins or seat
        self.cluster_id: str = known.cluster_id if known else new_cluster_id()
        self._properties = dict(properties or {})
        self._environment = dict(os.environ if environment is None else environment)
        self._pom = pom
        self._given = self._environment.get("HOP_ARCHIVE_TEST_KAFKA", "") if pom == POM else ""
        self._ports: Sequence[int] = () if self._given else free_ports(2)
        if seat:
            self._ports = seat.ports[seat.number - 1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def owned(self) -> bool:
        """Whether the broker is this object's to stop, kill and set; false with ``HOP_ARCHIVE_TEST_KAFKA``."""
        return not self._given

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect to."""
        return self._given or f"127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int | None:
        """The broker's process, None when this object runs none."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        """The file that the broker writes its output to."""
        return self._directory / "broker.log"

    def start(self) -> Self:
        """Start the broker and return when it answers; nothing happens when it is running.

        Raises:
            MissingSettingError: Java or Kafka is not there.
            UnavailableError: The broker died or did not answer in time; quotes the end of its log. None is left running.
            ForbiddenError: Properties were asked of a cluster that is running already.
        """
        if self.owned:
            self._start_own()
        elif self._properties:
            raise self._forbidden("given properties")
        else:
            self._wait_until_it_answers()
        return self

    def stop(self) -> None:
        """Shut the broker down in order, or kill it when that takes too long; afterwards there is no process.

        Nothing happens when it is not running.

        Raises:
            ForbiddenError: It is not ours.
        """
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker by SIGKILL, as a crash would; a later `start` recovers its data.

        Raises:
            ForbiddenError: It is not ours.
        """
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """`stop`, then `start`, on the same ports with the same data.

        Raises:
            ForbiddenError: It is not ours.
            UnavailableError: As for `start`.
        """
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.owned:
            self.stop()

    def _start_own(self) -> None:
        if self._process and self._process.poll() is None:
            return
        java, kafka = find_java(self._environment), find_kafka(self._environment, self._pom)
        settings = self._write_properties()
        if not (self._directory / "data" / "meta.properties").exists():
            self._format(java, kafka, settings)
        heap = SMALL_HEAP if self._seat else HEAP
        self._process = self._launch(java_command(java, kafka, "kafka.Kafka", str(settings), heap=heap))
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise

    def _write_properties(self) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        file = self._directory / "server.properties"
        settings = {**DEFAULT_PROPERTIES, **self._places(), **self._properties}
        file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return file

    def _places(self) -> dict[str, str]:
        broker, controller = (f"127.0.0.1:{port}" for port in self._ports)
        if self._joins:
            return {
                "process.roles": "broker",
                "node.id": "2",
                "listeners": f"PLAINTEXT://{broker}",
                "advertised.listeners": f"PLAINTEXT://{broker}",
                "controller.quorum.bootstrap.servers": f"127.0.0.1:{self._joins._ports[1]}",
                "log.dirs": str(self._directory / "data"),
            }
        listeners = f"PLAINTEXT://{broker},CONTROLLER://{controller}"
        quorum = {"controller.quorum.bootstrap.servers": controller}
        if self._seat:
            voters = [f"{n}@127.0.0.1:{port}" for n, (_, port) in enumerate(self._seat.ports, 1)]
            quorum = {"node.id": str(self._seat.number), "controller.quorum.voters": ",".join(voters)}
        return {
            "listeners": listeners,
            "advertised.listeners": listeners,
            "log.dirs": str(self._directory / "data"),
            **quorum,
        }

    def _format(self, java: str, kafka: KafkaInstallation, settings: Path) -> None:
        # --cluster-id=X and not two words: an id may begin with a dash.
        alone = () if self._joins or self._seat else ("--standalone",)
        arguments = ("format", f"--cluster-id={self.cluster_id}", *alone, "--config", str(settings))
        process = self._launch(java_command(java, kafka, "kafka.tools.StorageTool", *arguments))
        try:
            code = process.wait(START_TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
        if code:
            raise self._failure(f"Formatting the storage of Apache Kafka failed with exit code {code}.")

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in the terminal reaches the tests, which then stop the broker in order.
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._directory,
            )

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(self.bootstrap_servers):
            if self._process and self._process.poll() is not None:
                raise self._failure(
                    f"Apache Kafka died with exit code {self._process.returncode} while starting."
                )
            if time.monotonic() > deadline:
                raise self._failure(f"Apache Kafka did not answer within {START_TIMEOUT_S:.0f} s.")
            time.sleep(0.05)

    def _end(self, how: signal.Signals) -> None:
        if not self.owned:
            raise self._forbidden("stopped or killed")
        if process := self._process:
            process.send_signal(how)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._process = None

    def _failure(self, what: str) -> UnavailableError:
        return UnavailableError(
            f"{self.bootstrap_servers}: {what}\n{_tail(self.log)}", bootstrap_servers=self.bootstrap_servers
        )

    def _forbidden(self, what: str) -> ForbiddenError:
        return ForbiddenError(
            f"The Kafka at {self._given} was running already, so it can't be {what} by a test.",
            remedy="Unset HOP_ARCHIVE_TEST_KAFKA to let the tests start a broker of their own.",
            bootstrap_servers=self._given,
        )


def java_command(
    java: str, kafka: KafkaInstallation, main: str, *arguments: str, heap: Sequence[str] = HEAP
) -> list[str]:
    """What runs a class of Kafka's: the broker, or one of its tools."""
    # With no log4j configuration in the class path, log4j's own default prints to the console from this level on.
    return [java, *heap, *QUICK_JVM, "-Dlog4j2.level=INFO", "-cp", kafka.classpath, main, *arguments]


def _answers(bootstrap_servers: str) -> bool:
    """Whether a broker tells its cluster id. Connects by hand first: the client would log each refused connection."""
    host, port = bootstrap_servers.split(",")[0].rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        return (
            AdminClient({"bootstrap.servers": bootstrap_servers}).list_topics(timeout=5).cluster_id
            is not None
        )
    except (OSError, KafkaException):
        return False


def new_cluster_id() -> str:
    """An id as Kafka makes them."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def free_ports(count: int) -> tuple[int, ...]:
    """Ports that nobody listens at, and no other worker of the tests takes."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if _is_free(port):
            found.append(port)
        if len(found) == count:
            break
    return tuple(found)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0 and _can_bind(probe, port)


def _can_bind(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"


def _installation(libs: Path, origin: str) -> KafkaInstallation:
    for jar in sorted(libs.glob("kafka_2.*.jar")):
        if match := re.fullmatch(r"kafka_2\.\d+-(\d[\d.]*\d)\.jar", jar.name):
            return KafkaInstallation(f"{libs}/*", match[1], origin)
    raise MissingSettingError(
        f"{origin}: no Apache Kafka there; {libs} holds no kafka_2.*.jar.",
        remedy="Point KAFKA_HOME at the folder that holds libs/, or unset it; a broken cache folder can be deleted.",
    )
