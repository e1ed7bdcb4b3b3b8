"""A pooler lets in whoever comes, and only then finds that there is no server: that is told, and soon."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hop_archive.catalog.postgres.catalog import PostgresCatalog
from hop_archive.errors import UnavailableError

_SSL_REQUEST = 80877103
_LET_IN = b"R" + struct.pack("!ii", 8, 0) + b"Z" + struct.pack("!i", 5) + b"I"


def _refusal(text: str, code: str = "08P01") -> bytes:
    fields = b"".join(
        kind + value.encode() + b"\0" for kind, value in [(b"S", "FATAL"), (b"C", code), (b"M", text)]
    )
    return b"E" + struct.pack("!i", len(fields) + 5) + fields + b"\0"


@contextmanager
def pooler(answer: bytes, welcome: Callable[[bytes], bytes] = lambda startup: _LET_IN) -> Iterator[int]:
    """A server that lets everybody in, and gives ``answer`` to the first statement; silence where that is empty.

    ``welcome`` says otherwise of who is let in, by what the client says of itself.
    """
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            while True:
                length, code = struct.unpack("!ii", connection.recv(8))
                if code != _SSL_REQUEST:
                    said = connection.recv(length - 8)
                    break
                connection.sendall(b"N")
            connection.sendall(welcome(said))
            if connection.recv(65536) and answer:
                connection.sendall(answer)
            else:
                over.wait()

    def accept(listener: socket.socket) -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            accepting.join()


def dsn(port: int, user: str = "u") -> str:
    return f"postgresql://{user}@127.0.0.1:{port}/d?sslmode=disable"


def asked(port: int, renew: Callable[[], str] | None = None) -> str:
    catalog = PostgresCatalog("db", dsn(port), timeout_s=1.0, renew=renew)
    try:
        with pytest.raises(UnavailableError) as raised:
            catalog.topics()
    finally:
        catalog.close()
    return str(raised.value)


@pytest.mark.timeout(30)
def test_one_that_lets_in_and_then_says_nothing_is_given_up_in_the_time_that_a_server_has() -> None:
    with pooler(b"") as port:
        assert "it has said nothing for 1 s" in asked(port)


@pytest.mark.timeout(30)
def test_what_it_says_of_the_server_behind_it_is_told() -> None:
    with pooler(_refusal("server login has been failing")) as port:
        assert "server login has been failing" in asked(port)


@pytest.mark.timeout(30)
def test_what_stands_in_the_way_of_other_credentials_is_told_like_what_stood_in_the_way_of_the_first() -> (
    None
):
    seen: list[bytes] = []

    def welcome(startup: bytes) -> bytes:
        seen.append(startup)
        was_let_in = len(seen) > 1
        return _refusal("no", "28P01") if was_let_in and b"\0u\0" in startup else _LET_IN

    with pooler(b"", welcome) as port:
        told = asked(port, lambda: dsn(port, "another"))
    assert any(b"another" in startup for startup in seen)
    assert "it has said nothing for 1 s" in told
    assert "couldn't get a connection" not in told
