"""An AWS that is not AWS: moto as a server, a server that refuses, and an environment that knows nothing of either."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hop_archive.config.aws import databases, secrets

REGION = "us-west-2"


def forget() -> None:
    """Ask AWS anew: what one test's AWS said is nothing to the next."""
    secrets.forget()
    databases.forget()


@pytest.fixture
def no_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable, file or metadata service that boto3 would take credentials from."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget()
    yield
    forget()


@pytest.fixture
def keys(no_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in the environment, as moto takes any."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-access-key")


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """All of AWS that moto knows, as a server that other processes reach too."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def moto(keys: None, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, emptied, where boto3 of this process finds it."""
    import urllib.request

    urllib.request.urlopen(f"{moto_endpoint}/moto-api/reset", data=b"").close()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request, which is none of ours
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_endpoint)
    return moto_endpoint


def client(service: str, region: str = REGION) -> Any:
    """Whoever sets AWS up."""
    import boto3

    make: Any = boto3.client  # its stubs want the service as a literal
    return make(service, region_name=region)


def make_secret(name: str, text: str) -> None:
    client("secretsmanager").create_secret(Name=name, SecretString=text)


def make_instance(instance_id: str, **more: Any) -> Any:
    """A Postgres instance; returns what RDS says of it."""
    wanted = {
        "DBInstanceIdentifier": instance_id,
        "DBInstanceClass": "db.t4g.micro",
        "Engine": "postgres",
        "DBName": "archive",
        "MasterUsername": "master",
        "AllocatedStorage": 20,
        **({} if "ManageMasterUserPassword" in more else {"MasterUserPassword": "not-what-is-asked-for"}),
        **more,
    }
    return client("rds").create_db_instance(**wanted)["DBInstance"]


Answer = tuple[int, str, bytes]
"""Status, media type and body."""


@dataclass
class Answering:
    """A server that says what a test wants it to.

    Attributes:
        url: Where it is.
        keys: The access key that signed each request.
        regions: What region each was signed for.
        tokens: The session token that came with each.
        bodies: What was asked.
    """

    url: str = ""
    keys: list[str] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)


@contextmanager
def answering(answer: Callable[[str], Answer]) -> Iterator[Answering]:
    """A server for the length of the block; ``answer`` is given each request's body."""
    heard = Answering()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            _, _, credential = self.headers.get("Authorization", "").partition("Credential=")
            key, _, region, *_ = [*credential.split("/"), "", ""]
            heard.keys.append(key)
            heard.regions.append(region)
            heard.tokens.append(self.headers.get("X-Amz-Security-Token"))
            heard.bodies.append(body)
            status, kind, said = answer(body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST  # noqa: N815 - the base class looks for this name

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    heard.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def json_refusal(code: str, message: str = "as AWS says it", status: int = 400) -> Answer:
    """A refusal of a service that speaks JSON, as Secrets Manager."""
    body = {"__type": code, "message": message}
    return status, "application/x-amz-json-1.1", json.dumps(body).encode()


def xml_refusal(code: str, message: str = "as AWS says it", status: int = 400) -> Answer:
    """A refusal of a service that speaks XML, as RDS."""
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    return status, "text/xml", body.encode()
