"""A proxy that misbehaves passes bytes unchanged, or breaks the connection in the way that was ordered."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from hop_archive.devkit.proxy import Proxy, Trouble

DEADLINE_S = 60.0


class Echo(socketserver.StreamRequestHandler):
    """Answers each line with itself, and remembers it."""

    heard: list[bytes]

    def handle(self) -> None:
        try:
            while line := self.rfile.readline():
                self.server.heard.append(line)  # type: ignore[attr-defined]
                self.wfile.write(line)
        except OSError:
            pass


class Server(socketserver.ThreadingTCPServer):
    """Threads end with their connections."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.heard: list[bytes] = []


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.server_address[1]) as made:
        yield made


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), DEADLINE_S)


def everything(connection: socket.socket) -> bytes:
    """What comes until the end."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_what_comes_passes_unchanged_in_both_directions(proxy: Proxy, server: Server) -> None:
    sent = b"x" * 1_000_000 + b"\n"
    with connect(proxy) as connection:
        sending = threading.Thread(target=connection.sendall, args=(sent,))
        sending.start()
        connection.settimeout(DEADLINE_S)
        parts: list[bytes] = []
        while sum(map(len, parts)) < len(sent):
            parts.append(connection.recv(65_536))
        sending.join()
        connection.shutdown(socket.SHUT_WR)
        parts.append(everything(connection))
        assert b"".join(parts) == sent
    assert server.heard == [sent]
    assert not proxy.struck


@pytest.mark.parametrize("trouble", [Trouble.DELAY, Trouble.THROTTLE])
def test_what_is_slow_arrives_all_the_same(proxy: Proxy, trouble: Trouble) -> None:
    proxy.begin(trouble)
    with connect(proxy) as connection:
        connection.sendall(b"hello, slow world\n")
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == b"hello, slow world\n"
    assert proxy.struck[trouble] >= 2


def test_refused_connections_bring_nothing(proxy: Proxy, server: Server) -> None:
    proxy.begin(Trouble.REFUSE)
    with connect(proxy) as connection:
        assert everything(connection) == b""
    assert server.heard == []


def test_a_request_without_an_answer_took_effect(proxy: Proxy, server: Server) -> None:
    proxy.begin(Trouble.NO_ANSWER)
    with connect(proxy) as connection:
        connection.sendall(b"do it\n")
        with pytest.raises(ConnectionResetError):
            everything(connection)
    assert server.heard == [b"do it\n"]


def test_a_connection_that_is_reset_brings_nothing(proxy: Proxy, server: Server) -> None:
    proxy.begin(Trouble.RESET)
    with connect(proxy) as connection:
        connection.sendall(b"do it\n")
        with pytest.raises(ConnectionResetError):
            everything(connection)
    assert server.heard == []


def test_of_a_connection_that_is_cut_half_passes(proxy: Proxy, server: Server) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"whole\n")
        assert connection.recv(100) == b"whole\n"
        proxy.begin(Trouble.CUT)
        connection.sendall(b"half of\n")
        with suppress(ConnectionResetError):  # told in one way or the other
            assert everything(connection) in (b"", b"ha")
    assert proxy.struck[Trouble.CUT]
    assert server.heard[0] == b"whole\n"
    assert b"".join(server.heard[1:]) in (b"half", b"")


def test_what_falls_into_a_hole_is_told_of_only_when_it_is_over(proxy: Proxy, server: Server) -> None:
    proxy.begin(Trouble.BLACKHOLE)
    with connect(proxy) as connection:
        connection.sendall(b"is anybody there?\n")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(DEADLINE_S)
        proxy.calm()
        with pytest.raises(ConnectionResetError):
            everything(connection)
    assert server.heard == []


def test_after_it_all_passes_again(proxy: Proxy) -> None:
    proxy.begin(Trouble.RESET)
    proxy.calm()
    with connect(proxy) as connection:
        connection.sendall(b"hello\n")
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == b"hello\n"


def test_a_server_that_is_not_there_is_a_connection_that_ends(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    # It may be told of by connecting already.
    with Proxy(port) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as connection:
        everything(connection)


def test_the_same_seed_strikes_alike(server: Server) -> None:
    def strikes(seed: int) -> list[int]:
        counts = []
        with Proxy(server.server_address[1], seed=seed) as proxy:
            proxy.begin(Trouble.REFUSE, 0.5)
            for _ in range(12):
                with connect(proxy) as connection:
                    connection.shutdown(socket.SHUT_WR)
                    assert everything(connection) == b""
                counts.append(proxy.struck[Trouble.REFUSE])
        return counts

    assert strikes(1) == strikes(1) != strikes(2)
