"""The stores that the contract is tested over, the servers behind them, and servers that misbehave on order."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import obstore
import pytest
from obstore.store import S3Store as Client

from hop_archive.devkit.local import processes
from hop_archive.devkit.local.address import External
from hop_archive.devkit.local.machine import choose_ports
from hop_archive.devkit.local.processes import ProcessMark
from hop_archive.devkit.local.s3 import PRIMARY_BUCKET, ObjectStore, S3Address
from hop_archive.errors import MissingSettingError
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Store
from hop_archive.store.s3.store import S3Store
from hop_archive_tests.contract.s3mock import s3mock

READER_KEYS = ("reader", "readers-secret")
MOTO_BUCKET = "contract"
MOTO_PAGE = 100
"""Keys a page of moto's listings, as we ask it to: each request takes it 12 ms of CPU (2026-11-29)."""


class Opened(Protocol):
    """Opens a store whose bucket was empty when the test began."""

    def __call__(self, *, deleting_allowed: bool = False) -> Store: ...


@dataclass
class S3Server:
    """SeaweedFS alone, without the rest of the local stack; or the server that the environment gives."""

    directory: Path
    external: External
    _mark: ProcessMark | None = None
    _ports: tuple[int, ...] = ()
    # A test's own: in SeaweedFS a key can't have the name of a folder, not even of one that was emptied just now.
    prefix: str = "archive"

    @property
    def owned(self) -> bool:
        return not self.external.gives("s3")

    @property
    def bucket(self) -> str:
        return PRIMARY_BUCKET if self.owned else self.external.bucket

    @property
    def address(self) -> S3Address:
        if self.owned:
            return self._server.address(self._ports)
        assert self.external.s3_endpoint
        return S3Address(self.external.s3_endpoint, self.external.s3_access_key, self.external.s3_secret_key)

    @property
    def _server(self) -> ObjectStore:
        return ObjectStore(self.directory, "archive", "archives-secret")

    def start(self) -> None:
        if not self.owned or processes.is_running(self._mark):
            return
        server, log = self._server, self.directory / "s3.log"
        self._ports = self._ports or choose_ports(server.port_count)
        server.prepare()
        _add_reader(self.directory / "identities.json")
        self._mark = processes.start(server.launch(self._ports), log)
        processes.await_answer("s3", partial(server.settle, self._ports), self._mark, log)

    def kill(self) -> None:
        assert self.owned
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        if self.owned:
            self._end(signal.SIGTERM)
            self._server.tidy(self._ports)

    def _end(self, how: signal.Signals) -> None:
        if self._mark:
            processes.stop(self._mark, how, self._server.grace_s)
        self._mark = None

    def store(
        self,
        *,
        deleting_allowed: bool = False,
        prefix: str = "",
        bucket: str = "",
        endpoint: str = "",
        keys: tuple[str, str] | None = None,
        timeout_s: float = 10.0,
        retry_s: float = 1.0,
    ) -> S3Store:
        access_key, secret_key = keys or (self.address.access_key, self.address.secret_key)
        return S3Store(
            "s3-test",
            bucket=bucket or self.bucket,
            endpoint=endpoint or self.address.endpoint,
            prefix=prefix or self.prefix,
            access_key=access_key,
            secret_key=secret_key,
            deleting_allowed=deleting_allowed,
            timeout_s=timeout_s,
            retry_s=retry_s,
        )

    def client(self) -> Client:
        address = self.address
        return _client(self.bucket, address.endpoint, address.access_key, address.secret_key)


def _add_reader(identities: Path) -> None:
    access_key, secret_key = READER_KEYS
    known = json.loads(identities.read_text())
    known["identities"].append(
        {
            "name": "reader",
            "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
            "actions": ["Read", "List"],
        }
    )
    identities.write_text(json.dumps(known))


def _client(bucket: str, endpoint: str, access_key: str, secret_key: str) -> Client:
    return Client(
        bucket,
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=access_key,
        secret_access_key=secret_key,
        client_options={"allow_http": True},
    )


def _empty(client: Client) -> None:
    for page in obstore.list(client, chunk_size=1000):
        obstore.delete(client, [meta["path"] for meta in page])


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    external = External.from_environment(os.environ)
    server = S3Server(tmp_path_factory.mktemp("s3"), external)
    try:
        server.start()
    except MissingSettingError as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no S3 server: {reason} Or set HOP_ARCHIVE_TEST_S3_ENDPOINT and its keys.")
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server) -> S3Server:
    """The server, up whatever the test before did to it, its bucket empty."""
    s3_server.start()
    _empty(s3_server.client())
    s3_server.prefix = f"archive/{uuid.uuid4().hex[:8]}"
    return s3_server


