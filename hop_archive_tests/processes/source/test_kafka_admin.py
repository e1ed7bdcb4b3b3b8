"""What must not be asked of librdkafka: two ways in which an admin client ends the whole process (docs/decisions/0006).

And one in which it asks in vain, unless its settings keep it from that: the broker that is silent, time and again.

A broker that only these tests know says what Apache Kafka says for moments; what would die is a process of its own.
"""

from __future__ import annotations

import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from hop_archive.source.kafka.source import KafkaSource

API_VERSIONS, METADATA = 18, 3
UNSUPPORTED_VERSION = 35

CLUSTER_ID = """
import sys
from hop_archive.errors import UnavailableError
from hop_archive.source.kafka.source import KafkaSource
source = KafkaSource("s", bootstrap_servers=sys.argv[1], timeout_s=2.0)
print(source.cluster_id())
try:
    while True:
        source.cluster_id()
except UnavailableError as error:
    print("unavailable:", error)
source.close()
"""

CLOSED_MEANWHILE = """
import sys, threading, time
from hop_archive.errors import HopArchiveError
from hop_archive.source.kafka.source import KafkaSource
source = KafkaSource("s", bootstrap_servers=sys.argv[1], timeout_s=5.0)
def ask():
    try:
        source.topics(["topic"])
    except HopArchiveError as error:
        print(error)
thread = threading.Thread(target=ask)
thread.start()
time.sleep(1.5)
source.close()
thread.join()
print("closed")
"""


class _Answers(socketserver.BaseRequestHandler):
    """Answers ApiVersions and Metadata, each in its oldest version that tells a cluster."""

    server: _Server

    def handle(self) -> None:
        while header := self.request.recv(4, 0x100):  # MSG_WAITALL
            request = self.request.recv(struct.unpack(">i", header)[0], 0x100)
            key, version, number = struct.unpack(">hhi", request[:8])
            if self.server.is_silent.is_set():
                if key == METADATA:
                    self.server.left_waiting.set()
                self.server.is_over.wait()
                return
            answer = struct.pack(">i", number) + self._answer(key, version)
            self.request.sendall(struct.pack(">i", len(answer)) + answer)

    def _answer(self, key: int, version: int) -> bytes:
        if key == API_VERSIONS:
            known = struct.pack(">ihhhhhh", 2, METADATA, 2, 2, API_VERSIONS, 0, 0)
            return struct.pack(">h", UNSUPPORTED_VERSION if version else 0) + known
        assert (key, version) == (METADATA, 2)
        time.sleep(self.server.delay_s)
        self.server.told += 1
        alive = self.server.cluster if self.server.told <= self.server.alive_for else ()
        host = b"127.0.0.1"
        brokers = b"".join(
            struct.pack(">ih", number, len(host)) + host + struct.pack(">ih", port, -1)
            for number, port in enumerate(alive, start=1)
        )
        cluster = struct.pack(">h", 4) + b"fake" + struct.pack(">i", 1 if alive else -1)
        return struct.pack(">i", len(alive)) + brokers + cluster + struct.pack(">i", 0)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    delay_s = 0.0
    alive_for = 0
    told = 0
    cluster: tuple[int, ...] = ()

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.is_silent, self.left_waiting, self.is_over = (threading.Event() for _ in range(3))

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are none of a test's business."""


@contextmanager
def brokers(number: int, *, alive_for: int, delay_s: float = 0.0) -> Iterator[list[_Server]]:
    """A cluster whose brokers count themselves as alive for so many answers each, and take their time with each."""
    with ExitStack() as stack:
        servers = [stack.enter_context(_Server()) for _ in range(number)]
        for server in servers:
            server.cluster = tuple(int(one.server_address[1]) for one in servers)
            server.delay_s = delay_s
            server.alive_for = alive_for
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            stack.callback(server.is_over.set)
        yield servers


@contextmanager
def broker(*, alive_for: int, delay_s: float = 0.0) -> Iterator[str]:
    """A cluster of one; where to reach it."""
    with brokers(1, alive_for=alive_for, delay_s=delay_s) as (server,):
        yield address(server)


def address(server: _Server) -> str:
    return f"127.0.0.1:{server.server_address[1]}"


def program(text: str, servers: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "faulthandler", "-c", text, servers]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_cluster_that_counts_no_broker_as_alive_is_unavailable_and_ends_no_process() -> None:
    with broker(alive_for=5) as servers:
        ended = program(CLUSTER_ID, servers)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("fake\nunavailable:")


def test_closing_waits_for_a_call_that_another_thread_has_in_flight() -> None:
    with broker(alive_for=1_000_000, delay_s=1.0) as servers:
        ended = program(CLOSED_MEANWHILE, servers)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("closed\n")


def test_the_others_answer_where_the_broker_that_was_asked_is_silent() -> None:
    with brokers(2, alive_for=1_000_000) as servers:
        source = KafkaSource("s", bootstrap_servers=",".join(address(server) for server in servers))
        with closing(source):
            for _ in range(
                100
            ):  # the client asks whichever it likes: the one that it asked last is made silent, until it is asked
                told = [server.told for server in servers]
                assert source.cluster_id() == "fake"
                asked = max(servers, key=lambda server: server.told - told[servers.index(server)])
                asked.is_silent.set()
                assert source.cluster_id() == "fake"
                if asked.left_waiting.is_set():
                    break
                asked.is_silent.clear()
            assert asked.left_waiting.is_set()
