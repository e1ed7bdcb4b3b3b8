"""The role of a task or an instance: what hands out its keys, and the AWS that is asked with them."""

from __future__ import annotations

import datetime
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest

from hop_archive.config.load import Configuration, parse
from hop_archive.config.open import open_store
from hop_archive.config.stanzas import KafkaSourceStanza
from hop_archive.errors import ForbiddenError
from hop_archive.store.protocol import Created, NewObject
from hop_archive_tests.aws import REGION, moto_endpoint, no_aws

__all__ = ["moto_endpoint", "no_aws"]

BUCKET = "roles-bucket"
SECRET = {"username": "archiver", "password": "of-the-secret"}
ROLE = "archiver-role"
METADATA = f"/latest/meta-data/iam/security-credentials/{ROLE}"
TASK_TOKEN = "let-this-task-in"


@dataclass
class Aws:
    """Hands out a role's keys, and passes every other request on to moto.

    Attributes:
        moto: Where that is.
        url: Where this is.
        key: The access key that is handed out; none: whoever asks for keys is refused.
        signed: Of each request that was passed on: service, access key, session token.
        handed: Paths at which keys were handed out.
    """

    moto: str
    url: str = ""
    key: str = "AKIAROLE"
    signed: list[tuple[str, str, str | None]] = field(default_factory=list)
    handed: list[str] = field(default_factory=list)

    def keys(self) -> bytes:
        """Keys of an hour, as both kinds of service write them."""
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        told = {
            "Code": "Success",
            "AccessKeyId": self.key,
            "SecretAccessKey": "s" * 40,
            "Token": "token-of-the-role",
            "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return json.dumps(told).encode()


def handler(aws: Aws) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            if self.path == "/latest/api/token":
                self.answer(200, b"session", {"X-aws-ec2-metadata-token-ttl-seconds": "21600"})
            else:
                self.pass_on()

        def do_GET(self) -> None:
            if self.path == "/task":
                self.hand_out(self.headers["Authorization"] == TASK_TOKEN)
            elif self.path.startswith("/latest/meta-data/"):
                self.metadata(self.headers["X-aws-ec2-metadata-token"] == "session")  # version 2 wants it
            else:
                self.pass_on()

        def metadata(self, has_token: bool) -> None:
            if self.path == METADATA:
                self.hand_out(has_token)
            else:
                self.answer(200 if has_token else 401, ROLE.encode())

        def hand_out(self, welcome: bool) -> None:
            if not welcome or not aws.key:
                self.answer(403, b"{}")
                return
            aws.handed.append(self.path)
            self.answer(200, aws.keys())

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            key, _, _, service, *_ = [
                *self.headers.get("Authorization", "").partition("Credential=")[2].split("/"),
                *[""] * 4,
            ]
            aws.signed.append((service, key, self.headers.get("X-Amz-Security-Token")))
            request = urllib.request.Request(
                aws.moto + self.path, body or None, dict(self.headers.items()), method=self.command
            )
            try:
                with urllib.request.urlopen(request) as said:
                    self.answer(said.status, said.read(), dict(said.headers.items()))
            except urllib.error.HTTPError as error:
                self.answer(error.code, error.read(), dict(error.headers.items()))

        do_POST = do_HEAD = pass_on  # noqa: N815 - the base class looks for these names

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            own = {"content-length", "transfer-encoding", "connection", "date", "server"}
            for name, value in (headers or {"Content-Type": "application/json"}).items():
                if name.lower() not in own:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def aws(no_aws: None, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """An AWS with a secret and a bucket, at which keys in no variable and no file are asked for."""
    made = Aws(moto_endpoint)
    told = {"region_name": REGION, "aws_access_key_id": "admin", "aws_secret_access_key": "admin"}
    urllib.request.urlopen(f"{moto_endpoint}/moto-api/reset", b"").close()
    admin = boto3.session.Session(**told)
    admin.client("secretsmanager", endpoint_url=moto_endpoint).create_secret(
        Name="kafka", SecretString=json.dumps(SECRET)
    )
    admin.client("s3", endpoint_url=moto_endpoint).create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(made)) as server:
        server.daemon_threads = True
        made.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        yield made
        server.shutdown()


@pytest.fixture(params=["task", "instance"])
def role(request: pytest.FixtureRequest, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the environment of such a machine says; where its keys are handed out."""
    if request.param == "task":
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{aws.url}/task")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", TASK_TOKEN)
        return "/task"
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.url)
    return METADATA


def stanzas(aws: Aws) -> Configuration:
    return parse(f"""
        [source.x]
        type = "kafka"
        bootstrap_servers = "kafka.example.org:9092"
        security = "sasl-scram-sha-512"
        secret_name = "kafka"
        region = "{REGION}"
        [store.x]
        type = "s3"
        endpoint = "{aws.url}"
        region = "{REGION}"
        bucket = "{BUCKET}"
    """)


def test_the_keys_of_a_role_open_the_secret(aws: Aws, role: str) -> None:
    stanza = stanzas(aws).source("x")
    assert isinstance(stanza, KafkaSourceStanza)
    login = stanza.login({})
    assert login is not None
    assert login.password.get_secret_value() == SECRET["password"]
    assert set(aws.handed) == {role}
    assert aws.signed == [("secretsmanager", "AKIAROLE", "token-of-the-role")]


def test_the_keys_of_a_role_open_the_store(aws: Aws, role: str) -> None:
    store = open_store("x", stanzas(aws).store("x"), {})
    store.check()
    assert store.create([NewObject("a/b.bson", b"bytes")]) == [Created.NEW]
    assert [one.key for one in store.listing()] == ["a/b.bson"]
    store.close()
    assert set(aws.handed) == {role}
    assert set(aws.signed) == {("s3", "AKIAROLE", "token-of-the-role")}


def test_a_role_that_is_refused_its_keys_is_told_as_missing_credentials(aws: Aws, role: str) -> None:
    aws.key = ""
    with pytest.raises(ForbiddenError, match="credentials"):
        open_store("x", stanzas(aws).store("x"), {}).check()
    assert aws.signed == []