@pytest.fixture
def own_s3(s3: S3Server) -> S3Server:
    """A server that the test may stop, and that knows the reader."""
    if not s3.owned:
        pytest.skip("needs an S3 server of its own, and HOP_ARCHIVE_TEST_S3_ENDPOINT gives another's")
    return s3


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """A server that lists in byte order and refuses to overwrite, but knows no credentials and has no concurrency."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3mock_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Address]:
    """Adobe's S3Mock, which knows no credentials; an S3 of another make than all others here."""
    with ExitStack() as stack:
        try:
            address = stack.enter_context(s3mock(tmp_path_factory.mktemp("s3mock")))
        except MissingSettingError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
        yield address


def _store_at(endpoint: str, bucket: str, deleting_allowed: bool) -> Store:
    return S3Store(
        f"{bucket}-test",
        bucket=bucket,
        endpoint=endpoint,
        access_key="any",
        secret_key="any",
        deleting_allowed=deleting_allowed,
        concurrency=8,
    )


@pytest.fixture(
    params=[
        "mock in memory",
        "mock in a directory",
        "seaweedfs",
        "moto",
        pytest.param("s3mock", marks=[pytest.mark.kafka, pytest.mark.slow_kafka]),
    ]
)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Opens the store of each kind. All that one test opens see the same objects, but mocks in memory."""
    with ExitStack() as stack:
        make = _opener(request, tmp_path)

        def open_store(*, deleting_allowed: bool = False) -> Store:
            store = make(deleting_allowed)
            stack.callback(store.close)
            return store

        yield open_store


def _opener(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bool], Store]:
    if request.param == "mock in memory":
        return lambda allowed: MockStore(deleting_allowed=allowed)
    if request.param == "mock in a directory":
        return lambda allowed: MockStore(directory=tmp_path / "objects", deleting_allowed=allowed)
    if request.param == "seaweedfs":
        server: S3Server = request.getfixturevalue("s3")
        return lambda allowed: server.store(deleting_allowed=allowed)
    if request.param == "s3mock":
        address: S3Address = request.getfixturevalue("s3mock_address")
        bucket = f"contract-{uuid.uuid4().hex[:8]}"  # of each test: to empty one takes it seconds
        address.expect("PUT", bucket)
        return lambda allowed: _store_at(address.endpoint, bucket, allowed)
    endpoint: str = request.getfixturevalue("moto_endpoint")
    request.getfixturevalue("monkeypatch").setenv("MOTO_S3_DEFAULT_MAX_KEYS", str(MOTO_PAGE))
    _renew_bucket(endpoint)
    return lambda allowed: _store_at(endpoint, MOTO_BUCKET, allowed)


def _renew_bucket(endpoint: str) -> None:
    status, _ = S3Address(endpoint, "any", "any").call("PUT", MOTO_BUCKET)
    assert status in (200, 409)
    _empty(_client(MOTO_BUCKET, endpoint, "any", "any"))


@pytest.fixture
def store(opened: Opened) -> Store:
    return opened(deleting_allowed=True)


@pytest.fixture
def page(opened: Opened, request: pytest.FixtureRequest) -> int:
    """How many keys the store lists, and deletes, by one request: S3's thousand, or moto's few; mocks have no bound."""
    return 1_000 if request.node.callspec.params["opened"] in ("seaweedfs", "s3mock") else MOTO_PAGE


@dataclass
class BreakingProxy:
    """Passes requests on to a server; of the next ``swallow`` puts it keeps the answers to itself, and hangs up or not."""

    target: str
    swallow: int = 0
    hangs_up: bool = True
    swallowed: list[str] = field(default_factory=list)

    def refusal(self, request: bytes) -> bytes:
        """The answer to a request that is not passed on; empty: it is."""
        return b""

    def altered(self, request: bytes) -> bytes:
        """What is passed on in the place of a request."""
        return request

    def answered(self, request: bytes, answer: bytes) -> bytes:
        """What is told of the server's answer to a request."""
        return answer

    @contextmanager
    def run(self) -> Iterator[str]:
        """Serve, and tell the endpoint."""
        with _listener() as listener:
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        host, port = urlsplit(self.target).netloc.split(":")
        with client, socket.create_connection((host, int(port))) as server, suppress(OSError):
            while request := _one_http_message(client):
                if answer := self.refusal(request):
                    client.sendall(answer)
                    continue
                server.sendall(self.altered(request))
                answer = self.answered(request, _one_http_message(server))
                if request.startswith(b"PUT") and self.swallow > 0:
                    self.swallow -= 1
                    self.swallowed.append(answer.split(b"\r\n")[0].decode())
                    if not self.hangs_up:
                        client.recv(1)  # returns when the other side has lost patience
                    return
                client.sendall(answer)


class IgnoringProxy(BreakingProxy):
    """Passes requests on to a server as if it had never heard of ``If-None-Match``: a put replaces what stands there."""

    def altered(self, request: bytes) -> bytes:
        return re.sub(rb"(?i)\r\nif-none-match:[^\r]*", b"", request, count=1)


@dataclass
class LaggingProxy(BreakingProxy):
    """Passes requests on to a server; what was put is not there for so many ``looks`` at it."""

    looks: int = 0
    _unseen: dict[bytes, int] = field(default_factory=dict)

    def refusal(self, request: bytes) -> bytes:
        method, path, *_ = request.split(b" ", 2)
        if method != b"GET" or not self._unseen.get(path):
            return b""
        self._unseen[path] -= 1
        body = b"<Error><Code>NoSuchKey</Code><Message>not yet</Message></Error>"
        return b"HTTP/1.1 404 Not Found\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    def answered(self, request: bytes, answer: bytes) -> bytes:
        method, path, *_ = request.split(b" ", 2)
        if method == b"PUT" and b" 200 " in answer[:16]:
            self._unseen[path] = self.looks
        return answer


class CountingProxy(BreakingProxy):
    """Passes requests on to a server, and remembers them: method and path, in order."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.asked: list[str] = []

    def altered(self, request: bytes) -> bytes:
        self.asked.append(b" ".join(request.split(b" ", 2)[:2]).decode())
        return request


def proven(store: S3Store) -> S3Store:
    """The store, as if its server had been seen to honour conditions: for tests of what else servers do."""
    store._is_proven = True
    return store


class RefusingProxy(BreakingProxy):
    """Passes requests on to a server, but for puts while it ``refuses``: those it answers with 403 and a code."""

    def __init__(self, target: str, code: str) -> None:
        super().__init__(target)
        self.refuses = False
        self._body = f"<Error><Code>{code}</Code><Message>not now</Message></Error>".encode()

    def refusal(self, request: bytes) -> bytes:
        """403 to each put while it refuses."""
        if not (self.refuses and request.startswith(b"PUT")):
            return b""
        return b"HTTP/1.1 403 Forbidden\r\ncontent-length: %d\r\n\r\n%s" % (len(self._body), self._body)


class SlowProxy(BreakingProxy):
    """Passes requests on to a server, each put after a while: as a service far away that many may use at once."""

    def __init__(self, target: str, delay_s: float) -> None:
        super().__init__(target)
        self._delay_s = delay_s

    def refusal(self, request: bytes) -> bytes:
        """None; a put waits."""
        if request.startswith(b"PUT"):
            time.sleep(self._delay_s)
        return b""


def _listener() -> closing[socket.socket]:
    listener = socket.create_server(("127.0.0.1", 0))
    return closing(listener)


def _one_http_message(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65_536)):
            return b""
        data += more
    length = re.search(rb"content-length: *(\d+)", data, re.IGNORECASE)
    whole = data.index(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
    while len(data) < whole:
        data += connection.recv(65_536)
    return data


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections and says nothing."""
    with _listener() as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@dataclass
class ScriptedServer:
    """Answers each method with a given status and S3 error code, in turn; the last for ever.

    Attributes:
        script: The answers, by method.
        says: The message of each error.
        cuts: Whether the connection ends in the middle of each body of an object.
        asked: The methods.
        ranges: What part each GET of an object asked for; None for all of it.
    """

    script: dict[str, list[tuple[int, str]]]
    says: str = "on order"
    cuts: bool = False
    asked: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)

    @contextmanager
    def run(self) -> Iterator[str]:
        """Serve, and tell the endpoint."""
        with ThreadingHTTPServer(("127.0.0.1", 0), _handler(self)) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    def answer(self, method: str) -> tuple[int, str]:
        self.asked.append(method)
        answers = self.script[method]
        return answers.pop(0) if len(answers) > 1 else answers[0]


_BODIES = {
    200: "<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>",
}


def _handler(script: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            # A HEAD is a question of boto3's or obstore's own; what counts is what GET would say.
            status, code = script.answer("GET" if self.command == "HEAD" else self.command)
            body = _BODIES.get(
                status, f"<Error><Code>{code}</Code><Message>{script.says}</Message></Error>"
            ).encode()
            of_an_object = self.command == "GET" and "list-type" not in self.path
            if of_an_object:
                script.ranges.append(self.headers.get("range"))
            if script.cuts and of_an_object:
                self._cut_off(body, self.headers.get("range"))
                return
            self.send_response(status)
            self.send_header("content-type", "application/xml")
            self.send_header("etag", '"0"')
            self.send_header("last-modified", "Tue, 24 Nov 2026 00:00:00 GMT")
            if status == 301 and code:
                self.send_header("x-amz-bucket-region", "eu-north-1")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _cut_off(self, body: bytes, asked: str | None) -> None:
            start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("etag", '"0"')
            self.send_header("last-modified", "Tue, 24 Nov 2026 00:00:00 GMT")
            self.send_header("content-range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("content-length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start : start + 1] if start < len(body) // 2 else b"")
            self.close_connection = True

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815 - http.server's names

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    return Handler
